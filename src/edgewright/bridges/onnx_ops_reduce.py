"""Reductions, running sums, and the largest of many."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import torch

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_math import magnitude, refuse_uint64, truncated_quotient, wide
from edgewright.bridges.onnx_values import tensor_of

Tensor = torch.Tensor
_MAX_UNROLLED = 256
_MAX_RANKED = 64


@handles(
    "ReduceSum",
    "ReduceMean",
    "ReduceProd",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
)
def _reduction(node: OnnxNode, value: Tensor, axes: Tensor | None = None) -> Tensor:
    rank = value.dim()
    # Bodies of functions come in their own opset: the attribute counts wherever it is given.
    listed = node.ints_at(1) if axes is not None else node.integers("axes")
    if not listed and node.integer("noop_with_empty_axes", 0) and not node.has("axes"):
        return _each(node, value)
    dims = sorted({node.axis(axis, rank) for axis in listed}) if listed else list(range(rank))
    keep = bool(node.integer("keepdims", 1))
    if not dims:
        return _each(node, value)
    return _reduce(node, wide(value), dims, keep).to(value.dtype)


def _each(node: OnnxNode, value: Tensor) -> Tensor:
    """Return what the reduction gives over no axis at all."""
    if node.op_type in ("ReduceL1", "ReduceL2"):
        return torch.abs(value)
    if node.op_type == "ReduceSumSquare":
        return value * value
    if node.op_type == "ReduceLogSum":
        return torch.log(value)
    return value.clone()


def _reduce(node: OnnxNode, value: Tensor, dims: list[int], keep: bool) -> Tensor:
    kind = node.op_type
    if kind in ("ReduceMax", "ReduceMin"):
        return _extreme(node, value, dims, keep)
    if kind == "ReduceMean":
        if value.dtype.is_floating_point:
            return torch.mean(value, dim=dims, keepdim=keep)
        count = math.prod(value.shape[dim] for dim in dims)
        return truncated_quotient(torch.sum(value, dim=dims, keepdim=keep), torch.tensor(count))
    if kind == "ReduceProd":
        for dim in reversed(dims):
            value = _product(value, dim)
        return value if keep else _without(value, dims)
    if kind == "ReduceL1":
        return torch.sum(magnitude(value), dim=dims, keepdim=keep)
    if kind in ("ReduceL2", "ReduceSumSquare"):
        total = torch.sum(value * value, dim=dims, keepdim=keep)
        if kind == "ReduceSumSquare":
            return total
        return torch.sqrt(total if total.dtype.is_floating_point else total.to(torch.float32))
    if kind == "ReduceLogSumExp":
        if not value.dtype.is_floating_point:
            value = value.to(torch.float32)
        if value.numel() == 0:
            return torch.log(torch.sum(torch.exp(value), dim=dims, keepdim=keep))
        return torch.logsumexp(value, dim=dims, keepdim=keep)
    total = torch.sum(value, dim=dims, keepdim=keep)
    return torch.log(total) if kind == "ReduceLogSum" else total


def _product(value: Tensor, dim: int) -> Tensor:
    """Return the product along `dim`, which is kept with size 1."""
    if 0 < value.shape[dim] <= _MAX_UNROLLED:
        return reduce(torch.mul, [value.narrow(dim, index, 1) for index in range(value.shape[dim])])
    return torch.prod(value, dim=dim, keepdim=True)


def _without(value: Tensor, dims: list[int]) -> Tensor:
    return value.reshape([size for dim, size in enumerate(value.shape) if dim not in dims])


def _extreme(node: OnnxNode, value: Tensor, dims: list[int], keep: bool) -> Tensor:
    refuse_uint64(node, value)
    is_bool = value.dtype is torch.bool
    number = value.to(torch.int32) if is_bool else value
    shape = [1 if dim in dims else size for dim, size in enumerate(value.shape)]
    if number.numel() == 0 and 0 in [value.shape[dim] for dim in dims]:
        largest = node.op_type == "ReduceMin"
        if number.dtype.is_floating_point:
            edge: float = float("inf") if largest else float("-inf")
        else:
            info = torch.iinfo(number.dtype)
            edge = info.max if largest else info.min
        result = torch.full(shape, edge, dtype=number.dtype)
    else:
        function = torch.amax if node.op_type == "ReduceMax" else torch.amin
        result = function(number, dim=dims, keepdim=True)
    result = result if keep else _without(result, dims)
    return result > 0 if is_bool else result


@handles("ArgMax", "ArgMin")
def _arg_extreme(node: OnnxNode, value: Tensor) -> Tensor:
    refuse_uint64(node, value)
    axis = node.axis(node.integer("axis", 0), value.dim())
    value = wide(value)
    function = torch.argmax if node.op_type == "ArgMax" else torch.argmin
    keep = bool(node.integer("keepdims", 1))
    if not node.integer("select_last_index", 0):
        return function(value, dim=axis, keepdim=keep)
    return value.shape[axis] - 1 - function(torch.flip(value, [axis]), dim=axis, keepdim=keep)


@handles("CumSum", "CumProd")
def _running(node: OnnxNode, value: Tensor, axis: Tensor) -> Tensor:
    dim = node.axis(node.ints_at(1)[0], value.dim())
    source = wide(value)
    is_reverse, is_exclusive = node.integer("reverse", 0), node.integer("exclusive", 0)
    if is_reverse:
        source = torch.flip(source, [dim])
    if is_exclusive and source.shape[dim]:
        edge = torch.full_like(source.narrow(dim, 0, 1), 0 if node.op_type == "CumSum" else 1)
        source = torch.cat([edge, source.narrow(dim, 0, source.shape[dim] - 1)], dim)
    if node.op_type == "CumSum":
        result = torch.cumsum(source, dim)
    elif 0 < source.shape[dim] <= _MAX_UNROLLED:
        rows = [source.narrow(dim, index, 1) for index in range(source.shape[dim])]
        for index in range(1, len(rows)):
            rows[index] = rows[index - 1] * rows[index]
        result = torch.cat(rows, dim)
    else:
        result = torch.cumprod(source, dim)
    if is_reverse:
        result = torch.flip(result, [dim])
    return result.to(value.dtype)


@handles("TopK")
def _top_k(node: OnnxNode, value: Tensor, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
    refuse_uint64(node, value)
    k = node.ints_at(1)[0] if node.opset >= 10 else node.integer("k", 1)
    axis = node.axis(node.integer("axis", -1), value.dim())
    if not 0 <= k <= value.shape[axis]:
        raise node.refusal(f"it takes {k} of {value.shape[axis]} values")
    source = wide(value)
    is_largest = bool(node.integer("largest", 1))
    if 0 < source.shape[axis] <= _MAX_RANKED:
        return _ranked(value, source, k, axis, is_largest)
    order, places = torch.topk(source, k, dim=axis, largest=is_largest, sorted=True)
    return order.to(value.dtype), places


def _ranked(value: Tensor, source: Tensor, k: int, axis: int, is_largest: bool) -> tuple[Tensor, Tensor]:
    """Return the first k by counting for each value how many come before it.

    Of equal ones the lower index comes first, as ONNX says and torch.topk does not promise.
    """
    rows = source.movedim(axis, -1)
    size = rows.shape[-1]
    own, other = rows.unsqueeze(-1), rows.unsqueeze(-2)
    is_before = other > own if is_largest else other < own
    earlier = tensor_of(np.tri(size, k=-1, dtype=bool))  # torch.tensor leaves a detach_ that LiteRT refuses
    rank = torch.logical_or(is_before, torch.logical_and(other == own, earlier)).to(torch.int32).sum(-1)
    hits = rank.unsqueeze(-2) == torch.arange(k).reshape(k, 1)
    places = torch.where(hits, torch.arange(size), 0).sum(-1)
    return torch.gather(value, axis, places.movedim(-1, axis)), places.movedim(-1, axis)


@handles("NonZero", "Unique", "StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch")
def _unknown_size(node: OnnxNode, *values: Tensor | None) -> Tensor:
    raise node.refusal("how much it gives, or what it reads, is no tensor of a static shape")
