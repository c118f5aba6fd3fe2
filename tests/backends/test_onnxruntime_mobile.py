"""ONNX Runtime for phones: conformance, the operators' list, and broken files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends.onnxruntime_mobile import OnnxRuntimeMobileBackend
from edgewright.core.artifact import Artifact
from edgewright.core.errors import EdgewrightError, FormatMismatchError
from edgewright.core.target import Precision, Target
from edgewright.sources.inspect_ort import inspect_ort
from edgewright.testing import check_backend

pytestmark = pytest.mark.toolchain("torch", "onnx", "onnxruntime", "onnxscript")

BACKEND = OnnxRuntimeMobileBackend()
TARGET = Target(runtime="onnxruntime-mobile")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("ort")
    return BACKEND.convert(programs.mlp_onnx(folder), TARGET, None, folder / "made")


@pytest.mark.slow
def test_conforms(tmp_path: Path) -> None:
    sources = [programs.cnn_pt2(tmp_path / "cnn"), programs.mlp_onnx(tmp_path / "mlp")]
    calibrations = {str(p.path): programs.calibration_for(p, p.path.parent) for p in sources}
    report = check_backend(BACKEND, programs=sources, calibrations=calibrations, workdir=tmp_path / "w")
    done = {(pair.program, pair.precision) for pair in report.converted}
    wanted = (Precision.FP32, Precision.W8, Precision.W8A8)
    made = {(source.path.name, precision) for source in sources for precision in wanted}
    assert done == made | {(sources[0].path.name, Precision.W4A8)}  # of PyTorch programs alone


def test_writes_the_model_and_the_operators_that_it_needs(artifact: Artifact) -> None:
    assert artifact.names == ("model.ort", "required_operators.config")
    lines = artifact.files[1].read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("ai.onnx;13;Concat") for line in lines)
    assert any('MatMul{"inputs": {"0": ["float"]}}' in line for line in lines)
    assert str(artifact.path.parent) not in "\n".join(lines)
    assert "--include_ops_by_config" in artifact.notes[-1]


def test_is_described_without_the_runtime(artifact: Artifact) -> None:
    described = inspect_ort(artifact.path)
    assert [spec.name for spec in described.inputs] == ["left", "right"]
    assert [spec.shape for spec in described.outputs] == [(None, 4), (None, 1)]
    assert described.operators["Concat"] == 1
    assert described.parameters == 9 * 48 + 48 + 48 * 4 + 48
    assert described.precision == "fp32"


def test_refuses_float16(tmp_path: Path) -> None:
    source = programs.mlp_onnx(tmp_path)
    bad = replace(TARGET, precision=Precision.FP16)
    assert "float32 weights" in str(BACKEND.refuses(source, bad))
    with pytest.raises(FormatMismatchError):
        BACKEND.convert(source, bad, None, tmp_path)


def test_broken_files_are_refused(artifact: Artifact, tmp_path: Path, rng: np.random.Generator) -> None:
    whole = artifact.path.read_bytes()
    refused = 0
    for number in range(24):
        content = bytearray(whole)
        for position in rng.integers(0, len(content), 20):
            content[position] = int(rng.integers(0, 256))
        if number % 2:
            del content[int(rng.integers(1, len(content))) :]
        path = tmp_path / "broken.ort"
        path.write_bytes(content)
        try:
            inspect_ort(path)
        except EdgewrightError:
            refused += 1
    assert refused >= 8, refused
