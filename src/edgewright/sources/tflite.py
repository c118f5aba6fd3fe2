"""LiteRT sources: the signature and the precision of a `.tflite` file."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from edgewright.core.errors import FormatMismatchError, IntegrityError
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.tensors import DTYPES, TensorSpec
from edgewright.sources import edgetpu_package, ethos_u_operator
from edgewright.sources.edgetpu_package import edgetpu_notes
from edgewright.sources.ethos_u_operator import ethos_u_notes
from edgewright.sources.tflite_file import FlatGraph, FlatModel, FlatTensor, read_flatbuffer

WEIGHTED = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
    "CONV_3D",
    "BATCH_MATMUL",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "LSTM",
    "SVDF",
)
_INTEGERS = ("int8", "uint8", "int4", "int2", "uint4")


def read_tflite(path: Path, *, spec: str) -> Program:
    """Return the Program of a `.tflite` file.

    Inputs and outputs are in the order of the main graph, named by its signature where it has one.

    Raises:
        FormatMismatchError, IntegrityError: see `tflite_file.read_flatbuffer`; or a dtype that is not read.
    """
    model = read_flatbuffer(path)
    graph = model.graphs[0]
    if not graph.operators or not graph.inputs or not graph.outputs or -1 in graph.inputs + graph.outputs:
        raise IntegrityError(
            f"{path}: its main graph has {len(graph.operators)} operators, {len(graph.inputs)} inputs and "
            f"{len(graph.outputs)} outputs; at least one of each is expected. Export it again."
        )
    inputs = _specs(model, graph.inputs, model.input_names, path)
    outputs = _specs(model, graph.outputs, model.output_names, path)
    custom = Counter(o.name for g in model.graphs for o in g.operators if o.is_custom)
    return Program(
        path=path,
        format="tflite",
        inputs=inputs,
        outputs=outputs,
        sha256=sha256_of(path),
        origin=spec,
        origin_format="tflite",
        precision=precision_of(model),
        history=(f"loaded from {path.name}",),
        notes=(
            *(f"{count} custom operators {name!r}" for name, count in sorted(custom.items())),
            *(edgetpu_notes(path) if edgetpu_package.OPERATOR in custom else ()),
            *(ethos_u_notes(model) if ethos_u_operator.OPERATOR in custom else ()),
        ),
    )


def precision_of(model: FlatModel) -> str:
    """Return the scheme of most weight bytes: w8a8, w8 (float activations), w8a16, fp16 or fp32."""
    votes: Counter[str] = Counter()
    for graph in model.graphs:
        origin = {o.outputs[0]: o for o in graph.operators if o.outputs}
        for operator in graph.operators:
            if operator.name not in WEIGHTED or len(operator.inputs) < 2:
                continue
            activation = graph.tensors[operator.inputs[0]]
            for index in operator.inputs[1:]:
                if index < 0:
                    continue
                maker = origin.get(index)
                is_unpacked = maker is not None and maker.name == "DEQUANTIZE" and len(maker.inputs) == 1
                weight = graph.tensors[maker.inputs[0] if maker is not None and is_unpacked else index]
                if weight.data_bytes > 0 and len(weight.shape) > 1:
                    votes[_scheme(weight, activation)] += weight.data_bytes
    if not votes:
        return _scheme_without_weights(model.graphs[0])
    return votes.most_common(1)[0][0]


def end_quantization(path: Path) -> dict[str, tuple[float, int]]:
    """Return name -> (scale, zero point) of the integer inputs and outputs of the `.tflite` at `path`.

    Raises:
        FormatMismatchError, IntegrityError: as of `read_flatbuffer`.
    """
    model = read_flatbuffer(path)
    graph = model.graphs[0]
    found = {}
    for indices, names in ((graph.inputs, model.input_names), (graph.outputs, model.output_names)):
        for index, spec in zip(indices, _specs(model, indices, names, path), strict=True):
            pair = graph.tensors[index].quantization
            if pair is not None and math.isfinite(pair[0]) and pair[0] > 0:
                found[spec.name] = pair
    return found


def _scheme(weight: FlatTensor, activation: FlatTensor) -> str:
    if weight.dtype in _INTEGERS:
        if activation.dtype in _INTEGERS:
            return "w8a8"
        return "w8a16" if activation.dtype == "int16" else "w8"
    return "fp16" if weight.dtype == "float16" else "fp32"


def _scheme_without_weights(graph: FlatGraph) -> str:
    is_integer = any(
        tensor.dtype in _INTEGERS and tensor.is_quantized and not tensor.data_bytes
        for tensor in graph.tensors
    )
    return "w8a8" if is_integer else "fp32"


def _specs(
    model: FlatModel, indices: tuple[int, ...], names: dict[int, str], path: Path
) -> tuple[TensorSpec, ...]:
    specs = []
    for position, index in enumerate(indices):
        tensor = model.graphs[0].tensors[index]
        if tensor.dtype not in DTYPES:
            raise FormatMismatchError(
                f"{path}: tensor {tensor.name!r} has dtype {tensor.dtype}, which is not read."
            )
        specs.append(
            TensorSpec(
                name=names.get(index) or tensor.name or f"tensor_{position}",
                shape=tuple(None if dim < 0 else dim for dim in tensor.signature),
                dtype=tensor.dtype,
                layout="nhwc" if len(tensor.shape) == 4 else None,
            )
        )
    repeated = [name for name, count in Counter(spec.name for spec in specs).items() if count > 1]
    if repeated:
        raise IntegrityError(f"{path} has several tensors with the name {repeated[0]!r}. Export it again.")
    return tuple(specs)
