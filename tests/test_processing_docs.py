"""The commands, the specification and the Python example of docs/processing.md run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from edgewright.core.tensors import TensorSpec
from edgewright.processing import presets
from edgewright.processing.processor import Signature, plan
from edgewright.processing.registry import STEPS, step_class
from edgewright.processing.specification import read_specification

_BLOCK = re.compile(r"^```(sh|python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MODULES = (
    "tensors", "scores", "images", "resize", "boxes", "anchors", "grids", "nms", "masks", "keypoints", "source",
)  # fmt: skip


@pytest.fixture
def page(repo_root: Path) -> str:
    return (repo_root / "docs" / "processing.md").read_text(encoding="utf-8")


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
    for source, name in (
        ("models/coral/mobilenet_v2_1.0_224_quant.tflite", "mobilenet.tflite"),
        ("models/ultraface-slim/version-slim-320.onnx", "ultraface.onnx"),
        ("data/coral-images/parrot.jpg", "parrot.jpg"),
        ("data/coral-images/grace_hopper.bmp", "portrait.bmp"),
    ):
        shutil.copy(assets / source, tmp_path / name)
    (commands,) = blocks(page, "sh")
    said = [run(["bash", "-c", command], tmp_path) for command in commands.splitlines()]
    assert len(said) == 4
    assert "macaw  0.99" in said[0]
    assert said[1].count("face") == 1 and said[1] == said[3]
    assert (tmp_path / "faces.png").stat().st_size > 10_000
    (tmp_path / "processing.toml").unlink()  # the example's model has its own
    (example,) = blocks(page, "python")
    assert run([sys.executable, "-c", example], tmp_path) == "macaw 1.0\nTrue\n"


def test_the_specification_fits_a_model_of_such_tensors(page: str, tmp_path: Path) -> None:
    (specification,) = blocks(page, "toml")
    (tmp_path / "processing.toml").write_text(specification)
    image = TensorSpec(name="input", shape=(1, 3, 320, 320), dtype="float32")
    boxes = TensorSpec(name="boxes", shape=(1, 100, 4), dtype="float32")
    scores = TensorSpec(name="scores", shape=(1, 100, 7), dtype="float32")
    checked = plan(read_specification(tmp_path), Signature(inputs=(image,), outputs=(boxes, scores)))
    assert checked.results["objects"].kind == "boxes"


def test_every_step_with_its_options_and_every_preset_has_a_row(page: str) -> None:
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}
    for name, place in STEPS.items():
        if place.partition(":")[0] not in _MODULES:
            continue
        hints = get_type_hints(step_class(name))
        for option in fields(step_class(name)):
            assert f"`{option.name}`" in rows[name], f"{name}: {option.name}"
            for choice in get_args(hints[option.name]):
                # Options that several steps have are explained where they come first.
                if isinstance(choice, str) and option.name != "dtype":
                    assert choice in page, f"{name}: {option.name} = {choice}"
    for name, place in presets.PRESETS.items():
        if place.partition(":")[0] in ("presets_images", "presets_boxes"):
            assert name in rows
