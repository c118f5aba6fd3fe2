"""Layers of a `.tflite` file."""

from __future__ import annotations

from pathlib import Path

from edgewright.sources.inspection import Layer, product, times
from edgewright.sources.tflite_file import FlatGraph, FlatOperator, FlatTensor, read_flatbuffer

_UNCOUNTED = ("WHILE", "CALL", "CALL_ONCE", "CONV_3D_TRANSPOSE")


def tflite_layers(path: Path) -> tuple[list[Layer], int]:
    """Return the layers of all graphs of the file, and its parameters, each constant counted once."""
    model = read_flatbuffer(path)
    layers: list[Layer] = []
    total = 0
    for number, graph in enumerate(model.graphs):
        seen: set[int] = set()
        for index, operator in enumerate(graph.operators):
            weights = [
                i for i in operator.inputs if i >= 0 and _is_weight(graph.tensors[i]) and i not in seen
            ]
            seen.update(weights)
            parameters = sum(product(graph.tensors[i].shape) or 0 for i in weights)
            total += parameters
            output = graph.tensors[operator.outputs[0]] if operator.outputs else None
            layers.append(
                Layer(
                    name=output.name if output and output.name else f"graph{number}_{index}",
                    operator=operator.name,
                    output_shape=() if output is None else _signature(output),
                    parameters=parameters,
                    macs=_macs(graph, operator),
                )
            )
    return layers, total


def _is_weight(tensor: FlatTensor) -> bool:
    if tensor.data_bytes == 0:
        return False
    # An int32 constant with a scale is a bias; without one it is a shape, an axis or an index.
    return tensor.is_quantized or tensor.dtype in ("float32", "float16", "bfloat16", "float64")


def _signature(tensor: FlatTensor) -> tuple[int | None, ...]:
    return tuple(None if dim < 0 else dim for dim in tensor.signature)


def _macs(graph: FlatGraph, operator: FlatOperator) -> int | None:
    if operator.is_custom or operator.name in _UNCOUNTED:
        return None
    shapes = [graph.tensors[i].shape if i >= 0 else () for i in operator.inputs]
    output = graph.tensors[operator.outputs[0]].shape if operator.outputs else ()
    try:
        return _count(operator, shapes, output)
    except IndexError:
        # An operator with fewer inputs than its definition asks for.
        return None


def _count(operator: FlatOperator, shapes: list[tuple[int, ...]], output: tuple[int, ...]) -> int | None:
    name = operator.name
    if name in ("CONV_2D", "CONV_3D"):
        # CONV_2D weights: [O, kh, kw, I of one group]; CONV_3D: [kd, kh, kw, I, O].
        kernel = shapes[1][1:] if name == "CONV_2D" else shapes[1][:-1]
        return times(product(output), product(kernel))
    if name == "DEPTHWISE_CONV_2D":
        return times(product(output), product(shapes[1][1:3]))
    if name == "TRANSPOSE_CONV":
        # Inputs: output shape, weights [O, kh, kw, I], data.
        return times(product(shapes[2]), product(shapes[1][:3]))
    if name == "FULLY_CONNECTED":
        return times(product(output), shapes[1][-1])
    if name == "BATCH_MATMUL":
        return times(product(output), shapes[0][-2 if operator.transposes[0] else -1])
    if name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        steps = product(shapes[0][:-1])
        return times(steps, sum(product(shape) or 0 for shape in shapes[1:9] if len(shape) == 2))
    if name == "SVDF":
        return times(shapes[0][0], (product(shapes[1]) or 0) + (product(shapes[2]) or 0))
    return 0
