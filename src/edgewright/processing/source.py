"""Bring results back to the pixels of the source image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import DataError, UsageError
from edgewright.core.tensors import Array
from edgewright.processing.step import Floats, Frame, Geometry, Step, floats
from edgewright.processing.values import MAX_SIDE, ValueType


@dataclass(frozen=True, kw_only=True)
class ToSource(Step):
    """Boxes, keypoints or a mask in the prepared image to those in the source image.

    Coordinates, in float32: (x - offset) * (1 / scale), with the geometry's offset and reciprocal scale computed in
    float64 and rounded. Boxes are clipped to the image; those of which nothing is left are left out.
    A mask becomes as large as the source: the pixel (i, j) takes the mask's column
    floor(((i + 0.5) * scale_x + offset_x) * (columns / width)), in float64, with `width` of the prepared image; `fill`
    where that is outside.

    Attributes:
        image: name of the input; empty for the only one.
        fill: class of what the prepared image does not show.
    """

    name: ClassVar[str] = "to_source"
    image: str = ""
    fill: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fill <= 255:
            raise UsageError(f"step 'to_source' has fill {self.fill}; 0..255 is expected.")

    def geometry_of(self) -> str:
        return self.image

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind == "mask":
            return have.of(None, None)
        if have.kind not in ("boxes", "keypoints", "landmarks"):
            raise self.refuse(given, "boxes, keypoints, landmarks or a mask")
        return have

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        geometry = frame.geometry(self.image)
        if frame.given[0].kind == "mask":
            return self._mask(values[0], geometry)
        rows = floats(values[0]).copy()
        if frame.given[0].kind != "boxes":
            return _moved(rows, geometry)
        rows[:, 0:2], rows[:, 2:4] = _moved(rows[:, 0:2], geometry), _moved(rows[:, 2:4], geometry)
        for point in range(6, rows.shape[1], 3):
            rows[:, point : point + 2] = _moved(rows[:, point : point + 2], geometry)
        size = np.array([geometry.source_width, geometry.source_height] * 2, dtype=np.float32)
        rows[:, :4] = np.clip(rows[:, :4], np.float32(0), size)
        return rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]

    def _mask(self, mask: Array, geometry: Geometry) -> Array:
        if max(geometry.source_height, geometry.source_width) > MAX_SIDE:
            raise DataError(
                f"the source image has {geometry.source_width}x{geometry.source_height} pixels; "
                f"a side of {MAX_SIDE} at most is expected for a mask."
            )
        rows, columns = mask.shape
        y = _places(geometry.source_height, geometry.scale_y, geometry.offset_y, rows / geometry.height)
        x = _places(geometry.source_width, geometry.scale_x, geometry.offset_x, columns / geometry.width)
        outside_y, outside_x = (y < 0) | (y >= rows), (x < 0) | (x >= columns)
        made: Array = mask[np.clip(y, 0, rows - 1)][:, np.clip(x, 0, columns - 1)]
        made[outside_y] = self.fill
        made[:, outside_x] = self.fill
        return made


def _moved(points: Floats, geometry: Geometry) -> Floats:
    """Return `points` [n, 2 or more] with x and y in source pixels."""
    made = points.copy()
    for column, offset, scale in (
        (0, geometry.offset_x, geometry.scale_x), (1, geometry.offset_y, geometry.scale_y),
    ):  # fmt: skip
        made[:, column] = (points[:, column] - np.float32(offset)) * np.float32(1.0 / scale)
    return made


def _places(size: int, scale: float, offset: float, ratio: float) -> npt.NDArray[np.int64]:
    """Return the mask's row or column for each of the source's, int64 [size]."""
    places: npt.NDArray[np.int64] = np.floor(((np.arange(size) + 0.5) * scale + offset) * ratio).astype(
        np.int64
    )
    return places
