"""A small graph of ONNX nodes: what the bridge builds, what it rewrites, and what becomes the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from edgewright.core.tensors import Array

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

Attribute = int | float | str | Sequence[int] | Sequence[float] | Sequence[str]
Shape = tuple[int | None, ...]
_IR_VERSION = {17: 8, 21: 10}


@dataclass(frozen=True, kw_only=True)
class Node:
    """One ONNX node; an empty input is left out."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    domain: str = ""

    def integers(self, name: str) -> tuple[int, ...]:
        """Return the list attribute `name`."""
        values = self.attributes[name]
        assert isinstance(values, (list, tuple))
        return tuple(int(value) for value in values)

    def integer(self, name: str, default: int) -> int:
        """Return the integer attribute `name`."""
        value = self.attributes.get(name, default)
        assert isinstance(value, int)
        return value


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output of the graph."""

    name: str
    shape: Shape
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes in the order of execution.

    Attributes:
        constants: value -> array.
        labels: value -> the name that it had in the source; the file uses it where it is free.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    labels: Mapping[str, str]
    opset: int


def pruned(graph: Graph) -> Graph:
    """Return `graph` without nodes and constants that no output needs."""
    needed = {port.name for port in graph.outputs}
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    return replace(graph, nodes=tuple(reversed(kept)), constants=constants)


def labelled(graph: Graph) -> Graph:
    """Return `graph` with the source's names for values, where they are not taken."""
    taken = {port.name for port in (*graph.inputs, *graph.outputs)}
    taken |= set(graph.constants) | {name for node in graph.nodes for name in node.outputs}
    made = {name for node in graph.nodes for name in node.outputs}
    wanted = Counter(graph.labels.values())
    ports = {port.name for port in (*graph.inputs, *graph.outputs)}
    names = {
        value: label
        for value, label in graph.labels.items()
        if (value in made or value in graph.constants)
        and value not in ports
        and wanted[label] == 1
        and label
        and label not in taken
    }

    def renamed(values: Sequence[str]) -> tuple[str, ...]:
        return tuple(names.get(value, value) for value in values)

    nodes = tuple(
        replace(node, inputs=renamed(node.inputs), outputs=renamed(node.outputs)) for node in graph.nodes
    )
    constants = {names.get(name, name): array for name, array in graph.constants.items()}
    return replace(graph, nodes=nodes, constants=constants)


def shapes_of(graph: Graph) -> dict[str, Shape]:
    """Return value -> shape of all values whose rank ONNX's shape inference finds."""
    import onnx

    model = onnx.shape_inference.infer_shapes(to_onnx(graph), data_prop=True)
    shapes: dict[str, Shape] = {name: array.shape for name, array in graph.constants.items()}
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in value.type.tensor_type.shape.dim
            )
    return shapes


def to_onnx(graph: Graph) -> ModelProto:
    """Return the ONNX model of `graph`; nodes are named after what they make."""
    from onnx import helper, numpy_helper

    def value_info(port: Port) -> ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
        shape = ["batch" if axis == 0 and size is None else size for axis, size in enumerate(port.shape)]
        return helper.make_tensor_value_info(port.name, kind, shape)

    def proto(node: Node) -> NodeProto:
        made = helper.make_node(
            node.op, list(node.inputs), list(node.outputs), name=node.outputs[0], domain=node.domain or None
        )
        made.attribute.extend(
            helper.make_attribute(key, value) for key, value in sorted(node.attributes.items())
        )
        return made

    made = helper.make_graph(
        [proto(node) for node in graph.nodes],
        "main",
        [value_info(port) for port in graph.inputs],
        [value_info(port) for port in graph.outputs],
        initializer=[
            numpy_helper.from_array(np.asarray(array, order="C"), name)
            for name, array in graph.constants.items()
        ],
    )
    return helper.make_model(
        made,
        producer_name="edgewright",
        opset_imports=[helper.make_opsetid("", graph.opset)],
        ir_version=_IR_VERSION[graph.opset],
    )
