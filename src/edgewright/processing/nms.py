"""Non-maximum suppression: from candidates to boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.boxes import boxes_type
from edgewright.processing.step import Floats, Frame, Step, floats
from edgewright.processing.values import ValueType

MAX_BEFORE = 30_000
MAX_LIMIT = 10_000


@dataclass(frozen=True, kw_only=True)
class Nms(Step):
    """Keep the best of the candidates that overlap, the best first.

    1. Each candidate has its best class (of equal scores the lower index), or with `multi_label` each of its classes;
       a score that is below `score` or not finite, a corner or a keypoint that is not finite, and a box without area,
       are left out.
    2. The `before` best take part, in the order of their scores; of equal ones the earlier candidate, then the lower
       class, first.
    3. The best that is left is taken, up to `limit`. Those left (of the same class, with `per_class`) that overlap it
       are removed (hard), or their scores reduced, and removed where they fall below `score`.

    Two boxes overlap where intersection > iou * union, in float32; union = (area + other area) - intersection.
    A score is reduced by the factor 1 - intersection / union where they overlap (linear), or by
    exp(-(intersection / union)**2 / sigma) for every box (gaussian), the exponential in float64. Where intersection /
    union is no number, because an area is beyond float32, it is 0.
    Source: Bodla et al., "Soft-NMS", 2017.

    Attributes:
        iou: intersection over union from which two boxes are one.
        score: the least that is kept.
        mode: hard, linear or gaussian.
        per_class: boxes of different classes do not touch one another.
        limit: of the boxes that are kept.
        before: how many candidates take part.
        multi_label: a candidate may be several classes.
        sigma: of the Gaussian.
    """

    name: ClassVar[str] = "nms"
    iou: float = 0.5
    score: float = 0.25
    mode: Literal["hard", "linear", "gaussian"] = "hard"
    per_class: bool = True
    limit: int = 100
    before: int = 1000
    multi_label: bool = False
    sigma: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.iou <= 1 or self.sigma <= 0:
            raise UsageError(
                f"step 'nms' has iou {self.iou} and sigma {self.sigma}; 0..1 and above 0 are expected."
            )
        if not 1 <= self.limit <= MAX_LIMIT or not 1 <= self.before <= MAX_BEFORE:
            raise UsageError(
                f"step 'nms' has limit {self.limit} and before {self.before}; "
                f"1..{MAX_LIMIT} and 1..{MAX_BEFORE} are expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind != "candidates":
            raise self.refuse(given, "candidates")
        return boxes_type(classes=have.classes, keypoints=_keypoints(have))

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        classes = frame.given[0].classes
        assert classes is not None
        candidates = floats(values[0])
        rows, labels, scores = self._select(candidates, candidates[:, 4 : 4 + classes])
        boxes = candidates[rows, :4]
        kept, scores = self._suppress(boxes, labels, scores)
        return np.concatenate(
            [
                boxes[kept],
                scores[kept, None],
                labels[kept, None].astype(np.float32),
                candidates[rows[kept], 4 + classes :],
            ],
            axis=1,
        )

    def _select(
        self, candidates: Floats, scores: Floats
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
        """Return (row, class, score) of what takes part, the best first."""
        corners, points = candidates[:, :4], candidates[:, 4 + scores.shape[1] :]
        usable = np.isfinite(corners).all(axis=1) & np.isfinite(points).all(axis=1)
        usable &= (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
        scores = np.where(np.isfinite(scores), scores, np.float32(-np.inf))
        if self.multi_label:
            rows, labels = np.nonzero((scores >= np.float32(self.score)) & usable[:, None])
        else:
            best = scores.argmax(axis=1)
            rows = np.flatnonzero((scores[np.arange(len(scores)), best] >= np.float32(self.score)) & usable)
            labels = best[rows]
        found = scores[rows, labels]
        order = np.argsort(-found, kind="stable")[: self.before]
        return rows[order], labels[order], found[order]

    def _suppress(
        self, boxes: Floats, labels: npt.NDArray[np.int64], scores: Floats
    ) -> tuple[list[int], Floats]:
        """Return the indices that are kept, in the order in which they are taken, and all scores as they are then."""
        scores = scores.copy()
        left = np.ones(len(boxes), dtype=bool)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        kept: list[int] = []
        while len(kept) < self.limit and left.any():
            best = (
                int(np.where(left, scores, -np.inf).argmax()) if self.mode != "hard" else int(left.argmax())
            )
            kept.append(best)
            left[best] = False
            among = left & (labels == labels[best]) if self.per_class else left
            others = np.flatnonzero(among)
            low = np.maximum(boxes[others, :2], boxes[best, :2])
            high = np.minimum(boxes[others, 2:], boxes[best, 2:])
            sides = np.maximum(high - low, np.float32(0))
            shared = sides[:, 0] * sides[:, 1]
            union = (areas[others] + areas[best]) - shared
            over = shared > np.float32(self.iou) * union
            if self.mode == "hard":
                left[others[over]] = False
                continue
            share = np.nan_to_num(shared / union, nan=0.0)
            if self.mode == "linear":
                factor = np.where(over, np.float32(1) - share, np.float32(1))
            else:
                factor = np.exp(-(share.astype(np.float64) ** 2) / self.sigma).astype(np.float32)
            scores[others] *= factor
            left[others[scores[others] < np.float32(self.score)]] = False
        return kept, scores


def _keypoints(candidates: ValueType) -> int:
    columns = candidates.shape[1]
    assert columns is not None and candidates.classes is not None
    return (columns - 4 - candidates.classes) // 3
