"""Steps on series, landmarks, and the scores of a stream."""

from __future__ import annotations

import numpy as np
import pytest
from tests.processing.one_step import run, runs

from edgewright.core.errors import DataError, UsageError
from edgewright.processing.landmarks import Relative
from edgewright.processing.series import SeriesWindow, Standardise
from edgewright.processing.smoothing import Smooth, Threshold
from edgewright.processing.step import Step
from edgewright.processing.values import ValueType


def one_by_one(step: Step, scores: list[float]) -> list[float]:
    return [
        float(made[0]) for made in runs(step, [[np.array([s], np.float32)] for s in scores], kind="tensor")
    ]


def test_windows_of_a_series() -> None:
    series = np.arange(14, dtype=np.float32).reshape(7, 2)
    made = run(SeriesWindow(length=3, hop=2), series, kind="series")
    assert made.tolist() == [series[n : n + 3].tolist() for n in (0, 2, 4)]


def test_a_series_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(DataError, match="fit_length"):
        run(SeriesWindow(length=8, hop=1), np.zeros((7, 2), np.float32), kind="series")


def test_each_channel_is_standardised_over_time(rng: np.random.Generator) -> None:
    series = (rng.standard_normal((50, 3)) * [1, 10, 0.1] + [5, 0, -2]).astype(np.float32)
    made = run(Standardise(), series, kind="series")
    assert made == pytest.approx((series - series.mean(axis=0)) / series.std(axis=0), abs=1e-5)
    made = run(Standardise(over="all"), series, kind="series")
    assert made == pytest.approx((series - series.mean()) / series.std(), abs=1e-5)
    stacked = np.stack([series, 2 * series])
    assert run(Standardise(), stacked, kind="tensor")[1] == pytest.approx(
        run(Standardise(), series, kind="series"), abs=1e-5
    )


def test_a_series_is_standardised_by_numbers_that_are_given() -> None:
    made = run(Standardise(mean=(1.0, 2.0), std=(2.0, 4.0)), np.array([[3, 10]], np.float32), kind="series")
    assert made.tolist() == [[1, 2]]


def test_a_channel_that_stands_still_is_0() -> None:
    assert run(Standardise(), np.full((4, 1), 7, np.float32), kind="series").tolist() == [[0]] * 4


@pytest.mark.parametrize(
    "options", [{"mean": (1.0,)}, {"mean": (1.0,), "std": (0.0,)}, {"epsilon": 0.0}, {"std": (1.0,)}]
)
def test_deviations_out_of_range_are_refused(options: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(UsageError, match="standardise"):
        Standardise(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="2 channels"):
        run(Standardise(mean=(1.0, 1.0), std=(1.0, 1.0)), np.zeros((4, 3), np.float32), kind="series")


def test_landmarks_do_not_depend_on_place_and_size(rng: np.random.Generator) -> None:
    hand = rng.uniform(0, 1, (21, 2)).astype(np.float32)
    made = run(Relative(), hand, kind="landmarks")
    assert made[0].tolist() == [0, 0] and np.abs(made).max() == 1
    moved = (hand * 640 + [100, 50]).astype(np.float32)
    assert run(Relative(), moved, kind="landmarks") == pytest.approx(made, abs=1e-5)


def test_landmarks_around_their_mean_and_by_distance() -> None:
    points = np.array([[0, 0, 9], [6, 0, 9], [0, 8, 9], [6, 8, 9]], np.int32)
    made = run(Relative(origin=-1, coordinates=2, scale="distance"), points, kind="landmarks")
    assert made == pytest.approx(np.array([[-0.6, -0.8], [0.6, -0.8], [-0.6, 0.8], [0.6, 0.8]]))
    assert run(Relative(origin=1, scale="none"), points, kind="landmarks")[2].tolist() == [-6, 8, 0]


def test_landmarks_in_one_place_are_0() -> None:
    assert not run(Relative(), np.full((5, 2), 3, np.float32), kind="landmarks").any()


def test_an_origin_that_is_no_point_is_refused() -> None:
    for step, shape in ((Relative(origin=5), (5, 2)), (Relative(coordinates=3), (5, 2))):
        with pytest.raises(UsageError, match="relative"):
            step.result((ValueType(kind="landmarks", shape=shape, dtype="float32"),))
    with pytest.raises(UsageError, match="-2"):
        Relative(origin=-2)


def test_scores_are_smoothed_over_runs() -> None:
    assert one_by_one(Smooth(runs=3), [3, 0, 6, 0, 0]) == pytest.approx([3, 1.5, 3, 2, 2])
    assert one_by_one(Smooth(), [3, 0, 6]) == [3, 0, 6]


def test_a_high_mean_is_held() -> None:
    assert one_by_one(Smooth(hold=3), [-5, 1, 0, 0, 0, 2, -1]) == [-5, 1, 1, 1, 0, 2, 2]
    assert one_by_one(Smooth(runs=2, hold=2), [0, 4, 0, 0, 0]) == [0, 2, 2, 2, 0]


def test_a_detection_needs_runs_to_begin_and_to_end() -> None:
    scores = [0.6, 0.2, 0.6, 0.7, 0.4, 0.2, 0.4, 0.2, 0.2, 0.9]
    assert one_by_one(Threshold(on=0.5), scores) == [1, 0, 1, 1, 0, 0, 0, 0, 0, 1]
    step = Threshold(on=0.5, off=0.3, min_runs=2, off_runs=2)
    assert one_by_one(step, scores) == [0, 0, 0, 1, 1, 1, 1, 1, 0, 0]


def test_each_class_has_its_own_memory() -> None:
    rows = [[np.array(row, np.float32)] for row in ([1, 0], [1, 1], [0, 1])]
    assert [made.tolist() for made in runs(Threshold(min_runs=2), rows, kind="tensor")] == [
        [0, 0],
        [1, 0],
        [0, 1],
    ]


@pytest.mark.parametrize("options", [{"on": 0.2, "off": 0.5}, {"min_runs": 0}, {"off_runs": 1 << 20}])
def test_thresholds_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="threshold"):
        Threshold(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="smooth"):
        Smooth(runs=0)
