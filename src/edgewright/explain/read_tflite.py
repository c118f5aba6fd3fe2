"""Read a `.tflite` file into a Graph, through the bounded reader of sources."""

from __future__ import annotations

from pathlib import Path

from edgewright.explain.graph import Graph, Operation, Value
from edgewright.sources.inspect_tflite import tflite_layers
from edgewright.sources.tflite_file import FlatTensor, read_flatbuffer


def read_tflite_graph(path: Path) -> Graph:
    """Return the operators of all graphs of the `.tflite` at `path`; those of graphs after the first have depth 1."""
    model = read_flatbuffer(path)
    layers, _ = tflite_layers(path)
    operations: list[Operation] = []
    for number, graph in enumerate(model.graphs):
        values = [_value(tensor) for tensor in graph.tensors]
        makers: dict[int, int] = {}
        for index, operator in enumerate(graph.operators):
            position = len(operations)
            layer = layers[position]
            operations.append(
                Operation(
                    name=layer.name or f"graph{number}_{index}",
                    operator=f"custom.{operator.name}" if operator.is_custom else operator.name,
                    inputs=tuple(values[i] if i >= 0 else None for i in operator.inputs),
                    outputs=tuple(values[i] for i in operator.outputs if i >= 0),
                    sources=tuple(sorted({makers[i] for i in operator.inputs if i in makers})),
                    macs=layer.macs,
                    parameters=layer.parameters,
                    depth=int(number > 0),
                )
            )
            for i in operator.outputs:
                makers[i] = position
    first = model.graphs[0]
    return Graph(
        format="tflite",
        operations=tuple(operations),
        inputs=tuple(_value(first.tensors[i]) for i in first.inputs if i >= 0),
    )


def _value(tensor: FlatTensor) -> Value:
    if not tensor.has_rank:
        return Value(dtype=tensor.dtype, shape=None)
    return Value(
        dtype=tensor.dtype,
        shape=tuple(None if size < 0 else size for size in tensor.signature),
        is_constant=tensor.data_bytes > 0,
        variable="quantized" if tensor.is_quantized else "",
    )
