"""Layers of a SavedModel or of a frozen graph, from the graph alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgewright.core.program import Program
from edgewright.sources.graph_def import Shape, read_graph_def
from edgewright.sources.graph_flat import FlatOperator, flatten
from edgewright.sources.inspection import Layer, product, times
from edgewright.sources.saved_model import choose_signature, graph_outputs
from edgewright.sources.saved_model_file import folder_files, read_meta_graph

_NO_LAYER = frozenset(
    """
    Const Identity IdentityN NoOp Placeholder PlaceholderWithDefault VarHandleOp VariableV2 Variable ReadVariableOp
    StopGradient Assert
    """.split()
)
_PASSED_ON = frozenset({"Identity", "ReadVariableOp", "StopGradient", "Cast", "Enter"})
_HELD = frozenset({"Const", "VarHandleOp", "VariableV2", "Variable"})
_WEIGHT_DTYPES = ("float32", "float16", "float64", "DataType 14")
_UNCOUNTED = frozenset(
    """
    While StatelessWhile If StatelessIf Case Conv3D Conv3DBackpropInputV2 Einsum CudnnRNN CudnnRNNV2 CudnnRNNV3
    XlaCallModule
    """.split()
)


def graph_layers(program: Program) -> tuple[list[Layer], int]:
    """Return the operators that the signature needs, calls replaced by their bodies, and the number of parameters.

    Raises:
        IntegrityError: the graph is damaged.
    """
    if program.format == "saved_model":
        meta = read_meta_graph(program.path)
        graph = meta.graph
        chosen = choose_signature(meta, program.path, program.signature or None)
        outputs = [tensor.reference for tensor in chosen.outputs]
    else:
        graph = read_graph_def(program.path)
        outputs = [node.name for node in graph_outputs(graph)]
    operators = flatten(graph, outputs)
    seen: set[int] = set()
    layers: list[Layer] = []
    total = 0
    for operator in operators:
        if operator.node.operator in _NO_LAYER:
            continue
        weights = [_held(operators, place) for place in operator.inputs]
        fresh = {place for place in weights if place is not None and place not in seen}
        seen |= fresh
        parameters = sum(product(operators[place].node.shape) or 0 for place in fresh)
        total += parameters
        layers.append(
            Layer(
                name=operator.name,
                operator=operator.node.operator,
                output_shape=operator.output_shape or (),
                parameters=parameters,
                macs=_macs(operators, operator, weights),
            )
        )
    return layers, total


def saved_model_size(folder: Path) -> int:
    """Return the bytes of all files in the folder."""
    return sum(file.stat().st_size for file in folder_files(folder).values())


def _held(operators: Sequence[FlatOperator], place: int) -> int | None:
    """Return the position of the weights that an input reads, or None where it is computed, an index or a scalar."""
    for _ in range(len(operators)):
        if place < 0:
            return None
        operator = operators[place]
        if operator.node.operator in _PASSED_ON and operator.inputs:
            place = operator.inputs[0]
            continue
        is_weight = operator.node.dtype in _WEIGHT_DTYPES and bool(operator.node.shape)
        return place if operator.node.operator in _HELD and is_weight else None
    return None


def _shape(operators: Sequence[FlatOperator], place: int, weights: int | None) -> Shape | None:
    if weights is not None:
        return operators[weights].node.shape
    return operators[place].output_shape if place >= 0 else None


def _macs(
    operators: Sequence[FlatOperator], operator: FlatOperator, weights: Sequence[int | None]
) -> int | None:
    """Return the multiply-accumulates, counted as in `sources.inspection`."""
    name = operator.node.operator
    if name in _UNCOUNTED:
        return None
    if name not in (
        "Conv2D",
        "DepthwiseConv2dNative",
        "MatMul",
        "BatchMatMulV2",
        "BatchMatMul",
        "Conv2DBackpropInput",
    ):
        return 0
    if operator.is_inner or len(operator.inputs) < 2:
        return None
    shapes = [_shape(operators, p, w) for p, w in zip(operator.inputs, weights, strict=True)]
    output, first, second = operator.output_shape, shapes[0], shapes[1]
    if name == "Conv2DBackpropInput":  # inputs: output shape, kernel [kh, kw, out, in], data
        return times(_count(shapes[2]), product(second[:3]) if second else None)
    if second is None:
        return None
    if name == "Conv2D":
        return times(_count(output), product(second[:-1]))
    if name == "DepthwiseConv2dNative":
        return times(_count(output), product(second[:2]))
    is_turned = "transpose_a" in operator.node.flags or "adj_x" in operator.node.flags
    depth = None if first is None or len(first) < 2 else first[-2 if is_turned else -1]
    if depth is None and len(second) >= 2:
        is_turned = "transpose_b" in operator.node.flags or "adj_y" in operator.node.flags
        depth = second[-1 if is_turned else -2]
    return times(_count(output), depth)


def _count(shape: Shape | None) -> int | None:
    """Return the elements of one sample: a dynamic first dimension counts as 1."""
    if shape is None:
        return None
    return product(tuple(1 if axis == 0 and size is None else size for axis, size in enumerate(shape)))
