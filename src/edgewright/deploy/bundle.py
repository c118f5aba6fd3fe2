"""Make a bundle: choose the artifact, prepare what every platform needs, let the platform write, prove, sign off."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from edgewright.artifact_files import RECORD_NAME, read_artifact
from edgewright.core.errors import FormatMismatchError, UnknownNameError, UsageError
from edgewright.core.progress import Progress, silent
from edgewright.core.result import Status
from edgewright.core.tensors import Array
from edgewright.deploy import registry
from edgewright.deploy.bom import write_bom
from edgewright.deploy.golden import MAX_CASES, Case
from edgewright.deploy.manifest import write_manifest
from edgewright.deploy.names import check_name, check_version
from edgewright.deploy.readme import tell_proofs
from edgewright.deploy.records import Content, Platform, Written
from edgewright.deploy.signing import read_signer
from edgewright.prediction import Predictor, find_inputs, load
from edgewright.processing.processor import Plan, Processor, Raw
from edgewright.processing.specification import Specification
from edgewright.processing.streaming import stream_input
from edgewright.processing.synthetic import synthetic_raw, synthetic_shape
from edgewright.report.records import RESULTS_NAME, read_results

# Odd sizes: what holds for even ones only shall fail.
_SYNTHETIC_IMAGES = ((321, 243), (97, 181))
_GOLDEN_HOPS = 32  # of a stream


@dataclass(frozen=True, kw_only=True)
class BundleRequest:
    """What the user asked for.

    Attributes:
        source: the folder of a build, of an artifact, a model file, or a folder with a `processing.toml`.
        platform: android, ios, linux, cpp or web.
        samples: files for golden cases, as `predict` takes them; synthetic inputs where there are none.
        licence: of the model, an SPDX expression; empty where it is not known.
        options: of the platform, NAME=VALUE.
        sign: a PEM file with a private Ed25519 key, which signs the manifest.
    """

    source: Path
    platform: str
    name: str
    version: str = "1.0.0"
    processing: str = ""
    labels: Path | None = None
    samples: tuple[str, ...] = ()
    licence: str = ""
    options: tuple[str, ...] = ()
    sign: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that was written; `record` is what its manifest says above the digests, `content` what it is made of."""

    folder: Path
    record: Mapping[str, object]
    written: Written
    content: Content

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {"folder": str(self.folder), **self.record}


def make_bundle(request: BundleRequest, out: Path, *, progress: Progress = silent) -> Bundle:
    """Write the bundle into the new folder `out`, which appears when it is complete and proven.

    Raises:
        UsageError: a name, an option or an input that is not right, or `out` exists.
        FormatMismatchError: no artifact of a runtime that the platform takes.
        ConversionError: the bundle does not build here, or fails its own test.
    """
    platform = registry.platform(request.platform)
    check_name(request.name)
    check_version(request.version)
    options = _options(request.options, platform)
    sign = None if request.sign is None else read_signer(request.sign)
    if out.exists():
        raise UsageError(f"{out} exists already, and nothing is replaced. Remove it, or give another --out.")
    source = choose_artifact(request.source, platform)
    progress(request.platform, "golden", "running")
    with load(source, processing=request.processing or None, labels=request.labels) as predictor:
        _check_runtime(predictor, platform)
        cases = _cases(predictor, request.samples)
        content = Content(
            name=request.name,
            version=request.version,
            plan=predictor.static_plan(),
            artifacts=predictor.artifacts,
            cases=cases,
            options=options,
        )
    progress(request.platform, "golden", "done")
    with _aside(out) as folder:
        progress(request.platform, "write", "running")
        written = platform.write(content, folder)
        progress(request.platform, "write", "done")
        progress(request.platform, "prove", "running")
        proofs = (*written.proofs, *platform.prove(content, folder))
        progress(request.platform, "prove", "done")
        tell_proofs(folder, proofs, written.notes)
        record = _record(request, content, written, proofs)
        write_bom(
            content,
            written.components,
            folder,
            version=metadata.version("edgewright"),
            licence=request.licence,
            files=content.model_files(),
        )
        write_manifest(folder, record, sign=sign)
    return Bundle(folder=out, record=record, written=written, content=content)


def choose_artifact(source: Path, platform: Platform) -> Path:
    """Return the artifact to ship: of a build's folder the recommended one where the platform runs it, else the best.

    Raises:
        FormatMismatchError: the build has none that is ok and that the platform runs.
    """
    if not (source / RESULTS_NAME).is_file():
        return source
    summary = read_results(source)
    fitting: list[tuple[int, float, str]] = []
    for row in summary.results:
        folder = source / "artifacts" / row.id.rpartition("-")[0]
        if row.status not in (Status.OK, Status.INTERPRETED) or not (folder / RECORD_NAME).is_file():
            continue
        runtime = read_artifact(folder).target.runtime
        if runtime in platform.runtimes:
            if row.id == summary.recommended:
                return folder
            fitting.append((platform.runtimes.index(runtime), row.p50_ms or math.inf, str(folder)))
    if not fitting:
        raise FormatMismatchError(
            f"{source} has no artifact that is ok and that {platform.name} runs ({', '.join(platform.runtimes)}). "
            f"Build one: edgewright build MODEL --to {platform.runtimes[0]}."
        )
    return Path(min(fitting)[2])


