"""A TensorFlow graph without its function calls: the operators that some outputs need, in the order of execution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgewright.core.errors import IntegrityError
from edgewright.sources.graph_def import Graph, GraphNode, Shape

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_MAX_DEPTH = 64
_MAX_STEPS = 50_000
_NOTHING = -1


@dataclass(frozen=True, kw_only=True)
class FlatOperator:
    """One operator; `inputs` are positions of the operators that it reads, -1 what is not known.

    Attributes:
        name: with the names of the calls around it.
        is_inner: in the body of a loop or a branch, which runs as often as the data says.
    """

    name: str
    node: GraphNode
    inputs: tuple[int, ...]
    is_inner: bool

    @property
    def output_shape(self) -> Shape | None:
        """The shape of its first output, where the file tells it."""
        return self.node.output_shapes[0] if self.node.output_shapes else self.node.shape


@dataclass(frozen=True, kw_only=True)
class _Scope:
    """The nodes of a graph or of a function that is called.

    Attributes:
        arguments: name -> position of what the caller handed over.
        results: node -> positions of its outputs, of which a plain operator has one for all.
    """

    nodes: Mapping[str, GraphNode]
    arguments: Mapping[str, int]
    path: str
    calls: tuple[str, ...]
    is_inner: bool
    results: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Found:
    """The operators so far; `steps` counts calls too, for functions without an operator can call without end."""

    operators: list[FlatOperator] = field(default_factory=list)
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise IntegrityError(
                f"the graph has over {_MAX_STEPS} operators and calls, with the bodies of all calls."
            )


def flatten(graph: Graph, outputs: Sequence[str]) -> list[FlatOperator]:
    """Return the operators that `outputs` (references as in GraphNode.inputs) need, calls replaced by their bodies.

    Raises:
        IntegrityError: a circle, calls deeper than 64, or over 50 000 operators and calls.
    """
    found = _Found()
    scope = _Scope(
        nodes={node.name: node for node in graph.nodes}, arguments={}, path="", calls=(), is_inner=False
    )
    _walk(graph, scope, outputs, found)
    return found.operators


def _split(reference: str) -> tuple[str, int]:
    """Return node and output number of "node", "node:1" or "node:output:1"."""
    name, *rest = reference.removeprefix("^").split(":")
    number = rest[-1] if rest else "0"
    return name, int(number) if number.isdecimal() and number.isascii() and len(number) < 9 else 0


def _walk(graph: Graph, scope: _Scope, outputs: Sequence[str], found: _Found) -> None:
    """Append what `outputs` need, inputs first; without recursion, for a graph may be thousands deep."""
    stack: list[tuple[str, bool]] = [(_split(reference)[0], False) for reference in outputs]
    open_nodes: set[str] = set()
    while stack:
        name, is_ready = stack.pop()
        if name in scope.results or name in scope.arguments or name not in scope.nodes:
            continue
        node = scope.nodes[name]
        if is_ready:
            open_nodes.discard(name)
            scope.results[name] = _emit(graph, scope, node, found)
            continue
        if name in open_nodes:
            if node.operator in ("Merge", "Enter", "NextIteration"):  # the loops of TensorFlow 1 are circles
                scope.results[name] = (_NOTHING,)
                continue
            raise IntegrityError(f"operator {name!r} reads its own output: the graph is damaged.")
        open_nodes.add(name)
        stack.append((name, True))
        stack += [
            (inner, False)
            for reference in node.inputs
            if (inner := _split(reference)[0]) not in scope.results
            and not (node.operator == "Merge" and inner in open_nodes)
        ]


def _emit(graph: Graph, scope: _Scope, node: GraphNode, found: _Found) -> tuple[int, ...]:
    """Append the operator, or the body of a call, and return the positions of its outputs."""
    found.step()
    inputs = tuple(_position(scope, reference) for reference in node.inputs if reference[:1] != "^")
    if node.operator in _CALLS and len(node.functions) == 1:
        return _call(graph, scope, node, node.functions[0], inputs, found, is_inner=scope.is_inner)
    found.operators.append(
        FlatOperator(name=f"{scope.path}{node.name}", node=node, inputs=inputs, is_inner=scope.is_inner)
    )
    place = len(found.operators) - 1
    for function in node.functions:  # the bodies of While and If
        _call(graph, scope, node, function, (), found, is_inner=True)
    return (place,)


def _call(
    graph: Graph,
    scope: _Scope,
    node: GraphNode,
    name: str,
    inputs: tuple[int, ...],
    found: _Found,
    *,
    is_inner: bool,
) -> tuple[int, ...]:
    function = graph.functions.get(name)
    if function is None:
        return (_NOTHING,)
    if name in scope.calls or len(scope.calls) >= _MAX_DEPTH:
        raise IntegrityError(f"function {name!r} calls itself, or calls are deeper than {_MAX_DEPTH}.")
    given = (*inputs, *(_NOTHING for _ in function.arguments))
    inner = _Scope(
        nodes={one.name: one for one in function.nodes},
        arguments=dict(zip(function.arguments, given, strict=False)),
        path=f"{scope.path}{node.name}/" if is_inner and not scope.is_inner else scope.path,
        calls=(*scope.calls, name),
        is_inner=is_inner,
    )
    _walk(graph, inner, function.returns, found)
    return tuple(_position(inner, reference) for reference in function.returns) or (_NOTHING,)


def _position(scope: _Scope, reference: str) -> int:
    name, number = _split(reference)
    if name in scope.arguments:
        return scope.arguments[name]
    results = scope.results.get(name, (_NOTHING,))
    return results[number] if number < len(results) else results[0]
