"""Rules for runtimes that read `.tflite`."""

from __future__ import annotations

from edgewright.explain.findings import OK, Finding, blocked
from edgewright.explain.graph import Graph, Operation
from edgewright.explain.tables import FormatTable


def tflite_operators(graph: Graph, table: FormatTable) -> list[Finding]:
    """Return one finding per operation: a builtin operator needs a kernel, a custom one is never there."""
    return [_finding(operation, table) for operation in graph.operations]


def _finding(operation: Operation, table: FormatTable) -> Finding:
    if operation.operator.startswith("custom."):
        return blocked("it is a custom operator, whose code is not in the file")
    if operation.operator not in table.operators:
        return blocked("there is no kernel or rule for it")
    return OK
