"""Operators, signature and weights of a model in ORT format (`.ort`), read without ONNX Runtime.

Numbers of fields are those of `ort.fbs` of ONNX Runtime 1.31.
"""

from __future__ import annotations

import struct
from pathlib import Path

from edgewright.backends.mnn_file import Table
from edgewright.core.errors import IntegrityError
from edgewright.core.files import sha256_of
from edgewright.core.tensors import MAX_RANK, TensorSpec
from edgewright.sources.flat_tables import damage_of, read_root
from edgewright.sources.inspection import Inspection, Layer, product, summary

_MODEL = 1  # InferenceSession
_GRAPH = 7  # Model
_INITIALIZERS, _VALUES, _NODES, _INPUTS, _OUTPUTS = 0, 1, 2, 5, 6  # Graph
_NAME, _DOMAIN, _OPERATOR, _NODE_INPUTS = 0, 2, 5, 8  # Node
_DIMS, _DATA_TYPE = 2, 3  # Tensor
_TYPE = 2  # ValueInfo
_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
_WEIGHTED = (
    "Conv",
    "FusedConv",
    "Gemm",
    "FusedGemm",
    "MatMul",
    "FusedMatMul",
    "LSTM",
    "GRU",
    "RNN",
    "Attention",
)


def inspect_ort(path: Path) -> Inspection:
    """Return the description of the `.ort` at `path`.

    Raises:
        FormatMismatchError: too large, or not in ORT format.
        IntegrityError: an offset or a count leads outside the file.
    """
    root = read_root(path, b"ORTM", "a model in ORT format (.ort)")
    with damage_of(path):
        model = root.table(_MODEL)
        graph = model.table(_GRAPH) if model is not None else None
        if graph is None:
            raise IntegrityError(f"{path.name} has no graph. Build it again.")
        weights = {
            tensor.text(_NAME): (product(_wide(tensor, _DIMS)) or 0, tensor.integer(_DATA_TYPE))
            for tensor in graph.tables(_INITIALIZERS)
        }
        layers = [_layer(node, weights) for node in graph.tables(_NODES)]
        values = {value.text(_NAME): value for value in graph.tables(_VALUES)}
        return summary(
            name=path.name,
            model_format="ort",
            sha256=sha256_of(path),
            size_bytes=path.stat().st_size,
            inputs=_specs(graph.texts(_INPUTS), values),
            outputs=_specs(graph.texts(_OUTPUTS), values),
            layers=layers,
            parameters=sum(layer.parameters for layer in layers),
            precision=_precision(weights),
            notes=(),
        )


def _layer(node: Table, weights: dict[str, tuple[int, int]]) -> Layer:
    kind, domain = node.text(_OPERATOR)[:120], node.text(_DOMAIN)[:120]
    own = sum(
        weights[name][0]
        for name in node.texts(_NODE_INPUTS)
        if name in weights and _DTYPES.get(weights[name][1]) in ("float32", "float16", "int8", "uint8")
    )
    is_weighted = kind in _WEIGHTED or kind.startswith(
        ("QLinear", "QGemm", "ConvInteger", "MatMul", "DynamicQ")
    )
    return Layer(
        name=node.text(_NAME)[:256] or kind,
        operator=f"{domain}:{kind}" if domain not in ("", "ai.onnx") else kind,
        output_shape=(),
        parameters=own,
        macs=None if is_weighted else 0,
    )


def _wide(table: Table, number: int) -> tuple[int, ...]:
    """Return the vector of 64-bit integers in field `number`."""
    start, count = table._vector(number, 8)
    if count > MAX_RANK:
        raise IntegrityError(f"a tensor has {count} dimensions; at most {MAX_RANK} are read.")
    return struct.unpack_from(f"<{count}q", table.buffer, start) if count else ()


def _specs(names: list[str], values: dict[str, Table]) -> list[TensorSpec]:
    specs = []
    for name in names:
        described = values[name].table(_TYPE) if name in values else None
        tensor = described.table(2) if described is not None else None
        shape = tensor.table(1) if tensor is not None else None
        dims = shape.tables(0) if shape is not None else []
        if len(dims) > MAX_RANK:
            raise IntegrityError(f"{name[:80]!r} has {len(dims)} dimensions; at most {MAX_RANK} are read.")
        dtype = _DTYPES.get(tensor.integer(0), "float32") if tensor is not None else "float32"
        specs.append(TensorSpec(name=name[:256], shape=tuple(_size(dim) for dim in dims), dtype=dtype))
    return specs


def _size(dimension: Table) -> int | None:
    value = dimension.table(0)
    is_known = value is not None and value.integer(0, form="<b") == 1
    size = value.integer(1, form="<q") if value is not None and is_known else -1
    return size if size >= 0 else None


def _precision(weights: dict[str, tuple[int, int]]) -> str:
    """Return how most elements of the weights are stored."""
    sums: dict[str, int] = {}
    names = {"float32": "fp32", "float16": "fp16", "int8": "w8", "uint8": "w8"}
    for elements, code in weights.values():
        name = names.get(_DTYPES.get(code, ""))
        if name is not None:
            sums[name] = sums.get(name, 0) + elements
    return max(sums, key=lambda name: sums[name]) if sums else "fp32"
