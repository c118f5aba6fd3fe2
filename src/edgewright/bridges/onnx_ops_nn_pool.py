"""Pools. A pool over 3 axes is one over the last two and one over the first, as maxima and sums are separable."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_nn_window import MAX_TAPS, Window, padded, positive, taps, window_of
from edgewright.bridges.onnx_values import tensor_of

Tensor = torch.Tensor
_MAX_RANK = 3
_MAX_FACTORS = 8  # of a power that is multiplied out


def _window(node: OnnxNode, value: Tensor) -> tuple[Window, list[int]]:
    """Return the window of a pool and the spatial sizes of its output."""
    sizes = list(value.shape[2:])
    if not 1 <= len(sizes) <= _MAX_RANK:
        raise node.refusal(f"it has {len(sizes)} spatial axes; 1 to {_MAX_RANK} are converted")
    window = window_of(node, sizes, node.integers("kernel_shape"))
    is_ceil = node.integer("ceil_mode", 0)
    outputs: list[int] = []
    for axis, size in enumerate(sizes):
        room = size + window.before[axis] + window.after[axis] - window.spans[axis]
        stride = window.strides[axis]
        count = (-(-room // stride) if is_ceil else room // stride) + 1
        if is_ceil and (count - 1) * stride >= size + window.before[axis]:
            count -= 1  # the last window would lie in the pads alone
        if count < 1:
            raise node.refusal(f"its window {list(window.spans)} is larger than its input {sizes}")
        outputs.append(count)
    return window, outputs


def _ends(window: Window, sizes: Sequence[int], outputs: Sequence[int]) -> list[int]:
    """Return the pads at the ends that the windows of `outputs` need; what they do not reach, pools do not read."""
    return [
        max((count - 1) * stride + span - size - before, 0)
        for count, stride, span, size, before in zip(
            outputs, window.strides, window.spans, sizes, window.before, strict=True
        )
    ]


def _pooled(value: Tensor, window: Window, outputs: Sequence[int], *, is_max: bool) -> Tensor:
    """Return the maxima or the sums of the windows of `value` [N, C, *spatial], in which every window lies inside."""
    rank = len(outputs)
    if any(d != 1 and k != 1 for d, k in zip(window.dilations, window.kernel, strict=True)):
        seen = taps(value, window, outputs)
        return reduce(torch.maximum, seen) if is_max else reduce(torch.add, seen)
    if rank == 1:
        flat = value.unsqueeze(2)
        return _planes(flat, (1, *window.kernel), (1, *window.strides), is_max=is_max).squeeze(2)
    if rank == 2:
        return _planes(value, window.kernel, window.strides, is_max=is_max)
    batch, channels, depth, height, width = value.shape
    planes = value.reshape(batch, channels * depth, height, width)
    planes = _planes(planes, window.kernel[1:], window.strides[1:], is_max=is_max)
    columns = planes.reshape(batch, channels, depth, math.prod(planes.shape[2:]))
    columns = _planes(columns, (window.kernel[0], 1), (window.strides[0], 1), is_max=is_max)
    return columns.reshape(batch, channels, columns.shape[2], *planes.shape[2:])


def _planes(value: Tensor, kernel: Sequence[int], strides: Sequence[int], *, is_max: bool) -> Tensor:
    if math.prod(kernel) == 1 and math.prod(strides) == 1:
        return value
    if is_max:
        return functional.max_pool2d(value, list(kernel), list(strides))
    return functional.avg_pool2d(value, list(kernel), list(strides)) * math.prod(kernel)


@handles("MaxPool")
def _max_pool(node: OnnxNode, value: Tensor) -> Tensor | tuple[Tensor, ...]:
    window, outputs = _window(node, value)
    if node.n_outputs > 1:
        return _max_pool_with_places(node, value, window, outputs)
    if not value.dtype.is_floating_point:  # bytes are exact in float32
        info = torch.iinfo(value.dtype)
        number = padded(
            value.to(torch.float32), window.before, _ends(window, value.shape[2:], outputs), info.min
        )
        return _pooled(number, window, outputs, is_max=True).to(value.dtype)
    ends = _ends(window, value.shape[2:], outputs)
    is_plain = len(outputs) == 2 and not any(d != 1 for d in window.dilations)
    # torch pads by minus infinity itself, by half of the kernel at most, and as much on both sides; what it then has
    # left over at the end, it does not read.
    is_even = all(
        before <= k // 2 and before - stride < end <= before
        for before, end, k, stride in zip(window.before, ends, window.kernel, window.strides, strict=True)
    )
    if is_plain and is_even:
        return functional.max_pool2d(value, window.kernel, window.strides, window.before)
    lowest = float("-inf")
    return _pooled(padded(value, window.before, ends, lowest), window, outputs, is_max=True)


def _max_pool_with_places(
    node: OnnxNode, value: Tensor, window: Window, outputs: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the maxima, and where they lie in the whole flattened input; the first of equal ones."""
    sizes = list(value.shape[2:])
    if math.prod(window.kernel) > MAX_TAPS:
        raise node.refusal(f"its kernel is {list(window.kernel)}; places are found for {MAX_TAPS} at most")
    number = value if value.dtype.is_floating_point else value.to(torch.float32)
    full = padded(number, window.before, _ends(window, sizes, outputs), float("-inf"))
    is_column_major = node.integer("storage_order", 0) == 1
    best: Tensor | None = None
    places: Tensor | None = None
    for tap, seen in zip(
        itertools.product(*map(range, window.kernel)), taps(full, window, outputs), strict=True
    ):
        table = _places(tap, window, sizes, outputs, is_column_major=is_column_major)
        here = tensor_of(table).expand(seen.shape)
        if best is None or places is None:
            best, places = seen, here
        else:
            is_larger = seen > best
            best, places = torch.maximum(best, seen), torch.where(is_larger, here, places)
    assert best is not None
    assert places is not None
    planes = np.arange(math.prod(value.shape[:2]), dtype=np.int64) * math.prod(sizes)
    offset = tensor_of(planes.reshape(*value.shape[:2], *[1] * len(sizes)))
    return best.to(value.dtype), places + offset


