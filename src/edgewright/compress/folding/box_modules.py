"""Decoding of boxes and non-maximum suppression as operators of the graph, with sizes that are known.

Only operators that every runtime has: no loop, no sort, no number of rows that shows when it runs. A value here has no
batch axis.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from edgewright.compress.folding.places import Placed
from edgewright.compress.folding.rules import compared
from edgewright.processing.anchors import DecodeAnchors, prior_boxes
from edgewright.processing.boxes import BoxFormat, JoinBoxes
from edgewright.processing.grids import DecodeGrid, DecodeYolo
from edgewright.processing.nms import Nms
from edgewright.processing.step import Step
from edgewright.processing.values import ValueType

Operator = Callable[..., torch.Tensor]

_MAX_EXPONENT = 20.0
_LARGEST = torch.finfo(torch.float32).max
# Boxes are compared in units of 1024 pixels: a power of two changes no bit of the comparison, and an area stays within
# half precision, in which some accelerators compute.
_UNIT = 1 / 1024


def decoder(step: Step, given: tuple[ValueType, ...]) -> Operator:
    """Return the operators of a step that makes candidates [n, 4 + classes + 3 keypoints] or boxes of them."""
    if isinstance(step, JoinBoxes):
        return _join_boxes(step)
    if isinstance(step, DecodeAnchors):
        return _decode_anchors(step)
    if isinstance(step, DecodeGrid):
        return _decode_grid(step, given[0])
    if isinstance(step, DecodeYolo):
        return _decode_yolo(step)
    assert isinstance(step, Nms)
    return _nms(step, given[0])


def placed_boxes(step: Placed, given: ValueType) -> Operator:
    """Return the operators that bring rows of boxes [n, 6 + 3 keypoints] back to the pixels that the model takes."""
    offsets, factors = (torch.from_numpy(array) for array in step.columns(given.shape[1] or 0))
    return lambda rows: (rows - offsets) * factors


def empty_score(score: float) -> float:
    """Return the score of rows that hold no box: 0, or less where `score`, the least that is kept, is not above 0."""
    return 0.0 if score > 0 else 2 * score - 1


def _join_boxes(step: JoinBoxes) -> Operator:
    corners = _corners(step.format, height=step.height, width=step.width)
    first = int(step.background)

    def join(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.cat([corners(boxes), scores[:, first:]], dim=1)

    return join


def _decode_anchors(step: DecodeAnchors) -> Operator:
    anchors = torch.from_numpy(prior_boxes(step).copy())
    places, sizes = anchors[:, :2].clone(), anchors[:, 2:].clone()
    first = int(step.background)

    def decode(offsets: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if step.order == "cycxhw":
            offsets = torch.cat([offsets[:, i : i + 1] for i in (1, 0, 3, 2)], dim=1)
        centre = offsets[:, :2] * step.centre_variance * sizes + places
        exponent = (offsets[:, 2:] * step.size_variance).clamp(max=_MAX_EXPONENT)
        half = torch.exp(exponent) * sizes * 0.5
        return torch.cat([centre - half, centre + half, scores[:, first:]], dim=1)

    return decode


def _decode_grid(step: DecodeGrid, given: ValueType) -> Operator:
    cells, pitch = (torch.from_numpy(array) for array in step.cells(step.grids(given.shape)))
    image = torch.tensor([step.width, step.height], dtype=torch.float32)
    start = 1 if step.objectness == "first" else 0
    channels = given.shape[0 if step.layout == "chw" else -1]
    assert channels is not None
    centres: dict[str, Operator] = {"linear": _same, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
    activate: Operator = torch.sigmoid if step.activation == "sigmoid" else _same

    def decode(tensor: torch.Tensor) -> torch.Tensor:
        rows = (tensor.permute(1, 2, 0) if step.layout == "chw" else tensor).reshape(-1, channels)
        box, scores = rows[:, start : start + 4], rows[:, 4 if step.objectness == "none" else 5 :]
        centre = (centres[step.centre](box[:, :2]) + cells) * pitch
        if step.size == "exp":
            size = torch.exp(box[:, 2:].clamp(max=_MAX_EXPONENT)) * pitch
        else:
            size = torch.sigmoid(box[:, 2:]) * image
        half = size * 0.5
        scores = _power(activate(scores), step.class_power)
        if step.objectness != "none":
            column = 0 if start else 4
            scores = _power(activate(rows[:, column : column + 1]), step.objectness_power) * scores
        return torch.cat([centre - half, centre + half, scores], dim=1)

    return decode


def _decode_yolo(step: DecodeYolo) -> Operator:
    corners = _corners("cxcywh", height=step.height, width=step.width)
    factors = torch.tensor([step.width, step.height, 1] * step.keypoints, dtype=torch.float32)

    def decode(tensor: torch.Tensor) -> torch.Tensor:
        rows = tensor if step.layout == "rows" else tensor.permute(1, 0)
        boxes = corners(rows[:, :4])
        if step.head == "v5":
            return torch.cat([boxes, rows[:, 4:5] * rows[:, 5:]], dim=1)
        if not (step.keypoints and step.height):
            return torch.cat([boxes, rows[:, 4:]], dim=1)
        first = -3 * step.keypoints
        return torch.cat([boxes, rows[:, 4:first], rows[:, first:] * factors], dim=1)

    return decode


def _corners(form: BoxFormat, *, height: int, width: int) -> Operator:
    """Return the operators of `processing.boxes.to_corners`: boxes [n, 4] -> x0, y0, x1, y1."""
    # A tensor that is made while the graph runs would be copied by operators that not every runtime has.
    size = torch.tensor([width, height, width, height], dtype=torch.float32)

    def corners(boxes: torch.Tensor) -> torch.Tensor:
        if form == "yxyx":
            made = torch.cat([boxes[:, i : i + 1] for i in (1, 0, 3, 2)], dim=1)
        elif form == "xywh":
            made = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
        elif form == "cxcywh":
            half = boxes[:, 2:] * 0.5
            made = torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], dim=1)
        else:
            made = boxes
        return made * size if height else made

    return corners


def _nms(step: Nms, given: ValueType) -> Operator:
    """Return hard suppression: candidates -> rows [limit, 6 + 3 keypoints], unused ones with `empty_score`.

    The same boxes in the same order as the reference: each candidate gets its rank, a whole number that no other has,
    and what is left of the best rank is picked, `limit` times.
    """
    classes, before = given.classes, compared(step, given)
    assert classes is not None
    limit = min(step.limit, before)
    least, iou = float(np.float32(step.score)), float(np.float32(step.iou))
    empty = empty_score(least)
    columns = (given.shape[1] or 0) - classes + 2
    order = torch.arange(given.shape[0] or 0, 0, -1, dtype=torch.float32)
    nothing = torch.zeros(1, columns)
    nothing[0, 4] = empty

    def suppress(candidates: torch.Tensor) -> torch.Tensor:
        table, best = _best_classes(candidates, classes, least, empty)
        places = _best_places(best, before, order)
        table = table.index_select(0, places)
        best = table[:, 4]
        # What compares false, NaN included, is out.
        is_candidate = (best >= least).to(torch.float32)
        place = places.to(torch.float32)
        is_earlier = (best[:, None] == best[None, :]) & (place[None, :] < place[:, None])
        rank = ((best[None, :] > best[:, None]) | is_earlier).to(torch.float32).sum(dim=1)
        is_removed = _overlaps(table[:, :4] * _UNIT, iou)
        if step.per_class and classes > 1:
            is_removed = is_removed & (table[:, 5:6] == table[:, 5][None, :])
        is_removed = is_removed | (rank[:, None] == rank[None, :])  # a box that is taken is taken once
        stays = 1 - is_removed.to(torch.float32)
        left = ((before - rank) * is_candidate)[None, :]  # the best has the most, what is out 0
        picks, heights = [], []
        for _ in range(limit):
            pick = left.argmax(dim=1)
            heights.append(left.amax(dim=1, keepdim=True))
            picks.append(pick)
            left = left * stays.index_select(0, pick)
        rows = table.index_select(0, torch.cat(picks))
        return torch.where(torch.cat(heights) > 0, rows, nothing)

    return suppress


def _best_classes(
    candidates: torch.Tensor, classes: int, least: float, empty: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows [n, 6 + 3 keypoints] and their scores [n], `empty` where a candidate does not take part."""
    boxes, rest = candidates[:, :4], candidates[:, 4 + classes :]
    scores = candidates[:, 4 : 4 + classes]
    scores = torch.where(scores >= least, scores, empty)
    best = scores.amax(dim=1, keepdim=True)
    label = scores.argmax(dim=1, keepdim=True).to(torch.float32) if classes > 1 else torch.zeros_like(best)
    is_finite = (boxes.abs() <= _LARGEST).to(torch.float32).amin(dim=1, keepdim=True) > 0
    is_usable = is_finite & (boxes[:, 2:3] > boxes[:, 0:1]) & (boxes[:, 3:4] > boxes[:, 1:2])
    best = torch.where(is_usable, best, empty)
    return torch.cat([boxes, best, label, rest], dim=1), best.reshape(-1)


