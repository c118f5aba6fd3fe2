"""NAME_processing_test.c, Makefile and CMakeLists.txt: a processing in C checks itself where it runs.

Raw inputs and the models' outputs come from a linear congruential generator that C and Python share, so that they take
no room; what numpy makes of them is written out at some places of each tensor and result, with the tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.core.errors import ConversionError, DataError
from edgewright.core.files import write_text
from edgewright.core.tensors import Array, Arrays
from edgewright.processing.c_code import CCore
from edgewright.processing.c_program import CProgram
from edgewright.processing.c_site import C_DTYPES, ITEM_BYTES
from edgewright.processing.c_text import c_float, c_integer, wrapped
from edgewright.processing.processor import Processor, Raw
from edgewright.processing.specification import RawInput

RUNS = 3
FLOAT_TOLERANCE = 1e-5  # of the range of a tensor
_PLACES = 48
_FACTOR, _STEP = np.uint32(1664525), np.uint32(1013904223)
# Sizes of an image (height, width), odd ones; the first that every step takes.
_SIZES = ((47, 61), (97, 131), (255, 339), (481, 641), (721, 961))
_TEMPLATE = "ew_selftest.c"


class Generator:
    """The generator of ew_selftest.c."""

    def __init__(self, seed: int) -> None:
        self.state = np.uint32(seed)

    def draw(self, count: int) -> Array:
        """Return the next `count` numbers, uint32."""
        with np.errstate(over="ignore"):
            powers = np.cumprod(np.full(count, _FACTOR, dtype=np.uint32), dtype=np.uint32)
            before = np.concatenate([np.ones(1, dtype=np.uint32), powers[:-1]])
            made = powers * self.state + np.cumsum(before, dtype=np.uint32) * _STEP
        self.state = made[-1]
        return made

    def array(self, shape: Sequence[int], dtype: str) -> Array:
        """Return integers of all bits, or float32 of -1 up to 1."""
        numbers = np.right_shift(self.draw(int(np.prod(shape))), np.uint32(8))
        if dtype == "float32":
            values: Array = numbers.astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
        else:
            values = (numbers & np.uint32((1 << min(8 * ITEM_BYTES[dtype], 16)) - 1)).astype(dtype)
        return values.reshape(tuple(shape))


@dataclass(frozen=True, kw_only=True, eq=False)
class Golden:
    """What numpy makes in one run.

    Attributes:
        shapes: of the raw inputs.
        tensors: of each model, its inputs in their order.
        results: in their order.
    """

    shapes: tuple[tuple[int, ...], ...]
    tensors: tuple[tuple[Array, ...], ...]
    results: tuple[Array, ...]


def golden_runs(program: CProgram, *, seed: int = 1, runs: int = RUNS) -> tuple[Golden, ...]:
    """Return `runs` runs in numpy, one after another, so that states are seen.

    Raises:
        ConversionError: no drawn input fits the steps.
    """
    failed: DataError | None = None
    for number in range(len(_SIZES)):
        shapes = tuple(_shape(row, most, program, number) for row, most in _raws(program))
        try:
            return _runs(program, shapes, seed, runs)
        except DataError as err:
            failed = err
    raise ConversionError(f"no drawn input fits the steps of the specification, so no self-test: {failed}")


def write_checks(core: CCore, *, seed: int = 1) -> tuple[Path, ...]:
    """Write NAME_processing_test.c, Makefile and CMakeLists.txt beside the sources of `core`.

    `make check` runs the test, and so does ctest.

    Raises:
        ConversionError: as of `golden_runs`.
    """
    goldens = golden_runs(core.program, seed=seed)
    texts = {
        f"{core.name}_processing_test.c": _test_text(core, goldens, seed),
        "Makefile": _makefile(core),
        "CMakeLists.txt": _cmake(core),
    }
    for file, text in texts.items():
        write_text(core.folder / file, text)
    return tuple(core.folder / file for file in texts)


def _raws(program: CProgram) -> list[tuple[RawInput, int]]:
    return list(zip(program.plan.specification.inputs, program.most_raw, strict=True))


def _shape(row: RawInput, most: int, program: CProgram, number: int) -> tuple[int, ...]:
    shape = row.type.shape
    if row.kind == "image":
        height, width = (min(side, program.site.max_side) for side in _SIZES[number])
        return height, width, row.type.channels
    if None not in shape:
        return tuple(size or 0 for size in shape)
    inner = [size for size in shape if size is not None]
    wanted = (row.rate_hz or 1000) * (number + 1) // 2 + 37
    return min(wanted, most // int(np.prod(inner, dtype=np.int64))), *inner


def _runs(program: CProgram, shapes: tuple[tuple[int, ...], ...], seed: int, runs: int) -> tuple[Golden, ...]:
    generator, processor, made = Generator(seed), Processor(program.plan), []
    for _ in range(runs):
        raw: dict[str, Raw] = {
            row.name: generator.array(shape, row.type.dtype)
            for (row, _), shape in zip(_raws(program), shapes, strict=True)
        }
        tensors: list[tuple[Array, ...]] = []

        def execute(model: str, inputs: Arrays, tensors: list[tuple[Array, ...]] = tensors) -> Arrays:
            ends = program.models[len(tensors)]
            tensors.append(tuple(np.array(inputs[end.spec.name]) for end in ends.inputs))
            return {
                end.spec.name: generator.array([size or 1 for size in end.spec.shape], end.spec.dtype)
                for end in ends.outputs
            }

        results = processor.run(raw, execute)
        made.append(
            Golden(
                shapes=shapes,
                tensors=tuple(tensors),
                results=tuple(results[flow.name] for flow, _ in program.results),
            )
        )
    return tuple(made)


def _test_text(core: CCore, goldens: Sequence[Golden], seed: int) -> str:
    from edgewright.processing.c_files import core_text

    program = core.program
    parts: list[str] = []
    checks: list[str] = []
    for golden in goldens:
        arrays = [
            *((0, model, index, array) for model, row in enumerate(golden.tensors) for index, array in enumerate(row)),
            *((1, index, 0, array) for index, array in enumerate(golden.results)),
        ]  # fmt: skip
        for what, first, second, array in arrays:
            checks.append(_check(what, first, second, array, parts))
    rows = ", ".join(
        "{" + ", ".join(str(size) for size in (*shape, 0, 0, 0)[:3]) + "}" for shape in goldens[0].shapes
    )
    raw_bytes = [
        max(int(np.prod(shape)) * ITEM_BYTES[row.type.dtype], 1)
        for (row, _), shape in zip(_raws(program), goldens[0].shapes, strict=True)
    ]
    values: Mapping[str, str] = {
        "NAME": core.name,
        "HEADER": f"{core.name}_processing.h",
        "BYTES": f"{core.name.upper()}_PROCESSING_BYTES",
        "SEED": f"{seed}u",
        "RUNS": str(len(goldens)),
        "CHECKS": str(len(checks) // len(goldens)),
        "RAW_BYTES": str(sum(-(-size // 16) * 16 for size in raw_bytes)),
        "TABLES": "\n\n".join(parts),
        "CHECK_ROWS": "\n".join(checks),
        "SHAPE_ROWS": rows,
    }
    text = core_text(_TEMPLATE)
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def _check(what: int, first: int, second: int, array: Array, parts: list[str]) -> str:
    """Add the table of what is expected at some places of `array`, and return the row of the check."""
    flat = np.ascontiguousarray(array).reshape(-1)
    count = min(_PLACES, flat.size)
    places = (
        np.unique(np.linspace(0, max(flat.size - 1, 0), count).astype(np.int64))
        if count
        else np.zeros(0, int)
    )
    wanted = flat[places] if count else np.zeros(1)
    is_float = flat.dtype.kind == "f"
    if is_float and not np.isfinite(flat).all():
        finite = np.isfinite(wanted)
        places, wanted = places[finite], wanted[finite]
    number = len(parts)
    items = [
        c_float(v) if is_float else f"{c_integer(int(v))}.0f" for v in np.asarray(wanted, dtype=np.float64)
    ]
    index = [str(int(place)) for place in places] or ["0"]
    parts.append(
        f"static const int32_t places_{number}[] = {{\n{wrapped(index)}\n}};\n"
        f"static const float wanted_{number}[] = {{\n{wrapped(items or ['0.0f'])}\n}};"
    )
    finite_values = flat[np.isfinite(flat)] if is_float else flat
    span = float(np.ptp(finite_values.astype(np.float64))) if finite_values.size else 0.0
    tolerance = c_float(FLOAT_TOLERANCE * max(span, 1e-6)) if is_float else "1.0f"
    if not is_float and ITEM_BYTES[str(flat.dtype)] > 2:
        tolerance = "0.0f"
    return (
        f"    {{{what}, {first}, {second}, {C_DTYPES[str(flat.dtype)]}, {flat.size}, {len(places)}, "
        f"places_{number}, wanted_{number}, {tolerance}}},"
    )


def _makefile(core: CCore) -> str:
    sources = " ".join(path.name for path in core.sources)
    return f"""\
