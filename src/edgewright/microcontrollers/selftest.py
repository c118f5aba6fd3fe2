"""NAME_test.c and the Makefile: the model checks itself on the machine where it runs.

The inputs come from a linear congruential generator that C and Python share, so that twenty of them take no flash; the
outputs are written out, or where they are long, a checksum of each (FNV-1a, 32 bits).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgewright.core.tensors import Array
from edgewright.microcontrollers.graph import Graph
from edgewright.microcontrollers.layer import Constant, floats, integers, render
from edgewright.microcontrollers.planner import Plan
from edgewright.microcontrollers.writer import ports

RUNS = 20
_FACTOR, _STEP = 1664525, 1013904223
_MAX_WRITTEN = 4096
_CHECKSUM_TYPE = "uint32_t"  # which no output has
# Numbers, and what C needs around them: -2147483648 is written as a difference.
_TABLE = re.compile(
    r"^static const (\w+) expected_\w+\[\d{1,9}\] = \{\n([-+0-9.ef,() \n]*)\n\};$", re.MULTILINE
)

_TEST = """\
/* Self-test of {{ name }}: {{ runs }} runs on generated inputs; expected: {{ source }}. */
#include "{{ name }}.h"

#define RUNS {{ runs }}
#define GUARD 64

#if defined(ARDUINO) || defined(EDGEWRIGHT_NO_MAIN) /* the application has main, and perhaps no printf */
#define SAY(arguments) ((void)0)
#else
#include <stdio.h>
#define HAS_MAIN
#define SAY(arguments) ((void)printf arguments)
#endif

#ifdef EDGEWRIGHT_PROBE /* who builds with it counts what a run takes */
void probe_begin(void);
void probe_end(void);
#else
#define probe_begin() ((void)0)
#define probe_end() ((void)0)
#endif

static uint32_t generator;

static uint32_t draw(void)
{
    generator = generator * {{ factor }}u + {{ step }}u;
    return generator >> 16;
}

static uint32_t checksum(const void *data, size_t bytes)
{
    const uint8_t *at = (const uint8_t *)data;
    uint32_t sum = 2166136261u;
    while (bytes-- > 0) {
        sum = (sum ^ *at++) * 16777619u;
    }
    return sum;
}

{% for port in inputs + outputs %}
static {{ port.c_type }} {{ port.short }}[{{ port.count }}];
{% endfor %}
static union {
    int64_t alignment;
    uint8_t bytes[{{ upper }}_ARENA_BYTES + GUARD];
} arena;

{% for constant in expected %}
{{ constant.definition }}
{% endfor %}
static int wrong(const char *what, int run)
{
    (void)what;
    (void)run;
    SAY(("{{ name }}: %s is wrong in run %d\\n", what, run));
    return 1;
}

