"""Steps to masks: the index of a class for each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from edgewright.core.tensors import Array
from edgewright.processing.step import Frame, Step, floats
from edgewright.processing.values import ValueType

_INTEGERS = ("uint8", "int8", "int16", "int32", "int64")


@dataclass(frozen=True, kw_only=True)
class Argmax(Step):
    """Scores of each pixel to a mask of the best class; of equal scores the lower index; NaN is below everything.

    uint8 for up to 256 classes, int32 beyond.

    Attributes:
        axis: of the classes: last [height, width, classes], or first [classes, height, width].
    """

    name: ClassVar[str] = "argmax"
    axis: Literal["last", "first"] = "last"

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if len(have.shape) != 3 or have.dtype not in ("float32", *_INTEGERS):
            raise self.refuse(given, "scores with three axes")
        *sides, classes = have.shape if self.axis == "last" else (*have.shape[1:], have.shape[0])
        if classes is None:
            raise self.refuse(given, "a known number of classes")
        dtype = "uint8" if classes <= 256 else "int32"
        return ValueType(kind="mask", shape=tuple(sides), dtype=dtype, classes=classes)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        scores: Array
        scores, axis = values[0], 2 if self.axis == "last" else 0
        if scores.dtype.kind == "f":
            scores = np.where(np.isnan(scores), -np.inf, scores)
        best: Array = scores.argmax(axis=axis).astype("uint8" if scores.shape[axis] <= 256 else "int32")
        return best


@dataclass(frozen=True, kw_only=True)
class Mask(Step):
    """Indices of classes, or one score a pixel, to a mask of uint8.

    Integers are indices; what is below 0 is 0, above 255 is 255. A float32 score is 1 from `threshold` on, else 0.

    Attributes:
        threshold: of a score.
    """

    name: ClassVar[str] = "mask"
    threshold: float = 0.5

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        shape = have.shape
        if len(shape) == 3 and 1 in (shape[0], shape[2]):
            shape = shape[:2] if shape[2] == 1 else shape[1:]
        if len(shape) != 2 or have.dtype not in ("float32", *_INTEGERS):
            raise self.refuse(given, "one number a pixel: [height, width], or one channel")
        return ValueType(kind="mask", shape=shape, dtype="uint8")

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        array = values[0]
        if array.ndim == 3:
            array = array[..., 0] if array.shape[2] == 1 else array[0]
        if array.dtype.kind == "f":
            return (floats(array) >= np.float32(self.threshold)).astype(np.uint8)
        return np.clip(array, 0, 255).astype(np.uint8)
