"""What an operator becomes: a C function of its own, with the memory it reads and writes and the constants it needs."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgewright.microcontrollers.graph import ITEM_BYTES, Graph, Operator, Tensor

if TYPE_CHECKING:
    from jinja2 import Environment

_LINE_WIDTH = 100
# Buffers of one function that are larger than this go into the arena: stacks of microcontrollers are small.
STACK_BUFFER_BYTES = 2048


class UnsupportedError(Exception):
    """Why an operator of the model cannot be made into C; the emitter collects all of them into one error."""


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A table in flash; `values` is the text between its braces."""

    name: str
    c_type: str
    count: int
    size_bytes: int
    values: str

    @property
    def definition(self) -> str:
        """The line of C that defines it."""
        return f"static const {self.c_type} {self.name}[{self.count}] = {{\n{self.values}\n}};\n"


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Which rows of an input a row of the output is made of: from `y * stride - pad`, `rows` of them, within `size`."""

    size: int
    rows: int = 1
    stride: int = 1
    pad: int = 0

    def first(self, y: int) -> int:
        """Return the first row of the input that rows `y` and later of the output need."""
        return min(max(y * self.stride - self.pad, 0), self.size)

    def end(self, y: int) -> int:
        """Return the number of rows of the input that row `y` of the output waits for."""
        return min(max(y * self.stride - self.pad + self.rows, 0), self.size)


@dataclass(frozen=True, kw_only=True)
class ByRows:
    """How a function makes its output row by row (axis 1 of a batch of one), from the top down.

    The memory plan relies on it: once a value of row y is written, no row of an input before `Reach.first(y)` is read
    any more, and no row of the output is read or written again. The output may lie over rows that are read.

    Attributes:
        rows: of the output.
        reaches: for each of `Layer.reads`; None for a constant.
        count: of values or pixels in the whole output, where the last argument of the function is a count, and its
            pointers are those of the rows. 0: the last arguments are the first row, the one behind the last, and how
            many rows the input's memory holds: row r lies at r modulo that; only `out` is the pointer to the row.
        tile: how many of `count` it computes at a time: while it writes their outputs, it may still read all of them.
    """

    rows: int
    reaches: tuple[Reach | None, ...]
    count: int = 0
    tile: int = 1


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operator as C.

    Attributes:
        text: the definition of its function, with @ for its name; empty for a view. The function takes pointers to
            `reads`, `writes` and the scratch, then `arguments`. Layers with the same text share one function.
        arguments: names of tables, and numbers.
        reads, writes: tensor indices.
        in_place: positions in `reads` whose memory the first output may take over.
        is_view: the output is the input's memory under another shape; there is no code.
        needs: names of the arithmetic functions of `arithmetic.py` that it calls.
        helpers: definitions of further functions that it calls, callees first; the same text is written once.
        scratch_bytes: of the arena, while it runs.
        stack_bytes: of its own arrays.
        macs: multiplications with weights.
        is_exact: its results are the interpreter's, bit by bit; else within some units of the last place of float32.
        by_rows: how it makes some rows only; None when it is run as a whole.
    """

    operator: Operator
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    text: str = ""
    arguments: tuple[str, ...] = ()
    constants: tuple[Constant, ...] = ()
    in_place: tuple[int, ...] = ()
    is_view: bool = False
    needs: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    scratch_bytes: int = 0
    stack_bytes: int = 0
    macs: int = 0
    is_exact: bool = True
    by_rows: ByRows | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """An operator at its place in the graph: what a kernel is made from."""

    graph: Graph
    operator: Operator
    prefix: str

    def has_input(self, position: int) -> bool:
        """Return whether the optional input at `position` is given."""
        return len(self.operator.inputs) > position and self.operator.inputs[position] >= 0

    def input(self, position: int = 0) -> Tensor:
        """Return the input at `position`.

        Raises:
            UnsupportedError: it is left out.
        """
        if not self.has_input(position):
            raise UnsupportedError(f"input {position} is left out")
        return self.graph.tensor(self.operator.inputs[position])

    def output(self, position: int = 0) -> Tensor:
        """Return the output at `position`.

        Raises:
            UnsupportedError: there is none.
        """
        if len(self.operator.outputs) <= position:
            raise UnsupportedError(f"output {position} is left out")
        return self.graph.tensor(self.operator.outputs[position])

    def alike(self, position: int) -> list[Tensor]:
        """Return the input at `position` of all operators of this kind, where it has a shape."""
        sites = (
            replace(self, operator=one) for one in self.graph.operators if one.name == self.operator.name
        )
        found = [site.input(position) for site in sites if site.has_input(position)]
        return [tensor for tensor in found if tensor.shape]

    def table(self, suffix: str, c_type: str, values: Sequence[int], item_bytes: int) -> Constant:
        """Return a constant of this operator with `values`."""
        return integers(f"{self.prefix}_{suffix}_{self.operator.position}", c_type, values, item_bytes)


