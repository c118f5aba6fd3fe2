"""What moves values without computing: shapes, joins, cuts, fills."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_math import wide
from edgewright.bridges.onnx_values import carrier_of, tensor_of

Tensor = torch.Tensor


@handles("Constant")
def _constant(node: OnnxNode) -> Tensor:
    kinds = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    for name, value in node.attributes.items():
        if isinstance(value, np.ndarray):
            return tensor_of(value)
        if name in kinds:
            return tensor_of(np.asarray(value, dtype=kinds[name]))
    raise node.refusal("it holds strings, or nothing")


@handles("Reshape")
def _reshape(node: OnnxNode, value: Tensor, shape: Tensor | None = None) -> Tensor:
    wanted = node.integers("shape") if node.opset < 5 else node.ints_at(1)
    sizes = []
    for index, size in enumerate(wanted):
        if size == 0 and not node.integer("allowzero", 0):
            if index >= value.dim():
                raise node.refusal(f"it keeps dimension {index} of a tensor of rank {value.dim()}")
            size = value.shape[index]
        sizes.append(size)
    return value.reshape(sizes)


@handles("Flatten")
def _flatten(node: OnnxNode, value: Tensor) -> Tensor:
    axis = node.integer("axis", 1)
    axis = axis + value.dim() if axis < 0 else axis
    if not 0 <= axis <= value.dim():
        raise node.refusal(f"axis {axis} is outside of rank {value.dim()}")
    return value.reshape(math.prod(value.shape[:axis]), math.prod(value.shape[axis:]))


@handles("Squeeze")
def _squeeze(node: OnnxNode, value: Tensor, axes: Tensor | None = None) -> Tensor:
    given = node.ints_at(1) if axes is not None else node.integers("axes")
    listed = {node.axis(axis, value.dim()) for axis in given}
    if not given and axes is None and not node.has("axes"):
        listed = {index for index, size in enumerate(value.shape) if size == 1}
    if any(value.shape[index] != 1 for index in listed):
        raise node.refusal(f"it removes the axes {sorted(listed)} of a tensor of shape {list(value.shape)}")
    return value.reshape([size for index, size in enumerate(value.shape) if index not in listed])


@handles("Unsqueeze")
def _unsqueeze(node: OnnxNode, value: Tensor, axes: Tensor | None = None) -> Tensor:
    given = node.ints_at(1) if axes is not None else node.integers("axes")
    rank = value.dim() + len(given)
    for axis in sorted(node.axis(axis, rank) for axis in given):
        value = value.unsqueeze(axis)
    return value


@handles("Transpose")
def _transpose(node: OnnxNode, value: Tensor) -> Tensor:
    order = node.integers("perm", range(value.dim())[::-1])
    return value.permute(order)


@handles("Concat")
def _concat(node: OnnxNode, *values: Tensor) -> Tensor:
    return torch.cat(values, node.axis(node.integer("axis", 1), values[0].dim()))


@handles("Split")
def _split(node: OnnxNode, value: Tensor, split: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = node.axis(node.integer("axis", 0), value.dim())
    sizes = node.ints_at(1) if split is not None else node.integers("split")
    if not sizes:
        pieces = node.integer("num_outputs", node.n_outputs)
        if pieces < 1:
            raise node.refusal("it gives nothing")
        step = -(-value.shape[axis] // pieces)
        sizes = [max(min(step, value.shape[axis] - step * index), 0) for index in range(pieces)]
    if sum(sizes) != value.shape[axis] or any(size < 0 for size in sizes):
        raise node.refusal(f"it splits {value.shape[axis]} into {sizes[:8]}")
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    # Not torch.split, which not every converter lowers.
    return tuple(value.narrow(axis, start, size) for start, size in zip(starts, sizes, strict=True))


@handles("Slice")
def _slice(
    node: OnnxNode,
    value: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    if node.opset < 10:
        first, last = node.integers("starts"), node.integers("ends")
        listed = node.integers("axes", range(len(first)))
        strides = [1] * len(first)
    else:
        first, last = node.ints_at(1), node.ints_at(2)
        listed = node.ints_at(3) if axes is not None else list(range(len(first)))
        strides = node.ints_at(4) if steps is not None else [1] * len(first)
    for start, end, axis, step in zip(first, last, listed, strides, strict=True):
        axis = node.axis(axis, value.dim())
        size = value.shape[axis]
        if step == 0:
            raise node.refusal("its step is 0")
        # Python's slice clamps as ONNX does; ONNX's "to before the first" is any end below -size.
        stop = None if step < 0 and end < -size else end
        places = range(size)[start:stop:step] if start >= -size or step > 0 else range(0)
        value = _picked(value, axis, places)
    return value


def _picked(value: Tensor, axis: int, places: range) -> Tensor:
    """Return the entries at evenly spaced places along an axis."""
    if len(places) == 0:
        return value.narrow(axis, 0, 0)
    if places.step < 0:
        return torch.flip(_picked(value, axis, places[::-1]), [axis])
    if places == range(value.shape[axis]):
        return value
    index = [slice(None)] * axis + [slice(places.start, places[-1] + 1, places.step)]
    return value[tuple(index)]


@handles("Expand")
def _expand(node: OnnxNode, value: Tensor, shape: Tensor) -> Tensor:
    wanted = np.broadcast_shapes(tuple(value.shape), tuple(node.ints_at(1)))
    return value.expand(node.checked_size(wanted))


@handles("Tile")
def _tile(node: OnnxNode, value: Tensor, repeats: Tensor, axis: Tensor | None = None) -> Tensor:
    counts = node.ints_at(1)
    if node.opset < 6:
        where = node.ints_at(2)[0]
        counts = [counts[0] if index == where else 1 for index in range(value.dim())]
    if len(counts) != value.dim():
        raise node.refusal(f"it has {len(counts)} repeats for a tensor of rank {value.dim()}")
    node.checked_size([size * count for size, count in zip(value.shape, counts, strict=True)])
    for index, count in enumerate(counts):
        if count != 1:
            value = torch.cat([value] * count, index) if count else value.narrow(index, 0, 0)
    return value


@handles("Pad")
def _pad(
    node: OnnxNode,
    value: Tensor,
    pads: Tensor | None = None,
    fill: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    rank = value.dim()
    listed = [node.axis(axis, rank) for axis in node.ints_at(3)] if axes is not None else list(range(rank))
    given = node.integers("pads", node.integers("paddings")) if node.opset < 11 else node.ints_at(1)
    if len(given) != 2 * len(listed):
        raise node.refusal(f"it has {len(given)} pads for {len(listed)} axes")
    before, after = [0] * rank, [0] * rank
    for index, axis in enumerate(listed):
        before[axis], after[axis] = given[index], given[index + len(listed)]
    node.checked_size([b + size + a for b, size, a in zip(before, value.shape, after, strict=True)])
    mode = node.text("mode", "constant")
    if mode == "constant":
        return _filled(node, value, before, after, fill)
    if mode not in ("reflect", "edge", "wrap"):
        raise node.refusal(f"mode {mode!r} is unknown")
    for axis, size in enumerate(value.shape):
        if before[axis] or after[axis]:
            if size == 0:
                raise node.refusal("it pads nothing with itself")
            value = _continued(node, value, axis, np.arange(-before[axis], size + after[axis]), mode)
    return value


def _continued(node: OnnxNode, value: Tensor, axis: int, places: np.ndarray, mode: str) -> Tensor:
    size = value.shape[axis]
    if mode == "edge":
        places = places.clip(0, size - 1)
    elif mode == "wrap":
        places = places % size
    else:
        period = max(2 * (size - 1), 1)
        places = places % period
        places = np.minimum(places, period - places) if size > 1 else np.zeros_like(places)
    return value.index_select(axis, tensor_of(places.astype(np.int64)))


def _filled(
    node: OnnxNode, value: Tensor, before: list[int], after: list[int], fill: Tensor | None
) -> Tensor:
    number: float = node.number("value", 0.0)
    if fill is not None and not node.is_constant(2):
        ones = _padded(torch.ones_like(value, dtype=torch.float32), before, after, 0.0)
        return torch.where(ones > 0, wide(_padded(value, before, after, 0)), wide(fill).reshape(())).to(
            value.dtype
        )
    if fill is not None:
        number = node.constant(2).reshape(-1)[0].item()
    return _padded(value, before, after, number)


def _padded(value: Tensor, before: list[int], after: list[int], number: float) -> Tensor:
    for axis, size in enumerate(value.shape):  # a negative pad cuts
        start, end = max(-before[axis], 0), size - max(-after[axis], 0)
        if start or end != size:
            value = value.narrow(axis, start, max(end - start, 0))
    flat = [max(pad, 0) for pair in reversed(list(zip(before, after, strict=True))) for pad in pair]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    if not any(flat):
        return value
    if value.dtype is torch.bool:
        return functional.pad(value.to(torch.int32), flat, value=int(number)) != 0
    return functional.pad(wide(value), flat, value=number).to(value.dtype)


@handles("Range")
def _range(node: OnnxNode, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    first, last, step = (node.constant(index).reshape(-1)[0] for index in range(3))
    if step == 0:
        raise node.refusal("its step is 0")
    count = max(math.ceil((last.item() - first.item()) / step.item()), 0)
    node.checked_size([count])
    return tensor_of((first + np.arange(count) * step).astype(first.dtype))


@handles("ConstantOfShape")
def _constant_of_shape(node: OnnxNode, shape: Tensor) -> Tensor:
    value = node.attributes.get("value", np.zeros(1, dtype=np.float32))
    if not isinstance(value, np.ndarray):
        raise node.refusal("its value is no tensor")
    return tensor_of(np.full(node.checked_size(node.ints_at(0)), value.reshape(-1)[0]))


@handles("EyeLike")
def _eye_like(node: OnnxNode, value: Tensor) -> Tensor:
    if value.dim() != 2:
        raise node.refusal(f"it takes a matrix, but got rank {value.dim()}")
    dtype = carrier_of(node.integer("dtype", 0)) if node.has("dtype") else value.dtype
    return tensor_of(np.eye(value.shape[0], value.shape[1], k=node.integer("k", 0))).to(dtype)


@handles("Trilu")
def _trilu(node: OnnxNode, value: Tensor, k: Tensor | None = None) -> Tensor:
    offset = node.ints_at(1)[0] if k is not None else 0
    if not value.numel():
        return value.clone()  # torch.export cannot save a mask without elements
    rows, columns = value.shape[-2:]
    full = np.ones((rows, columns), dtype=bool)
    keeps = np.triu(full, offset) if node.integer("upper", 1) else np.tril(full, offset)
    source = wide(value)
    return torch.where(tensor_of(keeps), source, torch.zeros_like(source)).to(value.dtype)


@handles("OneHot")
def _one_hot(node: OnnxNode, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    count = node.ints_at(1)[0]
    rank = indices.dim() + 1
    axis = node.axis(node.integer("axis", -1), rank)
    node.checked_size([*indices.shape, count])
    places = indices.to(torch.int64).unsqueeze(axis)
    places = torch.where(places < 0, places + count, places)
    shape = [count if index == axis else 1 for index in range(rank)]
    hits = places == tensor_of(np.arange(count, dtype=np.int64).reshape(shape))
    return torch.where(hits, wide(values)[1], wide(values)[0]).to(values.dtype)


@handles("Compress")
def _compress(node: OnnxNode, value: Tensor, condition: Tensor) -> Tensor:
    (places,) = np.nonzero(node.constant(1).reshape(-1))
    if not node.has("axis"):
        return value.reshape(-1).index_select(0, tensor_of(places.astype(np.int64)))
    return value.index_select(
        node.axis(node.integer("axis", 0), value.dim()), tensor_of(places.astype(np.int64))
    )


@handles("ReverseSequence")
def _reverse_sequence(node: OnnxNode, value: Tensor, lengths: Tensor) -> Tensor:
    time, batch = node.integer("time_axis", 0), node.integer("batch_axis", 1)
    if {time, batch} != {0, 1}:
        raise node.refusal(f"its axes are {time} and {batch}; 0 and 1 are expected")
    steps = torch.arange(value.shape[time]).unsqueeze(batch)
    ends = lengths.to(torch.int64).unsqueeze(time)
    places = torch.where(steps < ends, ends - 1 - steps, steps)
    shape = [*places.shape, *[1] * (value.dim() - 2)]
    return torch.gather(value, time, places.reshape(shape).expand(value.shape))
