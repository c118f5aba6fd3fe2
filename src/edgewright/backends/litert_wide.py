"""64-bit inputs and outputs of a model that computes in 32 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from edgewright.backends.litert_file import Model, add_operator, set_signature, twin
from edgewright.core.tensors import TensorSpec


def widen_io(model: Model, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> int:
    """Give 32-bit inputs and outputs the 64 bits of their specs by CAST inside; return how many were changed.

    The new tensors take the names; the 32-bit ones get the suffix `_narrow`. The orders of both are the graph's.
    """
    from ai_edge_litert import schema_py_generated

    graph = model.subgraphs[0]
    types = schema_py_generated.TensorType
    wider = {(types.INT32, "int64"): types.INT64, (types.FLOAT32, "float64"): types.FLOAT64}
    first, last = [], []
    ends = [[int(i) for i in graph.inputs], [int(i) for i in graph.outputs]]
    for indices, specs, is_input in ((ends[0], inputs, True), (ends[1], outputs, False)):
        for position, spec in enumerate(specs):
            narrow = indices[position]
            kind = wider.get((graph.tensors[narrow].type, spec.dtype))
            if kind is None:
                continue
            wide = indices[position] = twin(graph, narrow, kind, b"_narrow")
            if is_input:
                first.append(add_operator(model, "CAST", wide, narrow))
            else:
                last.append(add_operator(model, "CAST", narrow, wide))
    if first or last:
        graph.operators = [*first, *graph.operators, *last]
        graph.inputs, graph.outputs = (cast(Sequence[int], np.asarray(e, dtype=np.int32)) for e in ends)
        set_signature(model, [spec.name for spec in inputs], [spec.name for spec in outputs])
    return len(first) + len(last)


def has_widened_io(model: Model) -> bool:
    """Return whether `widen_io` changed the model."""
    return any((tensor.name or b"").endswith(b"_narrow") for tensor in model.subgraphs[0].tensors)
