"""`bundle check`: is a bundle what its manifest says, and does it still give its golden results?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.core.artifact import Artifact
from edgewright.core.errors import EdgewrightError, IntegrityError
from edgewright.core.progress import Progress, silent
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array, TensorSpec
from edgewright.deploy import registry
from edgewright.deploy.golden import Case, cases_text, compare_result, compare_tensor, read_golden
from edgewright.deploy.manifest import changed_files, list_files, read_manifest
from edgewright.prediction import Predictor
from edgewright.processing.processor import Plan, Processor, Signature, plan
from edgewright.processing.specification import read_specification
from edgewright.processing.streaming import stream_input


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


def check_bundle(folder: Path, *, progress: Progress = silent) -> BundleCheck:
    """Return what is right and what is wrong with the bundle in `folder`: digests, signature, golden cases, platform.

    Nothing of a bundle is run before its digests are right.

    Raises:
        UsageError, IntegrityError: it is no bundle at all.
    """
    record = read_manifest(folder)
    progress("bundle", "digests", "running")
    changed = changed_files(folder, record)
    digests = CheckRow(
        what=f"digests of {_count(record)} files", problems=tuple(changed), note=_extra(folder, record)
    )
    progress("bundle", "digests", "done")
    if changed:
        return BundleCheck(folder=folder, rows=(digests,))
    rows = [digests]
    progress("bundle", "golden", "running")
    try:
        rows += _golden_rows(folder, record)
    except EdgewrightError as err:
        rows.append(CheckRow(what="golden cases", problems=(str(err),)))
    progress("bundle", "golden", "done")
    own = registry.platform(str(record.get("platform"))).inspect(folder)
    rows += [CheckRow(what=what, problems=tuple(problems)) for what, problems in own.items()]
    return BundleCheck(folder=folder, rows=tuple(rows))


def compare_case(
    checked: Plan, case: Case, tensors: Mapping[str, Array], results: Mapping[str, Array]
) -> list[str]:
    """Return how tensors and results differ from those of a golden case, a line each."""
    problems = [compare_tensor(name, want, tensors[name]) for name, want in case.tensors.items()]
    sides = [max(array.shape[:2]) for array in case.raw.values() if array.ndim == 3]
    for name, want in case.results.items():
        kind = checked.results[name].kind
        problems.append(compare_result(name, kind, want, results[name], side=max(sides, default=1)))
    return [f"{case.name}: {problem}" for problem in problems if problem]


def _golden_rows(folder: Path, record: Mapping[str, object]) -> list[CheckRow]:
    places = record.get("places")
    if not isinstance(places, dict):
        raise IntegrityError(f"{folder} does not say where its model lies. Make the bundle again.")
    artifacts = _artifacts(folder / str(places["model"]), record)
    signatures = {name: Signature(inputs=a.inputs, outputs=a.outputs) for name, a in artifacts.items()}
    checked = plan(read_specification(folder / str(places["processing"])), signatures)
    rows = [CheckRow(what="processing against the model's signature")]
    cases = read_golden(folder / str(places["golden"]))
    problems: list[str] = []
    with Predictor(checked, artifacts) as predictor:
        for case in cases:
            problems += compare_case(checked, case, *_run(predictor, case))
    rows.append(CheckRow(what=f"{cases_text(len(cases))} in Python", problems=tuple(problems)))
    return rows


def _run(predictor: Predictor, case: Case) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    raw = {name: np.asarray(array) for name, array in case.raw.items()}
    first = dict(raw)
    streamed = stream_input(predictor.plan)
    if streamed is not None:
        first[streamed.name] = raw[streamed.name][: streamed.samples]
    return Processor(predictor.plan).prepare(first), predictor.arrays(raw, is_joined=False)


def _artifacts(folder: Path, record: Mapping[str, object]) -> dict[str, Artifact]:
    models = record.get("models")
    if not isinstance(models, list) or not models:
        raise IntegrityError("the manifest names no model. Make the bundle again.")
    try:
        return {
            str(model["name"]): Artifact(
                files=tuple(folder / str(file) for file in model["files"]),
                target=Target(
                    runtime=str(model["runtime"]), precision=Precision.parse(str(model["precision"]))
                ),
                inputs=tuple(TensorSpec.from_json(spec) for spec in model["inputs"]),
                outputs=tuple(TensorSpec.from_json(spec) for spec in model["outputs"]),
                sha256=str(model["sha256"]),
                source_sha256="",
            )
            for model in models
        }
    except (KeyError, TypeError, ValueError, AssertionError) as err:
        raise IntegrityError(
            f"the manifest's models are damaged: {err!r:.120}. Make the bundle again."
        ) from err


def _count(record: Mapping[str, object]) -> int:
    files = record["files"]
    assert isinstance(files, dict)
    return len(files)


def _extra(folder: Path, record: Mapping[str, object]) -> str:
    """Return a note on files that the manifest does not name: what a build leaves behind, or what somebody added."""
    files = record["files"]
    assert isinstance(files, dict)
    extra: Sequence[str] = [name for name in list_files(folder) if name not in files]
    return f"{len(extra)} files are not of the bundle, such as {extra[0]}" if extra else ""
