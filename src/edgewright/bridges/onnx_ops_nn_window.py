"""The window that convolutions and pools slide over the spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from edgewright.bridges.onnx_ops import OnnxNode

Tensor = torch.Tensor
MAX_TAPS = 4096  # places in one kernel that are unrolled


@dataclass(frozen=True, kw_only=True)
class Window:
    """A kernel's sizes for each spatial axis; `before` and `after` are the pads."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """How far the kernel reaches with its dilation."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def is_padded(self) -> bool:
        """Whether there is any pad."""
        return any(self.before) or any(self.after)


def window_of(node: OnnxNode, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
    """Return the window of a convolution or a pool; `auto_pad` is resolved for an input of spatial `sizes`.

    Raises:
        ConversionError: an attribute does not fit the rank, or is out of range.
    """
    rank = len(sizes)
    strides = positive(node, "strides", rank)
    dilations = positive(node, "dilations", rank)
    if len(kernel) != rank or any(size < 1 for size in kernel):
        raise node.refusal(f"its kernel is {list(kernel)} for {rank} spatial axes")
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    auto = node.text("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((-(-size // stride) - 1) * stride + span - size, 0)
            for size, stride, span in zip(sizes, strides, spans, strict=True)
        ]
        small = [total // 2 for total in totals]
        large = [total - half for total, half in zip(totals, small, strict=True)]
        before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    elif auto in ("NOTSET", "VALID", ""):
        before, after = pads_of(node, rank) if auto != "VALID" else ([0] * rank, [0] * rank)
    else:
        raise node.refusal(f"auto_pad {auto!r} is unknown")
    node.checked_size([size + b + a for size, b, a in zip(sizes, before, after, strict=True)])
    return Window(
        kernel=tuple(kernel),
        strides=tuple(strides),
        dilations=tuple(dilations),
        before=tuple(before),
        after=tuple(after),
    )


def positive(node: OnnxNode, name: str, rank: int) -> list[int]:
    """Return an attribute that holds one positive integer for each spatial axis; ones where the file has none."""
    values = node.integers(name, [1] * rank) or [1] * rank
    if len(values) != rank or any(value < 1 for value in values):
        raise node.refusal(f"attribute {name} is {values}, but must be {rank} positive integers")
    return values


def pads_of(node: OnnxNode, rank: int) -> tuple[list[int], list[int]]:
    """Return the attribute `pads`: before and after each spatial axis."""
    values = node.integers("pads", [0] * 2 * rank) or [0] * 2 * rank
    if len(values) != 2 * rank or any(value < 0 for value in values):
        raise node.refusal(f"attribute pads is {values}, but must be {2 * rank} integers of at least 0")
    return values[:rank], values[rank:]


def padded(value: Tensor, before: Sequence[int], after: Sequence[int], fill: float = 0.0) -> Tensor:
    """Return `value` with its last axes padded by `fill`; a negative pad cuts."""
    flat = [pad for pair in zip(reversed(before), reversed(after), strict=True) for pad in pair]
    return functional.pad(value, flat, value=fill) if any(flat) else value


def taps(value: Tensor, window: Window, sizes: Sequence[int]) -> list[Tensor]:
    """Return what each place of the kernel sees, in row-major order.

    Args:
        value: [..., *spatial], padded so that every window lies inside.
        sizes: spatial sizes of the output; each result is [..., *sizes].
    """
    views = [value]
    rank = len(sizes)
    for axis in range(rank):
        place = value.dim() - rank + axis
        next_views: list[Tensor] = []
        for view in views:
            for tap in range(window.kernel[axis]):
                start = tap * window.dilations[axis]
                stop = start + (sizes[axis] - 1) * window.strides[axis] + 1
                index = [slice(None)] * place + [slice(start, stop, window.strides[axis])]
                next_views.append(view[tuple(index)])
        views = next_views
    return views
