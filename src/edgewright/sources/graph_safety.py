"""Operators of a TensorFlow graph that do more than arithmetic: they run Python, or touch files or the network.

The families were sorted out of the operator registry of TensorFlow 2.21 (1911 operators). An operator that TensorFlow
does not know cannot be loaded, whatever its name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
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


def unsafe_operators(graph: Graph, savers: Collection[str] = ()) -> dict[str, list[str]]:
    """Return what operators do -> "Operator (node)" of those that do more than arithmetic; none is the rule.

    Args:
        savers: nodes that save and restore variables; what only they need may do so.
    """
    inside, functions = _needed_by(graph, savers)
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


def _needed_by(graph: Graph, savers: Collection[str]) -> tuple[set[str], set[str]]:
    """Return the nodes and functions that `savers` need and that nothing else calls."""
    nodes = {node.name: node for node in graph.nodes}
    inside: set[str] = set()
    stack = [name for name in savers if name in nodes]
    while stack:
        name = stack.pop()
        if name not in inside and name in nodes:
            inside.add(name)
            stack += [node_of(reference) for reference in nodes[name].inputs]
    mine = _called(graph, (nodes[name] for name in inside))
    others = _called(graph, (node for node in graph.nodes if node.name not in inside))
    return inside, mine - others


def _called(graph: Graph, nodes: Iterable[GraphNode]) -> set[str]:
    found: set[str] = set()
    stack = [name for node in nodes for name in node.functions]
    while stack:
        name = stack.pop()
        if name not in found and name in graph.functions:
            found.add(name)
            stack += [inner for node in graph.functions[name].nodes for inner in node.functions]
    return found


def require_safe(path: Path, graph: Graph, savers: Collection[str], *, is_trusted: bool) -> tuple[str, ...]:
    """Return notes on what the graph does besides arithmetic.

    Raises:
        UsageError: there is such a thing, and the file is not trusted; every kind of operator is named.
    """
    notes = []
    for family, operators in unsafe_operators(graph, savers).items():
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
