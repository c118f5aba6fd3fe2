"""Calibration: real samples, drawn with a seed, and lints for what makes them doubtful."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from edgewright.core.errors import DataError
from edgewright.core.tensors import Array
from edgewright.data.calibration import choose_calibration, draw
from edgewright.data.datasets import Dataset, digest_of, make_dataset
from edgewright.data.similarity import count_near_duplicates, ks_distance


def _set(array: Array, labels: Array | None = None, name: str = "x") -> Dataset:
    return make_dataset({name: array}, labels, description=f"{len(array)} samples of a test")


@pytest.fixture
def digits() -> Dataset:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return _set((images[order] / 16).reshape(-1, 1, 8, 8).astype(np.float32), labels[order])


def _half(dataset: Dataset, start: int) -> Dataset:
    return dataset.take(np.arange(start, dataset.count, 2), description="half of the digits")


def _codes(
    calibration: Dataset | None, evaluation: Dataset | None, workdir: Path, count: int = 512
) -> list[str]:
    return [
        lint.code
        for lint in choose_calibration(calibration, evaluation, count=count, seed=0, workdir=workdir)[1]
    ]


def test_training_samples_are_written_as_they_are(digits: Dataset, tmp_path: Path) -> None:
    training, evaluation = _half(digits, 0), _half(digits, 1)
    record, lints = choose_calibration(training, evaluation, count=200, seed=3, workdir=tmp_path)
    assert lints == []
    with np.load(record.path, allow_pickle=False) as arrays:
        samples = {name: arrays[name] for name in arrays}
    assert record.count == 200 and samples["x"].shape == (200, 1, 8, 8) and samples["x"].dtype == np.float32
    assert record.sha256 == digest_of(samples, None)
    known = {sample.tobytes() for sample in training.inputs["x"]}
    assert all(sample.tobytes() in known for sample in samples["x"])
    assert "200 samples, seeded (seed 3), of half of the digits" in record.description


def test_the_same_seed_gives_the_same_file(digits: Dataset, tmp_path: Path) -> None:
    files = [
        choose_calibration(digits, None, count=150, seed=seed, workdir=tmp_path / str(turn))[
            0
        ].path.read_bytes()
        for turn, seed in enumerate((1, 1, 2))
    ]
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize("count", [4, 10, 57, 100, 1797, 5000])
def test_classes_are_drawn_in_proportion(count: int) -> None:
    labels = np.repeat([0, 1, 2, 7], [1000, 500, 290, 7])
    chosen = draw(_set(np.arange(1797.0)[:, None], labels), count, seed=5)
    assert len(chosen) == len(set(chosen.tolist())) == min(count, 1797)
    drawn = np.array([(labels[chosen] == k).sum() for k in (0, 1, 2, 7)])
    assert (drawn >= 1).all()
    share = np.array([1000, 500, 290, 7]) * min(count, 1797) / 1797
    assert (np.abs(drawn - share) < 4).all()


def test_more_classes_than_samples_and_float_labels_are_drawn_plainly(rng: np.random.Generator) -> None:
    for labels in (np.arange(50), rng.random(50), rng.random((50, 2)), None):
        chosen = draw(_set(rng.random((50, 3)), labels), 20, seed=1)
        assert len(set(chosen.tolist())) == 20


def test_evaluation_data_serve_with_a_warning(digits: Dataset, tmp_path: Path) -> None:
    record, lints = choose_calibration(None, digits, count=128, seed=0, workdir=tmp_path)
    assert record.count == 128 and [lint.code for lint in lints] == ["calibration-overlap"]
    assert "overlaps the evaluation set (128 of 128 samples)" in lints[0].message and not lints[0].is_severe


def test_overlap_is_found_between_two_files(digits: Dataset, tmp_path: Path) -> None:
    training, evaluation = _half(digits, 0), _half(digits, 1)
    mixed = np.concatenate([training.inputs["x"][:180], evaluation.inputs["x"][:20]])
    _, lints = choose_calibration(_set(mixed), evaluation, count=200, seed=0, workdir=tmp_path)
    assert [lint.code for lint in lints] == ["calibration-overlap"] and "(20 of 200 samples)" in lints[
        0
    ].message


def test_few_constant_and_repeated_samples_are_told(
    digits: Dataset, tmp_path: Path, rng: np.random.Generator
) -> None:
    images = digits.inputs["x"]
    assert _codes(_set(images[:99]), None, tmp_path) == ["calibration-few"]
    assert _codes(_set(images[:100]), None, tmp_path) == []
    repeated = images[np.arange(200) % 100] + rng.normal(0, 1e-4, (200, 1, 8, 8)).astype(np.float32)
    assert _codes(_set(repeated), None, tmp_path) == ["calibration-duplicates"]
    constant = np.repeat(images[:1], 120, axis=0)
    _, lints = choose_calibration(_set(constant), None, seed=0, workdir=tmp_path)
    assert "calibration-constant" in [lint.code for lint in lints if lint.is_severe]


def test_a_constant_side_input_is_no_severe_finding(digits: Dataset, tmp_path: Path) -> None:
    inputs = {"x": digits.inputs["x"], "rate": np.full((digits.count,), 16000)}
    both = make_dataset(inputs, digits.labels, description="two inputs")
    _, lints = choose_calibration(_half(both, 0), _half(both, 1), seed=0, workdir=tmp_path)
    assert [(lint.code, lint.is_severe) for lint in lints] == [("calibration-constant", False)]


def test_noise_of_the_right_mean_and_spread_is_severe(
    digits: Dataset, tmp_path: Path, rng: np.random.Generator
) -> None:
    images = digits.inputs["x"]
    noise = rng.normal(images.mean(), images.std(), (300, 1, 8, 8)).astype(np.float32)
    _, lints = choose_calibration(_set(noise), digits, seed=0, workdir=tmp_path)
    assert {lint.code for lint in lints if lint.is_severe} == {"calibration-range", "calibration-structure"}
    assert all("unlike the evaluation data" in lint.message for lint in lints)


def test_no_data_no_samples_and_other_inputs_are_refused(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs calibration samples"):
        choose_calibration(None, None, seed=0, workdir=tmp_path)
    with pytest.raises(DataError, match="at least 1"):
        choose_calibration(digits, None, count=0, seed=0, workdir=tmp_path)
    for other in (
        _set(digits.inputs["x"], name="y"),
        _set(digits.inputs["x"][:, 0]),
        _set(digits.inputs["x"] > 0),
    ):
        with pytest.raises(DataError, match="differ in input"):
            choose_calibration(other, digits, seed=0, workdir=tmp_path)


def test_ks_distance_by_hand() -> None:
    assert ks_distance(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1.0
    assert ks_distance(np.array([1.0, 3.0]), np.array([2.0, 4.0])) == 0.5
    assert ks_distance(np.array([1.0, 1.0]), np.array([1.0])) == 0.0


def test_near_duplicates_are_counted_over_all_inputs(rng: np.random.Generator) -> None:
    images, rates = rng.random((40, 9, 9)), rng.random((40, 2)) * 1000
    assert count_near_duplicates([images, rates], seed=0) == 0
    images[30:], rates[30:35] = images[:10], rates[:5]
    assert count_near_duplicates([images], seed=0) == 10
    assert count_near_duplicates([images, rates], seed=0) == 5
    assert count_near_duplicates([np.ones((40, 3))], seed=0) == 0
