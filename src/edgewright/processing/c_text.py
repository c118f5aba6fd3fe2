"""Text of C: strings, numbers, tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from edgewright.core.errors import ConversionError
from edgewright.core.tensors import Array

C_TYPES = {
    "float32": "float", "int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "int32": "int32_t",
    "int64": "int64_t", "float64": "double",
}  # fmt: skip
_LINE_WIDTH = 110
_INT32_MIN, _INT64_MIN = -(2**31), -(2**63)


def c_string(text: str) -> str:
    """Return `text` as a string of C in UTF-8; whatever it holds, it stays inside of the quotes."""
    made = ""
    for byte in text.encode("utf-8", "replace"):
        char = chr(byte)
        # "?" could begin a trigraph; an octal escape ends after three digits, whatever follows.
        is_plain = 32 <= byte < 127 and char not in '"\\?'
        made += char if is_plain else f"\\{byte:03o}"
    return f'"{made}"'


def c_float(value: float) -> str:
    """Return the float32 `value` as C; nine digits bring it back exactly.

    Raises:
        ConversionError: it is infinite or not a number, which C99 has no constant for.
    """
    with np.errstate(over="ignore"):
        return _decimal(float(np.float32(value)), 9) + "f"


def c_double(value: float) -> str:
    """Return the float64 `value` as C.

    Raises:
        ConversionError: as of `c_float`.
    """
    return _decimal(float(value), 17)


def c_integer(value: int) -> str:
    """Return `value` as C: the lowest integers are expressions there."""
    if value == _INT32_MIN:
        return "(-2147483647 - 1)"
    if value == _INT64_MIN:
        return "(-9223372036854775807 - 1)"
    return str(int(value))


def c_table(name: str, values: Array) -> str:
    """Return the definition of the constant array `name`, one-dimensional, with `values` in their order.

    Raises:
        ConversionError: a value is infinite or not a number.
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    kind = flat.dtype.kind
    if kind == "f":
        write = c_float if flat.dtype.itemsize == 4 else c_double
        items = [write(value) for value in flat.tolist()]
    else:
        items = [c_integer(value) for value in flat.tolist()]
    return f"static const {C_TYPES[str(flat.dtype)]} {name}[{len(flat)}] = {{\n{wrapped(items)}\n}};"


def wrapped(items: Iterable[str]) -> str:
    """Return `items` with commas, in indented lines."""
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > _LINE_WIDTH:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return "\n".join([*lines, line])


def sizes(values: Sequence[int], count: int = 8) -> str:
    """Return sizes as the initialiser of an array of `count`."""
    padded = [*values, *[0] * (count - len(values))]
    return "{" + ", ".join(map(str, padded)) + "}"


def _decimal(value: float, digits: int) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        raise ConversionError(
            f"a step has the constant {value}, which C99 has no constant for. Change its options."
        )
    text = f"{value:.{digits}g}"
    return text if any(mark in text for mark in ".e") else f"{text}.0"
