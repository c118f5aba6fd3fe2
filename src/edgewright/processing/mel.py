"""Steps on spectra's magnitudes: mel filters, logarithms, the cosine transform."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.step import Floats, Frame, Step, floats
from edgewright.processing.values import ValueType

MAX_BINS = 1024
_MAX_WEIGHTS = 1 << 22
_SLANEY_STEP_HZ = 200 / 3
_SLANEY_LOG_STEP = math.log(6.4) / 27


_LEAST_RANGE_HZ = 1.0


@dataclass(frozen=True, kw_only=True)
class Mel(Step):
    """Sum up bins under triangles on the mel scale: [..., size / 2 + 1] -> [..., bins]; float64 sums, rounded once.

    Attributes:
        bins: triangles.
        low_hz: where the first begins.
        high_hz: where the last ends; 0 is half the sample rate.
        scale: "htk": 2595 log10(1 + f / 700); "slaney": linear below 1000 Hz, logarithmic above.
        triangles: straight over Hz ("hz": librosa, torchaudio), or over mel ("mel": TensorFlow, Kaldi).
        norm: "slaney" divides each triangle by half its width in Hz, so that all have the same area.
    Source: S. Davis, P. Mermelstein (1980); M. Slaney, "Auditory Toolbox" (1998); the HTK book, section 5.4.
    """

    name: ClassVar[str] = "mel"
    bins: int = 40
    low_hz: float = 0.0
    high_hz: float = 0.0
    scale: Literal["htk", "slaney"] = "htk"
    triangles: Literal["hz", "mel"] = "hz"
    norm: Literal["none", "slaney"] = "none"

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= MAX_BINS:
            raise UsageError(f"step 'mel' has bins {self.bins}; 1..{MAX_BINS} is expected.")
        if self.low_hz < 0 or self.high_hz < 0 or (self.high_hz and self.low_hz >= self.high_hz):
            raise UsageError(
                f"step 'mel' has low_hz {self.low_hz} and high_hz {self.high_hz}; 0 <= low < high is expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        size = have.shape[-1] if have.shape else None
        if have.kind != "tensor" or have.dtype != "float32" or size is None or size < 2 or not have.rate_hz:
            raise self.refuse(given, "the magnitudes of a spectrum whose sample rate is known")
        if size * self.bins > _MAX_WEIGHTS:
            raise self.refuse(
                given, f"at most {_MAX_WEIGHTS // self.bins} magnitudes for {self.bins} triangles"
            )
        high = self.high_hz or have.rate_hz / 2
        # Narrower triangles have edges that fall together.
        if not self.low_hz + _LEAST_RANGE_HZ <= high <= have.rate_hz / 2:
            raise UsageError(
                f"step 'mel' has {self.low_hz}..{high} Hz, but audio at {have.rate_hz} Hz ends at "
                f"{have.rate_hz / 2} Hz; a range of {_LEAST_RANGE_HZ:g} Hz at least up to there is expected."
            )
        return have.of(*have.shape[:-1], self.bins)

    def table(self, size: int, rate_hz: int) -> Floats:
        """Return the weights, float32 [size, bins], for `size` bins of a transform of 2 * (size - 1) samples."""
        high = self.high_hz or rate_hz / 2
        edges_mel = np.linspace(_mel(self.low_hz, self.scale), _mel(high, self.scale), self.bins + 2)
        edges_hz = np.array([_hertz(mel, self.scale) for mel in edges_mel])
        bins_hz = np.arange(size) * (rate_hz / 2 / (size - 1))
        if self.triangles == "mel":
            bins, edges = np.array([_mel(hertz, self.scale) for hertz in bins_hz]), edges_mel
        else:
            bins, edges = bins_hz, edges_hz
        rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
        weights = np.clip(np.minimum(rising, falling), 0.0, None)
        if self.norm == "slaney":
            weights *= 2.0 / (edges_hz[2:] - edges_hz[:-2])
        return floats(weights)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        table = self.table(values[0].shape[-1], frame.given[0].rate_hz)
        return (values[0].astype(np.float64) @ table.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Log(Step):
    """A logarithm, made in float64 of max(x + offset, floor), and rounded to float32.

    Attributes:
        scale: "natural", "log10", "log2", or "db": 10 log10, for powers.
        offset: added before.
        floor: the least value whose logarithm is taken, above 0.
        span: what is more than this below the largest result of the same run is lifted to it; 0 leaves all. In dB,
            where the scale is.
    """

    name: ClassVar[str] = "log"
    scale: Literal["natural", "log10", "log2", "db"] = "natural"
    offset: float = 0.0
    floor: float = 1e-10
    span: float = 0.0

    def __post_init__(self) -> None:
        if not self.floor >= 1e-37 or self.offset < 0 or self.span < 0:
            raise UsageError(
                f"step 'log' has floor {self.floor}, offset {self.offset} and span {self.span}; a floor of 1e-37 "
                "at least, and no number below 0, are expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        if given[0].dtype != "float32":
            raise self.refuse(given, "float32")
        return given[0].of(*given[0].shape, kind="tensor")

    def factor(self) -> float:
        """Return what the natural logarithm is multiplied by."""
        return {"natural": 1.0, "log10": 1 / math.log(10), "log2": 1 / math.log(2), "db": 10 / math.log(10)}[
            self.scale
        ]

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        lifted = np.maximum(np.asarray(values[0], dtype=np.float64) + self.offset, self.floor)
        made = floats(np.log(lifted) * self.factor())
        if self.span and made.size:
            made = np.maximum(made, made.max() - np.float32(self.span))
        return made


@dataclass(frozen=True, kw_only=True)
class Dct(Step):
    """The cosine transform (DCT-II) of the last axis: y[k] = g[k] * sum over t of x[t] cos(pi k (t + 1/2) / n).

    The table is float32, the sums are made in float64 and rounded once.

    Attributes:
        count: results that are kept.
        norm: g: "ortho": sqrt(2 / n), and sqrt(1 / n) for k = 0; "htk": sqrt(2 / n) for all (TensorFlow's MFCC);
            "none": 2 (scipy's default).
        skip: results left out before those: 1 leaves out the loudness.
    """

    name: ClassVar[str] = "dct"
    coefficients: int = 13
    norm: Literal["ortho", "htk", "none"] = "ortho"
    skip: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.coefficients <= MAX_BINS or not 0 <= self.skip < MAX_BINS:
            raise UsageError(
                f"step 'dct' has coefficients {self.coefficients} and skip {self.skip}; up to {MAX_BINS} are expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        size = have.shape[-1] if have.shape else None
        if have.dtype != "float32" or size is None or not self.skip + self.coefficients <= size <= MAX_BINS:
            raise self.refuse(
                given, f"a last axis of {self.skip + self.coefficients}..{MAX_BINS} float32 values"
            )
        return have.of(*have.shape[:-1], self.coefficients, kind="tensor")

    def table(self, size: int) -> Floats:
        """Return the weights, float32 [size, coefficients]."""
        orders = np.arange(self.skip, self.skip + self.coefficients)
        cosines = np.cos(np.pi / size * (np.arange(size)[:, None] + 0.5) * orders)
        factor = np.full(len(orders), 2.0 if self.norm == "none" else math.sqrt(2 / size))
        if self.norm == "ortho":
            factor[orders == 0] = math.sqrt(1 / size)
        return np.asarray(cosines * factor, dtype=np.float32)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        table = self.table(values[0].shape[-1]).astype(np.float64)
        return np.asarray(values[0].astype(np.float64) @ table, dtype=np.float32)


def _mel(hertz: float, scale: str) -> float:
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hertz / 700.0)
    return hertz / _SLANEY_STEP_HZ if hertz < 1000 else 15.0 + math.log(hertz / 1000) / _SLANEY_LOG_STEP


def _hertz(mel: float, scale: str) -> float:
    if scale == "htk":
        return 700.0 * (math.pow(10.0, mel / 2595.0) - 1.0)
    return mel * _SLANEY_STEP_HZ if mel < 15 else 1000 * math.exp((mel - 15.0) * _SLANEY_LOG_STEP)
