"""Compare the latency of artifacts: interleaved, in several launches of fresh processes, with intervals."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgewright.artifact_files import read_artifact, require_runnable
from edgewright.bundle_files import is_bundle, open_bundle
from edgewright.core.artifact import Artifact
from edgewright.core.errors import DataError, EdgewrightError, UsageError
from edgewright.core.files import work_folder
from edgewright.core.progress import Progress, silent
from edgewright.core.tensors import Array, Arrays
from edgewright.data.synthetic import synthetic_inputs
from edgewright.measure.end_to_end import (
    BuiltProcessing,
    Stages,
    build_processing,
    open_around,
    read_stages,
    summarise_stages,
)
from edgewright.measure.latency import Design, LatencyComparison, LatencySummary, compare_latency, summarise
from edgewright.measure.timing import TimingSettings, time_interleaved
from edgewright.prediction import load, specify
from edgewright.processing.processor import Plan
from edgewright.processing.raw import read_raw
from edgewright.processing.specification import PROCESSING_NAME
from edgewright.processing.streaming import stream_input
from edgewright.processing.synthetic import synthetic_raw, synthetic_shape
from edgewright.report.environment import describe_host
from edgewright.workers.pool import Worker

Given = TypeVar("Given")
_SAMPLES = 16
_MAX_ARTIFACTS = 64
END_TO_END = ", end to end"  # behind an artifact's name
_SIDES = (480, 640)  # of a synthetic image: a camera's
_RAW_INPUTS = 4
_MAX_HOPS = 64


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Candidate `name` against `base`: `latency.ratio` above 1 means that `name` is slower."""

    base: str
    name: str
    latency: LatencyComparison

    @property
    def text(self) -> str:
        """The verdict in words."""
        low, high = self.latency.ci95
        if self.latency.verdict == "no difference":
            interval = f"ratio {self.latency.ratio:.3f}, 95 % {low:.3f}..{high:.3f}"
            return f"{self.name}: no difference from {self.base} ({interval})"
        word = "slower" if self.latency.verdict == "a faster" else "faster"
        return f"{self.name} is {word} than {self.base}: ratio {self.latency.ratio:.3f} (95 % {low:.3f}..{high:.3f})"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Latency of every artifact, and each one compared with the first.

    Attributes:
        latencies: of the inference alone.
        end_to_end: from a raw input to the result, of the artifacts with a processing: set inputs, prepare, run,
            finish, read results.
        stages: where the time of each of these goes.
        unprocessed: name -> why an artifact with a processing was not timed end to end.
    """

    latencies: Mapping[str, LatencySummary]
    comparisons: tuple[Comparison, ...]
    memory_bytes: Mapping[str, int | None]
    end_to_end: Mapping[str, LatencySummary] = field(default_factory=dict)
    stages: Mapping[str, Stages] = field(default_factory=dict)
    unprocessed: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "latency_ms": {name: asdict(summary) for name, summary in self.latencies.items()},
            "end_to_end_ms": {name: asdict(summary) for name, summary in self.end_to_end.items()},
            "stages_ms": {name: asdict(stages) for name, stages in self.stages.items()},
            "not_end_to_end": dict(self.unprocessed),
            "memory_bytes": dict(self.memory_bytes),
            "comparisons": [
                {
                    "base": c.base,
                    "name": c.name,
                    "ratio": c.latency.ratio,
                    "ci95": list(c.latency.ci95),
                    "launches": c.latency.launches,
                    "verdict": c.latency.verdict,
                }
                for c in self.comparisons
            ],
            "conditions": dict(self.conditions),
        }


def bench(
    paths: Sequence[Path],
    *,
    threads: int | None = None,
    launches: int = 8,
    seed: int = 0,
    sample: Path | None = None,
    progress: Progress = silent,
) -> Benchmark:
    """Return the latency of the artifacts or bundles at `paths`, all measured in the same launches, compared.

    Each launch starts a fresh process per artifact and lets them take turns, block by block. Inputs are synthetic:
    the time of a runtime on a CPU hardly depends on the values. An artifact with a `processing.toml` beside it is timed
    a second time end to end, in a process of its own: from a raw input to the result, the processing in C; alone it
    gets the tensors that the processing makes.

    Args:
        threads: replaces what the artifacts' records say; the processing has one.
        launches: replications; below 3 nothing can be compared.
        sample: a file, such as an image or a WAV, that is run end to end; default: synthetic.
    Raises:
        UsageError: no artifact, too many, too few launches, or a sample that no artifact takes.
        EdgewrightError: an artifact cannot be opened or run.
    """
    if not 1 <= len(paths) <= _MAX_ARTIFACTS:
        raise UsageError(f"bench takes 1..{_MAX_ARTIFACTS} artifacts, but got {len(paths)}.")
    if launches < 3:
        raise UsageError(f"launches is {launches}; at least 3 are needed for an interval.")
    named = _names(paths)
    artifacts = {name: _read(path, threads) for name, path in named.items()}
    for artifact in artifacts.values():
        require_runnable(artifact, is_timed=True)
    with work_folder() as folder:
        built = _build_all(named, artifacts, sample, folder)
        processed = {name: found for name, found in built.items() if isinstance(found, BuiltProcessing)}
        found = bench_artifacts(
            artifacts, launches=launches, seed=seed, progress=progress, processed=processed
        )
    return replace(found, unprocessed={n: why for n, why in built.items() if isinstance(why, str)})


def bench_artifacts(
    artifacts: Mapping[str, Artifact],
    *,
    launches: int = Design.launches,
    seed: int = 0,
    progress: Progress = silent,
    open_one: Callable[[Worker, Artifact, Path], int | None] | None = None,
    processed: Mapping[str, BuiltProcessing] | None = None,
) -> Benchmark:
    """Like `bench`, for artifact records by name. `open_one` opens an artifact in a worker; the default is ours.

    Artifacts of one thread all run on the same core: two cores of a shared machine differ more than 5 %.
    """
    core = _shared_core(artifacts)
    opener = open_one or open_in
    around = dict(processed or {})
    with work_folder() as folder:
        candidates: dict[str, _Candidate] = {}
        for index, (name, artifact) in enumerate(artifacts.items()):
            place = folder / str(index)
            if name in around:
                _save_tensors(artifact, around[name].tensors, place)
            else:
                save_inputs(artifact, place, seed)
            candidates[name] = _Candidate(artifact=artifact, open=_opening(opener, artifact, place))
        for name, built in around.items():
            opening = _opening(open_around, artifacts[name], built)
            candidates[name + END_TO_END] = _Candidate(
                artifact=artifacts[name], open=opening, is_end_to_end=True
            )
        samples = _time_launches(candidates, core=core, launches=launches, seed=seed, progress=progress)
    names, threads = list(artifacts), {name: a.target.threads for name, a in artifacts.items()}
    ends = [name for name in names if name in around]
    return Benchmark(
        latencies={name: samples[name].summary(threads[name]) for name in names},
        end_to_end={name: samples[name + END_TO_END].summary(threads[name]) for name in ends},
        stages={name: summarise_stages(samples[name + END_TO_END].stages) for name in ends},
        comparisons=(
            *_compare_with_first(samples, names),
            *_compare_with_first(samples, [name + END_TO_END for name in ends]),
        ),
        memory_bytes={name: samples[name].memory_bytes for name in names},
        conditions={
            "host": describe_host(),
            "launches": launches,
            "blocks_per_launch": Design.blocks,
            "inputs": f"synthetic, {_SAMPLES} rotated; with a processing what it makes of the end-to-end inputs",
            "end_to_end_inputs": {name: around[name].description for name in ends},
            "seed": seed,
            "core": "not fixed" if core is None else core,
            "artifacts": {name: artifact.sha256 for name, artifact in artifacts.items()},
            "threads": threads,
        },
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidate:
    """What takes its turns; `open` opens it in a worker, and tells the memory that this took."""

    artifact: Artifact
    open: Callable[[Worker], int | None]
    is_end_to_end: bool = False


def _opening(
    opener: Callable[[Worker, Artifact, Given], int | None], artifact: Artifact, given: Given
) -> Callable[[Worker], int | None]:
    return lambda worker: opener(worker, artifact, given)


@dataclass(kw_only=True, eq=False)
class _Samples:
    """Of one candidate: launches, blocks, and the nanoseconds of each inference; of one end to end, its stages too."""

    wall_ns: list[list[list[int]]] = field(default_factory=list)
    cpu_ns: list[list[list[int]]] = field(default_factory=list)
    stages: list[tuple[int, int, int]] = field(default_factory=list)
    memory_bytes: int | None = None

    def summary(self, threads: int) -> LatencySummary:
        wall = [np.asarray(block) for launch in self.wall_ns for block in launch]
        cpu = [np.asarray(block) for launch in self.cpu_ns for block in launch]
        return summarise(wall, cpu, threads=threads)


def _time_launches(
    candidates: Mapping[str, _Candidate], *, core: int | None, launches: int, seed: int, progress: Progress
) -> dict[str, _Samples]:
    """Return the times of each candidate, which all take turns in each launch."""
    samples = {name: _Samples() for name in candidates}
    for launch in range(launches):
        with ExitStack() as stack:
            workers = {
                name: stack.enter_context(Worker(name, environment=candidate.artifact.environment))
                for name, candidate in candidates.items()
            }
            for name, candidate in candidates.items():
                progress(name.removesuffix(END_TO_END), f"launch {launch + 1}/{launches}", "running")
                if core is not None:
                    workers[name].call("edgewright.measure.operations:pin_to_core", {"core": core})
                samples[name].memory_bytes = candidate.open(workers[name])
            settings = TimingSettings(
                rounds=Design.blocks, block_ms=5.0, warm_up_ms=300.0, seed=seed + launch
            )
            for name, timing in time_interleaved(workers, settings).items():
                if isinstance(timing, EdgewrightError):
                    raise timing
                samples[name].wall_ns.append(timing.wall_ns)
                samples[name].cpu_ns.append(timing.cpu_ns)
                if candidates[name].is_end_to_end:
                    samples[name].stages += read_stages(workers[name], sum(map(len, timing.wall_ns)))
    return samples


def _build_all(
    paths: Mapping[str, Path], artifacts: Mapping[str, Artifact], sample: Path | None, folder: Path
) -> dict[str, BuiltProcessing | str]:
    """Return the processing of each artifact that has one beside it, built, or why it is not timed.

    Raises:
        UsageError: `sample` is given, but no artifact takes it.
    """
    built: dict[str, BuiltProcessing | str] = {}
    for index, (name, path) in enumerate(paths.items()):
        if not is_bundle(path) and not ((path if path.is_dir() else path.parent) / PROCESSING_NAME).is_file():
            continue
        try:
            built[name] = _build(path, artifacts[name], sample, folder / str(index))
        except EdgewrightError as err:
            built[name] = str(err)
    refusals = [why for why in built.values() if isinstance(why, str)]
    if sample is not None and len(refusals) == len(built):
        why = (
            refusals[0]
            if refusals
            else f"no artifact has a {PROCESSING_NAME} beside it. Write one: edgewright processing MODEL --out DIR."
        )
        raise UsageError(f"--sample {sample} is timed end to end, but {why}")
    return built


def _read(path: Path, threads: int | None) -> Artifact:
    """Return the artifact at `path`; of a bundle its model.

    Raises:
        UsageError: the bundle has several.
    """
    if not is_bundle(path):
        return read_artifact(path, threads=threads)
    models = open_bundle(path).artifacts
    if len(models) != 1:
        raise UsageError(
            f"{path} is a bundle of {len(models)} models, and bench times each alone. Name their files."
        )
    (artifact,) = models.values()
    return (
        artifact if threads is None else replace(artifact, target=replace(artifact.target, threads=threads))
    )


def _build(path: Path, artifact: Artifact, sample: Path | None, folder: Path) -> BuiltProcessing:
    """Return the processing beside the artifact at `path` in C, which has run once around it."""
    checked = specify(path)
    if list(checked.signatures) != [""]:
        raise UsageError(
            f"the processing is of {len(checked.signatures)} models, and bench times each alone."
        )
    raws, description = _raw_inputs(checked, sample)
    if not all(spec.is_static for s in checked.signatures.values() for spec in (*s.inputs, *s.outputs)):
        with load(path) as predictor:
            predictor.arrays(raws[0])
            checked = predictor.static_plan()
    built = build_processing(checked, raws, folder, description=description)
    with Worker(path.name, environment=artifact.environment) as worker:
        open_around(worker, artifact, built)
    return built


def _raw_inputs(checked: Plan, sample: Path | None) -> tuple[list[dict[str, Array]], str]:
    """Return the raw inputs that are run in turns, and what they are; of a stream, a hop each.

    Raises:
        DataError: `sample` cannot be read, or is too short.
        UsageError: the specification takes several inputs, or a text.
    """
    rows = checked.specification.inputs
    if sample is None:
        raws = [
            {row.name: synthetic_raw(row, n, synthetic_shape(row, checked, sides=_SIDES)) for row in rows}
            for n in range(_RAW_INPUTS)
        ]
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in raws[0].items())
        return raws, f"synthetic, {_RAW_INPUTS} rotated: {shapes}"
    if len(rows) != 1:
        raise UsageError(f"--sample is one file, but the specification takes {[row.name for row in rows]}.")
    (row,) = rows
    array = read_raw(row, sample)
    if stream_input(checked) is None:
        return [{row.name: array}], f"{sample.name}: {list(array.shape)}"
    hops = [array[at : at + row.samples] for at in range(0, len(array) - row.samples + 1, row.samples)]
    if not hops:
        raise DataError(f"{sample} has {len(array)} samples, but one run takes {row.samples}.")
    return [{row.name: hop} for hop in hops[:_MAX_HOPS]], f"{sample.name}: hops of {row.samples} samples"


def _shared_core(artifacts: Mapping[str, Artifact]) -> int | None:
    """Return the last core that this process may use, or None where one core would not do or cannot be chosen."""
    if not hasattr(os, "sched_getaffinity") or any(a.target.threads > 1 for a in artifacts.values()):
        return None
    return max(os.sched_getaffinity(0))


def open_in(worker: Worker, artifact: Artifact, folder: Path) -> int | None:
    """Open `artifact` in `worker` with the inputs in `folder`; return the memory that this took."""
    answer = worker.call(
        "edgewright.measure.operations:open_artifact",
        {
            "artifact": artifact.to_json(),
            "target": artifact.target.to_json(),
            "data": str(folder),
            "sources": [spec.to_json() for spec in artifact.inputs],
        },
    )
    memory = answer["memory_bytes"]
    return memory if isinstance(memory, int) else None


def save_inputs(artifact: Artifact, folder: Path, seed: int) -> None:
    """Write synthetic inputs of `artifact` as <i>.npy into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = synthetic_inputs(artifact.inputs, count=_SAMPLES, seed=seed)
    for index, spec in enumerate(artifact.inputs):
        np.save(folder / f"{index}.npy", data.inputs[spec.name], allow_pickle=False)


