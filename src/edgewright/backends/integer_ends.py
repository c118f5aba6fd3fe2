"""Integers at the ends of a `.tflite`: a device is given int8, so conversions from and to float leave the graph.

`microcontrollers.ends` does the same with the emitter's graph; here the file itself is rewritten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

import numpy as np

from edgewright.backends import litert_file
from edgewright.sources.tflite_file import FlatModel


def strip(model: litert_file.Model, names: FlatModel) -> int:
    """Remove each QUANTIZE behind a float input and each DEQUANTIZE before a float output; return how many.

    The integer tensors take the names of the ends. A graph that would be empty stays as it is.

    Args:
        names: the same file, which tells the operators' names.
    """
    graph, operators = model.subgraphs[0], names.graphs[0].operators
    flat = names.graphs[0].tensors
    reads = Counter(index for operator in operators for index in operator.inputs)
    inputs, outputs = [int(i) for i in graph.inputs], [int(i) for i in graph.outputs]
    gone: set[int] = set()
    for position, operator in enumerate(operators):
        if len(operator.inputs) != 1 or len(operator.outputs) != 1:
            continue
        source, result = operator.inputs[0], operator.outputs[0]
        if (
            operator.name == "QUANTIZE"
            and inputs.count(source) == 1
            and flat[source].dtype == "float32"
            and reads[source] == 1
            and source not in outputs
        ):
            inputs[inputs.index(source)] = result
            gone.add(position)
        elif (
            operator.name == "DEQUANTIZE"
            and outputs.count(result) == 1
            and flat[result].dtype == "float32"
            and reads[result] == 0
            and flat[source].data_bytes == 0
            and source not in (*outputs, *inputs)
        ):
            outputs[outputs.index(result)] = source
            gone.add(position)
    if not gone or len(gone) == len(operators):
        return 0
    kept = [[litert_file.tensor_name(graph, int(i)) for i in side] for side in (graph.inputs, graph.outputs)]
    graph.operators = [operator for i, operator in enumerate(graph.operators) if i not in gone]
    for before, after in zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True):
        if int(before) != after:
            graph.tensors[int(before)].name = (graph.tensors[int(before)].name or b"") + b"_float"
    graph.inputs = cast(Sequence[int], np.asarray(inputs, dtype=np.int32))
    graph.outputs = cast(Sequence[int], np.asarray(outputs, dtype=np.int32))
    litert_file.rename(model, *kept)
    return len(gone)
