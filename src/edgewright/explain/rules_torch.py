"""Rules for runtimes that read `.pt2`: an operator is taken as it is, or through its core ATen decomposition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgewright.explain.findings import OK, Finding, blocked
from edgewright.explain.graph import Graph, Operation, parts_of
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


def litert_torch(graph: Graph, table: FormatTable) -> list[Finding]:
    """Return one finding per operation for LiteRT."""
    return [
        blocked(_ONE_PIECE) if _is_one_piece(operation) else finding
        for operation, finding in zip(graph.operations, torch_operators(graph, table), strict=True)
    ]


# The lowering returns the tensor itself instead of a list of one, which the next operator cannot read.
_ONE_PIECE = "a split into one piece is not lowered"


def _is_one_piece(operation: Operation) -> bool:
    sizes = operation.attributes.get("split_sizes")
    return (
        operation.operator == "aten.split_with_sizes.default" and isinstance(sizes, tuple) and len(sizes) == 1
    )


def torch_operators(graph: Graph, table: FormatTable) -> list[Finding]:
    """Return one finding per operation for a table of overloads (LiteRT, OpenVINO, ONNX Runtime's exporter)."""

    def is_known(operation: Operation) -> bool:
        return operation.operator in table.operators or operation.operator in table.decomposed

    return _findings(graph, table, is_known)


def torch_names(graph: Graph, table: FormatTable) -> list[Finding]:
    """Return one finding per operation for a table of names without overloads (Core ML, which decomposes nothing)."""

    def is_known(operation: Operation) -> bool:
        name = operation.operator.partition(".")[2]
        bare = name.removesuffix(".default")
        return not {bare, name, name.partition(".")[0]}.isdisjoint(table.names)

    found = _findings(replace(graph, parts=()), table, is_known)
    return [
        blocked("padding by a negative number is not converted") if _crops(operation) else finding
        for operation, finding in zip(graph.operations, found, strict=True)
    ]


def _crops(operation: Operation) -> bool:
    sizes = operation.attributes.get("pad")
    return isinstance(sizes, tuple) and any(isinstance(size, int) and size < 0 for size in sizes)


def _findings(graph: Graph, table: FormatTable, is_known: Callable[[Operation], bool]) -> list[Finding]:
    parts = parts_of(graph)
    left = {part.operator for part in graph.parts}
    found = []
    for index, operation in enumerate(graph.operations):
        tried = refusal(operation, table)
        if operation.operator in REMOVED or tried == "":
            found.append(OK)
        elif tried:
            found.append(blocked(tried))
        elif is_known(operation):
            found.append(OK)
        elif graph.parts and index not in parts and operation.operator not in left:
            found.append(OK)  # the decomposition has removed it: a constant, or a copy
        elif operation.depth:
            found.append(blocked("control flow is not converted"))
        else:
            found.append(_made_of(operation, parts.get(index, []), table, is_known))
    return found


def _made_of(
    operation: Operation,
    parts: Sequence[Operation],
    table: FormatTable,
    is_known: Callable[[Operation], bool],
) -> Finding:
    for part in parts:
        tried = refusal(part, table)
        if part.operator in REMOVED or tried == "" or (tried is None and is_known(part)):
            continue
        if part.operator == operation.operator:
            return blocked("there is no lowering for it")
        return blocked(
            f"it is made of {part.operator}: {tried or 'there is no lowering for it'}", part.operator
        )
    return OK if parts else blocked("there is no lowering for it")


def refusal(operation: Operation, table: FormatTable) -> str | None:
    """Return why a model of this operator alone was refused, an empty text if it was taken, None if nobody tried."""
    first = next(iter(operation.values), None)
    return table.refused(operation.operator, [first.dtype] if first is not None else [])