def _save_tensors(artifact: Artifact, tensors: Sequence[Arrays], folder: Path) -> None:
    """Write `tensors`, each with its batch axis, as <i>.npy [n, ...] into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, spec in enumerate(artifact.inputs):
        np.save(folder / f"{index}.npy", np.stack([each[spec.name] for each in tensors]), allow_pickle=False)


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    """Return a short unique name per path; the same file twice is a fair test of the method."""
    named: dict[str, Path] = {}
    for path in paths:
        parent = path.resolve().parent.name
        short = path.name if path.is_dir() else (f"{parent}/{path.name}" if parent else path.name)
        name, number = short, 2
        while name in named:
            name, number = f"{short} #{number}", number + 1
        named[name] = path
    return named


def _compare_with_first(samples: Mapping[str, _Samples], names: Sequence[str]) -> list[Comparison]:
    return [
        Comparison(
            base=names[0], name=name, latency=_compare(samples[names[0]].wall_ns, samples[name].wall_ns)
        )
        for name in names[1:]
    ]


def _compare(a: list[list[list[int]]], b: list[list[list[int]]]) -> LatencyComparison:
    return compare_latency(
        [[np.asarray(block) for block in launch] for launch in a],
        [[np.asarray(block) for block in launch] for launch in b],
    )
