"""The latency of a module on a runtime, against another one's, and the MACs that bring it to a target."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgewright.backends import registry
from edgewright.backends.conversion import convert_all
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.errors import ConversionError, EdgewrightError, UnavailableError
from edgewright.core.files import read_json, write_json
from edgewright.core.progress import silent
from edgewright.core.target import Target
from edgewright.data.synthetic import synthetic_inputs
from edgewright.measure.latency import LatencyComparison, compare_latency
from edgewright.measure.timing import TimingSettings, time_interleaved
from edgewright.sources.torch_export import export_module
from edgewright.workers.cache import Cache
from edgewright.workers.pool import Worker

if TYPE_CHECKING:
    from torch import Tensor, nn

LAUNCHES = 3
_SAMPLES = 16
_MAX_PROBES = 7
_NEAR = 0.02
_OPERATIONS = "edgewright.measure.operations"


@dataclass(frozen=True, kw_only=True)
class Found:
    """The share of the MACs whose latency is nearest to the target, and what was measured there.

    Attributes:
        probes: (share of MACs, latency over the original's), as they were measured.
    """

    share: float
    latency: LatencyComparison
    probes: tuple[tuple[float, float], ...]


class Clock(Protocol):
    """Compares modules with an original."""

    def compare(self, module: nn.Module) -> LatencyComparison:
        """Return the latency of `module` over that of the original."""
        ...


class Stopwatch:
    """Measures modules against an original on one runtime, in fresh processes that take turns."""

    def __init__(
        self, original: nn.Module, examples: Sequence[Tensor], *, runtime: str, threads: int, seed: int
    ) -> None:
        """Convert `original`.

        Raises:
            UnknownNameError, UnavailableError, ConversionError: the runtime is not here, or does not take the module.
        """
        registry.get(runtime)
        self._target = Target(runtime=runtime, threads=threads)
        self._examples = examples
        self._seed = seed
        self._folder = tempfile.TemporaryDirectory(prefix="edgewright-")
        self._count = 0
        try:
            self._original = self._convert(original)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Delete the artifacts."""
        self._folder.cleanup()

    def compare(self, module: nn.Module) -> LatencyComparison:
        """Return the latency of `module` over that of the original.

        Raises:
            ConversionError: the runtime does not take it.
        """
        return time_pair(self._original, self._convert(module), seed=self._seed)

    def _convert(self, module: nn.Module) -> Artifact:
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        self._count += 1
        program = export_module(module, self._examples, workdir=folder, origin=type(module).__name__)
        made = convert_all(
            program, [self._target], None, workdir=folder, cache=Cache(root=None), progress=silent
        )
        (conversion,) = made.values()
        if conversion.artifact is None:
            assert conversion.error is not None
            raise conversion.error
        if conversion.artifact.proof is not Proof.RUN:
            raise UnavailableError(
                f"{self._target.runtime} cannot be run here, so its latency cannot be the target. Choose another "
                "runtime, or a target in MACs."
            )
        return conversion.artifact


def remembered(path: Path | None, key: Mapping[str, object], search: Callable[[], float]) -> float:
    """Return the share that an earlier run wrote to `path` for the same `key` (JSON values), or search and write it.

    A run that goes on must get the same layers, and two searches may end at different ones.
    """
    if path is not None and path.is_file():
        try:
            record = read_json(path)
        except EdgewrightError:
            record = {}
        share = record.get("share")
        if record.get("key") == json.loads(json.dumps(key)) and isinstance(share, float) and 0 < share <= 1:
            return share
    share = search()
    if path is not None:
        write_json(path, {"key": dict(key), "share": share})
    return share


def time_pair(
    original: Artifact, other: Artifact, *, seed: int, launches: int = LAUNCHES
) -> LatencyComparison:
    """Return the latency of `other` over that of `original`, from interleaved runs of `launches` pairs of processes."""
    walls: tuple[list[list[list[int]]], list[list[list[int]]]] = ([], [])
    artifacts = {"original": original, "pruned": other}
    # Two cores of a shared machine differ, so both use the same one.
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    is_pinned = core is not None and original.target.threads == 1
    with tempfile.TemporaryDirectory(prefix="edgewright-") as data:
        inputs = synthetic_inputs(original.inputs, count=_SAMPLES, seed=seed).inputs
        for index, spec in enumerate(original.inputs):
            np.save(Path(data) / f"{index}.npy", inputs[spec.name], allow_pickle=False)
        for launch in range(launches):
            with ExitStack() as stack:
                workers = {
                    name: stack.enter_context(Worker(name, environment=artifact.environment))
                    for name, artifact in artifacts.items()
                }
                for name, artifact in artifacts.items():
                    if is_pinned:
                        workers[name].call(f"{_OPERATIONS}:pin_to_core", {"core": core})
                    request = {
                        "artifact": artifact.to_json(),
                        "target": artifact.target.to_json(),
                        "data": data,
                        "sources": [spec.to_json() for spec in artifact.inputs],
                    }
                    workers[name].call(f"{_OPERATIONS}:open_artifact", request)
                settings = TimingSettings(rounds=16, block_ms=6.0, warm_up_ms=300.0, seed=seed + launch)
                timed = time_interleaved(workers, settings)
                for wall, name in zip(walls, artifacts, strict=True):
                    timing = timed[name]
                    if isinstance(timing, EdgewrightError):
                        raise timing
                    wall.append(timing.wall_ns)
    first, second = ([[np.asarray(block) for block in launch] for launch in wall] for wall in walls)
    return compare_latency(first, second)


def find_share(
    prune_to: Callable[[float], nn.Module],
    least: float,
    target: float,
    clock: Clock,
    report: Callable[[str, float | None], None],
) -> Found:
    """Return the share of the MACs at which the latency is `target` x the original's, by the secant method.

    Args:
        prune_to: the module with a share of its MACs; weights do not matter.
        least: the smallest share that is possible.
    Raises:
        ConversionError: not even the smallest module is that fast.
    """
    probes: list[tuple[float, LatencyComparison]] = []

    def probe(share: float) -> float:
        measured = clock.compare(prune_to(share))
        probes.append((share, measured))
        report(
            f"{share:.0%} of the MACs take {measured.ratio:.0%} of the time", len(probes) / (_MAX_PROBES + 1)
        )
        return measured.ratio

    # The time grows with the MACs, not quite in proportion: a guess lies on the line through the two measurements
    # nearest to the target (secant method), or halfway where that leaves what is known to be too slow or too fast.
    slow, fast, share = 1.0, least, max(least, target)
    while len(probes) < _MAX_PROBES:
        ratio = probe(share)
        if abs(ratio - target) <= _NEAR * target:
            break
        if ratio > target and share <= least:
            raise ConversionError(
                f"latency={target:g} cannot be reached on this runtime: with {least:.0%} of the MACs, the least "
                f"that is possible, a call still takes {ratio:.0%} of the original's time."
            )
        slow, fast = (share, fast) if ratio > target else (slow, share)
        known = sorted([(1.0, 1.0), *((s, m.ratio) for s, m in probes)], key=lambda p: abs(p[1] - target))
        (first, time), (second, other) = known[:2]
        guess = first + (target - time) * (second - first) / (other - time) if other != time else slow
        share = guess if fast < guess < slow else (least if guess <= least else (slow + fast) / 2)
    share, latency = min(probes, key=lambda entry: abs(entry[1].ratio - target))
    return Found(
        share=share,
        latency=latency,
        probes=tuple((share, measured.ratio) for share, measured in probes),
    )
