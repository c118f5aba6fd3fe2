"""The layers of an ONNX graph, run as it is written by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from edgewright.backends import onnx_graph, trace
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import TracedLayer
from edgewright.core.errors import ConversionError, first_line
from edgewright.core.tensors import Arrays

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

_ERRORS_ONLY = 3
_FLOAT_BYTES = 4
OPERATORS = trace.Operators(
    weighted=frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"}),
    rounding=frozenset({"QuantizeLinear", "DequantizeLinear"}),
    affine=frozenset({"Add", "Sub", "Mul", "Div"}),
    following=frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "BatchNormalization", "Cast", "Identity"}),
    moving=frozenset(
        {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast", "Shape", "Dropout"}
    ),
)


def trace_onnx(
    artifact: Artifact, threads: int, batches: Iterable[Arrays], max_bytes: int
) -> Iterator[list[TracedLayer]]:
    """Yield for each batch the layers of the graph in their order, computed without any optimisation.

    Raises:
        ConversionError: the runtime refuses the graph with its inner values as outputs.
    """
    import onnxruntime as ort
    from onnx import ValueInfoProto

    model = onnx_graph.load(artifact.path)
    found = _blocks(model.graph)
    sizes = _sizes_bytes(model)
    wanted = trace.within({b.tensor: sizes[b.tensor] for b in found if b.tensor in sizes}, max_bytes)
    have = {value.name for value in model.graph.output}
    model.graph.output.extend(ValueInfoProto(name=name) for name in wanted if name not in have)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for batch in batches:
            values = dict(zip(wanted, session.run(wanted, dict(batch)), strict=True)) if wanted else {}
            yield trace.layers(found, values)
    except Exception as err:  # the binding has its own classes
        raise ConversionError(f"ONNX Runtime cannot trace {artifact.path.name}: {first_line(err)}") from err


def _blocks(graph: GraphProto) -> list[trace.Block]:
    nodes = [
        trace.Node(
            names=tuple(dict.fromkeys(name for name in (node.name, node.output[0]) if name)),
            operator=node.op_type,
            inputs=tuple(name for name in node.input if name),
            output=node.output[0],
        )
        for node in graph.node
        if node.output and node.output[0]
    ]
    return trace.blocks(
        nodes,
        frozenset(tensor.name for tensor in graph.initializer),
        frozenset(value.name for value in graph.output),
        OPERATORS,
    )


def _sizes_bytes(model: ModelProto) -> dict[str, int]:
    """Return the bytes of each float tensor of one sample: an unknown dimension counts as 1."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    sizes = {}
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        kind = value.type.tensor_type
        if kind.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            itemsize = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).itemsize
            shape = [dim.dim_value or 1 for dim in kind.shape.dim]
            sizes[value.name] = prod(shape) * max(itemsize, _FLOAT_BYTES)
    return sizes
