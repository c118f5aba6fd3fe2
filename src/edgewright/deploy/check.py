"""`bundle check`: is a bundle what its manifest says, and does it still give its golden results?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.artifact_files import read_artifact
from edgewright.bundle_files import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    Manifest,
    find_files,
    read_bounded,
    read_manifest,
)
from edgewright.core.artifact import Artifact
from edgewright.core.errors import EdgewrightError, IntegrityError
from edgewright.core.progress import Progress, silent
from edgewright.core.tensors import Array, TensorSpec
from edgewright.deploy import registry
from edgewright.deploy.golden import (
    Case,
    cases_text,
    compare_result,
    compare_tensor,
    read_golden,
)
from edgewright.deploy.manifest import added_files, changed_files, digest_problem
from edgewright.deploy.signing import SIGNATURE_BYTES, is_signed_by, read_public_key
from edgewright.prediction import ARTIFACT_SUFFIXES, Predictor
from edgewright.processing.processor import Plan, Processor, Signature, plan
from edgewright.processing.specification import read_specification
from edgewright.processing.streaming import stream_input

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_MAX_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class CheckRow:
    """One thing that was looked at; `problems` is empty where it is right, `note` says what was not looked at."""

    what: str
    problems: tuple[str, ...] = ()
    note: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "what": self.what,
            "ok": not self.problems,
            "problems": list(self.problems),
            "note": self.note,
        }


@dataclass(frozen=True, kw_only=True)
class BundleCheck:
    """All that was looked at in a bundle."""

    folder: Path
    rows: tuple[CheckRow, ...]

    @property
    def exit_code(self) -> int:
        """0 when all is right, else that of an IntegrityError."""
        return IntegrityError.exit_code if any(row.problems for row in self.rows) else 0

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "folder": str(self.folder),
            "ok": self.exit_code == 0,
            "rows": [row.to_json() for row in self.rows],
        }


def check_bundle(folder: Path, *, key: Path | None = None, progress: Progress = silent) -> BundleCheck:
    """Return what is right and what is wrong with the bundle in `folder`: digests, signature, golden cases, platform.

    Nothing of a bundle is run before its digests are right, and its signature where there is a `key`.

    Args:
        key: a PEM file with the public Ed25519 key of who is to have made the bundle.
    Raises:
        UsageError, IntegrityError: it is no bundle at all, or `key` is no key.
    """
    public = None if key is None else read_public_key(key)
    manifest = read_manifest(folder)
    progress("bundle", "digests", "running")
    rows = [_manifest_row(folder, manifest, public), _files_row(folder, manifest)]
    progress("bundle", "digests", "done")
    if not any(row.problems for row in rows):
        progress("bundle", "golden", "running")
        rows += _rows_of("models, processing, golden cases", lambda: _model_rows(folder, manifest))
        progress("bundle", "golden", "done")
        rows += _rows_of("platform", lambda: _platform_rows(folder, manifest))
    return BundleCheck(folder=folder, rows=tuple(rows))


def compare_case(
    checked: Plan, case: Case, tensors: Mapping[str, Array], results: Mapping[str, Array]
) -> list[str]:
    """Return how tensors and results differ from those of a golden case, a line each."""
    problems = [
        f"the {what} {sorted(have)} are golden, but {sorted(want)} are expected"
        for what, have, want in (
            ("tensors", set(case.tensors), set(tensors)),
            ("results", set(case.results), set(results)),
        )
        if have != want
    ]
    if not problems:
        sides = [max(array.shape[:2]) for array in case.raw.values() if array.ndim == 3]
        problems += [compare_tensor(name, want, tensors[name]) for name, want in case.tensors.items()]
        for name, array in case.results.items():
            kind = checked.results[name].kind
            problems.append(compare_result(name, kind, array, results[name], side=max(sides, default=1)))
    return [f"{case.name}: {problem}" for problem in problems if problem]


def _manifest_row(folder: Path, manifest: Manifest, public: Ed25519PublicKey | None) -> CheckRow:
    """Return whether the manifest is as it was written, and, with a key, by whom."""
    path = folder / SIGNATURE_NAME
    is_signed = path.is_file() and not path.is_symlink()
    problems = [text for text in [digest_problem(folder, manifest)] if text]
    if public is None:
        note = "signed, but by whom is not verified: give --key" if is_signed else "not signed"
        return CheckRow(what=MANIFEST_NAME, problems=tuple(problems), note=note)
    if not is_signed:
        problems.append(f"{SIGNATURE_NAME} is missing: the bundle is not signed")
    elif not is_signed_by(public, read_bounded(path, SIGNATURE_BYTES), manifest.data):
        problems.append(f"{SIGNATURE_NAME} is not the signature of {MANIFEST_NAME} by this key")
    return CheckRow(what=f"{MANIFEST_NAME} and its signature", problems=tuple(problems))


def _files_row(folder: Path, manifest: Manifest) -> CheckRow:
    added, left = added_files(folder, manifest)
    problems = changed_files(folder, manifest)
    problems += [f"{name!r} is not of the bundle. Remove it." for name in added[:_MAX_LISTED]]
    if len(added) > _MAX_LISTED:
        problems.append(f"{len(added) - _MAX_LISTED} more files are not of the bundle")
    note = f"{len(left)} files that tools leave are not looked at, such as {left[0]}" if left else ""
    return CheckRow(
        what=f"digests of {len(manifest.files)} files",
        problems=tuple(" ".join(problem.split()) for problem in problems),
        note=note,
    )


def _rows_of(what: str, look: Callable[[], list[CheckRow]]) -> list[CheckRow]:
    try:
        return look()
    except EdgewrightError as err:
        return [CheckRow(what=what, problems=(str(err),))]


def _model_rows(folder: Path, manifest: Manifest) -> list[CheckRow]:
    """Return the rows of the models' signature, the processing, and the golden cases.

    Raises:
        EdgewrightError: the manifest, the processing or the golden cases are not what they must be.
    """
    found = find_files(folder, manifest)
    artifacts = found.artifacts
    problems = [
        f"{name or artifact.path.name}: {text}"
        for name, artifact in artifacts.items()
        if (text := _signature_problem(artifact))
    ]
    rows = [CheckRow(what="the models' own signatures against the manifest", problems=tuple(problems))]
    if problems:
        return rows
    signatures = {name: Signature(inputs=a.inputs, outputs=a.outputs) for name, a in artifacts.items()}
    checked = plan(read_specification(found.processing), signatures)
    rows.append(CheckRow(what="processing against the signatures"))
    cases = read_golden(found.golden)
    problems = [] if cases else ["there is none, so that nothing was compared. Make the bundle again."]
    with Predictor(checked, artifacts) as predictor:
        for case in cases:
            problems += compare_case(checked, case, *_run(predictor, case))
    rows.append(CheckRow(what=f"{cases_text(len(cases))} in Python", problems=tuple(problems)))
    return rows


def _platform_rows(folder: Path, manifest: Manifest) -> list[CheckRow]:
    platform = registry.platform(str(manifest.record.get("platform")))
    project = registry.PROJECT_FILES[platform.name]
    if project not in manifest.files:
        raise IntegrityError(
            f"the manifest says that this is a bundle for {platform.name}, but it has no {project}."
        )
    own = platform.inspect(folder)
    return [CheckRow(what=what, problems=tuple(problems)) for what, problems in own.items()]


def _signature_problem(artifact: Artifact) -> str:
    """Return how inputs and outputs of the file are not those of the manifest; empty where they are.

    Names count where the runtime goes by them. A package of Core ML is held against its record when it is opened.
    """
    if artifact.path.suffix not in ARTIFACT_SUFFIXES:
        return ""
    own = read_artifact(artifact.path)
    if set(own.files) != set(artifact.files):
        return f"it consists of {_names(own.files)}, but the manifest says {_names(artifact.files)}"
    for what, have, want in (
        ("inputs", own.inputs, artifact.inputs),
        ("outputs", own.outputs, artifact.outputs),
    ):
        if _ends(have, artifact) != _ends(want, artifact):
            return f"its {what} are {_texts(have)}, but the manifest says {_texts(want)}"
    return ""


def _ends(specs: Sequence[TensorSpec], artifact: Artifact) -> list[tuple[object, ...]]:
    has_names = artifact.target.runtime == "onnxruntime"
    return [(spec.shape, spec.dtype, spec.name if has_names else "") for spec in specs]


def _texts(specs: Sequence[TensorSpec]) -> str:
    return "; ".join(str(spec) for spec in specs)[:200]


def _names(files: Sequence[Path]) -> str:
    return ", ".join(sorted(file.name for file in files))[:200]


def _run(predictor: Predictor, case: Case) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    raw = {name: np.asarray(array) for name, array in case.raw.items()}
    first = dict(raw)
    streamed = stream_input(predictor.plan)
    if streamed is not None:
        first[streamed.name] = raw[streamed.name][: streamed.samples]
    return Processor(predictor.plan).prepare(first), predictor.arrays(raw, is_joined=False)
