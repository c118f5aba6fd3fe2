"""ONNX sources: bounded reading, external data only beside the model, the model checker, the signature."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgewright.core.errors import FormatMismatchError, IntegrityError, first_line
from edgewright.core.files import sha256_of_files
from edgewright.core.program import Program
from edgewright.core.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx

MAX_PROTO_BYTES = (2 << 30) - 1
_STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")
_INTEGER_OPERATORS = ("QuantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
_LISTED = 5


def read_onnx(path: Path, *, spec: str) -> Program:
    """Return the Program of an ONNX file; the digest covers its external data too.

    Raises:
        FormatMismatchError: not ONNX, or damaged so that it cannot be parsed.
        IntegrityError: it parses, but is no valid model, or its external data is missing or out of bounds.
    """
    model = parse_onnx(path)
    externals = external_files(model, path)
    check_model(model, path, has_externals=bool(externals))
    inputs, notes = _inputs(model)
    custom = Counter(n.domain for n in nodes_of(model.graph) if n.domain not in _STANDARD_DOMAINS)
    notes += [
        f"{count} operators of the custom domain {domain!r}" for domain, count in sorted(custom.items())
    ]
    return Program(
        path=path,
        format="onnx",
        inputs=inputs,
        outputs=tuple(tensor_spec(value) for value in model.graph.output),
        sha256=sha256_of_files([path, *externals]),
        origin=spec,
        origin_format="onnx",
        precision=precision_of(model),
        history=(f"loaded from {path.name}",),
        notes=tuple(notes),
    )


def parse_onnx(path: Path) -> onnx.ModelProto:
    """Return the model without its external data.

    Raises:
        FormatMismatchError: the bytes are no ONNX model.
    """
    import onnx

    size = path.stat().st_size
    if size > MAX_PROTO_BYTES:
        raise FormatMismatchError(
            f"{path} has {size} bytes, but a protobuf file has at most {MAX_PROTO_BYTES}. Save its weights as "
            "external data."
        )
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as err:
        raise FormatMismatchError(
            f"{path} is not a whole ONNX file: {first_line(err)}. It may be truncated; export it again."
        ) from err
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise FormatMismatchError(
            f"{path} is not an ONNX model: it has no operators, no IR version or no opset. Export it again."
        )
    return model


def external_files(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Return the files that hold external data, each once, checked.

    Raises:
        IntegrityError: a location leaves the model's folder, is no regular file, or is too short.
    """
    import onnx

    folder = path.resolve().parent
    found: dict[str, Path] = {}
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        pure = PurePosixPath(location)
        if not location or pure.is_absolute() or ".." in pure.parts or "\\" in location or "\0" in location:
            raise IntegrityError(
                f"{path}: the weights of {tensor.name!r} are at {location!r}, outside the model's folder. "
                "They are not read; save the model with its data beside it."
            )
        file = folder / pure
        try:
            status = file.lstat()
        except OSError as err:
            raise IntegrityError(
                f"{path}: its external data {location!r} is missing. Put it beside the model."
            ) from err
        if not stat.S_ISREG(status.st_mode) or not file.resolve().is_relative_to(folder):
            raise IntegrityError(
                f"{path}: its external data {location!r} is no regular file in the model's folder. "
                "Links are not followed; copy the file there."
            )
        _check_extent(path, tensor, entries, status.st_size)
        found[location] = file
    return [found[name] for name in sorted(found)]


def _check_extent(path: Path, tensor: onnx.TensorProto, entries: dict[str, str], size_bytes: int) -> None:
    try:
        offset = int(entries.get("offset", "0") or 0)
        length = int(entries.get("length", "0") or 0)
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > size_bytes:
        raise IntegrityError(
            f"{path}: the weights of {tensor.name!r} are at {offset}+{length} of a file of {size_bytes} bytes. "
            "The data file is truncated; copy it again."
        )


def check_model(model: onnx.ModelProto, path: Path, *, has_externals: bool) -> None:
    """Run onnx.checker.

    Raises:
        IntegrityError: the checker's first line.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path) if has_externals else model)
    except onnx.checker.ValidationError as err:
        raise IntegrityError(f"{path} is no valid ONNX model: {first_line(err)}. Export it again.") from err
    except Exception as err:
        raise IntegrityError(
            f"{path} cannot be checked as ONNX: {first_line(err)}. Export it again."
        ) from err


def tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """Return the spec of a graph input or output; dynamic dimensions are None.

    Raises:
        FormatMismatchError: it is not a tensor of a known dtype and rank.
    """
    import onnx

    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise FormatMismatchError(
            f"{value.name!r} is a {kind or 'value without a type'}; only tensors are read."
        )
    tensor = value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except (KeyError, ValueError, TypeError) as err:
        raise FormatMismatchError(f"{value.name!r} has the unknown dtype {tensor.elem_type}.") from err
    if tensor.elem_type == onnx.TensorProto.STRING:
        dtype = "string"
    if not tensor.HasField("shape"):
        raise FormatMismatchError(
            f"{value.name!r} has no rank. Export the model with the shape of its inputs."
        )
    dims = tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim
    )
    return TensorSpec(name=value.name, shape=dims, dtype=dtype, layout="nchw" if len(dims) == 4 else None)


def precision_of(model: onnx.ModelProto) -> str:
    """Return w8a8 for a graph with quantized activations, w8 with integer weights only, fp16, else fp32."""
    import onnx

    operators = {node.op_type for node in nodes_of(model.graph)}
    if any(name in operators for name in _INTEGER_OPERATORS) or any(
        n.startswith("QLinear") for n in operators
    ):
        return "w8a8"
    if "DequantizeLinear" in operators or "MatMulNBits" in operators:
        return "w8"
    sizes: Counter[int] = Counter()
    for tensor in _tensors(model):
        elements = 1
        for dim in tensor.dims:
            elements *= dim
        sizes[tensor.data_type] += elements
    half = sizes[onnx.TensorProto.FLOAT16] + sizes[onnx.TensorProto.BFLOAT16]
    return "fp16" if half > sizes[onnx.TensorProto.FLOAT] else "fp32"


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of `graph` and of the bodies of its If, Loop and Scan, at any depth."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_of(inner)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    stack = [model.graph]
    while stack:
        graph = stack.pop()
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
        for node in graph.node:
            yield from _attribute_tensors(node)
            stack += [g for a in node.attribute for g in (a.g, *a.graphs)]
    for function in model.functions:
        for node in function.node:
            yield from _attribute_tensors(node)


def _attribute_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _inputs(model: onnx.ModelProto) -> tuple[tuple[TensorSpec, ...], list[str]]:
    """Return the inputs that the user feeds, and notes on their dynamic dimensions."""
    held = {tensor.name for tensor in model.graph.initializer}
    held |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    fed = [value for value in model.graph.input if value.name not in held]
    specs = tuple(tensor_spec(value) for value in fed)
    notes = []
    optional = len(model.graph.input) - len(fed)
    if optional:
        notes.append(f"{optional} graph inputs are initialisers and are not fed (an old exporter's way)")
    for value, spec in zip(fed, specs, strict=True):
        free = [
            f"dimension {axis} ({value.type.tensor_type.shape.dim[axis].dim_param or 'unnamed'})"
            for axis, dim in enumerate(spec.shape)
            if dim is None and axis > 0
        ]
        if free:
            notes.append(f"input {spec.name!r} is dynamic in {', '.join(free[:_LISTED])}")
    return specs, notes
