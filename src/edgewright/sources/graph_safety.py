"""Operators of a TensorFlow graph that do more than arithmetic: they run Python, or touch files or the network.

The families were sorted out of the operator registry of TensorFlow 2.21 (1911 operators). An operator that TensorFlow
does not know cannot be loaded, whatever its name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from edgewright.core.errors import UsageError
from edgewright.sources.graph_def import Graph, GraphNode
from edgewright.sources.saved_model_file import node_of

_LISTED = 8
_FAMILIES = {
    "run Python or native code": re.compile(
        r"PyFunc(Stateless)?|EagerPyFunc|RemoteCall|.*Custom.*Call.*|TfLite.*|TRTEngineOp|XlaHostCompute|XlaLaunch"
    ),
    "read or write files": re.compile(
        r"(?!ShardedFilename|ShardedFilespec).*(File|Snapshot|TFRecord|LMDB|CSV|Sql|TextLine|FixedLengthRecord).*"
        r"|Save|SaveV2|SaveSlices|Restore|RestoreV2|RestoreSlice|MergeV2Checkpoints|DTensorRestoreV2"
        r"|DistributedSave|CalibrationStatisticsSaver|LoadAndRemapMatrix|ImmutableConst|RecordInput|.*Reader(V2)?"
        r"|Reader.*|.*SummaryWriter|CreateSummary.*|Write.*Summary|ImportEvent|SummaryWriter|DebugIdentity.*"
        r"|DumpTensor|PrintV2|DecodeProto.*|EncodeProto|FixedUnigramCandidateSampler|.*Dataset.*|.*Iterator.*"
    ),
    "use the network or other processes": re.compile(
        r"Rpc.*|Collective.*|Nccl.*|_?(Send|Recv|HostSend|HostRecv)|Xla(Send|Recv).*|.*TPU.*|(In|Out)feed.*"
        r"|WorkerHeartbeat|.*DistributedTPU.*|Session.*|.*SessionHandle.*|.*SessionTensor"
    ),
}
# These are in every SavedModel, in the part that saves and restores its variables.
_OF_SAVERS = frozenset(
    {"SaveV2", "RestoreV2", "MergeV2Checkpoints", "SaveSlices", "Save", "Restore", "RestoreSlice"}
)


def unsafe_operators(
    graph: Graph, savers: Collection[str] = (), *, used: Collection[str] = (), objects: bytes = b""
) -> dict[str, list[str]]:
    """Return what operators do -> "Operator (node)" of those that do more than arithmetic; none is the rule.

    Args:
        savers: nodes that save and restore variables; what only they need may do so.
        used: nodes that run with the model (outputs of signatures, initialisers): what these need is no saver's,
            whatever the file calls it.
        objects: the object graph, by which TensorFlow 2 finds the function of a signature: a function that it names
            is no saver's either.
    """
    inside, functions = _needed_by(graph, savers, used)
    functions = {name for name in functions if name.encode() not in objects}
    found: dict[str, list[str]] = {}

    def look(nodes: Iterable[GraphNode], *, is_saver: bool) -> None:
        for node in nodes:
            for family, pattern in _FAMILIES.items():
                if pattern.fullmatch(node.operator) and not (is_saver and node.operator in _OF_SAVERS):
                    found.setdefault(family, []).append(f"{node.operator} ({node.name})")

    look((node for node in graph.nodes if node.name not in inside), is_saver=False)
    look((node for node in graph.nodes if node.name in inside), is_saver=True)
    for name, function in graph.functions.items():
        look(function.nodes, is_saver=name in functions)
    return found


def _needed_by(graph: Graph, savers: Collection[str], used: Collection[str]) -> tuple[set[str], set[str]]:
    """Return the nodes and functions that `savers` need, that `used` do not, and that nothing else calls."""
    nodes = {node.name: node for node in graph.nodes}
    inside = _reached(nodes, savers) - _reached(nodes, used)
    mine = _called(graph, (nodes[name] for name in inside))
    others = _called(graph, (node for node in graph.nodes if node.name not in inside))
    return inside, mine - others


def _reached(nodes: Mapping[str, GraphNode], roots: Collection[str]) -> set[str]:
    """Return the names of `roots` and of all that they read."""
    found: set[str] = set()
    stack = list(roots)
    while stack:
        name = stack.pop()
        if name not in found and name in nodes:
            found.add(name)
            stack += [node_of(reference) for reference in nodes[name].inputs]
    return found


def _called(graph: Graph, nodes: Iterable[GraphNode]) -> set[str]:
    found: set[str] = set()
    stack = [name for node in nodes for name in node.functions]
    while stack:
        name = stack.pop()
        if name not in found and name in graph.functions:
            found.add(name)
            stack += [inner for node in graph.functions[name].nodes for inner in node.functions]
    return found


def require_safe(
    path: Path,
    graph: Graph,
    savers: Collection[str],
    *,
    is_trusted: bool,
    used: Collection[str] = (),
    objects: bytes = b"",
) -> tuple[str, ...]:
    """Return notes on what the graph does besides arithmetic.

    Args:
        savers, used, objects: see `unsafe_operators`.
    Raises:
        UsageError: there is such a thing, and the file is not trusted; every kind of operator is named.
    """
    notes = []
    for family, operators in unsafe_operators(graph, savers, used=used, objects=objects).items():
        listed = ", ".join(dict.fromkeys(operators[:_LISTED])) + (
            f" and {len(operators) - _LISTED} more" if len(operators) > _LISTED else ""
        )
        if not is_trusted:
            raise UsageError(
                f"{path} has operators that {family}: {listed}. It is not run. Export the model without them, or "
                "give --trust if you know where it comes from."
            )
        notes.append(f"it has operators that {family}: {listed}")
    return tuple(notes)
