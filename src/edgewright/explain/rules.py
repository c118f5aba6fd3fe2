"""Which rule judges which runtime and format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgewright.explain.findings import OK, Finding
from edgewright.explain.graph import Graph
from edgewright.explain.rules_executorch import executorch_xnnpack
from edgewright.explain.rules_onnx import onnxruntime_onnx, openvino_onnx, probed_onnx
from edgewright.explain.rules_tflite import tflite_operators
from edgewright.explain.rules_torch import litert_torch, torch_names, torch_operators
from edgewright.explain.tables import FormatTable, load_table


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a runtime makes of a graph.

    Attributes:
        findings: one per operation.
        toolchain: package -> version that the table was made from.
        accelerator, partitions, is_accelerated: see `Coverage`; the last one per operation.
    """

    findings: tuple[Finding, ...]
    toolchain: Mapping[str, str]
    accelerator: str = ""
    partitions: int | None = None
    is_accelerated: tuple[bool, ...] = ()


Rule = Callable[[Graph, FormatTable], list[Finding]]

# (runtime, format) -> rule.
_RULES: Mapping[tuple[str, str], Rule] = {
    ("coreml", "pt2"): torch_names,
    ("litert", "pt2"): litert_torch,
    ("litert", "tflite"): tflite_operators,
    ("mnn", "onnx"): probed_onnx,
    ("ncnn", "onnx"): probed_onnx,
    ("onnxruntime", "onnx"): onnxruntime_onnx,
    ("onnxruntime", "pt2"): torch_operators,
    ("openvino", "onnx"): openvino_onnx,
    ("openvino", "pt2"): torch_operators,
    ("openvino", "tflite"): tflite_operators,
}
# Runtimes that read the table of another one: the same operators in another container.
_SAME_TABLE = {"onnxruntime-mobile": "onnxruntime", "executorch-coreml": "coreml"}
_EVERYTHING = "pytorch-mobile"  # it runs TorchScript with torch's own operators


def judge(runtime: str, graph: Graph) -> Judgement | None:
    """Return what `runtime` makes of `graph`, or None where no table tells."""
    if runtime == _EVERYTHING and graph.format in ("pt2", "torchscript"):
        return Judgement(findings=(OK,) * len(graph.operations), toolchain={})
    name = _SAME_TABLE.get(runtime, runtime)
    table = load_table(name)
    if table is None or graph.format not in table.formats:
        return None
    entry = table.formats[graph.format]
    if name == "executorch":
        delegation = executorch_xnnpack(graph, entry)
        return Judgement(
            findings=delegation.findings,
            toolchain=table.versions,
            accelerator="XNNPACK",
            partitions=delegation.partitions,
            is_accelerated=delegation.is_accelerated,
        )
    rule = _RULES.get((name, graph.format))
    if rule is None:
        return None
    return Judgement(findings=tuple(rule(graph, entry)), toolchain=table.versions)


def refusal_of_signature(runtime: str, graph: Graph, precision: str) -> str:
    """Return what `runtime` refuses before it looks at operators, or an empty text."""
    if runtime == "coreml" and graph.format == "pt2":
        if any(value.shape == () for value in graph.inputs):
            return "Core ML has no inputs of rank 0: give them one dimension"
        if graph.passes_through:
            return "Core ML has no output that is an input as it is: add an operator between, or leave the output out"
    if runtime == "executorch" and precision in ("w8", "w8a8", "w4a8"):
        names = [operation.operator for operation in graph.operations]
        if not any(name.startswith("quantized_decomposed.dequantize") for name in names):
            return (
                f"the source is {precision}, but XNNPACK gets no layer with int8 weights: use the float model"
            )
    return ""
