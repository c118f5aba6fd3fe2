"""Layers and signature of an ncnn `.param` text with its `.bin`, read without ncnn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgewright.backends.ncnn_file import ParamLayer, inputs_of, read_param, results_of
from edgewright.core.files import sha256_of_files
from edgewright.core.tensors import TensorSpec
from edgewright.sources.inspection import Inspection, Layer, summary

_HALF = (0x01306B47).to_bytes(4, "little")  # tag before weights of float16, ncnn's modelbin.cpp
_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise")
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_BIASES = {"LSTM": 4, "GRU": 4, "RNN": 1}
_WEIGHTED = (*_CONVOLUTIONS, *_GATES, "InnerProduct", "Embed", "Gemm", "MultiHeadAttention", "SDPA", "MatMul")
_STRUCTURE = ("Input", "Split", "Noop")


def inspect_ncnn(path: Path) -> Inspection:
    """Return the description of the `.param` file at `path`; its weights are expected beside it (`.bin`).

    Raises:
        FormatMismatchError: no text `.param` file, or too large.
        IntegrityError: a count or a line is broken.
    """
    layers = read_param(path)
    weights = path.with_suffix(".bin")
    files = [path, *([weights] if weights.is_file() else [])]
    described = [_layer(layer) for layer in layers if layer.operator not in _STRUCTURE]
    parameters = sum(layer.parameters for layer in described)
    notes = ["ncnn files hold no shapes: those of outputs and layers are not known"]
    if not weights.is_file():
        notes.append(f"{weights.name} with the weights is not beside it")
    undeclared = [layer.name for layer in inputs_of(layers) if not layer.shape]
    if undeclared:
        notes.append(f"the shape of {', '.join(undeclared[:8])} is not declared")
    return summary(
        name=path.name,
        model_format="ncnn",
        sha256=sha256_of_files(files),
        size_bytes=sum(file.stat().st_size for file in files),
        inputs=[
            TensorSpec(name=name[:256], shape=layer.shape, dtype="float32")
            for layer in inputs_of(layers)
            for name in layer.outputs
        ],
        outputs=[TensorSpec(name=name[:256], shape=(), dtype="float32") for name in results_of(layers)],
        layers=described,
        parameters=parameters,
        precision=_precision(weights, layers, parameters),
        notes=notes,
    )


def _layer(layer: ParamLayer) -> Layer:
    return Layer(
        name=layer.name,
        operator=layer.operator,
        output_shape=(),
        parameters=max(_parameters(layer), 0),
        macs=None if layer.operator in _WEIGHTED else 0,
    )


def _parameters(layer: ParamLayer) -> int:
    """Return the elements of the weights of one layer. Source: the parameter tables of ncnn's operators.md."""
    kind, at = layer.operator, layer.integer
    if kind in _CONVOLUTIONS:
        return at(6) + at(0) * at(5)
    if kind == "InnerProduct":
        return at(2) + at(0) * at(1)
    if kind == "Embed":
        return at(3) + at(0) * at(2)
    if kind in _GATES:
        directions = 2 if at(2) == 2 else 1
        return at(1) + directions * at(0) * (_BIASES[kind] + _GATES[kind] * at(0))
    if kind == "BatchNorm":
        return 4 * at(0)
    if kind in ("LayerNorm", "InstanceNorm", "GroupNorm", "RMSNorm"):
        size, is_affine = (at(1), at(3, 1)) if kind == "GroupNorm" else (at(0), at(2, 1))
        return size * is_affine * (1 if kind == "RMSNorm" else 2)
    if kind == "Scale":
        return max(at(0), 0) * (1 + at(1))
    if kind == "PReLU":
        return at(0)
    if kind == "MemoryData":
        return max(at(0), 1) * max(at(1), 1) * max(at(2), 1) * max(at(11), 1)
    if kind == "Gemm":
        return at(4) * at(7) * at(9) + at(5) * at(8) * at(9) + at(6) * _gemm_bias(layer)
    return 0


def _gemm_bias(layer: ParamLayer) -> int:
    """Return the elements of Gemm's C by its kind of broadcast: none, one, M, M, M x N, N."""
    rows, columns = layer.integer(7), layer.integer(8)
    sizes = {0: 1, 1: rows, 2: rows, 3: rows * columns, 4: columns}
    return sizes.get(layer.integer(10), 0)


def _precision(weights: Path, layers: Sequence[ParamLayer], parameters: int) -> str:
    """Return fp16 or fp32: the first weights' tag says it; where they have none, the bytes of a weight."""
    if not weights.is_file():
        return "unknown"
    first = next((layer.operator for layer in layers if _parameters(layer)), "")
    if first in (*_CONVOLUTIONS, "InnerProduct", "Embed", *_GATES, "Gemm"):
        with weights.open("rb") as stream:
            return "fp16" if stream.read(4) == _HALF else "fp32"
    return "fp16" if weights.stat().st_size < 3 * parameters else "fp32"
