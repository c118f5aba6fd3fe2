"""Steps between samples and spectra: frames under a window, Fourier transforms, masks, overlap-add."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np

from edgewright.core.errors import DataError, UsageError
from edgewright.core.tensors import Array
from edgewright.processing.audio import MAX_RATE_HZ
from edgewright.processing.step import Floats, Frame, Step, floats
from edgewright.processing.values import ValueType

Window = Literal["none", "hann", "hamming", "blackman", "sqrt_hann"]
WINDOWS: tuple[str, ...] = get_args(Window)
MAX_FFT = 1 << 16


def window_table(window: Window, length: int, *, periodic: bool) -> Floats:
    """Return the window [length]: made in float64, rounded to float32; a periodic one leaves out its last value."""
    angle = 2.0 * np.pi * np.arange(length) / max(length if periodic else length - 1, 1)
    hann = 0.5 - 0.5 * np.cos(angle)
    values = {
        "none": np.ones(length),
        "hann": hann,
        "hamming": 0.54 - 0.46 * np.cos(angle),
        "blackman": 0.42 - 0.5 * np.cos(angle) + 0.08 * np.cos(2.0 * angle),
        "sqrt_hann": np.sqrt(hann),
    }[window]
    return values.astype(np.float32) if length > 1 else np.ones(1, dtype=np.float32)


def check_fft_size(name: str, size: int) -> None:
    """Raise a UsageError unless `size` is one that every implementation transforms: even, with no prime above 5."""
    rest = size
    for prime in (2, 3, 5):
        while rest > 1 and rest % prime == 0:
            rest //= prime
    if not 2 <= size <= MAX_FFT or size % 2 or rest != 1:
        raise UsageError(
            f"step {name!r} has size {size}; an even number of 2..{MAX_FFT} with no prime factor but 2, 3 and 5 is "
            "expected."
        )


@dataclass(frozen=True, kw_only=True)
class Cut(Step):
    """Cut samples into frames, and multiply each by a window, in float32.

    Audio [n] -> frames [1 + (n - length) // hop, length].

    Attributes:
        length: of a frame, in samples.
        hop: from the start of a frame to that of the next.
        window: "none", "hann", "hamming", "blackman" or "sqrt_hann".
        window_length: where the window is shorter than the frame, which has zeros on both sides of it; 0 is `length`.
        periodic: one period of a longer row of windows, as spectra want it; otherwise symmetric.
        centre: lay the first frame's centre on the first sample: length // 2 samples more on both ends.
        pad: what those are: zeros, the samples mirrored without the edge itself, or the edge repeated.
    """

    name: ClassVar[str] = "frame"
    length: int
    hop: int
    window: Window = "hann"
    window_length: int = 0
    periodic: bool = True
    centre: bool = False
    pad: Literal["zeros", "reflect", "edge"] = "zeros"

    def __post_init__(self) -> None:
        if not 1 <= self.length <= MAX_FFT or not 1 <= self.hop <= MAX_FFT:
            raise UsageError(
                f"step 'frame' has length {self.length} and hop {self.hop}; 1..{MAX_FFT} is expected."
            )
        if not 0 <= self.window_length <= self.length:
            raise UsageError(
                f"step 'frame' has window_length {self.window_length}; 0..{self.length}, its length, is expected."
            )

    def table(self) -> Floats:
        """Return what each frame is multiplied by, float32 [length]."""
        inner = self.window_length or self.length
        before = (self.length - inner) // 2
        window = window_table(self.window, inner, periodic=self.periodic)
        return np.pad(window, (before, self.length - inner - before))

    def frames(self, samples: int) -> int:
        """Return how many frames `samples` samples have."""
        padded = samples + 2 * (self.length // 2 if self.centre else 0)
        return 0 if padded < self.length else 1 + (padded - self.length) // self.hop

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind != "audio" or have.dtype != "float32":
            raise self.refuse(given, "audio")
        (samples,) = have.shape
        if samples is None:
            return have.of(None, self.length, kind="frames")
        self._check(samples)
        return have.of(self.frames(samples), self.length, kind="frames")

    def least(self) -> int:
        """Return how many samples there have to be."""
        if self.centre and self.pad == "reflect":
            return self.length // 2 + 1
        return 1 if self.centre else self.length

    def _check(self, samples: int) -> None:
        least = self.least()
        if samples < least:
            raise DataError(
                f"step 'frame' got {samples} samples; {least} at least are expected for frames of {self.length}. "
                "Put the step 'fit_length' before it."
            )

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        samples = floats(values[0])
        self._check(len(samples))
        if self.centre:
            mode: Literal["constant", "reflect", "edge"] = "constant" if self.pad == "zeros" else self.pad
            samples = np.pad(samples, self.length // 2, mode=mode)
        cut = np.lib.stride_tricks.sliding_window_view(samples, self.length)[:: self.hop]
        return np.asarray(cut * self.table())


@dataclass(frozen=True, kw_only=True)
class Fft(Step):
    """The discrete Fourier transform of real samples: audio [n] or frames [f, n] -> spectrum [..., size // 2 + 1, 2].

    X[k] = sum over t of x[t] exp(-2 pi i k t / size), made in float64 and rounded to float32; the real part first.

    Attributes:
        size: of the transform; shorter frames have zeros after them.
    """

    name: ClassVar[str] = "fft"
    size: int

    def __post_init__(self) -> None:
        check_fft_size(self.name, self.size)

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        length = have.shape[-1] if have.shape else None
        if have.kind not in ("audio", "frames") or have.dtype != "float32" or length is None:
            raise self.refuse(given, "audio or frames of a known length")
        if not 1 <= length <= self.size:
            raise self.refuse(given, f"a length of 1..{self.size}, the size of the transform,")
        return have.of(*have.shape[:-1], self.size // 2 + 1, 2, kind="spectrum")

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        made = np.fft.rfft(np.asarray(values[0], dtype=np.float64), n=self.size, axis=-1)
        return np.stack([made.real, made.imag], axis=-1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Magnitude(Step):
    """The size of a spectrum's numbers: spectrum [..., bins, 2] -> tensor [..., bins], in float32.

    Attributes:
        power: 2 for re * re + im * im, 1 for its root.
    """

    name: ClassVar[str] = "magnitude"
    power: Literal[1, 2] = 1

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind != "spectrum":
            raise self.refuse(given, "a spectrum")
        return have.of(*have.shape[:-1], kind="tensor")

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        spectrum = floats(values[0])
        squared = spectrum[..., 0] * spectrum[..., 0] + spectrum[..., 1] * spectrum[..., 1]
        return np.asarray(squared if self.power == 2 else np.sqrt(squared))


@dataclass(frozen=True, kw_only=True)
class InverseFft(Step):
    """The inverse of `fft`: spectrum [bins, 2] -> audio [length], or [f, bins, 2] -> frames [f, length].

    Made in float64 and rounded to float32. The imaginary parts of the first and the last bin count as 0.

    Attributes:
        length: samples that are kept of each transform; 0 is all, 2 * (bins - 1).
    """

    name: ClassVar[str] = "inverse_fft"
    length: int = 0

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind != "spectrum" or len(have.shape) not in (2, 3):
            raise self.refuse(given, "a spectrum")
        bins = have.shape[-2]
        assert bins is not None
        size = 2 * (bins - 1)
        check_fft_size(self.name, size)
        if not 0 <= self.length <= size:
            raise UsageError(f"step 'inverse_fft' has length {self.length}; 0..{size} is expected.")
        length = self.length or size
        return have.of(*have.shape[:-2], length, kind="audio" if len(have.shape) == 2 else "frames")

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        spectrum = np.asarray(values[0], dtype=np.float64)
        size = 2 * (spectrum.shape[-2] - 1)
        made = np.fft.irfft(spectrum[..., 0] + 1j * spectrum[..., 1], n=size, axis=-1)
        return made[..., : self.length or size].astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class OverlapAdd(Step):
    """Join frames that overlap: audio [n] (one frame a run) or frames [f, n] -> audio [hop], or [f * hop].

    Each frame is added to what the frames before left beyond their hop; the first `hop` samples of the sum are the
    result, the rest is kept for the next run. The result lags n - hop samples behind the frames' ends.

    Attributes:
        hop: from the start of a frame to that of the next, at most the frame's length.
        window: that each frame is multiplied by before.
        periodic: as of `frame`.
        analysis: the window that `frame` multiplied by: with it, each sample is divided by the sum of the products of
            both windows over the frames that overlap there, so that unchanged spectra give the samples back.
        rate_hz: of the result, where the frames come from a model; 0 is that of what is given.
    """

    name: ClassVar[str] = "overlap_add"
    hop: int
    window: Window = "none"
    periodic: bool = True
    analysis: Literal["", "none", "hann", "hamming", "blackman", "sqrt_hann"] = ""
    rate_hz: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.hop <= MAX_FFT or not 0 <= self.rate_hz <= MAX_RATE_HZ:
            raise UsageError(
                f"step 'overlap_add' has hop {self.hop} and rate_hz {self.rate_hz}; 1..{MAX_FFT} and "
                f"0..{MAX_RATE_HZ} are expected."
            )

    def table(self, length: int) -> Floats:
        """Return what each frame of `length` samples is multiplied by, float32 [length].

        Raises:
            UsageError: the windows leave samples that no frame holds.
        """
        window = np.asarray(window_table(self.window, length, periodic=self.periodic), dtype=np.float64)
        if not self.analysis:
            return window.astype(np.float32)
        product = window * window_table(self.analysis, length, periodic=self.periodic)
        sums = np.zeros(self.hop)
        for start in range(0, length, self.hop):
            part = product[start : start + self.hop]
            sums[: len(part)] += part
        if sums.min() < 1e-6:
            raise UsageError(
                f"step 'overlap_add' has hop {self.hop} for frames of {length}: the windows leave samples without "
                "weight. Choose a smaller hop."
            )
        return np.asarray(window / np.resize(sums, length), dtype=np.float32)

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        length = have.shape[-1] if have.shape else None
        single = have.kind == "tensor" and len(have.shape) == 1
        if not (single or have.kind in ("audio", "frames")) or have.dtype != "float32" or length is None:
            raise self.refuse(given, "audio or frames of a known length")
        if length < self.hop:
            raise self.refuse(given, f"a length of {self.hop}, its hop, at least")
        self.table(length)
        frames = have.shape[0] if have.kind == "frames" else 1
        made = have.of(None if frames is None else frames * self.hop, kind="audio")
        return replace(made, rate_hz=self.rate_hz or have.rate_hz)

    def initial(self, given: tuple[ValueType, ...]) -> Array | None:
        return np.zeros(given[0].shape[-1] or 0, dtype=np.float32)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        assert frame.state is not None
        weighted = np.atleast_2d(floats(values[0]) * self.table(values[0].shape[-1]))
        kept, made = floats(frame.state).copy(), []
        for row in weighted:
            kept += row
            made.append(kept[: self.hop].copy())
            kept = np.concatenate([kept[self.hop :], np.zeros(self.hop, dtype=np.float32)])
        frame.state = kept
        return np.concatenate(made) if made else np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Multiply(Step):
    """The product of two values, in float32: both of one shape, or a spectrum and a real mask of its bins.

    Two spectra make the complex product. Axes of 1 before a mask's others are left out.
    """

    name: ClassVar[str] = "multiply"
    count: ClassVar[tuple[int, int]] = (2, 2)

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        first, second = given
        if any(have.dtype != "float32" or None in have.shape for have in given):
            raise self.refuse(given, "two float32 values of known shapes")
        if first.shape == second.shape:
            return first
        if first.kind == "spectrum" and _trimmed(second.shape) == _trimmed(first.shape[:-1]):
            return first
        raise self.refuse(given, "two of one shape, or a spectrum and a mask of its bins")

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        first, second = floats(values[0]), floats(values[1])
        if first.shape == second.shape:
            if frame.given[0].kind == frame.given[1].kind == "spectrum":
                a, b, c, d = first[..., 0], first[..., 1], second[..., 0], second[..., 1]
                return np.stack([a * c - b * d, a * d + b * c], axis=-1)
            return np.asarray(first * second)
        return np.asarray(first * second.reshape(first.shape[:-1])[..., None])


def _trimmed(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape
