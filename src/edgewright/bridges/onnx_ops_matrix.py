"""Matrix products."""

from __future__ import annotations

from functools import reduce

import torch
from torch.nn import functional

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_math import wide
from edgewright.bridges.onnx_rewrite import LINEAR

Tensor = torch.Tensor
_LARGEST_DETERMINANT = 4
_MAX_SPREAD = 1 << 20


@handles("MatMul")
def _matmul(node: OnnxNode, left: Tensor, right: Tensor) -> Tensor:
    if node.integer(LINEAR, 0):  # the planner transposed a constant right operand
        return functional.linear(left, right)
    return matrix_product(wide(left), wide(right)).to(left.dtype)


def matrix_product(left: Tensor, right: Tensor) -> Tensor:
    """Return the matrix product; that of small integer matrices as products and sums, for runtimes have no other."""
    is_small = left.numel() * right.shape[-1] <= _MAX_SPREAD
    if left.dtype.is_floating_point or not is_small or left.dim() < 2 or right.dim() < 2:
        return torch.matmul(left, right)
    return torch.sum(left.unsqueeze(-1) * right.unsqueeze(-3), dim=-2, dtype=left.dtype)


@handles("Gemm")
def _gemm(node: OnnxNode, left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    if node.integer("transA", 0):
        left = left.t()
    if left.dtype.is_floating_point and alpha == 1.0 and node.is_constant(1) and node.integer("transB", 0):
        if bias is None or beta == 0.0:
            return functional.linear(left, right)
        if beta == 1.0 and tuple(bias.shape) == (right.shape[0],):
            return functional.linear(left, right, bias)
    if node.integer("transB", 0):
        right = right.t()
    product = matrix_product(left, right)
    if alpha != 1.0:
        product = product * alpha if product.dtype.is_floating_point else (product * alpha).to(product.dtype)
    if bias is None or beta == 0.0:
        return product
    return product + (bias if beta == 1.0 else (bias * beta).to(product.dtype))


@handles("Einsum")
def _einsum(node: OnnxNode, *values: Tensor) -> Tensor:
    equation = node.text("equation", "").replace(" ", "")
    if not equation:
        raise node.refusal("it has no equation")
    result: Tensor = torch.einsum(equation, *values)
    return result


@handles("Det")
def _det(node: OnnxNode, value: Tensor) -> Tensor:
    size = value.shape[-1]
    if value.shape[-2] != size:
        raise node.refusal(
            f"the matrices have shape {list(value.shape[-2:])}; square ones have a determinant"
        )
    if size > _LARGEST_DETERMINANT:
        found: Tensor = torch.linalg.det(value)
        return found
    return _minor(value, list(range(size)), 0)


def _minor(value: Tensor, columns: list[int], row: int) -> Tensor:
    """Return the determinant of the rows from `row` on in `columns`, expanded by the first row (Laplace)."""
    if not columns:
        return torch.ones_like(value.sum(dim=(-2, -1)))
    terms: list[Tensor] = []
    for index, column in enumerate(columns):
        rest = columns[:index] + columns[index + 1 :]
        entry = value.select(-1, column).select(-1, row)
        term = entry * _minor(value, rest, row + 1) if rest else entry
        terms.append(-term if index % 2 else term)
    total: Tensor = reduce(torch.add, terms)
    return total
