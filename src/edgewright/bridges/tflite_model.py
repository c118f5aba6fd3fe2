"""What the bridge knows of a `.tflite`: tensors with the shapes they really have, operators, constants.

The shapes in a file are only hints where a shape is computed, and the constants that a shape chain works out are not
there at all. LiteRT itself tells both: it runs the model once, and where the batch is dynamic once more with another
batch. A dimension that differs between the two follows the batch; a value that is computed from constants and shapes
alone and does not differ is a constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgewright.backends import litert_file
from edgewright.bridges import tflite_run
from edgewright.core.errors import ConversionError, IntegrityError
from edgewright.core.program import Program
from edgewright.core.tensors import Array, TensorSpec
from edgewright.sources.tflite_file import FlatGraph, read_flatbuffer

Shape = tuple[int | None, ...]

_INTEGER_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "int4": (-8, 7)}
# What must not be worked out beforehand: weights stay small in the file; the others have a state or a dice.
_NOT_FOLDED = frozenset(
    "DEQUANTIZE DENSIFY IF WHILE CALL CALL_ONCE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE RANDOM_UNIFORM "
    "RANDOM_STANDARD_NORMAL MULTINOMIAL HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE".split()
)
_OF_SHAPES = ("SHAPE", "RANK")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scheme:
    """Quantization: real = scale * (q - zero_point).

    Attributes:
        scale: float32 [n], with n = 1 for the whole tensor, else the size of `axis`.
        zero_point: int64 [n].
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int

    @property
    def is_per_axis(self) -> bool:
        """True when each slice along `axis` has its own scale."""
        return len(self.scale) > 1

    def same_as(self, other: Scheme | None) -> bool:
        """Return whether both stand for the same numbers."""
        return (
            other is not None
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
            and (self.axis == other.axis or not self.is_per_axis)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """One tensor; `value` is that of a constant, in `dtype` (int4 unpacked); None in `shape` follows the batch."""

    index: int
    name: str
    shape: Shape
    dtype: str
    scheme: Scheme | None
    value: Array | None
    is_variable: bool

    @property
    def limits(self) -> tuple[int, int]:
        """The lowest and the highest integer that a quantized tensor can hold."""
        return _INTEGER_LIMITS[self.dtype]


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One operator: `inputs` and `outputs` are tensor indices, -1 is an optional input that is left out."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: object
    custom_options: bytes = b""

    def integer(self, name: str, default: int = 0) -> int:
        """Return the option `name`; `default` where the file has no options.

        Raises:
            IntegrityError: the operator has the options of another one.
        """
        value = self._option(name, default)
        if not isinstance(value, (int, float)) or not np.isfinite(value):
            raise IntegrityError(f"option {name} of {self.name} is {value!r}; a number is expected.")
        return int(value)

    def real(self, name: str, default: float = 0.0) -> float:
        """Return the option `name` as a float, see `integer`."""
        value = self._option(name, default)
        if not isinstance(value, (int, float)):
            raise IntegrityError(f"option {name} of {self.name} is {value!r}; a number is expected.")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return the option `name` as a bool, see `integer`."""
        return bool(self._option(name, False))

    def integers(self, name: str) -> tuple[int, ...]:
        """Return the list `name`, empty where there is none."""
        values = self._option(name, None)
        return () if values is None else tuple(int(value) for value in np.asarray(values).ravel())

    def _option(self, name: str, default: object) -> object:
        if self.options is None:
            return default
        if not hasattr(self.options, name):
            raise IntegrityError(
                f"{self.name} has the options of another operator ({type(self.options).__name__}): no {name}."
            )
        return getattr(self.options, name)


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """The main graph of a file."""

    tensors: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    has_dynamic_batch: bool
    notes: tuple[str, ...] = ()


def operator_names(path: Path) -> tuple[str, ...]:
    """Return the names of the operators of the main graph, in order; custom ones as "custom NAME".

    Raises:
        FormatMismatchError, IntegrityError: see `sources.tflite_file.read_flatbuffer`.
    """
    graph = read_flatbuffer(path).graphs[0]
    return tuple(f"custom {o.name}" if o.is_custom else o.name for o in graph.operators)


def read(program: Program, workdir: Path) -> Model:
    """Return the main graph of the `.tflite` of `program`, which LiteRT can run; inputs and outputs in its order.

    Raises:
        FormatMismatchError, IntegrityError: the file is broken, or an index, a shape or a length in it is.
        ConversionError: LiteRT does not run it.
    """
    path = program.path
    whole = read_flatbuffer(path)
    flat = whole.graphs[0]
    flat = replace(
        flat,
        inputs=_ordered(flat, flat.inputs, whole.input_names, program.inputs, path),
        outputs=_ordered(flat, flat.outputs, whole.output_names, program.outputs, path),
    )
    model = load_normalised(path, flat.inputs, flat.outputs)
    graph = model.subgraphs[0]
    operations = tuple(
        Operation(
            name=known.name,
            inputs=known.inputs,
            outputs=known.outputs,
            options=getattr(raw, "builtinOptions", None),
            custom_options=np.asarray(getattr(raw, "customOptions", None) or [], dtype=np.uint8).tobytes()
            if known.is_custom
            else b"",
        )
        for raw, known in zip(graph.operators, flat.operators, strict=True)
    )
    _check_order(flat, path)
    clean = workdir / "normalised.tflite"
    litert_file.write(model, clean)
    try:
        first, second, notes = _runs(clean, flat, path)
        tensors = [
            _tensor(model, raw, index, flat, path) for index, raw in enumerate(model.subgraphs[0].tensors)
        ]
        tensors = [
            replace(one, shape=_shape(first, second, one.index, flat.tensors[one.index].shape))
            for one in tensors
        ]
        tensors = _folded(tensors, operations, first, second)
    finally:
        clean.unlink(missing_ok=True)
    return Model(
        tensors=tuple(tensors),
        operations=operations,
        inputs=flat.inputs,
        outputs=flat.outputs,
        has_dynamic_batch=second is not None,
        notes=notes,
    )


def load_normalised(path: Path, inputs: Sequence[int], outputs: Sequence[int]) -> litert_file.Model:
    """Return the file in the form that LiteRT expects, with the inputs and outputs of its main graph in this order.

    Raises:
        IntegrityError, FormatMismatchError: see `litert_file.read`.
    """
    model = litert_file.read(path)
    litert_file.normalise(model, is_batch_static=False)
    graph = model.subgraphs[0]
    graph.inputs, graph.outputs = list(inputs), list(outputs)
    return model


def _ordered(
    flat: FlatGraph,
    indices: tuple[int, ...],
    signature: Mapping[int, str],
    specs: Sequence[TensorSpec],
    path: Path,
) -> tuple[int, ...]:
    """Return `indices` in the order of `specs`: by the names of the signature or of the tensors, else as they are."""
    if len(indices) != len(specs) or min(indices, default=0) < 0:
        raise ConversionError(
            f"{path.name} has {len(indices)} tensors where the program has {len(specs)}: load it again."
        )
    for names in (
        {signature.get(index, ""): index for index in indices},
        {flat.tensors[index].name: index for index in indices},
        {signature.get(index) or flat.tensors[index].name: index for index in indices},
    ):
        if len(names) == len(indices) and all(spec.name in names for spec in specs):
            indices = tuple(names[spec.name] for spec in specs)
            break
    for index, spec in zip(indices, specs, strict=True):
        tensor = flat.tensors[index]
        if tensor.dtype != spec.dtype or len(tensor.shape) != len(spec.shape):
            raise ConversionError(
                f"{path.name} has {tensor.dtype}{list(tensor.shape)} where the program has {spec}: load it again."
            )
    return indices


def _check_order(flat: FlatGraph, path: Path) -> None:
    """Check that each tensor is made once, before it is read."""
    made: set[int] = set(flat.inputs)
    written = {index for operator in flat.operators for index in operator.outputs}
    for operator in flat.operators:
        early = [index for index in operator.inputs if index in written and index not in made]
        again = [index for index in operator.outputs if index in made]
        if early or again or -1 in operator.outputs:
            raise IntegrityError(
                f"{path.name} is broken: {operator.name} reads or writes tensors {early + again} out of order."
            )
        made.update(operator.outputs)


def _runs(
    clean: Path, flat: FlatGraph, path: Path
) -> tuple[tflite_run.Run, tflite_run.Run | None, tuple[str, ...]]:
    """Return the runs of batch 1 and, where every dynamic dimension is a batch that LiteRT resizes, of batch 2."""
    shapes, other = [], []
    for index in flat.inputs:
        tensor = flat.tensors[index]
        if any(size < 0 for size in tensor.signature[1:]):
            raise ConversionError(
                f"input {tensor.name!r} of {path.name} has dynamic dimensions besides the batch "
                f"({list(tensor.signature)}). Write the file with fixed sizes."
            )
        is_dynamic = bool(tensor.signature) and tensor.signature[0] < 0
        shapes.append((1, *tensor.shape[1:]) if is_dynamic else tensor.shape)
        other.append((2, *tensor.shape[1:]) if is_dynamic else tensor.shape)
    first = tflite_run.run_once(clean, shapes, name=path.name)
    if shapes == other:
        return first, None, ()
    try:
        return first, tflite_run.run_once(clean, other, name=path.name), ()
    except ConversionError:
        return first, None, ("batch made static: 1 (LiteRT does not run this file with another batch)",)


def _shape(first: tflite_run.Run, second: tflite_run.Run | None, index: int, written: Sequence[int]) -> Shape:
    shape = first.shapes.get(index, tuple(written))
    if second is None or index not in second.shapes:
        return shape
    other = second.shapes[index]
    if len(other) != len(shape):
        raise ConversionError(
            f"tensor {index} has rank {len(shape)}, and rank {len(other)} with another batch."
        )
    return tuple(a if a == b else None for a, b in zip(shape, other, strict=True))


def _tensor(
    model: litert_file.Model, raw: litert_file.Tensor, index: int, flat: FlatGraph, path: Path
) -> Tensor:
    known = flat.tensors[index]
    if getattr(raw, "sparsity", None) is not None:
        raise ConversionError(f"tensor {known.name!r} of {path.name} is stored sparse, which is not read.")
    value = None
    data = model.buffers[raw.buffer].data
    if data is not None and len(data) > 0:
        value = _constant(np.asarray(data, dtype=np.uint8), known.dtype, known.shape, known.name)
    return Tensor(
        index=index,
        name=known.name,
        shape=known.shape,
        dtype=known.dtype,
        scheme=_scheme(raw, known.shape, known.name),
        value=value,
        is_variable=bool(getattr(raw, "isVariable", False)),
    )


def _constant(data: Array, dtype: str, shape: tuple[int, ...], name: str) -> Array:
    count = 1
    for size in shape:
        count *= size
    if dtype == "int4":
        pairs = data.view(np.int8)
        values: Array = np.stack([np.left_shift(pairs, 4) >> 4, pairs >> 4], axis=-1).reshape(-1)
        if len(pairs) != (count + 1) // 2:
            raise IntegrityError(f"constant {name!r} has {len(pairs)} bytes for {count} values of 4 bits.")
        return values[:count].reshape(shape)
    try:
        kind = np.dtype(dtype)
    except TypeError as err:
        raise ConversionError(f"constant {name!r} has type {dtype}, which is not read.") from err
    if count * kind.itemsize != len(data) or min(shape, default=0) < 0:
        raise IntegrityError(
            f"constant {name!r} has {len(data)} bytes, but {dtype}{list(shape)} takes {count * kind.itemsize}."
        )
    return np.frombuffer(data.tobytes(), dtype=kind).reshape(shape)


def _scheme(raw: litert_file.Tensor, shape: tuple[int, ...], name: str) -> Scheme | None:
    stored = raw.quantization
    if stored is None or stored.scale is None or len(stored.scale) == 0:
        return None
    if getattr(stored, "details", None) is not None:
        raise ConversionError(f"tensor {name!r} has a quantization of its own kind, which is not read.")
    scale = np.asarray(stored.scale, dtype=np.float32)
    if not np.all(np.isfinite(scale)) or np.any(scale < 0):
        raise IntegrityError(f"tensor {name!r} has a scale that is negative or not a number.")
    axis = int(stored.quantizedDimension)
    if len(scale) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scale)):
        raise IntegrityError(
            f"tensor {name!r} has {len(scale)} scales along axis {axis} of shape {list(shape)}."
        )
    zero = np.zeros(len(scale), dtype=np.int64)
    if stored.zeroPoint is not None and len(stored.zeroPoint) > 0:
        given = np.asarray(stored.zeroPoint, dtype=np.int64)
        if len(given) not in (1, len(scale)):
            raise IntegrityError(f"tensor {name!r} has {len(scale)} scales and {len(given)} zero points.")
        zero = np.broadcast_to(given, zero.shape).copy()
    # A channel of zeros has scale 0 in some files; whatever the scale, zero stays zero.
    return Scheme(
        scale=np.where(scale == 0, np.float32(1), scale).astype(np.float32), zero_point=zero, axis=axis
    )


def _folded(
    tensors: list[Tensor],
    operations: Sequence[Operation],
    first: tflite_run.Run,
    second: tflite_run.Run | None,
) -> list[Tensor]:
    """Return the tensors with the values of those that shapes and constants alone decide."""
    tensors = list(tensors)
    for operation in operations:
        known = [tensors[index] for index in operation.inputs if index >= 0]
        is_fixed = bool(known) and all(tensor.value is not None for tensor in known)
        if operation.name in _NOT_FOLDED or not (is_fixed or operation.name in _OF_SHAPES):
            continue
        values = {index: first.value(index) for index in operation.outputs}
        if second is not None:
            others = {index: second.value(index) for index in operation.outputs}
            if not _equal(values, others):
                continue
        for index, value in values.items():
            if value is not None:
                tensors[index] = replace(tensors[index], value=value, shape=value.shape)
    return tensors


def _equal(left: Mapping[int, Array | None], right: Mapping[int, Array | None]) -> bool:
    return all(
        value is not None
        and (other := right[index]) is not None
        and value.shape == other.shape
        and value.tobytes() == other.tobytes()
        for index, value in left.items()
    )
