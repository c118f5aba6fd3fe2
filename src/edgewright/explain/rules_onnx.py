"""Rules for runtimes that read ONNX: ONNX Runtime by its kernel registry, OpenVINO by its probed front end."""

from __future__ import annotations

import re

from edgewright.explain.coverage import Verdict
from edgewright.explain.findings import OK, Finding, blocked
from edgewright.explain.graph import Graph, Operation, parts_of
from edgewright.explain.tables import FormatTable, Kernel

_TYPES = {"float32": "float", "float64": "double"}


def onnxruntime_onnx(graph: Graph, table: FormatTable) -> list[Finding]:
    """Return one finding per operation.

    A CPU kernel of the version and the types is needed, or a function body whose operators have kernels.
    """
    parts = parts_of(graph)
    found = []
    for index, operation in enumerate(graph.operations):
        own = _by_kernel(operation, table)
        inside = [_by_kernel(part, table) for part in parts.get(index, [])]
        if own is not OK and inside and not _stranger(operation, table):
            bad = [
                (part, finding)
                for part, finding in zip(parts[index], inside, strict=True)
                if finding is not OK
            ]
            part, finding = bad[0] if bad else (operation, OK)
            own = (
                OK if not bad else blocked(f"it is made of {part.operator}: {finding.reason}", part.operator)
            )
        found.append(own)
    newest = table.last_opset
    if newest and graph.opsets.get("", graph.opsets.get("ai.onnx", 0)) > newest:
        return [
            blocked(f"the model is of opset {max(graph.opsets.values())}, the runtime reads up to {newest}")
        ] * len(found)
    return found


def _by_kernel(operation: Operation, table: FormatTable) -> Finding:
    name = operation.operator
    if "is_function" in operation.attributes:
        return OK
    stranger = _stranger(operation, table)
    if stranger:
        return blocked(stranger)
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


def _stranger(operation: Operation, table: FormatTable) -> str:
    """Return why the runtime's own edition of ONNX does not know the operation as it is written, or an empty text."""
    known = [d for d in table.definitions.get(operation.operator, ()) if d.since <= operation.version]
    if not known:
        return f"the runtime knows no such operator of version {operation.version}"
    newest = max(known, key=lambda definition: definition.since)
    strange = sorted(set(operation.attributes) - newest.attributes)
    if strange:
        return f"the runtime's definition (version {newest.since}) has no attribute {', '.join(strange)}"
    if len(operation.inputs) > newest.max_inputs:
        return f"the runtime's definition (version {newest.since}) has {newest.max_inputs} inputs"
    return ""


def _refused_type(operation: Operation, kernel: Kernel) -> str:
    """Return the first dtype that the kernel does not take, or an empty text.

    float16 goes through a float32 kernel where there is no other: the runtime puts casts around it.
    """
    for value in operation.values:
        allowed = kernel.types.get(value.variable)
        if not value.dtype or allowed is None:
            continue
        name = _TYPES.get(value.dtype, value.dtype)
        if name == "float16" and "float" in allowed:
            continue
        if name not in allowed and any("(" not in text for text in allowed):
            return value.dtype
    return ""


def openvino_onnx(graph: Graph, table: FormatTable) -> list[Finding]:
    """Return one finding per operation: the front end must have a rule for the definition's version."""
    found = [_by_rule(operation, table) for operation in graph.operations]
    for uses in graph.uses:
        if uses and all(_is_unread(graph.operations[position], index) for position, index in uses):
            found[uses[0][0]] = blocked(
                "it reads an input of the model for its type or size alone, and the front end drops that input"
            )
    return found


def _is_unread(operation: Operation, index: int) -> bool:
    """Return whether the operation does not read the values of its input `index`."""
    if (operation.operator, index) == ("CastLike", 1):
        return True
    value = operation.given(index)
    return index > 0 and value is not None and value.shape is not None and 0 in value.shape


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
    data = operation.given(0)
    if operation.operator in _NEED_RANK and data is not None and data.shape is None:
        return blocked("the rank of its input is not known, as after an If whose branches differ in it")
    return OK


_NEED_RANK = (
    "AveragePool",
    "Conv",
    "ConvTranspose",
    "MaxPool",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
)


def probed_onnx(graph: Graph, table: FormatTable) -> list[Finding]:
    """Return one finding per operation by the probes alone; what they do not tell is unknown.

    A probe is a model of one operator. What it says of the model as a whole (types of inputs and outputs, weights
    that are inputs, a crash of the converter on sizes that it does not fold) does not hold inside another model, where
    only an operator that is missing as such blocks.
    """
    is_alone = len(graph.operations) == 1
    found = []
    for operation in graph.operations:
        given = [value for value in operation.inputs if value is not None]
        dtypes = [value.dtype + "*" * value.is_constant for value in given]
        tried = table.refused(operation.operator, dtypes)
        if tried is None and operation.operator in table.probes:
            tried = table.refused(operation.operator, ["float32", *dtypes[1:]])
        if tried == "":
            found.append(OK)
        elif tried is None:
            found.append(Finding(verdict=Verdict.UNKNOWN, reason="nobody tried it alone"))
        elif is_alone or table.lacks(operation.operator):
            found.append(blocked(_without_file(tried)))
        else:
            reason = f"it failed alone, as other inputs may not: {_without_file(tried)}"
            found.append(Finding(verdict=Verdict.UNKNOWN, reason=reason))
    return found


def _without_file(reason: str) -> str:
    """Return what a probe says, without the name of its file."""
    text = re.sub(r"^\S+\.onnx cannot become \w+: ", "", reason)
    text = re.sub(r"^(\w+) cannot convert \S+\.onnx: ", r"\1 cannot convert it: ", text)
    return text.partition(". Replace it")[0].partition(". Change the model")[0]
