"""The layers of a `.tflite` file, run by LiteRT's own kernels without delegates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import TYPE_CHECKING, cast

import numpy as np

from edgewright.backends import litert_file, trace
from edgewright.backends.vendor import quiet
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import TracedLayer
from edgewright.core.errors import ConversionError, first_line
from edgewright.core.tensors import Array, Arrays

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

_FLOAT_BYTES = 4
OPERATORS = trace.Operators(
    weighted=frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL"}),
    rounding=frozenset({"QUANTIZE", "DEQUANTIZE", "FAKE_QUANT"}),
    affine=frozenset({"ADD", "SUB", "MUL", "DIV"}),
    following=frozenset({"RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "PRELU", "CAST"}),
    moving=frozenset({"RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SHAPE", "CAST"}),
)


def trace_litert(
    artifact: Artifact, threads: int, batches: Iterable[Arrays], max_bytes: int
) -> Iterator[list[TracedLayer]]:
    """Yield for each batch the layers of the graph in their order; integers are turned into what they stand for.

    Raises:
        ConversionError: the runtime refuses the graph, or fails on it.
    """
    found = _blocks(litert_file.read(artifact.path))
    try:
        interpreter = _interpreter(artifact, threads)
        details = {str(d["index"]): d for d in interpreter.get_tensor_details()}
        sizes = {
            block.tensor: prod(int(d) for d in cast(Array, details[block.tensor]["shape"])) * _FLOAT_BYTES
            for block in found
            if block.tensor in details
        }
        wanted = set(trace.within(sizes, max_bytes))
        inputs = interpreter.get_input_details()
        by_name = {str(d["name"]): int(str(d["index"])) for d in inputs}
        slots = [int(str(d["index"])) for d in inputs]
        if all(spec.name in by_name for spec in artifact.inputs):
            slots = [by_name[spec.name] for spec in artifact.inputs]
        for batch in batches:
            for slot, spec in zip(slots, artifact.inputs, strict=True):
                interpreter.set_tensor(slot, batch[spec.name])
            interpreter.invoke()
            values = {name: _dequantized(interpreter.get_tensor(int(name)), details[name]) for name in wanted}
            yield trace.layers(found, values)
    except Exception as err:  # the runtime raises ValueError and RuntimeError, and whatever pybind11 makes
        raise ConversionError(f"LiteRT cannot trace {artifact.path.name}: {first_line(err)}") from err


def _interpreter(artifact: Artifact, threads: int) -> Interpreter:
    with quiet():
        from ai_edge_litert import interpreter as litert

        made: Interpreter = litert.Interpreter(
            model_path=str(artifact.path),
            num_threads=threads,
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        made.allocate_tensors()
    return made


def _blocks(model: litert_file.Model) -> list[trace.Block]:
    graph = model.subgraphs[0]
    made = {int(index) for op in graph.operators if op.outputs is not None for index in op.outputs}
    given = {int(index) for index in graph.inputs}
    nodes = [
        trace.Node(
            names=(litert_file.tensor_name(graph, int(op.outputs[0])),),
            operator=litert_file.operator_name(model.operatorCodes[op.opcodeIndex]),
            inputs=tuple(str(int(index)) for index in op.inputs if int(index) >= 0),
            output=str(int(op.outputs[0])),
        )
        for op in graph.operators
        if op.outputs is not None and len(op.outputs) and op.inputs is not None
    ]
    constants = frozenset(
        str(index) for index in range(len(graph.tensors)) if index not in made and index not in given
    )
    return trace.blocks(nodes, constants, frozenset(str(int(i)) for i in graph.outputs), OPERATORS)


def _dequantized(value: Array, details: dict[str, object]) -> Array:
    """Return float32: scale * (value - zero point), per channel where there are several scales."""
    parameters = cast(dict[str, Array], details["quantization_parameters"])
    scales = np.asarray(parameters["scales"], dtype=np.float32)
    if scales.size == 0:
        return value
    shape = [1] * value.ndim
    if scales.size > 1:
        shape[int(str(parameters["quantized_dimension"]))] = scales.size
    zeros = np.asarray(parameters["zero_points"], dtype=np.float32)
    return (value.astype(np.float32) - zeros.reshape(shape)) * scales.reshape(shape)