def _places(
    tap: Sequence[int],
    window: Window,
    sizes: Sequence[int],
    outputs: Sequence[int],
    *,
    is_column_major: bool,
) -> npt.NDArray[np.int64]:
    """Return for one tap which place of its plane each output sees."""
    table: npt.NDArray[np.int64] = np.zeros([1] * len(sizes), dtype=np.int64)
    for axis, count in enumerate(outputs):
        at = (
            np.arange(count) * window.strides[axis] + tap[axis] * window.dilations[axis] - window.before[axis]
        )
        step = math.prod(sizes[:axis]) if is_column_major else math.prod(sizes[axis + 1 :])
        shape = [-1 if index == axis else 1 for index in range(len(sizes))]
        table = table + at.reshape(shape) * step
    return table.astype(np.int64)


@handles("AveragePool")
def _average_pool(node: OnnxNode, value: Tensor) -> Tensor:
    window, outputs = _window(node, value)
    sizes = list(value.shape[2:])
    counts = _counts(window, sizes, outputs, has_pads=bool(node.integer("count_include_pad", 0)))
    full = padded(value, window.before, _ends(window, sizes, outputs))
    taps_count = math.prod(window.kernel)
    if np.all(counts == taps_count) and len(outputs) == 2 and all(d == 1 for d in window.dilations):
        return functional.avg_pool2d(full, window.kernel, window.strides)
    sums = _pooled(full, window, outputs, is_max=False)
    return sums * tensor_of((1.0 / counts).astype(np.float64)).to(value.dtype)


def _counts(
    window: Window, sizes: Sequence[int], outputs: Sequence[int], *, has_pads: bool
) -> npt.NDArray[np.float64]:
    """Return how many values each output averages: those of the input, and of the given pads where `has_pads`."""
    total: npt.NDArray[np.float64] = np.ones([1] * len(sizes), dtype=np.float64)
    for axis, count in enumerate(outputs):
        starts = np.arange(count)[:, None] * window.strides[axis]
        at = starts + np.arange(window.kernel[axis])[None, :] * window.dilations[axis]
        low = 0 if has_pads else window.before[axis]
        high = window.before[axis] + sizes[axis] + (window.after[axis] if has_pads else 0)
        inside = ((at >= low) & (at < high)).sum(axis=1)
        shape = [-1 if index == axis else 1 for index in range(len(sizes))]
        total = total * np.maximum(inside, 1).reshape(shape)
    return total


@handles("LpPool")
def _lp_pool(node: OnnxNode, value: Tensor) -> Tensor:
    window, outputs = _window(node, value)
    power = node.number("p", 2) if node.has("p") else 2.0
    full = padded(_power(value, power), window.before, _ends(window, value.shape[2:], outputs))
    return _root(_pooled(full, window, outputs, is_max=False), power)


def _power(value: Tensor, power: float) -> Tensor:
    if power == 2.0:
        return value * value
    size = torch.abs(value)
    if float(power).is_integer() and 1 <= power <= _MAX_FACTORS:  # runtimes lack a power of tensors of 5 axes
        return reduce(torch.mul, [size] * int(power))
    return torch.pow(size, power)


def _root(value: Tensor, power: float) -> Tensor:
    if power == 2.0:
        return torch.sqrt(value)
    if power == 1.0:
        return value
    return torch.pow(value.reshape(-1), 1.0 / power).reshape(value.shape)


@handles("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(node: OnnxNode, value: Tensor) -> Tensor:
    axes = list(range(2, value.dim()))
    if not axes:
        raise node.refusal("its input has no spatial axes")
    if node.op_type == "GlobalAveragePool":
        return torch.mean(value, dim=axes, keepdim=True)
    if node.op_type == "GlobalMaxPool":
        return torch.amax(value, dim=axes, keepdim=True)
    power = node.number("p", 2)
    return _root(torch.sum(_power(value, power), dim=axes, keepdim=True), power)


@handles("MaxUnpool")
def _max_unpool(node: OnnxNode, value: Tensor, places: Tensor, shape: Tensor | None = None) -> Tensor:
    rank = value.dim() - 2
    kernel = node.integers("kernel_shape")
    strides = positive(node, "strides", rank)
    pads = node.integers("pads", [0] * 2 * rank)
    if len(kernel) != rank or len(pads) != 2 * rank:
        raise node.refusal(f"its kernel {kernel} and pads {pads} do not fit {rank} spatial axes")
    sizes = [
        (size - 1) * stride - pads[axis] - pads[axis + rank] + kernel[axis]
        for axis, (size, stride) in enumerate(zip(value.shape[2:], strides, strict=True))
    ]
    full = node.checked_size([*value.shape[:2], *sizes])
    flat = torch.zeros(math.prod(full), dtype=value.dtype)
    flat = torch.index_put(flat, (places.reshape(-1).to(torch.int64),), value.reshape(-1))
    result = flat.reshape(full)
    if shape is None:
        return result
    wanted = node.checked_size(node.ints_at(2))
    if len(wanted) != len(full):
        raise node.refusal(f"output_shape is {list(wanted)} for rank {len(full)}")
    return padded(result, [0] * len(full), [want - size for want, size in zip(wanted, full, strict=True)])
