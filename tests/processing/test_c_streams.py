"""The C core beside numpy around real models: streams and clips through the presets of sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.processing.c_cases import both, needs_compiler
from tests.processing.onnx_models import onnx_runner

from edgewright.core.tensors import Arrays
from edgewright.processing import presets
from edgewright.processing.audio_files import read_audio
from edgewright.processing.processor import Plan, plan

pytestmark = [needs_compiler, pytest.mark.toolchain("onnxruntime")]


def planned(preset: str, paths: dict[str, Path]) -> tuple[Plan, Callable[[str, Arrays], Arrays]]:
    subjects, execute = onnx_runner(paths)
    made = presets.make(preset, subjects)
    return plan(made, {name: subject.signature for name, subject in subjects.items()}), execute


@pytest.mark.parametrize("preset", ["silero_vad", "dtln"])
def test_streams_give_the_same_bits(preset: str, assets: Path, tmp_path: Path) -> None:
    paths = {
        "silero_vad": {"": assets / "models/silero-vad/silero_vad.onnx"},
        "dtln": {f"model_{n}": assets / f"models/dtln/model_{n}.onnx" for n in (1, 2)},
    }[preset]
    checked, execute = planned(preset, paths)
    (row,) = checked.specification.inputs
    sound = read_audio(assets / "data/silero-audio/test.wav", rate_hz=16_000)
    hops = sound[: 60 * row.samples].reshape(60, row.samples)
    pair = both(checked, tmp_path)
    for _ in range(2):
        pair.numpy.reset()
        pair.c.reset()
        for number, hop in enumerate(hops):
            wanted = pair.numpy.run({row.name: hop}, execute)
            made = pair.c.run({row.name: hop}, execute)
            for name, array in wanted.items():
                assert np.array_equal(made[name], array), f"{name} of run {number}"
