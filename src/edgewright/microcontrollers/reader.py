"""A bounded reading of a `.tflite` file into the emitter's graph.

`sources.tflite_file` has checked every list and index of the file before anything here follows them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import ConversionError, IntegrityError
from edgewright.core.tensors import Array
from edgewright.microcontrollers.graph import ITEM_BYTES, LIMITS, Graph, Operator, Tensor
from edgewright.sources.tflite_file import FlatGraph, FlatModel, FlatTensor, read_flatbuffer

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

# Far above what fits a microcontroller, and far below what hurts the machine that reads it.
MAX_TENSOR_BYTES = 64 << 20
MAX_DIMENSION = 1 << 24
NO_AXIS = -1
_READ_ERRORS = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError)
_NO_SCALES = np.zeros(0, dtype=np.float32)
_NO_ZEROS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class _Options:
    """Which table of the schema holds an operator's options, and which of its fields are read."""

    table: str
    fields: tuple[str, ...] = ()


_WINDOW = ("Padding", "StrideW", "StrideH")
_OPTIONS: Mapping[str, _Options] = {
    "CONV_2D": _Options(
        table="Conv2DOptions",
        fields=(*_WINDOW, "DilationWFactor", "DilationHFactor", "FusedActivationFunction"),
    ),
    "DEPTHWISE_CONV_2D": _Options(
        table="DepthwiseConv2DOptions",
        fields=(*_WINDOW, "DilationWFactor", "DilationHFactor", "DepthMultiplier", "FusedActivationFunction"),
    ),
    "TRANSPOSE_CONV": _Options(table="TransposeConvOptions", fields=(*_WINDOW, "FusedActivationFunction")),
    "FULLY_CONNECTED": _Options(
        table="FullyConnectedOptions", fields=("FusedActivationFunction", "WeightsFormat", "KeepNumDims")
    ),
    "AVERAGE_POOL_2D": _Options(
        table="Pool2DOptions", fields=(*_WINDOW, "FilterWidth", "FilterHeight", "FusedActivationFunction")
    ),
    "MAX_POOL_2D": _Options(
        table="Pool2DOptions", fields=(*_WINDOW, "FilterWidth", "FilterHeight", "FusedActivationFunction")
    ),
    "ADD": _Options(table="AddOptions", fields=("FusedActivationFunction",)),
    "SUB": _Options(table="SubOptions", fields=("FusedActivationFunction",)),
    "MUL": _Options(table="MulOptions", fields=("FusedActivationFunction",)),
    "DIV": _Options(table="DivOptions", fields=("FusedActivationFunction",)),
    "L2_NORMALIZATION": _Options(table="L2NormOptions", fields=("FusedActivationFunction",)),
    "BATCH_MATMUL": _Options(table="BatchMatMulOptions", fields=("AdjX", "AdjY")),
    "SPACE_TO_DEPTH": _Options(table="SpaceToDepthOptions", fields=("BlockSize",)),
    "DEPTH_TO_SPACE": _Options(table="DepthToSpaceOptions", fields=("BlockSize",)),
    "MIRROR_PAD": _Options(table="MirrorPadOptions", fields=("Mode",)),
    "GATHER": _Options(table="GatherOptions", fields=("Axis", "BatchDims")),
    "SVDF": _Options(table="SVDFOptions", fields=("Rank", "FusedActivationFunction")),
    "SOFTMAX": _Options(table="SoftmaxOptions", fields=("Beta",)),
    "LEAKY_RELU": _Options(table="LeakyReluOptions", fields=("Alpha",)),
    "CONCATENATION": _Options(table="ConcatenationOptions", fields=("Axis", "FusedActivationFunction")),
    "MEAN": _Options(table="ReducerOptions", fields=("KeepDims",)),
    "SPLIT": _Options(table="SplitOptions", fields=("NumSplits",)),
    "STRIDED_SLICE": _Options(
        table="StridedSliceOptions",
        fields=("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset"),
    ),
    "RESIZE_BILINEAR": _Options(table="ResizeBilinearOptions", fields=("AlignCorners", "HalfPixelCenters")),
    "RESIZE_NEAREST_NEIGHBOR": _Options(
        table="ResizeNearestNeighborOptions", fields=("AlignCorners", "HalfPixelCenters")
    ),
    "PACK": _Options(table="PackOptions", fields=("ValuesCount", "Axis")),
    "UNPACK": _Options(table="UnpackOptions", fields=("Num", "Axis")),
    "SQUEEZE": _Options(table="SqueezeOptions"),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _Options(
        table="UnidirectionalSequenceLSTMOptions",
        fields=("FusedActivationFunction", "CellClip", "ProjClip", "TimeMajor", "AsymmetricQuantizeInputs"),
    ),
}


