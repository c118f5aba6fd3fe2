"""PyTorch Mobile: conformance, the deprecation note, and broken files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import torchscript_programs

from edgewright.backends.pytorch_mobile import PytorchMobileBackend
from edgewright.core.errors import ConversionError, EdgewrightError, FormatMismatchError
from edgewright.core.target import Precision, Target
from edgewright.sources.inspect_torchscript import inspect_ptl
from edgewright.testing import check_backend

pytestmark = pytest.mark.toolchain("torch")

BACKEND = PytorchMobileBackend()
TARGET = Target(runtime="pytorch-mobile")


def test_conforms(tmp_path: Path) -> None:
    sources = [
        torchscript_programs.cnn_torchscript(tmp_path / "cnn"),
        torchscript_programs.mlp_torchscript(tmp_path / "mlp"),
    ]
    report = check_backend("pytorch-mobile", programs=sources, calibrations={}, workdir=tmp_path / "w")
    assert {(pair.program, pair.precision) for pair in report.converted} == {
        ("cnn.torchscript", Precision.FP32),
        ("mlp.torchscript", Precision.FP32),
    }


def test_notes_that_it_is_deprecated_and_is_described_without_running(tmp_path: Path) -> None:
    source = torchscript_programs.mlp_torchscript(tmp_path)
    made = BACKEND.convert(source, TARGET, None, tmp_path / "made")
    assert "ExecuTorch replaces it" in made.notes[0]
    assert made.inputs == source.inputs, "the batch stays dynamic"
    described = inspect_ptl(made.path)
    assert described.operators["linear"] == 3
    assert described.parameters == 9 * 48 + 48 + 48 * 4 + 4 + 48 + 1


@pytest.mark.parametrize("precision", ["fp16", "w8", "w8a8", "w4"])
def test_refuses_reduced_precisions_with_a_reason(precision: str, tmp_path: Path) -> None:
    source = torchscript_programs.mlp_torchscript(tmp_path)
    bad = replace(TARGET, precision=Precision(precision))
    assert "fp32 alone" in str(BACKEND.refuses(source, bad))
    with pytest.raises(FormatMismatchError):
        BACKEND.convert(source, bad, None, tmp_path)


def test_a_truncated_file_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    made = BACKEND.convert(torchscript_programs.mlp_torchscript(tmp_path), TARGET, None, tmp_path / "made")
    whole = made.path.read_bytes()
    for size in rng.integers(1, len(whole) - 1, 4):
        path = tmp_path / "broken.ptl"
        path.write_bytes(whole[: int(size)])
        with pytest.raises(ConversionError, match="cannot load"):
            BACKEND.open(replace(made, files=(path,)), TARGET)
        with pytest.raises(EdgewrightError):
            inspect_ptl(path)
