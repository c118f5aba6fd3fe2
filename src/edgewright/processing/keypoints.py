"""Steps to keypoints: x, y and a score of each, in pixels of the prepared image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from edgewright.core.tensors import Array
from edgewright.processing.boxes import check_image_size
from edgewright.processing.resize import check_side
from edgewright.processing.step import Floats, Frame, Step, floats
from edgewright.processing.values import ValueType


@dataclass(frozen=True, kw_only=True)
class HeatmapKeypoints(Step):
    """One heatmap a keypoint to the place of its highest value; of equal ones the first, row by row.

    x = (column + 0.5 + shift) * (width / columns), float32. NaN is below everything; a map of NaN alone has score 0.

    Attributes:
        height: of the prepared image, in pixels.
        width: likewise.
        layout: chw is [points, rows, columns], hwc is [rows, columns, points].
        refine: shift by a quarter of a cell to the higher neighbour in x and y, none at the border and between equals.
    """

    name: ClassVar[str] = "heatmap_keypoints"
    height: int
    width: int
    layout: Literal["chw", "hwc"] = "chw"
    refine: bool = False

    def __post_init__(self) -> None:
        check_side(self.name, "height", self.height)
        check_side(self.name, "width", self.width)

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if len(have.shape) != 3 or have.dtype != "float32":
            raise self.refuse(given, "one float32 heatmap a keypoint")
        points = have.shape[0 if self.layout == "chw" else 2]
        return ValueType(kind="keypoints", shape=(points, 3), dtype="float32")

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        maps = floats(values[0])
        if self.layout == "hwc":
            maps = maps.transpose(2, 0, 1)
        points, rows, columns = maps.shape
        flat = np.where(np.isnan(maps), np.float32(-np.inf), maps).reshape(points, -1)
        best = flat.argmax(axis=1)
        score = flat[np.arange(points), best]
        y, x = np.divmod(best, columns)
        shift_x = shift_y = np.zeros(points, dtype=np.float64)
        if self.refine:
            shift_x = _shift(flat.reshape(maps.shape)[np.arange(points), y], x)
            shift_y = _shift(flat.reshape(maps.shape)[np.arange(points), :, x], y)
        made = np.stack(
            [
                (x + 0.5 + shift_x).astype(np.float32) * np.float32(self.width / columns),
                (y + 0.5 + shift_y).astype(np.float32) * np.float32(self.height / rows),
                np.where(np.isfinite(score), score, 0).astype(np.float32),
            ],
            axis=1,
        )
        return np.asarray(made, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Keypoints(Step):
    """Rows of coordinates, perhaps with a score, to keypoints; without a score it is 1.

    Attributes:
        format: of a row: xys, yxs (MoveNet), xy, yx.
        height: of the prepared image, where coordinates are 0..1; 0 where they are in pixels.
        width: likewise.
    """

    name: ClassVar[str] = "keypoints"
    format: Literal["xys", "yxs", "xy", "yx"] = "xys"
    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        check_image_size(self.name, self.height, self.width)

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.dtype != "float32" or len(have.shape) != 2 or have.shape[1] != len(self.format):
            raise self.refuse(given, f"float32 rows [points, {len(self.format)}]")
        return ValueType(kind="keypoints", shape=(have.shape[0], 3), dtype="float32")

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        rows = floats(values[0])
        made = np.ones((len(rows), 3), dtype=np.float32)
        for column, letter in enumerate("xys"):
            if letter in self.format:
                made[:, column] = rows[:, self.format.index(letter)]
        if self.height:
            made[:, 0] *= np.float32(self.width)
            made[:, 1] *= np.float32(self.height)
        return made


def _shift(lines: Floats, at: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return a quarter towards the higher neighbour of `at` in each of `lines` [points, n]."""
    points, last = np.arange(len(lines)), lines.shape[1] - 1
    right, left = lines[points, np.minimum(at + 1, last)], lines[points, np.maximum(at - 1, 0)]
    inside = (at > 0) & (at < last)
    return np.where(inside & (right > left), 0.25, np.where(inside & (left > right), -0.25, 0.0))
