"""Boxes: joined, decoded, suppressed, and brought back to the source's pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from tests.processing.one_step import run

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.anchors import DecodeAnchors, prior_boxes
from edgewright.processing.boxes import (
    BoxFormat,
    DecodeEndToEnd,
    DecodeSsdOutputs,
    JoinBoxes,
    boxes_type,
    candidates_type,
)
from edgewright.processing.grids import DecodeGrid, DecodeYolo
from edgewright.processing.images import Crop
from edgewright.processing.nms import Nms
from edgewright.processing.resize import Letterbox
from edgewright.processing.source import ToSource
from edgewright.processing.step import Frame, Geometry
from edgewright.processing.values import ValueType

RNG = np.random.default_rng(5)
SCORES = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)


def floats(*rows: tuple[float, ...]) -> Array:
    return np.array(rows, np.float32)


def suppress(step: Nms, candidates: Array, classes: int) -> Array:
    given = candidates_type(len(candidates), classes, keypoints=(candidates.shape[1] - 4 - classes) // 3)
    made = step.apply((candidates,), Frame(given=(given,)))
    assert made.dtype == np.float32 and made.shape[1] == step.result((given,)).shape[1]
    return made


@pytest.mark.parametrize(
    ("form", "box"),
    [("xyxy", (2, 3, 6, 9)), ("yxyx", (3, 2, 9, 6)), ("xywh", (2, 3, 4, 6)), ("cxcywh", (4, 6, 4, 6))],
)
def test_formats_of_boxes(form: BoxFormat, box: tuple[float, ...]) -> None:
    made = run(JoinBoxes(format=form), floats(box, box), SCORES, kind="tensor")
    assert made.tolist() == [[2, 3, 6, 9, *row] for row in SCORES.tolist()]
    unit = floats(box, box) / np.array(
        [10, 20] * 2 if form != "yxyx" else [20, 10] * 2, np.float32
    )  # of 10 x 20
    scaled = run(JoinBoxes(format=form, width=10, height=20, background=True), unit, SCORES, kind="tensor")
    assert scaled == pytest.approx(np.array([[2, 3, 6, 9, row[1]] for row in SCORES]), abs=1e-5)


def test_outputs_of_a_detector_are_sorted_and_bounded() -> None:
    boxes = floats((0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.9, 1.0), (0, 0, 1, 1))
    classes, scores = np.array([3, 1, 0], np.float32), np.array([0.6, 0.9, 0.7], np.float32)
    step = DecodeSsdOutputs(height=100, width=200)
    for count, rows in ((2.0, 2), (99.0, 3), (-5.0, 0), (np.nan, 0), (np.inf, 3)):
        made = run(step, boxes, classes, scores, np.float32(count).reshape(()), kind="tensor")
        assert len(made) == rows
    made = run(step, boxes, classes, scores, kind="tensor")
    assert made[:, 4] == pytest.approx([0.9, 0.7, 0.6]) and made[:, 5].tolist() == [1, 0, 3]
    assert made[0, :4] == pytest.approx([100, 50, 200, 90])
    scores[1] = np.nan
    assert len(run(step, boxes, classes, scores, kind="tensor")) == 2


def test_end_to_end_rows() -> None:
    rows = floats(
        (1, 2, 3, 4, 0.3, 7, 0.5, 0.5, 1), (5, 6, 7, 8, 0.9, 2, 0.1, 0.2, 1), (0, 0, 1, 1, 0.1, 1, 0, 0, 0)
    )
    made = run(DecodeEndToEnd(), rows, kind="tensor")
    assert made.tolist() == rows[[1, 0]].tolist()
    pixels = run(DecodeEndToEnd(width=10, height=100), rows, kind="tensor")
    assert pixels[0] == pytest.approx([50, 600, 70, 800, 0.9, 2, 1, 20, 1])


def test_rows_whose_class_is_none_are_left_out() -> None:
    classes = (0, -1, 1e30, np.nan, -0.5, 2.0**24, 90)
    rows = floats(*((10, 20, 30, 40, 0.9 - 0.1 * n, index) for n, index in enumerate(classes)))
    made = run(DecodeEndToEnd(score=0.1), rows, kind="tensor")
    assert made[:, 5].tolist() == [0, -0.5, 90]
    parts = (rows[:, :4], rows[:, 5], rows[:, 4])
    assert run(DecodeSsdOutputs(score=0.1), *parts, kind="tensor")[:, 5].tolist() == [0, -0.5, 90]


def test_anchors_of_ultraface() -> None:
    # Its own prior boxes: (i + 0.5) / columns, sizes / width, clamped to 0..1.
    step = DecodeAnchors(
        height=240, width=320, strides=(8, 16, 32, 64), clip=True, grid="image",
        sizes=((10, 10, 16, 16, 24, 24), (32, 32, 48, 48), (64, 64, 96, 96), (128, 128, 192, 192, 256, 256)),
    )  # fmt: skip
    anchors = prior_boxes(step)
    assert anchors.shape == (4420, 4) and step.anchor_count() == 4420
    assert anchors[:4].tolist() == [[4, 4, 10, 10], [4, 4, 16, 16], [4, 4, 24, 24], [12, 4, 10, 10]]
    assert anchors[-1].tolist() == [288, 210, 256, 240]


def test_offsets_from_anchors() -> None:
    step = DecodeAnchors(height=8, width=8, strides=(4,), sizes=((2.0, 4.0),))
    offsets = np.zeros((4, 4), np.float32)
    scores = np.ones((4, 2), np.float32)
    made = run(step, offsets, scores, kind="tensor")
    assert made[:, :4].tolist() == [[1, 0, 3, 4], [5, 0, 7, 4], [1, 4, 3, 8], [5, 4, 7, 8]]
    offsets[1] = (1, -1, 5 * np.log(2), 0)
    made = run(step, offsets, scores, kind="tensor")
    assert made[1, :4] == pytest.approx([6.2 - 2, 2 - 0.4 - 2, 6.2 + 2, 2 - 0.4 + 2], abs=1e-5)
    turned = DecodeAnchors(height=8, width=8, strides=(4,), sizes=((2.0, 4.0),), order="cycxhw")
    assert np.array_equal(run(turned, offsets[:, [1, 0, 3, 2]], scores, kind="tensor"), made)
    offsets[2] = (0, 0, 1e30, np.nan)
    assert not np.isfinite(run(step, offsets, scores, kind="tensor")[2, :4]).all()
    assert len(suppress(Nms(), run(step, offsets, scores, kind="tensor"), 2)) == 3
    image = DecodeAnchors(height=10, width=10, strides=(4,), sizes=((2.0, 2.0),), grid="image")
    assert prior_boxes(image)[:3, 0] == pytest.approx([10 / 6, 5, 50 / 6])


def test_a_grid_as_fastestdet_decodes_it() -> None:
    tensor = RNG.standard_normal((5 + 3, 2, 4)).astype(np.float32)
    tensor[[0, 5, 6, 7]] = RNG.uniform(0, 1, (4, 2, 4))
    made = run(
        DecodeGrid(
            height=32, width=64, centre="tanh", size="sigmoid",
            objectness="first", objectness_power=0.6, class_power=0.4,
        ),
        tensor, kind="tensor",
    )  # fmt: skip
    assert made.shape == (8, 7)
    for j in range(2):
        for i in range(4):
            obj, tx, ty, tw, th, *classes = tensor[:, j, i].astype(np.float64)
            cx, cy = (np.tanh(tx) + i) / 4 * 64, (np.tanh(ty) + j) / 2 * 32
            w, h = 64 / (1 + np.exp(-tw)), 32 / (1 + np.exp(-th))
            want = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, *(obj**0.6 * np.array(classes) ** 0.4)]
            assert made[j * 4 + i] == pytest.approx(want, abs=2e-5)


def test_rows_of_several_grids_as_yolox_decodes_them() -> None:
    rows = RNG.standard_normal((4 * 4 + 2 * 2, 5 + 2)).astype(np.float32)
    step = DecodeGrid(height=32, width=32, layout="rows", strides=(8, 16), activation="sigmoid")
    made = run(step, rows, kind="tensor")
    for n, (stride, i, j) in enumerate(
        [(s, i, j) for s in (8, 16) for j in range(32 // s) for i in range(32 // s)]
    ):
        tx, ty, tw, th = rows[n, :4].astype(np.float64)
        cx, cy, w, h = (tx + i) * stride, (ty + j) * stride, np.exp(tw) * stride, np.exp(th) * stride
        score = 1 / (1 + np.exp(-rows[n, 4])) / (1 + np.exp(-rows[n, 5:].astype(np.float64)))
        assert made[n] == pytest.approx([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, *score], rel=1e-4)


def test_heads_of_yolo() -> None:
    v5 = floats((50, 60, 20, 10, 0.5, 0.2, 0.8))
    assert run(DecodeYolo(head="v5", layout="rows"), v5, kind="tensor")[0] == pytest.approx(
        [40, 55, 60, 65, 0.1, 0.4]
    )
    v8 = floats((0.5, 0.6, 0.2, 0.1, 0.3, 0.7, 0.25, 0.5, 0.9)).T
    made = run(DecodeYolo(keypoints=1, height=100, width=200), np.ascontiguousarray(v8), kind="tensor")
    assert made[0] == pytest.approx([80, 55, 120, 65, 0.3, 0.7, 50, 50, 0.9])


def iou(a: Array, b: Array) -> float:
    sides = np.maximum(np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1]))


def random_candidates(count: int, classes: int) -> Array:
    corner, side = RNG.uniform(0, 80, (count, 2)), RNG.uniform(5, 40, (count, 2))
    return np.hstack([corner, corner + side, RNG.uniform(0, 1, (count, classes))]).astype(np.float32)


@pytest.mark.parametrize("per_class", [True, False])
def test_hard_suppression_is_greedy(per_class: bool) -> None:
    candidates = random_candidates(120, 3)
    made = suppress(Nms(iou=0.4, score=0.3, per_class=per_class, limit=1000), candidates, 3)
    assert 10 < len(made) < 120 and (np.diff(made[:, 4]) <= 0).all()
    kept = {tuple(row[:4]) for row in made.tolist()}
    for row in candidates:
        label, score = int(row[4:].argmax()), row[4:].max()
        covers = [b for b in made if iou(b, row) > 0.4 and b[4] >= score and (b[5] == label or not per_class)]
        is_kept = tuple(row[:4].tolist()) in kept
        assert is_kept == (
            score >= 0.3 and all(tuple(b[:4].tolist()) == tuple(row[:4].tolist()) for b in covers)
        )


def test_soft_suppression_lowers_scores() -> None:
    candidates = floats((0, 0, 10, 10, 0.9), (0, 0, 10, 8, 0.8), (50, 50, 60, 60, 0.7))
    linear = suppress(Nms(mode="linear", iou=0.5, score=0.1), candidates, 1)
    assert linear[:, 4] == pytest.approx([0.9, 0.7, 0.8 * 0.2])
    gaussian = suppress(Nms(mode="gaussian", sigma=0.5, score=0.1), candidates, 1)
    assert gaussian[:, 4] == pytest.approx([0.9, 0.7, 0.8 * np.exp(-(0.8**2) / 0.5)])
    assert len(suppress(Nms(mode="linear", iou=0.5, score=0.2), candidates, 1)) == 2
    assert len(suppress(Nms(mode="hard"), candidates, 1)) == 2


def test_equal_scores_keep_their_order() -> None:
    candidates = floats((0, 0, 1, 1, 0.5, 0.5), (5, 5, 6, 6, 0.5, 0.5), (9, 9, 10, 10, 0.5, 0.5))
    assert suppress(Nms(), candidates, 2)[:, [0, 5]].tolist() == [[0, 0], [5, 0], [9, 0]]
    several = suppress(Nms(multi_label=True), candidates, 2)
    assert several[:, [0, 5]].tolist() == [[0, 0], [0, 1], [5, 0], [5, 1], [9, 0], [9, 1]]


def test_hostile_candidates() -> None:
    bad = floats(
        (0, 0, 10, 10, np.nan), (0, 0, np.inf, 10, 0.9), (np.nan, 0, 10, 10, 0.9),
        (10, 10, 0, 0, 0.9), (0, 0, 0, 9, 0.9), (0, 0, 10, 10, -np.inf),
    )  # fmt: skip
    for mode in ("hard", "linear", "gaussian"):
        step = Nms(mode=mode)  # type: ignore[arg-type]
        assert suppress(step, bad, 1).shape == (0, 6)
        assert suppress(step, np.zeros((0, 5), np.float32), 1).shape == (0, 6)
        assert len(suppress(step, np.vstack([bad, floats((1, 1, 2, 2, 0.5))]), 1)) == 1
        with np.errstate(all="ignore"):  # as the processor does around every step
            huge = floats(
                (-3e38, -3e38, 3e38, 3e38, 0.9), (-3e38, 0, 3e38, 3e38, 0.8), (0, 0, 1e-30, 1e-30, 0.7)
            )
            # An area beyond float32, or below it, overlaps nothing.
            assert len(suppress(step, np.vstack([huge, huge]), 1)) == 6
    infinite = suppress(Nms(), floats((0, 0, 1, 1, np.inf), (4, 4, 5, 5, 0.5)), 1)
    assert infinite[:, 0].tolist() == [4]
    points = floats((0, 0, 1, 1, 0.9, 2, 2, np.nan), (4, 4, 5, 5, 0.5, 4, 4, 0))
    assert suppress(Nms(), points, 1)[:, 0].tolist() == [4]
    assert suppress(Nms(), floats((0, 0, 1, 1, np.inf, 0.5)), 2)[:, 4:].tolist() == [[0.5, 1]]


def test_many_candidates_are_bounded() -> None:
    count = 200_000
    x = np.arange(count, dtype=np.float32)
    candidates = np.stack([x * 2, x * 0, x * 2 + 1, x * 0 + 1, RNG.uniform(0.5, 1, count)], axis=1)
    made = suppress(Nms(before=500, limit=1000), candidates.astype(np.float32), 1)
    assert len(made) == 500
    assert made[:, 4].tolist() == np.sort(candidates[:, 4].astype(np.float32))[::-1][:500].tolist()
    assert len(suppress(Nms(limit=7), candidates.astype(np.float32), 1)) == 7


def test_boxes_and_points_go_back_to_the_source() -> None:
    letterbox = Letterbox(height=100, width=100)
    place = letterbox.move(Geometry(source_height=400, source_width=200, height=400, width=200))
    rows = floats(
        (25, 0, 75, 100, 0.9, 1, 50, 50, 0.8), (0, 0, 20, 100, 0.8, 0, 1, 1, 0), (10, -50, 60, 10, 0.7, 0, 25, 0, 1)
    )  # fmt: skip
    made = ToSource().apply((rows,), Frame(given=(boxes_type(keypoints=1),), geometries={"image": place}))
    assert made[0] == pytest.approx([0, 0, 200, 400, 0.9, 1, 100, 200, 0.8])
    # The second lies in the border, the third is clipped.
    assert made.shape == (2, 9) and made[1] == pytest.approx([0, 0, 140, 40, 0.7, 0, 0, 0, 1], abs=1e-5)
    keypoints = ValueType(kind="keypoints", shape=(1, 3), dtype="float32")
    frame = Frame(given=(keypoints,), geometries={"image": place})
    assert ToSource(image="image").apply((floats((75, 25, 0.5)),), frame).tolist() == [[200, 100, 0.5]]


def test_a_mask_goes_back_to_the_source() -> None:
    crop = Crop(height=40, width=40)
    place = crop.move(Geometry(source_height=60, source_width=80, height=60, width=80))
    mask = np.kron(np.array([[1, 2], [3, 4]], np.uint8), np.ones((5, 5), np.uint8))
    given = ValueType(kind="mask", shape=(10, 10), dtype="uint8")
    made = ToSource(fill=9).apply((mask,), Frame(given=(given,), geometries={"image": place}))
    want = np.full((60, 80), 9, np.uint8)
    want[10:50, 20:60] = np.kron(np.array([[1, 2], [3, 4]], np.uint8), np.ones((20, 20), np.uint8))
    assert np.array_equal(made, want)


@pytest.mark.parametrize(
    ("step", "shapes", "says"),
    [
        (JoinBoxes(), ((5, 4), (4, 2)), "scores"),
        (JoinBoxes(), ((5, 3), (5, 2)), "boxes"),
        (JoinBoxes(background=True), ((5, 4), (5, 1)), "one class"),
        (DecodeSsdOutputs(), ((5, 4), (5,), (4,)), "classes"),
        (DecodeEndToEnd(), ((5, 7),), "keypoints"),
        (DecodeAnchors(height=8, width=8, strides=(4,), sizes=((1.0, 1.0),)), ((5, 4), (5, 2)), "4 anchors"),
        (DecodeGrid(height=8, width=8), ((5, 2, 2),), "one class"),
        (DecodeGrid(height=8, width=8, layout="rows", strides=(4,)), ((5, 9),), "4 cells"),
        (DecodeYolo(), ((4, 100),), "one class"),
        (DecodeYolo(), ((84, 1 << 21),), "candidates"),
        (Nms(), ((5, 9),), "candidates"),
        (ToSource(), ((5, 9),), "boxes"),
    ],
)
def test_tensors_of_another_shape_are_refused(
    step: JoinBoxes, shapes: tuple[tuple[int, ...]], says: str
) -> None:
    given = tuple(ValueType(kind="tensor", shape=shape, dtype="float32") for shape in shapes)
    with pytest.raises(UsageError, match=says):
        step.result(given)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Nms(iou=1.5), "iou"),
        (lambda: Nms(limit=0), "limit"),
        (lambda: Nms(before=10**6), "before"),
        (lambda: Nms(sigma=0), "sigma"),
        (lambda: JoinBoxes(height=5), "width 0"),
        (lambda: DecodeAnchors(height=8, width=8, strides=(4, 8), sizes=((1.0, 1.0),)), "2 strides"),
        (lambda: DecodeAnchors(height=8, width=8, strides=(4,), sizes=((1.0,),)), "pairs"),
        (lambda: DecodeAnchors(height=16384, width=16384, strides=(1,), sizes=((1.0, 1.0),)), "anchors"),
        (lambda: DecodeGrid(height=8, width=8, strides=(4,)), "strides"),
        (lambda: DecodeGrid(height=8, width=8, class_power=0), "powers"),
        (lambda: DecodeYolo(head="v5", keypoints=3), "keypoints"),
        (lambda: ToSource(fill=300), "fill"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(make: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()  # type: ignore[operator]


def test_scores_fall_by_every_taken_box() -> None:
    """Gaussian suppression never makes a later score larger than an earlier one."""
    made = suppress(Nms(mode="gaussian", score=0.01, limit=1000), random_candidates(60, 1), 1)
    assert all(a >= b for a, b in pairwise(made[:, 4].tolist()))


@pytest.mark.parametrize("seed", range(5))
def test_suppression_is_opencvs(seed: int) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    rng = np.random.default_rng(seed)
    corner, side = rng.integers(0, 80, (200, 2)), rng.integers(5, 40, (200, 2))
    scores = (rng.permutation(200).astype(np.float32) + 0.5) / 200
    candidates = np.hstack([corner, corner + side, scores[:, None]]).astype(np.float32)
    kept = cv2.dnn.NMSBoxes(np.hstack([corner, side]).tolist(), scores.tolist(), 0.3, 0.45)
    made = suppress(Nms(iou=0.45, score=0.3, limit=1000), candidates, 1)
    assert made[:, :5].tolist() == candidates[np.ravel(kept)].tolist()
