"""LiteRT -> ONNX on damaged files: a clear error in a worker or a right model, and the parent goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewright.bridges.tflite_onnx import TfliteToOnnx
from edgewright.core.errors import (
    ConversionError,
    EdgewrightError,
    FormatMismatchError,
    IntegrityError,
    WorkerError,
)
from edgewright.core.files import sha256_of
from edgewright.sources.tflite import read_tflite
from edgewright.workers.pool import Limits, call_once

pytestmark = pytest.mark.toolchain("ai_edge_litert", "onnx", "onnxruntime")

SMALL = ("tflite-micro/hello_world_int8", "tflite-micro/micro_speech_quantized")


@pytest.mark.parametrize("name", SMALL)
def test_truncated_files_are_refused_in_words(assets: Path, tmp_path: Path, name: str) -> None:
    program = read_tflite(assets / "models" / f"{name}.tflite", spec=name)
    content = program.path.read_bytes()
    for part in (0.2, 0.6, 0.9, 0.999):
        path = tmp_path / "cut.tflite"
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises((IntegrityError, FormatMismatchError, ConversionError), match=r"cut\.tflite"):
            TfliteToOnnx().convert(replace(program, path=path), tmp_path)


@pytest.mark.slow
def test_mutated_files_never_take_the_parent_down(assets: Path, tmp_path: Path) -> None:
    program = read_tflite(assets / "models" / f"{SMALL[0]}.tflite", spec=SMALL[0])
    content = program.path.read_bytes()
    random = np.random.default_rng(5)
    outcomes = set()
    for number in range(12):
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
            call_once("edgewright.bridges.operations:cross", arguments, limits=Limits(timeout_s=60.0))
        except EdgewrightError as err:
            outcomes.add(type(err))
    # What a changed file is told: broken, not convertible, or a worker that died, but nothing else.
    assert outcomes <= {IntegrityError, FormatMismatchError, ConversionError, WorkerError}
    assert IntegrityError in outcomes
