"""The C core makes of sound, series and scores what numpy makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.processing.c_cases import Row, both, needs_compiler, preparing

from edgewright.core.errors import DataError
from edgewright.processing.c_host import CODES
from edgewright.processing.specification import RawInput

pytestmark = needs_compiler
CLIP = RawInput(name="clip", kind="audio", rate_hz=16000)
HOP = RawInput(name="clip", kind="audio", rate_hz=16000, samples=256)
SERIES = RawInput(name="series", kind="series", shape=(0, 3))
MFCC: list[Row] = [
    {"step": "fit_length", "samples": 16000},
    {"step": "frame", "length": 480, "hop": 320, "window": "hann"},
    {"step": "fft", "size": 512},
    {"step": "magnitude"},
    {"step": "mel", "bins": 40, "low_hz": 20.0, "high_hz": 4000.0},
    {"step": "log", "floor": 1e-6},
    {"step": "dct", "coefficients": 10},
]
MAGNITUDE: Row = {"step": "magnitude"}


def same(made: np.ndarray, wanted: np.ndarray) -> bool:  # type: ignore[type-arg]
    """At most 1e-5 of the range apart."""
    assert made.dtype == wanted.dtype and made.shape == wanted.shape
    span = max(float(np.ptp(wanted)), 1e-6)
    return float(np.abs(made.astype(np.float64) - wanted).max()) <= 1e-5 * span


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        (MFCC, (49, 10)),
        ([{"step": "resample", "rate_hz": 11025}, {"step": "fit_length", "samples": 3000, "at": "centre"},
          {"step": "peak", "to": 0.5}, {"step": "pre_emphasis", "first": "repeat"},
          {"step": "frame", "length": 400, "hop": 160, "window": "hamming", "centre": True, "pad": "reflect"},
          {"step": "fft", "size": 400}, {"step": "magnitude", "power": 2},
          {"step": "mel", "bins": 30, "scale": "slaney", "norm": "slaney"},
          {"step": "log", "scale": "db", "span": 80.0}, {"step": "standardise"}], (19, 30)),
        ([{"step": "fit_length", "samples": 2000, "at": "end"}, {"step": "pre_emphasis"},
          {"step": "frame", "length": 300, "hop": 100, "window": "blackman", "window_length": 200, "pad": "edge",
           "centre": True}, {"step": "fft", "size": 360}, {"step": "inverse_fft", "length": 300},
          {"step": "overlap_add", "hop": 100}, {"step": "reshape", "shape": [3, 7, -1]},
          {"step": "transpose", "axes": [2, 0, 1]}], (100, 3, 7)),
    ],
)  # fmt: skip
def test_clips_of_any_length(rows: Sequence[Row], shape: tuple[int, ...], tmp_path: Path) -> None:
    pair = both(preparing(CLIP, rows, shape), tmp_path, max_rows=20000)
    generator = np.random.default_rng(5)
    for count in (16000, 15999, 9000, 20000, 800):
        clip = (generator.standard_normal(count) * np.linspace(0.001, 0.5, count)).astype(np.float32)
        pair.c.reset()
        pair.numpy.reset()
        wanted, made = pair.prepared({"clip": clip})
        assert same(made, wanted), count
    for count in (0, 20001):
        assert CODES[pair.c.set_values(0, np.zeros(count, dtype=np.float32))] == "EW_BAD_SIZE"
    with pytest.raises(DataError, match="EW_BAD_VALUE"):
        pair.c.set_inputs({"clip": np.full(800, np.nan, dtype=np.float32)})


def test_frames_take_the_memory_of_one(tmp_path: Path) -> None:
    raw = RawInput(name="clip", kind="audio", rate_hz=16000, samples=16000)
    pair = both(preparing(raw, MFCC[1:], (49, 10)), tmp_path)
    clip = np.random.default_rng(3).standard_normal(16000).astype(np.float32)
    wanted, made = pair.prepared({"clip": clip})
    assert same(made, wanted)
    # 49 frames of 480 samples alone would take 94,080.
    assert pair.c.core.arena_bytes < 16_000


def test_a_stream_keeps_its_states(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"step": "context", "samples": 256},
        {"step": "fft", "size": 512},
        {"step": "inverse_fft"},
        {"step": "overlap_add", "hop": 256, "window": "sqrt_hann", "analysis": "none"},
    ]
    pair = both(preparing(HOP, rows, (256,)), tmp_path)
    generator = np.random.default_rng(6)
    hops = generator.standard_normal((5, 256)).astype(np.float32)
    first = None
    for _ in range(2):
        for hop in hops:
            wanted, made = pair.prepared({"clip": hop})
            assert same(made, wanted)
        assert first is None or np.array_equal(first, made)
        first = made
        pair.c.reset()
        pair.numpy.reset()


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        ([{"step": "fit_length", "samples": 50}, {"step": "standardise", "over": "all"}], (50, 3)),
        ([{"step": "fit_length", "samples": 50}, {"step": "window", "length": 20, "hop": 10}, {"step": "standardise"}],
         (4, 20, 3)),
        ([{"step": "standardise", "mean": [1, 2, 3], "std": [4, 5, 6]}, {"step": "fit_length", "samples": 50},
          {"step": "context", "samples": 2, "fill": 0.5}], (52, 3)),
    ],
)  # fmt: skip
def test_series(rows: Sequence[Row], shape: tuple[int, ...], tmp_path: Path) -> None:
    pair = both(preparing(SERIES, rows, shape), tmp_path)
    for count in (50, 33, 71):
        series = np.random.default_rng(count).standard_normal((count, 3)).astype(np.float32)
        wanted, made = pair.prepared({"series": series})
        assert same(made, wanted)


@pytest.mark.parametrize("scale", ["largest", "distance", "none"])
@pytest.mark.parametrize("origin", [0, -1])
def test_landmarks(scale: str, origin: int, tmp_path: Path) -> None:
    raw = RawInput(name="hand", kind="landmarks", shape=(21, 3))
    row: Row = {"step": "relative", "scale": scale, "origin": origin, "coordinates": 2}
    pair = both(preparing(raw, [row, {"step": "reshape", "shape": [-1]}], (42,)), tmp_path)
    hand = np.random.default_rng(1).uniform(0, 500, (21, 3)).astype(np.float32)
    for points in (hand, np.ones_like(hand)):
        wanted, made = pair.prepared({"hand": points})
        assert same(made, wanted)


@pytest.mark.parametrize(
    "rows",
    [
        [{"step": "softmax"}],
        [{"step": "sigmoid"}],
        [{"step": "cast", "dtype": "int32"}],
        [{"step": "quantize", "scale": 0.01, "zero_point": 3}, {"step": "dequantize", "scale": 0.02}],
        [{"step": "scale", "factor": [2.0], "offset": [1, 2, 3, 4, 5, 6]}],
        [{"step": "smooth", "runs": 3, "hold": 2}],
        [{"step": "threshold", "on": 0.5, "off": 0.1, "min_runs": 2, "off_runs": 2}],
    ],
)  # fmt: skip
def test_numbers_run_after_run(rows: Sequence[Row], tmp_path: Path) -> None:
    raw = RawInput(name="values", kind="tensor", shape=(6,))
    dtype = "int32" if rows[0]["step"] == "cast" else "float32"
    pair = both(preparing(raw, rows, (6,), dtype), tmp_path)
    generator = np.random.default_rng(2)
    for run in range(12):
        values = (generator.standard_normal(6) * (1e10 if run == 3 else 1)).astype(np.float32)
        wanted, made = pair.prepared({"values": values})
        assert same(made, wanted)
