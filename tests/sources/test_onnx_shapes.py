"""Fixing the dynamic dimensions of an ONNX model."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.small_models import write_onnx

from edgewright.core.errors import UsageError
from edgewright.sources import load

pytestmark = pytest.mark.toolchain("onnx", "onnxruntime")


def test_the_program_gets_the_shapes_and_its_outputs_follow(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "model.onnx")
    program = load(str(model), workdir=tmp_path / "work", input_shapes=["x=4x1x8x8"])
    assert [spec.shape for spec in program.inputs] == [(4, 1, 8, 8)]
    assert [spec.shape for spec in program.outputs] == [(4, 10)]
    assert program.path.parent == tmp_path / "work"
    assert program.sha256 != load(str(model), workdir=tmp_path / "work").sha256
    assert load(str(program.path), workdir=tmp_path / "again").inputs == program.inputs


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("y=4x1x8x8", "but the model has x"),
        ("x=4x1x9x8", "does not fit input x"),
        ("x=4x1x8", "does not fit input x"),
        ("x=4x1x8x8:int64", "does not fit input x"),
        ("four", "not understood"),
    ],
)
def test_a_shape_that_does_not_fit_is_told_with_what_does(tmp_path: Path, shape: str, said: str) -> None:
    model = write_onnx(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=said):
        load(str(model), workdir=tmp_path / "work", input_shapes=[shape])