def _best_places(best: torch.Tensor, count: int, order: torch.Tensor) -> torch.Tensor:
    """Return where the `count` largest of `best` [n] are, in any order; of equal ones the earlier.

    Runtimes do not agree on which of equal values a top-k takes, so a second one gets keys, of which only those of
    values that are in anyway are equal. `order` [n] is largest for the first.
    """
    total = best.shape[0]
    # Not its values: LiteRT has no operator for a top-k of which the values alone are read.
    places = torch.topk(best, count).indices
    if count == total:
        return places
    least = best.index_select(0, places[count - 1 :])
    tied = torch.where(best == least, order, 0.0)
    return torch.topk(torch.where(best > least, 2.0 * total, tied), count).indices


def _overlaps(boxes: torch.Tensor, iou: float) -> torch.Tensor:
    """Return for each pair of boxes whether intersection > iou * union, [n, n]."""
    x0, y0, x1, y1 = (boxes[:, i : i + 1] for i in range(4))
    area = (x1 - x0) * (y1 - y0)
    across = torch.minimum(x1, x1.T) - torch.maximum(x0, x0.T)
    down = torch.minimum(y1, y1.T) - torch.maximum(y0, y0.T)
    shared = across.clamp(min=0) * down.clamp(min=0)
    return shared > iou * ((area + area.T) - shared)


def _power(tensor: torch.Tensor, power: float) -> torch.Tensor:
    return tensor if power == 1 else tensor.clamp(min=0) ** power


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
