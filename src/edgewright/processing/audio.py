"""Steps on samples and on rows in time: another rate, another length, filters, and what the runs before left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.step import Floats, Frame, Step, floats
from edgewright.processing.values import ValueType

MAX_RATE_HZ = 1 << 20
MAX_SAMPLES = 1 << 26
MAX_RATIO = 1024
_BLOCK = 2048
_ZERO_CROSSINGS = 16
_KAISER_BETA = 9.0
_ROLL_OFF = 0.92  # of the lower Nyquist rate; the filter's slope ends there


@dataclass(frozen=True, kw_only=True)
class Resample(Step):
    """Change the sample rate of a whole clip by a windowed sinc; sample i of the result lies at i * old / new.

    What lies outside the clip counts as 0. The result has ceil(samples * new / old) samples; `resample_filter` says
    which weights make them. Sums are made in float64 and rounded once.

    Attributes:
        rate_hz: of the result.
    Source: J. O. Smith, "Digital Audio Resampling Home Page"; the ratio is a fraction in lowest terms.
    """

    name: ClassVar[str] = "resample"
    rate_hz: int

    def __post_init__(self) -> None:
        if not 1 <= self.rate_hz <= MAX_RATE_HZ:
            raise UsageError(f"step 'resample' has rate_hz {self.rate_hz}; 1..{MAX_RATE_HZ} is expected.")

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind != "audio" or not have.rate_hz:
            raise self.refuse(given, "audio whose rate_hz is known")
        up, down = ratio(have.rate_hz, self.rate_hz)
        (samples,) = have.shape
        made = None if samples is None else -(-samples * up // down)
        return ValueType(kind="audio", shape=(made,), dtype="float32", rate_hz=self.rate_hz)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        return resampled(floats(values[0]), frame.given[0].rate_hz, self.rate_hz)


def ratio(from_hz: int, to_hz: int) -> tuple[int, int]:
    """Return `to_hz` / `from_hz` in lowest terms.

    Raises:
        UsageError: a term is above MAX_RATIO.
    """
    divisor = math.gcd(from_hz, to_hz)
    up, down = to_hz // divisor, from_hz // divisor
    if max(up, down) > MAX_RATIO:
        raise UsageError(
            f"{to_hz} Hz of {from_hz} Hz is a ratio of {up}/{down}; terms up to {MAX_RATIO} are expected. "
            "Choose rates with a larger common divisor."
        )
    return up, down


def resample_filter(up: int, down: int) -> Floats:
    """Return the weights [up, taps] that make a sample of each phase.

    Sample i of the result is the sum over j of weights[p, j] * x[(i * down) // up + j - taps // 2], where
    p = (i * down) % up. The weights are a sinc with 16 zero crossings a side under a Kaiser window (beta 9), divided
    by their sum, so that a constant stays what it is.
    """
    cut = _ROLL_OFF * min(1.0, up / down)
    half = math.ceil(_ZERO_CROSSINGS / cut)
    distance = np.arange(up)[:, None] / up - np.arange(-half, half + 1)[None, :]
    inside = np.clip(1.0 - (distance / half) ** 2, 0.0, None)
    weights = np.sinc(cut * distance) * np.i0(_KAISER_BETA * np.sqrt(inside))
    weights[np.abs(distance) > half] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def resampled(samples: Floats, from_hz: int, to_hz: int) -> Floats:
    """Return `samples` [n] at another rate; the work of `Resample`."""
    up, down = ratio(from_hz, to_hz)
    if up == down:
        return samples
    weights = resample_filter(up, down).astype(np.float64)
    taps = weights.shape[1]
    count = -(-len(samples) * up // down)
    padded = np.pad(samples.astype(np.float64), (taps // 2, taps))
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    made = np.empty(count, dtype=np.float32)
    for first in range(min(up, count)):
        start, phase = divmod(first * down, up)
        places = made[first::up]
        rows = windows[start::down][: len(places)]
        # In blocks, as each product copies the windows that overlap.
        for begin in range(0, len(places), _BLOCK):
            places[begin : begin + _BLOCK] = rows[begin : begin + _BLOCK] @ weights[phase]
    return made


@dataclass(frozen=True, kw_only=True)
class FitLength(Step):
    """Cut what is too long, and put zeros to what is too short.

    Attributes:
        samples: of the result; rows of a series.
        at: which part stays: the start (zeros come after it), the centre (half of the zeros, the lesser half where
            the number is odd, comes before it), or the end (zeros come before it).
    """

    name: ClassVar[str] = "fit_length"
    samples: int
    at: Literal["start", "centre", "end"] = "start"

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= MAX_SAMPLES:
            raise UsageError(f"step 'fit_length' has samples {self.samples}; 1..{MAX_SAMPLES} is expected.")

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind not in ("audio", "series") or not have.shape:
            raise self.refuse(given, "audio or a series")
        return have.of(self.samples, *have.shape[1:])

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        array = values[0]
        missing = self.samples - len(array)
        before = {"start": 0, "centre": abs(missing) // 2, "end": abs(missing)}[self.at]
        if missing <= 0:
            return array[before : before + self.samples]
        return np.pad(array, [(before, missing - before), *[(0, 0)] * (array.ndim - 1)])


@dataclass(frozen=True, kw_only=True)
class PreEmphasis(Step):
    """Lift high tones: y[i] = x[i] - factor * x[i - 1], in float32, the product rounded before the difference.

    Attributes:
        factor: 0.97 in most speech front ends.
        first: what stands before the first sample: 0, so that it is kept, or the sample itself (as Kaldi and HTK do).
    """

    name: ClassVar[str] = "pre_emphasis"
    factor: float = 0.97
    first: Literal["keep", "repeat"] = "keep"

    def __post_init__(self) -> None:
        if not 0 <= self.factor <= 1:
            raise UsageError(f"step 'pre_emphasis' has factor {self.factor}; 0..1 is expected.")

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind not in ("audio", "frames") or have.dtype != "float32":
            raise self.refuse(given, "audio or frames")
        return have

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        samples = floats(values[0])
        made = samples.copy()
        factor = np.float32(self.factor)
        made[..., 1:] -= samples[..., :-1] * factor
        if self.first == "repeat":
            made[..., :1] -= samples[..., :1] * factor
        return made


@dataclass(frozen=True, kw_only=True)
class Peak(Step):
    """Scale a clip so that its largest value is `to`: y = x / peak, times `to`, in float32.

    A clip whose peak is not above 0 stays as it is.

    Attributes:
        of: the largest sample ("value"), or the largest absolute one.
        to: the peak of the result.
    """

    name: ClassVar[str] = "peak"
    of: Literal["value", "absolute"] = "absolute"
    to: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.to <= 65536:
            raise UsageError(f"step 'peak' has to {self.to}; a number above 0, up to 65536, is expected.")

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind not in ("audio", "series") or have.dtype != "float32" or 0 in have.shape:
            raise self.refuse(given, "audio, or a series of float32, that is not empty")
        return have

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        samples = floats(values[0])
        peak = samples.max() if self.of == "value" else np.abs(samples).max()
        return np.asarray(samples / peak * np.float32(self.to)) if peak > 0 else samples


@dataclass(frozen=True, kw_only=True)
class Context(Step):
    """Put before what comes the last rows of the runs before; a new stream begins with `fill`.

    Attributes:
        samples: how many: samples of audio, rows (the first axis) of a series or a tensor.
        fill: what they are before the first run.
    """

    name: ClassVar[str] = "context"
    samples: int
    fill: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= MAX_SAMPLES:
            raise UsageError(f"step 'context' has samples {self.samples}; 1..{MAX_SAMPLES} is expected.")

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind not in ("audio", "series", "tensor") or not have.shape or None in have.shape[1:]:
            raise self.refuse(given, "audio, a series or a tensor whose rows have a known size")
        if have.dtype != "float32":
            raise self.refuse(given, "float32")
        row = math.prod(size for size in have.shape[1:] if size is not None)
        if row * self.samples > MAX_SAMPLES:
            raise self.refuse(given, f"rows of at most {MAX_SAMPLES // self.samples} values")
        rows = have.shape[0]
        return have.of(None if rows is None else rows + self.samples, *have.shape[1:])

    def initial(self, given: tuple[ValueType, ...]) -> Array | None:
        row = [size for size in given[0].shape[1:] if size is not None]
        return np.full((self.samples, *row), self.fill, dtype=np.float32)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        assert frame.state is not None
        joined = np.concatenate([frame.state, floats(values[0])])
        frame.state = joined[-self.samples :]
        return np.asarray(joined)
