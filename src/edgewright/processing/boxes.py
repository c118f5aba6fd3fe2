"""Steps from a model's tensors to boxes where the tensors hold boxes already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.step import Floats, Frame, Step, floats
from edgewright.processing.values import MAX_SIDE, ValueType

BoxFormat = Literal["xyxy", "yxyx", "xywh", "cxcywh"]
MAX_CANDIDATES = 1 << 20
_MOST_CLASSES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class JoinBoxes(Step):
    """Boxes [n, 4] and scores [n, classes], in this order, to candidates.

    Attributes:
        format: of a row: xyxy and yxyx are corners, xywh is a corner and a size, cxcywh the centre and a size.
        background: whether the first score is of no class and is left out.
        height: of the prepared image, where coordinates are 0..1; 0 where they are in pixels.
        width: likewise.
    """

    name: ClassVar[str] = "join_boxes"
    count: ClassVar[tuple[int, int]] = (2, 2)
    format: BoxFormat = "xyxy"
    background: bool = False
    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        check_image_size(self.name, self.height, self.width)

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        count, classes = require_boxes_and_scores(self, given, background=self.background)
        return candidates_type(count, classes)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        boxes = to_corners(floats(values[0]), self.format, height=self.height, width=self.width)
        scores = floats(values[1])[:, 1 if self.background else 0 :]
        return np.concatenate([boxes, scores], axis=1)


@dataclass(frozen=True, kw_only=True)
class DecodeSsdOutputs(Step):
    """The outputs of a detector with its post-processing inside, to boxes.

    It takes boxes [n, 4], classes [n], scores [n] and a count, in this order. The first `count` rows are taken (all
    where there is no count), those with a score of `score` at least are kept, the best first; of equal scores the
    earlier row first. A count beyond n is n; NaN is 0. A row whose class is below 0 or no number is left out.

    Attributes:
        score: the least that is kept.
        format: of a row of the boxes.
        height: of the prepared image, where coordinates are 0..1; 0 where they are in pixels.
        width: likewise.
    """

    name: ClassVar[str] = "decode_ssd_outputs"
    count: ClassVar[tuple[int, int]] = (3, 4)
    score: float = 0.5
    format: BoxFormat = "yxyx"
    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        check_image_size(self.name, self.height, self.width)

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        boxes, classes, scores = given[:3]
        rows = boxes.shape[0] if boxes.shape else None
        fits = boxes.dtype == "float32" and len(boxes.shape) == 2 and boxes.shape[1] == 4
        fits &= all(v.dtype == "float32" and v.shape == (rows,) for v in (classes, scores))
        fits &= all(v.dtype == "float32" and v.shape in ((), (1,)) for v in given[3:])
        if not fits:
            raise self.refuse(given, "boxes [n, 4], classes [n], scores [n] and a count, float32,")
        return boxes_type()

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        boxes = to_corners(floats(values[0]), self.format, height=self.height, width=self.width)
        rows = np.concatenate([boxes, floats(values[2])[:, None], floats(values[1])[:, None]], axis=1)
        if len(values) == 4:
            count = float(np.nan_to_num(values[3].reshape(()), nan=0.0))
            rows = rows[: int(min(max(count, 0.0), len(rows)))]
        return best_first(rows, self.score)


@dataclass(frozen=True, kw_only=True)
class DecodeEndToEnd(Step):
    """Rows [n, 6 + 3 keypoints] of a detector that needs no suppression (YOLOv10, YOLO26, RT-DETR) to boxes.

    A row is a box, a score, the index of a class, and x, y, score of each keypoint. Those with a score of `score` at
    least are kept, the best first.

    Attributes:
        score: the least that is kept.
        format: of the box.
        height: of the prepared image, where coordinates are 0..1; 0 where they are in pixels.
        width: likewise.
    """

    name: ClassVar[str] = "decode_end_to_end"
    score: float = 0.25
    format: BoxFormat = "xyxy"
    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        check_image_size(self.name, self.height, self.width)

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        columns = have.shape[1] if len(have.shape) == 2 else None
        if have.dtype != "float32" or columns is None or columns < 6 or columns % 3:
            raise self.refuse(given, "float32 rows [n, 6 + 3 keypoints]")
        return boxes_type(keypoints=columns // 3 - 2)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        rows = floats(values[0]).copy()
        rows[:, :4] = to_corners(rows[:, :4], self.format, height=self.height, width=self.width)
        if self.height:
            rows[:, 6::3] *= np.float32(self.width)
            rows[:, 7::3] *= np.float32(self.height)
        return best_first(rows, self.score)


def candidates_type(count: int | None, classes: int, *, keypoints: int = 0) -> ValueType:
    """Return the type of `count` candidates."""
    return ValueType(
        kind="candidates", shape=(count, 4 + classes + 3 * keypoints), dtype="float32", classes=classes
    )


def boxes_type(*, classes: int | None = None, keypoints: int = 0) -> ValueType:
    """Return the type of boxes of `classes` classes (None where the model does not tell); their number shows later."""
    return ValueType(kind="boxes", shape=(None, 6 + 3 * keypoints), dtype="float32", classes=classes)


def require_boxes_and_scores(
    step: Step, given: tuple[ValueType, ...], *, background: bool
) -> tuple[int | None, int]:
    """Return (rows, classes without the background) of boxes [n, 4] and scores [n, classes].

    Raises:
        UsageError: they are something else.
    """
    boxes, scores = given
    fits = boxes.dtype == scores.dtype == "float32" and len(boxes.shape) == len(scores.shape) == 2
    if not fits or boxes.shape[1] != 4 or boxes.shape[0] != scores.shape[0] or scores.shape[1] is None:
        raise step.refuse(given, "boxes [n, 4] and scores [n, classes], float32,")
    classes = scores.shape[1] - int(background)
    if classes < 1:
        raise step.refuse(given, "a score for one class at least besides the background")
    if (boxes.shape[0] or 0) > MAX_CANDIDATES:
        raise step.refuse(given, f"up to {MAX_CANDIDATES} boxes")
    return boxes.shape[0], classes


def to_corners(boxes: Floats, form: BoxFormat, *, height: int, width: int) -> Floats:
    """Return x0, y0, x1, y1 of `boxes` [n, 4], in float32; multiplied by the size last, where it is not 0.

    cxcywh: half = w * 0.5, x0 = cx - half, x1 = cx + half. xywh: x1 = x + w.
    """
    a, b, c, d = (boxes[:, i] for i in range(4))
    if form == "yxyx":
        a, b, c, d = b, a, d, c
    elif form == "xywh":
        c, d = a + c, b + d
    elif form == "cxcywh":
        half_x, half_y = c * np.float32(0.5), d * np.float32(0.5)
        a, b, c, d = a - half_x, b - half_y, a + half_x, b + half_y
    made = np.stack([a, b, c, d], axis=1)
    if height:
        made *= np.array([width, height, width, height], dtype=np.float32)
    return made


def best_first(rows: Floats, score: float) -> Array:
    """Return the rows [n, 6 ...] with a score of `score` at least, finite numbers and an index of a class, best first.

    An index is above -1 and below 2**24, up to which float32 counts; what an app casts to an integer is then one.
    """
    label = rows[:, 5]
    kept = (rows[:, 4] >= np.float32(score)) & np.isfinite(rows).all(axis=1)
    kept &= (label > -1) & (label < _MOST_CLASSES)
    rows = rows[kept]
    return rows[np.argsort(-rows[:, 4], kind="stable")]


def check_image_size(step: str, height: int, width: int) -> None:
    """Raise UsageError where these are no sides of an image and not both 0."""
    if (height or width) and not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise UsageError(
            f"step {step!r} has height {height} and width {width}; both 0, or 1..{MAX_SIDE}, are expected."
        )
