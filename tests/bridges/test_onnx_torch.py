"""ONNX -> PyTorch: numbers against ONNX Runtime, constants folded, control flow unrolled, refusals by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgewright.backends import vendor
from edgewright.bridges.onnx_torch import OnnxToTorch
from edgewright.core.contracts import Bridge
from edgewright.core.errors import ConversionError, FormatMismatchError
from edgewright.core.program import Program
from edgewright.sources.onnx import read_onnx

FLOAT, INT64, BOOL, FLOAT16 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT16
RNG = np.random.default_rng(3)


def write(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 18,
    functions: Sequence[onnx.FunctionProto] = (),
) -> Program:
    held = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), held)
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(f.domain, 1) for f in functions]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10, functions=list(functions))
    path = folder / "model.onnx"
    onnx.save(model, path)
    return read_onnx(path, spec="model.onnx")


def value(name: str, shape: Sequence[int | str], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def convert(program: Program, folder: Path) -> Program:
    return OnnxToTorch().convert(program, folder / "bridge")


def operators(program: Program) -> list[str]:
    graph = vendor.load_exported(program).graph
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


def run(program: Program, *inputs: np.ndarray) -> list[np.ndarray]:
    module = vendor.load_exported(program).module()
    return [result.numpy() for result in module(*[torch.from_numpy(array) for array in inputs])]


def test_it_is_a_bridge_from_onnx_to_pt2() -> None:
    bridge = OnnxToTorch()
    assert isinstance(bridge, Bridge)
    assert (bridge.reads, bridge.writes, bridge.environment) == (("onnx",), "pt2", "")
    assert bridge.probe().is_available


def test_a_network_keeps_names_and_numbers(tmp_path: Path) -> None:
    constants = {
        "w": RNG.standard_normal((4, 3)).astype(np.float32),
        "b": RNG.standard_normal(3).astype(np.float32),
        "two": np.float32([2]),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], alpha=0.5, beta=2.0),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Mul", ["t", "two"], ["y"]),
    ]
    source = write(tmp_path, nodes, [value("x", ["n", 4])], [value("y", ["n", 3])], constants)
    made = convert(source, tmp_path)
    assert made.format == "pt2"
    assert made.path.suffix == ".pt2"
    assert [spec.name for spec in made.inputs] == ["x"]
    assert made.inputs[0].shape == (1, 4)
    assert made.outputs[0].shape == (1, 3)
    assert any("batch" in note for note in made.notes)
    assert made.history[-1].startswith("onnx -> pt2")
    x = RNG.standard_normal((1, 4)).astype(np.float32)
    (y,) = run(made, x)
    wanted = np.tanh(0.5 * x @ constants["w"] + 2 * constants["b"]) * 2
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)


def test_a_constant_matrix_becomes_a_linear_layer(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Gemm", ["h", "v", "c"], ["y"]),
    ]
    constants = {
        "w": RNG.standard_normal((4, 5)).astype(np.float32),
        "v": RNG.standard_normal((5, 2)).astype(np.float32),
        "c": RNG.standard_normal(2).astype(np.float32),
    }
    made = convert(write(tmp_path, nodes, [value("x", [1, 4])], [value("y", [1, 2])], constants), tmp_path)
    assert operators(made) == ["aten.linear.default", "aten.linear.default"]


def test_batch_normalization_vanishes_into_the_convolution(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["h", "s", "b", "m", "v"], ["y"]),
    ]
    constants = {name: RNG.random(4).astype(np.float32) + 0.5 for name in "sbmv"}
    constants["w"] = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    source = write(tmp_path, nodes, [value("x", [1, 3, 6, 6])], [value("y", [1, 4, 6, 6])], constants)
    made = convert(source, tmp_path)
    assert operators(made) == ["aten.conv2d.default"]
    assert len(vendor.load_exported(made).state_dict) == 2


def test_shape_arithmetic_is_folded_away(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.int64(0), "axes": np.int64([0]), "rest": np.int64([-1])}
    constants = {name: np.asarray(array) for name, array in constants.items()}
    made = convert(
        write(tmp_path, nodes, [value("x", [2, 3, 4])], [value("y", [2, 12])], constants), tmp_path
    )
    assert operators(made) == ["aten.reshape.default"]
    assert not vendor.load_exported(made).state_dict


@pytest.mark.parametrize("is_known", [True, False])
def test_if_takes_a_known_branch_and_selects_between_unknown_ones(tmp_path: Path, is_known: bool) -> None:
    then = helper.make_graph([helper.make_node("Relu", ["x"], ["a"])], "t", [], [value("a", [3])])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["b"])], "e", [], [value("b", [3])])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    inputs = [value("x", [3])] + ([] if is_known else [value("c", [], BOOL)])
    constants = {"c": np.asarray(False)} if is_known else {}
    made = convert(write(tmp_path, nodes, inputs, [value("y", [3])], constants), tmp_path)
    x = np.float32([-1, 2, -3])
    if is_known:
        assert operators(made) == ["aten.neg.default"]
        np.testing.assert_array_equal(run(made, x)[0], -x)
    else:
        np.testing.assert_array_equal(run(made, x, np.asarray(True))[0], np.maximum(x, 0))
        np.testing.assert_array_equal(run(made, x, np.asarray(False))[0], -x)


def test_a_loop_is_unrolled_with_its_scan_outputs(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Cast", ["i"], ["f"], to=FLOAT),
            helper.make_node("Add", ["v", "f"], ["v2"]),
            helper.make_node("Identity", ["c"], ["c2"]),
            helper.make_node("Mul", ["v2", "v2"], ["row"]),
        ],
        "body",
        [value("i", [], INT64), value("c", [], BOOL), value("v", [2])],
        [value("c2", [], BOOL), value("v2", [2]), value("row", [2])],
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["last", "rows"], body=body)]
    outputs = [value("last", [2]), value("rows", [3, 2])]
    made = convert(
        write(tmp_path, nodes, [value("x", [2])], outputs, {"n": np.asarray(np.int64(3))}), tmp_path
    )
    last, rows = run(made, np.float32([1, 2]))
    np.testing.assert_array_equal(last, [4, 5])
    np.testing.assert_array_equal(rows, [[1, 4], [4, 9], [16, 25]])


def test_a_loop_that_counts_at_run_time_is_refused(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "v"], ["v2"])],
        "body",
        [value("i", [], INT64), value("c", [], BOOL), value("v", [2])],
        [value("c2", [], BOOL), value("v2", [2])],
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)]
    source = write(tmp_path, nodes, [value("n", [], INT64), value("x", [2])], [value("y", [2])])
    with pytest.raises(ConversionError, match=r"operator Loop.*must be a constant"):
        convert(source, tmp_path)


def test_an_endless_loop_is_refused(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])],
        "body",
        [value("i", [], INT64), value("c", [], BOOL), value("v", [2])],
        [value("c2", [], BOOL), value("v2", [2])],
    )
    nodes = [helper.make_node("Loop", ["", "t", "x"], ["y"], body=body)]
    source = write(tmp_path, nodes, [value("x", [2])], [value("y", [2])], {"t": np.asarray(True)})
    with pytest.raises(ConversionError, match="runs more than 4096 times"):
        convert(source, tmp_path)


def test_every_unknown_operator_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], domain="acme"),
        helper.make_node("RandomNormalLike", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [value("x", [2])], [value("y", [2])])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("acme", 1)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    with pytest.raises(ConversionError, match=r"RandomNormalLike, acme\.Frobnicate"):
        convert(read_onnx(path, spec="x"), tmp_path)


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    double = helper.make_function(
        "acme",
        "Double",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )
    nodes = [helper.make_node("Double", ["x"], ["y"], domain="acme")]
    made = convert(write(tmp_path, nodes, [value("x", [2])], [value("y", [2])], functions=[double]), tmp_path)
    np.testing.assert_array_equal(run(made, np.float32([1, 3]))[0], [2, 6])


def test_half_precision_keeps_its_signature_and_is_computed_in_float32(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "k"], ["h"]), helper.make_node("Exp", ["h"], ["y"])]
    constants = {"k": np.float16([0.5])}
    source = write(tmp_path, nodes, [value("x", [2], FLOAT16)], [value("y", [2], FLOAT16)], constants)
    made = convert(source, tmp_path)
    assert (made.inputs[0].dtype, made.outputs[0].dtype) == ("float16", "float16")
    assert any("float32" in note for note in made.notes)
    assert run(made, np.float16([0, 2]))[0].dtype == np.float16


def test_outputs_are_tensors_of_their_own(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["same"]), helper.make_node("Relu", ["x"], ["y"])]
    outputs = [value("same", [2]), value("y", [2]), value("k", [1])]
    made = convert(write(tmp_path, nodes, [value("x", [2])], outputs, {"k": np.float32([7])}), tmp_path)
    same, y, k = run(made, np.float32([-1, 1]))
    np.testing.assert_array_equal(same, [-1, 1])
    np.testing.assert_array_equal(y, [0, 1])
    np.testing.assert_array_equal(k, [7])


def test_infinite_weights_are_computed_since_runtimes_clamp_stored_ones(tmp_path: Path) -> None:
    mask = np.float32([0, -np.inf, 2, np.inf])
    nodes = [helper.make_node("Add", ["x", "mask"], ["y"])]
    made = convert(
        write(tmp_path, nodes, [value("x", [2, 4])], [value("y", [2, 4])], {"mask": mask}), tmp_path
    )
    x = np.float32([[1, 2, 3, 4], [-1, 0, 5, 6]])
    np.testing.assert_array_equal(run(made, x)[0], x + mask)
    stored = vendor.load_exported(made).state_dict
    assert all(bool(torch.isfinite(tensor).all()) for tensor in stored.values())


def test_outputs_that_hold_texts_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["k"], ["y"])]
    texts = {"k": np.array(["a"], dtype=object)}
    source = write(tmp_path, nodes, [value("x", [1])], [value("y", [1], TensorProto.STRING)], texts)
    with pytest.raises(ConversionError, match="outputs y hold strings"):
        convert(source, tmp_path)


def test_a_size_that_depends_on_values_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    source = write(tmp_path, nodes, [value("x", [4])], [value("y", [1, "n"], INT64)])
    with pytest.raises(ConversionError, match="NonZero"):
        convert(source, tmp_path)


def test_a_tensor_of_a_terabyte_is_not_made(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["huge"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["s"], keepdims=0),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    source = write(
        tmp_path, nodes, [value("x", [2])], [value("y", [2])], {"huge": np.int64([1 << 20, 1 << 20])}
    )
    with pytest.raises(ConversionError, match=r"ConstantOfShape.*at most"):
        convert(source, tmp_path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    made = convert(write(tmp_path, nodes, [value("x", [2])], [value("y", [2])]), tmp_path)
    with pytest.raises(FormatMismatchError, match="reads onnx"):
        convert(made, tmp_path)


def test_a_wrong_program_is_not_let_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewright.bridges import onnx_ops

    onnx_ops.load_handlers()
    monkeypatch.setitem(onnx_ops._HANDLERS, ("", "Sinh"), lambda node, value: torch.sinh(value) * 1.001)
    nodes = [helper.make_node("Sinh", ["x"], ["y"])]
    with pytest.raises(ConversionError, match="differs by"):
        convert(write(tmp_path, nodes, [value("x", [8])], [value("y", [8])]), tmp_path)


@pytest.mark.parametrize(
    ("path", "inputs"),
    [("dtln/model_1.onnx", 2), ("dtln/model_2.onnx", 2), ("ultraface-slim/version-slim-320.onnx", 1)],
)
def test_real_models_agree_with_onnx_runtime(assets: Path, tmp_path: Path, path: str, inputs: int) -> None:
    import onnxruntime

    source = read_onnx(assets / "models" / path, spec=path)
    made = convert(source, tmp_path)
    assert len(made.inputs) == inputs
    feeds = {
        spec.name: RNG.random([d for d in spec.shape if d is not None]).astype(spec.dtype)
        for spec in made.inputs
    }
    session = onnxruntime.InferenceSession(str(source.path), providers=["CPUExecutionProvider"])
    wanted = session.run([spec.name for spec in source.outputs], feeds)
    for got, want in zip(run(made, *feeds.values()), wanted, strict=True):
        assert float(np.abs(got - want).max()) <= 1e-4
