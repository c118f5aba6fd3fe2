"""LiteRT -> ONNX: reductions, arg max, top k, cumulative sums."""

from __future__ import annotations

import numpy as np

from edgewright.bridges.tflite_builder import Builder, axis_of
from edgewright.bridges.tflite_model import Operation
from edgewright.bridges.tflite_ops import operator
from edgewright.core.errors import IntegrityError

_REDUCTIONS = {
    "MEAN": "ReduceMean",
    "SUM": "ReduceSum",
    "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin",
    "REDUCE_PROD": "ReduceProd",
}
_LOGICAL = {"REDUCE_ANY": "ReduceMax", "REDUCE_ALL": "ReduceMin"}


@operator(*_REDUCTIONS, *_LOGICAL)
def reduction(b: Builder, operation: Operation) -> None:
    """Over axes; bool as 0 and 1."""
    tensor, result = b.source(operation, 0), b.result(operation)
    axes = sorted({axis_of(axis, len(tensor.shape)) for axis in b.known_integers(operation, 1)})
    keep = operation.flag("keepDims")
    value = b.real(tensor)
    if not axes:
        b.put(result, value)
    elif operation.name in _LOGICAL:
        value = b.reduced(_LOGICAL[operation.name], b.cast(value, "int32"), axes, keep=keep)
        b.put(result, b.cast(value, "bool"))
    else:
        b.put(result, b.reduced(_REDUCTIONS[operation.name], value, axes, keep=keep))


@operator("ARG_MAX", "ARG_MIN")
def arg_extreme(b: Builder, operation: Operation) -> None:
    """The first index of the largest or smallest value; integers have the order of what they stand for."""
    tensor, result = b.source(operation, 0), b.result(operation)
    axis = axis_of(b.known_integers(operation, 1)[0], len(tensor.shape))
    op = "ArgMax" if operation.name == "ARG_MAX" else "ArgMin"
    value = b.cast(b.stored(tensor), "int32") if tensor.dtype in ("bool", "int16") else b.ordered(tensor)
    value = b.node(op, [value], {"axis": axis, "keepdims": 0})
    b.put_stored(result, value if result.dtype == "int64" else b.cast(value, result.dtype))


@operator("TOPK_V2")
def top_k(b: Builder, operation: Operation) -> None:
    """The k largest of the last axis and their indices."""
    tensor = b.source(operation, 0)
    k = b.known_integers(operation, 1)
    if len(k) != 1 or not tensor.shape:
        raise IntegrityError(f"TOPK_V2 of rank {len(tensor.shape)} with k = {k}.")
    values, indices = b.nodes("TopK", [b.real(tensor), b.integers(k)], 2, {"axis": -1})
    b.put(b.result(operation, 0), values)
    if len(operation.outputs) > 1:
        result = b.result(operation, 1)
        b.put_stored(result, b.cast(indices, result.dtype))


@operator("CUMSUM")
def cumulative_sum(b: Builder, operation: Operation) -> None:
    """Sums of all values before, with or without the own one, from either end."""
    tensor = b.source(operation, 0)
    axis = axis_of(b.known_integers(operation, 1)[0], len(tensor.shape))
    value = b.node(
        "CumSum",
        [b.real(tensor), b.constant(np.asarray(axis, dtype=np.int64))],
        {"exclusive": int(operation.flag("exclusive")), "reverse": int(operation.flag("reverse"))},
    )
    b.put(b.result(operation), value)
