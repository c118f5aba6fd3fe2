"""The reference runs each source with the numbers of its own framework."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends.reference import ReferenceBackend
from edgewright.core.artifact import Artifact
from edgewright.core.errors import ConversionError, DataError, FormatMismatchError, IntegrityError
from edgewright.core.target import Precision, Target

BACKEND = ReferenceBackend()
TARGET = Target(runtime="reference")


@pytest.mark.toolchain("torch")
def test_pt2_gives_what_the_module_gives(tmp_path: Path, rng: np.random.Generator) -> None:
    import torch

    program = programs.mlp_pt2(tmp_path)
    left, right = (rng.normal(size=(4, size)).astype(np.float32) for size in (6, 3))
    artifact = BACKEND.convert(program, TARGET, None, tmp_path)
    assert artifact.files == (program.path,)
    got = BACKEND.open(artifact, TARGET).run({"left": left, "right": right})
    with torch.no_grad():
        joined, total = programs.mlp_module()(torch.from_numpy(left), torch.from_numpy(right))
    np.testing.assert_allclose(got["joined"], joined.numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got["total"], total.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.toolchain("onnx", "onnxruntime")
def test_onnx_gives_what_its_weights_say(tmp_path: Path, rng: np.random.Generator) -> None:
    import onnx
    from onnx import numpy_helper

    program = programs.mlp_onnx(tmp_path, lists_initialisers=True)
    held = {t.name: numpy_helper.to_array(t) for t in onnx.load(program.path).graph.initializer}
    left, right = (rng.normal(size=(4, size)).astype(np.float32) for size in (6, 3))
    got = BACKEND.open(BACKEND.convert(program, TARGET, None, tmp_path), TARGET).run(
        {"left": left, "right": right}
    )
    hidden = np.maximum(np.concatenate([left, right], axis=1) @ held["first"] + held["first_bias"], 0)
    np.testing.assert_allclose(got["joined"], hidden @ held["second"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got["total"], hidden @ held["third"].T, rtol=1e-5, atol=1e-5)


@pytest.mark.toolchain("torch")
def test_wrong_arrays_are_data_errors(tmp_path: Path) -> None:
    program = programs.cnn_pt2(tmp_path, is_dynamic=False)
    session = BACKEND.open(BACKEND.convert(program, TARGET, None, tmp_path), TARGET)
    with pytest.raises(DataError, match="shape"):
        session.run({"image": np.zeros((2, 1, 8, 8), np.float32)})
    with pytest.raises(DataError, match="dtype"):
        session.run({"image": np.zeros((1, 1, 8, 8), np.float64)})


def test_other_precisions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    program = programs._file_program(tmp_path / "m.onnx", "onnx", (), ())
    target = replace(TARGET, precision=Precision.W8A8)
    assert "as it is" in str(BACKEND.refuses(program, target))
    with pytest.raises(FormatMismatchError, match="fp32"):
        BACKEND.convert(program, target, None, tmp_path)
    assert "program is caffe" in str(BACKEND.refuses(replace(program, format="caffe"), TARGET))


@pytest.mark.toolchain("torch", "onnxruntime", "ai_edge_litert")
@pytest.mark.parametrize(
    ("name", "error"),
    [("m.pt2", FormatMismatchError), ("m.onnx", ConversionError), ("m.tflite", ConversionError)],
)
def test_broken_file_is_one_error(name: str, error: type[Exception], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"not a model at all" * 10)
    artifact = Artifact(
        files=(path,), target=TARGET, inputs=(), outputs=(), sha256="0" * 64, source_sha256="0" * 64
    )
    with pytest.raises(error, match=r"m\."):
        BACKEND.open(artifact, TARGET)


@pytest.mark.toolchain("torch")
def test_recorded_signature_must_fit_the_file(tmp_path: Path) -> None:
    program = programs.mlp_pt2(tmp_path)
    artifact = replace(BACKEND.convert(program, TARGET, None, tmp_path), inputs=program.inputs[:1])
    with pytest.raises(IntegrityError, match="takes 2 inputs"):
        BACKEND.open(artifact, TARGET)
