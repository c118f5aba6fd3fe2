"""A bounded reading of `.tflite` flatbuffers into plain records.

Generated accessors trust the lengths in the file. Here every length is checked against the size of the file
before anything loops over it, so that a damaged file gives an error and neither a long loop nor a huge list.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.core.errors import FormatMismatchError, IntegrityError, first_line

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

IDENTIFIER = b"TFL3"
MAX_BYTES = 2 << 30
MAX_ITEMS = 1_000_000
MAX_RANK = 16
# What the flatbuffers reader raises when an offset points nowhere.
_READ_ERRORS = (
    struct.error,
    IndexError,
    ValueError,
    TypeError,
    OverflowError,
    AttributeError,
    UnicodeDecodeError,
    MemoryError,
)


@dataclass(frozen=True, kw_only=True)
class FlatTensor:
    """One tensor: `signature` is its shape with -1 for dynamic; `data_bytes` > 0 for a constant.

    `quantization` is (scale, zero point) of a tensor that has one pair of them.
    """

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    is_quantized: bool
    data_bytes: int
    has_rank: bool
    quantization: tuple[float, int] | None = None


@dataclass(frozen=True, kw_only=True)
class FlatOperator:
    """One operator: `name` as the schema spells it, or the custom code; an absent optional input is -1."""

    name: str
    is_custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    transposes: tuple[bool, bool] = (False, False)


@dataclass(frozen=True, kw_only=True)
class FlatGraph:
    """One subgraph; inputs and outputs are tensor indices."""

    tensors: tuple[FlatTensor, ...]
    operators: tuple[FlatOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class FlatModel:
    """A whole file; `input_names` and `output_names` map tensor indices of graph 0 to signature names."""

    graphs: tuple[FlatGraph, ...]
    input_names: dict[int, str]
    output_names: dict[int, str]


def read_flatbuffer(path: Path) -> FlatModel:
    """Return the content of the `.tflite` at `path`.

    Raises:
        FormatMismatchError: too large, or not a TFL3 flatbuffer.
        IntegrityError: an offset, a length or an index in it points nowhere.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise FormatMismatchError(f"{path} has {size} bytes; a .tflite of at most {MAX_BYTES} bytes is read.")
    content = path.read_bytes()
    if content[4:8] != IDENTIFIER:
        raise FormatMismatchError(
            f"{path} is not a LiteRT model: bytes 4..8 are {content[4:8]!r}, expected {IDENTIFIER!r}."
        )
    try:
        return _Reader(content).model()
    except _READ_ERRORS as err:
        raise IntegrityError(
            f"{path} is a damaged .tflite file: {type(err).__name__}: {first_line(err)}. Export it again."
        ) from err


