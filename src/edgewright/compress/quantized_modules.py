"""Layers of quantized programs that train with a straight-through gradient; imported in a worker alone."""

from __future__ import annotations

from functools import cache

import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, nn


class FakeQuantize(nn.Module):
    """Rounds to the integers of a fixed scale and back.

    In training mode it is one operator whose gradient is 1 inside the range and 0 outside; in evaluation mode the
    quantize and the dequantize operator of PT2E, so that an export gives a quantized program again.
    """

    def __init__(
        self, *, scale: Tensor, zero_point: Tensor, axis: int | None, low: int, high: int, dtype: torch.dtype
    ) -> None:
        """Describe the integers.

        Args:
            scale: real step between two integers: a number, or [channels] along `axis`.
            zero_point: the integer of 0, shaped like `scale`.
            low, high: the smallest and the largest integer.
            dtype: the integers' own.
        """
        super().__init__()
        self.scale: float | Tensor
        self.zero_point: int | Tensor
        self.axis, self.low, self.high, self.dtype = axis, low, high, dtype
        if axis is None:
            # Plain numbers, which the exported graph holds as constants, as PT2E writes them.
            self.scale, self.zero_point = float(scale), int(zero_point)
        else:
            self.register_buffer("scale", scale)
            self.register_buffer("zero_point", zero_point)

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return self.to_float(self.to_integers(values))
        if isinstance(self.scale, Tensor) and isinstance(self.zero_point, Tensor) and self.axis is not None:
            return torch.fake_quantize_per_channel_affine(
                values, self.scale.float(), self.zero_point.int(), self.axis, self.low, self.high
            )
        scale, zero = float(self.scale), int(self.zero_point)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, self.low, self.high)

    def to_integers(self, values: Tensor) -> Tensor:
        """Return the integers of `values`."""
        return self._apply_operator("quantize", values)

    def to_float(self, integers: Tensor) -> Tensor:
        """Return the real values of `integers`."""
        return self._apply_operator("dequantize", integers)

    def _apply_operator(self, name: str, values: Tensor) -> Tensor:
        kind = "per_tensor" if self.axis is None else "per_channel"
        operator = getattr(torch.ops.quantized_decomposed, f"{name}_{kind}")
        axis = () if self.axis is None else (self.axis,)
        made: Tensor = operator(values, self.scale, self.zero_point, *axis, self.low, self.high, self.dtype)
        return made

    def extra_repr(self) -> str:
        return f"{self.low}..{self.high}" + ("" if self.axis is None else f", axis {self.axis}")


@cache
def quantized_class(kind: type[nn.Module]) -> type[nn.Module]:
    """Return `kind`, a convolution or linear layer, with a `weight_quantizer` that its weight passes.

    The weight itself stays a float parameter: what parametrizes it (masks, clusters) comes before the rounding.
    """
    if issubclass(kind, nn.Linear):

        class QuantizedLinear(nn.Linear):
            weight_quantizer: FakeQuantize

            def forward(self, values: Tensor) -> Tensor:
                return nn.functional.linear(values, self.weight_quantizer(self.weight), self.bias)

        return QuantizedLinear

    class QuantizedConvolution(kind):  # type: ignore[misc, valid-type]
        weight_quantizer: FakeQuantize

        def forward(self, values: Tensor) -> Tensor:
            made: Tensor = self._conv_forward(values, self.weight_quantizer(self.weight), self.bias)
            return made

    QuantizedConvolution.__name__ = f"Quantized{kind.__name__}"
    return QuantizedConvolution
