"""Convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_nn_window import Window, padded, pads_of, positive, window_of

Tensor = torch.Tensor
_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def _kernel(node: OnnxNode, weight: Tensor) -> list[int]:
    own = list(weight.shape[2:])
    if node.integers("kernel_shape", own) != own:
        raise node.refusal(f"kernel_shape is {node.integers('kernel_shape')}, but its weights are {own}")
    return own


def convolved(
    node: OnnxNode, value: Tensor, weight: Tensor, bias: Tensor | None, window: Window, fill: float = 0.0
) -> Tensor:
    """Return the convolution of `value` [N, C, *spatial] with `weight` [M, C/group, *kernel].

    Args:
        fill: what the pads hold.
    """
    rank = value.dim() - 2
    if rank not in _CONVOLUTIONS:
        raise node.refusal(f"it has {rank} spatial axes; 1 to 3 are converted")
    group = node.integer("group", 1)
    if window.before == window.after and fill == 0.0:
        padding = window.before
    else:
        value, padding = padded(value, window.before, window.after, fill), (0,) * rank
    return _CONVOLUTIONS[rank](value, weight, bias, window.strides, padding, window.dilations, group)


@handles("Conv")
def _conv(node: OnnxNode, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    window = window_of(node, value.shape[2:], _kernel(node, weight))
    return convolved(node, value, weight, bias, window)


@handles("ConvTranspose")
def _conv_transpose(node: OnnxNode, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = value.dim() - 2
    if rank not in _TRANSPOSED:
        raise node.refusal(f"it has {rank} spatial axes; 1 to 3 are converted")
    kernel = _kernel(node, weight)
    strides, dilations = positive(node, "strides", rank), positive(node, "dilations", rank)
    extra = node.integers("output_padding", [0] * rank) or [0] * rank
    if len(extra) != rank or any(size < 0 for size in extra):
        raise node.refusal(f"output_padding is {extra}, but must be {rank} integers of at least 0")
    spread = [
        (size - 1) * stride + (k - 1) * dilation + 1
        for size, stride, k, dilation in zip(value.shape[2:], strides, kernel, dilations, strict=True)
    ]
    before, after = _transposed_pads(node, value.shape[2:], strides, spread, extra)
    sizes = [full + e - b - a for full, e, b, a in zip(spread, extra, before, after, strict=True)]
    node.checked_size(
        [value.shape[0], weight.shape[1] * node.integer("group", 1), *(max(s, 0) for s in sizes)]
    )
    group = node.integer("group", 1)
    cut = [e - a for e, a in zip(extra, after, strict=True)]
    begin = [-b for b in before]
    # Without pads, as converters lower that; what the pads take away is cut off, what the output gains follows it.
    inner = bias if max(cut) <= 0 else None
    if rank == 3:
        full = _spread_conv(value, weight, inner, strides, dilations, group)
    else:
        full = _TRANSPOSED[rank](value, weight, inner, strides, 0, 0, group, dilations)
    result = padded(full, begin, cut)
    return result if bias is None or bias is inner else result + bias.reshape(1, -1, *[1] * rank)


def _transposed_pads(
    node: OnnxNode, sizes: Sequence[int], strides: Sequence[int], spread: Sequence[int], extra: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the pads that are cut from a transposed convolution's full output.

    Source: the formulas under `pads` and `output_shape` in ONNX's ConvTranspose. A total below 0 stays 0 there, and
    zeros follow at the end.
    """
    rank = len(sizes)
    auto = node.text("auto_pad", "NOTSET")
    wanted = node.integers("output_shape")
    if wanted:
        wanted = wanted[-rank:]
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    elif auto == "VALID":
        return [0] * rank, [0] * rank
    else:
        return pads_of(node, rank)
    if len(wanted) != rank or any(size < 1 for size in wanted):
        raise node.refusal(f"output_shape is {wanted} for {rank} spatial axes")
    totals = [full + e - want for full, e, want in zip(spread, extra, wanted, strict=True)]
    small = [max(total, 0) // 2 for total in totals]
    large = [total - half for total, half in zip(totals, small, strict=True)]
    if auto == "SAME_UPPER" or any(total < 0 for total in totals):
        return small, large
    return [t - s for t, s in zip(totals, small, strict=True)], small


def _spread_conv(
    value: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> Tensor:
    """Return the full transposed convolution of 3 spatial axes as a convolution of the input with zeros between.

    Converters that lower no transposed convolution in 3D lower this one.
    """
    rank = len(strides)
    for axis, stride in enumerate(strides, start=2):
        if stride > 1:
            size = value.shape[axis]
            pads = [0, 0] * (value.dim() - axis - 1) + [0, 0, 0, stride - 1]
            value = functional.pad(value.unsqueeze(axis + 1), [*pads[:-4], 0, stride - 1])
            shape = [*value.shape[:axis], size * stride, *value.shape[axis + 2 :]]
            value = value.reshape(shape).narrow(axis, 0, (size - 1) * stride + 1)
    reach = [(k - 1) * d for k, d in zip(weight.shape[2:], dilations, strict=True)]
    inputs, outputs = weight.shape[:2]
    flipped = torch.flip(weight, list(range(2, 2 + rank)))
    flipped = flipped.reshape(group, inputs // group, outputs, *weight.shape[2:]).transpose(1, 2)
    flipped = flipped.reshape(group * outputs, inputs // group, *weight.shape[2:])
    return _CONVOLUTIONS[rank](padded(value, reach, reach), flipped, bias, 1, 0, dilations, group)


@handles("DeformConv")
def _deform_conv(
    node: OnnxNode,
    value: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Sample the input bilinearly at each tap's own place, then multiply with the weights.

    Source: ONNX DeformConv; value [N, C, H, W], offset [N, groups * kh * kw * 2, oh, ow] with y before x,
    mask [N, groups * kh * kw, oh, ow].
    """
    if value.dim() != 4:
        raise node.refusal(f"it has {value.dim() - 2} spatial axes; 2 are converted")
    kernel = _kernel(node, weight)
    window = window_of(node, value.shape[2:], kernel)
    batch, channels = value.shape[:2]
    sizes = offset.shape[2:]
    groups, parts = node.integer("offset_group", 1), node.integer("group", 1)
    count = math.prod(kernel)
    if groups < 1 or channels % groups or offset.shape[1] != groups * count * 2:
        raise node.refusal(f"its offsets have {offset.shape[1]} channels, not {groups} x {count} x 2")
    shifts = offset.reshape(batch, groups, count, 2, *sizes)
    coordinates: list[Tensor] = []
    for axis in (0, 1):
        tap = torch.arange(kernel[axis], dtype=value.dtype) * window.dilations[axis]
        step = torch.arange(sizes[axis], dtype=value.dtype) * window.strides[axis] - window.before[axis]
        tap = tap.reshape(-1, 1) if axis == 0 else tap.reshape(1, -1)
        tap = tap.expand(kernel[0], kernel[1]).reshape(1, 1, count, 1, 1)
        step = step.reshape(1, 1, 1, -1, 1) if axis == 0 else step.reshape(1, 1, 1, 1, -1)
        coordinates.append(shifts.select(3, axis) + tap + step)
    grouped = value.reshape(batch * groups, channels // groups, *value.shape[2:])
    flat = [c.reshape(batch * groups, -1) for c in coordinates]
    sampled = bilinear(grouped, flat[0], flat[1])  # [N * groups, C / groups, taps * oh * ow]
    if mask is not None:
        sampled = sampled * mask.reshape(batch * groups, 1, -1)
    columns = sampled.reshape(batch, parts, channels // parts * count, math.prod(sizes))
    filters = weight.reshape(1, parts, weight.shape[0] // parts, -1)
    result = torch.matmul(filters, columns).reshape(batch, weight.shape[0], *sizes)
    return result if bias is None else result + bias.reshape(1, -1, 1, 1)


def bilinear(value: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return `value` [B, C, H, W] at fractional places [B, P], zero outside, as [B, C, P]."""
    batch, channels, height, width = value.shape
    flat = value.reshape(batch, channels, height * width)
    top, left = torch.floor(rows), torch.floor(columns)
    total: Tensor | None = None
    for down in (0, 1):
        for right in (0, 1):
            y, x = top + down, left + right
            share = (1 - torch.abs(rows - y)) * (1 - torch.abs(columns - x))
            is_inside = torch.logical_and(
                torch.logical_and(y >= 0, y <= height - 1), torch.logical_and(x >= 0, x <= width - 1)
            )
            share = torch.where(is_inside, share, torch.zeros_like(share))
            place = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).to(torch.int64)
            seen = torch.gather(flat, 2, place.unsqueeze(1).expand(batch, channels, place.shape[1]))
            term = seen * share.unsqueeze(1)
            total = term if total is None else total + term
    assert total is not None
    return total