class _Reader:
    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated

        self._schema = schema_py_generated
        self._content = content
        enum = vars(schema_py_generated.BuiltinOperator)
        self._operators = {value: name for name, value in enum.items() if isinstance(value, int)}
        enum = vars(schema_py_generated.TensorType)
        self._dtypes = {value: name.lower() for name, value in enum.items() if isinstance(value, int)}

    def model(self) -> FlatModel:
        model = self._schema.Model.GetRootAs(self._content, 0)
        if self._bounded(model.SubgraphsLength()) == 0:
            raise ValueError("it has no graph")
        codes = [
            self._code(model.OperatorCodes(i)) for i in range(self._bounded(model.OperatorCodesLength()))
        ]
        sizes = [self._buffer_bytes(model.Buffers(i)) for i in range(self._bounded(model.BuffersLength()))]
        graphs = tuple(self._graph(model.Subgraphs(i), codes, sizes) for i in range(model.SubgraphsLength()))
        inputs: dict[int, str] = {}
        outputs: dict[int, str] = {}
        for i in range(self._bounded(model.SignatureDefsLength())):
            signature = model.SignatureDefs(i)
            # The first signature of the main graph names its tensors.
            if signature.SubgraphIndex() == 0 and not inputs:
                for j in range(self._bounded(signature.InputsLength())):
                    inputs[signature.Inputs(j).TensorIndex()] = _text(signature.Inputs(j).Name())
                for j in range(self._bounded(signature.OutputsLength())):
                    outputs[signature.Outputs(j).TensorIndex()] = _text(signature.Outputs(j).Name())
        return FlatModel(graphs=graphs, input_names=inputs, output_names=outputs)

    def _bounded(self, length: int) -> int:
        # Every item of a vector takes 4 bytes or more here.
        if not 0 <= length <= min(MAX_ITEMS, len(self._content) // 4):
            raise ValueError(f"a list of {length} items in a file of {len(self._content)} bytes")
        return length

    def _code(self, code: schema.OperatorCode) -> tuple[str, bool]:
        # Files of TF 2.3 and older have the operator in the deprecated field only.
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if builtin == self._schema.BuiltinOperator.CUSTOM:
            return _text(code.CustomCode()) or "CUSTOM", True
        if builtin not in self._operators:
            raise ValueError(f"the unknown operator {builtin}")
        return self._operators[builtin], False

    def _buffer_bytes(self, buffer: schema.Buffer) -> int:
        if buffer.Offset() > 1:
            if buffer.Offset() + buffer.Size() > len(self._content):
                raise ValueError(f"a buffer at {buffer.Offset()}+{buffer.Size()} past the end")
            return int(buffer.Size())
        length = int(buffer.DataLength())
        if length > len(self._content):
            raise ValueError(f"a buffer of {length} bytes in a file of {len(self._content)} bytes")
        if length and len(buffer.DataAsNumpy()) != length:
            raise ValueError("a buffer past the end")
        return length

    def _graph(self, graph: schema.SubGraph, codes: list[tuple[str, bool]], sizes: list[int]) -> FlatGraph:
        count = self._bounded(graph.TensorsLength())
        tensors = tuple(self._tensor(graph.Tensors(i), sizes) for i in range(count))
        operators = []
        for i in range(self._bounded(graph.OperatorsLength())):
            operator = graph.Operators(i)
            name, is_custom = codes[operator.OpcodeIndex()]
            operators.append(
                FlatOperator(
                    name=name,
                    is_custom=is_custom,
                    inputs=self._indices(operator.InputsLength(), operator.InputsAsNumpy(), count),
                    outputs=self._indices(operator.OutputsLength(), operator.OutputsAsNumpy(), count),
                    transposes=self._transposes(operator) if name == "BATCH_MATMUL" else (False, False),
                )
            )
        return FlatGraph(
            tensors=tensors,
            operators=tuple(operators),
            inputs=self._indices(graph.InputsLength(), graph.InputsAsNumpy(), count),
            outputs=self._indices(graph.OutputsLength(), graph.OutputsAsNumpy(), count),
        )

    def _tensor(self, tensor: schema.Tensor, sizes: list[int]) -> FlatTensor:
        shape = self._dims(tensor.ShapeLength(), tensor.ShapeAsNumpy())
        signature = self._dims(tensor.ShapeSignatureLength(), tensor.ShapeSignatureAsNumpy()) or shape
        if len(signature) != len(shape):
            raise ValueError(f"a tensor of rank {len(shape)} with a signature of rank {len(signature)}")
        dtype = self._dtypes.get(tensor.Type())
        if dtype is None:
            raise ValueError(f"the unknown dtype {tensor.Type()}")
        quantization = tensor.Quantization()
        return FlatTensor(
            name=_text(tensor.Name()),
            shape=shape,
            signature=signature,
            dtype=dtype,
            is_quantized=quantization is not None and self._bounded(quantization.ScaleLength()) > 0,
            data_bytes=sizes[tensor.Buffer()],
            has_rank=bool(tensor.HasRank()),
            quantization=self._pair(quantization),
        )

    def _pair(self, quantization: schema.QuantizationParameters | None) -> tuple[float, int] | None:
        if quantization is None or self._bounded(quantization.ScaleLength()) != 1:
            return None
        zero_point = quantization.ZeroPoint(0) if self._bounded(quantization.ZeroPointLength()) else 0
        return float(quantization.Scale(0)), int(zero_point)

    def _dims(self, length: int, dims: np.ndarray | int) -> tuple[int, ...]:
        if length == 0:
            return ()
        if length > MAX_RANK or not isinstance(dims, np.ndarray) or len(dims) != length:
            raise ValueError(f"a tensor of rank {length}")
        return tuple(int(dim) for dim in dims)

    def _indices(self, length: int, values: np.ndarray | int, count: int) -> tuple[int, ...]:
        if self._bounded(length) == 0:
            return ()
        if not isinstance(values, np.ndarray) or len(values) != length:
            raise ValueError("a list of tensors past the end")
        if int(values.min()) < -1 or int(values.max()) >= count:
            raise ValueError(f"tensor index {int(values.max())} of {count} tensors")
        return tuple(int(value) for value in values)

    def _transposes(self, operator: schema.Operator) -> tuple[bool, bool]:
        table = operator.BuiltinOptions()
        if table is None:
            return (False, False)
        options = self._schema.BatchMatMulOptions()
        options.Init(table.Bytes, table.Pos)
        return bool(options.AdjX()), bool(options.AdjY())


def _text(raw: bytes | None) -> str:
    # Names are for people: what is not UTF-8 is shown, not refused.
    return (raw or b"").decode("utf-8", "replace")
