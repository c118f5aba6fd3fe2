"""Layers of an ONNX file, with ONNX shape inference."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.sources.inspection import Layer, Shape, product, times
from edgewright.sources.onnx import parse_onnx

if TYPE_CHECKING:
    import onnx

_CONVOLUTIONS = ("Conv", "ConvInteger", "FusedConv")
_PRODUCTS = ("MatMul", "MatMulInteger", "FusedMatMul")
_RECURRENT = ("LSTM", "GRU", "RNN")
# Their scales and zero points are no parameters; the operand behind each index is.
_OPERANDS = {
    "QuantizeLinear": (0,),
    "DequantizeLinear": (0,),
    "QLinearConv": (0, 3, 8),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3, 6),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
}
_KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_FREE_CUSTOM = ("FusedConv", "FusedMatMul", "QGemm", "QuantizeLinear", "DequantizeLinear", "QLinearAdd")
_LOOPS = ("Loop", "Scan")


def onnx_layers(path: Path) -> tuple[list[Layer], int]:
    """Return the layers of the file, bodies of If included, and its parameters."""
    import onnx

    model = parse_onnx(path)
    held = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in held and dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    # Without inferred shapes the layers are still listed; their MACs are then unknown.
    with suppress(onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    reader = _Graph(model.graph, {}, {})
    return reader.layers(), reader.parameters


class _Graph:
    """One graph with the shapes and weights of the graphs around it."""

    def __init__(self, graph: onnx.GraphProto, shapes: dict[str, Shape], weights: dict[str, int]) -> None:
        self._graph = graph
        self._shapes = dict(shapes)
        self._weights = dict(weights)
        self.parameters = 0
        for value in (*graph.value_info, *graph.input, *graph.output):
            if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape.dim
                self._shapes[value.name] = tuple(
                    d.dim_value if d.HasField("dim_value") else None for d in dims
                )
        for tensor in graph.initializer:
            self._add_constant(tensor.name, tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.HasField("t") and node.output:
                    self._add_constant(node.output[0], attribute.t)

    def _add_constant(self, name: str, tensor: onnx.TensorProto) -> None:
        import onnx

        self._shapes[name] = tuple(tensor.dims)
        if tensor.data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.STRING):
            self._weights[name] = product(tuple(tensor.dims)) or 0

    def layers(self) -> list[Layer]:
        found: list[Layer] = []
        for index, node in enumerate(self._graph.node):
            if node.op_type == "Constant":
                continue
            operands = _OPERANDS.get(node.op_type, range(len(node.input)))
            # Each constant is counted where it is used first.
            parameters = sum(self._weights.pop(node.input[i], 0) for i in operands if i < len(node.input))
            self.parameters += parameters
            body, macs = self._bodies(node)
            found.append(
                Layer(
                    name=node.name or (node.output[0] if node.output else f"node_{index}"),
                    operator=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
                    output_shape=self._shapes.get(node.output[0], ()) if node.output else (),
                    parameters=parameters,
                    macs=self._macs(node) if macs == 0 else macs,
                )
            )
            found += body
        return found

    def _bodies(self, node: onnx.NodeProto) -> tuple[list[Layer], int | None]:
        """Return the layers of the bodies of `node`, and what the node itself adds to the total of MACs.

        One branch of an If runs, so it costs the dearest: the layers of the others are listed with 0.
        """
        bodies = [a.g for a in node.attribute if a.HasField("g")]
        if not bodies:
            return [], 0
        readers = [_Graph(body, self._shapes, self._weights) for body in bodies]
        branches = [reader.layers() for reader in readers]
        self.parameters += sum(reader.parameters for reader in readers)
        if node.op_type in _LOOPS:
            return [layer for branch in branches for layer in branch], None
        if any(layer.macs is None for branch in branches for layer in branch):
            return [layer for branch in branches for layer in branch], None
        dearest = max(branches, key=lambda branch: sum(layer.macs or 0 for layer in branch))
        free = [_without_macs(layer) for branch in branches if branch is not dearest for layer in branch]
        return [*dearest, *free], 0

    def _shape(self, node: onnx.NodeProto, index: int) -> Shape | None:
        return self._shapes.get(node.input[index]) if index < len(node.input) else None

    def _macs(self, node: onnx.NodeProto) -> int | None:
        kind = node.op_type
        if node.domain not in _KNOWN_DOMAINS and kind not in _FREE_CUSTOM:
            return None
        output = self._shapes.get(node.output[0]) if node.output else None
        if kind in _CONVOLUTIONS or kind == "QLinearConv":
            weight = self._shape(node, 3 if kind == "QLinearConv" else 1)
            return times(product(output), product(weight[1:]) if weight else None)
        if kind == "ConvTranspose":
            weight = self._shape(node, 1)
            return times(product(self._shape(node, 0)), product(weight[1:]) if weight else None)
        if kind in _PRODUCTS or kind == "QLinearMatMul":
            left = self._shape(node, 0)
            return times(product(output), left[-1] if left else None)
        if kind in ("Gemm", "QGemm"):
            left = self._shape(node, 0)
            is_transposed = any(a.name == "transA" and a.i for a in node.attribute)
            inner = left[0 if is_transposed else 1] if left and len(left) == 2 else None
            return times(product(output), inner)
        if kind in _RECURRENT:
            data, matrix, recurrent = (self._shape(node, i) for i in range(3))
            if not data or product(matrix) is None or product(recurrent) is None:
                return None
            return times(product(data[:2]), (product(matrix) or 0) + (product(recurrent) or 0))
        if kind in ("Einsum", "Attention", "MultiHeadAttention", "DeformConv"):
            return None
        return 0


def _without_macs(layer: Layer) -> Layer:
    return replace(layer, macs=0)
