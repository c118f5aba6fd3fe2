"""Operators, signature and weights of an MNN `.mnn` file, read without MNN."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgewright.backends import mnn_file
from edgewright.backends.mnn_file import Table, operator_name, read_net
from edgewright.core.errors import IntegrityError
from edgewright.core.files import sha256_of
from edgewright.core.tensors import MAX_RANK, TensorSpec
from edgewright.sources.inspection import Inspection, Layer, summary

# DataType of MNN's schema
_DTYPES = {1: "float32", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool"}
_CONVOLUTION, _BLOB = 9, 7  # of the union of an operator's parameters
_HALF_TYPE = 3
_BITS = 7
_SYMMETRIC = 4
_INTEGER = ("ConvInt8", "DepthwiseConvInt8")
_WEIGHTED = ("Deconvolution", "MatMul", "BatchMatMul", "LSTM", "RNNSequenceGRU", "Attention", "InnerProduct")
_STRUCTURE = ("Input", "Const", "ConvertTensor")


def inspect_mnn(path: Path) -> Inspection:
    """Return the description of the `.mnn` file at `path`.

    Raises:
        FormatMismatchError: too large, or no MNN net.
        IntegrityError: an offset or a count leads outside the file.
    """
    net = read_net(path)
    operators = list(_operators(net))
    layers = [_layer(op) for op in operators if operator_name(op) not in _STRUCTURE]
    constants = sum(_parameters(op) for op in operators if operator_name(op) == "Const")
    notes = ["MNN files hold no shapes but those of inputs"]
    if net.tables(mnn_file.NET_SUBGRAPHS):
        notes.append("operators of inner graphs (loops, branches) are counted too")
    weight_bytes = sum(_weight_bytes(op) for op in operators)
    notes.append(f"weights take {weight_bytes} bytes")
    return summary(
        name=path.name,
        model_format="mnn",
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        inputs=[_input(op) for op in net.tables(mnn_file.NET_OPERATORS) if operator_name(op) == "Input"],
        outputs=[
            TensorSpec(name=name[:256], shape=(), dtype="float32") for name in net.texts(mnn_file.NET_OUTPUTS)
        ],
        layers=layers,
        parameters=sum(layer.parameters for layer in layers) + constants,
        precision=_precision(operators),
        notes=notes,
    )


def _operators(net: Table) -> Iterator[Table]:
    yield from net.tables(mnn_file.NET_OPERATORS)
    for graph in net.tables(mnn_file.NET_SUBGRAPHS):
        yield from graph.tables(mnn_file.SUBGRAPH_OPERATORS)


def _input(operator: Table) -> TensorSpec:
    main = operator.table(mnn_file.OP_MAIN)
    shape: tuple[int, ...] = main.integers(mnn_file.INPUT_SHAPE) if main else ()
    if len(shape) > MAX_RANK:
        raise IntegrityError(f"an input has {len(shape)} dimensions; at most {MAX_RANK} are read.")
    dtype = main.integer(mnn_file.INPUT_DTYPE, default=1) if main else 1
    return TensorSpec(
        name=operator.text(mnn_file.OP_NAME)[:256],
        shape=tuple(size if size >= 0 else None for size in shape),
        dtype=_DTYPES.get(dtype, "float32"),
    )


def _layer(operator: Table) -> Layer:
    kind = operator_name(operator)
    is_weighted = _convolution(operator) is not None or kind in _WEIGHTED
    return Layer(
        name=operator.text(mnn_file.OP_NAME)[:256],
        operator=kind,
        output_shape=(),
        parameters=_parameters(operator),
        macs=None if is_weighted else 0,
    )


def _convolution(operator: Table) -> Table | None:
    """Return the Convolution2D of an operator, which linear layers have too."""
    if operator.integer(mnn_file.OP_MAIN_TYPE, form="<B") != _CONVOLUTION:
        return None
    return operator.table(mnn_file.OP_MAIN)


def _parameters(operator: Table) -> int:
    convolution = _convolution(operator)
    if convolution is not None:
        weights = convolution.length(mnn_file.CONVOLUTION_WEIGHT, 4)
        common = convolution.table(mnn_file.CONVOLUTION_COMMON)
        if not weights and common is not None:  # quantized: the buffer has a packing of its own
            weights = common.integer(mnn_file.COMMON_OUTPUTS) * common.integer(mnn_file.COMMON_INPUTS)
            weights *= common.integer(mnn_file.COMMON_KERNEL_X, default=1)
            weights *= common.integer(mnn_file.COMMON_KERNEL_Y, default=1)
            weights //= max(common.integer(mnn_file.COMMON_GROUP, default=1), 1)
        return max(weights, 0) + convolution.length(mnn_file.CONVOLUTION_BIAS, 4)
    blob = _blob(operator)
    return blob.length(_FLOATS, 4) if blob is not None else 0


_FLOATS = 7  # field of a Blob; integers are shapes and axes, which are no parameters


def _blob(operator: Table) -> Table | None:
    if operator.integer(mnn_file.OP_MAIN_TYPE, form="<B") != _BLOB:
        return None
    return operator.table(mnn_file.OP_MAIN)


def _weight_bytes(operator: Table) -> int:
    convolution = _convolution(operator)
    if convolution is not None:
        total = 4 * convolution.length(mnn_file.CONVOLUTION_WEIGHT, 4)
        total += 4 * convolution.length(mnn_file.CONVOLUTION_BIAS, 4)
        quantized = convolution.table(mnn_file.CONVOLUTION_QUANTIZED)
        if quantized is not None:
            total += quantized.length(mnn_file.QUANTIZED_BUFFER, 1)
            total += 4 * quantized.length(mnn_file.QUANTIZED_SCALES, 4)
        integers = convolution.table(_SYMMETRIC)  # of ConvInt8: int8 weights, int32 biases, float scales
        if integers is not None:
            total += integers.length(0, 1) + 4 * integers.length(1, 4) + 4 * integers.length(2, 4)
        return total
    blob = _blob(operator)
    if blob is None:
        return 0
    return sum(size * blob.length(field, size) for field, size in mnn_file.BLOB_BYTES.items())


def _precision(operators: list[Table]) -> str:
    """Return how the weights of most convolutions and linear layers are stored."""
    counts: dict[str, int] = {}
    for operator in operators:
        convolution = _convolution(operator)
        if convolution is None:
            continue
        quantized = convolution.table(mnn_file.CONVOLUTION_QUANTIZED)
        name = "w8a8" if operator_name(operator) in _INTEGER else "fp32"
        if quantized is not None and name == "fp32":
            is_half = quantized.integer(mnn_file.QUANTIZED_TYPE) == _HALF_TYPE
            name = "fp16" if is_half else f"w{quantized.integer(_BITS) or 8}"
        counts[name] = counts.get(name, 0) + 1
    return max(counts, key=lambda name: counts[name]) if counts else "fp32"
