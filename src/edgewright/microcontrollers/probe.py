"""What a run takes on an emulated core: instructions and stack, counted by two functions around the run.

QEMU started with `-icount shift=0` lets one nanosecond pass with each instruction. A SysTick timer of 25 MHz then ticks
every 40 instructions, and its interrupt counts every 2**24 ticks; RISC-V counts instructions itself. They are
instructions, not cycles: no emulator knows those.
The stack is painted before the run and searched for the deepest trace after it; the frame of an interrupt counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgewright.core.errors import ConversionError
from edgewright.microcontrollers.layer import render

FLAG = "-DEDGEWRIGHT_PROBE"
PAINTED_BYTES = 32768
_LINE = re.compile(r"^probe: (\d+) x 2\*\*32 \+ (\d+) ticks, (\d+) bytes of stack$", re.MULTILINE)

_PROBE = """\
#include <stdint.h>
#include <stdio.h>
#define PAINTED {{ painted }}
#define PAINT 0xC5
void probe_begin(void);
void probe_end(void);
static volatile uint8_t *top;
{% if is_arm %}
#define TIMER(register) (*(volatile uint32_t *)(0xE000E010 + (register)))
void probe_wrap(void);
static uint32_t first;
static volatile uint32_t wraps;

/* The interrupt of the timer, see the vectors. */
void probe_wrap(void)
{
    ++wraps;
}
{% else %}
#define READ(to, name) \\
    __asm__ volatile(".option push\\n .option arch, +zicsr\\n csrr %0, " name "\\n .option pop" : "=r"(to))
static uint64_t first;

static uint64_t count(void)
{
    uint32_t high, low, again;
    do {
        READ(high, "minstreth");
        READ(low, "minstret");
        READ(again, "minstreth");
    } while (high != again);
    return (uint64_t)high << 32 | low;
}
{% endif %}

void probe_begin(void)
{
    volatile uint8_t *at, *own;
    __asm__ volatile("mv %0, sp" : "=r"(own));
    top = (volatile uint8_t *)__builtin_dwarf_cfa(); /* the caller's stack pointer, from which the run begins, too */
    for (at = top - PAINTED; at < own; ++at) {
        *at = PAINT;
    }
{% if is_arm %}
    TIMER(0) = 0;
    TIMER(4) = 0xFFFFFF;
    TIMER(8) = 0;
    wraps = 0;
    TIMER(0) = 7; /* the core's clock, with its interrupt */
    while (TIMER(8) == 0) {
    }
    first = TIMER(8);
{% else %}
    first = count();
{% endif %}
}

void probe_end(void)
{
    volatile uint8_t *at;
{% if is_arm %}
    uint32_t wrapped, now;
    uint64_t ticks;
    do {
        wrapped = wraps;
        now = TIMER(8);
    } while (wrapped != wraps);
    ticks = ((uint64_t)wrapped << 24) + first - now;
    TIMER(0) = 0;
{% else %}
    const uint64_t ticks = count() - first;
{% endif %}
    for (at = top - PAINTED; at < top && *at == PAINT; ++at) {
    }
    printf("probe: %lu x 2**32 + %lu ticks, %lu bytes of stack\\n", (unsigned long)(ticks >> 32),
           (unsigned long)(ticks & 0xFFFFFFFF), (unsigned long)(top - at));
}
"""


def probe_text(*, is_arm: bool) -> str:
    """Return the C file that defines the functions around a run."""
    text = render(_PROBE, {"painted": PAINTED_BYTES, "is_arm": is_arm})
    return text.replace('"mv %0, sp"', '"mov %0, sp"') if is_arm else text


def read_probe(log: str, *, instructions_per_tick: float) -> Mapping[str, int]:
    """Return `instructions` and `stack_bytes` of the largest run in the log of a self-test.

    Raises:
        ConversionError: there is no count, or the stack reached deeper than it was painted.
    """
    found = [tuple(int(text) for text in match) for match in _LINE.findall(log)]
    if not found:
        raise ConversionError(f"the self-test did not say what a run takes: {log.strip()[-300:]!r}.")
    stack = max(stack for _, _, stack in found)
    if stack >= PAINTED_BYTES:
        raise ConversionError(f"a run took {PAINTED_BYTES} bytes of stack or more.")
    ticks = max((high << 32) + low for high, low, _ in found)
    return {"instructions": round(ticks * instructions_per_tick), "stack_bytes": stack}


def without_probes(log: str) -> str:
    """Return the log of a self-test without the lines of the counting functions."""
    return re.sub(r"^probe: .*\n?", "", log, flags=re.MULTILINE)
