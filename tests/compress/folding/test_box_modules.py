"""Boxes that are decoded and suppressed in the graph: the same as of the reference, to the bit where it is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.compress.folding.rules import why_not
from edgewright.core.tensors import Array
from edgewright.processing.anchors import DecodeAnchors
from edgewright.processing.boxes import JoinBoxes, candidates_type
from edgewright.processing.grids import DecodeGrid, DecodeYolo
from edgewright.processing.nms import Nms
from edgewright.processing.step import Frame, Step
from edgewright.processing.values import ValueType

torch = pytest.importorskip("torch")


def both(step: Step, *values: Array, classes: int | None = None) -> tuple[Array, Array]:
    """Return what the reference and the graph's operators make of `values`."""
    from edgewright.compress.folding.box_modules import decoder

    given = tuple(
        candidates_type(len(value), classes, keypoints=(value.shape[1] - 4 - classes) // 3)
        if classes
        else ValueType(kind="tensor", shape=value.shape, dtype="float32")
        for value in values
    )
    step.result(given)
    assert not why_not(step, given)
    with np.errstate(invalid="ignore", over="ignore"):
        want = step.apply(values, Frame(given=given))
    return want, decoder(step, given)(*(torch.from_numpy(value) for value in values)).numpy()


def taken(rows: Array, score: float) -> Array:
    """Return the rows that hold a box."""
    return rows[rows[:, 4] >= np.float32(score)]


@st.composite
def suppressions(draw: st.DrawFn) -> tuple[Nms, Array, int]:
    """Candidates on a coarse grid with few scores: many boxes touch, and many scores are equal."""
    classes, keypoints = draw(st.integers(1, 3)), draw(st.integers(0, 1))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 40))
    corner = generator.integers(0, 24, size=(count, 2)).astype(np.float32)
    size = generator.integers(-1, 16, size=(count, 2)).astype(np.float32)
    scores = generator.integers(-2, 9, size=(count, classes)).astype(np.float32) / 8
    scores[generator.random(scores.shape) < 0.05] = np.nan
    corner[generator.random(corner.shape) < 0.03] = draw(st.sampled_from((np.nan, np.inf, -np.inf)))
    points = generator.random((count, 3 * keypoints)).astype(np.float32)
    step = Nms(
        iou=draw(st.sampled_from((0.0, 0.25, 0.5, 0.45, 1.0))),
        score=draw(st.sampled_from((-1.0, 0.0, 0.25, 0.5))),
        per_class=draw(st.booleans()),
        limit=draw(st.sampled_from((1, 5, 100))),
        before=draw(st.sampled_from((1, 7, 1000))),
    )
    return step, np.concatenate([corner, corner + size, scores, points], axis=1), classes


@settings(max_examples=60, deadline=None)
@given(suppressions())
def test_suppression_keeps_the_same_boxes_in_the_same_order(drawn: tuple[Nms, Array, int]) -> None:
    step, candidates, classes = drawn
    want, rows = both(step, candidates, classes=classes)
    assert len(rows) == min(step.limit, step.before, len(candidates))
    np.testing.assert_array_equal(taken(rows, step.score), want)
    assert np.isfinite(rows[len(want) :]).all()  # the rest holds no box, and nothing that upsets a comparison


def test_equal_scores_beyond_what_takes_part_are_decided_by_their_order() -> None:
    candidates = np.zeros((50, 5), dtype=np.float32)
    candidates[:, 0] = 10 * np.arange(50)
    candidates[:, 2:4] = candidates[:, :2] + 5
    candidates[:, 4] = 0.5
    candidates[40:, 4] = 0.75
    want, rows = both(Nms(before=12, limit=20), candidates, classes=1)
    assert want[:, 0].tolist() == [*range(400, 500, 10), 0, 10]
    np.testing.assert_array_equal(rows, want)


def test_a_million_pixels_do_not_overflow_half_precision() -> None:
    from edgewright.compress.folding.box_modules import _overlaps

    boxes = torch.tensor([[0.0, 0, 1000, 1000], [100, 0, 1000, 1000], [900, 900, 1900, 1900]])
    half = _overlaps((boxes / 1024).half(), 0.5)
    assert half.tolist() == [[True, True, False], [True, True, False], [False, False, True]]


@pytest.mark.parametrize("form", ["xyxy", "yxyx", "xywh", "cxcywh"])
@pytest.mark.parametrize("size", [0, 320])
def test_boxes_are_joined_to_the_bit(form: str, size: int) -> None:
    generator = np.random.default_rng(1)
    boxes = generator.random((9, 4)).astype(np.float32)
    scores = generator.random((9, 3)).astype(np.float32)
    step = JoinBoxes(format=form, background=True, height=size // 2, width=size)  # type: ignore[arg-type]
    np.testing.assert_array_equal(*both(step, boxes, scores))


DECODERS: tuple[tuple[Step, tuple[tuple[int, ...], ...]], ...] = (
    (
        DecodeAnchors(height=16, width=24, strides=(8, 16), sizes=((4, 6, 8, 8), (12, 12))),
        ((14, 4), (14, 2)),
    ),
    (
        DecodeAnchors(
            height=16, width=24, strides=(8,), sizes=((4, 6),), order="cycxhw", background=True,
            clip=True, grid="image",
        ),
        ((6, 4), (6, 3)),
    ),
    (DecodeGrid(height=32, width=64), ((7, 4, 8),)),
    (
        DecodeGrid(
            height=32, width=32, layout="hwc", centre="tanh", size="sigmoid", objectness="first",
            objectness_power=0.6, class_power=0.4,
        ),
        ((4, 4, 8),),
    ),
    (
        DecodeGrid(
            height=32, width=32, layout="rows", strides=(8, 16), centre="sigmoid", objectness="none",
            activation="sigmoid",
        ),
        ((20, 6),),
    ),
    (DecodeYolo(head="v5", layout="rows"), ((12, 8),)),
    (DecodeYolo(head="v8", layout="columns", keypoints=2, height=64, width=32), ((12, 9),)),
)  # fmt: skip


@pytest.mark.parametrize(("step", "shapes"), DECODERS)
def test_boxes_are_decoded_within_rounding(step: Step, shapes: tuple[tuple[int, ...], ...]) -> None:
    generator = np.random.default_rng(2)
    values = [generator.standard_normal(shape).astype(np.float32) * 3 for shape in shapes]
    want, got = both(step, *values)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize(
    ("step", "count", "why"),
    [
        (Nms(mode="linear"), 10, "mode is 'linear'"),
        (Nms(multi_label=True), 10, "multi_label"),
        (Nms(before=5000), 4000, "4000 candidates take part"),
        (Nms(limit=1000), 2000, "up to 1000 boxes"),
        (Nms(score=-1e38), 10, "score"),
        (Nms(), None, "a size is open"),
    ],
)
def test_what_the_graph_does_not_carry_is_told(step: Nms, count: int | None, why: str) -> None:
    assert why in why_not(step, (candidates_type(count, 2),))
    assert not why_not(Nms(), (candidates_type(4420, 2),))