# make check: builds the processing of {core.name} and its self-test, and runs it.
CC ?= cc
CFLAGS ?= -O3
EW_FLAGS = -std=c99 -ffp-contract=off -Wall -Wextra -pedantic
SOURCES = {sources}

check: {core.name}_processing_test
	./{core.name}_processing_test

{core.name}_processing_test: $(SOURCES) {core.name}_processing_test.c $(wildcard *.h)
	$(CC) $(EW_FLAGS) $(CFLAGS) -o $@ $(SOURCES) {core.name}_processing_test.c

clean:
	rm -f {core.name}_processing_test

.PHONY: check clean
"""


def _cmake(core: CCore) -> str:
    sources = "\n    ".join(path.name for path in core.sources)
    return f"""\
# A library with the processing of {core.name}, and its self-test.
cmake_minimum_required(VERSION 3.13)
project({core.name}_processing C)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_C_STANDARD 99)
add_library({core.name}_processing STATIC
    {sources})
target_include_directories({core.name}_processing PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
target_compile_options({core.name}_processing PRIVATE -O3 -ffp-contract=off)
add_executable({core.name}_processing_test {core.name}_processing_test.c)
target_compile_options({core.name}_processing_test PRIVATE -ffp-contract=off)
target_link_libraries({core.name}_processing_test PRIVATE {core.name}_processing)
enable_testing()
add_test(NAME {core.name}_processing_test COMMAND {core.name}_processing_test)
"""
