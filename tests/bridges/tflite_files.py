"""Writes `.tflite` files of a few operators, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgewright.backends import litert_file
from edgewright.core.tensors import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Flat:
    """A tensor: an input or result, or with `value` a constant; with scales it is quantized."""

    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    value: Array | None = None
    scale: Sequence[float] = ()
    zero: Sequence[int] = ()
    axis: int = 0
    is_variable: bool = False
    is_batched: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """An operator: `reads` and `makes` are names of tensors, an empty one is left out."""

    name: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    kind: str = ""  # of the options, e.g. "Conv2DOptions"
    version: int = 1
    custom: bytes = b""


def const(value: object, dtype: str = "int32") -> Flat:
    """Return a constant."""
    array = np.asarray(value, dtype=dtype)
    return Flat(shape=array.shape, dtype=dtype, value=array)


def write(
    path: Path,
    tensors: Mapping[str, Flat],
    steps: Sequence[Step],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Path:
    """Write a file of `steps` in their order and return its path."""
    from ai_edge_litert import schema_py_generated as schema

    buffers, made = [schema.BufferT()], []
    names = list(tensors)
    for name, one in tensors.items():
        number = 0
        if one.value is not None:
            buffers.append(schema.BufferT(data=np.frombuffer(one.value.tobytes(), dtype=np.uint8)))
            number = len(buffers) - 1
        quantization = None
        if len(one.scale):
            quantization = schema.QuantizationParametersT(
                scale=np.asarray(one.scale, dtype=np.float32),
                zeroPoint=np.asarray(one.zero or [0] * len(one.scale), dtype=np.int64),
                quantizedDimension=one.axis,
            )
        made.append(
            schema.TensorT(
                shape=np.asarray(one.shape, dtype=np.int32),
                shapeSignature=np.asarray([-1, *one.shape[1:]], dtype=np.int32) if one.is_batched else None,
                type=getattr(schema.TensorType, one.dtype.upper()),
                buffer=number,
                name=name.encode(),
                quantization=quantization,
                isVariable=one.is_variable,
                hasRank=True,
            )
        )
    codes, operators = [], []
    for step in steps:
        is_custom = not hasattr(schema.BuiltinOperator, step.name)
        code = schema.BuiltinOperator.CUSTOM if is_custom else getattr(schema.BuiltinOperator, step.name)
        codes.append(
            schema.OperatorCodeT(
                builtinCode=code,
                deprecatedBuiltinCode=min(code, 127),
                version=step.version,
                customCode=step.name if is_custom else None,
            )
        )
        operator = schema.OperatorT(
            opcodeIndex=len(codes) - 1,
            inputs=np.asarray([names.index(n) if n else -1 for n in step.reads], dtype=np.int32),
            outputs=np.asarray([names.index(n) for n in step.makes], dtype=np.int32),
        )
        if step.kind:
            options = getattr(schema, f"{step.kind}T")()
            for key, value in step.options.items():
                assert hasattr(options, key), f"{step.kind} has no {key}"
                setattr(options, key, value)
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, step.kind)
        if step.custom:
            operator.customOptions = np.frombuffer(step.custom, dtype=np.uint8)
        operators.append(operator)
    graph = schema.SubGraphT(
        tensors=made,
        inputs=np.asarray([names.index(n) for n in inputs], dtype=np.int32),
        outputs=np.asarray([names.index(n) for n in outputs], dtype=np.int32),
        operators=operators,
        name="main",
    )
    model = schema.ModelT(
        version=3, operatorCodes=codes, subgraphs=[graph], buffers=buffers, description="test"
    )
    litert_file.write(model, path)
    return path
