"""The records of a Core ML model: types, constants, operators, blocks, functions.

They mirror Apple's published `Model.proto` and `MIL.proto`, as far as an ML Program needs them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgewright.core.errors import FormatMismatchError, IntegrityError
from edgewright.core.tensors import Array

MAX_ELEMENTS = 1 << 28

# MIL's DataType -> our name. The types without a numpy dtype are kept by name, so that a refusal can tell it.
DATA_TYPES: Mapping[int, str] = {
    1: "bool",
    2: "string",
    10: "float16",
    11: "float32",
    12: "float64",
    13: "bfloat16",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
    36: "uint2",
    37: "uint1",
    38: "uint6",
    39: "uint3",
    40: "float8e4m3fn",
    41: "float8e5m2",
}
SUB_BYTE_BITS: Mapping[str, int] = {"int4": 4, "uint4": 4, "uint2": 2, "uint1": 1, "uint6": 6, "uint3": 3}
WHOLE_TYPES = ("bool float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64").split()


@dataclass(frozen=True, kw_only=True)
class TensorType:
    """A tensor's type; None in `shape` is a size that only a run tells."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True, kw_only=True)
class ListType:
    """A list of tensors of one type."""

    element: TensorType


@dataclass(frozen=True, kw_only=True)
class OtherType:
    """A type that is not executed here (tuple, dictionary, state)."""

    kind: str


ValueType = TensorType | ListType | OtherType


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Where a constant lies: a file of the package and the offset of its record there."""

    file: str
    offset: int


Content = Array | str | Blob | tuple["Constant", ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Constant:
    """A value written in the program: an array, a text, several constants, or a place in a weight file."""

    type: ValueType
    content: Content


@dataclass(frozen=True, kw_only=True)
class Named:
    """A name with its type."""

    name: str
    type: ValueType


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One operator: inputs are names of values, or constants written in place."""

    kind: str
    inputs: Mapping[str, tuple[str | Constant, ...]]
    outputs: tuple[Named, ...]
    blocks: tuple[Block, ...]
    attributes: Mapping[str, Constant]

    @property
    def name(self) -> str:
        """The first output's name, or the operator's where it has none."""
        return self.outputs[0].name if self.outputs else self.kind


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A sequence of operations with its own inputs and the names that it hands out."""

    inputs: tuple[Named, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Function:
    """A function and its one block."""

    name: str
    opset: str
    inputs: tuple[Named, ...]
    block: Block


@dataclass(frozen=True, kw_only=True)
class Feature:
    """An input or output of the model as an app sees it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A model file with an ML Program."""

    specification_version: int
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    functions: Mapping[str, Function]
    default_function: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def main(self) -> Function:
        """The function that runs when none is named.

        Raises:
            FormatMismatchError: there are several and none is the default.
        """
        name = self.default_function or "main"
        if name in self.functions:
            return self.functions[name]
        raise FormatMismatchError(
            f"the model has the functions {sorted(self.functions)} and {name!r} is none of them. "
            "Give a model with one function called main."
        )


def element_count(kind: TensorType) -> int:
    """Return the number of elements of a type that must be static.

    Raises:
        IntegrityError: a dimension is not known.
    """
    sizes = [size for size in kind.shape if size is not None]
    if len(sizes) != len(kind.shape):
        raise IntegrityError(f"a constant has the type {kind}, whose size is not known.")
    return math.prod(sizes)


def storage_dtype(name: str) -> np.dtype[np.generic]:
    """Return the numpy dtype in which values of MIL's type `name` are held.

    Raises:
        FormatMismatchError: there is none (bfloat16, float8, string).
    """
    if name in SUB_BYTE_BITS:
        return np.dtype(np.int8 if name == "int4" else np.uint8)
    if name in WHOLE_TYPES:
        return np.dtype(name)
    raise FormatMismatchError(f"tensors of {name} are not read here.")


def unpack_bits(packed: Array, count: int, dtype: str) -> Array:
    """Return `count` values of a type below one byte; packed from the lowest bit upwards, across bytes.

    Raises:
        IntegrityError: there are not exactly the bytes that `count` values take.
    """
    bits = SUB_BYTE_BITS[dtype]
    flat = np.ascontiguousarray(packed).view(np.uint8).ravel()
    if flat.size != -(-count * bits // 8):
        raise IntegrityError(
            f"{count} values of {dtype} take {-(-count * bits // 8)} bytes, not {flat.size}."
        )
    if bits == 1:
        return np.unpackbits(flat, count=count, bitorder="little")
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        values = ((flat[:, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1)[:count]
    else:
        single = np.unpackbits(flat, count=count * bits, bitorder="little").reshape(count, bits)
        values = (single << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)
    if dtype == "int4":
        return ((values ^ np.uint8(8)).astype(np.int8) - np.int8(8)).astype(np.int8)
    return values.astype(np.uint8)
