"""LiteRT -> ONNX: arithmetic, comparisons, elementwise functions, activations."""

from __future__ import annotations

import math

import numpy as np

from edgewright.bridges.tflite_builder import Builder, UnsupportedError
from edgewright.bridges.tflite_model import Operation
from edgewright.bridges.tflite_ops import operator
from edgewright.core.errors import IntegrityError

_BINARY = {
    "ADD": "Add",
    "SUB": "Sub",
    "MUL": "Mul",
    "DIV": "Div",
    "MAXIMUM": "Max",
    "MINIMUM": "Min",
    "POW": "Pow",
}
_COMPARISONS = {
    "EQUAL": "Equal",
    "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual",
    "GREATER": "Greater",
    "GREATER_EQUAL": "GreaterOrEqual",
    "LOGICAL_AND": "And",
    "LOGICAL_OR": "Or",
}
_UNARY = {
    "ABS": "Abs",
    "CEIL": "Ceil",
    "COS": "Cos",
    "EXP": "Exp",
    "FLOOR": "Floor",
    "LOG": "Log",
    "LOGISTIC": "Sigmoid",
    "NEG": "Neg",
    "ROUND": "Round",
    "SIGN": "Sign",
    "SIN": "Sin",
    "SQRT": "Sqrt",
    "TANH": "Tanh",
    "HARD_SWISH": "HardSwish",
    "ELU": "Elu",
}
_L2_EPSILON = 1e-6


def _two(b: Builder, operation: Operation) -> list[str]:
    return [b.real(b.source(operation, position)) for position in (0, 1)]


@operator(*_BINARY)
def binary(b: Builder, operation: Operation) -> None:
    """Both broadcast; four of them have a fused activation."""
    result = b.result(operation)
    value = b.node(_BINARY[operation.name], _two(b, operation))
    if operation.name in ("ADD", "SUB", "MUL", "DIV"):
        value = b.activated(value, operation.integer("fusedActivationFunction"), result)
    b.put(result, value)


@operator("ADD_N")
def add_n(b: Builder, operation: Operation) -> None:
    """A sum of any number of tensors; ONNX Runtime has Sum for floats alone."""
    values = [b.real(b.source(operation, position)) for position in range(len(operation.inputs))]
    total = values[0]
    for value in values[1:]:
        total = b.node("Add", [total, value])
    b.put(b.result(operation), total)


@operator("SQUARED_DIFFERENCE")
def squared_difference(b: Builder, operation: Operation) -> None:
    """(x - y) squared."""
    value = b.node("Sub", _two(b, operation))
    b.put(b.result(operation), b.node("Mul", [value, value]))


@operator("FLOOR_DIV", "FLOOR_MOD")
def floor_division(b: Builder, operation: Operation) -> None:
    """Rounded towards minus infinity: the rest has the sign of the divisor, which Mod gives for integers alone."""
    x, y = _two(b, operation)
    result = b.result(operation)
    if operation.name == "FLOOR_MOD" and result.dtype in ("int32", "int64", "int8", "int16"):
        b.put(result, b.node("Mod", [x, y]))
        return
    if operation.name == "FLOOR_DIV" and result.dtype == "float32":
        b.put(result, b.node("Floor", [b.node("Div", [x, y])]))
        return
    if operation.name == "FLOOR_DIV":
        rest = b.node("Mod", [x, y])
        b.put(result, b.node("Div", [b.node("Sub", [x, rest]), y]))
        return
    rest = b.node("Mod", [x, y], {"fmod": 1})
    zero = b.scalar(0.0)
    differs = b.node("Xor", [b.node("Less", [rest, zero]), b.node("Less", [y, zero])])
    is_rest = b.node("Not", [b.node("Equal", [rest, zero])])
    moved = b.node("Add", [rest, y])
    b.put(result, b.node("Where", [b.node("And", [is_rest, differs]), moved, rest]))


@operator(*_COMPARISONS)
def comparison(b: Builder, operation: Operation) -> None:
    """To bool."""
    b.put(b.result(operation), b.node(_COMPARISONS[operation.name], _two(b, operation)))


@operator("NOT_EQUAL")
def not_equal(b: Builder, operation: Operation) -> None:
    """The opposite of Equal."""
    b.put(b.result(operation), b.node("Not", [b.node("Equal", _two(b, operation))]))


@operator("LOGICAL_NOT")
def logical_not(b: Builder, operation: Operation) -> None:
    """Not."""
    b.put(b.result(operation), b.node("Not", [b.real(b.source(operation, 0))]))


@operator(*_UNARY)
def unary(b: Builder, operation: Operation) -> None:
    """ONNX has the same function."""
    b.put(b.result(operation), b.node(_UNARY[operation.name], [b.real(b.source(operation, 0))]))


@operator("RSQRT")
def rsqrt(b: Builder, operation: Operation) -> None:
    """1 / sqrt(x)."""
    root = b.node("Sqrt", [b.real(b.source(operation, 0))])
    b.put(b.result(operation), b.node("Reciprocal", [root]))


@operator("SQUARE")
def square(b: Builder, operation: Operation) -> None:
    """x * x."""
    value = b.real(b.source(operation, 0))
    b.put(b.result(operation), b.node("Mul", [value, value]))


@operator("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1")
def relu(b: Builder, operation: Operation) -> None:
    """Clipped."""
    result = b.result(operation)
    b.put(result, b.clipped(b.real(b.source(operation, 0)), operation.name, result))


