"""Decode boxes that a model gives relative to anchors: SSD, UltraFace, RetinaFace."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.boxes import MAX_CANDIDATES, candidates_type, require_boxes_and_scores
from edgewright.processing.resize import check_side
from edgewright.processing.step import Floats, Frame, Step, floats
from edgewright.processing.values import ValueType

_MAX_EXPONENT = 20.0


@dataclass(frozen=True, kw_only=True)
class DecodeAnchors(Step):
    """Offsets [n, 4] from anchors and scores [n, classes], in this order, to candidates.

    Anchors go level by level, row by row, column by column, size by size. A level has ceil(height / stride) rows and
    ceil(width / stride) columns. With an anchor's centre (ax, ay) and size (aw, ah) in pixels, all in float32:

        cx = tx * centre_variance * aw + ax        w = exp(min(tw * size_variance, 20)) * aw
        x0 = cx - w * 0.5                          x1 = cx + w * 0.5          and likewise for y

    Source: Liu et al., "SSD: Single Shot MultiBox Detector", 2016, section 2.2.

    Attributes:
        height: of the prepared image, in pixels.
        width: likewise.
        strides: of each level, in pixels.
        sizes: of each level: width and height of each of its anchors in pixels, one pair after the other.
        grid: where the centres lie: stride is (i + 0.5) * stride, image is (i + 0.5) * width / columns.
        clip: keep the anchors' centres and sizes inside the image (UltraFace).
        order: of an offset: cxcywh, or cycxhw (TensorFlow's SSD).
        centre_variance: 0.1 for most.
        size_variance: 0.2 for most.
        background: whether the first score is of no class and is left out.
    """

    name: ClassVar[str] = "decode_anchors"
    count: ClassVar[tuple[int, int]] = (2, 2)
    height: int
    width: int
    strides: tuple[int, ...]
    sizes: tuple[tuple[float, ...], ...]
    grid: Literal["stride", "image"] = "stride"
    clip: bool = False
    order: Literal["cxcywh", "cycxhw"] = "cxcywh"
    centre_variance: float = 0.1
    size_variance: float = 0.2
    background: bool = False

    def __post_init__(self) -> None:
        check_side(self.name, "height", self.height)
        check_side(self.name, "width", self.width)
        if not self.strides or len(self.strides) != len(self.sizes) or len(self.strides) > 16:
            raise UsageError(
                f"step 'decode_anchors' has {len(self.strides)} strides and {len(self.sizes)} lists of sizes; "
                "one of each for every level, 1..16 levels, are expected."
            )
        for stride, sizes in zip(self.strides, self.sizes, strict=True):
            if stride < 1 or not sizes or len(sizes) % 2 or min(sizes) <= 0:
                raise UsageError(
                    f"step 'decode_anchors' has stride {stride} with sizes {list(sizes)}; a stride of 1 pixel at least "
                    "and pairs of width and height above 0 are expected."
                )
        if self.anchor_count() > MAX_CANDIDATES:
            raise UsageError(
                f"step 'decode_anchors' makes {self.anchor_count()} anchors; at most {MAX_CANDIDATES}."
            )

    def anchor_count(self) -> int:
        """Return the number of anchors of all levels."""
        return sum(
            -(-self.height // stride) * -(-self.width // stride) * (len(sizes) // 2)
            for stride, sizes in zip(self.strides, self.sizes, strict=True)
        )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        rows, classes = require_boxes_and_scores(self, given, background=self.background)
        if rows != self.anchor_count():
            raise self.refuse(given, f"a row for each of the {self.anchor_count()} anchors")
        return candidates_type(rows, classes)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        offsets, scores = floats(values[0]), floats(values[1])
        if self.order == "cycxhw":
            offsets = offsets[:, [1, 0, 3, 2]]
        anchors = prior_boxes(self)
        centre = offsets[:, :2] * np.float32(self.centre_variance) * anchors[:, 2:] + anchors[:, :2]
        exponent = np.minimum(offsets[:, 2:] * np.float32(self.size_variance), np.float32(_MAX_EXPONENT))
        half = np.exp(exponent) * anchors[:, 2:] * np.float32(0.5)
        return np.concatenate([centre - half, centre + half, scores[:, int(self.background) :]], axis=1)


@lru_cache(maxsize=16)
def prior_boxes(step: DecodeAnchors) -> Floats:
    """Return centre x, centre y, width and height of each anchor in pixels, float32 [n, 4]; computed in float64."""
    levels = []
    for stride, sizes in zip(step.strides, step.sizes, strict=True):
        rows, columns = -(-step.height // stride), -(-step.width // stride)
        pitch_x, pitch_y = (
            (stride, stride) if step.grid == "stride" else (step.width / columns, step.height / rows)
        )
        pairs = np.array(sizes, dtype=np.float64).reshape(-1, 2)
        level = np.empty((rows, columns, len(pairs), 4))
        level[..., 0] = ((np.arange(columns) + 0.5) * pitch_x)[None, :, None]
        level[..., 1] = ((np.arange(rows) + 0.5) * pitch_y)[:, None, None]
        level[..., 2:] = pairs
        levels.append(level.reshape(-1, 4))
    made = np.concatenate(levels)
    if step.clip:
        made = np.minimum(made, [step.width, step.height, step.width, step.height])
    return made.astype(np.float32)
