"""Values by index: gathers and scatters. Negative indices count from the end."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import numpy.typing as npt
import torch

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_math import wide
from edgewright.bridges.onnx_values import tensor_of

Tensor = torch.Tensor
_MAX_SPREAD = 1 << 16
_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _positive(node: OnnxNode, index: int, places: Tensor, size: int) -> Tensor:
    """Return indices counted from the front; those of a constant are checked.

    Raises:
        ConversionError: a constant index is out of range.
    """
    if not node.is_constant(index):
        places = places.to(torch.int64)
        return torch.where(places < 0, places + size, places)
    known = node.constant(index).astype(np.int64)
    if known.size and not (-size <= int(known.min()) and int(known.max()) < size):
        raise node.refusal(f"an index is outside of a dimension of size {size}")
    return tensor_of(np.where(known < 0, known + size, known))


@handles("Gather")
def _gather(node: OnnxNode, value: Tensor, indices: Tensor) -> Tensor:
    axis = node.axis(node.integer("axis", 0), value.dim())
    if node.is_constant(1) and node.constant(1).size == 1:
        place = int(node.constant(1).reshape(-1)[0])
        if not -value.shape[axis] <= place < value.shape[axis]:
            raise node.refusal(f"index {place} is outside of a dimension of size {value.shape[axis]}")
        picked = value.narrow(axis, place % value.shape[axis], 1)
    else:
        picked = value.index_select(axis, _positive(node, 1, indices, value.shape[axis]).reshape(-1))
    return picked.reshape([*value.shape[:axis], *indices.shape, *value.shape[axis + 1 :]])


@handles("GatherElements")
def _gather_elements(node: OnnxNode, value: Tensor, indices: Tensor) -> Tensor:
    axis = node.axis(node.integer("axis", 0), value.dim())
    return torch.gather(value, axis, _positive(node, 1, indices, value.shape[axis]))


def _flat_places(node: OnnxNode, index: int, places: Tensor, sizes: list[int]) -> Tensor:
    """Return the place in a tensor of shape `sizes`, flattened, of each tuple along the last axis of `places`."""
    strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    if node.is_constant(index):
        known = node.constant(index).astype(np.int64)
        bounds = np.asarray(sizes, dtype=np.int64)
        if known.size and (np.any(known < -bounds) or np.any(known >= bounds)):
            raise node.refusal(f"an index is outside of the shape {sizes}")
        known = np.where(known < 0, known + bounds, known)
        return tensor_of((known * np.asarray(strides, dtype=np.int64)).sum(-1))
    total: Tensor | None = None
    for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        column = places.select(-1, axis).to(torch.int64)
        column = torch.where(column < 0, column + size, column) * stride
        total = column if total is None else total + column
    return torch.zeros(places.shape[:-1], dtype=torch.int64) if total is None else total


@handles("GatherND")
def _gather_nd(node: OnnxNode, value: Tensor, indices: Tensor) -> Tensor:
    shared = node.integer("batch_dims", 0)
    depth = indices.shape[-1]
    if not 0 <= shared < value.dim() or shared + depth > value.dim():
        raise node.refusal(f"batch_dims {shared} and {depth} indices do not fit rank {value.dim()}")
    inner = list(value.shape[shared : shared + depth])
    rest = list(value.shape[shared + depth :])
    batches, block = math.prod(value.shape[:shared]), math.prod(inner)
    places = _flat_places(node, 1, indices, inner)
    shape = [*places.shape, *rest]
    places = places.reshape(batches, -1)
    if batches > 1:
        places = places + tensor_of(np.arange(batches, dtype=np.int64).reshape(-1, 1) * block)
    flat = value.reshape(batches * block, -1) if rest else value.reshape(-1)
    return flat.index_select(0, places.reshape(-1)).reshape(shape)


@handles("ScatterElements", "Scatter")
def _scatter_elements(node: OnnxNode, value: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis = node.axis(node.integer("axis", 0), value.dim())
    places = _positive(node, 1, indices, value.shape[axis])
    # A place in the flattened tensor for each update: one kind of scatter is enough for all of them.
    grid = np.indices(tuple(indices.shape), sparse=True)
    strides = [math.prod(value.shape[index + 1 :]) for index in range(value.dim())]
    offset: npt.NDArray[np.int64] = np.zeros(1, dtype=np.int64)
    for index, (part, stride) in enumerate(zip(grid, strides, strict=True)):
        offset = offset if index == axis else offset + part * stride
    offset = np.broadcast_to(offset, tuple(indices.shape))
    flat = places * strides[axis] + tensor_of(np.ascontiguousarray(offset))
    return _scattered(node, value.reshape(-1), flat.reshape(-1), updates.reshape(-1)).reshape(value.shape)


@handles("ScatterND")
def _scatter_nd(node: OnnxNode, value: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    depth = indices.shape[-1]
    if depth > value.dim():
        raise node.refusal(f"{depth} indices do not fit rank {value.dim()}")
    inner, rest = list(value.shape[:depth]), list(value.shape[depth:])
    block = math.prod(rest)
    places = _flat_places(node, 1, indices, inner).reshape(-1)
    flat = value.reshape(math.prod(inner), block)
    return _scattered(node, flat, places, updates.reshape(-1, block)).reshape(value.shape)


def _scattered(node: OnnxNode, value: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    """Return `value` with rows at `places` along axis 0 replaced by `updates`, or reduced with them."""
    kind = node.text("reduction", "none")
    source, rows = wide(value), wide(updates)
    if kind == "none":
        return torch.index_put(source, (places,), rows).to(value.dtype)
    if kind not in _REDUCTIONS:
        raise node.refusal(f"reduction {kind!r} is unknown")
    if source.shape[0] * max(rows.numel(), 1) <= _MAX_SPREAD:
        return _reduced(kind, source, places, rows).to(value.dtype)
    spread = places.reshape(-1, *[1] * (rows.dim() - 1)).expand(rows.shape)
    return torch.scatter_reduce(source, 0, spread, rows, _REDUCTIONS[kind], include_self=True).to(value.dtype)


def _reduced(kind: str, source: Tensor, places: Tensor, rows: Tensor) -> Tensor:
    """Reduce small tensors by comparing every row with every place: few runtimes scatter with a reduction."""
    targets = tensor_of(np.arange(source.shape[0], dtype=np.int64)).reshape(-1, 1)
    hits = (targets == places.reshape(1, -1)).reshape(source.shape[0], -1, *[1] * (rows.dim() - 1))
    spread = rows.unsqueeze(0)
    if kind == "add":
        return source + torch.where(hits, spread, torch.zeros_like(spread)).sum(1, dtype=source.dtype)
    if kind == "mul":
        factors = torch.where(hits, spread, torch.ones_like(spread))
        return reduce(torch.mul, [factors.select(1, index) for index in range(rows.shape[0])], source)
    own = source.unsqueeze(1)
    candidates = torch.cat([own, torch.where(hits, spread, own)], 1)
    return torch.amax(candidates, 1) if kind == "max" else torch.amin(candidates, 1)


@handles("TensorScatter")
def _tensor_scatter(node: OnnxNode, past: Tensor, update: Tensor, starts: Tensor | None = None) -> Tensor:
    axis = node.axis(node.integer("axis", -2), past.dim())
    mode = node.text("mode", "linear")
    if mode not in ("linear", "circular") or axis == 0:
        raise node.refusal(f"mode {mode!r} along axis {axis} is unknown")
    length, count = past.shape[axis], update.shape[axis]
    first = torch.zeros(past.shape[0], dtype=torch.int64) if starts is None else starts.to(torch.int64)
    # For each place of the cache the row of the update that comes there, if one does.
    rows = tensor_of(np.arange(length, dtype=np.int64)).reshape(1, -1) - first.reshape(-1, 1)
    if mode == "circular":
        rows = torch.where(rows < 0, rows + length, rows)
    shape = [1] * past.dim()
    shape[0], shape[axis] = past.shape[0], length
    rows = rows.reshape(shape)
    taken = torch.gather(update, axis, rows.clamp(0, count - 1).expand(past.shape))
    return torch.where(torch.logical_and(rows >= 0, rows < count), taken, past)
