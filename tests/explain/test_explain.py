"""Foretelling: what is supported is ok, what is not is blocked by name with a rewrite, and nothing is converted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.small_models import write_onnx

from edgewright.cli.main import run_command_line
from edgewright.core.errors import UnknownNameError
from edgewright.explain import explain
from edgewright.explain.coverage import Coverage, Verdict
from edgewright.sources import load

pytestmark = pytest.mark.toolchain("onnx", "onnxruntime", "openvino")


def _one(path: Path, operator: str, *, dtype: int = 1, domain: str = "", opset: int = 17) -> Path:
    """Write a model of one operator: x[2, 4] -> y."""
    import onnx
    from onnx import helper

    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", dtype, [2, 4])],
        [helper.make_tensor_value_info("y", dtype, [2, 4])],
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def _coverages(path: Path, tmp_path: Path, *runtimes: str) -> dict[str, Coverage]:
    found = explain(load(str(path), workdir=tmp_path / "work"), runtimes)
    return {coverage.runtime: coverage for coverage in found.coverages}


def test_a_supported_model_is_ok_and_its_cost_is_told(tmp_path: Path) -> None:
    program = load(str(write_onnx(tmp_path / "small.onnx")), workdir=tmp_path / "work")
    found = explain(program, ("onnxruntime", "openvino"))
    assert [coverage.verdict for coverage in found.coverages] == [Verdict.OK, Verdict.OK]
    assert found.macs == 8 * 64 * 9 + 512 * 10
    assert found.parameters == 8 * 9 + 512 * 10
    dearest = found.layers[0]
    assert dearest.operator == "MatMul"
    assert dearest.macs_share == pytest.approx(5120 / 9728)
    assert all(coverage.toolchain for coverage in found.coverages)


def test_an_operator_without_a_rule_blocks_by_name_with_a_rewrite(tmp_path: Path) -> None:
    path = _one(tmp_path / "one.onnx", "Bernoulli")
    coverage = _coverages(path, tmp_path, "openvino")["openvino"]
    assert coverage.verdict is Verdict.BLOCKED
    (blocker,) = coverage.blockers
    assert blocker.operator == "Bernoulli"
    assert "feed them as an input" in blocker.rewrite
    assert coverage.reason.startswith("Bernoulli: ")


def test_a_custom_domain_blocks(tmp_path: Path) -> None:
    path = _one(tmp_path / "one.onnx", "Magic", domain="org.example")
    for coverage in _coverages(path, tmp_path, "onnxruntime", "openvino").values():
        assert coverage.verdict is Verdict.BLOCKED
        assert [entry.operator for entry in coverage.blockers] == ["org.example.Magic"]
        assert "custom operator" in coverage.blockers[0].rewrite


def test_a_dtype_without_a_kernel_blocks_one_runtime_and_not_the_other(tmp_path: Path) -> None:
    from onnx import TensorProto

    path = _one(tmp_path / "one.onnx", "Asinh", dtype=TensorProto.DOUBLE)
    found = _coverages(path, tmp_path, "onnxruntime", "openvino")
    assert found["onnxruntime"].verdict is Verdict.BLOCKED
    assert "float64" in found["onnxruntime"].reason
    assert "cast its inputs" in found["onnxruntime"].blockers[0].rewrite
    assert found["openvino"].verdict is Verdict.OK


def test_a_probe_that_failed_alone_does_not_block_inside_a_model(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Reshape", ["x", "sizes"], ["same"]),
        helper.make_node("RoiAlign", ["same", "rois", "batch"], ["y"], output_height=2, output_width=2),
    ]
    graph = helper.make_graph(
        nodes,
        "three",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8]),
            helper.make_tensor_value_info("rois", TensorProto.FLOAT, [2, 4]),
            helper.make_tensor_value_info("batch", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 2, 2])],
    )
    path = tmp_path / "three.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    coverage = _coverages(path, tmp_path, "ncnn")["ncnn"]
    found = {entry.operator: entry for entry in coverage.operators}
    for name in ("Shape", "Reshape"):
        assert found[name].verdict is Verdict.UNKNOWN
        assert "failed alone" in found[name].reason
        assert found[name].rewrite == ""
    assert not any("test_" in entry.reason or ".onnx" in entry.reason for entry in coverage.operators)


def test_an_unknown_runtime_is_refused(tmp_path: Path) -> None:
    program = load(str(write_onnx(tmp_path / "small.onnx")), workdir=tmp_path / "work")
    with pytest.raises(UnknownNameError, match="openvino"):
        explain(program, ("openvinno",))


def test_no_table_is_unknown_and_never_a_guess(tmp_path: Path) -> None:
    coverage = _coverages(write_onnx(tmp_path / "small.onnx"), tmp_path, "tensorrt")["tensorrt"]
    assert coverage.verdict in (Verdict.UNKNOWN, Verdict.BLOCKED)
    assert coverage.reason


def test_the_command_prints_a_table_and_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = str(_one(tmp_path / "one.onnx", "Bernoulli"))
    assert run_command_line(["explain", path, "--to", "onnxruntime,openvino"]) == 0
    shown = capfd.readouterr().out
    assert "openvino" in shown
    assert "instead: draw the random numbers outside" in shown
    assert run_command_line(["explain", path, "--to", "openvino", "--json"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert record["coverages"][0]["verdict"] == "blocked"
    assert record["coverages"][0]["operators"][0]["operator"] == "Bernoulli"


@pytest.mark.toolchain("torch", "onnx", "onnxruntime")
def test_a_route_is_foretold_over_our_own_bridge(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "small.onnx")
    coverage = _coverages(path, tmp_path, "litert")["litert"]
    assert coverage.route == ("onnx", "pt2")
    assert coverage.verdict is Verdict.OK
    assert any(entry.operator.startswith("aten.") for entry in coverage.operators)


@pytest.mark.toolchain("torch")
def test_a_graph_of_a_torch_program_crosses_the_worker_as_json(tmp_path: Path) -> None:
    import torch

    from edgewright.explain.graph import Graph
    from edgewright.explain.read_torch import torch_graph

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.hardswish(self.inner(x)).masked_fill(x.sum() > 0, float("-inf"))

    exported = torch.export.export(Model().eval(), (torch.zeros(2, 4),))
    graph = torch_graph(exported, title="model")
    assert Graph.from_json(json.loads(json.dumps(graph.to_json(), allow_nan=False))) == graph
    linear = next(o for o in graph.operations if o.operator == "aten.linear.default")
    assert [value.is_constant for value in linear.inputs if value is not None] == [False, True, True]
    assert linear.macs == 2 * 12
    position = graph.operations.index(linear)
    assert {part.operator for part in graph.parts if part.part_of == position} >= {"aten.addmm.default"}
