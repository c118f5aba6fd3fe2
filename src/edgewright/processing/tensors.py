"""Steps on any array: number types, linear maps, quantization, shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from edgewright.core.errors import DataError, UsageError
from edgewright.core.tensors import Array
from edgewright.processing.step import Frame, Step, floats
from edgewright.processing.values import ValueType

_INTEGER_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
IntegerType = Literal["int8", "uint8", "int16"]
INTEGER_TYPES: tuple[IntegerType, ...] = get_args(IntegerType)


@dataclass(frozen=True, kw_only=True)
class Cast(Step):
    """Change the number type; float to integer drops the fraction after clamping to the range.

    Attributes:
        dtype: of the result.
    """

    name: ClassVar[str] = "cast"
    dtype: Literal["float32", "int8", "uint8", "int16", "int32", "int64"] = "float32"

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        have = self.elements(given)
        return have.of(*have.shape, dtype=self.dtype)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        array = values[0]
        if array.dtype.kind == "f" and self.dtype != "float32":
            limits = np.iinfo(self.dtype)
            # NaN is 0, as it must be something that every compiler agrees on.
            wide = np.nan_to_num(array.astype(np.float64), nan=0.0)
            # float64 rounds the largest int64 up: what reaches it is set, not converted.
            is_above = wide >= float(limits.max)
            made = np.maximum(np.where(is_above, 0.0, wide), float(limits.min)).astype(self.dtype)
            return np.where(is_above, np.array(limits.max, dtype=self.dtype), made)
        return np.asarray(array).astype(self.dtype)


@dataclass(frozen=True, kw_only=True)
class Scale(Step):
    """Multiply and add: y = x * factor + offset, in float32, the product rounded before the sum.

    Attributes:
        factor: of each channel, or one for all. The channels are the last axis, the first of a "chw" image.
        offset: likewise.
    """

    name: ClassVar[str] = "scale"
    factor: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if not self.factor or not self.offset:
            raise UsageError(
                "step 'scale' has no factor or no offset; one number, or one a channel, is expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        have = self.elements(given)
        channels = have.channels if have.kind == "image" else (have.shape[-1] if have.shape else 1)
        for what, numbers in (("factor", self.factor), ("offset", self.offset)):
            if len(numbers) not in (1, channels):
                raise UsageError(
                    f"step 'scale' has {len(numbers)} numbers in {what}, but gets {have}; 1 or {channels} are expected."
                )
        return have.of(*have.shape, dtype="float32")

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        factor, offset = (np.array(n, dtype=np.float32) for n in (self.factor, self.offset))
        if frame.given and frame.given[0].layout == "chw":
            factor, offset = factor[:, None, None], offset[:, None, None]
        return floats(values[0]) * factor + offset


@dataclass(frozen=True, kw_only=True)
class Quantize(Step):
    """Float to integer: q = round(x / scale) + zero_point, half away from zero, clamped to the type.

    Attributes:
        scale: of one step, above 0.
        zero_point: the integer that means 0.
        dtype: of the result.
    Source: LiteRT 8-bit quantization specification; the division is a product with the float32 reciprocal.
    """

    name: ClassVar[str] = "quantize"
    scale: float
    zero_point: int = 0
    dtype: IntegerType = "int8"

    def __post_init__(self) -> None:
        _check_quantization(self.name, self.scale, self.zero_point, self.dtype)

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        have = self.elements(given)
        if have.dtype != "float32":
            raise self.refuse(given, "float32")
        return have.of(*have.shape, dtype=self.dtype)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        low, high = _INTEGER_LIMITS[self.dtype]
        scaled = floats(values[0]) * (np.float32(1.0) / np.float32(self.scale))
        # Clamped as float first: a value beyond int32 must not wrap. 2**20 is past every limit and exact in float32.
        bounded = np.clip(np.nan_to_num(scaled, nan=0.0), -(2.0**20), 2.0**20)
        rounded = np.trunc(bounded + np.copysign(np.float32(0.5), bounded)).astype(np.int32)
        clamped: Array = np.clip(rounded + self.zero_point, low, high).astype(self.dtype)
        return clamped


@dataclass(frozen=True, kw_only=True)
class Dequantize(Step):
    """Integer to float: x = (q - zero_point) * scale.

    Attributes:
        scale: of one step, above 0.
        zero_point: the integer that means 0.
    """

    name: ClassVar[str] = "dequantize"
    scale: float
    zero_point: int = 0

    def __post_init__(self) -> None:
        _check_quantization(self.name, self.scale, self.zero_point, "int16")

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        have = self.elements(given)
        if have.dtype not in _INTEGER_LIMITS:
            raise self.refuse(given, "int8, uint8 or int16")
        return have.of(*have.shape, dtype="float32")

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        centred = floats(values[0].astype(np.int32) - self.zero_point)
        return np.asarray(centred * np.float32(self.scale))


@dataclass(frozen=True, kw_only=True)
class Reshape(Step):
    """Give the elements another shape, in their order; the batch axis is left out.

    Attributes:
        shape: sizes; one of them may be -1.
    """

    name: ClassVar[str] = "reshape"
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) > 8 or self.shape.count(-1) > 1 or any(n < -1 or n == 0 for n in self.shape):
            raise UsageError(
                f"step 'reshape' has shape {list(self.shape)}; up to 8 sizes, one of them -1, are expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        fixed = math.prod(n for n in self.shape if n != -1)
        if None in have.shape:
            shape = tuple(None if n == -1 else n for n in self.shape)
            return ValueType(kind="tensor", shape=shape, dtype=have.dtype, rate_hz=have.rate_hz)
        total = math.prod(n for n in have.shape if n is not None)
        free, rest = divmod(total, fixed)
        if rest or (-1 not in self.shape and total != fixed):
            raise self.refuse(given, f"what {list(self.shape)} holds ({fixed} elements)")
        shape = tuple(free if n == -1 else n for n in self.shape)
        return ValueType(kind="tensor", shape=shape, dtype=have.dtype, rate_hz=have.rate_hz)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        try:
            return values[0].reshape(self.shape)
        except ValueError as err:  # a length that only shows when it runs
            raise DataError(
                f"step 'reshape' got {list(values[0].shape)}, but {list(self.shape)} is expected."
            ) from err


@dataclass(frozen=True, kw_only=True)
class Transpose(Step):
    """Change the order of the axes; the batch axis is left out.

    Attributes:
        axes: the result's axis i is the axis axes[i] of what is given.
    """

    name: ClassVar[str] = "transpose"
    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.axes) != list(range(len(self.axes))) or len(self.axes) > 8:
            raise UsageError(f"step 'transpose' has axes {list(self.axes)}; a permutation is expected.")

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if len(have.shape) != len(self.axes):
            raise self.refuse(given, f"a value with {len(self.axes)} axes")
        return ValueType(
            kind="tensor",
            shape=tuple(have.shape[axis] for axis in self.axes),
            dtype=have.dtype,
            rate_hz=have.rate_hz,
        )

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        return np.ascontiguousarray(values[0].transpose(self.axes))


def _check_quantization(name: str, scale: float, zero_point: int, dtype: str) -> None:
    low, high = _INTEGER_LIMITS[dtype]
    with np.errstate(over="ignore", divide="ignore"):
        is_usable = math.isfinite(scale) and scale > 0 and np.isfinite(np.float32(1) / np.float32(scale))
    if not is_usable:
        raise UsageError(f"step {name!r} has scale {scale}; a number above 0 is expected.")
    if not low <= zero_point <= high:
        raise UsageError(f"step {name!r} has zero_point {zero_point}; {low}..{high} is expected.")
