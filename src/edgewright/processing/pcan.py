"""The second half of the micro front end: energies to features that loudness and steady noise hardly change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.step import Frame, Step
from edgewright.processing.values import ValueType

_MAX_CHANNELS = 1024
# Numbers of the fixed-point front end: full scale of 16 bits over the 8 that its transform takes off, the bits of a
# gain, its largest value, the bits of a ratio, and of what the ratio is shrunk to.
_FULL_SCALE = 4096.0
_GAIN = 2.0**21
_MAX_GAIN = 32767.0
_RATIO_SHIFT = 2.0**6
_RATIO = 2.0**12
_SHRUNK = 64.0
_ESTIMATE_SCALE = 8.0
_LOG_SCALE = 64.0
_MAX_SIGNAL = 2.0**31


@dataclass(frozen=True, kw_only=True)
class Pcan(Step):
    """Energies of mel filters over time to log features: tensor [frames, channels] -> the same, of whole numbers.

    For each channel: the root of the energy, at the scale of 16-bit samples; less a running mean of it (the noise);
    divided by a power of that mean (per-channel amplitude normalisation); 64 ln(8 x). All that is whole numbers in
    the fixed-point front end of LiteRT for Microcontrollers is rounded down here too, in float64; its 16-bit transform
    is not imitated, so that weak channels may differ from it. The state is the running mean, float32 [channels].

    Attributes:
        even_smoothing: weight of the newest frame in the mean of channels 0, 2, 4...
        odd_smoothing: likewise of the others.
        remaining: share of the signal that is left at least when the noise is taken off.
        strength: power of the mean that divides.
        offset: that is added to the mean before.
    Source: Y. Wang et al., "Trainable Frontend For Robust and Far-Field Keyword Spotting" (2016), and the parameters
    of the micro front end.
    """

    name: ClassVar[str] = "pcan"
    even_smoothing: float = 0.025
    odd_smoothing: float = 0.06
    remaining: float = 0.05
    strength: float = 0.95
    offset: float = 80.0

    def __post_init__(self) -> None:
        shares = (self.even_smoothing, self.odd_smoothing, self.remaining, self.strength)
        if any(not 0 <= share <= 1 for share in shares) or not 1 <= self.offset <= 1e6:
            raise UsageError(
                f"step 'pcan' has smoothing {self.even_smoothing} and {self.odd_smoothing}, remaining "
                f"{self.remaining}, strength {self.strength} and offset {self.offset}; 0..1, and an offset of 1..1e6, "
                "are expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        channels = have.shape[1] if len(have.shape) == 2 else None
        if have.dtype != "float32" or channels is None or not 1 <= channels <= _MAX_CHANNELS:
            raise self.refuse(
                given, f"energies [frames, channels], up to {_MAX_CHANNELS} channels, of float32"
            )
        return have

    def initial(self, given: tuple[ValueType, ...]) -> Array | None:
        return np.zeros(given[0].shape[1] or 0, dtype=np.float32)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        assert frame.state is not None
        smoothing = np.full(len(frame.state), self.even_smoothing)
        smoothing[1::2] = self.odd_smoothing
        made = np.empty(values[0].shape, dtype=np.float32)
        mean = np.asarray(frame.state, dtype=np.float32)
        for row, energies in enumerate(np.asarray(values[0], dtype=np.float64)):
            # What is no number is 0.
            signal = np.floor(np.sqrt(np.where(energies > 0, energies, 0.0)) * _FULL_SCALE)
            signal = np.minimum(signal, _MAX_SIGNAL)
            mean = (signal * smoothing + mean * (1.0 - smoothing)).astype(np.float32)
            left = np.maximum(np.floor(signal - np.minimum(mean, signal)), np.floor(signal * self.remaining))
            made[row] = self._features(left, mean.astype(np.float64))
        frame.state = mean
        return made

    def _features(
        self, signal: npt.NDArray[np.float64], mean: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        gain = _GAIN * np.power(mean * _ESTIMATE_SCALE + self.offset, -self.strength)
        gain = np.minimum(np.floor(gain + 0.5), _MAX_GAIN)
        ratio = np.floor(signal * gain / _RATIO_SHIFT) / _RATIO
        shrunk = np.floor(np.where(ratio < 2.0, ratio * ratio / 4.0, ratio - 1.0) * _SHRUNK)
        logs = np.log(np.maximum(shrunk * _ESTIMATE_SCALE, 1.0))
        return np.asarray(np.floor(_LOG_SCALE * logs + 0.5))
