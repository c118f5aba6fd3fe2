"""Element by element: arithmetic, comparison, logic, bits, casts."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_values import BFLOAT16, CARRIED_IN_FLOAT, FLOAT16, STRING, carrier_of

Tensor = torch.Tensor
Binary = Callable[[Tensor, Tensor], Tensor]

# Narrow and unsigned integers are computed in a wider type and brought back, which wraps as ONNX wraps: runtimes take
# 8 and 16 bit tensors for quantized ones, and torch has few operators on unsigned types.
_WIDER = {
    torch.int8: torch.int32,
    torch.uint8: torch.int32,
    torch.int16: torch.int32,
    torch.uint16: torch.int32,
    torch.uint32: torch.int64,
    torch.uint64: torch.int64,
}


def wide(value: Tensor) -> Tensor:
    """Return narrow and unsigned integers in the type that computes with them, all others as they are."""
    return value.to(_WIDER.get(value.dtype, value.dtype))


def refuse_uint64(node: OnnxNode, *values: Tensor) -> None:
    """Check that no value is uint64, whose upper half int64 cannot order or divide."""
    if any(value.dtype is torch.uint64 for value in values):
        raise node.refusal("uint64 cannot be ordered or divided here")


def _wrapped(function: Binary, left: Tensor, right: Tensor) -> Tensor:
    return function(wide(left), wide(right)).to(left.dtype)


@handles("Add", "Sub", "Mul")
def _arithmetic(node: OnnxNode, left: Tensor, right: Tensor) -> Tensor:
    left, right = _legacy(node, left, right)
    functions: dict[str, Binary] = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul}
    return _wrapped(functions[node.op_type], left, right)


def _legacy(node: OnnxNode, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return the operands broadcast as before opset 7: the right one is aligned at `axis` of the left one."""
    if node.opset < 7 and node.integer("broadcast", 0) and node.has("axis"):
        axis = node.axis(node.integer("axis", 0), left.dim())
        missing = left.dim() - axis - right.dim()
        right = right.reshape(*right.shape, *[1] * max(missing, 0))
    return left, right


@handles("Div")
def _div(node: OnnxNode, left: Tensor, right: Tensor) -> Tensor:
    left, right = _legacy(node, left, right)
    if left.dtype.is_floating_point:
        return torch.div(left, right)
    refuse_uint64(node, left)
    return _wrapped(truncated_quotient, left, right)


def truncated_quotient(left: Tensor, right: Tensor) -> Tensor:
    """Return the quotient of integers, rounded towards zero.

    torch's own rounding "trunc" is lowered through float32 by some converters, which is wrong from 2**24 on; the floor
    of non-negative numbers stays an integer division.
    """
    size = torch.floor_divide(magnitude(left), magnitude(right))
    return torch.where((left < 0) != (right < 0), -size, size)


@handles("Mod")
def _mod(node: OnnxNode, left: Tensor, right: Tensor) -> Tensor:
    refuse_uint64(node, left)
    if not node.integer("fmod", 0):
        return _wrapped(torch.remainder, left, right)
    if left.dtype.is_floating_point:
        return torch.fmod(left, right)
    return _wrapped(_signed_remainder, left, right)


def _signed_remainder(left: Tensor, right: Tensor) -> Tensor:
    """Return the remainder of integers with the sign of the dividend."""
    size = torch.remainder(magnitude(left), magnitude(right))
    return torch.where(left < 0, -size, size)


@handles("Pow")
def _pow(node: OnnxNode, base: Tensor, exponent: Tensor) -> Tensor:
    refuse_uint64(node, base, exponent)
    if base.dtype.is_floating_point:
        if node.is_constant(1) and node.constant(1).size == 1 and exponent.dim() <= base.dim():
            value = float(node.constant(1).reshape(-1)[0])
            powers = {1.0: base, 2.0: base * base, 3.0: base * base * base}
            return powers[value] if value in powers else torch.pow(base, value)
        return torch.pow(base, exponent.to(base.dtype))
    if exponent.dtype.is_floating_point:
        return torch.pow(base.to(torch.float32), exponent.to(torch.float32)).to(base.dtype)
    return _integer_power(wide(base), wide(exponent).to(wide(base).dtype)).to(base.dtype)


def _integer_power(base: Tensor, exponent: Tensor) -> Tensor:
    """Return integers to a power by squaring: runtimes raise floats, which are not exact from 2**24 on.

    A negative power of anything but 1 and -1 is 0, as of truncated fractions.
    """
    size = torch.abs(exponent)
    rest = torch.where(
        size > 63, 62 + torch.remainder(size, 2), size
    )  # more is 0, 1 or -1 all the same, or overflows
    result, factor = torch.ones_like(base), base
    for _ in range(6):
        result = torch.where(torch.remainder(rest, 2) == 1, result * factor, result)
        factor, rest = factor * factor, torch.floor_divide(rest, 2)
    is_whole = torch.logical_or(exponent >= 0, torch.abs(base) == 1)
    return torch.where(is_whole, result, torch.zeros_like(result))