def read_graph(path: Path) -> Graph:
    """Return the model in the `.tflite` at `path`.

    Raises:
        FormatMismatchError: not a `.tflite`.
        IntegrityError: an offset, a length, an index, a shape or a scale in it makes no sense.
        ConversionError: it has several graphs, or sizes that are known only at run time.
    """
    flat = read_flatbuffer(path)
    if len(flat.graphs) != 1:
        raise ConversionError(
            f"{path.name} has {len(flat.graphs)} graphs; C is made of models with one, without IF, WHILE or CALL."
        )
    try:
        return _read(path, flat)
    except _READ_ERRORS as err:
        raise IntegrityError(
            f"{path.name} is a damaged .tflite file: {type(err).__name__}: {str(err)[:200]}. Export it again."
        ) from err


def _read(path: Path, flat: FlatModel) -> Graph:
    from ai_edge_litert import schema_py_generated

    content = path.read_bytes()
    model = schema_py_generated.Model.GetRootAs(content, 0)
    stored = model.Subgraphs(0)
    known = flat.graphs[0]
    _check_order(known, path, {i for i in range(len(known.tensors)) if stored.Tensors(i).IsVariable()})
    tensors = tuple(
        _tensor(index, stored.Tensors(index), known.tensors[index], model, content)
        for index in range(len(known.tensors))
    )
    operators = tuple(
        _operator(index, stored.Operators(index), known, vars(schema_py_generated))
        for index in range(len(known.operators))
    )
    for index in (*known.inputs, *known.outputs):
        if index < 0:
            raise ValueError("an input or output of the model that is left out")
        if tensors[index].dtype not in ITEM_BYTES:
            raise ConversionError(
                f"{path.name} has an input or output of {tensors[index].dtype}; C has {', '.join(ITEM_BYTES)}."
            )
    return Graph(
        tensors=tensors,
        operators=operators,
        inputs=known.inputs,
        outputs=known.outputs,
        input_names=tuple(flat.input_names.get(i) or known.tensors[i].name for i in known.inputs),
        output_names=tuple(flat.output_names.get(i) or known.tensors[i].name for i in known.outputs),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _check_order(graph: FlatGraph, path: Path, variables: set[int]) -> None:
    """Check that each tensor is made once, before it is read."""
    written = {index for operator in graph.operators for index in operator.outputs}
    made = set(graph.inputs) | variables
    for operator in graph.operators:
        early = [
            index
            for index in operator.inputs
            if index >= 0 and index not in made and (index in written or not _is_known(graph.tensors[index]))
        ]
        again = [index for index in operator.outputs if index in made or graph.tensors[index].data_bytes]
        if early or again or -1 in operator.outputs:
            raise IntegrityError(
                f"{path.name} is broken: {operator.name} reads or writes tensors {early + again} out of order."
            )
        made.update(operator.outputs)
    missing = [index for index in graph.outputs if index not in made and not graph.tensors[index].data_bytes]
    if any(graph.tensors[index].data_bytes for index in graph.inputs if index >= 0):
        raise IntegrityError(f"{path.name} is broken: an input of the model is a constant.")
    if missing or not graph.inputs or not graph.outputs:
        raise IntegrityError(f"{path.name} is broken: no operator makes its outputs {missing}.")


def _is_known(tensor: FlatTensor) -> bool:
    """Return whether the file holds the tensor's value; an empty one needs none."""
    return tensor.data_bytes > 0 or 0 in tensor.shape


def _tensor(
    index: int, stored: schema.Tensor, known: FlatTensor, model: schema.Model, content: bytes
) -> Tensor:
    shape = known.shape
    if any(size < 0 for size in known.signature[1:]):
        raise ConversionError(
            f"tensor {known.name!r} has dynamic sizes {list(known.signature)}; C needs fixed ones. "
            "Export the model with fixed shapes."
        )
    if any(not 0 <= size <= MAX_DIMENSION for size in shape):
        raise ValueError(f"tensor {known.name!r} of shape {list(shape)}")
    # Python's integers do not overflow: the product is what it is.
    size = prod(shape) * ITEM_BYTES.get(known.dtype, 1)
    if size > MAX_TENSOR_BYTES:
        raise ConversionError(
            f"tensor {known.name!r} takes {size} bytes; at most {MAX_TENSOR_BYTES} are made into C."
        )
    if stored.IsVariable() and known.data_bytes:
        raise ValueError(f"tensor {known.name!r}, a variable that has a value")
    scales, zero_points, axis = _quantization(stored, known)
    return Tensor(
        index=index,
        name=known.name,
        shape=shape,
        dtype=known.dtype,
        scales=scales,
        zero_points=zero_points,
        axis=axis,
        value=_value(model.Buffers(stored.Buffer()), known, content) if known.data_bytes else None,
        is_variable=bool(stored.IsVariable()),
    )


def _value(buffer: schema.Buffer, known: FlatTensor, content: bytes) -> Array | None:
    if known.dtype not in ITEM_BYTES:
        return None
    want = prod(known.shape) * ITEM_BYTES[known.dtype]
    if known.data_bytes != want:
        raise ValueError(
            f"constant {known.name!r} with {known.data_bytes} bytes for {known.dtype}{list(known.shape)}"
        )
    if buffer.Offset() > 1:
        raw = content[buffer.Offset() : buffer.Offset() + buffer.Size()]
    else:
        raw = buffer.DataAsNumpy().tobytes()
    kind = np.dtype("uint8" if known.dtype == "bool" else known.dtype).newbyteorder("<")
    return np.frombuffer(raw, dtype=kind).astype(kind.newbyteorder("=")).reshape(known.shape)


def _quantization(
    stored: schema.Tensor, known: FlatTensor
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], int]:
    table = stored.Quantization()
    # The interpreter takes scales without zero points for no quantization.
    if table is None or table.ScaleLength() == 0 or table.ZeroPointLength() == 0:
        return _NO_SCALES, _NO_ZEROS, 0
    count = int(table.ScaleLength())
    scales = np.asarray(table.ScaleAsNumpy(), dtype=np.float32)
    if len(scales) != count or not np.all(np.isfinite(scales)) or np.any(scales < 0):
        raise ValueError(f"tensor {known.name!r} has a scale that is negative or not a number")
    axis = int(table.QuantizedDimension())
    if count > 1 and not (0 <= axis < len(known.shape) and known.shape[axis] == count):
        # Old converters wrote a bias's scales along an axis that it has not; kernels that need the axis check it.
        axis = NO_AXIS
    given = int(table.ZeroPointLength())
    if given not in (1, count):
        raise ValueError(f"tensor {known.name!r} has {count} scales and {given} zero points")
    zero_points = np.zeros(count, dtype=np.int64)
    zero_points[:] = np.asarray(table.ZeroPointAsNumpy(), dtype=np.int64)
    low, high = LIMITS.get(known.dtype, (-(2**63), 2**63 - 1))
    if np.any(zero_points < low) or np.any(zero_points > high):
        raise ValueError(f"tensor {known.name!r} has a zero point that is no {known.dtype}")
    return scales, zero_points, axis