def _options(texts: Sequence[str], platform: Platform) -> dict[str, str]:

    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise UsageError(f"option {text!r} of {platform.name} is not NAME=VALUE.")
        if name not in platform.options:
            raise UnknownNameError.of(f"option of {platform.name}", name, platform.options)
        found[name] = value
    return found


def _check_runtime(predictor: Predictor, platform: Platform) -> None:
    runtimes = {artifact.target.runtime for artifact in predictor.artifacts.values()}
    if len(runtimes) != 1 or not runtimes <= set(platform.runtimes):
        first, *others = platform.runtimes
        instead = f" (or --to {', '.join(others)})" if others else ""
        raise FormatMismatchError(
            f"the models are for {', '.join(sorted(runtimes))}, but a bundle for {platform.name} takes one of "
            f"{', '.join(platform.runtimes)}. Convert them: edgewright convert MODEL --to {first} --out DIR{instead}."
        )


def _cases(predictor: Predictor, samples: Sequence[str]) -> tuple[Case, ...]:
    """Return golden cases of the samples, or of synthetic inputs."""
    specification = predictor.specification
    named: list[tuple[str, Mapping[str, Raw]]]
    if samples:
        jobs = find_inputs(specification, samples)
        if len(jobs) > MAX_CASES:
            raise UsageError(f"{len(jobs)} samples are given; at most {MAX_CASES} become golden cases.")
        named = [(_shown(Path(next(iter(job.values()))).name), predictor.read(job)) for job in jobs]
    else:
        named = [(f"synthetic {seed}", _synthetic(specification, predictor.plan, seed)) for seed in range(2)]
    return tuple(_case(predictor, name, raw) for name, raw in named)


def _shown(name: str) -> str:
    """Return a file's name as self-tests print it: in any language's code, and in a message."""
    return "".join(sign if sign.isprintable() and sign != "$" else "_" for sign in name)


def _case(predictor: Predictor, name: str, raw: Mapping[str, Raw]) -> Case:
    streamed = stream_input(predictor.plan)
    arrays = {key: np.asarray(value) for key, value in raw.items()}
    first = dict(arrays)
    if streamed is not None:
        hop = streamed.samples
        sound = arrays[streamed.name][: hop * _GOLDEN_HOPS]
        arrays[streamed.name] = sound[: len(sound) // hop * hop]
        first[streamed.name] = sound[:hop]
    outputs: dict[str, Array] = {}
    results = predictor.arrays(arrays, is_joined=False, outputs=outputs)
    tensors = Processor(predictor.plan).prepare(first)
    return Case(name=name, raw=arrays, tensors=tensors, results=results, outputs=outputs)


def _synthetic(specification: Specification, plan: Plan, seed: int) -> dict[str, Array]:
    sides = _SYNTHETIC_IMAGES[seed % len(_SYNTHETIC_IMAGES)]
    return {
        row.name: synthetic_raw(row, seed, synthetic_shape(row, plan, sides=sides, hops=_GOLDEN_HOPS))
        for row in specification.inputs
    }


def _record(
    request: BundleRequest, content: Content, written: Written, proofs: Sequence[str]
) -> dict[str, object]:
    return {
        "name": content.name,
        "version": content.version,
        "platform": request.platform,
        "task": content.plan.specification.task,
        "made_by": f"edgewright {metadata.version('edgewright')}",
        "models": [
            {
                "name": name,
                "files": [f"{name}/{own}" if name else own for own in artifact.names],
                "sha256": artifact.sha256,
                "runtime": artifact.target.runtime,
                "precision": str(artifact.target.precision),
                "inputs": [spec.to_json() for spec in artifact.inputs],
                "outputs": [spec.to_json() for spec in artifact.outputs],
            }
            for name, artifact in content.artifacts.items()
        ],
        "licence": request.licence,
        "places": dict(written.places),
        "golden": [case.name for case in content.cases],
        "sizes": [size.to_json() for size in written.sizes],
        "components": [
            {
                "name": c.name,
                "version": c.version,
                "purl": c.purl,
                "licence": c.licence,
                "is_shipped": c.is_shipped,
            }
            for c in written.components
        ],
        "proofs": list(proofs),
        "notes": list(written.notes),
    }


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """Give an empty folder beside `out`, which becomes `out` on success and is removed on failure."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as err:
        raise UsageError(
            f"cannot write {out}: {err.strerror or err}. Choose another folder with --out."
        ) from err
    try:
        yield folder
        folder.chmod(0o755)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
