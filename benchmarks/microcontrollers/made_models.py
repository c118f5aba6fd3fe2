"""Write small `.tflite` files by hand: tensors, constants and operators through LiteRT's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder

KINDS = {
    "int8": (schema.TensorType.INT8, np.int8),
    "uint8": (schema.TensorType.UINT8, np.uint8),
    "int16": (schema.TensorType.INT16, np.int16),
    "int32": (schema.TensorType.INT32, np.int32),
    "int64": (schema.TensorType.INT64, np.int64),
    "float32": (schema.TensorType.FLOAT32, np.float32),
    "bool": (schema.TensorType.BOOL, np.bool_),
    "string": (schema.TensorType.STRING, np.uint8),
}


# How much finer int16 activations are than int8 ones.
WIDE_LEVELS = 200


class Maker:
    """A model in the making; tensors are known by their index.

    Attributes:
        is_float: quantized tensors are made float32, constants with their real values.
        is_wide: int8 tensors that are no constants are made int16, biases int64.
    """

    is_float = False
    is_wide = False

    def __init__(self) -> None:
        self.feeds: dict[int, int] = {}  # tensors made of a model's input, and that input
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.description = b"made for a conformance test"
        empty = schema.BufferT()
        self._model.buffers = [empty]
        self._model.operatorCodes = []
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._graph.name = b"main"
        self._model.subgraphs = [self._graph]

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str = "int8",
        *,
        scale: float | Sequence[float] | None = None,
        zero: int = 0,
        axis: int = 0,
        value: np.ndarray | None = None,
        is_variable: bool = False,
        signature: Sequence[int] | None = None,
    ) -> int:
        """Add a tensor, with `value` a constant, and return its index; `signature` is its shape with -1 for free."""
        if self.is_float and scale is not None:
            if value is not None:
                value = (value.astype(np.float32) - zero) * np.float32(np.mean(scale))
            dtype, scale = "float32", None
        if self.is_wide and dtype == "int8" and value is None:
            dtype, scale, zero = "int16", (scale or 0) / WIDE_LEVELS, 0
        if self.is_wide and dtype == "int32" and scale is not None:
            dtype, scale = "int64", [one / WIDE_LEVELS for one in np.atleast_1d(scale)]
        kind, numpy_type = KINDS[dtype]
        made = schema.TensorT()
        made.shape = np.asarray(shape, dtype=np.int32)
        if signature is not None:
            made.shapeSignature = np.asarray(signature, dtype=np.int32)
        made.type = kind
        made.name = f"t{len(self._graph.tensors)}".encode()
        made.isVariable = is_variable
        made.buffer = 0
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.asarray(value, dtype=numpy_type).tobytes(), dtype=np.uint8)
            self._model.buffers.append(buffer)
            made.buffer = len(self._model.buffers) - 1
        if scale is not None:
            quantization = schema.QuantizationParametersT()
            scales = np.atleast_1d(np.asarray(scale, dtype=np.float32))
            quantization.scale = scales
            quantization.zeroPoint = np.full(len(scales), zero, dtype=np.int64)
            quantization.quantizedDimension = axis
            made.quantization = quantization
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def scheme(self, index: int) -> tuple[float, int]:
        """Return scale and zero point of a tensor; 1 and 0 where it has none."""
        table = self._graph.tensors[index].quantization
        return (float(table.scale[0]), int(table.zeroPoint[0])) if table is not None else (1.0, 0)

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        table: str = "",
        options: Mapping[str, object] | None = None,
        intermediates: Sequence[int] = (),
        version: int = 1,
    ) -> None:
        """Add an operator with the options of `table`."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        self._model.operatorCodes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex = len(self._model.operatorCodes) - 1
        made.inputs = np.asarray(inputs, dtype=np.int32)
        made.outputs = np.asarray(outputs, dtype=np.int32)
        if intermediates:
            made.intermediates = np.asarray(intermediates, dtype=np.int32)
        if table:
            record = getattr(schema, f"{table}T")()
            for key, value in (options or {}).items():
                assert hasattr(record, key), f"{table} has no {key}"
                setattr(record, key, value)
            made.builtinOptions = record
            made.builtinOptionsType = getattr(schema.BuiltinOptions, table)
        self._graph.operators.append(made)

    def write(self, path: Path, inputs: Sequence[int], outputs: Sequence[int]) -> Path:
        """Write the model with these inputs and outputs and return `path`."""
        self._graph.inputs = np.asarray(inputs, dtype=np.int32)
        self._graph.outputs = np.asarray(outputs, dtype=np.int32)
        builder = Builder(4096)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path
