"""Reading, normalising and rewriting `.tflite` files through their schema, without an interpreter.

Everything that is written goes through `write`, so the bytes depend on the content alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from edgewright.core.errors import FormatMismatchError, IntegrityError, first_line
from edgewright.core.files import MAX_MODEL_BYTES, require_model_file, write_aside
from edgewright.core.tensors import DTYPES, Array, TensorSpec

if TYPE_CHECKING:
    from types import ModuleType

_IDENTIFIER = b"TFL3"
_SIGNATURE = b"serving_default"
# Below this many elements a tensor costs more bytes as float16 (a tensor and an operator more) than it saves.
_MIN_CAST_ELEMENTS = 256


class Quantization(Protocol):
    """Quantization of one tensor: real = scale * (q - zeroPoint)."""

    scale: Sequence[float] | None
    quantizedDimension: int  # noqa: N815
    zeroPoint: Sequence[int] | None  # noqa: N815  names of the schema


class Tensor(Protocol):
    """A tensor of the file; `buffer` is an index, 0 is the empty buffer."""

    shape: Sequence[int] | None
    shapeSignature: Sequence[int] | None  # noqa: N815
    type: int
    buffer: int
    name: bytes | None
    quantization: Quantization | None
    isVariable: bool  # noqa: N815


class Operator(Protocol):
    """An operator; its tensors are indices, -1 is an optional input that is left out."""

    opcodeIndex: int  # noqa: N815
    inputs: Sequence[int] | None
    outputs: Sequence[int] | None


class OperatorCode(Protocol):
    """Kind and version of an operator."""

    builtinCode: int  # noqa: N815
    deprecatedBuiltinCode: int  # noqa: N815
    customCode: bytes | None  # noqa: N815
    version: int


class Buffer(Protocol):
    """Bytes of a constant: inside the tables, or, with an offset beyond 1, anywhere in the file."""

    data: Array | None
    offset: int
    size: int


class SubGraph(Protocol):
    """A graph; tensors and operators are in the order of execution."""

    tensors: list[Tensor]
    operators: list[Operator]
    inputs: Sequence[int]
    outputs: Sequence[int]


class TensorMap(Protocol):
    """One named tensor of a signature."""

    name: bytes | str
    tensorIndex: int  # noqa: N815


class SignatureDef(Protocol):
    """A named entry point."""

    inputs: list[TensorMap] | None
    outputs: list[TensorMap] | None
    signatureKey: bytes | str | None  # noqa: N815
    subgraphIndex: int  # noqa: N815


class Model(Protocol):
    """The whole file."""

    version: int
    operatorCodes: list[OperatorCode]  # noqa: N815
    subgraphs: list[SubGraph]
    buffers: list[Buffer]
    signatureDefs: list[SignatureDef] | None  # noqa: N815


def read(path: Path) -> Model:
    """Return the content of the `.tflite` file at `path`, whose constants are views on its bytes.

    Raises:
        UsageError: missing, empty or larger than 8 GiB.
        FormatMismatchError: not a `.tflite` file.
        IntegrityError: a `.tflite` file whose structure is broken.
    """
    from ai_edge_litert import schema_py_generated as schema

    require_model_file(path)
    content = path.read_bytes()
    if content[4:8] != _IDENTIFIER:
        raise FormatMismatchError(
            f"{path} does not have the identifier TFL3 of a .tflite file at byte 4. Is it another format?"
        )
    try:
        model = cast(Model, schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)))
        _check_indices(model)
        _take_in(model, content)
    except IntegrityError as err:
        raise IntegrityError(f"{path} is broken: {err}") from err
    except Exception as err:  # offsets that point anywhere raise struct.error, TypeError, OverflowError, ...
        raise IntegrityError(
            f"{path} is broken: its tables cannot be read ({first_line(err)}). Get the file again."
        ) from err
    return model


def _check_indices(model: Model) -> None:
    """Check what every reader below relies on: indices inside their tables and shapes that fit the bytes."""
    if not model.subgraphs or not model.buffers:
        raise IntegrityError("it has no graph or no buffers. Get the file again.")
    for graph in model.subgraphs:
        graph.tensors, graph.operators = graph.tensors or [], graph.operators or []
        count = len(graph.tensors)
        used = [*_ints(graph.inputs), *_ints(graph.outputs)]
        for operator in graph.operators:
            if not 0 <= operator.opcodeIndex < len(model.operatorCodes):
                raise IntegrityError("an operator has no code. Get the file again.")
            used.extend(index for index in _ints(operator.inputs) if index != -1)
            used.extend(_ints(operator.outputs))
        if any(not 0 <= index < count for index in used):
            raise IntegrityError(f"an operator refers to a tensor outside the {count} there are.")
        if any(not 0 <= tensor.buffer < len(model.buffers) for tensor in graph.tensors):
            raise IntegrityError("a tensor refers to a buffer that does not exist.")


def _take_in(model: Model, content: bytes) -> None:
    """Make constants that lie behind the tables (files of the quantizer, files beyond 2 GiB) part of the model."""
    for buffer in model.buffers:
        if buffer.offset > 1:
            if buffer.offset + buffer.size > len(content):
                raise IntegrityError("a constant ends beyond the end of the file. Get the file again.")
            buffer.data = np.frombuffer(content, dtype=np.uint8, count=buffer.size, offset=buffer.offset)
        buffer.offset = buffer.size = 0
    for graph in model.subgraphs:
        for operator in graph.operators:
            if getattr(operator, "largeCustomOptionsOffset", 0) > 1:
                raise IntegrityError(
                    "an operator keeps its options behind the tables, which is not supported."
                )


def write(model: Model, path: Path) -> None:
    """Write `model` to `path` atomically; the same content gives the same bytes.

    Zero points are stored once: a file with int8 weights repeats the same vector of zeros, 8 bytes a channel, for the
    weights and the bias of every layer.
    """
    import flatbuffers  # type: ignore[import-untyped]

    zero_points: dict[bytes, int] = {}

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        def CreateNumpyVector(self, x: Array) -> int:  # noqa: N802  the library's name
            if x.dtype != np.int64:
                return int(super().CreateNumpyVector(x))
            key = x.tobytes()
            if key not in zero_points:
                zero_points[key] = int(super().CreateNumpyVector(x))
            return zero_points[key]

    for graph in model.subgraphs:
        for tensor in graph.tensors:
            quantization = tensor.quantization
            if quantization is not None and quantization.zeroPoint is not None:
                quantization.zeroPoint = cast(
                    Sequence[int], np.asarray(quantization.zeroPoint, dtype=np.int64)
                )
    builder = Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)  # type: ignore[attr-defined]
    content = builder.Output()
    if len(content) > MAX_MODEL_BYTES:
        raise FormatMismatchError(
            f"the model needs {len(content)} bytes; at most {MAX_MODEL_BYTES} are written."
        )
    with write_aside(path) as aside:
        aside.write_bytes(content)


def operator_name(code: OperatorCode) -> str:
    """Return the name of an operator, e.g. "CONV_2D"; of a custom one its own name."""
    builtin = _schema().BuiltinOperator
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == builtin.CUSTOM:
        return (code.customCode or b"custom").decode("utf-8", "replace")
    return next((name for name, value in vars(builtin).items() if value == number), f"operator {number}")


def custom_operators(model: Model) -> list[str]:
    """Return the names of the custom operators that the model uses, sorted."""
    custom = _schema().BuiltinOperator.CUSTOM
    used = {operator.opcodeIndex for graph in model.subgraphs for operator in graph.operators}
    codes = [code for index, code in enumerate(model.operatorCodes) if index in used]
    return sorted({operator_name(c) for c in codes if max(c.builtinCode, c.deprecatedBuiltinCode) == custom})


def has_int8_compute(model: Model) -> bool:
    """Return whether an operator takes a quantized activation and quantized weights."""
    schema = _schema()
    small = {schema.TensorType.INT8, schema.TensorType.UINT8}
    names = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL"}
    for graph in model.subgraphs:
        for operator in graph.operators:
            if operator_name(model.operatorCodes[operator.opcodeIndex]) not in names:
                continue
            inputs = [i for i in _ints(operator.inputs) if i != -1]
            if len(inputs) > 1 and all(graph.tensors[i].type in small for i in inputs[:2]):
                return True
    return False


def normalise(model: Model, *, is_batch_static: bool = True) -> bool:
    """Bring an old or bare file to the form that today's tools expect; return whether anything changed.

    Converters of 2020 wrote the kind of an operator only into the 8-bit field; many files have no signature, without
    which the quantizer finds no entry point; and a batch of -1 in `shapeSignature` beside a shape of 1 means the same
    as the 1 for a runtime that never resizes. Of an output other sizes that show when it runs stay open: what stands in
    their place in its shape is 1, too.
    """
    changed = False
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            q = tensor.quantization
            # Files of 2019 say dimension 3, right for the weights, also for the bias beside them, which has only one.
            if q is not None and q.quantizedDimension >= max(
                1, len(tensor.shape if tensor.shape is not None else ())
            ):
                q.quantizedDimension, changed = 0, True
    for code in model.operatorCodes:
        wanted = max(code.builtinCode, code.deprecatedBuiltinCode)
        if code.builtinCode != wanted:
            code.builtinCode, changed = wanted, True
    if is_batch_static:
        for graph in model.subgraphs:
            open_outputs = _open_outputs(graph)
            for index, tensor in enumerate(graph.tensors):
                sizes = _ints(tensor.shapeSignature)
                if -1 in sizes and sizes != open_outputs.get(index):
                    tensor.shapeSignature, changed = open_outputs.get(index), True
    if not model.signatureDefs:
        graph = model.subgraphs[0]
        ends = ([tensor_name(graph, index) for index in some] for some in (graph.inputs, graph.outputs))
        set_signature(model, *ends)
        changed = True
    return changed


def _open_outputs(graph: SubGraph) -> dict[int, list[int]]:
    """Return index of an output -> its signature with the batch of its shape, where another size is open."""
    found: dict[int, list[int]] = {}
    for index in _ints(graph.outputs):
        tensor = graph.tensors[index]
        signature, shape = _ints(tensor.shapeSignature), _ints(tensor.shape)
        if len(signature) == len(shape) and -1 in signature[1:]:
            found[index] = [shape[0], *signature[1:]]
    return found


def set_signature(model: Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Make one signature, `serving_default`, of the inputs and outputs of the first graph, in their order."""
    schema = _schema()
    graph = model.subgraphs[0]

    def entries(names: Sequence[str], indices: Sequence[int]) -> list[TensorMap]:
        return [
            schema.TensorMapT(name=name.encode(), tensorIndex=int(index))
            for name, index in zip(names, indices, strict=True)
        ]

    model.signatureDefs = [
        schema.SignatureDefT(
            inputs=entries(inputs, graph.inputs),
            outputs=entries(outputs, graph.outputs),
            signatureKey=_SIGNATURE,
            subgraphIndex=0,
        )
    ]


