"""The commands, the specification and the Python example of docs/processing_audio.md run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from edgewright.core.tensors import TensorSpec
from edgewright.processing import presets
from edgewright.processing.processor import Signature, plan
from edgewright.processing.registry import STEPS, step_class
from edgewright.processing.specification import read_specification

_BLOCK = re.compile(r"^```(sh|python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MODULES = (
    "audio", "spectrum", "mel", "pcan", "series", "landmarks", "smoothing", "ctc", "text",
)  # fmt: skip


@pytest.fixture
def page(repo_root: Path) -> str:
    return (repo_root / "docs" / "processing_audio.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return [body for kind, body in _BLOCK.findall(page) if kind == language]


def run(command: list[str], folder: Path) -> str:
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.toolchain("ai_edge_litert", "onnxruntime")
def test_the_commands_and_the_example_run(page: str, assets: Path, tmp_path: Path) -> None:
    (tmp_path / "dtln").mkdir()
    for source, name in (
        ("models/mlperf-tiny/kws_dscnn_int8.tflite", "keyword.tflite"),
        ("models/silero-vad/silero_vad.onnx", "silero_vad.onnx"),
        ("models/dtln/model_1.onnx", "dtln/model_1.onnx"),
        ("models/dtln/model_2.onnx", "dtln/model_2.onnx"),
        ("data/micro-speech/yes_1000ms.wav", "yes.wav"),
        ("data/silero-audio/test.wav", "speech.wav"),
    ):
        shutil.copy(assets / source, tmp_path / name)
    (commands,) = blocks(page, "sh")
    said = [run(["bash", "-c", command], tmp_path) for command in commands.splitlines()]
    assert len(said) == 5
    assert said[0] == said[4] and "yes  0.99" in said[0]
    assert "active" in said[1]
    assert (tmp_path / "clean.wav").stat().st_size == 1_920_044
    (example,) = blocks(page, "python")
    assert run([sys.executable, "-c", example], tmp_path) == "32000 samples\n"
    assert (tmp_path / "clean.wav").stat().st_size == 64_044


def test_the_specification_fits_a_model_of_such_features(page: str, tmp_path: Path) -> None:
    (specification,) = blocks(page, "toml")
    (tmp_path / "processing.toml").write_text(specification)
    features = TensorSpec(name="input", shape=(1, 44, 20), dtype="float32")
    scores = TensorSpec(name="output", shape=(1, 5), dtype="float32")
    plan(read_specification(tmp_path), Signature(inputs=(features,), outputs=(scores,)))


def test_every_step_with_its_options_and_every_preset_has_a_row(page: str) -> None:
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}
    for name, place in STEPS.items():
        if place.partition(":")[0] in _MODULES:
            for option in fields(step_class(name)):
                assert f"`{option.name}`" in rows[name], f"{name}: {option.name}"
    for name, place in presets.PRESETS.items():
        if place.partition(":")[0] in ("presets_audio", "presets_series"):
            assert name in rows
