"""Mel filters, logarithms and the cosine transform against scipy, librosa and MLPerf Tiny's own features."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import fft
from tests.processing.one_step import run

from edgewright.core.errors import UsageError
from edgewright.processing.mel import Dct, Log, Mel
from edgewright.processing.spectrum import Cut, Fft, Magnitude
from edgewright.processing.values import ValueType

# librosa.mel_frequencies(n_mels=40), as its documentation prints them: Slaney's scale up to 11025 Hz.
SLANEY_HZ = (
    0.0, 85.317, 170.635, 255.952, 341.269, 426.586, 511.904, 597.221, 682.538, 767.855, 853.173, 938.49, 1024.856,
    1119.114, 1222.042, 1334.436, 1457.167, 1591.187, 1737.532, 1897.337, 2071.84, 2262.393, 2470.47, 2697.686,
    2945.799, 3216.731, 3512.582, 3835.643, 4188.41, 4573.636, 4994.285, 5453.621, 5955.205, 6502.92, 7101.009,
    7754.107, 8467.272, 9246.028, 10096.408, 11025.0,
)  # fmt: skip


def test_triangles_stand_at_slaneys_frequencies() -> None:
    size, rate_hz = 16_385, 22_050
    table = Mel(bins=38, scale="slaney").table(size, rate_hz)
    tops = table.argmax(axis=0) * (rate_hz / 2 / (size - 1))
    assert tops == pytest.approx(SLANEY_HZ[1:-1], abs=rate_hz / 2 / (size - 1))


def test_triangles_of_htk_are_even_over_mel() -> None:
    size, rate_hz = 16_385, 16_000
    tops = Mel(bins=20, low_hz=20, high_hz=4000).table(size, rate_hz).argmax(axis=0) * (8000 / (size - 1))
    mel = 2595 * np.log10(1 + tops / 700)
    ends = 2595 * np.log10(1 + np.array([20, 4000]) / 700)
    assert mel == pytest.approx(np.linspace(*ends, 22)[1:-1], abs=0.6)


def test_over_a_flat_spectrum_slaneys_norm_makes_all_triangles_equal() -> None:
    weights = Mel(bins=10, norm="slaney", low_hz=500).table(4097, 16_000).sum(axis=0)
    assert weights == pytest.approx(np.full(10, weights[0]), rel=0.02)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", ["none", "slaney"])
def test_filters_are_those_of_librosa(scale: str, norm: str) -> None:
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(
        sr=22_050,
        n_fft=1024,
        n_mels=64,
        fmin=30,
        fmax=8000,
        htk=scale == "htk",
        norm=None if norm == "none" else norm,
    )
    table = Mel(bins=64, low_hz=30, high_hz=8000, scale=scale, norm=norm).table(513, 22_050)  # type: ignore[arg-type]
    assert pytest.approx(expected, abs=1e-6) == table.T


def test_mfcc_are_those_of_librosa(rng: np.random.Generator) -> None:
    librosa = pytest.importorskip("librosa")
    clip = rng.standard_normal(22_050).astype(np.float32) * np.float32(0.1)
    frames = run(Cut(length=2048, hop=512, centre=True), clip, rate_hz=22_050)
    power = run(Magnitude(power=2), run(Fft(size=2048), frames, kind="frames"), kind="spectrum")
    mel = run(Mel(bins=128, scale="slaney", norm="slaney"), power, kind="tensor", rate_hz=22_050)
    made = run(Dct(coefficients=20), run(Log(scale="db", span=80), mel, kind="tensor"), kind="tensor")
    expected = librosa.feature.mfcc(y=clip, sr=22_050, n_mfcc=20).T
    assert np.abs(made - expected).max() < 1e-5 * np.ptp(expected)


@pytest.mark.parametrize(("scale", "expected"), [("natural", np.log), ("log10", np.log10), ("log2", np.log2)])
def test_logarithms(scale: str, expected: np.ufunc, rng: np.random.Generator) -> None:
    values = rng.uniform(0, 10, 100).astype(np.float32)
    made = run(Log(scale=scale, offset=1e-6), values, kind="tensor")  # type: ignore[arg-type]
    assert made == pytest.approx(expected(values.astype(np.float64) + 1e-6), rel=1e-6, abs=1e-6)


def test_decibels_have_a_floor_and_a_span() -> None:
    made = run(Log(scale="db", floor=1e-8), np.array([0, 1e-3, 10], np.float32), kind="tensor")
    assert made.tolist() == pytest.approx([-80, -30, 10])
    made = run(Log(scale="db", floor=1e-8, span=60), np.array([0, 1e-3, 10], np.float32), kind="tensor")
    assert made.tolist() == pytest.approx([-50, -30, 10])


@pytest.mark.parametrize("size", [1, 2, 13, 40])
def test_the_cosine_transform_is_that_of_scipy(size: int, rng: np.random.Generator) -> None:
    values = rng.standard_normal((3, size)).astype(np.float32)
    ortho, plain = fft.dct(values, norm="ortho"), fft.dct(values)
    count = min(size, 10)
    assert run(Dct(coefficients=count), values, kind="tensor") == pytest.approx(ortho[:, :count], abs=1e-5)
    made = run(Dct(coefficients=count, norm="none"), values, kind="tensor")
    assert made == pytest.approx(plain[:, :count], abs=1e-5)
    made = run(Dct(coefficients=count, norm="htk"), values, kind="tensor")
    assert made == pytest.approx(plain[:, :count] * (2 * size) ** -0.5, abs=1e-5)
    if size > 5:
        made = run(Dct(coefficients=4, skip=1), values, kind="tensor")
        assert made == pytest.approx(ortho[:, 1:5], abs=1e-5)


@pytest.mark.parametrize(
    "options", [{"bins": 0}, {"low_hz": -1.0}, {"low_hz": 20.0, "high_hz": 10.0}, {"bins": 5000}]
)
def test_filters_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="mel"):
        Mel(**options)  # type: ignore[arg-type]


def test_filters_need_the_rate_and_lie_below_half_of_it() -> None:
    given = ValueType(kind="tensor", shape=(49, 257), dtype="float32")
    with pytest.raises(UsageError, match="sample rate"):
        Mel().result((given,))
    with pytest.raises(UsageError, match="8000"):
        Mel(high_hz=9000).result((ValueType(kind="tensor", shape=(257,), dtype="float32", rate_hz=16_000),))


def test_more_coefficients_than_values_are_refused() -> None:
    with pytest.raises(UsageError, match=r"14\.\."):
        Dct(coefficients=13, skip=1).result((ValueType(kind="tensor", shape=(13,), dtype="float32"),))
    for options in ({"floor": 0.0}, {"offset": -1.0}, {"span": -1.0}):
        with pytest.raises(UsageError, match="log"):
            Log(**options)
