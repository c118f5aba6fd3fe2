"""Steps on points: coordinates that do not depend on where in the picture, and how large, a hand or a body is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.step import Frame, Step, floats
from edgewright.processing.values import ValueType

_MAX_POINTS = 100_000


@dataclass(frozen=True, kw_only=True)
class Relative(Step):
    """Subtract one point from all, then divide by their size, in float32: landmarks [points, 2 or 3] -> tensor.

    Points that all lie in one place give zeros.

    Attributes:
        origin: index of the point that becomes 0 (a hand's wrist is 0); -1 is the mean of all, made in float64.
        coordinates: of each point that are kept; 0 is all.
        scale: what the size is: the largest absolute coordinate ("largest"), the largest distance from the origin
            ("distance"), or 1 ("none").
    """

    name: ClassVar[str] = "relative"
    origin: int = 0
    coordinates: int = 0
    scale: Literal["largest", "distance", "none"] = "largest"

    def __post_init__(self) -> None:
        if not -1 <= self.origin < _MAX_POINTS or not 0 <= self.coordinates <= 3:
            raise UsageError(
                f"step 'relative' has origin {self.origin} and coordinates {self.coordinates}; an index or -1, and "
                "0..3 are expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind != "landmarks" or len(have.shape) != 2 or have.dtype not in ("float32", "int32"):
            raise self.refuse(given, "landmarks [points, coordinates] of float32 or int32")
        points, size = have.shape
        if not points or not size or self.origin >= points:
            raise self.refuse(given, f"a known number of points, {max(self.origin + 1, 1)} at least,")
        if self.coordinates > size:
            raise self.refuse(given, f"{self.coordinates} coordinates at least")
        return have.of(points, self.coordinates or size, dtype="float32", kind="tensor")

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        points = floats(values[0])[:, : self.coordinates or None]
        mean = points.mean(axis=0, dtype=np.float64).astype(np.float32)
        moved = points - (mean if self.origin == -1 else points[self.origin])
        if self.scale == "none":
            return np.asarray(moved)
        if self.scale == "largest":
            size = np.abs(moved).max()
        else:
            size = np.sqrt((moved * moved).sum(axis=1, dtype=np.float32).max())
        return np.asarray(moved / size) if size > 0 else np.zeros_like(moved)
