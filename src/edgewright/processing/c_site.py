"""Where a specification's C is put together: values, their memory, and the calls that make them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgewright.core.errors import ConversionError
from edgewright.core.tensors import Array
from edgewright.processing.c_text import c_table
from edgewright.processing.values import ValueType

ALIGNMENT = 16
TENSOR_ALIGNMENT = 64  # of models' tensors: what runtimes ask for at most
MAX_ARENA_BYTES = 1 << 30
ITEM_BYTES = {"float32": 4, "int8": 1, "uint8": 1, "int16": 2, "int32": 4, "int64": 8}
C_DTYPES = {
    "float32": "EW_FLOAT32", "int8": "EW_INT8", "uint8": "EW_UINT8", "int16": "EW_INT16", "int32": "EW_INT32",
    "int64": "EW_INT64",
}  # fmt: skip


LOOP, END = "loop", "end"  # in the calls: what lies between is made for each `row`


@dataclass(eq=False)
class Buffer:
    """Some bytes of the arena.

    Attributes:
        is_kept: from one run to the next.
        first, last: the calls that use it; the planner lets buffers share memory that are not used at once.
        offset: in the arena, once planned.
    """

    size_bytes: int
    is_kept: bool = False
    alignment: int = ALIGNMENT
    first: int = -1
    last: int = -1
    offset: int = -1

    def use(self, call: int) -> None:
        """Say that call number `call` uses it."""
        self.first = call if self.first < 0 else min(self.first, call)
        self.last = max(self.last, call)


@dataclass(frozen=True, kw_only=True, eq=False)
class CValue:
    """A value as the C holds it.

    Attributes:
        bound: the most elements along each axis.
        place: of its elements: in the arena, or an expression of C where the caller's memory is read.
        rows: an expression of C: the size of the first axis, where it is known only when it runs.
        columns: likewise of the second axis, of a mask.
        geometry: which of the geometries says where its pixels lie, -1 for none.
    """

    type: ValueType
    bound: tuple[int, ...]
    place: Buffer | str
    rows: str = ""
    columns: str = ""
    geometry: int = -1

    @property
    def count(self) -> str:
        """How many elements it has, as C."""
        if not self.rows:
            return str(math.prod(self.bound))
        if self.columns:
            return f"{self.rows} * {self.columns}"
        inner = math.prod(self.bound[1:])
        return self.rows if inner == 1 else f"{self.rows} * {inner}"

    @property
    def most(self) -> int:
        """How many elements it has at most."""
        return math.prod(self.bound)

    @property
    def c_dtype(self) -> str:
        """Its dtype as C."""
        return C_DTYPES[self.type.dtype]

    @property
    def item_bytes(self) -> int:
        """Bytes of an element."""
        return ITEM_BYTES[self.type.dtype]


Argument = str | int | Buffer | CValue


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """A call of a function of the core, or the begin or end of a loop.

    Attributes:
        is_checked: it returns a code, and any but EW_OK ends the run.
    """

    function: str
    arguments: tuple[Argument, ...] = ()
    is_checked: bool = False

    @property
    def line(self) -> str:
        """The statement of C, once the memory is planned."""
        if self.function == LOOP:
            return f"for (int32_t row = 0; row < {text_of(self.arguments[0])}; ++row) {{"
        if self.function == END:
            return "}"
        text = f"{self.function}({', '.join(text_of(argument) for argument in self.arguments)})"
        return f"EW_TRY({text});" if self.is_checked else f"{text};"


@dataclass
class Site:
    """One specification that becomes C.

    Attributes:
        max_side: of an image, in pixels.
        max_rows: of a raw input of any length.
        max_mask_pixels: of a mask as large as its source.
        calls: of a run, one after another.
        reset: those where a stream begins.
        files: of the core, that are called.
        images: name of an image input -> what was made of it last, as results are brought back to its pixels.
        what: the step that is being made, for errors.
    """

    name: str
    max_side: int
    max_rows: int
    max_mask_pixels: int
    buffers: list[Buffer] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    reset: list[Call] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    images: dict[str, CValue] = field(default_factory=dict)
    lengths: int = 0
    geometries: int = 0
    what: str = ""

    def buffer(self, size_bytes: int, *, is_kept: bool = False, alignment: int = ALIGNMENT) -> Buffer:
        """Return new memory of the arena."""
        made = Buffer(size_bytes=max(size_bytes, 1), is_kept=is_kept, alignment=alignment)
        self.buffers.append(made)
        return made

    def value(
        self, made: ValueType, like: CValue | None = None, *, rows: str = "", bound: Sequence[int] = ()
    ) -> CValue:
        """Return a new value of type `made`; where its first axis is open, it has the rows of `like`, or `rows`."""
        sizes = list(bound) if bound else [-1 if size is None else size for size in made.shape]
        if sizes and sizes[0] == -1 and like is not None and like.bound:
            sizes[0], rows = like.bound[0], like.rows
        if -1 in sizes:
            raise self.refused(f"it makes {made}, whose size is not known before it runs")
        if made.dtype not in ITEM_BYTES:
            raise self.refused(f"it makes {made}, and C has no such numbers here")
        total = math.prod(sizes) * ITEM_BYTES[made.dtype]
        return CValue(
            type=made,
            bound=tuple(sizes),
            place=self.buffer(total),
            rows=rows if made.shape and made.shape[0] is None else "",
            geometry=-1 if like is None else like.geometry,
        )

    def length(self) -> str:
        """Return the place of a new size that is known only when it runs, as C."""
        self.lengths += 1
        return f"run->lengths[{self.lengths - 1}]"

    def geometry(self) -> int:
        """Return the number of a new geometry."""
        self.geometries += 1
        return self.geometries - 1

    def table(self, values: Array) -> str:
        """Return the name of a constant array with `values`; the same values are written once."""
        return self._constant(c_table("@", values))

    def record(self, c_type: str, fields: Sequence[str | int]) -> str:
        """Return a pointer to a constant of type `c_type`, a struct with these fields."""
        return "&" + self._constant(f"static const {c_type} @ = {{{', '.join(map(str, fields))}}};")

    def floats(self, values: Sequence[float] | Array) -> str:
        """Return the name of a constant array of float32."""
        return self.table(np.asarray(values, dtype=np.float32))

    def _constant(self, text: str) -> str:
        if text not in self.tables:
            self.tables.append(text)
        return f"{self.name}_table_{self.tables.index(text)}"

    def call(self, function: str, *arguments: Argument, file: str, is_checked: bool = False) -> None:
        """Add a call of the core's `function`, which lies in `file`.

        `function` may assign: "run->lengths[0] = ew_top_k".
        """
        for argument in arguments:
            place = argument.place if isinstance(argument, CValue) else argument
            if isinstance(place, Buffer):
                place.use(len(self.calls))
        self.files.add(file)
        self.calls.append(Call(function=function, arguments=arguments, is_checked=is_checked))

    def begin_loop(self, rows: str | int) -> int:
        """Begin a loop over `row` of 0 up to `rows`; returns what `end_loop` takes."""
        self.calls.append(Call(function=LOOP, arguments=(rows,)))
        return len(self.calls) - 1

    def end_loop(self, begin: int, made: Buffer) -> None:
        """End a loop whose rows go to `made`: that, and what was there before the loop, is needed in all of it."""
        end = len(self.calls)
        self.calls.append(Call(function=END))
        made.use(begin)
        for buffer in self.buffers:
            if 0 <= buffer.first < begin <= buffer.last:
                buffer.use(end)

    def at_reset(self, function: str, *arguments: Argument, file: str) -> None:
        """Add a call that is made where a stream begins; its buffers are kept ones."""
        self.files.add(file)
        self.reset.append(Call(function=function, arguments=arguments))

    def alias(self, value: CValue, made: ValueType) -> CValue:
        """Return `value` as another type with the same elements."""
        bound = tuple(value.bound[i] if size is None else size for i, size in enumerate(made.shape))
        return replace(value, type=made, bound=bound)

    def refused(self, why: str) -> ConversionError:
        """Return the error for what has no C."""
        return ConversionError(
            f"{self.what} cannot become C: {why}. Change the specification, or use it in Python."
        )


def text_of(argument: Argument) -> str:
    """Return an argument as C, once the memory is planned."""
    place = argument.place if isinstance(argument, CValue) else argument
    if isinstance(place, Buffer):
        assert place.offset >= 0
        return f"AT({place.offset})"
    return str(place)


def plan_memory(buffers: Sequence[Buffer], calls: int) -> int:
    """Give each buffer its offset, and return the bytes of the arena.

    The largest comes first, each at the lowest place where nothing else lies that is used at the same time.

    Raises:
        ConversionError: the arena would have more than MAX_ARENA_BYTES.
    """
    placed: list[Buffer] = []
    for buffer in buffers:
        if buffer.is_kept or buffer.first < 0:
            buffer.first, buffer.last = 0, calls
    for buffer in sorted(buffers, key=lambda b: (-b.size_bytes, b.first)):
        offset = 0
        others = [o for o in placed if o.first <= buffer.last and buffer.first <= o.last]
        for other in sorted(others, key=lambda b: b.offset):
            if offset + buffer.size_bytes <= other.offset:
                break
            end = other.offset + other.size_bytes
            offset = max(offset, -(-end // buffer.alignment) * buffer.alignment)
        buffer.offset = offset
        placed.append(buffer)
    total = max((b.offset + b.size_bytes for b in placed), default=0)
    if total > MAX_ARENA_BYTES:
        raise ConversionError(
            f"the processing needs {total >> 20} MiB of memory; {MAX_ARENA_BYTES >> 20} MiB at most are expected. "
            "Set smaller limits (max_side, max_rows)."
        )
    return -(-total // ALIGNMENT) * ALIGNMENT