int {{ name }}_self_test(void)
{
    int run, code, failures = 0;
    int32_t i;
    uint32_t last;
    generator = {{ seed }}u;
    memset(arena.bytes, 0xA5, sizeof arena.bytes);
    if ({{ name }}_init() != {{ upper }}_OK ||
        {{ name }}_init_in(arena.bytes, {{ upper }}_ARENA_BYTES) != {{ upper }}_OK) {
        return wrong("the first state", 0);
    }
    if ({{ name }}_run_in(arena.bytes, {{ upper }}_ARENA_BYTES - 1, {{ arguments }}) != {{ upper }}_ARENA_TOO_SMALL) {
        failures += wrong("the answer to a small arena", 0);
    }
    if ({{ name }}_run_in(arena.bytes + 1, {{ upper }}_ARENA_BYTES, {{ arguments }}) != {{ upper }}_ARENA_UNALIGNED) {
        failures += wrong("the answer to an unaligned arena", 0);
    }
    for (run = 0; run < RUNS; ++run) {
{% for port in inputs %}
        for (i = 0; i < {{ port.count }}; ++i) {
{% if port.c_type == "float" %}
            {{ port.short }}[i] = (float)draw() / 32768.0f - 1.0f;
{% else %}
            {{ port.short }}[i] = ({{ port.c_type }})((int32_t)({{ port.draw }}) + ({{ port.low }}));
{% endif %}
        }
{% endfor %}
        probe_begin();
        code = {{ name }}_run({{ arguments }});
        probe_end();
        if (code != {{ upper }}_OK) {
            failures += wrong("the code of the first run", run);
        }
{% for port in outputs %}
{% if port.is_checksum %}
        if (checksum({{ port.short }}, sizeof {{ port.short }}) != expected_{{ port.short }}[run]) {
{% else %}
        if (memcmp({{ port.short }}, expected_{{ port.short }} + run * {{ port.count }},
                   sizeof {{ port.short }}) != 0) {
{% endif %}
            failures += wrong("{{ port.short }}", run);
        }
        memset({{ port.short }}, 0, sizeof {{ port.short }});
{% endfor %}
        if ({{ name }}_run_in(arena.bytes, {{ upper }}_ARENA_BYTES, {{ arguments }}) != {{ upper }}_OK) {
            failures += wrong("the code of the run in a given arena", run);
        }
{% for port in outputs %}
{% if port.is_checksum %}
        if (checksum({{ port.short }}, sizeof {{ port.short }}) != expected_{{ port.short }}[run]) {
{% else %}
        if (memcmp({{ port.short }}, expected_{{ port.short }} + run * {{ port.count }},
                   sizeof {{ port.short }}) != 0) {
{% endif %}
            failures += wrong("{{ port.short }} in a given arena", run);
        }
{% endfor %}
    }
    for (i = 0; i < GUARD; ++i) {
        if (arena.bytes[{{ upper }}_ARENA_BYTES + i] != 0xA5) {
            failures += wrong("the memory behind the arena", 0);
        }
    }
    last = checksum({{ outputs[0].short }}, sizeof {{ outputs[0].short }});
    (void)last;
    SAY(("{{ name }}: %d runs, %d failures, checksum %08lx\\n", RUNS, failures, (unsigned long)last));
    return failures;
}

#ifdef HAS_MAIN
int main(void)
{
    return {{ name }}_self_test() != 0;
}
#endif
"""

_MAKEFILE = """\
# make check: build {{ name }} for this machine and compare its outputs bit by bit with the expected ones.
CC ?= cc
CFLAGS ?= -O2
WARNINGS = -std=c99 -Wall -Wextra -Werror -pedantic -ffp-contract=off
SANITIZE = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all

check: {{ name }}_test
	./{{ name }}_test

# Built each time: CC and CFLAGS may be others than before.
{{ name }}_test: always
	$(CC) $(WARNINGS) $(CFLAGS) -o $@ {{ name }}.c {{ name }}_test.c

sanitize:
	$(CC) $(WARNINGS) $(SANITIZE) -o {{ name }}_sanitized {{ name }}.c {{ name }}_test.c
	./{{ name }}_sanitized

clean:
	rm -f {{ name }}_test {{ name }}_sanitized

.PHONY: always check sanitize clean
"""


def golden_inputs(graph: Graph, runs: int, seed: int) -> list[list[Array]]:
    """Return for each run the inputs that the self-test makes of `seed`, with the shapes of the graph."""
    counts = [graph.tensor(index).count for index in graph.inputs]
    numbers = _draws(seed, runs * sum(counts))
    made, at = [], 0
    for _ in range(runs):
        row: list[Array] = []
        for index, count in zip(graph.inputs, counts, strict=True):
            tensor = graph.tensor(index)
            drawn = numbers[at : at + count]
            at += count
            row.append(_values(drawn, tensor.dtype).reshape(tensor.shape))
        made.append(row)
    return made


def _values(drawn: npt.NDArray[np.uint32], dtype: str) -> Array:
    if dtype == "float32":
        return (drawn.astype(np.float32) / np.float32(32768) - np.float32(1)).astype(np.float32)
    if dtype == "int8":
        return ((drawn >> 8).astype(np.int32) - 128).astype(np.int8)
    if dtype in ("uint8", "bool"):
        return (drawn >> 8).astype(np.uint8)
    if dtype == "int16":
        return (drawn.astype(np.int32) - 32768).astype(np.int16)
    return drawn.astype(np.int64).astype(dtype)


def _draws(seed: int, count: int) -> npt.NDArray[np.uint32]:
    """Return the upper 16 bits of `count` states: s[n] = a**n s + c (1 + a + ... + a**(n-1)), modulo 2**32."""
    powers: npt.NDArray[np.uint32] = np.multiply.accumulate(
        np.full(count, _FACTOR, dtype=np.uint32), dtype=np.uint32
    )
    before = np.concatenate([np.ones(min(count, 1), dtype=np.uint32), powers[:-1]])
    sums = np.add.accumulate(before, dtype=np.uint32)
    states: npt.NDArray[np.uint32] = np.multiply(powers, seed, dtype=np.uint32)
    states = np.add(states, np.multiply(sums, _STEP, dtype=np.uint32), dtype=np.uint32)
    return np.right_shift(states, 16, dtype=np.uint32)


def test_text(
    graph: Graph, name: str, plan: Plan, outputs: Sequence[Sequence[Array]], *, seed: int, source: str
) -> str:
    """Return NAME_test.c.

    Args:
        outputs: expected, for each run of `golden_inputs` those of the graph.
        source: who computed them, for the comment.
    """
    tables = []
    for position, port in enumerate(ports(graph, "output", plan, name)):
        columns = [np.ascontiguousarray(row[position]) for row in outputs]
        label = f"expected_{port['short']}"
        flat = np.concatenate([column.ravel() for column in columns])
        if flat.size > _MAX_WRITTEN or not np.isfinite(flat).all():
            tables.append(
                integers(label, _CHECKSUM_TYPE, [checksum(column.tobytes()) for column in columns], 4)
            )
        elif port["c_type"] == "float":
            tables.append(floats(label, flat.tolist()))
        else:
            tables.append(integers(label, str(port["c_type"]), flat.tolist(), 1))
    return _text(graph, name, plan, tables, runs=len(outputs), seed=seed, source=source)


def author_of(text: str, graph: Graph, name: str, plan: Plan, *, seed: int) -> str:
    """Return who computed the outputs in the NAME_test.c `text`.

    Raises:
        ValueError: `text` is not what `test_text` makes of some outputs.
    """
    head = re.match(
        rf"/\* Self-test of {name}: (\d{{1,6}}) runs on generated inputs; expected: ([\w .+-]{{1,100}})\. \*/\n",
        text,
    )
    if head is None:
        raise ValueError("its first line is another")
    runs, found = int(head[1]), _TABLE.findall(text)
    described = ports(graph, "output", plan, name)
    if len(found) != len(described):
        raise ValueError(f"it has {len(found)} tables of outputs, not {len(described)}")
    tables: list[Constant] = []
    for (c_type, values), port in zip(found, described, strict=True):
        if c_type not in (_CHECKSUM_TYPE, port["c_type"]):
            raise ValueError(f"its {port['short']} is a table of {c_type}")
        count = runs if c_type == _CHECKSUM_TYPE else runs * graph.tensor(graph.outputs[len(tables)]).count
        label = f"expected_{port['short']}"
        tables.append(Constant(name=label, c_type=c_type, count=count, size_bytes=0, values=values))
    if text != _text(graph, name, plan, tables, runs=runs, seed=seed, source=head[2]):
        raise ValueError("it is not what the model's self-test looks like")
    return head[2]


def _text(
    graph: Graph, name: str, plan: Plan, tables: Sequence[Constant], *, runs: int, seed: int, source: str
) -> str:
    inputs, outputs = ports(graph, "input", plan, name), ports(graph, "output", plan, name)
    for port in inputs:
        port["draw"] = "draw() >> 8" if port["c_type"] in ("int8_t", "uint8_t") else "draw()"
        if port["c_type"] == "int32_t":
            port["low"] = 0  # as `_values` does it
    for port, table in zip(outputs, tables, strict=True):
        port["is_checksum"] = table.c_type == _CHECKSUM_TYPE
    return render(
        _TEST,
        {
            "name": name, "upper": name.upper(), "runs": runs, "seed": seed, "factor": _FACTOR, "step": _STEP,
            "source": source, "inputs": inputs, "outputs": outputs, "expected": tables,
            "arguments": ", ".join(str(port["short"]) for port in [*inputs, *outputs]),
        },
    )  # fmt: skip


def makefile_text(name: str) -> str:
    """Return the Makefile."""
    return render(_MAKEFILE, {"name": name})


def checksum(content: bytes) -> int:
    """Return FNV-1a of 32 bits."""
    value = 2166136261
    for byte in content:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value
