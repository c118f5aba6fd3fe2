"""Steps on series of measurements: windows in time, and the same range for each channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from edgewright.core.errors import DataError, UsageError
from edgewright.core.tensors import Array
from edgewright.processing.step import Frame, Step, floats
from edgewright.processing.values import ValueType

_MAX_LENGTH = 1 << 20


@dataclass(frozen=True, kw_only=True)
class SeriesWindow(Step):
    """Cut a series into windows: series [time, channels] -> tensor [windows, length, channels].

    Rows after the last whole window are left out. For one window a run, of a stream, use `context`.

    Attributes:
        length: rows of a window.
        hop: rows from the start of a window to that of the next.
    """

    name: ClassVar[str] = "window"
    length: int
    hop: int

    def __post_init__(self) -> None:
        if not 1 <= self.length <= _MAX_LENGTH or not 1 <= self.hop <= _MAX_LENGTH:
            raise UsageError(
                f"step 'window' has length {self.length} and hop {self.hop}; 1..{_MAX_LENGTH} is expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind != "series" or len(have.shape) != 2:
            raise self.refuse(given, "a series [time, channels]")
        time, channels = have.shape
        if time is not None:
            self._check(time)
        windows = None if time is None else 1 + (time - self.length) // self.hop
        return have.of(windows, self.length, channels, kind="tensor")

    def _check(self, time: int) -> None:
        if time < self.length:
            raise DataError(
                f"step 'window' got {time} rows; {self.length} at least are expected. Put 'fit_length' before it."
            )

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        self._check(len(values[0]))
        cut = np.lib.stride_tricks.sliding_window_view(values[0], self.length, axis=0)[:: self.hop]
        return np.ascontiguousarray(cut.swapaxes(1, 2))


@dataclass(frozen=True, kw_only=True)
class Standardise(Step):
    """Subtract a mean and divide by a deviation: y = (x - mean) / std, each rounded to float32.

    Without `mean` and `std` they are those of what is given: for each channel over time (the axis before the last),
    or over all values; made in float64 and rounded, the deviation that of a population, `epsilon` at least.

    Attributes:
        mean: of each channel (the last axis), or one for all.
        std: likewise, above 0.
        over: "time" or "all", where no mean is given.
        epsilon: the least deviation.
    """

    name: ClassVar[str] = "standardise"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    over: Literal["time", "all"] = "time"
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise UsageError(
                f"step 'standardise' has {len(self.mean)} means and {len(self.std)} deviations; as many are expected."
            )
        if any(not std >= 1e-30 for std in (*self.std, self.epsilon)):
            raise UsageError("step 'standardise' has a deviation below 1e-30; numbers above 0 are expected.")

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind not in ("series", "tensor", "landmarks", "audio") or have.dtype != "float32":
            raise self.refuse(given, "a float32 series, tensor, landmarks or audio")
        channels = 1 if have.kind == "audio" or not have.shape else have.shape[-1]
        if self.mean and len(self.mean) not in (1, channels):
            raise self.refuse(given, f"{len(self.mean)} channels, as many as it has means,")
        if not self.mean and (0 in have.shape or not have.shape):
            raise self.refuse(given, "at least one value")
        return have

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        array = floats(values[0])
        if self.mean:
            mean, std = np.array(self.mean, dtype=np.float32), np.array(self.std, dtype=np.float32)
        else:
            axis = -2 if self.over == "time" and array.ndim > 1 else None
            wide = array.astype(np.float64)
            mean = wide.mean(axis=axis, keepdims=True).astype(np.float32)
            deviation = wide.std(axis=axis, keepdims=True).astype(np.float32)
            std = np.maximum(deviation, np.float32(self.epsilon))
        return np.asarray((array - mean) / std)