@operator("LEAKY_RELU")
def leaky_relu(b: Builder, operation: Operation) -> None:
    """x below zero times alpha."""
    value = b.node("LeakyRelu", [b.real(b.source(operation, 0))], {"alpha": operation.real("alpha")})
    b.put(b.result(operation), value)


@operator("PRELU")
def prelu(b: Builder, operation: Operation) -> None:
    """x below zero times a slope, which broadcasts to x."""
    b.put(b.result(operation), b.node("PRelu", _two(b, operation)))


@operator("GELU")
def gelu(b: Builder, operation: Operation) -> None:
    """x / 2 * (1 + erf(x / sqrt 2)), or its approximation x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    x = b.real(b.source(operation, 0))
    if operation.flag("approximate"):
        cube = b.node("Mul", [x, b.node("Mul", [x, x])])
        inner = b.node("Add", [x, b.node("Mul", [cube, b.scalar(0.044715)])])
        bend = b.node("Tanh", [b.node("Mul", [inner, b.scalar(math.sqrt(2 / math.pi))])])
    else:
        bend = b.node("Erf", [b.node("Div", [x, b.scalar(math.sqrt(2))])])
    value = b.node("Mul", [x, b.node("Add", [bend, b.scalar(1.0)])])
    b.put(b.result(operation), b.node("Mul", [value, b.scalar(0.5)]))


@operator("SOFTMAX", "LOG_SOFTMAX")
def softmax(b: Builder, operation: Operation) -> None:
    """Over the last axis; Softmax multiplies by beta first."""
    value = b.real(b.source(operation, 0))
    if operation.name == "LOG_SOFTMAX":
        b.put(b.result(operation), b.node("LogSoftmax", [value], {"axis": -1}))
        return
    beta = operation.real("beta", 1.0)
    if beta != 1.0:
        value = b.node("Mul", [value, b.scalar(beta)])
    b.put(b.result(operation), b.node("Softmax", [value], {"axis": -1}))


@operator("L2_NORMALIZATION")
def l2_normalization(b: Builder, operation: Operation) -> None:
    """x / max(|x|, 1e-6) over the last axis."""
    value = b.real(b.source(operation, 0))
    length = b.reduced("ReduceL2", value, [-1], keep=True)
    value = b.node("Div", [value, b.node("Max", [length, b.scalar(_L2_EPSILON)])])
    result = b.result(operation)
    b.put(result, b.activated(value, operation.integer("fusedActivationFunction"), result))


@operator("QUANTIZE")
def quantize(b: Builder, operation: Operation) -> None:
    """To integers, or to integers of another scale."""
    b.put(b.result(operation), b.real(b.source(operation, 0)))


@operator("DEQUANTIZE")
def dequantize(b: Builder, operation: Operation) -> None:
    """To float32; float16 constants are expanded when the model is loaded."""
    tensor = b.source(operation, 0)
    value = b.real(tensor)
    if tensor.dtype == "float16":
        value = b.cast(value, "float32")
    elif tensor.scheme is None:
        raise IntegrityError(f"DEQUANTIZE of {tensor.name!r}, which has no scale.")
    b.put(b.result(operation), value)


@operator("FAKE_QUANT")
def fake_quant(b: Builder, operation: Operation) -> None:
    """Rounded to 2**bits steps between a minimum and a maximum, of which zero is made one step."""
    low, high = operation.real("min"), operation.real("max")
    bits = operation.integer("numBits")
    if not 2 <= bits <= 16 or not low < high or not math.isfinite(low) or not math.isfinite(high):
        raise IntegrityError(f"FAKE_QUANT to {bits} bits between {low} and {high}.")
    least, most = (1 if operation.flag("narrowRange") else 0), 2**bits - 1
    scale = (high - low) / (most - least)
    zero = float(np.clip(np.floor(least - low / scale + 0.5), least, most))
    floor, ceiling = (least - zero) * scale, (most - zero) * scale
    x = b.node("Clip", [b.real(b.source(operation, 0)), b.scalar(floor), b.scalar(ceiling)])
    steps = b.node("Div", [b.node("Sub", [x, b.scalar(floor)]), b.scalar(scale)])
    whole = b.node("Floor", [b.node("Add", [steps, b.scalar(0.5)])])
    b.put(b.result(operation), b.node("Add", [b.node("Mul", [whole, b.scalar(scale)]), b.scalar(floor)]))


@operator("CAST")
def cast(b: Builder, operation: Operation) -> None:
    """Towards zero, as stored: a cast does not look at scales."""
    tensor, result = b.source(operation, 0), b.result(operation)
    if "complex" in tensor.dtype + result.dtype:
        raise UnsupportedError("complex numbers")
    b.put_stored(result, b.cast(b.stored(tensor), result.dtype))


@operator("SELECT", "SELECT_V2")
def select(b: Builder, operation: Operation) -> None:
    """Where; the older operator may have one condition per row."""
    condition, left = b.source(operation, 0), b.source(operation, 1)
    test = b.stored(condition)
    if operation.name == "SELECT" and len(condition.shape) == 1 and len(left.shape) > 1:
        test = b.reshaped(test, (condition.shape[0], *[1] * (len(left.shape) - 1)))
    values = [b.real(b.source(operation, position)) for position in (1, 2)]
    b.put(b.result(operation), b.node("Where", [test, *values]))


@operator("ZEROS_LIKE")
def zeros_like(b: Builder, operation: Operation) -> None:
    """Zeros of the same shape."""
    tensor = b.source(operation, 0)
    zero = b.scalar(0, tensor.dtype)
    b.put_stored(b.result(operation), b.node("Expand", [zero, b.node("Shape", [b.stored(tensor)])]))
