"""Nodes brought to the form that runtimes fuse and quantizers know: a convolution, a linear layer with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgewright.bridges.onnx_ops import OnnxNode

if TYPE_CHECKING:
    from edgewright.bridges.onnx_plan import Planner

LINEAR = "edgewright_is_linear"  # an attribute of our own: the right operand of MatMul has been transposed
Floats = npt.NDArray[np.floating[npt.NBitBase]]


def rewritten(
    planner: Planner, node: OnnxNode, given: Sequence[str | None], readers: int
) -> tuple[OnnxNode, list[str | None]]:
    """Return the node and its inputs in the better form, or as they are.

    Args:
        readers: how many nodes read the first input's value; it can only be taken over where it is one.
    """
    names = list(given)
    if node.domain != "":
        return node, names
    if node.op_type == "CastLike" and len(node.input_types) > 1 and node.input_types[1]:
        # Only the type of the second input matters, so that a constant stays one.
        cast = replace(
            node,
            op_type="Cast",
            attributes={"to": node.input_types[1]},
            constants=node.constants[:1],
            input_types=node.input_types[:1],
        )
        return cast, names[:1]
    if node.op_type == "MatMul" and not node.is_constant(0):
        return _linear(planner, node, names)
    if node.op_type == "Gemm" and not node.is_constant(0):
        return _gemm(planner, node, names)
    if node.op_type == "BatchNormalization" and readers == 1 and node.n_outputs == 1:
        return _without_batch_norm(planner, node, names)
    return node, names


def _is_float_matrix(node: OnnxNode, index: int) -> bool:
    return (
        node.is_constant(index) and node.constant(index).ndim == 2 and node.constant(index).dtype.kind == "f"
    )


def _held(planner: Planner, node: OnnxNode, names: list[str | None]) -> OnnxNode:
    """Return the node with the constants that `names` have now."""
    constants = tuple(None if name is None else planner.plan.constants.get(name) for name in names)
    types = tuple(0 if name is None else planner.plan.types.get(name, 0) for name in names)
    return replace(node, constants=constants, input_types=types)


def _transposed(planner: Planner, name: str) -> str:
    if name not in planner.transposed:
        value = np.ascontiguousarray(planner.plan.constants[name].T)
        planner.transposed[name] = planner.constant(name.partition("#")[0], value, planner.plan.types[name])
    return planner.transposed[name]


def _linear(planner: Planner, node: OnnxNode, names: list[str | None]) -> tuple[OnnxNode, list[str | None]]:
    if not _is_float_matrix(node, 1) or names[1] is None:
        return node, names
    names = [names[0], _transposed(planner, names[1])]
    return _held(planner, replace(node, attributes={**node.attributes, LINEAR: 1}), names), names


def _gemm(planner: Planner, node: OnnxNode, names: list[str | None]) -> tuple[OnnxNode, list[str | None]]:
    """Put alpha and beta into constant weights and bias, and the weights in torch's order [outputs, inputs]."""
    has_bias = len(names) > 2 and names[2] is not None
    bias = node.constant(2) if has_bias and node.is_constant(2) else None
    if not _is_float_matrix(node, 1) or (has_bias and bias is None) or names[1] is None:
        return node, names
    attributes = dict(node.attributes)
    weight = names[1] if node.integer("transB", 0) else _transposed(planner, names[1])
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    if alpha != 1.0:
        weight = planner.constant(
            "weight", _scaled(planner.plan.constants[weight], alpha), planner.plan.types[weight]
        )
    names = [names[0], weight]
    outputs = planner.plan.constants[weight].shape[0]
    if bias is not None and bias.ndim <= 2 and bias.shape[:-1] in ((), (1,)):
        row = np.broadcast_to(_scaled(bias, beta).reshape(-1), (outputs,))
        names.append(planner.constant("bias", np.ascontiguousarray(row), node.input_types[2]))
        attributes["beta"] = 1.0
    elif bias is not None:
        names.append(planner.constant("bias", _scaled(bias, beta), node.input_types[2]))
        attributes["beta"] = 1.0
    attributes |= {"alpha": 1.0, "transB": 1}
    return _held(planner, replace(node, attributes=attributes), names), names


def _scaled(value: npt.NDArray[np.generic], factor: float) -> npt.NDArray[np.generic]:
    return (value.astype(np.float64) * factor).astype(value.dtype)


def _without_batch_norm(
    planner: Planner, node: OnnxNode, names: list[str | None]
) -> tuple[OnnxNode, list[str | None]]:
    """Return the convolution before a batch normalization with the normalization in its weights.

    y = scale (conv(x) - mean) / sqrt(var + epsilon) + shift: weights and bias times scale / sqrt(var + epsilon).
    """
    step = planner.producer(names[0])
    if step is None or step.node.op_type != "Conv" or step.node.domain != "" or not step.node.is_constant(1):
        return node, names
    before = step.node
    has_bias = len(step.inputs) > 2 and step.inputs[2] is not None
    is_known = all(node.is_constant(index) for index in range(1, 5)) and (
        not has_bias or before.is_constant(2)
    )
    if not is_known or node.integer("training_mode", 0) or node.integer("spatial", 1) != 1:
        return node, names
    scale, shift, mean, variance = (node.constant(index).astype(np.float64) for index in range(1, 5))
    weights = before.constant(1)
    channels = weights.shape[0]
    if any(value.shape != (channels,) for value in (scale, shift, mean, variance)):
        return node, names
    factor = scale / np.sqrt(variance + node.number("epsilon", 1e-5))
    bias = before.constant(2).astype(np.float64) if has_bias else np.zeros(channels)
    folded = weights.astype(np.float64) * factor.reshape(-1, *[1] * (weights.ndim - 1))
    kind = before.input_types[1]
    inputs = [
        step.inputs[0],
        planner.constant("weight", folded.astype(weights.dtype), kind),
        planner.constant("bias", ((bias - mean) * factor + shift).astype(weights.dtype), kind),
    ]
    return _held(planner, replace(before, name=before.name, output_types=node.output_types), inputs), inputs
