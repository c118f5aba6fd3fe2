"""An interpreter of Core ML programs: it runs the file that was written, operator by operator, with numpy.

It is there to check numbers where Core ML is not (off macOS), not to be fast. Every operator's result is rounded to the
type that the program declares for it, and must have the shape that is declared: an error of this interpreter or of the
file then shows where it happens. float16 operators compute with float16 values and accumulate in float32, which is at
least as accurate as a device; a device may round between the parts of one operator where this does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgewright.backends import (
    coreml_ops_gather,
    coreml_ops_image,
    coreml_ops_layers,
    coreml_ops_math,
    coreml_ops_recurrent,
    coreml_ops_shape,
    coreml_ops_weights,
)
from edgewright.backends.coreml_call import Call, List, Operator, Value, limit
from edgewright.backends.coreml_file import Package
from edgewright.backends.coreml_records import (
    Block,
    Constant,
    Named,
    Operation,
    TensorType,
    storage_dtype,
)
from edgewright.core.errors import ConversionError, IntegrityError
from edgewright.core.tensors import Array, Arrays

MAX_STEPS = 1 << 20
MAX_LIST_LENGTH = 1 << 16
MAX_CONSTANT_BYTES = 8 << 30
OPERATORS: Mapping[str, Operator] = (
    coreml_ops_gather.OPERATORS
    | coreml_ops_image.OPERATORS
    | coreml_ops_layers.OPERATORS
    | coreml_ops_math.OPERATORS
    | coreml_ops_recurrent.OPERATORS
    | coreml_ops_shape.OPERATORS
    | coreml_ops_weights.OPERATORS
)
_LISTS = ("list_gather", "list_length", "list_read", "list_scatter", "list_write", "make_list")
CONTROL = ("cond", "const", "while_loop", *_LISTS)


def operations_of(block: Block) -> Iterator[Operation]:
    """Yield every operation of a block and of the blocks inside it."""
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from operations_of(inner)


def unsupported(block: Block) -> tuple[str, ...]:
    """Return the operators that are not executed here, with how often they occur."""
    kinds = Counter(operation.kind for operation in operations_of(block))
    return tuple(
        f"{kind} ({count})"
        for kind, count in sorted(kinds.items())
        if kind not in OPERATORS and kind not in CONTROL
    )


class Interpreter:
    """A program that is ready to run: its constants are read and decompressed.

    Raises:
        ConversionError: the program has operators that are not executed here; all of them are named.
        IntegrityError: a constant cannot be read.
    """

    def __init__(self, package: Package) -> None:
        self._package = package
        self._function = package.model.main
        missing = unsupported(self._function.block)
        if missing:
            raise ConversionError(
                f"{package.folder.name} has operators that our interpreter does not execute: "
                f"{', '.join(missing)}. Run it on macOS, or rewrite the model without them."
            )
        self._constants: dict[int, tuple[Value, ...]] = {}
        self._constant_bytes = 0
        self._steps = 0
        self._kept: dict[str, Value] = {}
        self._late = tuple(self._prepare())
        self._last_uses = _last_uses(self._late, self._function.block.outputs)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the outputs of the function by their names.

        Args:
            inputs: by the function's own names, in its own types.
        Raises:
            ConversionError: an operator fails, or gives another type or shape than the program declares.
        """
        self._steps = 0
        scope: dict[str, Value] = dict(self._kept)
        for named in self._function.inputs:
            if named.name not in inputs:
                raise ConversionError(
                    f"the program takes {named.name!r}, but only {sorted(inputs)} was given."
                )
            scope[named.name] = _settled(inputs[named.name], named, "the input")
        for position, operation in enumerate(self._late):
            self._step(operation, scope)
            for name in self._last_uses.get(position, ()):
                scope.pop(name, None)
        results = {}
        for name in self._function.block.outputs:
            value = scope.get(name)
            if not isinstance(value, np.ndarray):
                raise ConversionError(f"the program has no tensor {name!r} for its output.")
            results[name] = value
        return results

    def _prepare(self) -> Iterator[Operation]:
        """Compute what hangs on constants alone, once; yield the operations that are left for each run."""
        for operation in self._function.block.operations:
            is_ready = operation.kind == "const" or operation.kind.startswith("constexpr_")
            if is_ready and all(name in self._kept for name in _names_read(operation)):
                self._step(operation, self._kept)
                self._count(operation)
            else:
                yield operation

    def _count(self, operation: Operation) -> None:
        for output in operation.outputs:
            value = self._kept[output.name]
            self._constant_bytes += value.nbytes if isinstance(value, np.ndarray) else 0
        if self._constant_bytes > MAX_CONSTANT_BYTES:
            raise IntegrityError(
                f"{self._package.folder.name} has more than {MAX_CONSTANT_BYTES} bytes of constants."
            )

    def _step(self, operation: Operation, scope: dict[str, Value]) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise ConversionError(f"the program takes more than {MAX_STEPS} steps; it is stopped.")
        results = self._results(operation, scope)
        if len(results) != len(operation.outputs):
            raise ConversionError(
                f"operator {operation.kind} gave {len(results)} results; {len(operation.outputs)} are declared."
            )
        for named, value in zip(operation.outputs, results, strict=True):
            scope[named.name] = _settled(value, named, f"operator {operation.kind}")

    def _results(self, operation: Operation, scope: dict[str, Value]) -> Sequence[Value]:
        kind = operation.kind
        if kind == "const":
            return self._constant(operation)
        arguments = {
            name: tuple(self._argument(binding, operation, scope) for binding in bindings)
            for name, bindings in operation.inputs.items()
        }
        if kind.startswith("constexpr_"):  # before iOS 18 these have their arguments as attributes
            told = {name: value for name, value in operation.attributes.items() if name != "name"}
            arguments |= {name: (self._read(value),) for name, value in told.items()}
        if kind == "cond":
            return self._cond(operation, arguments, scope)
        if kind == "while_loop":
            return self._while_loop(operation, arguments, scope)
        call = Call(kind, arguments, output_count=len(operation.outputs))
        try:
            with np.errstate(all="ignore"):
                if kind in _LISTS:
                    return _on_list(call)
                result = OPERATORS[kind](call)
        except ConversionError as err:
            raise ConversionError(f"{operation.name} ({kind}): {err}") from err
        except (ValueError, TypeError, IndexError, ArithmeticError, MemoryError) as err:
            raise ConversionError(
                f"{operation.name}: operator {kind} does not fit its arguments: {str(err)[:200]}."
            ) from err
        return result if isinstance(result, tuple) else (result,)

    def _constant(self, operation: Operation) -> tuple[Value, ...]:
        known = self._constants.get(id(operation))
        if known is None:
            given = operation.attributes.get("val")
            if given is None:
                raise IntegrityError(f"constant {operation.name!r} has no value.")
            known = self._constants[id(operation)] = (self._read(given),)
        return known

    def _read(self, constant: Constant) -> Value:
        if isinstance(constant.content, tuple):
            return [array for array in map(self._read, constant.content) if isinstance(array, np.ndarray)]
        return self._package.value(constant)

    def _argument(self, binding: str | Constant, operation: Operation, scope: Mapping[str, Value]) -> Value:
        if isinstance(binding, Constant):
            return self._read(binding)
        if binding not in scope:
            raise ConversionError(
                f"{operation.name}: operator {operation.kind} reads {binding!r}, which nothing before it made."
            )
        return scope[binding]

    def _block(self, block: Block, inputs: Sequence[Value], scope: Mapping[str, Value]) -> list[Value]:
        """Return what a block hands out; it sees the names around it, but leaves them as they are."""
        if len(inputs) != len(block.inputs):
            raise ConversionError(f"a block has {len(block.inputs)} inputs, but is given {len(inputs)}.")
        own = dict(scope)
        for named, value in zip(block.inputs, inputs, strict=True):
            own[named.name] = _settled(value, named, "a block's input")
        for operation in block.operations:
            self._step(operation, own)
        missing = [name for name in block.outputs if name not in own]
        if missing:
            raise ConversionError(f"a block hands out {missing[0]!r}, which it does not have.")
        return [own[name] for name in block.outputs]

    def _cond(
        self, operation: Operation, arguments: Mapping[str, tuple[Value, ...]], scope: Mapping[str, Value]
    ) -> list[Value]:
        if len(operation.blocks) != 2:
            raise ConversionError(f"{operation.name}: cond has {len(operation.blocks)} blocks; it needs two.")
        is_true = Call("cond", arguments).flag("pred", False)
        return self._block(operation.blocks[0 if is_true else 1], (), scope)

    def _while_loop(
        self, operation: Operation, arguments: Mapping[str, tuple[Value, ...]], scope: Mapping[str, Value]
    ) -> list[Value]:
        if len(operation.blocks) != 2:
            raise ConversionError(
                f"{operation.name}: a loop has {len(operation.blocks)} blocks; it needs two."
            )
        condition, body = operation.blocks
        values = list(arguments.get("loop_vars", ()))
        while True:
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise ConversionError(f"{operation.name}: the loop does not end in {MAX_STEPS} steps.")
            (goes_on,) = self._block(condition, values, scope)[:1] or [np.array(False)]
            if not (isinstance(goes_on, np.ndarray) and bool(goes_on.reshape(-1)[:1].any())):
                return values
            values = self._block(body, values, scope)


