"""Transposes that cancel: they are carried down the graph until they meet their opposite.

Each convolution comes with a Transpose before and after it. In the order of execution, a node that reads Transposes of
one permutation reads what is before them instead, and gets a Transpose behind it: op(T(x)) = T(op'(x)), where op' has
its axes renamed. A Transpose of a Transpose is one, and that of the opposite is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgewright.bridges.tflite_graph import Attribute, Graph, Node, Shape, pruned, shapes_of
from edgewright.core.tensors import Array

_Perm = tuple[int, ...]

_UNARY = frozenset(
    "Relu Clip Sigmoid Tanh HardSwish Elu LeakyRelu Abs Neg Exp Log Sqrt Reciprocal Erf Floor Ceil Round Sin Cos "
    "Sign Not Cast QuantizeLinear DequantizeLinear".split()
)
_BROADCAST = frozenset(
    "Add Sub Mul Div Max Min Pow Mod Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor Where PRelu".split()
)
_REDUCE = frozenset("ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL2 ArgMax ArgMin".split())


_MAX_RAISES = 4  # over the three nodes that make an int8 input unsigned


def optimised(graph: Graph) -> Graph:
    """Return a graph that computes the same with fewer Transposes."""
    if not any(node.op == "Transpose" for node in graph.nodes):
        return graph
    return pruned(_raised(pruned(_Sinking(graph).graph())))


def inverse(perm: Sequence[int]) -> _Perm:
    """Return the permutation that undoes `perm`."""
    return tuple(perm.index(axis) for axis in range(len(perm)))


def _raised(graph: Graph) -> Graph:
    """Transpose the integers of an input, not the four times larger floats behind its DequantizeLinear."""
    inputs = {port.name for port in graph.inputs}
    outputs = {port.name for port in graph.outputs}
    for _ in range(_MAX_RAISES):
        makers = {name: node for node in graph.nodes for name in node.outputs}
        depends = set(inputs)
        for node in graph.nodes:
            if node.op in ("QuantizeLinear", "DequantizeLinear") and node.inputs[0] in depends:
                depends.update(node.outputs)
        nodes: list[Node] = []
        for node in graph.nodes:
            maker = makers.get(node.inputs[0]) if node.op == "Transpose" else None
            if maker is None or maker.outputs[0] not in depends or node.outputs[0] in outputs:
                nodes.append(node)
                continue
            moved = f"{maker.inputs[0]}_first_{node.outputs[0]}"
            nodes.append(replace(node, inputs=(maker.inputs[0],), outputs=(moved,)))
            nodes.append(replace(maker, inputs=(moved, *maker.inputs[1:]), outputs=node.outputs))
        if len(nodes) == len(graph.nodes):
            return graph
        graph = pruned(replace(graph, nodes=tuple(nodes)))
    return graph


class _Sinking:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._shapes: dict[str, Shape] = dict(shapes_of(graph))
        self._constants: dict[str, Array] = dict(graph.constants)
        self._moved: dict[str, tuple[str, _Perm]] = {}
        self._same: dict[str, str] = {}
        self._nodes: list[Node] = []
        self._outputs = {port.name for port in graph.outputs}
        self._count = 0

    def graph(self) -> Graph:
        for node in self._graph.nodes:
            self._visit(replace(node, inputs=tuple(self._same.get(name, name) for name in node.inputs)))
        return replace(self._graph, nodes=tuple(self._nodes), constants=self._constants)

    def _visit(self, node: Node) -> None:
        if node.op == "Transpose":
            self._transpose(node.inputs[0], node.integers("perm"), node.outputs[0])
            return
        if node.op == "Reshape" and node.inputs[0] in self._moved:
            source, perm = self._moved[node.inputs[0]]
            if self._keeps_order(source, perm):
                node = replace(node, inputs=(source, *node.inputs[1:]))
        elif not self._sink(node):
            self._nodes.append(node)
            return
        else:
            return
        self._nodes.append(node)

    def _transpose(self, source: str, perm: _Perm, result: str) -> None:
        if source in self._moved:
            source, first = self._moved[source]
            perm = tuple(first[axis] for axis in perm)
        if perm == tuple(range(len(perm))):
            if result in self._outputs:
                self._nodes.append(Node(op="Identity", inputs=(source,), outputs=(result,)))
            else:
                self._same[result] = source
            return
        self._nodes.append(
            Node(op="Transpose", inputs=(source,), outputs=(result,), attributes={"perm": perm})
        )
        self._moved[result] = (source, perm)
        if source in self._shapes:
            self._shapes[result] = tuple(self._shapes[source][axis] for axis in perm)

    def _keeps_order(self, source: str, perm: _Perm) -> bool:
        """Return whether the values lie in memory in the same order: only axes of size 1 change places."""
        shape = self._shapes.get(source)
        if shape is None or len(shape) != len(perm):
            return False
        long = [axis for axis in perm if shape[axis] != 1]
        return long == sorted(long)

    def _sink(self, node: Node) -> bool:
        """Write `node` before the Transposes that it reads; False where that cannot be done."""
        perms = {self._moved[name][1] for name in node.inputs if name in self._moved}
        if len(perms) != 1:
            return False
        (perm,) = perms
        if node.op in _UNARY:
            return self._elementwise(node, perm)
        if node.op in _BROADCAST:
            return self._broadcast(node, perm)
        if node.op == "Concat":
            axis = node.integer("axis", 0) % len(perm)
            return self._broadcast(node, perm, {"axis": perm[axis]})
        if node.inputs[0] not in self._moved or any(name in self._moved for name in node.inputs[1:]):
            return False
        if node.op == "Split":
            return self._write(node, perm, {"axis": perm[node.integer("axis", 0) % len(perm)]})
        if node.op == "Pad":
            return self._pad(node, perm)
        if node.op == "Slice":
            return self._slice(node, perm)
        if node.op in _REDUCE:
            return self._reduce(node, perm)
        return False

    def _write(
        self,
        node: Node,
        perm: _Perm,
        attributes: Mapping[str, Attribute],
        *,
        inputs: Sequence[str] | None = None,
        result_perm: _Perm | None = None,
    ) -> bool:
        """Write `node` on what is before the Transposes, and a Transpose behind each of its outputs."""
        given = inputs if inputs is not None else node.inputs
        before = tuple(self._moved[name][0] if name in self._moved else name for name in given)
        fresh = tuple(self._fresh(name) for name in node.outputs)
        self._nodes.append(
            replace(node, inputs=before, outputs=fresh, attributes={**node.attributes, **attributes})
        )
        order = perm if result_perm is None else result_perm
        for made, name in zip(fresh, node.outputs, strict=True):
            shape = self._shapes.get(name)
            if shape is not None and len(shape) == len(order):
                self._shapes[made] = tuple(shape[axis] for axis in inverse(order))
            self._transpose(made, order, name)
        return True

    def _elementwise(self, node: Node, perm: _Perm) -> bool:
        if node.inputs[0] not in self._moved or any(name in self._moved for name in node.inputs[1:]):
            return False
        axis = node.attributes.get("axis")
        return self._write(node, perm, {"axis": perm[axis % len(perm)]} if isinstance(axis, int) else {})

    def _broadcast(self, node: Node, perm: _Perm, attributes: Mapping[str, Attribute] | None = None) -> bool:
        """The other operands go through the opposite Transpose: at once where they are constants, else when small."""
        back = inverse(perm)
        inputs = []
        cost, gain = 0, sum(self._size(name) for name in node.inputs if name in self._moved)
        for name in node.inputs:
            if name in self._moved:
                inputs.append(name)
                continue
            array = self._constants.get(name)
            if array is not None:
                if array.size == 1 and node.op != "Concat":
                    inputs.append(name)
                    continue
                wide = array.reshape([1] * (len(perm) - array.ndim) + list(array.shape))
                made = self._fresh(name)
                self._constants[made] = np.ascontiguousarray(wide.transpose(back))
                self._shapes[made] = self._constants[made].shape
                inputs.append(made)
                continue
            shape = self._shapes.get(name)
            if shape is None or len(shape) != len(perm):
                if shape is None or math.prod(size or 2 for size in shape) != 1 or node.op == "Concat":
                    return False
                inputs.append(name)
                continue
            cost += self._size(name)
            made = self._fresh(name)
            inputs.append(made)
        if cost >= gain:
            return False
        for name, made in zip(node.inputs, inputs, strict=True):
            if name != made and made not in self._constants:
                self._transpose(name, back, made)
                # What was just written is read as it is, not followed to its source.
                self._moved.pop(made, None)
        return self._write(node, perm, attributes or {}, inputs=[self._same.get(n, n) for n in inputs])

    def _size(self, name: str) -> int:
        shape = self._shapes.get(name)
        return 1 << 62 if shape is None else math.prod(1 if size is None else size for size in shape)

    def _pad(self, node: Node, perm: _Perm) -> bool:
        pads = self._constants.get(node.inputs[1])
        if pads is None or pads.size != 2 * len(perm):
            return False
        moved = np.zeros_like(pads).reshape(2, -1)
        for axis, source in enumerate(perm):
            moved[:, source] = pads.reshape(2, -1)[:, axis]
        name = self._fresh(node.inputs[1])
        self._constants[name] = moved.reshape(-1)
        return self._write(node, perm, {}, inputs=(node.inputs[0], name, *node.inputs[2:]))

    def _slice(self, node: Node, perm: _Perm) -> bool:
        axes = self._constants.get(node.inputs[3]) if len(node.inputs) > 3 else None
        if axes is None:
            return False
        name = self._fresh(node.inputs[3])
        self._constants[name] = np.asarray(
            [perm[int(axis) % len(perm)] for axis in axes.tolist()], dtype=np.int64
        )
        return self._write(node, perm, {}, inputs=(*node.inputs[:3], name, *node.inputs[4:]))

    def _reduce(self, node: Node, perm: _Perm) -> bool:
        rank = len(perm)
        inputs = list(node.inputs)
        attributes: dict[str, Attribute] = {}
        if node.op in ("ArgMax", "ArgMin"):
            axes = [node.integer("axis", 0) % rank]
            attributes = {"axis": perm[axes[0]]}
        elif "axes" in node.attributes:
            axes = [axis % rank for axis in node.integers("axes")]
            attributes = {"axes": tuple(sorted(perm[axis] for axis in axes))}
        else:
            array = self._constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
            if array is None:
                return False
            axes = [int(axis) % rank for axis in array.tolist()]
            inputs[1] = self._fresh(node.inputs[1])
            self._constants[inputs[1]] = np.asarray(sorted(perm[axis] for axis in axes), dtype=np.int64)
        order = perm
        if not node.integer("keepdims", 1):
            left = [perm[axis] for axis in range(rank) if axis not in axes]
            order = tuple(sorted(left).index(axis) for axis in left)
        return self._write(node, perm, attributes, inputs=inputs, result_perm=order)

    def _fresh(self, name: str) -> str:
        self._count += 1
        return f"{name}_moved{self._count}"