def _operator(
    index: int, stored: schema.Operator, graph: FlatGraph, module: Mapping[str, object]
) -> Operator:
    known = graph.operators[index]
    name = f"custom {known.name}" if known.is_custom else known.name
    options: dict[str, float] = {}
    wanted = None if known.is_custom else _OPTIONS.get(known.name)
    table = stored.BuiltinOptions()
    if wanted is not None and table is not None:
        kinds = vars(module["BuiltinOptions"])
        if stored.BuiltinOptionsType() != kinds[wanted.table]:
            raise ValueError(f"{name} with the options of another operator")
        made = module[wanted.table]
        assert isinstance(made, type)
        reading = made()
        reading.Init(table.Bytes, table.Pos)
        for one in wanted.fields:
            value = float(getattr(reading, one)())
            if not isfinite(value):
                raise ValueError(f"option {one} of {name} is {value}")
            options[one] = value
    count = int(stored.IntermediatesLength())
    if count > len(graph.tensors):
        raise ValueError(f"{name} with {count} intermediate tensors")
    intermediates = tuple(int(stored.Intermediates(i)) for i in range(count))
    if any(not 0 <= one < len(graph.tensors) for one in intermediates):
        raise ValueError(f"{name} with intermediate tensors that do not exist")
    return Operator(
        position=index,
        name=name,
        inputs=known.inputs,
        outputs=known.outputs,
        options=options,
        intermediates=intermediates,
    )