def value_by_value(output: Tensor, inputs: Sequence[Tensor]) -> ByRows | None:
    """Return the rows of a function whose last argument is the number of values; None where there are no rows."""
    # Compilers may take it that a float is not written where an int16 is read; bytes lie over anything.
    types = {tensor.dtype for tensor in (output, *inputs) if ITEM_BYTES[tensor.dtype] > 1}
    if len(output.shape) != 4 or output.shape[0] != 1 or len(types) > 1:
        return None
    reaches: list[Reach | None] = []
    for tensor in inputs:
        if tensor.value is not None and tensor.count == 1:
            reaches.append(None)
        elif tensor.value is None and tensor.shape == output.shape:
            reaches.append(Reach(size=output.shape[1]))
        else:
            return None
    return ByRows(rows=output.shape[1], reaches=tuple(reaches), count=output.count)


def integers(name: str, c_type: str, values: Sequence[int], item_bytes: int) -> Constant:
    """Return a table of integers."""
    return Constant(
        name=name,
        c_type=c_type,
        count=len(values),
        size_bytes=len(values) * item_bytes,
        values=_wrapped([_literal(int(value)) for value in values]),
    )


def floats(name: str, values: Sequence[float]) -> Constant:
    """Return a table of float32; nine digits bring every one back exactly."""
    return Constant(
        name=name,
        c_type="float",
        count=len(values),
        size_bytes=len(values) * 4,
        values=_wrapped([float_literal(value) for value in values]),
    )


def float_literal(value: float) -> str:
    """Return the float32 `value` as C.

    Raises:
        UnsupportedError: it is infinite or not a number, which C99 has no constant for.
    """
    if value != value or value in (float("inf"), float("-inf")):
        raise UnsupportedError("a constant that is infinite or not a number")
    text = f"{value:.9g}"
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"


def _literal(value: int) -> str:
    # -2147483648 is an expression on an unsigned or long constant in C.
    return "(-2147483647 - 1)" if value == -(2**31) else str(value)


def _wrapped(items: Sequence[str]) -> str:
    lines: list[str] = []
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > _LINE_WIDTH:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return "\n".join([*lines, line])


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, StrictUndefined

    return Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(template: str, values: Mapping[str, object]) -> str:
    """Return `template` with `values`; a name that is missing is an error."""
    return _environment().from_string(template).render(dict(values))


def shared_bytes(own_bytes: int, all_bytes: Iterable[int]) -> int:
    """Return the size of a buffer that layers can share the code for: the largest of all that go onto the stack."""
    return max([own_bytes, *(size for size in all_bytes if own_bytes <= size <= STACK_BUFFER_BYTES)])


def require(holds: bool, why: str) -> None:
    """Check a condition of a kernel.

    Raises:
        UnsupportedError: with `why`.
    """
    if not holds:
        raise UnsupportedError(why)
