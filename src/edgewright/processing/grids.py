"""Decode boxes of detectors without anchors: one box a cell of a grid, and the heads of YOLO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.boxes import MAX_CANDIDATES, candidates_type, check_image_size, to_corners
from edgewright.processing.resize import check_side
from edgewright.processing.step import Floats, Frame, Step, floats
from edgewright.processing.values import ValueType

_MAX_EXPONENT = 20.0


@dataclass(frozen=True, kw_only=True)
class DecodeGrid(Step):
    """One box for each cell of a grid, or of several, to candidates: FastestDet, YOLOX.

    With (i, j) the column and row of a cell, `pitch` its width in pixels and t a raw value, all in float32:

        cx = (centre(tx) + i) * pitch        w = sigmoid(tw) * image width, or exp(min(tw, 20)) * pitch
        score of a class = objectness ** objectness_power * class ** class_power

    and the powers are computed in float64. A channel's order is x, y, w, h, objectness, classes; or with the
    objectness first, or without it.

    Attributes:
        height: of the prepared image, in pixels.
        width: likewise.
        layout: chw and hwc are one grid; rows is [n, channels], the cells of all `strides` after one another.
        strides: of the grids in rows, in pixels; a grid has ceil(height / stride) rows.
        centre: linear, sigmoid or tanh, of the offset in a cell.
        size: sigmoid (of the image) or exp (of the cell).
        objectness: where its channel is: first, after_box, none.
        activation: of objectness and classes: none where the model has it, or sigmoid.
        objectness_power: 1 for most, 0.6 for FastestDet.
        class_power: 1 for most, 0.4 for FastestDet.
    """

    name: ClassVar[str] = "decode_grid"
    height: int
    width: int
    layout: Literal["chw", "hwc", "rows"] = "chw"
    strides: tuple[int, ...] = ()
    centre: Literal["linear", "sigmoid", "tanh"] = "linear"
    size: Literal["sigmoid", "exp"] = "exp"
    objectness: Literal["first", "after_box", "none"] = "after_box"
    activation: Literal["none", "sigmoid"] = "none"
    objectness_power: float = 1.0
    class_power: float = 1.0

    def __post_init__(self) -> None:
        check_side(self.name, "height", self.height)
        check_side(self.name, "width", self.width)
        if (self.layout == "rows") != bool(self.strides) or any(stride < 1 for stride in self.strides):
            raise UsageError(
                f"step 'decode_grid' has layout {self.layout!r} and strides {list(self.strides)}; "
                "strides above 0 with rows, none with one grid, are expected."
            )
        if not (0 < self.objectness_power <= 16 and 0 < self.class_power <= 16):
            raise UsageError(
                f"step 'decode_grid' has powers {self.objectness_power} and {self.class_power}; "
                "above 0 up to 16 is expected."
            )

    def grids(self, shape: tuple[int | None, ...]) -> tuple[tuple[int, int], ...]:
        """Return (rows, columns) of each grid of a tensor of this shape."""
        if self.layout == "rows":
            return tuple((-(-self.height // s), -(-self.width // s)) for s in self.strides)
        rows, columns = shape[1:] if self.layout == "chw" else shape[:2]
        return ((rows or 0, columns or 0),)

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        rank = 2 if self.layout == "rows" else 3
        if have.dtype != "float32" or len(have.shape) != rank or None in have.shape:
            raise self.refuse(given, f"a float32 tensor of {rank} axes and known shape")
        channels = have.shape[0 if self.layout == "chw" else -1]
        classes = (channels or 0) - (4 if self.objectness == "none" else 5)
        if classes < 1:
            raise self.refuse(given, "channels for a box, its objectness and one class at least")
        cells = sum(rows * columns for rows, columns in self.grids(have.shape))
        if not 1 <= cells <= MAX_CANDIDATES or (self.layout == "rows" and cells != have.shape[0]):
            raise self.refuse(given, f"a row for each of {cells} cells, up to {MAX_CANDIDATES},")
        return candidates_type(cells, classes)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        tensor = floats(values[0])
        grids = self.grids(tensor.shape)
        if self.layout == "chw":
            tensor = tensor.transpose(1, 2, 0)
        rows = tensor.reshape(-1, tensor.shape[-1])
        start = 1 if self.objectness == "first" else 0
        box, scores = rows[:, start : start + 4], rows[:, 4 if self.objectness == "none" else 5 :]
        cells, pitch = self.cells(grids)
        centre = (_CENTRES[self.centre](box[:, :2]) + cells) * pitch
        if self.size == "exp":
            size = np.exp(np.minimum(box[:, 2:], np.float32(_MAX_EXPONENT))) * pitch
        else:
            size = sigmoid(box[:, 2:]) * np.array([self.width, self.height], dtype=np.float32)
        half = size * np.float32(0.5)
        if self.activation == "sigmoid":
            scores = sigmoid(scores)
        scores = _power(scores, self.class_power)
        if self.objectness != "none":
            object_score = rows[:, 0 if start else 4][:, None]
            if self.activation == "sigmoid":
                object_score = sigmoid(object_score)
            scores = _power(object_score, self.objectness_power) * scores
        return np.concatenate([centre - half, centre + half, scores], axis=1)

    def cells(self, grids: tuple[tuple[int, int], ...]) -> tuple[Floats, Floats]:
        """Return column and row of each cell, and its width and height in pixels, both float32 [n, 2]."""
        cells, pitches = [], []
        for number, (rows, columns) in enumerate(grids):
            j, i = np.divmod(np.arange(rows * columns), columns)
            cells.append(np.stack([i, j], axis=1))
            pitch = (
                (self.strides[number],) * 2 if self.strides else (self.width / columns, self.height / rows)
            )
            pitches.append(np.broadcast_to(np.array(pitch, dtype=np.float64), (rows * columns, 2)))
        return np.concatenate(cells).astype(np.float32), np.concatenate(pitches).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class DecodeYolo(Step):
    """The decoded output of an exported YOLO to candidates; coordinates are the centre and a size.

    v5 (also v3, v7): a row is x, y, w, h, objectness, classes; score = objectness * class, in float32.
    v8 (also v9, v11, v12): x, y, w, h, classes, and x, y, score of each keypoint.
    YOLOv10 and YOLO26 need no suppression: "decode_end_to_end".

    Attributes:
        head: v5 or v8.
        layout: columns is [channels, n] (v8 as it is exported), rows is [n, channels] (v5).
        keypoints: of each box; v8 only.
        height: of the prepared image, where coordinates are 0..1 (TFLite exports); 0 where they are in pixels.
        width: likewise.
    """

    name: ClassVar[str] = "decode_yolo"
    head: Literal["v5", "v8"] = "v8"
    layout: Literal["rows", "columns"] = "columns"
    keypoints: int = 0
    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        check_image_size(self.name, self.height, self.width)
        if not 0 <= self.keypoints <= 1000 or (self.keypoints and self.head != "v8"):
            raise UsageError(
                f"step 'decode_yolo' has keypoints {self.keypoints} with head {self.head!r}; "
                "0..1000 with v8, 0 with v5, is expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.dtype != "float32" or len(have.shape) != 2:
            raise self.refuse(given, "float32 rows or columns of candidates")
        count, channels = have.shape if self.layout == "rows" else have.shape[::-1]
        classes = (channels or 0) - (5 if self.head == "v5" else 4) - 3 * self.keypoints
        if classes < 1 or (count or 0) > MAX_CANDIDATES:
            raise self.refuse(
                given, f"one class at least beside the box and up to {MAX_CANDIDATES} candidates"
            )
        return candidates_type(count, classes, keypoints=self.keypoints)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        rows = floats(values[0]) if self.layout == "rows" else floats(values[0]).T
        boxes = to_corners(rows[:, :4], "cxcywh", height=self.height, width=self.width)
        if self.head == "v5":
            return np.concatenate([boxes, rows[:, 4:5] * rows[:, 5:]], axis=1)
        rest = rows[:, 4:].copy()
        if self.keypoints and self.height:
            first = rest.shape[1] - 3 * self.keypoints
            rest[:, first::3] *= np.float32(self.width)
            rest[:, first + 1 :: 3] *= np.float32(self.height)
        return np.concatenate([boxes, rest], axis=1)


def sigmoid(array: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)) in float32, without overflow."""
    raised = np.exp(-np.abs(array))
    return np.where(array >= 0, 1 / (1 + raised), raised / (1 + raised)).astype(np.float32)


def _linear(array: Floats) -> Floats:
    return array


def _tanh(array: Floats) -> Floats:
    return np.tanh(array)


_CENTRES = {"linear": _linear, "sigmoid": sigmoid, "tanh": _tanh}


def _power(array: Floats, power: float) -> Floats:
    """Return max(array, 0) ** power: what is below 0 is no probability. NaN stays."""
    if power == 1:
        return array
    raised: Floats = np.power(np.maximum(array, 0), power, dtype=np.float64).astype(np.float32)
    return raised
