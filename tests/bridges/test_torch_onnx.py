"""PyTorch -> ONNX: names, order and a dynamic batch stay, and the numbers are torch's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends import onnx_graph
from edgewright.backends.reference import ReferenceBackend
from edgewright.bridges.torch_onnx import TorchToOnnx
from edgewright.compress.quantize import quantize_pt2e
from edgewright.core.errors import ConversionError, FormatMismatchError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array, TensorSpec

pytestmark = pytest.mark.toolchain("torch", "onnx", "onnxruntime", "onnxscript")

BRIDGE = TorchToOnnx()


def run(program: Program, folder: Path, inputs: dict[str, Array]) -> dict[str, Array]:
    plain = Target(runtime="reference")
    backend = ReferenceBackend()
    session = backend.open(backend.convert(program, plain, None, folder), plain)
    return {name: np.asarray(array) for name, array in session.run(inputs).items()}


@pytest.mark.parametrize("is_dynamic", [True, False])
def test_two_inputs_and_two_outputs_keep_their_order(tmp_path: Path, is_dynamic: bool) -> None:
    program = programs.mlp_pt2(tmp_path, is_dynamic=is_dynamic)
    made = BRIDGE.convert(program, tmp_path / "onnx")
    assert (made.format, made.inputs, made.outputs) == ("onnx", program.inputs, program.outputs)
    assert made.history[-1] == "pt2 -> onnx (torch.onnx.export)"
    batch = 3 if is_dynamic else 1
    draw = np.random.default_rng(5)
    given = {
        spec.name: draw.normal(size=(batch, *spec.shape[1:])).astype(np.float32)  # type: ignore[arg-type]
        for spec in program.inputs
    }
    expected, got = run(program, tmp_path, given), run(made, tmp_path, given)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)


def test_the_same_program_gives_the_same_digest(tmp_path: Path) -> None:
    program = programs.cnn_pt2(tmp_path)
    digests = {BRIDGE.convert(program, tmp_path / name).sha256 for name in ("a", "b")}
    assert len(digests) == 1


def test_a_quantized_program_becomes_qdq(tmp_path: Path) -> None:
    program = programs.cnn_pt2(tmp_path)
    calibration = programs.calibration_for(program, tmp_path)
    quantized = quantize_pt2e(
        program, precision=Precision.W8A8, calibration=calibration, workdir=tmp_path / "q"
    )
    made = BRIDGE.convert(replace(quantized, inputs=program.inputs), tmp_path / "onnx")
    assert made.precision == "w8a8"
    operators = {node.op_type for node in onnx_graph.load(made.path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators


def test_operators_without_a_translation_are_named(tmp_path: Path) -> None:
    import torch

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x) + torch.special.airy_ai(x)

    path = tmp_path / "odd.pt2"
    torch.export.save(torch.export.export(Odd(), (torch.ones(1, 3),)), path)
    spec = TensorSpec(name="x", shape=(1, 3), dtype="float32")
    program = replace(
        programs.mlp_pt2(tmp_path), path=path, inputs=(spec,), outputs=(replace(spec, name="y"),)
    )
    with pytest.raises(ConversionError, match=r"special_airy_ai.*special_bessel_j0"):
        BRIDGE.convert(program, tmp_path / "onnx")
    with pytest.raises(FormatMismatchError, match="reads pt2"):
        BRIDGE.convert(replace(program, format="tflite"), tmp_path / "onnx")
