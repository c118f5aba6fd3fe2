"""Rules for runtimes that read ONNX: ONNX Runtime by its kernel registry, OpenVINO by its probed front end."""

from __future__ import annotations

from edgewright.explain.findings import OK, Finding, blocked
from edgewright.explain.graph import Graph, Operation
from edgewright.explain.tables import FormatTable, Kernel

_TYPES = {"float32": "float", "float64": "double"}


def onnxruntime_onnx(graph: Graph, table: FormatTable) -> list[Finding]:
    """Return one finding per operation: a kernel of the version and the types is needed, or a function body."""
    return [_by_kernel(operation, table) for operation in graph.operations]


def _by_kernel(operation: Operation, table: FormatTable) -> Finding:
    name = operation.operator
    if "is_function" in operation.attributes or name in table.functions:
        return OK
    kernels = table.kernels.get(name, ())
    if not kernels:
        return blocked("there is no CPU kernel of this name")
    served = [kernel for kernel in kernels if kernel.serves(operation.version)]
    if not served:
        versions = ", ".join(str(kernel.since) for kernel in kernels)
        return blocked(f"its definition is of opset {operation.version}; there are kernels for {versions}")
    refused = [_refused_type(operation, kernel) for kernel in served]
    if all(refused):
        return blocked(f"there is no CPU kernel for {refused[0]}")
    return OK


def _refused_type(operation: Operation, kernel: Kernel) -> str:
    """Return the first dtype that the kernel does not take, or an empty text."""
    for value in operation.values:
        allowed = kernel.types.get(value.variable)
        if not value.dtype or allowed is None:
            continue
        name = _TYPES.get(value.dtype, value.dtype)
        if name not in allowed and any("(" not in text for text in allowed):
            return value.dtype
    return ""


def openvino_onnx(graph: Graph, table: FormatTable) -> list[Finding]:
    """Return one finding per operation: the front end must have a rule for the definition's version."""
    return [_by_rule(operation, table) for operation in graph.operations]


def _by_rule(operation: Operation, table: FormatTable) -> Finding:
    if "is_function" in operation.attributes:
        return OK
    versions = table.operators.get(operation.operator)
    if versions is None:
        return blocked("the front end has no conversion rule for it")
    if versions and operation.version not in versions:
        known = ", ".join(map(str, versions))
        return blocked(f"its definition is of opset {operation.version}; there are rules for {known}")
    if any(value.dtype == "string" for value in operation.values):
        return blocked("strings are not computed with")
    return OK
