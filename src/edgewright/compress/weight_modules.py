"""Parametrizations of weights that survive any training loop; imported in a worker alone."""

from __future__ import annotations

from dataclasses import dataclass

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

    A shared value gets the sum of the gradients of its weights (Han, Mao, Dally 2016, "Deep Compression", 3.2),
    divided by their number: SGD then takes the dense step projected onto weights that share values, so a learning
    rate that suits the weights suits the codebook. With the plain sum it would have to be as much smaller as
    there are weights in a cluster. Adam takes the same step either way.
    """

    indices: Tensor
    scale: Tensor

    def __init__(
        self, values: Tensor, indices: Tensor, *, has_zero: bool = False, grid: IntegerGrid | None = None
    ) -> None:
        """Describe the shared values.

        Args:
            values: float32 [k], where the codebook starts.
            indices: int64, shaped like the weight; below k, or k + 1 where `has_zero`.
            has_zero: index 0 is a zero that does not train, and index i > 0 is number i - 1 of the codebook.
            grid: where the layer's weights are quantized: the codebook is rounded to it, with a straight-through
                gradient.
        """
        super().__init__()
        self.has_zero, self.grid = has_zero, grid
        self.start = values
        self.register_buffer("indices", indices)

    def forward(self, codebook: Tensor) -> Tensor:
        values = codebook
        if self.grid is not None:
            steps = codebook.detach() / self.grid.unit
            rounded = steps.round().clamp(self.grid.low, self.grid.high)
            values = codebook / self.grid.unit + (rounded - steps)
        if self.has_zero:
            values = torch.cat([values.new_zeros(1), values])
        weight: Tensor = _Lookup.apply(values, self.indices)  # type: ignore[no-untyped-call]
        return weight if self.grid is None else weight * self.grid.scale

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the codebook, whatever the weight: it was fitted to it before."""
        return self.start.to(weight.dtype)


@dataclass(frozen=True, kw_only=True)
class IntegerGrid:
    """The integers of a quantized weight: low..high, each times `scale`, which broadcasts to the weight.

    Attributes:
        unit: the mean scale, in which the codebook is counted, so that it has the size of the weights.
    """

    scale: Tensor
    unit: float
    low: int
    high: int


class _Lookup(torch.autograd.Function):
    """values[indices], with the mean gradient of each value's weights; counts are faster than a scatter."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(values, indices)
        return values[indices]

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        values, indices = ctx.saved_tensors  # type: ignore[attr-defined]
        places = indices.flatten()
        sums = torch.bincount(places, gradient.flatten().double(), minlength=len(values))
        counts = torch.bincount(places, minlength=len(values)).clamp(min=1)
        return (sums / counts).to(gradient.dtype), None


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
    value = getattr(layer, name).detach().clone()
    parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    # A new parameter: the old one may keep a gradient shaped like the codebook, with which torch.export fails.
    layer.register_parameter(name, nn.Parameter(value))