@handles("Max", "Min")
def _extreme(node: OnnxNode, *values: Tensor) -> Tensor:
    refuse_uint64(node, *values)
    function = torch.maximum if node.op_type == "Max" else torch.minimum
    return reduce(lambda a, b: _wrapped(function, a, b), values)


@handles("Sum", "Mean")
def _sum(node: OnnxNode, *values: Tensor) -> Tensor:
    total = reduce(torch.add, values)
    return total if node.op_type == "Sum" else total / len(values)


@handles("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
def _compare(node: OnnxNode, left: Tensor, right: Tensor) -> Tensor:
    left, right = _legacy(node, left, right)
    if node.op_type != "Equal" and left.dtype is torch.uint64:
        lowest = torch.iinfo(torch.int64).min  # flipping the highest bit keeps the order of unsigned numbers
        left, right = (value.view(torch.int64) ^ lowest for value in (left, right))
    if node.op_type == "Equal" and _is_infinity(node, 1):
        return _at_infinity(left, node.constant(1).reshape(-1)[0] > 0)
    functions: dict[str, Binary] = {
        "Equal": torch.eq,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
    }
    return functions[node.op_type](wide(left), wide(right))


def _is_infinity(node: OnnxNode, index: int) -> bool:
    return (
        node.is_constant(index)
        and node.constant(index).dtype.kind == "f"
        and node.constant(index).size == 1
        and node.constant(index).ndim <= 1
        and bool(np.isinf(node.constant(index).reshape(-1)[0]))
    )


def _at_infinity(value: Tensor, is_positive: bool) -> Tensor:
    """Return where a float32 is infinite: beyond the largest number, for converters clamp infinite constants to it."""
    largest = torch.finfo(torch.float32).max
    return value > largest if is_positive else value < -largest


@handles("And", "Or", "Xor")
def _logic(node: OnnxNode, left: Tensor, right: Tensor) -> Tensor:
    left, right = _legacy(node, left, right)
    functions: dict[str, Binary] = {
        "And": torch.logical_and,
        "Or": torch.logical_or,
        "Xor": torch.ne,  # of two bools the same, and all runtimes have it
    }
    return functions[node.op_type](left, right)


@handles("Not")
def _not(node: OnnxNode, value: Tensor) -> Tensor:
    return torch.logical_not(value)


@handles("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def _bitwise(node: OnnxNode, left: Tensor, right: Tensor) -> Tensor:
    functions: dict[str, Binary] = {
        "BitwiseAnd": _both,
        "BitwiseOr": _either,
        "BitwiseXor": torch.bitwise_xor,
    }
    return _wrapped(functions[node.op_type], left, right)


def _both(left: Tensor, right: Tensor) -> Tensor:
    """Return the bits that both have, from sums and exclusive or, which every runtime has.

    x + y = (x ^ y) + 2 (x & y); on the halves nothing overflows, and the lowest bits are multiplied.
    """
    high, other = torch.floor_divide(left, 2), torch.floor_divide(right, 2)
    return high + other - torch.bitwise_xor(high, other) + (left - 2 * high) * (right - 2 * other)


def _either(left: Tensor, right: Tensor) -> Tensor:
    return torch.bitwise_xor(left, right) + _both(left, right)


@handles("BitwiseNot")
def _bitwise_not(node: OnnxNode, value: Tensor) -> Tensor:
    return torch.bitwise_not(wide(value)).to(value.dtype)


@handles("BitShift")
def _shift(node: OnnxNode, value: Tensor, by: Tensor) -> Tensor:
    direction = node.text("direction", "")
    if direction not in ("LEFT", "RIGHT"):
        raise node.refusal(f"direction {direction!r} is unknown")
    bits = torch.iinfo(value.dtype).bits
    if value.dtype is torch.uint64:
        return _shift_uint64(direction, value, wide(by).clamp(0, bits - 1))
    source = wide(value)
    powers = torch.tensor([1 << bit for bit in range(min(bits, 31 if source.dtype is torch.int32 else 63))])
    factor = powers.to(source.dtype)[wide(by).to(torch.int64).clamp(0, len(powers) - 1)]
    shifted = source * factor if direction == "LEFT" else torch.floor_divide(source, factor)
    return shifted.to(value.dtype)


def _shift_uint64(direction: str, value: Tensor, by: Tensor) -> Tensor:
    if direction == "LEFT":
        return torch.bitwise_left_shift(wide(value), by).to(value.dtype)
    shifted = torch.bitwise_right_shift(wide(value), by)  # int64 shifts its sign in: those bits are cleared
    mask = torch.bitwise_left_shift(torch.full_like(shifted, -1), (64 - by).clamp(1, 63))
    return torch.where(by > 0, torch.bitwise_and(shifted, torch.bitwise_not(mask)), shifted).to(value.dtype)


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Sqrt": torch.sqrt,
    "Exp": torch.exp,
    "Log": torch.log,
    "Reciprocal": torch.reciprocal,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,  # halves go to the even number in both
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Asin": torch.asin,
    "Acos": torch.acos,
    "Atan": torch.atan,
    "Sinh": torch.sinh,
    "Cosh": torch.cosh,
    "Tanh": torch.tanh,
    "Asinh": torch.asinh,
    "Acosh": torch.acosh,
    "Atanh": torch.atanh,
    "Erf": torch.erf,
}


@handles(*_UNARY)
def _unary(node: OnnxNode, value: Tensor) -> Tensor:
    return _UNARY[node.op_type](value)


@handles("Abs", "Neg", "Sign")
def _signs(node: OnnxNode, value: Tensor) -> Tensor:
    if value.dtype is torch.uint64:
        if node.op_type == "Abs":
            return value.clone()
        return (wide(value) != 0).to(value.dtype)
    functions: dict[str, Callable[[Tensor], Tensor]] = {"Abs": magnitude, "Neg": torch.neg, "Sign": _sign}
    return functions[node.op_type](wide(value)).to(value.dtype)


def magnitude(value: Tensor) -> Tensor:
    """Return |x|; of int64 by a choice, for not every runtime has another kernel for it."""
    return torch.where(value < 0, -value, value) if value.dtype is torch.int64 else torch.abs(value)


def _sign(value: Tensor) -> Tensor:
    if value.dtype is not torch.int64:
        return torch.sign(value)
    return (value > 0).to(torch.int64) - (value < 0).to(torch.int64)


@handles("IsNaN")
def _is_nan(node: OnnxNode, value: Tensor) -> Tensor:
    return value != value


@handles("IsInf")
def _is_inf(node: OnnxNode, value: Tensor) -> Tensor:
    up, down = _at_infinity(value, True), _at_infinity(value, False)
    wanted = (node.integer("detect_positive", 1), node.integer("detect_negative", 1))
    if wanted == (1, 1):
        return torch.logical_or(up, down)
    if wanted == (0, 0):
        return torch.zeros_like(up)
    return up if wanted[0] else down


@handles("Clip")
def _clip(node: OnnxNode, value: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if node.opset < 11:
        # Out of the range of float32 means without a limit.
        return torch.clamp(value, node.number("min", -3.5e38), node.number("max", 3.5e38))
    if low is None and high is None:
        return value.clone()
    refuse_uint64(node, value)
    source = wide(value)
    is_constant = all(bound is None or node.is_constant(i) for i, bound in ((1, low), (2, high)))
    if is_constant:
        limits = [
            node.constant(i).reshape(-1)[0].item() if bound is not None else None
            for i, bound in ((1, low), (2, high))
        ]
        return torch.clamp(source, limits[0], limits[1]).to(value.dtype)
    if low is not None:
        source = torch.maximum(source, wide(low).reshape(()))
    if high is not None:
        source = torch.minimum(source, wide(high).reshape(()))
    return source.to(value.dtype)


@handles("Where")
def _where(node: OnnxNode, condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(condition, wide(yes), wide(no)).to(yes.dtype)


@handles("Cast")
def _cast(node: OnnxNode, value: Tensor) -> Tensor:
    return cast_to(node, value, node.integer("to", 0))


@handles("CastLike")
def _cast_like(node: OnnxNode, value: Tensor, like: Tensor) -> Tensor:
    if len(node.input_types) < 2 or not node.input_types[1]:
        raise node.refusal("the type of its second input is unknown")
    return cast_to(node, value, node.input_types[1])


def cast_to(node: OnnxNode, value: Tensor, element_type: int) -> Tensor:
    """Return `value` as an ONNX element type; half precisions are rounded, and carried in float32."""
    if element_type == STRING:
        raise node.refusal("it casts to strings")
    own = node.input_types[0] if node.input_types else 0
    if element_type == FLOAT16:
        return value if own == FLOAT16 else value.to(torch.float32).to(torch.float16).to(torch.float32)
    if element_type == BFLOAT16:
        return value if own == BFLOAT16 else value.to(torch.float32).to(torch.bfloat16).to(torch.float32)
    if element_type in _NARROW:
        raise node.refusal(f"it casts to {_NARROW[element_type]}, which is not converted")
    dtype = carrier_of(element_type)
    if dtype is torch.float64 and not node.is_constant(0):
        dtype = torch.float32
    if dtype is torch.bool:
        return value != 0
    return value.to(dtype)


_NARROW = {21: "uint4", 22: "int4", 25: "uint2", 26: "int2"}


@handles("BitCast")
def _bit_cast(node: OnnxNode, value: Tensor) -> Tensor:
    kinds = (node.integer("to", 0), *node.input_types[:1])
    if any(kind in (*CARRIED_IN_FLOAT, *_NARROW) for kind in kinds):
        raise node.refusal("it reinterprets a type that is carried in another one here")
    return value.view(carrier_of(kinds[0]))
