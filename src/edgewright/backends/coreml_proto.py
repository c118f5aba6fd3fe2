"""Reading a Core ML model file (`model.mlmodel`) into its records, with bounds on everything.

Only what an ML Program needs is read. No vendor library takes part: a hostile file meets nothing but this reader, and a
model can be looked at where coremltools is missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edgewright.backends import coreml_wire as wire
from edgewright.backends.coreml_records import (
    DATA_TYPES,
    MAX_ELEMENTS,
    SUB_BYTE_BITS,
    WHOLE_TYPES,
    Blob,
    Block,
    Constant,
    Feature,
    Function,
    ListType,
    Model,
    Named,
    Operation,
    OtherType,
    TensorType,
    ValueType,
    element_count,
    storage_dtype,
    unpack_bits,
)
from edgewright.core.errors import FormatMismatchError, IntegrityError
from edgewright.core.tensors import MAX_RANK, Array

MAX_DEPTH = 48
_FEATURE_TYPES: Mapping[int, str] = {
    65568: "float32",
    65600: "float64",
    131104: "int32",
    131080: "int8",
    65552: "float16",
}
_MODEL_KINDS: Mapping[int, str] = {
    200: "pipelineClassifier",
    201: "pipelineRegressor",
    202: "pipeline",
    303: "neuralNetworkRegressor",
    403: "neuralNetworkClassifier",
    500: "neuralNetwork",
    502: "mlProgram",
    555: "customModel",
    3000: "serializedModel",
}
_ML_PROGRAM = 502


def read_model(data: bytes) -> Model:
    """Return the model in the bytes of a `model.mlmodel` file.

    Raises:
        FormatMismatchError: a Core ML model of another kind than an ML Program, or with several functions.
        IntegrityError: the bytes are broken.
    """
    version, kinds = 0, []
    program: memoryview | None = None
    description: memoryview | None = None
    for number, value in wire.fields(memoryview(data)):
        if number == 1:
            version = wire.integer(value)
        elif number == 2:
            description = wire.message(value)
        elif number >= 200:
            kinds.append(_MODEL_KINDS.get(number, f"model type {number}"))
            if number == _ML_PROGRAM:
                program = wire.message(value)
    if program is None or description is None or len(kinds) != 1:
        raise FormatMismatchError(
            f"this Core ML file holds {', '.join(kinds[:4]) or 'no model'}, but an ML Program is read. "
            "Convert the model again with convert_to='mlprogram'."
        )
    functions = {}
    for number, value in wire.fields(program):
        if number == 2:
            name, body = wire.entry(wire.message(value))
            functions[name] = _function(name, body)
    model = _description(description, version, functions)
    if len(functions) != 1:
        raise FormatMismatchError(
            f"the model has {len(functions)} functions ({', '.join(sorted(functions)[:6])}); one is read. "
            "Save each function as a model of its own."
        )
    return model


def _description(data: memoryview, version: int, functions: dict[str, Function]) -> Model:
    inputs, outputs, metadata, default = [], [], {}, ""
    for number, value in wire.fields(data):
        if number == 1:
            inputs.append(_feature(wire.message(value)))
        elif number == 10:
            outputs.append(_feature(wire.message(value)))
        elif number == 13:
            raise FormatMismatchError("the model keeps states between calls, which is not read here.")
        elif number == 21:
            default = wire.text(value)
        elif number == 100:
            for inner, entry in wire.fields(wire.message(value)):
                if inner == 100:
                    key, text = wire.entry(wire.message(entry))
                    metadata[key] = wire.decoded(text)
    return Model(
        specification_version=version,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        functions=functions,
        default_function=default,
        metadata=metadata,
    )


def _feature(data: memoryview) -> Feature:
    name, dtype = "", ""
    shape: tuple[int, ...] = ()
    for number, value in wire.fields(data):
        if number == 1:
            name = wire.text(value)
        elif number == 3:
            for kind, content in wire.fields(wire.message(value)):
                if kind == 5:
                    dtype, shape = _array_feature(wire.message(content))
                elif kind < 1000:
                    raise FormatMismatchError(
                        f"{name!r} is an image, a dictionary or another feature that is no array; "
                        "only arrays (MLMultiArray) are read here."
                    )
    return Feature(name=name, dtype=dtype, shape=shape)


def _array_feature(data: memoryview) -> tuple[str, tuple[int, ...]]:
    dtype = ""
    shape: list[int] = []
    for number, value in wire.fields(data):
        if number == 1:
            shape += wire.integers(value)
        elif number == 2:
            dtype = _FEATURE_TYPES.get(wire.integer(value), "")
    if not dtype or len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise IntegrityError(f"an input or output has the type {dtype!r} and shape {shape[:MAX_RANK]}.")
    return dtype, tuple(shape)


def _function(name: str, data: memoryview) -> Function:
    inputs, opset, blocks = [], "", {}
    for number, value in wire.fields(data):
        if number == 1:
            inputs.append(_named(wire.message(value), 1))
        elif number == 2:
            opset = wire.text(value)
        elif number == 3:
            key, body = wire.entry(wire.message(value))
            blocks[key] = _block(body, 1)
    if opset not in blocks:
        raise IntegrityError(
            f"function {name!r} is for the opset {opset!r}, but has blocks for {list(blocks)}."
        )
    return Function(name=name, opset=opset, inputs=tuple(inputs), block=blocks[opset])


def _block(data: memoryview, depth: int) -> Block:
    _check_depth(depth)
    inputs, outputs, operations = [], [], []
    for number, value in wire.fields(data):
        if number == 1:
            inputs.append(_named(wire.message(value), depth + 1))
        elif number == 2:
            outputs.append(wire.text(value))
        elif number == 3:
            operations.append(_operation(wire.message(value), depth + 1))
    return Block(inputs=tuple(inputs), outputs=tuple(outputs), operations=tuple(operations))


def _operation(data: memoryview, depth: int) -> Operation:
    _check_depth(depth)
    kind = ""
    inputs: dict[str, tuple[str | Constant, ...]] = {}
    outputs, blocks, attributes = [], [], {}
    for number, value in wire.fields(data):
        if number == 1:
            kind = wire.text(value)
        elif number == 2:
            key, body = wire.entry(wire.message(value))
            inputs[key] = tuple(
                _binding(wire.message(argument), depth + 1)
                for inner, argument in wire.fields(body)
                if inner == 1
            )
        elif number == 3:
            outputs.append(_named(wire.message(value), depth + 1))
        elif number == 4:
            blocks.append(_block(wire.message(value), depth + 1))
        elif number == 5:
            key, body = wire.entry(wire.message(value))
            attributes[key] = _constant(body, depth + 1)
    return Operation(
        kind=kind, inputs=inputs, outputs=tuple(outputs), blocks=tuple(blocks), attributes=attributes
    )


def _binding(data: memoryview, depth: int) -> str | Constant:
    for number, value in wire.fields(data):
        if number == 1:
            return wire.text(value)
        if number == 2:
            return _constant(wire.message(value), depth)
    raise IntegrityError("an operator's argument has neither a name nor a value.")


def _named(data: memoryview, depth: int) -> Named:
    name, kind = "", memoryview(b"")
    for number, value in wire.fields(data):
        if number == 1:
            name = wire.text(value)
        elif number == 2:
            kind = wire.message(value)
    return Named(name=name, type=_type(kind, depth))


def _type(data: memoryview, depth: int) -> ValueType:
    _check_depth(depth)
    for number, value in wire.fields(data):
        if number == 1:
            return _tensor_type(wire.message(value))
        if number == 2:
            for inner, element in wire.fields(wire.message(value)):
                if inner == 1:
                    kind = _type(wire.message(element), depth + 1)
                    if isinstance(kind, TensorType):
                        return ListType(element=kind)
            raise IntegrityError("a list has no tensors as its elements.")
        return OtherType(kind={3: "tuple", 4: "dictionary", 5: "state"}.get(number, f"type {number}"))
    raise IntegrityError("a value has no type.")


def _tensor_type(data: memoryview) -> TensorType:
    dtype, rank = "", 0
    shape: list[int | None] = []
    for number, value in wire.fields(data):
        if number == 1:
            code = wire.integer(value)
            if code not in DATA_TYPES:
                raise IntegrityError(f"a tensor has the data type {code}, which does not exist.")
            dtype = DATA_TYPES[code]
        elif number == 2:
            rank = wire.integer(value)
        elif number == 3:
            shape.append(_dimension(wire.message(value)))
    if not dtype or rank != len(shape) or rank > MAX_RANK:
        raise IntegrityError(f"a tensor of {dtype or 'no type'} has rank {rank} and {len(shape)} dimensions.")
    if math.prod(size or 1 for size in shape) > MAX_ELEMENTS:
        raise IntegrityError(f"a tensor of shape {shape} is larger than {MAX_ELEMENTS} elements.")
    return TensorType(dtype=dtype, shape=tuple(shape))


def _dimension(data: memoryview) -> int | None:
    for number, value in wire.fields(data):
        if number == 1:
            sizes = [wire.integer(size) for inner, size in wire.fields(wire.message(value)) if inner == 1]
            size = sizes[0] if sizes else 0
            if not 0 <= size <= MAX_ELEMENTS:
                raise IntegrityError(f"a dimension has {size} elements; at most {MAX_ELEMENTS} are read.")
            return size
        if number == 2:
            return None
    return 0


def _constant(data: memoryview, depth: int) -> Constant:
    _check_depth(depth)
    kind: ValueType | None = None
    content: memoryview | None = None
    blob: Blob | None = None
    for number, value in wire.fields(data):
        if number == 2:
            kind = _type(wire.message(value), depth + 1)
        elif number == 3:
            content = wire.message(value)
        elif number == 5:
            blob = _blob(wire.message(value))
    if kind is None:
        raise IntegrityError("a constant has no type.")
    if blob is not None:
        return Constant(type=kind, content=blob)
    for number, value in wire.fields(content if content is not None else memoryview(b"")):
        if number == 1 and isinstance(kind, TensorType):
            return Constant(type=kind, content=_tensor(wire.message(value), kind))
        if number in (2, 3):
            parts = [
                _constant(wire.message(part), depth + 1)
                for n, part in wire.fields(wire.message(value))
                if n == 1
            ]
            return Constant(type=kind, content=tuple(parts))
    if isinstance(kind, ListType):
        return Constant(type=kind, content=())
    raise IntegrityError(f"a constant of type {kind} has no value that is read here.")


def _blob(data: memoryview) -> Blob:
    file, offset = "", 0
    for number, value in wire.fields(data):
        if number == 1:
            file = wire.text(value)
        elif number == 2:
            offset = wire.integer(value)
    return Blob(file=file, offset=offset)


def _tensor(data: memoryview, kind: TensorType) -> Array | str:
    """Return the array of an immediate tensor, or its text; the count must be what the type says."""
    count = element_count(kind)
    for number, value in wire.fields(data):
        body = wire.message(value)
        if number == 4 and kind.dtype == "string":
            texts = [wire.text(text) for inner, text in wire.fields(body) if inner == 1]
            if len(texts) != 1 or count != 1:
                raise IntegrityError(f"a text constant of type {kind} has {len(texts)} texts; one is read.")
            return texts[0]
        values = _numbers(number, body, kind.dtype, count)
        if values.size != count:
            raise IntegrityError(f"a constant of type {kind} has {values.size} values.")
        if values.dtype.kind in "iu" and kind.dtype != values.dtype.name and kind.dtype in WHOLE_TYPES:
            limits = np.iinfo(kind.dtype)
            if values.size and not limits.min <= int(values.min()) <= int(values.max()) <= limits.max:
                raise IntegrityError(f"a constant of type {kind} has values beyond its range.")
        shape = tuple(size or 0 for size in kind.shape)
        return values.astype(storage_dtype(kind.dtype), copy=False).reshape(shape)
    if count == 0:
        return np.zeros([size or 0 for size in kind.shape], storage_dtype(kind.dtype))
    raise IntegrityError(f"a constant of type {kind} has no values.")


def _numbers(field_number: int, body: memoryview, dtype: str, count: int) -> Array:
    """Return the flat values of one TensorValue; `field_number` tells how they are spelled."""
    if field_number == 7:
        raw = b"".join(bytes(wire.message(value)) for inner, value in wire.fields(body) if inner == 1)
        if dtype in SUB_BYTE_BITS:
            return unpack_bits(np.frombuffer(raw, np.uint8), count, dtype)
        kind = storage_dtype(dtype)
        if len(raw) != count * kind.itemsize:
            raise IntegrityError(
                f"{count} values of {dtype} take {count * kind.itemsize} bytes, not {len(raw)}."
            )
        return np.frombuffer(raw, kind.newbyteorder("<")).astype(kind)
    spelled = {1: ("<f4", "float32"), 6: ("<f8", "float64")}.get(field_number)
    if spelled is not None:
        if spelled[1] != dtype:
            raise IntegrityError(f"values of {dtype} are spelled as {spelled[1]}.")
        width = np.dtype(spelled[0]).itemsize
        raw = b"".join(
            bytes(value) if isinstance(value, memoryview) else value.to_bytes(width, "little")
            for inner, value in wire.fields(body)
            if inner == 1
        )
        if len(raw) % width:
            raise IntegrityError(f"values of {dtype} end in the middle of one.")
        return np.frombuffer(raw, spelled[0]).astype(spelled[1])
    if field_number in (2, 3, 5):
        whole = [
            number for inner, value in wire.fields(body) if inner == 1 for number in wire.integers(value)
        ]
        if field_number == 3:
            return np.array(whole, bool)
        if storage_dtype(dtype).kind not in "iu":
            raise IntegrityError(f"values of {dtype} are spelled as integers.")
        return np.array(whole, np.uint64 if dtype == "uint64" else np.int64)
    raise IntegrityError(f"values of {dtype} are spelled in the unknown way {field_number}.")


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise IntegrityError(f"the program is nested more than {MAX_DEPTH} levels deep.")
