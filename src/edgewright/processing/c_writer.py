"""NAME_processing.c and NAME_processing.h: the text of a program."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from edgewright.core.tensors import TensorSpec
from edgewright.processing.c_files import core_headers
from edgewright.processing.c_pictures import C_ORDERS
from edgewright.processing.c_program import MODEL, CProgram, CTensor
from edgewright.processing.c_site import C_DTYPES, END, LOOP, Buffer, Call, CValue
from edgewright.processing.c_text import c_string, sizes
from edgewright.processing.specification import RawInput, ResultFlow

# Of ew_run.h, on machines with the largest pointers: a run, a raw input, a geometry.
_RUN_BYTES, _RAW_BYTES, _GEOMETRY_BYTES = 640, 80, 48


def memory_bytes(program: CProgram) -> int:
    """Return what `ew_bytes` is at most, on any machine."""
    held = (
        _RAW_BYTES * len(program.most_raw)
        + _GEOMETRY_BYTES * program.site.geometries
        + 4 * program.site.lengths
    )
    return program.arena_bytes + _RUN_BYTES + held + 4 * 16 + 64


def header_text(program: CProgram) -> str:
    """Return NAME_processing.h."""
    name = program.site.name
    guard = f"{name.upper()}_PROCESSING_H"
    return f"""\
/* The processing of {name}; ew_processing.h says how it is used. */
#ifndef {guard}
#define {guard}

#include "ew_processing.h"

#ifdef __cplusplus
extern "C" {{
#endif

/* What ew_bytes says, or a little more: for memory that is set aside when the program is built. */
#define {name.upper()}_PROCESSING_BYTES {memory_bytes(program)}

const ew_processing *{name}_processing(void);

#ifdef __cplusplus
}}
#endif

#endif
"""


def source_text(program: CProgram) -> str:
    """Return NAME_processing.c."""
    site, name = program.site, program.site.name
    includes = "\n".join(f'#include "{file}"' for file in core_headers(site.files))
    tables = "\n\n".join(
        text.replace("@", f"{name}_table_{number}", 1) for number, text in enumerate(site.tables)
    )
    parts = [
        f'/* The processing of {name}, made by Edgewright. Do not edit. */\n#include "{name}_processing.h"\n\n'
        f"{includes}\n\n#define AT(offset) ((void *)(run->arena + (offset)))",
        tables,
        *_functions(program),
        _inputs(program),
        _models(program),
        _results(program),
        _processing(program),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _functions(program: CProgram) -> list[str]:
    ends = [0, *program.cuts, len(program.site.calls)]
    segments = [program.site.calls[first:last] for first, last in pairwise(ends)]
    made = [_function("reset", program.site.reset)]
    made += [_function(f"segment_{number}", calls) for number, calls in enumerate(segments)]
    names = ", ".join(f"segment_{number}" for number in range(len(segments)))
    return [*made, f"static ew_segment *const segments[{len(segments)}] = {{{names}}};"]


def _function(name: str, calls: Sequence[Call]) -> str:
    lines, indent = [], "    "
    for call in calls:
        if call.function != MODEL:
            indent = indent[4:] if call.function == END else indent
            lines.append(indent + call.line)
            indent += "    " if call.function == LOOP else ""
    lines = lines or ["    (void)run;"]
    return "\n".join([f"static int {name}(ew_run *run)", "{", *lines, "    return EW_OK;", "}"])


def _inputs(program: CProgram) -> str:
    rows = []
    for row, most in zip(program.plan.specification.inputs, program.most_raw, strict=True):
        shape = [0 if size is None else size for size in row.type.shape]
        rows.append(
            f"    {{{c_string(row.name)}, {_kind(row)}, {C_DTYPES[row.type.dtype]}, "
            f"{C_ORDERS.get(row.order, '0')}, {row.rate_hz}, {len(shape)}, "
            f"{sizes(shape)}, {most}}},"
        )
    return _array("ew_input_info", "inputs", rows)


def _models(program: CProgram) -> str:
    parts, rows = [], []
    for number, model in enumerate(program.models):
        for what, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
            parts.append(
                _array("ew_tensor_info", f"{what}_{number}", [_tensor(tensor) for tensor in tensors])
            )
        rows.append(
            f"    {{{c_string(model.name)}, inputs_{number}, outputs_{number}, {len(model.inputs)}, "
            f"{len(model.outputs)}}},"
        )
    return "\n\n".join([*parts, _array("ew_model_info", "models", rows)])


def _tensor(tensor: CTensor) -> str:
    spec, shape = tensor.spec, _known(tensor.spec)
    count = 1
    for size in shape:
        count *= size
    return (
        f"    {{{c_string(spec.name)}, {C_DTYPES[spec.dtype]}, {len(shape)}, {sizes(shape)}, "
        f"{count * tensor.value.item_bytes}, {_offset(tensor.value)}}},"
    )


def _known(spec: TensorSpec) -> list[int]:
    return [1 if size is None else size for size in spec.shape]


def _results(program: CProgram) -> str:
    parts, rows = [], []
    for number, (flow, value) in enumerate(program.results):
        labels = f"labels_{number}" if flow.labels else "NULL"
        if flow.labels:
            lines = [f"    {c_string(label)}," for label in flow.labels]
            parts.append("\n".join([f"static const char *const {labels}[{len(lines)}] = {{", *lines, "};"]))
        rows.append(_result(flow, value, labels))
    return "\n\n".join([*parts, _array("ew_result_info", "results", rows)])


def _result(flow: ResultFlow, value: CValue, labels: str) -> str:
    lengths = [_length(value.rows), _length(value.columns)]
    return (
        f"    {{{c_string(flow.name)}, EW_{value.type.kind.upper()}, {value.c_dtype}, {len(value.bound)}, "
        f"{sizes(value.bound)}, {{{lengths[0]}, {lengths[1]}}}, {_offset(value)}, {len(flow.labels)}, {labels}}},"
    )


def _length(text: str) -> int:
    """Return the number of a length of the run, -1 for none; `c_program` gives results no other expressions."""
    return int(text.removeprefix("run->lengths[").removesuffix("]")) if text else -1


def _kind(row: RawInput) -> str:
    return f"EW_{row.kind.upper()}"


def _offset(value: CValue) -> int:
    assert isinstance(value.place, Buffer)
    return value.place.offset


def _array(c_type: str, name: str, rows: Sequence[str]) -> str:
    return "\n".join(
        [f"static const {c_type} {name}[{max(len(rows), 1)}] = {{", *(rows or ["    {0}"]), "};"]
    )


def _processing(program: CProgram) -> str:
    site = program.site
    numbers = (
        len(program.most_raw), len(program.models), len(program.results), site.lengths, site.geometries, site.max_side,
        program.arena_bytes,
    )  # fmt: skip
    return f"""\
const ew_processing *{site.name}_processing(void)
{{
    static const ew_processing what = {{
        {c_string(site.name)}, inputs, models, results, reset, segments,
        {", ".join(map(str, numbers))},
    }};
    return &what;
}}"""
