"""Core ML operators that move, make, cut or join elements without computing with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgewright.backends.coreml_call import Call, Operator, axis_of, limit
from edgewright.core.tensors import Array

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def _reshape(call: Call) -> Array:
    """0 keeps the size of the same place where the rank stays; -1 takes what is left."""
    x, shape = call.array("x"), call.integers("shape")
    if len(shape) == x.ndim:
        shape = [have if want == 0 else want for want, have in zip(shape, x.shape, strict=True)]
    return x.reshape(limit([1 if size == -1 else size for size in shape]) and shape)


def _reshape_like(call: Call) -> Array:
    shape: list[int] = []
    parts = zip(
        call.arrays("ref_tensors"),
        call.arrays("begins"),
        call.arrays("ends"),
        call.arrays("end_masks"),
        strict=True,
    )
    for reference, begin, end, is_open in parts:
        shape += reference.shape[int(begin) : None if bool(is_open) else int(end)]
    return call.array("x").reshape(shape)


def _transpose(call: Call) -> Array:
    x = call.array("x")
    return x.transpose([axis_of(axis, x.ndim) for axis in call.integers("perm")])


def _expand_dims(call: Call) -> Array:
    axes = call.integers("axes")
    limit([1] * (call.array("x").ndim + len(axes)))
    return np.expand_dims(call.array("x"), tuple(axes))


def _squeeze(call: Call) -> Array:
    axes = call.integers("axes", ())
    return np.squeeze(call.array("x"), tuple(axes) if axes else None)


def _flatten2d(call: Call) -> Array:
    x = call.array("x")
    axis = call.integer("axis", 1)
    axis = axis if axis == x.ndim else axis_of(axis, x.ndim)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _window(call: Call, x: Array) -> tuple[slice | int, ...]:
    """Return the index that begin, end, stride and their masks mean; negative numbers count from the end."""
    rank = x.ndim
    begin, end = call.integers("begin"), call.integers("end")
    stride = call.integers("stride", [1] * rank)
    masks = [call.integers(f"{name}_mask", [0] * rank) for name in ("begin", "end", "squeeze")]
    if any(len(values) != rank for values in (begin, end, stride, *masks)) or 0 in stride:
        raise call.refuse(f"has begin {begin[:8]}, end {end[:8]} and stride {stride[:8]} for rank {rank}")
    index: list[slice | int] = []
    for axis in range(rank):
        first = None if masks[0][axis] else begin[axis]
        if masks[2][axis]:
            index.append(first or 0)
        else:
            index.append(slice(first, None if masks[1][axis] else end[axis], stride[axis]))
    return tuple(index)


def _slice_by_index(call: Call) -> Array:
    x = call.array("x")
    return np.asarray(x[_window(call, x)])


def _slice_update(call: Call) -> Array:
    x = call.array("x").copy()
    x[_window(call, x)] = call.array("update")
    return x


def _slice_by_size(call: Call) -> Array:
    x, begin, size = call.array("x"), call.integers("begin"), call.integers("size")
    if len(begin) != x.ndim or len(size) != x.ndim:
        raise call.refuse(f"has begin {begin[:8]} and size {size[:8]} for rank {x.ndim}")
    index = []
    for have, first, count in zip(x.shape, begin, size, strict=True):
        first = first + have if first < 0 else first
        last = have if count == -1 else first + count
        if not 0 <= first <= last <= have:
            raise call.refuse(f"cuts {first}..{last} out of {have}")
        index.append(slice(first, last))
    return x[tuple(index)]


def _split(call: Call) -> tuple[Array, ...]:
    x = call.array("x")
    axis = axis_of(call.integer("axis"), x.ndim)
    if call.has("split_sizes"):
        sizes = call.integers("split_sizes")
    else:
        count = call.integer("num_splits")
        if count < 1 or x.shape[axis] % count:
            raise call.refuse(f"cuts {x.shape[axis]} elements into {count} equal parts")
        sizes = [x.shape[axis] // count] * count
    if any(size < 0 for size in sizes) or sum(sizes) != x.shape[axis]:
        raise call.refuse(f"cuts {x.shape[axis]} elements into {sizes[:8]}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis=axis))


def _concat(call: Call) -> Array:
    values = call.arrays("values")
    if not values:
        raise call.refuse("joins nothing")
    axis = axis_of(call.integer("axis"), values[0].ndim)
    limit([sum(value.size for value in values)])
    if call.flag("interleave", False):
        joined = np.stack(values, axis=axis + 1)
        shape = list(values[0].shape)
        shape[axis] *= len(values)
        return joined.reshape(shape)
    return np.concatenate(values, axis=axis)


def _stack(call: Call) -> Array:
    values = call.arrays("values")
    if not values:
        raise call.refuse("joins nothing")
    limit([sum(value.size for value in values)])
    return np.stack(values, axis=axis_of(call.integer("axis"), values[0].ndim + 1))


def _pad(call: Call) -> Array:
    """The last dimensions are padded, as many as there are pairs."""
    x, pads = call.array("x"), call.integers("pad")
    mode = call.text("mode", "constant")
    if len(pads) % 2 or len(pads) > 2 * x.ndim or any(pad < 0 for pad in pads) or mode not in _PAD_MODES:
        raise call.refuse(f"has the padding {pads[:8]} in mode {mode!r} for rank {x.ndim}")
    pairs = [(0, 0)] * (x.ndim - len(pads) // 2) + list(zip(pads[::2], pads[1::2], strict=True))
    limit([size + sum(pair) for size, pair in zip(x.shape, pairs, strict=True)])
    if mode == "constant":
        fill = call.array("constant_val").reshape(-1)[0] if call.has("constant_val") else 0
        return np.pad(x, pairs, constant_values=fill)
    if mode == "reflect" and any(
        max(pair) >= max(size, 1) for size, pair in zip(x.shape, pairs, strict=True)
    ):
        raise call.refuse(f"reflects {pads[:8]} elements of a tensor {list(x.shape)}")
    return np.pad(x, pairs, mode="reflect" if mode == "reflect" else "edge")


def _tile(call: Call) -> Array:
    x, reps = call.array("x"), call.integers("reps")
    if len(reps) != x.ndim:
        raise call.refuse(f"repeats a tensor of rank {x.ndim} {reps[:8]} times")
    limit([size * count for size, count in zip(x.shape, reps, strict=True)])
    return np.tile(x, reps)


def _fill(call: Call) -> Array:
    shape = limit(call.integers("shape"))
    if not call.has("value"):
        return np.zeros(shape, np.float32)
    return np.full(shape, call.array("value").reshape(-1)[0])


def _fill_like(call: Call) -> Array:
    shape = call.array("ref_tensor").shape
    return (
        np.full(shape, call.array("value").reshape(-1)[0])
        if call.has("value")
        else np.zeros(shape, np.float32)
    )


def _range_1d(call: Call) -> Array:
    start, end, step = (call.array(name).reshape(-1)[0] for name in ("start", "end", "step"))
    width = float(step)
    if width == 0 or not math.isfinite(width) or not math.isfinite(float(end) - float(start)):
        raise call.refuse(f"counts from {start} to {end} in steps of {step}")
    count = max(math.ceil((float(end) - float(start)) / width), 0)
    limit([count])
    numbers = np.arange(count).astype(start.dtype if start.dtype.kind in "iu" else np.float32)
    return np.asarray(start + numbers * step)


def _one_hot(call: Call) -> Array:
    indices, size = call.array("indices"), call.integer("one_hot_vector_size")
    axis = axis_of(call.integer("axis", -1), indices.ndim + 1)
    limit([*indices.shape, size])
    numbers = np.arange(size).reshape([-1 if place == axis else 1 for place in range(indices.ndim + 1)])
    on = call.array("on_value").reshape(()) if call.has("on_value") else np.int32(1)
    off = call.array("off_value").reshape(()) if call.has("off_value") else np.int32(0)
    return np.where(np.expand_dims(indices, axis) == numbers, on, off)


def _band_part(call: Call) -> Array:
    x = call.array("x")
    lower, upper = call.integer("lower", -1), call.integer("upper", -1)
    rows, columns = np.arange(x.shape[-2])[:, None], np.arange(x.shape[-1])[None, :]
    kept = ((lower < 0) | (rows - columns <= lower)) & ((upper < 0) | (columns - rows <= upper))
    return np.where(kept, x, np.zeros((), x.dtype))


def _reverse(call: Call) -> Array:
    x = call.array("x")
    return np.flip(x, [axis_of(axis, x.ndim) for axis in call.integers("axes", range(x.ndim))])


def _reverse_sequence(call: Call) -> Array:
    x = call.array("x")
    along, batch = (axis_of(call.integer(name, 0), x.ndim) for name in ("seq_axis", "batch_axis"))
    lengths = call.integers("lengths")
    if along == batch or len(lengths) != x.shape[batch] or any(not 0 <= n <= x.shape[along] for n in lengths):
        raise call.refuse(f"reverses {lengths[:8]} steps along axis {along} of {list(x.shape)}")
    moved = np.moveaxis(x.copy(), (batch, along), (0, 1))
    for row, length in zip(moved, lengths, strict=True):
        row[:length] = row[:length][::-1].copy()
    return np.moveaxis(moved, (0, 1), (batch, along))


def _blocks_to_space(x: Array, block: Sequence[int], call: Call) -> Array:
    """Return [n, c, h, w] with the channel (block row, block column, c') moved into space: TensorFlow's order."""
    batch, channels, height, width = _rank_4(x, call)
    rows, columns = block
    inner = channels // (rows * columns)
    if rows < 1 or columns < 1 or inner * rows * columns != channels:
        raise call.refuse(f"has blocks {rows}x{columns} for {channels} channels")
    parts = x.reshape(batch, rows, columns, inner, height, width).transpose(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, inner, height * rows, width * columns)


def _space_to_blocks(x: Array, block: Sequence[int], call: Call) -> Array:
    batch, channels, height, width = _rank_4(x, call)
    rows, columns = block
    if rows < 1 or columns < 1 or height % rows or width % columns:
        raise call.refuse(f"has blocks {rows}x{columns} for an image {height}x{width}")
    parts = x.reshape(batch, channels, height // rows, rows, width // columns, columns)
    return parts.transpose(0, 3, 5, 1, 2, 4).reshape(
        batch, rows * columns * channels, height // rows, width // columns
    )


def _rank_4(x: Array, call: Call) -> tuple[int, int, int, int]:
    if x.ndim != 4:
        raise call.refuse(f"has an input of rank {x.ndim}; 4 is expected")
    batch, channels, height, width = x.shape
    return batch, channels, height, width


def _depth_to_space(call: Call) -> Array:
    return _blocks_to_space(call.array("x"), [call.integer("block_size")] * 2, call)


def _space_to_depth(call: Call) -> Array:
    return _space_to_blocks(call.array("x"), [call.integer("block_size")] * 2, call)


def _pixel_shuffle(call: Call) -> Array:
    """The channel is (c', block row, block column): PyTorch's order."""
    x, factor = call.array("x"), call.integer("upscale_factor")
    batch, channels, height, width = _rank_4(x, call)
    if factor < 1 or channels % (factor * factor):
        raise call.refuse(f"has the factor {factor} for {channels} channels")
    inner = channels // (factor * factor)
    parts = x.reshape(batch, inner, factor, factor, height, width).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(batch, inner, height * factor, width * factor)


def _pixel_unshuffle(call: Call) -> Array:
    x, factor = call.array("x"), call.integer("downscale_factor")
    batch, channels, height, width = _rank_4(x, call)
    if factor < 1 or height % factor or width % factor:
        raise call.refuse(f"has the factor {factor} for an image {height}x{width}")
    parts = x.reshape(batch, channels, height // factor, factor, width // factor, factor)
    return parts.transpose(0, 1, 3, 5, 2, 4).reshape(
        batch, channels * factor * factor, height // factor, width // factor
    )


def _space_to_batch(call: Call) -> Array:
    x, block = call.array("x"), call.sizes("block_shape", [], 2)
    pads = call.integers("paddings")
    if len(pads) != 4 or any(pad < 0 for pad in pads):
        raise call.refuse(f"has the padding {pads[:8]}")
    batch, channels, height, width = _rank_4(x, call)
    limit([batch, channels, height + sum(pads[:2]), width + sum(pads[2:])])
    padded = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[1]), (pads[2], pads[3])])
    blocks = _space_to_blocks(padded, block, call)
    count = block[0] * block[1]
    parts = blocks.reshape(batch, count, channels, *blocks.shape[2:])
    return parts.transpose(1, 0, 2, 3, 4).reshape(count * batch, channels, *blocks.shape[2:])


def _batch_to_space(call: Call) -> Array:
    x, block, crops = call.array("x"), call.sizes("block_shape", [], 2), call.integers("crops")
    batch, channels, height, width = _rank_4(x, call)
    count = block[0] * block[1]
    if batch % count or len(crops) != 4 or any(crop < 0 for crop in crops):
        raise call.refuse(f"has blocks {block} and crops {crops[:8]} for a batch of {batch}")
    parts = x.reshape(count, batch // count, channels, height, width).transpose(1, 0, 2, 3, 4)
    joined = parts.reshape(batch // count, count * channels, height, width)
    whole = _blocks_to_space(joined, block, call)
    rows, columns = whole.shape[2:]
    return whole[:, :, crops[0] : rows - crops[1], crops[2] : columns - crops[3]]


def _sliding_windows(call: Call) -> Array:
    x = call.array("x")
    axis, size, stride = (
        axis_of(call.integer("axis"), x.ndim),
        call.integer("size"),
        call.integer("stride", 1),
    )
    if not 1 <= size <= x.shape[axis] or stride < 1:
        raise call.refuse(f"has windows of {size} by {stride} over {x.shape[axis]} elements")
    count = (x.shape[axis] - size) // stride + 1
    limit([x.size // max(x.shape[axis], 1), count, size])
    numbers = np.arange(count)[:, None] * stride + np.arange(size)
    return np.asarray(np.take(x, numbers, axis=axis))


OPERATORS: dict[str, Operator] = {
    "band_part": _band_part,
    "batch_to_space": _batch_to_space,
    "concat": _concat,
    "depth_to_space": _depth_to_space,
    "expand_dims": _expand_dims,
    "fill": _fill,
    "fill_like": _fill_like,
    "flatten2d": _flatten2d,
    "identity": lambda call: call.array("x"),
    "non_zero": lambda call: np.argwhere(call.array("x")),
    "one_hot": _one_hot,
    "pad": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "range_1d": _range_1d,
    "reshape": _reshape,
    "reshape_like": _reshape_like,
    "reverse": _reverse,
    "reverse_sequence": _reverse_sequence,
    "shape": lambda call: np.array(call.array("x").shape, np.int32),
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "slice_update": _slice_update,
    "sliding_windows": _sliding_windows,
    "space_to_batch": _space_to_batch,
    "space_to_depth": _space_to_depth,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
}
