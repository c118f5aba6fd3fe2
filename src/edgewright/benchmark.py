"""Compare the latency of artifacts: interleaved, in several launches of fresh processes, with intervals."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from edgewright.artifact_files import read_artifact, require_runnable
from edgewright.core.artifact import Artifact
from edgewright.core.errors import EdgewrightError, UsageError
from edgewright.core.files import work_folder
from edgewright.core.progress import Progress, silent
from edgewright.data.synthetic import synthetic_inputs
from edgewright.measure.latency import Design, LatencyComparison, LatencySummary, compare_latency, summarise
from edgewright.measure.timing import TimingSettings, time_interleaved
from edgewright.report.environment import describe_host
from edgewright.workers.pool import Worker

_SAMPLES = 16
_MAX_ARTIFACTS = 64


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
    """Latency of every artifact, and each one compared with the first."""

    latencies: Mapping[str, LatencySummary]
    comparisons: tuple[Comparison, ...]
    memory_bytes: Mapping[str, int | None]
    conditions: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "latency_ms": {name: asdict(summary) for name, summary in self.latencies.items()},
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
    progress: Progress = silent,
) -> Benchmark:
    """Return the latency of the artifacts at `paths`, all measured in the same launches, and their comparison.

    Each launch starts a fresh process per artifact and lets them take turns, block by block. Inputs are synthetic:
    the time of a runtime on a CPU hardly depends on the values.

    Args:
        threads: replaces what the artifacts' records say.
        launches: replications; below 3 nothing can be compared.
    Raises:
        UsageError: no artifact, too many, or too few launches.
        EdgewrightError: an artifact cannot be opened or run.
    """
    if not 1 <= len(paths) <= _MAX_ARTIFACTS:
        raise UsageError(f"bench takes 1..{_MAX_ARTIFACTS} artifacts, but got {len(paths)}.")
    if launches < 3:
        raise UsageError(f"launches is {launches}; at least 3 are needed for an interval.")
    artifacts = {name: read_artifact(path, threads=threads) for name, path in _names(paths).items()}
    for artifact in artifacts.values():
        require_runnable(artifact, is_timed=True)
    return bench_artifacts(artifacts, launches=launches, seed=seed, progress=progress)


def bench_artifacts(
    artifacts: Mapping[str, Artifact],
    *,
    launches: int = Design.launches,
    seed: int = 0,
    progress: Progress = silent,
    open_one: Callable[[Worker, Artifact, Path], int | None] | None = None,
) -> Benchmark:
    """Like `bench`, for artifact records by name. `open_one` opens an artifact in a worker; the default is ours.

    Artifacts of one thread all run on the same core: two cores of a shared machine differ more than 5 %.
    """
    core = _shared_core(artifacts)
    walls: dict[str, list[list[list[int]]]] = {name: [] for name in artifacts}
    cpus: dict[str, list[list[list[int]]]] = {name: [] for name in artifacts}
    memory: dict[str, int | None] = {}
    opener = open_one or open_in
    with work_folder() as folder:
        for name, artifact in artifacts.items():
            save_inputs(artifact, folder / str(list(artifacts).index(name)), seed)
        for launch in range(launches):
            with ExitStack() as stack:
                workers = {
                    name: stack.enter_context(Worker(name, environment=artifact.environment))
                    for name, artifact in artifacts.items()
                }
                for index, (name, artifact) in enumerate(artifacts.items()):
                    progress(name, f"launch {launch + 1}/{launches}", "running")
                    if core is not None:
                        workers[name].call("edgewright.measure.operations:pin_to_core", {"core": core})
                    memory[name] = opener(workers[name], artifact, folder / str(index))
                settings = TimingSettings(
                    rounds=Design.blocks, block_ms=5.0, warm_up_ms=300.0, seed=seed + launch
                )
                for name, timing in time_interleaved(workers, settings).items():
                    if isinstance(timing, EdgewrightError):
                        raise timing
                    walls[name].append(timing.wall_ns)
                    cpus[name].append(timing.cpu_ns)
    names = list(artifacts)
    return Benchmark(
        latencies={name: _summary(walls[name], cpus[name], artifacts[name].target.threads) for name in names},
        comparisons=tuple(
            Comparison(base=names[0], name=name, latency=_compare(walls[names[0]], walls[name]))
            for name in names[1:]
        ),
        memory_bytes=memory,
        conditions={
            "host": describe_host(),
            "launches": launches,
            "blocks_per_launch": Design.blocks,
            "inputs": f"synthetic, {_SAMPLES} rotated",
            "seed": seed,
            "core": "not fixed" if core is None else core,
            "artifacts": {name: artifact.sha256 for name, artifact in artifacts.items()},
            "threads": {name: artifact.target.threads for name, artifact in artifacts.items()},
        },
    )


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


def _summary(wall: list[list[list[int]]], cpu: list[list[list[int]]], threads: int) -> LatencySummary:
    blocks = [np.asarray(block) for launch in wall for block in launch]
    cpu_blocks = [np.asarray(block) for launch in cpu for block in launch]
    return summarise(blocks, cpu_blocks, threads=threads)


def _compare(a: list[list[list[int]]], b: list[list[list[int]]]) -> LatencyComparison:
    return compare_latency(
        [[np.asarray(block) for block in launch] for launch in a],
        [[np.asarray(block) for block in launch] for launch in b],
    )
