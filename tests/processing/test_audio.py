"""Steps on samples: rates, lengths, filters, context."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal
from tests.processing.one_step import run, runs

from edgewright.core.errors import UsageError
from edgewright.processing.audio import (
    Context,
    FitLength,
    Peak,
    PreEmphasis,
    Resample,
    ratio,
    resample_filter,
)
from edgewright.processing.step import Floats
from edgewright.processing.values import ValueType


def tone(hertz: float, rate_hz: int, samples: int) -> Floats:
    return np.sin(2 * np.pi * hertz / rate_hz * np.arange(samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("from_hz", "to_hz"),
    [
        (48_000, 16_000),
        (16_000, 48_000),
        (44_100, 16_000),
        (8_000, 16_000),
        (16_000, 16_000),
        (22_050, 44_100),
    ],
)
def test_a_tone_keeps_its_pitch_phase_and_loudness(from_hz: int, to_hz: int) -> None:
    made = run(Resample(rate_hz=to_hz), tone(700, from_hz, from_hz // 4), rate_hz=from_hz)
    assert len(made) == -(-(from_hz // 4) * to_hz // from_hz)
    inside = slice(to_hz // 50, -to_hz // 50)  # beyond the filter's reach from the ends
    assert made[inside] == pytest.approx(tone(700, to_hz, len(made))[inside], abs=2e-4)


def test_what_the_lower_rate_cannot_hold_is_gone() -> None:
    made = run(Resample(rate_hz=16_000), tone(9_000, 48_000, 12_000), rate_hz=48_000)
    assert np.abs(made[200:-200]).max() < 1e-4


def test_resampling_equals_scipys_for_the_same_filter(rng: np.random.Generator) -> None:
    clip = rng.standard_normal(301).astype(np.float32)
    up, down = ratio(11_025, 16_000)
    weights = resample_filter(up, down)
    # The polyphase form is the dense one: zeros between the samples, one long filter, every `down`-th sample.
    taps = weights.shape[1]
    dense = weights[:, ::-1].T.reshape(-1)
    spread = signal.upfirdn(dense.astype(np.float64), clip, up=up)
    delay = up * (taps - 1 - taps // 2)
    expected = spread[delay::down][: -(-len(clip) * up // down)]
    assert run(Resample(rate_hz=16_000), clip, rate_hz=11_025) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("rate_hz", [0, 44_101, -1, 1 << 21])
def test_rates_without_a_short_ratio_are_refused(rate_hz: int) -> None:
    with pytest.raises(UsageError):
        run(Resample(rate_hz=rate_hz), np.zeros(10, np.float32), rate_hz=16_000)


def test_audio_of_an_unknown_rate_is_not_resampled() -> None:
    with pytest.raises(UsageError, match="rate_hz is known"):
        run(Resample(rate_hz=16_000), np.zeros(10, np.float32))


@pytest.mark.parametrize(
    ("at", "samples", "expected"),
    [
        ("start", 3, [1, 2, 3]), ("end", 3, [3, 4, 5]), ("centre", 3, [2, 3, 4]), ("centre", 2, [2, 3]),
        ("start", 7, [1, 2, 3, 4, 5, 0, 0]), ("end", 7, [0, 0, 1, 2, 3, 4, 5]),
        ("centre", 8, [0, 1, 2, 3, 4, 5, 0, 0]), ("end", 5, [1, 2, 3, 4, 5]),
    ],
)  # fmt: skip
def test_a_clip_is_cut_or_filled_up(at: str, samples: int, expected: list[int]) -> None:
    step = FitLength(samples=samples, at=at)  # type: ignore[arg-type]
    assert run(step, np.arange(1, 6, dtype=np.float32)).tolist() == expected


def test_a_series_is_cut_by_rows() -> None:
    made = run(FitLength(samples=4), np.ones((3, 2), np.float32), kind="series")
    assert made.tolist() == [[1, 1], [1, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize(("first", "begin"), [("keep", 0.0), ("repeat", -0.97)])
def test_pre_emphasis_is_the_filter_of_the_books(first: str, begin: float, rng: np.random.Generator) -> None:
    clip = rng.standard_normal(64).astype(np.float32)
    expected, _ = signal.lfilter([1, -0.97], [1], clip, zi=[begin * clip[0]])
    assert run(PreEmphasis(first=first), clip) == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]


def test_the_peak_is_one() -> None:
    clip = np.array([0.1, -0.5, 0.25], np.float32)
    assert run(Peak(), clip).tolist() == pytest.approx([0.2, -1.0, 0.5])
    assert run(Peak(of="value", to=0.5), clip).tolist() == pytest.approx([0.2, -1.0, 0.5])
    assert run(Peak(), np.zeros(3, np.float32)).tolist() == [0, 0, 0]


def test_context_holds_the_last_samples_of_all_runs_before() -> None:
    first, second, third = runs(
        Context(samples=3, fill=-1.0), [[np.array([n, n + 1], np.float32)] for n in (1, 3, 5)]
    )
    assert first.tolist() == [-1, -1, -1, 1, 2]
    assert second.tolist() == [-1, 1, 2, 3, 4]
    assert third.tolist() == [2, 3, 4, 5, 6]


def test_context_keeps_rows_of_features() -> None:
    rows = [[np.full((1, 2), n, np.float32)] for n in (1, 2, 3)]
    assert runs(Context(samples=2), rows, kind="tensor")[-1].tolist() == [[1, 1], [2, 2], [3, 3]]


@pytest.mark.parametrize(
    "step", [FitLength(samples=4), PreEmphasis(), Peak(), Context(samples=4), Resample(rate_hz=8000)]
)
def test_an_image_is_no_sound(step: FitLength | PreEmphasis | Peak | Context | Resample) -> None:
    with pytest.raises(UsageError, match=step.name):
        step.result((ValueType(kind="image", shape=(2, 2, 3), dtype="uint8", order="rgb", layout="hwc"),))
