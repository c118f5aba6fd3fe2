"""The likeness check on real data: silent on halves of one data set, loud on what is not that data.

The full count of 200 trials is in the slow test; the quick one runs fewer of the same.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_digits

from edgewright.core.tensors import TensorSpec
from edgewright.data.datasets import load_dataset
from edgewright.data.images import read_image
from edgewright.data.similarity import compare

Floats = npt.NDArray[np.float32]
SETS = ("digits", "fashion", "mfcc", "motions", "hand", "photographs")


def _series(path: Path) -> Floats:
    """Return [n, 6, 100] of a .ts file: after @data a line per series, channels between colons."""
    lines = path.read_text().split("@data\n")[1].splitlines()
    return np.array(
        [
            [[float(value) for value in channel.split(",")] for channel in line.split(":")[:-1]]
            for line in lines
        ],
        dtype=np.float32,
    )


@pytest.fixture(scope="module")
def real(assets: Path) -> dict[str, Floats]:
    data = assets / "data"
    gray = [TensorSpec(name="x", shape=(None, 1, 28, 28), dtype="float32")]
    mfcc = sorted(data.glob("speech-commands-mfcc-int8/**/*.bin"))
    motions = [_series(data / "basic-motions" / f"BasicMotions_{part}.ts") for part in ("TRAIN", "TEST")]
    with (data / "hand-gesture" / "keypoint.csv").open() as stream:
        rows = np.array([[float(value) for value in row] for row in csv.reader(stream)], dtype=np.float32)
    photographs = []
    files = [
        *data.glob("coral-images/*.bmp"),
        *data.glob("coral-images/*.jpg"),
        *data.glob("coco-mini/**/*.jpg"),
    ]
    for file in sorted(files):
        if "mask" not in file.name:
            pixels = read_image(file, height=128, width=128, channels=3)
            tiles = pixels.reshape(4, 32, 4, 32, 3).transpose(0, 2, 4, 1, 3).reshape(16, 3, 32, 32)
            photographs.append(tiles / np.float32(255))
    return {
        "digits": (load_digits(return_X_y=True)[0] / 16).reshape(-1, 1, 8, 8).astype(np.float32),
        "fashion": load_dataset(f"{data / 'fashion-mnist'}:t10k", gray).inputs["x"][:2000].astype(np.float32),
        "mfcc": np.stack([np.fromfile(file, np.int8).reshape(1, 49, 10) for file in mfcc]).astype(np.float32),
        "motions": np.concatenate(motions),
        "hand": rows[:, 1:],
        "photographs": np.concatenate(photographs).astype(np.float32),
    }


def _halves(array: Floats, trial: int) -> tuple[Floats, Floats]:
    order = np.random.default_rng(trial).permutation(len(array))
    half = min(len(array) // 2, 256)
    return array[order[:half]], array[order[half : 2 * half]]


def _false_alarms(array: Floats, trials: range) -> list[str]:
    return [str(lint) for trial in trials for lint in compare("x", *_halves(array, trial))]


@pytest.mark.parametrize("name", SETS)
def test_halves_of_one_data_set_are_alike(real: dict[str, Floats], name: str) -> None:
    assert _false_alarms(real[name], range(5)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_no_false_alarm_in_200_trials(real: dict[str, Floats], name: str) -> None:
    assert _false_alarms(real[name], range(200)) == []


def _wrong(array: Floats) -> Iterator[tuple[str, Floats, Floats]]:
    """Yield (what is wrong, calibration, evaluation)."""
    generator = np.random.default_rng(7)
    mean, spread = float(array.mean()), float(array.std())
    mine, other = _halves(array, 1000)
    reach = spread * 3**0.5
    yield "normal noise", generator.normal(mean, spread, mine.shape).astype(np.float32), other
    yield "standard normal noise", generator.normal(0, 1, mine.shape).astype(np.float32), other
    yield "uniform noise", generator.uniform(mean - reach, mean + reach, mine.shape).astype(np.float32), other
    yield (
        "uniform over the range",
        generator.uniform(array.min(), array.max(), mine.shape).astype(np.float32),
        other,
    )
    yield "255 times too large", mine * 255, other
    yield "255 times too small", mine / 255, other
    yield "shifted by half a spread", mine + spread / 2, other
    yield "-1..1 for 0..1", mine * 2 - 1, other
    yield "standardized", (mine - mean) / spread, other
    shuffled = mine.reshape(len(mine), -1)[:, generator.permutation(mine[0].size)]
    yield "shuffled values", shuffled.reshape(mine.shape), other
    if array.ndim == 3:
        yield "other axis order", mine.transpose(0, 2, 1).reshape(mine.shape), other
    if array.ndim == 4 and array.shape[1] == 3:
        yield "other layout", mine.transpose(0, 2, 3, 1).reshape(mine.shape), other


@pytest.mark.parametrize("name", SETS)
def test_wrong_data_are_severe(real: dict[str, Floats], name: str) -> None:
    missed = [
        what
        for what, mine, other in _wrong(real[name])
        if not any(x.is_severe for x in compare("x", mine, other))
    ]
    assert missed == []


def test_swapped_colour_channels_are_found_in_photographs(real: dict[str, Floats]) -> None:
    mine, other = _halves(real["photographs"], 1000)
    assert "calibration-structure" in [lint.code for lint in compare("x", mine[:, ::-1], other)]


def test_training_and_test_files_are_alike(real: dict[str, Floats]) -> None:
    assert compare("x", real["motions"][:40], real["motions"][40:]) == []
