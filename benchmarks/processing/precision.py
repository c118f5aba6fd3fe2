"""Average precision of boxes, as PASCAL VOC and COCO compute it at one IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.core.tensors import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """A box that is there: x0, y0, x1, y1 in pixels."""

    label: int
    box: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A box that a detector gives."""

    image: str
    label: int
    score: float
    box: Array


def read_truth(image: Path, shape: tuple[int, ...]) -> list[Truth]:
    """Return the boxes beside `image`, in YOLO's format: class, centre and size as shares of the image.

    An image without a file shows nothing.
    """
    file = image.parents[1] / "labels" / f"{image.stem}.txt"
    height, width = shape[:2]
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    boxes = []
    for label, *numbers in map(str.split, lines):
        cx, cy, w, h = (float(number) for number in numbers)
        corners = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
        boxes.append(Truth(label=int(label), box=np.array(corners)))
    return boxes


def iou(a: Array, b: Array) -> float:
    """Return intersection over union of two boxes."""
    one, other = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    sides = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0.0)
    shared = float(sides[0] * sides[1])
    areas = sum(float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def average_precision(
    found: Sequence[Found], truth: Mapping[str, Sequence[Truth]], *, least: float = 0.5
) -> float:
    """Return the area under precision over recall, made monotonic, the mean of all classes that are there.

    Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010, section 4.2 (all points).
    """
    labels = sorted({box.label for boxes in truth.values() for box in boxes})
    return float(np.mean([_of_class(label, found, truth, least) for label in labels]))


def _of_class(
    label: int, found: Sequence[Found], truth: Mapping[str, Sequence[Truth]], least: float
) -> float:
    there = {image: [box for box in boxes if box.label == label] for image, boxes in truth.items()}
    taken = {image: [False] * len(boxes) for image, boxes in there.items()}
    total = sum(map(len, there.values()))
    hits = []
    for box in sorted((b for b in found if b.label == label), key=lambda b: -b.score):
        overlaps = [iou(box.box, other.box) for other in there[box.image]]
        best = int(np.argmax(overlaps)) if overlaps else -1
        is_hit = best >= 0 and overlaps[best] >= least and not taken[box.image][best]
        if is_hit:
            taken[box.image][best] = True
        hits.append(is_hit)
    if not hits:
        return 0.0
    right = np.cumsum(hits)
    recall = np.concatenate([[0.0], right / total])
    precision = np.concatenate([[1.0], right / np.arange(1, len(hits) + 1)])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * precision[1:]))
