"""What stands for integers while a network is trained with quantization; imported in a worker alone.

The straight-through estimator (Bengio et al., 2013) passes the gradient of rounding as if nothing was rounded. In
evaluation mode each module computes with the very operators that PT2E writes, so that the trained network and the
exported one give the same numbers.
"""

from __future__ import annotations

import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor
from torchao.quantization.pt2e import FakeQuantizeBase, HistogramObserver

_SMALLEST_STEP = torch.finfo(torch.float32).eps
# Of the largest weight of a channel: what 4-bit weights may be clipped to. A coarser step rounds every weight worse
# than it helps the largest.
_CLIPS = tuple(1 - index / 40 for index in range(25))
# The mean of a range follows the last tenth of all batches, so that ranges settle while the training goes on.
_FIRST_BATCHES = 20
_MEMORY_SHARE = 0.1


class ActivationFakeQuantize(FakeQuantizeBase):  # type: ignore[misc]
    """Rounds a tensor to the 256 steps of one range.

    Three phases: until `settle` it only looks; in training mode the range follows what passes; in
    evaluation mode it is fixed. Several places of a graph may share one instance: a pooling keeps its input's range.
    """

    low: Tensor
    high: Tensor
    batches: Tensor

    def __init__(
        self, dtype: torch.dtype, quant_min: int, quant_max: int, qscheme: torch.qscheme, is_dynamic: bool
    ) -> None:
        super().__init__()
        self.dtype, self.qscheme, self.is_dynamic = dtype, qscheme, is_dynamic
        self.quant_min, self.quant_max = quant_min, quant_max
        self.places = 1
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._histogram: HistogramObserver | None = HistogramObserver(
            dtype=dtype, quant_min=quant_min, quant_max=quant_max, qscheme=qscheme
        )
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))
        self.register_buffer("batches", torch.tensor(0))

    def settle(self, *, places: int) -> None:
        """End the calibration; `places` is how often one pass of the network calls this module."""
        assert self._histogram is not None
        scale, zero = self._histogram.calculate_qparams()
        self.low = ((self.quant_min - zero) * scale).float().reshape(())
        self.high = ((self.quant_max - zero) * scale).float().reshape(())
        self._histogram, self.places = None, places

    def forward(self, values: Tensor) -> Tensor:
        if self._histogram is not None:
            self._histogram(values.detach())
            return values
        if self.training:
            self._follow(values.detach())
            scale, zero = self._grid()
            return torch.fake_quantize_per_tensor_affine(values, scale, zero, self.quant_min, self.quant_max)
        scale, zero = self.calculate_qparams()
        settings = (float(scale), int(zero), self.quant_min, self.quant_max, self.dtype)
        integers = torch.ops.quantized_decomposed.quantize_per_tensor(values, *settings)
        rounded: Tensor = torch.ops.quantized_decomposed.dequantize_per_tensor(integers, *settings)
        return rounded

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return the step, float32 [1], and the integer of 0, int32 [1]."""
        scale, zero = self._grid()
        return scale.reshape(1), zero.reshape(1)

    def _grid(self) -> tuple[Tensor, Tensor]:
        low, high = self.low.clamp(max=0.0), self.high.clamp(min=0.0)
        steps = self.quant_max - self.quant_min
        scale = ((high - low) / steps).clamp(min=_SMALLEST_STEP)
        zero = (self.quant_min - (low / scale).round()).clamp(self.quant_min, self.quant_max)
        return scale, zero.int()

    def _follow(self, values: Tensor) -> None:
        low, high = torch.aminmax(values)
        self._seen.append((low, high))
        if len(self._seen) < self.places:
            return
        lows, highs = zip(*self._seen, strict=True)
        self._seen = []
        share = 1 / (_FIRST_BATCHES + _MEMORY_SHARE * int(self.batches))
        self.low.lerp_(torch.stack(lows).min(), share)
        self.high.lerp_(torch.stack(highs).max(), share)
        self.batches += 1


class PerChannelWeightFakeQuantize(FakeQuantizeBase):  # type: ignore[misc]
    """Rounds a weight to steps of its own for each output channel; the steps follow the weight.

    With 4 bits the largest weights of a channel are clipped where that leaves the smallest square error.
    """

    clip: Tensor
    mask: Tensor | None

    def __init__(
        self,
        dtype: torch.dtype,
        quant_min: int,
        quant_max: int,
        qscheme: torch.qscheme,
        ch_axis: int,
        is_dynamic: bool,
    ) -> None:
        super().__init__()
        self.dtype, self.qscheme, self.is_dynamic = dtype, qscheme, is_dynamic
        self.quant_min, self.quant_max, self.ch_axis = quant_min, quant_max, ch_axis
        self.is_settled = False
        self._scale: Tensor | None = None

    def settle(self, weight: Tensor, *, keep_zeros: bool) -> None:
        """Take the trained float weight to start from."""
        weight = weight.detach()
        mask = weight != 0
        self.register_buffer("mask", mask if keep_zeros and not bool(mask.all()) else None)
        best = torch.ones(weight.shape[self.ch_axis])
        if self.quant_max < 64:
            errors = []
            for share in _CLIPS:
                rounded = self._rounded(weight, self._steps(weight, torch.full_like(best, share)))
                errors.append((rounded - weight).square().transpose(0, self.ch_axis).flatten(1).sum(1))
            best = torch.tensor(_CLIPS)[torch.stack(errors).argmin(0)]
        self.register_buffer("clip", best)
        self.is_settled = True

    def forward(self, weight: Tensor) -> Tensor:
        if not self.is_settled:
            return weight
        if self.mask is not None:
            weight = weight * self.mask
        with torch.no_grad():
            self._scale = self._steps(weight, self.clip)
            rounded = self._rounded(weight, self._scale)
        # The gradient also reaches weights outside the range: they would never come back.
        return weight + (rounded - weight).detach() if self.training else rounded

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return the steps, float32 [channels], and zeros, int64 [channels], of the last weight that passed."""
        assert self._scale is not None, "a pass in evaluation mode comes before the conversion"
        return self._scale, torch.zeros(len(self._scale), dtype=torch.int64)

    def _steps(self, weight: Tensor, clip: Tensor) -> Tensor:
        largest = weight.abs().transpose(0, self.ch_axis).flatten(1).amax(1)
        return (largest * clip / self.quant_max).clamp(min=_SMALLEST_STEP)

    def _rounded(self, weight: Tensor, scale: Tensor) -> Tensor:
        zeros = torch.zeros(len(scale), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            weight, scale, zeros, self.ch_axis, self.quant_min, self.quant_max
        )
