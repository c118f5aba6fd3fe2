"""Rules for runtimes that read `.pt2`: an operator is taken as it is, or through its core ATen decomposition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from edgewright.explain.findings import OK, Finding, blocked
from edgewright.explain.graph import Graph, Operation
from edgewright.explain.tables import FormatTable

# Checks on values, sizes and copies that every converter removes before it looks at operators.
REMOVED = (
    "aten._assert_async.msg",
    "aten._assert_scalar.default",
    "aten._assert_tensor_metadata.default",
    "aten.alias.default",
    "aten.alias_copy.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.detach_.default",
    "aten.lift_fresh_copy.default",
    "aten.sym_constrain_range_for_size.default",
    "aten.sym_size.int",
)


def torch_operators(graph: Graph, table: FormatTable) -> list[Finding]:
    """Return one finding per operation for a table of overloads (LiteRT, OpenVINO, ONNX Runtime's exporter)."""

    def is_taken(operation: Operation) -> bool:
        return operation.operator in table.operators or operation.operator in table.decomposed

    return _findings(graph, is_taken)


def torch_names(graph: Graph, table: FormatTable) -> list[Finding]:
    """Return one finding per operation for a table of names without overloads (Core ML)."""

    def is_taken(operation: Operation) -> bool:
        name = operation.operator.partition(".")[2]
        bare = name.removesuffix(".default")
        return not {bare, name, name.partition(".")[0]}.isdisjoint(table.names)

    return _findings(graph, is_taken)


def _findings(graph: Graph, is_taken: Callable[[Operation], bool]) -> list[Finding]:
    parts = parts_of(graph)
    found = []
    for index, operation in enumerate(graph.operations):
        inner = parts.get(index, [])
        if operation.operator in REMOVED or is_taken(operation):
            found.append(OK)
            continue
        missing = sorted(
            {part.operator for part in inner if not is_taken(part) and part.operator not in REMOVED}
        )
        if inner and not missing:
            found.append(OK)
        elif operation.depth:
            found.append(blocked("control flow is not converted"))
        elif missing and missing != [operation.operator]:
            found.append(blocked(f"it is made of {', '.join(missing)}, which is not supported", missing[0]))
        else:
            found.append(blocked("there is no lowering for it"))
    return found


def parts_of(graph: Graph) -> Mapping[int, list[Operation]]:
    """Return position of an operation -> the core ATen operations that it is made of."""
    found: dict[int, list[Operation]] = defaultdict(list)
    for part in graph.parts:
        if part.part_of is not None:
            found[part.part_of].append(part)
    return found
