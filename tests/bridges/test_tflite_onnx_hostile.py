"""LiteRT -> ONNX on damaged files: a clear error in a worker or a right model, and the parent goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewright.bridges.tflite_onnx import TfliteToOnnx
from edgewright.core.errors import EdgewrightError
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.sources.tflite import read_tflite
from edgewright.workers.pool import Limits, call_once

pytestmark = pytest.mark.toolchain("ai_edge_litert", "onnx", "onnxruntime")

SMALL = ("tflite-micro/hello_world_int8", "tflite-micro/micro_speech_quantized")


def outcome(program: Program, workdir: Path) -> str:
    """Return "converted", or the first words of an error that the bridge chose."""
    try:
        made = TfliteToOnnx().convert(program, workdir)
    except EdgewrightError as err:
        assert len(str(err)) > 20
        return type(err).__name__
    assert made.path.is_file()
    return "converted"


@pytest.mark.parametrize("name", SMALL)
def test_truncated_files_are_refused_in_words(assets: Path, tmp_path: Path, name: str) -> None:
    program = read_tflite(assets / "models" / f"{name}.tflite", spec=name)
    content = program.path.read_bytes()
    for part in (0.2, 0.6, 0.9, 0.999):
        path = tmp_path / "cut.tflite"
        path.write_bytes(content[: int(len(content) * part)])
        assert outcome(replace(program, path=path), tmp_path) != "converted"


@pytest.mark.slow
def test_mutated_files_never_take_the_parent_down(assets: Path, tmp_path: Path) -> None:
    program = read_tflite(assets / "models" / f"{SMALL[0]}.tflite", spec=SMALL[0])
    content = program.path.read_bytes()
    random = np.random.default_rng(5)
    for number in range(40):
        bad = bytearray(content)
        for place in random.integers(8, len(content), 3):
            bad[int(place)] ^= 1 << int(random.integers(0, 8))
        path = tmp_path / f"bad{number}.tflite"
        path.write_bytes(bytes(bad))
        arguments = {
            "bridge": "tflite-to-onnx",
            "program": replace(program, path=path, sha256=sha256_of(path)).to_json(),
            "workdir": str(tmp_path / "work"),
        }
        try:
            call_once("edgewright.bridges.operations:convert", arguments, limits=Limits(timeout_s=60.0))
        except EdgewrightError as err:
            assert "Traceback" not in str(err)
