"""Steps on the scores of a stream, run after run: means, and detections that do not flicker."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.step import Frame, Step, floats
from edgewright.processing.values import ValueType

_MAX_STATE = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Smooth(Step):
    """The mean of the scores of the last runs, then the largest such mean of the last `hold` runs.

    In float32, added from the oldest to the newest; a stream's first runs have as many as there are. The state is
    float32 [1 + runs + hold, n]: the number of runs so far (in its first element), the scores, then the means, the
    newest last.

    Attributes:
        runs: that the mean is of.
        hold: runs for which a high mean stays.
    """

    name: ClassVar[str] = "smooth"
    runs: int = 1
    hold: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.runs <= 10_000 or not 1 <= self.hold <= 10_000:
            raise UsageError(
                f"step 'smooth' has runs {self.runs} and hold {self.hold}; 1..10000 is expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        size = have.shape[0] if len(have.shape) == 1 else None
        if have.dtype != "float32" or not size:
            raise self.refuse(given, "one float32 score for each class")
        if size * (1 + self.runs + self.hold) > _MAX_STATE:
            raise self.refuse(
                given, f"at most {_MAX_STATE // (1 + self.runs + self.hold)} scores for so many runs"
            )
        return have

    def initial(self, given: tuple[ValueType, ...]) -> Array | None:
        return np.zeros((1 + self.runs + self.hold, given[0].shape[0] or 0), dtype=np.float32)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        state = frame.state
        assert state is not None
        count = min(int(state[0, 0]) + 1, max(self.runs, self.hold))
        scores = np.concatenate([state[2 : 1 + self.runs], floats(values[0])[None]])
        total = np.zeros_like(scores[0])
        for row in scores[max(self.runs - count, 0) :]:
            total = total + row
        mean = total / np.float32(min(count, self.runs))
        means = np.concatenate([state[2 + self.runs :], mean[None]])
        head = np.zeros_like(state[:1])
        head[0, 0] = count
        frame.state = np.concatenate([head, scores, means])
        return np.asarray(means[max(self.hold - count, 0) :].max(axis=0))


@dataclass(frozen=True, kw_only=True)
class Threshold(Step):
    """Scores to 1 (on) and 0 (off), float32, with memory: on after `min_runs` runs at `on` or above, off below `off`.

    The state is float32 [3, n]: on or off, runs at `on` or above, runs below `off`, each in a row.

    Attributes:
        on: the score that turns on.
        off: the score below which it turns off; `on` where it is not given.
        min_runs: runs in a row that must reach `on`.
        off_runs: runs in a row that must be below `off`.
    """

    name: ClassVar[str] = "threshold"
    on: float = 0.5
    off: float | None = None
    min_runs: int = 1
    off_runs: int = 1

    def __post_init__(self) -> None:
        if self.off is not None and self.off > self.on:
            raise UsageError(
                f"step 'threshold' has off {self.off} above on {self.on}; at most {self.on} is expected."
            )
        if not 1 <= self.min_runs <= 100_000 or not 1 <= self.off_runs <= 100_000:
            raise UsageError(
                f"step 'threshold' has min_runs {self.min_runs} and off_runs {self.off_runs}; 1..100000 is expected."
            )
        if not math.isfinite(self.on):
            raise UsageError("step 'threshold' has no finite `on`.")

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.dtype != "float32" or len(have.shape) != 1 or have.shape[0] in (None, 0):
            raise self.refuse(given, "one float32 score for each class")
        return replace(have, classes=have.shape[0])

    def initial(self, given: tuple[ValueType, ...]) -> Array | None:
        return np.zeros((3, given[0].shape[0] or 0), dtype=np.float32)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        state, scores = frame.state, floats(values[0])
        assert state is not None
        on, off = np.float32(self.on), np.float32(self.on if self.off is None else self.off)
        # Counts stop where they say enough: float32 counts only so far.
        above = np.where(scores >= on, np.minimum(state[1] + 1, self.min_runs), 0)
        below = np.where(scores < off, np.minimum(state[2] + 1, self.off_runs), 0)
        lit = np.where(above >= self.min_runs, 1, np.where(below >= self.off_runs, 0, state[0]))
        frame.state = np.stack([lit, above, below]).astype(np.float32)
        return lit.astype(np.float32)