def rename(model: Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name the inputs and outputs of the first graph, tensors and signature alike; unique names only."""
    graph = model.subgraphs[0]
    for names, indices in ((inputs, graph.inputs), (outputs, graph.outputs)):
        for name, index in zip(names, indices, strict=True):
            graph.tensors[index].name = name.encode()
    set_signature(model, inputs, outputs)


def tensor_name(graph: SubGraph, index: int) -> str:
    """Return the name of a tensor as the interpreter shows it."""
    return (graph.tensors[index].name or b"").decode("utf-8", "replace")


def dtype_name(tensor: Tensor) -> str:
    """Return the dtype of a tensor in the words of TensorSpec.

    Raises:
        FormatMismatchError: it has none, e.g. int4.
    """
    types = vars(_schema().TensorType)
    name = next((key.lower() for key, value in types.items() if value == tensor.type), str(tensor.type))
    if name not in DTYPES:
        raise FormatMismatchError(f"an input or output has type {name}, which no array can carry.")
    return name


def signature(model: Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return inputs and outputs of the first graph, in its order; what is open is an output's, and never the batch."""
    graph = model.subgraphs[0]
    open_outputs = _open_outputs(graph)

    def specs(indices: Sequence[int]) -> tuple[TensorSpec, ...]:
        found = []
        for index in indices:
            tensor = graph.tensors[index]
            sizes = open_outputs.get(index) or _ints(tensor.shape)
            shape = tuple(None if size == -1 else size for size in sizes)
            found.append(TensorSpec(name=tensor_name(graph, index), shape=shape, dtype=dtype_name(tensor)))
        return tuple(found)

    return specs(graph.inputs), specs(graph.outputs)


def quantized_io(model: Model) -> list[str]:
    """Return one sentence for each quantized input and output: its scale and zero point."""
    graph = model.subgraphs[0]
    sentences = []
    for kind, indices in (("input", graph.inputs), ("output", graph.outputs)):
        for index in indices:
            q = graph.tensors[index].quantization
            if q is None or q.scale is None or len(q.scale) != 1 or q.zeroPoint is None:
                continue
            sentences.append(
                f"{kind} {tensor_name(graph, index)} is {dtype_name(graph.tensors[index])}: "
                f"real = {real_text(float(q.scale[0]), int(q.zeroPoint[0]))}"
            )
    return sentences


def real_text(scale: float, zero_point: int) -> str:
    """Return how a real value is computed of q: "0.5 * (q + 128)"."""
    if zero_point == 0:
        return f"{scale:.9g} * q"
    return f"{scale:.9g} * (q {'-' if zero_point > 0 else '+'} {abs(zero_point)})"


def float_io(model: Model) -> int:
    """Make quantized inputs and outputs float32 by QUANTIZE and DEQUANTIZE inside; return how many were changed.

    The new tensors take the names; the quantized ones get the suffix `_quantized`.
    """
    graph = model.subgraphs[0]
    float32 = _schema().TensorType.FLOAT32
    first, last = [], []
    inputs, outputs = [int(i) for i in graph.inputs], [int(i) for i in graph.outputs]
    for position, index in enumerate(inputs):
        if _is_quantized(graph.tensors[index]):
            inputs[position] = twin(graph, index, float32, b"_quantized")
            first.append(add_operator(model, "QUANTIZE", inputs[position], index))
    for position, index in enumerate(outputs):
        if _is_quantized(graph.tensors[index]):
            outputs[position] = twin(graph, index, float32, b"_quantized")
            last.append(add_operator(model, "DEQUANTIZE", index, outputs[position]))
    graph.operators = [*first, *graph.operators, *last]
    graph.inputs = cast(Sequence[int], np.asarray(inputs, dtype=np.int32))
    graph.outputs = cast(Sequence[int], np.asarray(outputs, dtype=np.int32))
    return len(first) + len(last)


def cast_weights_to_float16(model: Model) -> int:
    """Store float32 constants as float16, expanded by DEQUANTIZE when the model is loaded; return how many.

    Values beyond 65504, the largest float16, and tensors smaller than 256 elements stay float32.
    """
    schema = _schema()
    types = schema.TensorType
    casts = 0
    for graph in model.subgraphs:
        read_by_operators = {index for operator in graph.operators for index in _ints(operator.inputs)}
        expand = []
        for index in range(len(graph.tensors)):
            tensor = graph.tensors[index]
            data = model.buffers[tensor.buffer].data
            if tensor.type != types.FLOAT32 or data is None or index not in read_by_operators:
                continue
            values = np.frombuffer(np.asarray(data, dtype=np.uint8).tobytes(), dtype="<f4")
            if values.size < _MIN_CAST_ELEMENTS or not np.all(np.abs(values) <= np.finfo(np.float16).max):
                continue
            halves = np.frombuffer(values.astype("<f2").tobytes(), dtype=np.uint8)
            model.buffers.append(cast(Buffer, schema.BufferT(data=halves)))
            source = len(graph.tensors)
            graph.tensors.append(
                schema.TensorT(
                    shape=tensor.shape,
                    type=types.FLOAT16,
                    buffer=len(model.buffers) - 1,
                    name=(tensor.name or b"") + b"_float16",
                    hasRank=True,
                )
            )
            tensor.buffer = 0
            expand.append(add_operator(model, "DEQUANTIZE", source, index))
            casts += 1
        graph.operators = [*expand, *graph.operators]
    _drop_unused_buffers(model)
    return casts


def _drop_unused_buffers(model: Model) -> None:
    """Empty the buffers that no tensor and no metadata refers to; indices stay."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in getattr(model, "metadata", None) or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def _ints(indices: Sequence[int] | None) -> list[int]:
    """Return indices as a list; the schema gives None, a list or an array."""
    return [] if indices is None else [int(index) for index in indices]


def _is_quantized(tensor: Tensor) -> bool:
    types = _schema().TensorType
    q = tensor.quantization
    return (
        tensor.type in (types.INT8, types.UINT8)
        and q is not None
        and q.scale is not None
        and len(q.scale) == 1
    )


def twin(graph: SubGraph, index: int, kind: int, suffix: bytes) -> int:
    """Add a tensor of another type that takes the name of `index`, which gets the suffix; return its index."""
    tensor = graph.tensors[index]
    graph.tensors.append(
        _schema().TensorT(shape=tensor.shape, type=kind, buffer=0, name=tensor.name, hasRank=True)
    )
    tensor.name = (tensor.name or b"") + suffix
    return len(graph.tensors) - 1


def add_operator(model: Model, kind: str, source: int, result: int) -> Operator:
    """Return a QUANTIZE, DEQUANTIZE or CAST from one tensor to another, which is still to be put into the graph."""
    schema = _schema()
    number = getattr(schema.BuiltinOperator, kind)
    # Version 2 of DEQUANTIZE knows int8, version 3 float16; kernels of the wheel accept the highest for all.
    version = {"QUANTIZE": 1, "DEQUANTIZE": 3, "CAST": 1}[kind]
    codes = model.operatorCodes
    position = next(
        (i for i, c in enumerate(codes) if max(c.builtinCode, c.deprecatedBuiltinCode) == number), len(codes)
    )
    if position == len(codes):
        codes.append(schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=number))
    codes[position].version = max(codes[position].version, version)
    return cast(
        Operator,
        schema.OperatorT(
            opcodeIndex=position,
            inputs=np.asarray([source], dtype=np.int32),
            outputs=np.asarray([result], dtype=np.int32),
        ),
    )


def _schema() -> ModuleType:
    from ai_edge_litert import schema_py_generated

    return cast("ModuleType", schema_py_generated)
