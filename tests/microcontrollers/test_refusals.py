"""What cannot become C is refused by name before anything is written; broken files and names are errors, no crashes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import ConversionError, EdgewrightError, IntegrityError, UsageError
from edgewright.microcontrollers.emit import compile_model
from edgewright.microcontrollers.names import identifier

pytestmark = pytest.mark.toolchain("ai_edge_litert")
HELLO = "models/tflite-micro/hello_world_int8.tflite"


@pytest.mark.parametrize("name", ["", "2nd", "my model", "naïve", "int", "main", "a" * 49, "x-y"])
def test_a_name_that_is_no_identifier_is_refused_with_one_that_is(name: str, assets: Path) -> None:
    with pytest.raises(UsageError, match="Call it"):
        compile_model(assets / HELLO, name=name)
    compile_model(assets / HELLO, name=identifier(name))


@pytest.mark.parametrize(
    ("file", "operators"),
    [
        ("tflite-micro/audio_preprocessor_int8.tflite", ["custom SignalWindow", "CAST", "DIV"]),
        ("coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite", ["custom edgetpu-custom-op"]),
        ("coral/mobilenet_v1_0.25_128_quant.tflite", ["CONV_2D", "uint8/uint8/uint8"]),
        ("dtln/model_2.tflite", ["SQUARED_DIFFERENCE (operator", "RSQRT (operator"]),
    ],
)
def test_every_operator_that_is_not_covered_is_named(file: str, operators: list[str], assets: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        compile_model(assets / "models" / file, name="model")
    for operator in operators:
        assert operator in str(caught.value)


def test_damaged_files_are_refused(assets: Path, tmp_path: Path) -> None:
    content = (assets / HELLO).read_bytes()
    path = tmp_path / "damaged.tflite"
    draw = np.random.default_rng(3)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in draw.integers(0, len(content), int(draw.integers(1, 6))):
            damaged[place] = int(draw.integers(0, 256))
        path.write_bytes(
            bytes(damaged[: len(damaged) if draw.random() < 0.8 else int(draw.integers(8, len(damaged)))])
        )
        try:
            compile_model(path, name="model")
        except EdgewrightError:
            refused += 1
    assert refused > 30


def test_an_operator_that_reads_what_nothing_made_is_broken(repo_root: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(repo_root / "benchmarks" / "microcontrollers"))
    try:
        from made_models import Maker
    finally:
        sys.path.pop(0)
    made = Maker()
    x, unmade, y = (made.tensor((1, 4), scale=0.5) for _ in range(3))
    made.operator("ADD", [x, unmade], [y], table="AddOptions")
    with pytest.raises(IntegrityError, match="out of order"):
        compile_model(made.write(tmp_path / "broken.tflite", [x], [y]), name="model")


def test_scales_on_the_wrong_axis_are_refused(repo_root: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(repo_root / "benchmarks" / "microcontrollers"))
    try:
        from made_models import Maker
    finally:
        sys.path.pop(0)
    made = Maker()
    x = made.tensor((1, 4, 4, 3), scale=0.5)
    w = made.tensor((3, 1, 1, 3), scale=[0.1, 0.2, 0.3], axis=3, value=np.ones((3, 1, 1, 3), dtype=np.int8))
    y = made.tensor((1, 4, 4, 3), scale=0.5)
    options = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    made.operator("CONV_2D", [x, w], [y], table="Conv2DOptions", options=options)
    with pytest.raises(ConversionError, match="scales along axis 3, not 0"):
        compile_model(made.write(tmp_path / "axis.tflite", [x], [y]), name="model")
