"""Protobuf's wire format, read with a bound on every length.

Source: protobuf's encoding page (varints, length-delimited fields, fixed sizes; groups are not used by Core ML).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edgewright.core.errors import IntegrityError

MAX_TEXT_BYTES = 1 << 16


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value): integers for varints and fixed sizes, a view for everything with a length."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        wire = key & 7
        number = key >> 3
        if number == 0:
            raise IntegrityError("a protobuf field has the number 0: the model file is damaged.")
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
        elif wire == 2:
            length, position = _varint(data, position)
            if length > end - position:
                raise IntegrityError(
                    f"a protobuf field claims {length} bytes where {end - position} are left: the model file "
                    "is truncated or damaged."
                )
            yield number, data[position : position + length]
            position += length
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            if width > end - position:
                raise IntegrityError("the model file ends in the middle of a number: it is truncated.")
            yield number, struct.unpack_from("<Q" if wire == 1 else "<I", data, position)[0]
            position += width
        else:
            raise IntegrityError(f"protobuf wire type {wire} has no place in a model file: it is damaged.")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise IntegrityError("the model file ends in the middle of a number: it is truncated.")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, position
    raise IntegrityError("a protobuf number has more than ten bytes: the model file is damaged.")


def message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise IntegrityError("a protobuf field has a number where a record is expected: the file is damaged.")
    return value


def integer(value: int | memoryview) -> int:
    """Return a varint as the signed number that int32, int64 and enum spell with it."""
    if not isinstance(value, int):
        raise IntegrityError("a protobuf field has a record where a number is expected: the file is damaged.")
    return value - (1 << 64) if value >> 63 else value


def integers(value: int | memoryview) -> list[int]:
    """Return the numbers of a repeated varint field, packed or one by one."""
    if isinstance(value, int):
        return [integer(value)]
    numbers, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        numbers.append(integer(number))
    return numbers


def text(value: int | memoryview) -> str:
    return decoded(message(value))


def decoded(data: memoryview) -> str:
    if len(data) > MAX_TEXT_BYTES:
        raise IntegrityError(f"a text of {len(data)} bytes is longer than {MAX_TEXT_BYTES}.")
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as err:
        raise IntegrityError(f"a name is not UTF-8: {err.reason}. The model file is damaged.") from err


def entry(data: memoryview) -> tuple[str, memoryview]:
    """Return key and value of a map's entry."""
    key, body = "", memoryview(b"")
    for number, value in fields(data):
        if number == 1:
            key = text(value)
        elif number == 2:
            body = message(value)
    return key, body
