"""Core ML operators that read from or write to places that another tensor names.

A negative index counts from the end; an index beyond the tensor is an error, whatever `validate_indices` says: Core ML
leaves it undefined.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgewright.backends.coreml_call import Call, Integers, Operator, axis_of, computable, limit
from edgewright.core.tensors import Array


def _indices(call: Call) -> Integers:
    indices = call.array("indices")
    if indices.dtype.kind not in "iu":
        raise call.refuse(f"has indices of {indices.dtype}")
    return indices.astype(np.int64)


def _gather(call: Call) -> Array:
    """The result's shape is x[:axis] + indices[batch_dims:] + x[axis + 1:]."""
    x, indices = call.array("x"), _indices(call)
    axis, batch = axis_of(call.integer("axis", 0), x.ndim), call.integer("batch_dims", 0)
    if not 0 <= batch <= min(axis, indices.ndim) or x.shape[:batch] != indices.shape[:batch]:
        raise call.refuse(f"has {batch} batch dimensions for {list(x.shape)} and {list(indices.shape)}")
    limit([*x.shape[:axis], *indices.shape[batch:], *x.shape[axis + 1 :]])
    if batch == 0:
        return np.take(x, indices, axis=axis)
    lead = x.shape[:batch]
    rows = zip(x.reshape(-1, *x.shape[batch:]), indices.reshape(-1, *indices.shape[batch:]), strict=True)
    parts = [np.take(values, chosen, axis=axis - batch) for values, chosen in rows]
    return np.stack(parts).reshape(*lead, *parts[0].shape)


def _gather_along_axis(call: Call) -> Array:
    x = call.array("x")
    return np.take_along_axis(x, _indices(call), axis=axis_of(call.integer("axis", 0), x.ndim))


def _gather_nd(call: Call) -> Array:
    """The last dimension of `indices` names a place; the result is indices[:-1] + x[batch_dims + places:]."""
    x, indices = call.array("x"), _indices(call)
    batch = call.integer("batch_dims", 0)
    count = indices.shape[-1] if indices.ndim else 0
    if (
        not 0 <= batch < max(indices.ndim, 1)
        or batch + count > x.ndim
        or x.shape[:batch] != indices.shape[:batch]
    ):
        raise call.refuse(f"has {batch} batch dimensions for {list(x.shape)} and {list(indices.shape)}")
    limit([*indices.shape[:-1], *x.shape[batch + count :]])
    places = tuple(indices[..., number] for number in range(count))
    leading = tuple(
        np.arange(size).reshape([-1 if place == axis else 1 for place in range(indices.ndim - 1)])
        for axis, size in enumerate(x.shape[:batch])
    )
    return np.asarray(x[leading + places])


_Index = tuple["Array | slice", ...]
_Apply = Callable[[Array, _Index, Array], None]


def _update(data: Array, index: _Index, updates: Array) -> None:
    data[index] = updates


def _at(operation: np.ufunc) -> _Apply:
    def run(data: Array, index: _Index, updates: Array) -> None:
        operation.at(data, index, updates)

    return run


_MODES: dict[str, _Apply] = {
    "update": _update,
    "add": _at(np.add),
    "sub": _at(np.subtract),
    "mul": _at(np.multiply),
    "div": _at(np.divide),
    "max": _at(np.maximum),
    "min": _at(np.minimum),
}


def _mode(call: Call) -> _Apply:
    name = call.text("mode", "add")
    if name not in _MODES:
        raise call.refuse(f"has the unknown mode {name!r}")
    return _MODES[name]


def _scatter(call: Call) -> Array:
    data, indices = computable(call.array("data")).copy(), _indices(call)
    axis = axis_of(call.integer("axis", 0), data.ndim)
    index: _Index = (*(slice(None) for _ in range(axis)), indices)
    _mode(call)(data, index, computable(call.array("updates")))
    return data


def _scatter_along_axis(call: Call) -> Array:
    data, indices = computable(call.array("data")).copy(), _indices(call)
    axis = axis_of(call.integer("axis", 0), data.ndim)
    if indices.ndim != data.ndim:
        raise call.refuse(f"has indices of rank {indices.ndim} for data of rank {data.ndim}")
    grid = np.meshgrid(*(np.arange(size) for size in indices.shape), indexing="ij", sparse=True)
    index = tuple(indices if place == axis else grid[place] for place in range(data.ndim))
    _mode(call)(data, index, computable(call.array("updates")))
    return data


def _scatter_nd(call: Call) -> Array:
    data, indices = computable(call.array("data")).copy(), _indices(call)
    if indices.ndim == 0 or indices.shape[-1] > data.ndim:
        raise call.refuse(f"has indices {list(indices.shape)} for data {list(data.shape)}")
    index = tuple(indices[..., number] for number in range(indices.shape[-1]))
    _mode(call)(data, index, computable(call.array("updates")))
    return data


OPERATORS: dict[str, Operator] = {
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "scatter": _scatter,
    "scatter_along_axis": _scatter_along_axis,
    "scatter_nd": _scatter_nd,
}
