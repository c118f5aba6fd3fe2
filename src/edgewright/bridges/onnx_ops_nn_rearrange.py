"""Blocks of an image moved to channels and back, columns to images, and cuts around the centre."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_math import wide
from edgewright.bridges.onnx_ops_nn_window import MAX_TAPS, padded, pads_of, positive

Tensor = torch.Tensor


def _block(node: OnnxNode) -> int:
    size = node.integer("blocksize", 0)
    if size < 1:
        raise node.refusal(f"blocksize is {size}, but must be at least 1")
    return size


@handles("DepthToSpace")
def _depth_to_space(node: OnnxNode, value: Tensor) -> Tensor:
    size, mode = _block(node), node.text("mode", "DCR")
    batch, channels, height, width = value.shape
    if channels % (size * size) or mode not in ("DCR", "CRD"):
        raise node.refusal(f"mode {mode!r} of {channels} channels in blocks of {size}")
    depth = channels // (size * size)
    if mode == "DCR":
        parts = value.reshape(batch, size, size, depth, height, width).permute(0, 3, 4, 1, 5, 2)
    elif size == 1:
        return value.clone()
    else:
        return functional.pixel_shuffle(value, size)
    return parts.reshape(batch, depth, height * size, width * size)


@handles("SpaceToDepth")
def _space_to_depth(node: OnnxNode, value: Tensor) -> Tensor:
    size = _block(node)
    batch, channels, height, width = value.shape
    if height % size or width % size:
        raise node.refusal(f"{height} x {width} does not divide into blocks of {size}")
    parts = value.reshape(batch, channels, height // size, size, width // size, size)
    if node.opset >= 28 and node.text("mode", "DCR") == "CRD":
        parts = parts.permute(0, 1, 3, 5, 2, 4)
    else:
        parts = parts.permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(batch, channels * size * size, height // size, width // size)


@handles("Col2Im")
def _columns_to_image(node: OnnxNode, value: Tensor, image: Tensor, block: Tensor) -> Tensor:
    """Add up overlapping blocks: value [N, C * prod(block), L] to [N, C, *image]."""
    sizes, kernel = node.ints_at(1), node.ints_at(2)
    rank = len(sizes)
    if rank != len(kernel) or any(k < 1 for k in kernel) or any(s < 1 for s in sizes):
        raise node.refusal(f"its image is {sizes} and its block {kernel}")
    strides, dilations = positive(node, "strides", rank), positive(node, "dilations", rank)
    before, after = pads_of(node, rank)
    count = math.prod(kernel)
    if count > MAX_TAPS:
        raise node.refusal(f"its block is {kernel}; {MAX_TAPS} places are converted at most")
    full = [size + b + a for size, b, a in zip(sizes, before, after, strict=True)]
    steps = [
        (size - (k - 1) * d - 1) // s + 1
        for size, k, d, s in zip(full, kernel, dilations, strides, strict=True)
    ]
    batch, channels = value.shape[0], value.shape[1] // count
    node.checked_size([batch, channels, *full])
    if math.prod(steps) != value.shape[2]:
        raise node.refusal(f"its blocks are {value.shape[2]}, but {steps} fit into the image")
    parts = value.reshape(batch * channels, count, *steps)
    total: Tensor | None = None
    for tap in range(count):
        part = parts.select(1, tap)
        rest = tap
        offset = [0] * rank
        for axis in reversed(range(rank)):
            offset[axis] = rest % kernel[axis] * dilations[axis]
            rest //= kernel[axis]
        for axis, stride in enumerate(strides, start=1):
            part = _with_zeros_between(part, axis, stride)
        end = [size - o - have for size, o, have in zip(full, offset, part.shape[1:], strict=True)]
        placed = padded(part, offset, end)
        total = placed if total is None else total + placed
    assert total is not None
    cut = padded(total, [-b for b in before], [-a for a in after])
    return cut.reshape(batch, channels, *sizes)


def _with_zeros_between(value: Tensor, axis: int, stride: int) -> Tensor:
    if stride == 1:
        return value
    size = value.shape[axis]
    spread = value.reshape(*value.shape[: axis + 1], 1, *value.shape[axis + 1 :])
    pads = [0, 0] * (value.dim() - axis - 1) + [0, stride - 1]
    spread = functional.pad(spread, pads)
    shape = [*value.shape[:axis], size * stride, *value.shape[axis + 1 :]]
    return spread.reshape(shape).narrow(axis, 0, (size - 1) * stride + 1)


@handles("CenterCropPad")
def _centre_crop_pad(node: OnnxNode, value: Tensor, shape: Tensor) -> Tensor:
    wanted = node.ints_at(1)
    axes = [node.axis(axis, value.dim()) for axis in node.integers("axes", range(value.dim()))]
    if len(axes) != len(wanted) or any(size < 0 for size in wanted):
        raise node.refusal(f"its shape is {wanted} for the axes {axes}")
    before, after = [0] * value.dim(), [0] * value.dim()
    result = wide(value)
    for axis, size in zip(axes, wanted, strict=True):
        have = value.shape[axis]
        if size <= have:
            result = result.narrow(axis, (have - size) // 2, size)
        else:
            before[axis] = (size - have) // 2
            after[axis] = size - have - before[axis]
    node.checked_size([size + b + a for size, b, a in zip(result.shape, before, after, strict=True)])
    return padded(result, before, after).to(value.dtype).clone()