def _names_read(operation: Operation) -> list[str]:
    names = [name for group in operation.inputs.values() for name in group if isinstance(name, str)]
    for block in operation.blocks:
        names += block.outputs
        for inner in block.operations:
            names += _names_read(inner)
    return names


def _last_uses(operations: Sequence[Operation], outputs: Sequence[str]) -> dict[int, list[str]]:
    """Return, for each position, the names that no later operation reads."""
    last = {name: place for place, operation in enumerate(operations) for name in _names_read(operation)}
    uses: dict[int, list[str]] = {}
    for name, place in last.items():
        if name not in outputs:
            uses.setdefault(place, []).append(name)
    return uses


def _settled(value: Value, named: Named, who: str) -> Value:
    """Return `value` in the type that is declared for it.

    Raises:
        ConversionError: it has another shape, or a type that is not merely another width.
    """
    declared = named.type
    if not isinstance(declared, TensorType) or not isinstance(value, np.ndarray):
        if isinstance(declared, TensorType) and isinstance(value, str) and declared.dtype == "string":
            return value
        if not isinstance(declared, TensorType) and isinstance(value, list):
            return value
        raise ConversionError(f"{named.name}: {who} gave a value of another kind than is declared.")
    fits = value.ndim == len(declared.shape) and all(
        want is None or want == have for want, have in zip(declared.shape, value.shape, strict=True)
    )
    dtype = storage_dtype(declared.dtype)
    if not fits or not _same_kind(value.dtype, dtype):
        raise ConversionError(
            f"{named.name}: {who} gave {value.dtype}{list(value.shape)}, but {declared} is declared."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        return value.astype(dtype, copy=False)


def _same_kind(have: np.dtype[np.generic], want: np.dtype[np.generic]) -> bool:
    """Integers of any width are one kind (positions are counted in 64 bits), floats another, booleans a third."""
    kinds = ("f", "iu", "b")
    return next((kind for kind in kinds if have.kind in kind), "?") == next(
        (kind for kind in kinds if want.kind in kind), "!"
    )


def _list_of(call: Call) -> List:
    values = call.value("ls")
    if not isinstance(values, list):
        raise call.refuse("has no list")
    return list(values)


def _on_list(call: Call) -> tuple[Value, ...]:
    """Run an operator on lists; a list is never changed, but copied."""
    if call.kind == "make_list":
        length = call.integer("init_length", 1)
        if not 0 <= length <= MAX_LIST_LENGTH:
            raise call.refuse(f"makes a list of {length}; at most {MAX_LIST_LENGTH} are kept")
        return ([None] * length,)
    values = _list_of(call)
    if call.kind == "list_length":
        return (np.array(len(values), np.int32),)
    if call.kind == "list_write":
        index = call.integer("index")
        if not 0 <= index < MAX_LIST_LENGTH:
            raise call.refuse(f"writes at {index}; at most {MAX_LIST_LENGTH} are kept")
        values += [None] * (index + 1 - len(values))
        values[index] = call.array("value")
        return (values,)
    if call.kind == "list_scatter":
        indices, updates = call.integers("indices"), call.array("value")
        for index, update in zip(indices, updates, strict=True):
            if not 0 <= index < MAX_LIST_LENGTH:
                raise call.refuse(f"writes at {index}; at most {MAX_LIST_LENGTH} are kept")
            values += [None] * (index + 1 - len(values))
            values[index] = np.asarray(update)
        return (values,)
    if call.kind == "list_read":
        return (_element(values, call.integer("index"), call),)
    chosen = [_element(values, index, call) for index in call.integers("indices")]
    limit([sum(value.size for value in chosen)])
    return (np.stack(chosen),)


def _element(values: List, index: int, call: Call) -> Array:
    if not -len(values) <= index < len(values):
        raise call.refuse(f"reads element {index} of {len(values)}")
    value = values[index]
    if value is None:
        raise call.refuse(f"reads element {index}, which was never written")
    return value
