"""TensorRT without a GPU: the ONNX model and the command are what they must be. With one, the suite runs the engine."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends import cuda_driver, onnx_graph, onnx_qdq
from edgewright.backends.onnx_session import OnnxSession
from edgewright.backends.reference import ReferenceBackend
from edgewright.backends.tensorrt import TensorrtBackend, build_command
from edgewright.compress.quantize import quantize_pt2e
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.errors import ConversionError, FormatMismatchError, UnavailableError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Array, TensorSpec
from edgewright.testing import check_backend

pytestmark = pytest.mark.toolchain("torch", "onnx", "onnxruntime", "onnxscript")

BACKEND = TensorrtBackend()


def target(precision: str = "fp32", quantizer: Quantizer | None = None) -> Target:
    return Target(runtime="tensorrt", precision=Precision(precision), quantizer=quantizer)


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "device_count", lambda: 0)


def model_outputs(artifact: Artifact, inputs: dict[str, Array]) -> list[Array]:
    """Return what the ONNX model of a recipe gives in unoptimised ONNX Runtime."""
    session = OnnxSession(artifact.path, artifact.inputs, artifact.outputs, threads=1, is_optimised=False)
    results = session.run(inputs)
    return [np.asarray(results[spec.name]) for spec in artifact.outputs]


def source_outputs(program: Program, folder: Path, inputs: dict[str, Array]) -> list[Array]:
    plain = Target(runtime="reference")
    backend = ReferenceBackend()
    results = backend.open(backend.convert(program, plain, None, folder), plain).run(inputs)
    return [np.asarray(results[spec.name]) for spec in program.outputs]


def test_conformance(tmp_path: Path) -> None:
    given = [programs.cnn_pt2(tmp_path / "a"), programs.mlp_onnx(tmp_path / "b", is_dynamic=False)]
    calibrations = {str(p.path): programs.calibration_for(p, tmp_path / f"c{i}") for i, p in enumerate(given)}
    report = check_backend(BACKEND, programs=given, calibrations=calibrations, workdir=tmp_path / "work")
    assert {pair.precision for pair in report.converted} == {Precision.FP32, Precision.FP16, Precision.W8A8}
    proofs = {pair.proof for pair in report.converted}
    assert proofs == {
        Proof.RUN if BACKEND.probe().versions.get("tensorrt") and cuda_driver.device_count() else Proof.RECIPE
    }


@pytest.mark.parametrize(("precision", "least_db"), [("fp32", 100.0), ("fp16", 45.0), ("w8a8", 20.0)])
def test_the_model_of_a_recipe_keeps_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, least_db: float
) -> None:
    without_gpu(monkeypatch)
    program = programs.cnn_pt2(tmp_path)
    calibration = programs.calibration_for(program, tmp_path)
    artifact = BACKEND.convert(program, target(precision), calibration, tmp_path / "out")
    assert [path.name for path in artifact.files] == ["model.onnx", "build.sh"]
    inputs = {"image": np.random.default_rng(8).normal(0.3, 1.0, (32, 1, 8, 8)).astype(np.float32)}
    (want,), (got,) = source_outputs(program, tmp_path, inputs), model_outputs(artifact, inputs)
    assert 10 * np.log10(np.square(want).sum() / np.square(got - want).sum()) > least_db


def test_int8_is_symmetric_and_only_before_linear_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_gpu(monkeypatch)
    program = programs.cnn_onnx(tmp_path)
    calibration = programs.calibration_for(program, tmp_path)
    artifact = BACKEND.convert(program, target("w8a8"), calibration, tmp_path / "out")
    model = onnx_graph.load(artifact.path)
    assert onnx_qdq.asymmetric(model) == []
    made_by = {name: node for node in model.graph.node for name in node.output}
    linear = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(linear) == 4
    for node in linear:
        assert [made_by[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
        assert all(name not in made_by for name in node.input[2:])  # the bias is a float constant
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [made_by[node.input[1]].input[0] for node in linear]
    assert {held[name].data_type for name in weights} == {3}  # INT8


def test_a_source_with_zero_points_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    float_program = programs.cnn_pt2(tmp_path)
    calibration = programs.calibration_for(float_program, tmp_path)
    quantized = quantize_pt2e(
        float_program, precision=Precision.W8A8, calibration=calibration, workdir=tmp_path / "q"
    )
    assert "zero points" in str(BACKEND.refuses(quantized, target("w8a8")))
    from edgewright.bridges.torch_onnx import TorchToOnnx

    shifted = TorchToOnnx().convert(replace(quantized, inputs=float_program.inputs), tmp_path / "onnx")
    with pytest.raises(ConversionError, match="zero point of 0"):
        BACKEND.convert(shifted, target("w8a8"), None, tmp_path / "out")
    symmetric = BACKEND.convert(float_program, target("w8a8"), calibration, tmp_path / "symmetric")
    again = BACKEND.convert(replace(shifted, path=symmetric.path), target("w8a8"), None, tmp_path / "again")
    assert again.files[0].read_bytes() == symmetric.files[0].read_bytes()


def test_the_command_fits_the_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    program = programs.mlp_onnx(tmp_path)
    artifact = BACKEND.convert(program, target("fp16"), None, tmp_path / "out")
    script = artifact.files[1].read_text().splitlines()
    words = shlex.split(script[-1])
    assert words[:3] == ["trtexec", "--onnx=model.onnx", "--saveEngine=model.engine"]
    assert "--stronglyTyped" in words
    assert words[-3:] == [
        "--minShapes=left:1x6,right:1x3",
        "--optShapes=left:1x6,right:1x3",
        "--maxShapes=left:32x6,right:32x3",
    ]
    assert script[-1] in " ".join(artifact.notes)
    assert "not been run" in " ".join(artifact.notes)
    static = TensorSpec(name="x", shape=(1, 3), dtype="float32")
    assert "Shapes" not in build_command([static])
    odd = replace(static, name="Input:0", shape=(None, 3))
    assert shlex.split(build_command([odd]))[-1] == "--maxShapes='Input:0':32x3"


def test_another_dynamic_dimension_is_refused(tmp_path: Path) -> None:
    program = programs.mlp_onnx(tmp_path)
    spec = TensorSpec(name="left", shape=(1, None), dtype="float32")
    with pytest.raises(ConversionError, match="dynamic dimension"):
        BACKEND.convert(replace(program, inputs=(spec, program.inputs[1])), target(), None, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "wanted", "reason"),
    [
        ({"format": "tflite"}, target(), "reads pt2, onnx"),
        ({}, target("w8"), "not w8"),
        ({}, replace(target(), accelerator=("npu",)), "npu"),
        ({"precision": "w8a8"}, target("fp16"), "already w8a8"),
        ({}, target("w8a8", Quantizer.PT2E), "zero points"),
        ({}, target("w8a8", Quantizer.ACCURACY), "OpenVINO"),
        ({}, replace(target(), layout="nhwc"), "layout"),
    ],
)
def test_refusals_have_reasons(tmp_path: Path, changes: dict[str, str], wanted: Target, reason: str) -> None:
    program = replace(programs.mlp_onnx(tmp_path), **changes)  # type: ignore[arg-type]
    assert reason in str(BACKEND.refuses(program, wanted))
    with pytest.raises(FormatMismatchError, match=reason):
        BACKEND.convert(program, wanted, None, tmp_path / "out")


def test_w8a8_needs_a_calibration(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="calibration"):
        BACKEND.convert(programs.mlp_onnx(tmp_path), target("w8a8"), None, tmp_path / "out")


def test_a_host_without_a_gpu_says_so() -> None:
    if cuda_driver.device_count():
        pytest.skip("an NVIDIA GPU is here")
    with pytest.raises(UnavailableError, match="no NVIDIA GPU"):
        cuda_driver.Device()
