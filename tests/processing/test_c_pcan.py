"""The C core makes the features of the micro front end that numpy makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.processing.c_cases import Row, both, needs_compiler, preparing

from edgewright.processing.audio_files import read_audio
from edgewright.processing.specification import RawInput

pytestmark = needs_compiler
CLIP = RawInput(name="clip", kind="audio", rate_hz=16_000)
FRONT_END: list[Row] = [
    {"step": "fit_length", "samples": 16_000},
    {"step": "frame", "length": 480, "hop": 320, "periodic": False},
    {"step": "fft", "size": 512},
    {"step": "magnitude", "power": 2},
    {"step": "mel", "bins": 40, "low_hz": 125.0, "high_hz": 7500.0, "triangles": "mel"},
    {"step": "pcan"},
]


def test_clips_give_the_same_features(assets: Path, tmp_path: Path) -> None:
    pair = both(preparing(CLIP, FRONT_END, (49, 40)), tmp_path, max_rows=16_000)
    for clip in ("yes", "no", "noise", "silence"):
        sound = read_audio(assets / f"data/micro-speech/{clip}_1000ms.wav", rate_hz=16_000)
        pair.c.reset()
        pair.numpy.reset()
        wanted, made = pair.prepared({"clip": sound})
        assert made.tolist() == wanted.tolist(), clip


def test_energies_of_any_size_give_the_same_features_run_after_run(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    raw = RawInput(name="energies", kind="tensor", shape=(7, 5))
    rows: list[Row] = [
        {"step": "pcan", "strength": 0.8, "offset": 3.0, "odd_smoothing": 1.0, "even_smoothing": 0.0}
    ]
    for name, steps in (("a", [{"step": "pcan"}]), ("b", rows)):
        (tmp_path / name).mkdir()
        pair = both(preparing(raw, steps, (7, 5)), tmp_path / name)
        for power in (-12, -6, -2, 0, 3, 8, 20, 37):
            energies = rng.uniform(-0.1, 1, (7, 5)).astype(np.float32) * np.float32(10.0**power)
            energies[0] = [0.0, 0.25, (1 / 4096) ** 2, (3 / 4096) ** 2, -0.0]  # roots that are whole
            wanted, made = pair.prepared({"energies": energies})
            assert made.tolist() == wanted.tolist(), power
