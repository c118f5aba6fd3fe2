"""Frames, Fourier transforms and overlap-add against the DFT's definition, scipy and torch."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal
from tests.processing.one_step import run, runs

from edgewright.core.errors import DataError, UsageError
from edgewright.processing.spectrum import (
    Cut,
    Fft,
    InverseFft,
    Magnitude,
    Multiply,
    OverlapAdd,
    window_table,
)
from edgewright.processing.step import Floats
from edgewright.processing.values import ValueType


@pytest.fixture
def clip(rng: np.random.Generator) -> Floats:
    return rng.standard_normal(1000).astype(np.float32)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("window", ["hann", "hamming", "blackman"])
def test_windows_are_those_of_scipy(window: str, periodic: bool) -> None:
    for length in (1, 2, 5, 480):
        expected = signal.get_window(window, length, fftbins=periodic)
        assert window_table(window, length, periodic=periodic) == pytest.approx(expected, abs=1e-7)  # type: ignore[arg-type]


def test_frames_overlap_and_the_rest_is_left_out() -> None:
    made = run(Cut(length=4, hop=3, window="none"), np.arange(12, dtype=np.float32))
    assert made.tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]


@pytest.mark.toolchain("torch")
@pytest.mark.parametrize(("pad", "mode"), [("reflect", "reflect"), ("zeros", "constant")])
@pytest.mark.parametrize("window_length", [0, 100, 77])
def test_centred_frames_make_the_spectrum_of_torch(
    clip: Floats, pad: str, mode: str, window_length: int
) -> None:
    import torch

    frames = run(
        Cut(length=128, hop=50, window_length=window_length, centre=True, pad=pad),  # type: ignore[arg-type]
        clip,
    )
    made = run(Fft(size=128), frames, kind="frames")
    window = torch.hann_window(window_length or 128)
    expected = torch.stft(
        torch.from_numpy(clip), 128, 50, window_length or 128, window, pad_mode=mode, return_complex=True
    )
    assert made == pytest.approx(torch.view_as_real(expected).transpose(0, 1).numpy(), abs=2e-5)


@pytest.mark.parametrize(("length", "size"), [(8, 8), (5, 8), (7, 30), (20, 90), (1, 2)])
def test_the_transform_is_its_definition(length: int, size: int, rng: np.random.Generator) -> None:
    samples = rng.standard_normal(length).astype(np.float32)
    angles = -2 * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(length)) / size
    expected = np.stack([np.cos(angles) @ samples, np.sin(angles) @ samples], axis=-1)
    made = run(Fft(size=size), samples)
    assert made == pytest.approx(expected, abs=1e-6)
    back = run(InverseFft(length=length), made, kind="spectrum")
    assert back == pytest.approx(samples, abs=1e-6)


@pytest.mark.parametrize("size", [0, 1, 3, 14, 22, -8, 1 << 17])
def test_sizes_that_the_core_does_not_transform_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match="prime factor"):
        Fft(size=size)


def test_magnitudes() -> None:
    spectrum = np.array([[3, 4], [0, -2]], np.float32)
    assert run(Magnitude(), spectrum, kind="spectrum").tolist() == [5, 2]
    assert run(Magnitude(power=2), spectrum, kind="spectrum").tolist() == [25, 4]


def test_a_mask_scales_a_spectrum_and_keeps_its_phase(clip: Floats) -> None:
    spectrum = run(Fft(size=512), clip[:512])
    mask = np.linspace(0, 1, 257, dtype=np.float32)[None]
    made = run(Multiply(), spectrum, mask, kind=("spectrum", "tensor"))
    assert made == pytest.approx(spectrum * mask[0][:, None])
    assert run(Multiply(), mask, mask, kind="tensor") == pytest.approx(mask * mask)


def test_the_product_of_spectra_is_complex() -> None:
    a, b = np.array([[1, 2]], np.float32), np.array([[3, -1]], np.float32)
    assert run(Multiply(), a, b, kind="spectrum").tolist() == [[5, 5]]


@pytest.mark.parametrize("hop", [32, 64])
@pytest.mark.parametrize("window", ["hann", "sqrt_hann", "hamming"])
def test_unchanged_frames_give_the_sound_back(clip: Floats, window: str, hop: int) -> None:
    frames = run(Cut(length=128, hop=hop, window=window), clip)  # type: ignore[arg-type]
    step = OverlapAdd(hop=hop, window=window, analysis=window)  # type: ignore[arg-type]
    made = run(step, frames, kind="frames")
    lag = 128 - hop
    assert made[lag:] == pytest.approx(clip[lag : len(made)], abs=2e-6)
    # The same, a frame a run.
    one_by_one = np.concatenate(runs(step, [[frame] for frame in frames]))
    assert one_by_one.tolist() == made.tolist()


def test_windows_that_leave_gaps_are_refused(clip: Floats) -> None:
    with pytest.raises(UsageError, match="without"):
        run(OverlapAdd(hop=128, window="hann", analysis="hann"), clip[:128])
    with pytest.raises(UsageError, match="hop"):
        run(OverlapAdd(hop=129), clip[:128])


@pytest.mark.parametrize("samples", [None, 3])
def test_a_clip_shorter_than_a_frame_is_refused(samples: int | None) -> None:
    step = Cut(length=4, hop=2)
    with pytest.raises(DataError, match="fit_length"):
        step.result((ValueType(kind="audio", shape=(3,), dtype="float32"),))
    step.result((ValueType(kind="audio", shape=(None,), dtype="float32"),))
    with pytest.raises(DataError, match="fit_length"):
        step.apply((np.zeros(3, np.float32),), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "kind", "shape"),
    [
        (Cut(length=4, hop=2), "tensor", (8,)),
        (Fft(size=8), "audio", (9,)),
        (Fft(size=8), "tensor", (8,)),
        (Magnitude(), "tensor", (5, 2)),
        (InverseFft(), "tensor", (5, 2)),
        (InverseFft(length=9), "spectrum", (5, 2)),
        (InverseFft(), "spectrum", (8, 2)),
        (OverlapAdd(hop=2), "spectrum", (5, 2)),
    ],
)
def test_other_values_are_refused(
    step: Cut | Fft | Magnitude | InverseFft | OverlapAdd, kind: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(UsageError):
        step.result((ValueType(kind=kind, shape=shape, dtype="float32"),))  # type: ignore[arg-type]
