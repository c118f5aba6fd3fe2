"""A quantizer that can be turned off, for measuring one layer at a time; imported in a worker alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgewright.compress.quantized_modules import FakeQuantize

_LARGEST_OF_4_BITS = 7


class Switch(nn.Module):
    """`quantizer` while it is on, else nothing.

    Attributes:
        is_on: it rounds.
        has_4_bits: it rounds to -7..7, with the scale that the largest value of each channel asks for.
    """

    def __init__(self, quantizer: FakeQuantize) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.is_on = False
        self.has_4_bits = False

    def forward(self, values: Tensor) -> Tensor:
        if not self.is_on:
            return values
        if self.has_4_bits:
            return _in_4_bits(values, self.quantizer.axis)
        rounded: Tensor = self.quantizer(values)
        return rounded


def _in_4_bits(weight: Tensor, axis: int | None) -> Tensor:
    rest = [other for other in range(weight.ndim) if other != axis]
    scale = weight.abs().amax(dim=rest, keepdim=True).clamp(min=1e-12) / _LARGEST_OF_4_BITS
    return torch.round(weight / scale) * scale
