"""One operator's evaluated arguments, as the operators of the Core ML interpreter read them.

Types are kept honest: a float16 argument is turned into float32 to be computed with, which is exact, sums accumulate in
float32, and the interpreter rounds every result to the type that the program declares for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from edgewright.backends.coreml_records import MAX_ELEMENTS
from edgewright.core.errors import ConversionError
from edgewright.core.tensors import MAX_RANK, Array

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
List = list["Array | None"]
Value = Array | str | List
Result = Array | tuple[Array, ...]


class Call:
    """An operator's name and its arguments, each a tuple of values (most have one)."""

    def __init__(
        self, kind: str, arguments: Mapping[str, tuple[Value, ...]], *, output_count: int = 1
    ) -> None:
        self.kind = kind
        self.output_count = output_count
        self._arguments = arguments

    def has(self, name: str) -> bool:
        """Return True when the argument was given."""
        return bool(self._arguments.get(name))

    def value(self, name: str) -> Value:
        """Return the one value of an argument."""
        values = self._arguments.get(name, ())
        if len(values) != 1:
            raise ConversionError(
                f"operator {self.kind} has {len(values)} values for {name!r}; it needs one."
            )
        return values[0]

    def array(self, name: str) -> Array:
        """Return an argument that is an array."""
        return self._as_array(self.value(name), name)

    def arrays(self, name: str) -> list[Array]:
        """Return an argument of several arrays."""
        return [self._as_array(value, name) for value in self._arguments.get(name, ())]

    def floats(self, name: str) -> Floats:
        """Return a floating-point argument as float32."""
        return as_floats(self.array(name))

    def optional(self, name: str) -> Floats | None:
        """Return a floating-point argument as float32, or None where it was left out."""
        return self.floats(name) if self.has(name) else None

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a scalar argument."""
        if default is not None and not self.has(name):
            return default
        array = self.array(name)
        if array.size != 1 or array.dtype.kind not in "iu":
            raise ConversionError(
                f"operator {self.kind}: {name} is {array.dtype}{list(array.shape)}, no integer."
            )
        return int(array.reshape(-1)[0])

    def number(self, name: str, default: float | None = None) -> np.float32:
        """Return a scalar argument as float32."""
        if default is not None and not self.has(name):
            return np.float32(default)
        array = self.floats(name)
        if array.size != 1:
            raise ConversionError(f"operator {self.kind}: {name} has {array.size} values; one is expected.")
        return np.float32(array.reshape(-1)[0])

    def flag(self, name: str, default: bool) -> bool:
        """Return a boolean argument."""
        return bool(self.array(name).reshape(-1)[:1].any()) if self.has(name) else default

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text argument."""
        if default is not None and not self.has(name):
            return default
        value = self.value(name)
        if not isinstance(value, str):
            raise ConversionError(f"operator {self.kind}: {name} is no text.")
        return value

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """Return a vector of integers."""
        if default is not None and not self.has(name):
            return list(default)
        array = self.array(name)
        if array.dtype.kind not in "iub" or array.size > MAX_ELEMENTS:
            raise ConversionError(f"operator {self.kind}: {name} is {array.dtype}; integers are expected.")
        return [int(number) for number in array.reshape(-1)]

    def sizes(self, name: str, default: Sequence[int], count: int) -> list[int]:
        """Return exactly `count` integers that are at least 1 (strides, dilations, kernels)."""
        values = self.integers(name, default)
        if len(values) != count or any(value < 1 for value in values):
            raise ConversionError(
                f"operator {self.kind}: {name} is {values[:8]}; {count} sizes are expected."
            )
        return values

    def refuse(self, why: str) -> ConversionError:
        """Return the error of an operator that is not executed in this way."""
        return ConversionError(f"operator {self.kind} {why}.")

    def _as_array(self, value: Value, name: str) -> Array:
        if isinstance(value, np.ndarray):
            return value
        raise ConversionError(f"operator {self.kind}: {name} is no tensor.")


Operator = Callable[[Call], Result]


def as_floats(array: Array) -> Floats:
    """Return `array` as float32; float16 and float32 alone."""
    if array.dtype == np.float32:
        return array.view(np.float32)
    if array.dtype != np.float16:
        raise ConversionError(f"a tensor is {array.dtype} where float16 or float32 is expected.")
    return array.astype(np.float32)


def computable(array: Array) -> Floats:
    """Return float16 as float32, and any other array as it is (integers and booleans too, whatever mypy is told)."""
    return cast(Floats, array.astype(np.float32) if array.dtype == np.float16 else array)


def limit(shape: Sequence[int]) -> tuple[int, ...]:
    """Return `shape` if an array of it may be made.

    Raises:
        ConversionError: it is too large, or has a negative size.
    """
    if len(shape) > MAX_RANK or any(size < 0 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise ConversionError(
            f"an operator would make a tensor of shape {list(shape)[:8]}; at most {MAX_ELEMENTS} elements "
            "are computed here."
        )
    return tuple(int(size) for size in shape)


def axis_of(axis: int, rank: int) -> int:
    """Return `axis` counted from the front.

    Raises:
        ConversionError: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise ConversionError(f"axis {axis} is out of range for a tensor of rank {rank}.")
    return axis % rank
