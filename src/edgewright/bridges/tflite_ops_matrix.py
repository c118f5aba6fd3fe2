"""LiteRT -> ONNX: fully connected layers and matrix products."""

from __future__ import annotations

from edgewright.bridges.tflite_builder import Builder, UnsupportedError, sizes
from edgewright.bridges.tflite_model import Operation
from edgewright.bridges.tflite_ops import operator
from edgewright.bridges.tflite_ops_convolution import note_hybrid
from edgewright.core.errors import IntegrityError


@operator("FULLY_CONNECTED")
def fully_connected(b: Builder, operation: Operation) -> None:
    """x [..., k] (or any shape of that many elements), weights [n, k], bias [n]."""
    tensor, result = b.source(operation, 0), b.result(operation)
    if operation.integer("weightsFormat") != 0:
        raise UnsupportedError("shuffled weights")
    outs, ins = sizes(b.source(operation, 1).shape, (0, 1))
    if not tensor.shape or ins < 1 or b.source(operation, 1).shape != (outs, ins):
        raise IntegrityError(f"FULLY_CONNECTED of {tensor.shape} with weights {[outs, ins]}.")
    note_hybrid(b, operation)
    value = b.real(tensor)
    weights = b.weights(operation, 1, (1, 0))
    bias = [b.weights(operation, 2, (0,))] if b.has(operation, 2) else []
    if len(tensor.shape) > 2 and len(result.shape) > 2 and tensor.shape[-1] == ins:
        value = b.node("MatMul", [value, weights])
        value = b.node("Add", [value, *bias]) if bias else value
    else:
        if len(tensor.shape) != 2 or tensor.shape[1] != ins:
            rows = result.shape[0] if len(result.shape) == 2 else None
            value = b.reshaped(value, (rows, ins))
        value = b.node("Gemm", [value, weights, *bias])
        if len(result.shape) != 2:
            value = b.reshaped(value, result.shape)
    b.put(result, b.activated(value, operation.integer("fusedActivationFunction"), result))


@operator("BATCH_MATMUL")
def batch_matmul(b: Builder, operation: Operation) -> None:
    """x [..., m, k] times y [..., k, n]; either may be given transposed."""
    factors = []
    for position, flag in enumerate(("adjX", "adjY")):
        tensor = b.source(operation, position)
        rank = len(tensor.shape)
        if rank < 2:
            raise IntegrityError("BATCH_MATMUL of a tensor of rank below 2.")
        axes = list(range(rank))
        if operation.flag(flag):
            axes[-2:] = axes[:-3:-1]
        is_moved = axes != list(range(rank))
        factors.append(
            b.weights(operation, position, axes) if is_moved or tensor.value is not None else b.real(tensor)
        )
    note_hybrid(b, operation)
    b.put(b.result(operation), b.node("MatMul", factors))
