"""Parametrizations of weights that survive any training loop; imported in a worker alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.utils import parametrize

from edgewright.core.errors import ConversionError


class Mask(nn.Module):
    """Holds weights at zero: what the layer sees is weight * mask, so that their gradient is zero too."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        """Keep the weights where `mask` (bool, shaped like the weight) is true."""
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class Codebook(nn.Module):
    """Weights that share values: what trains is the codebook, what the layer sees is codebook[indices].

    The gradient of a shared value is the sum over its weights (Han, Mao, Dally 2016, "Deep Compression", 3.2).
    """

    indices: Tensor
    scale: Tensor

    def __init__(
        self, codebook: Tensor, indices: Tensor, *, has_zero: bool, scale: Tensor | None, limit: int
    ) -> None:
        """Describe the shared values.

        Args:
            codebook: float32 [k], the values that train; in steps of `scale` where that is given.
            indices: int64, shaped like the weight; one more than k values where `has_zero`, the first being 0.
            has_zero: index 0 is a fixed zero, and index i > 0 is codebook[i - 1].
            scale: float32, broadcastable to the weight: its integer grid. The codebook is then rounded to
                integers in -limit..limit with a straight-through gradient, and multiplied by it.
            limit: the largest integer of that grid; not used without `scale`.
        """
        super().__init__()
        self.has_zero, self.limit = has_zero, limit
        self.start = codebook
        self.register_buffer("indices", indices)
        self.register_buffer("scale", scale)

    def forward(self, codebook: Tensor) -> Tensor:
        values = codebook
        if self.scale is not None:
            rounded = codebook.round().clamp(-self.limit, self.limit)
            values = codebook + (rounded - codebook).detach()
        if self.has_zero:
            values = torch.cat([values.new_zeros(1), values])
        weight: Tensor = _Lookup.apply(values, self.indices)  # type: ignore[no-untyped-call]
        return weight if self.scale is None else weight * self.scale

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the codebook, whatever the weight: it was fitted to it before."""
        return self.start.to(weight.dtype)


class _Lookup(torch.autograd.Function):
    """values[indices]; its gradient by counting, many times faster than the scatter of plain indexing."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(values, indices)
        return values[indices]

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        values, indices = ctx.saved_tensors  # type: ignore[attr-defined]
        sums = torch.bincount(indices.flatten(), gradient.flatten().double(), minlength=len(values))
        return sums.to(gradient.dtype), None


def hold(layer: nn.Module, name: str, parametrization: nn.Module, *, title: str) -> None:
    """Let `parametrization` give the parameter `name` of `layer`, until `release`.

    Raises:
        ConversionError: it is no parameter, or something else computes it already; `title` names the layer.
    """
    if parametrize.is_parametrized(layer, name) or layer._parameters.get(name) is None:
        raise ConversionError(
            f"the {name} of layer {title!r} is computed by a parametrization or a hook, where a plain parameter "
            "is expected. Remove it first (torch.nn.utils.parametrize.remove_parametrizations, "
            "torch.nn.utils.prune.remove)."
        )
    parametrize.register_parametrization(layer, name, parametrization)


def release(layer: nn.Module, name: str) -> None:
    """Make the value that a parametrization gives the plain parameter again."""
    parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
