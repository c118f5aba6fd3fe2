"""Masks and keypoints from scores."""

from __future__ import annotations

import numpy as np
import pytest
from tests.processing.one_step import run

from edgewright.core.errors import UsageError
from edgewright.processing.keypoints import HeatmapKeypoints, Keypoints
from edgewright.processing.masks import Argmax, Mask
from edgewright.processing.values import ValueType

RNG = np.random.default_rng(9)


def test_argmax_takes_the_best_and_the_lower_of_equals() -> None:
    scores = RNG.standard_normal((4, 5, 6)).astype(np.float32)
    assert np.array_equal(run(Argmax(), scores, kind="tensor"), scores.argmax(axis=2))
    assert np.array_equal(run(Argmax(axis="first"), scores, kind="tensor"), scores.argmax(axis=0))
    scores[0, 0] = 1
    scores[1, 1, 3] = np.nan
    made = run(Argmax(), scores, kind="tensor")
    assert made.dtype == np.uint8 and made[0, 0] == 0
    assert made[1, 1] == np.nan_to_num(scores[1, 1], nan=-9).argmax()
    many = run(Argmax(), RNG.standard_normal((2, 2, 300)).astype(np.float32), kind="tensor")
    assert many.dtype == np.int32


def test_a_mask_of_indices_or_of_one_score() -> None:
    assert run(Mask(), np.array([[-3, 4], [300, 0]]), kind="tensor").tolist() == [[0, 4], [255, 0]]
    scores = np.array([[0.2, 0.5], [np.nan, 0.9]], np.float32)
    for shaped in (scores, scores[..., None], scores[None]):
        assert run(Mask(), shaped, kind="tensor").tolist() == [[0, 1], [0, 1]]
    with pytest.raises(UsageError, match="one channel"):
        Mask().result((ValueType(kind="tensor", shape=(4, 4, 3), dtype="float32"),))


def test_heatmaps_give_the_place_of_their_peak() -> None:
    maps = np.zeros((3, 4, 8), np.float32)
    maps[0, 2, 5] = 0.7
    maps[0, 2, 6], maps[0, 1, 5] = 0.3, 0.1
    maps[1, 0, 0] = 0.4
    maps[2] = np.nan
    plain = run(HeatmapKeypoints(height=40, width=160), maps, kind="tensor")
    assert plain.tolist() == [[110, 25, pytest.approx(0.7)], [10, 5, pytest.approx(0.4)], [10, 5, 0]]
    fine = run(HeatmapKeypoints(height=40, width=160, refine=True), maps, kind="tensor")
    assert fine[:, :2].tolist() == [[115, 22.5], [10, 5], [10, 5]]
    turned = np.ascontiguousarray(maps.transpose(1, 2, 0))
    assert np.array_equal(
        run(HeatmapKeypoints(height=40, width=160, layout="hwc"), turned, kind="tensor"), plain
    )


def test_rows_of_coordinates() -> None:
    rows = np.array([[0.25, 0.5, 0.9]], np.float32)
    assert run(Keypoints(format="yxs", height=100, width=200), rows, kind="tensor")[0] == pytest.approx(
        [100, 25, 0.9]
    )
    assert run(Keypoints(format="xy"), rows[:, :2], kind="tensor").tolist() == [[0.25, 0.5, 1]]
    with pytest.raises(UsageError, match="rows"):
        Keypoints(format="xy").result((ValueType(kind="tensor", shape=(4, 3), dtype="float32"),))
