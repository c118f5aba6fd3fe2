"""ONNX Runtime: each precision changes what it says, keeps the numbers, and refuses what it cannot do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends import onnx_graph, onnx_qdq
from edgewright.backends.onnxruntime import OnnxRuntimeBackend, export
from edgewright.backends.reference import ReferenceBackend
from edgewright.compress.quantize import quantize_pt2e
from edgewright.core.artifact import Artifact
from edgewright.core.errors import ConversionError, DataError, FormatMismatchError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Array, TensorSpec
from edgewright.sources import load

pytestmark = pytest.mark.toolchain("torch", "torchao", "onnx", "onnxruntime", "onnxscript")

BACKEND = OnnxRuntimeBackend()


def target(precision: str, **changes: object) -> Target:
    return replace(Target(runtime="onnxruntime", precision=Precision(precision)), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnxruntime")


@pytest.fixture(scope="module")
def cnn(folder: Path) -> Program:
    return programs.cnn_pt2(folder / "cnn")


@pytest.fixture(scope="module")
def mlp(folder: Path) -> Program:
    return programs.mlp_onnx(folder / "mlp")


@pytest.fixture(scope="module")
def quantized(cnn: Program, folder: Path) -> Program:
    calibration = programs.calibration_for(cnn, folder / "pt2e")
    return quantize_pt2e(cnn, precision=Precision.W8A8, calibration=calibration, workdir=folder / "pt2e")


def run(artifact: Artifact, image: Array) -> Array:
    results = BACKEND.open(artifact, artifact.target).run({artifact.inputs[0].name: image})
    return np.asarray(results[artifact.outputs[0].name])


def graph(artifact: Artifact) -> tuple[Counter[str], dict[str, np.dtype[np.generic]]]:
    model = onnx_graph.load(artifact.path)
    held = {t.name: onnx_dtype(t.data_type) for t in model.graph.initializer}
    return Counter(node.op_type for node in model.graph.node), held


def onnx_dtype(code: int) -> np.dtype[np.generic]:
    from onnx import helper

    return np.dtype(helper.tensor_dtype_to_np_dtype(code))


def test_onnx_source_in_fp32_is_the_same_file(mlp: Program, folder: Path) -> None:
    artifact = BACKEND.convert(mlp, target("fp32"), None, folder / "same")
    assert artifact.sha256 == mlp.sha256
    assert artifact.path != mlp.path


def test_initialisers_listed_as_inputs_are_no_inputs(folder: Path) -> None:
    program = programs.mlp_onnx(folder / "listed", lists_initialisers=True)
    for precision in ("fp32", "fp16", "w8"):
        artifact = BACKEND.convert(program, target(precision), None, folder / f"listed-{precision}")
        assert [spec.name for spec in artifact.inputs] == ["left", "right"]


def test_export_keeps_no_path_of_this_machine(cnn: Program, folder: Path) -> None:
    artifact = BACKEND.convert(cnn, target("fp32"), None, folder / "clean")
    content = artifact.path.read_bytes()
    assert b".py" not in content
    assert b"stack_trace" not in content


def test_fp16_halves_the_weights_and_keeps_float32_at_the_edges(cnn: Program, folder: Path) -> None:
    artifact = BACKEND.convert(cnn, target("fp16"), None, folder / "fp16")
    _, held = graph(artifact)
    assert held["stem.weight"] == np.float16
    assert {spec.dtype for spec in (*artifact.inputs, *artifact.outputs)} == {"float32"}


def test_fp16_refuses_a_weight_beyond_its_range(mlp: Program, folder: Path) -> None:
    from onnx import numpy_helper

    model = onnx_graph.load(mlp.path)
    weight = model.graph.initializer[0]
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] = 70000.0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    path = folder / "large.onnx"
    onnx_graph.save(model, path)
    with pytest.raises(ConversionError, match=r"'first' holds 70000, but float16 ends at 65504"):
        BACKEND.convert(replace(mlp, path=path), target("fp16"), None, folder / "large")


def test_w8_stores_int8_per_channel_within_half_a_step(mlp: Program, folder: Path) -> None:
    from onnx import numpy_helper

    artifact = BACKEND.convert(mlp, target("w8"), None, folder / "w8")
    before = {t.name: numpy_helper.to_array(t) for t in onnx_graph.load(mlp.path).graph.initializer}
    after = {t.name: numpy_helper.to_array(t) for t in onnx_graph.load(artifact.path).graph.initializer}
    for name, axis in (("first", 1), ("second", 1), ("third", 0)):
        if f"{name}_int8" not in after:  # [1, 48] has one channel of 48 elements: left as it is
            assert before[name].size < onnx_graph.MIN_QUANTIZED_ELEMENTS
            continue
        steps, scale = after[f"{name}_int8"], after[f"{name}_scale"]
        assert steps.dtype == np.int8
        scale = np.expand_dims(scale, 1 - axis)
        assert np.abs(steps * scale - before[name]).max() <= 0.5001 * scale.max()
        assert (np.abs(steps).max(axis=1 - axis) == 127).all()
    assert after["first_bias"].dtype == np.float32


def test_pt2e_becomes_uint8_by_int8_with_the_same_values(quantized: Program, folder: Path) -> None:
    artifact = BACKEND.convert(quantized, target("w8a8"), None, folder / "pt2e-artifact")
    model = onnx_graph.load(artifact.path)
    held = {t.name: onnx_dtype(t.data_type) for t in model.graph.initializer}
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert quantizers
    assert {held[node.input[2]] for node in quantizers} == {np.dtype(np.uint8)}
    weights = [n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in held]
    assert len(weights) == 4
    assert {held[name] for name in weights} == {np.dtype(np.int8)}
    assert not any(dtype == np.float32 and name.endswith(".weight") for name, dtype in held.items())

    # The graph as exported, int8 by int8 and unfolded, gives the same numbers without any optimisation.
    plain = export(quantized)
    onnx_graph.save(plain, folder / "plain.onnx")
    draw = np.random.default_rng(5)
    image = draw.normal(0.3, 1.0, (16, 1, 8, 8)).astype(np.float32)
    reference = ReferenceBackend()
    as_exported = reference.open(artifact.moved((folder / "plain.onnx",)), target("w8a8"))
    lowered = reference.open(artifact, target("w8a8"))
    given = {"image": image}
    np.testing.assert_array_equal(as_exported.run(given)["logits"], lowered.run(given)["logits"])


def test_pt2e_runs_as_integer_kernels(quantized: Program, folder: Path) -> None:
    artifact = BACKEND.convert(quantized, target("w8a8"), None, folder / "kernels")
    session = BACKEND.open(artifact, target("w8a8"), profile=True)
    costs = session.layers({"image": np.zeros((1, 1, 8, 8), np.float32)})
    operators = Counter(cost.operator for cost in costs)
    assert operators["QLinearConv"] == 3
    assert operators["QGemm"] == 1
    assert operators["Conv"] == 0
    assert sum(cost.time_us for cost in costs) > 0


def test_native_quantizer_gives_uint8_by_int8(cnn: Program, folder: Path) -> None:
    calibration = programs.calibration_for(cnn, folder / "native-calibration")
    wanted = target("w8a8", quantizer=Quantizer.NATIVE)
    artifact = BACKEND.convert(cnn, wanted, calibration, folder / "native")
    operators, held = graph(artifact)
    assert operators["QuantizeLinear"] > 3
    assert sum(dtype == np.int8 for dtype in held.values()) >= 4
    image = np.random.default_rng(5).normal(0.3, 1.0, (16, 1, 8, 8)).astype(np.float32)
    plain = BACKEND.convert(cnn, target("fp32"), None, folder / "native-fp32")
    error = run(artifact, image) - run(plain, image)
    assert np.abs(error).max() < 0.1 * np.abs(run(plain, image)).max()


def test_w8a8_needs_a_calibration(mlp: Program, folder: Path) -> None:
    with pytest.raises((ConversionError, DataError), match="calibration"):
        BACKEND.convert(mlp, target("w8a8"), None, folder / "bare")


def test_nhwc_is_made_on_request(cnn: Program, folder: Path) -> None:
    known = replace(cnn, inputs=(replace(cnn.inputs[0], layout="nchw"),))
    artifact = BACKEND.convert(known, target("fp32", layout="nhwc"), None, folder / "nhwc")
    assert artifact.inputs[0].shape == (None, 8, 8, 1)
    assert artifact.inputs[0].layout == "nhwc"
    image = np.random.default_rng(5).normal(size=(2, 1, 8, 8)).astype(np.float32)
    plain = BACKEND.convert(cnn, target("fp32"), None, folder / "nchw")
    moved = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(run(artifact, moved), run(plain, image), rtol=1e-5, atol=1e-6)


def test_unsupported_operators_are_all_named(folder: Path) -> None:
    import torch

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x) + torch.special.airy_ai(x)

    spec = TensorSpec(name="x", shape=(3,), dtype="float32")
    exported = torch.export.export(Odd(), (torch.ones(3),))
    path = folder / "odd.pt2"
    torch.export.save(exported, path)
    program = replace(
        programs._file_program(path, "pt2", (spec,), (replace(spec, name="y"),)), origin_format="pt2"
    )
    with pytest.raises(ConversionError, match=r"special_airy_ai.*special_bessel_j0"):
        BACKEND.convert(program, target("fp32"), None, folder / "odd")


@pytest.mark.parametrize(
    ("changes", "wanted", "reason"),
    [
        ({"format": "tflite"}, target("fp32"), "reads pt2, onnx"),
        ({"precision": "w8a8"}, target("fp32"), "already w8a8"),
        ({}, target("w8a8", quantizer=Quantizer.PT2E), "not onnx"),
        ({}, target("w8", quantizer=Quantizer.PT2E), "native"),
        ({}, target("fp32", accelerator=("gpu",)), "gpu"),
    ],
)
def test_refusals_have_reasons(
    mlp: Program, folder: Path, changes: dict[str, str], wanted: Target, reason: str
) -> None:
    program = replace(mlp, **changes)  # type: ignore[arg-type]
    assert reason in str(BACKEND.refuses(program, wanted))
    with pytest.raises(FormatMismatchError, match=reason):
        BACKEND.convert(program, wanted, None, folder / "refused")


def test_a_transposed_quantized_weight_is_stored_transposed() -> None:
    from onnx import TensorProto, helper, numpy_helper

    steps = np.arange(6, dtype=np.int8).reshape(2, 3)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["float_w"], axis=0),
        helper.make_node("Transpose", ["float_w"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
            [
                numpy_helper.from_array(steps, "w"),
                numpy_helper.from_array(np.array([0.5, 0.25], np.float32), "scale"),
                numpy_helper.from_array(np.zeros(2, np.int8), "zero"),
            ],
        )
    )
    onnx_qdq.fold_transposes(model)
    assert [node.op_type for node in model.graph.node] == ["DequantizeLinear", "MatMul"]
    assert model.graph.node[0].attribute[0].i == 1
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[-1]), steps.T)


def test_what_the_runtime_computes_otherwise_than_the_standard_is_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Dropout", ["x", "ratio", "is_training"], ["y"])],
        "random",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [
            helper.make_tensor("ratio", TensorProto.FLOAT, [], [0.5]),
            helper.make_tensor("is_training", TensorProto.BOOL, [], [True]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "random.onnx")
    program = load(str(tmp_path / "random.onnx"), workdir=tmp_path / "work")
    with pytest.raises(ConversionError, match="Dropout 'y' in its training mode, which is random"):
        OnnxRuntimeBackend().convert(program, target("fp32"), None, tmp_path / "out")
