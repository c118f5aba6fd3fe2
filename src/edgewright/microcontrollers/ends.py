"""Integers at the ends: a QUANTIZE right behind an input and a DEQUANTIZE right before an output leave the graph.

The caller quantizes and dequantizes with the functions of NAME.h, which compute what the operators did.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from edgewright.microcontrollers.graph import Graph


def with_integer_ends(graph: Graph) -> Graph:
    """Return `graph` without conversions at its ends; unchanged where they are all that it does."""
    reads = Counter(index for operator in graph.operators for index in operator.inputs)
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    gone: set[int] = set()
    for operator in graph.operators:
        source, result = operator.inputs[:1], operator.outputs[:1]
        if not source or not result or source[0] < 0:
            continue
        if (
            operator.name == "QUANTIZE"
            and inputs.count(source[0]) == 1
            and graph.tensor(source[0]).dtype == "float32"
            and reads[source[0]] == 1
            and source[0] not in graph.outputs
        ):
            inputs[inputs.index(source[0])] = result[0]
            gone.add(operator.position)
        elif (
            operator.name == "DEQUANTIZE"
            and outputs.count(result[0]) == 1
            and reads[result[0]] == 0
            and graph.tensor(result[0]).dtype == "float32"
            and graph.tensor(source[0]).value is None
            and source[0] not in outputs
        ):
            outputs[outputs.index(result[0])] = source[0]
            gone.add(operator.position)
    kept = tuple(operator for operator in graph.operators if operator.position not in gone)
    if not kept:
        return graph
    return replace(graph, operators=kept, inputs=tuple(inputs), outputs=tuple(outputs))
