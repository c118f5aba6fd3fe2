"""Timing of several opened models in one interleaved run.

Every candidate lives in its own fresh worker process. After its warm-up the candidates take turns, in an order
shuffled each round, block by block: a slow phase of the machine falls on all of them alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgewright.core.errors import EdgewrightError
from edgewright.measure.latency import is_steady
from edgewright.workers.pool import Worker

_TIME_BLOCK = "edgewright.measure.operations:time_block"


@dataclass(frozen=True, kw_only=True)
class TimingSettings:
    """How long to measure.

    Attributes:
        rounds: blocks per candidate.
        block_ms: length of a block; at least `min_samples` inferences whatever they take.
        warm_up_ms: upper limit of the warm-up of one candidate, which ends earlier when steady.
    """

    rounds: int = 30
    block_ms: float = 12.0
    min_samples: int = 3
    warm_up_ms: float = 600.0
    seed: int = 0


@dataclass(kw_only=True)
class Timing:
    """Samples of one candidate: one inner list per block."""

    wall_ns: list[list[int]] = field(default_factory=list)
    cpu_ns: list[list[int]] = field(default_factory=list)
    energy_mj: list[float] = field(default_factory=list)
    warm_up_blocks: int = 0
    was_steady: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return dict(vars(self))


def time_interleaved(
    workers: Mapping[str, Worker],
    settings: TimingSettings,
    on_progress: Callable[[str, str], None] = lambda name, step: None,
) -> dict[str, Timing | EdgewrightError]:
    """Return the timing of each worker's opened model; one that fails does not stop the others.

    Args:
        workers: name -> worker in which `measure.operations:open_artifact` has run.
        on_progress: called with a name and "warm-up" or "round k/n".
    """
    outcomes: dict[str, Timing | EdgewrightError] = {}
    for name, worker in workers.items():
        on_progress(name, "warm-up")
        try:
            outcomes[name] = _warm_up(worker, settings)
        except EdgewrightError as err:
            outcomes[name] = err
    order = [name for name, outcome in outcomes.items() if isinstance(outcome, Timing)]
    shuffle = random.Random(settings.seed)
    for turn in range(settings.rounds):
        shuffle.shuffle(order)
        for name in tuple(order):
            timing = outcomes[name]
            assert isinstance(timing, Timing)
            on_progress(name, f"round {turn + 1}/{settings.rounds}")
            try:
                block = _block(workers[name], settings)
            except EdgewrightError as err:
                outcomes[name] = err
                order.remove(name)
                continue
            timing.wall_ns.append(block.wall_ns)
            timing.cpu_ns.append(block.cpu_ns)
            if block.energy_mj is not None:
                timing.energy_mj.append(block.energy_mj)
    return outcomes


@dataclass(frozen=True, kw_only=True)
class _Block:
    wall_ns: list[int]
    cpu_ns: list[int]
    energy_mj: float | None


def _block(worker: Worker, settings: TimingSettings) -> _Block:
    answer = worker.call(
        _TIME_BLOCK, {"count": settings.min_samples, "budget_ns": int(settings.block_ms * 1e6)}
    )
    wall, cpu, energy = answer["wall_ns"], answer["cpu_ns"], answer["energy_mj"]
    assert isinstance(wall, list)
    assert isinstance(cpu, list)
    return _Block(wall_ns=wall, cpu_ns=cpu, energy_mj=energy if isinstance(energy, float) else None)


def _warm_up(worker: Worker, settings: TimingSettings) -> Timing:
    timing = Timing()
    medians: list[float] = []
    spent_ns = 0
    while not timing.was_steady and spent_ns < settings.warm_up_ms * 1e6:
        wall = sorted(_block(worker, settings).wall_ns)
        spent_ns += sum(wall)
        medians.append(float(wall[len(wall) // 2]))
        timing.warm_up_blocks += 1
        timing.was_steady = is_steady(medians)
    return timing
