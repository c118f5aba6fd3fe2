"""What a run takes on an emulated core: instructions and stack, counted by two functions around the run.

QEMU started with `-icount shift=0` lets one nanosecond pass with each instruction. A SysTick timer of 25 MHz then ticks
every 40 instructions; RISC-V counts them itself. They are instructions, not cycles: no emulator knows those.
The stack is painted before the run and searched for the deepest trace after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgewright.core.errors import ConversionError
from edgewright.microcontrollers.layer import render

FLAG = "-DEDGEWRIGHT_PROBE"
PAINTED_BYTES = 32768
_LINE = re.compile(r"^probe: (\d+) ticks, (\d+) bytes of stack, (\d) overflows$", re.MULTILINE)

_PROBE = """\
#include <stdint.h>
#include <stdio.h>
#define PAINTED {{ painted }}
#define PAINT 0xC5
void probe_begin(void);
void probe_end(void);
static volatile uint8_t *deepest;
static uint32_t first;
{% if not is_arm %}
#define COUNT ".option push\\n .option arch, +zicsr\\n csrr %0, minstret\\n .option pop"
{% endif %}

void probe_begin(void)
{
    volatile uint8_t *at;
    __asm__ volatile("mv %0, sp" : "=r"(deepest));
    for (at = deepest - PAINTED; at < deepest; ++at) {
        *at = PAINT;
    }
{% if is_arm %}
    *(volatile uint32_t *)0xE000E010 = 0;
    *(volatile uint32_t *)0xE000E014 = 0xFFFFFF;
    *(volatile uint32_t *)0xE000E018 = 0;
    *(volatile uint32_t *)0xE000E010 = 5;
    while (*(volatile uint32_t *)0xE000E018 == 0) {
    }
    (void)*(volatile uint32_t *)0xE000E010; /* clears the flag of overflow */
    first = *(volatile uint32_t *)0xE000E018;
{% else %}
    __asm__ volatile(COUNT : "=r"(first));
{% endif %}
}

void probe_end(void)
{
    volatile uint8_t *at;
{% if is_arm %}
    const uint32_t ticks = first - *(volatile uint32_t *)0xE000E018;
    const unsigned overflows = *(volatile uint32_t *)0xE000E010 >> 16 & 1;
{% else %}
    uint32_t ticks;
    const unsigned overflows = 0;
    __asm__ volatile(COUNT : "=r"(ticks));
    ticks -= first;
{% endif %}
    for (at = deepest - PAINTED; at < deepest && *at == PAINT; ++at) {
    }
    printf("probe: %lu ticks, %lu bytes of stack, %u overflows\\n", (unsigned long)ticks,
           (unsigned long)(deepest - at), overflows);
}
"""


def probe_text(*, is_arm: bool) -> str:
    """Return the C file that defines the functions around a run."""
    text = render(_PROBE, {"painted": PAINTED_BYTES, "is_arm": is_arm})
    return text.replace('"mv %0, sp"', '"mov %0, sp"') if is_arm else text


def read_probe(log: str, *, instructions_per_tick: float) -> Mapping[str, int]:
    """Return `instructions` and `stack_bytes` of the largest run in the log of a self-test.

    Raises:
        ConversionError: there is no count, the counter overflowed, or the stack reached deeper than it was painted.
    """
    found = [tuple(int(text) for text in match) for match in _LINE.findall(log)]
    if not found:
        raise ConversionError(f"the self-test did not say what a run takes: {log.strip()[-300:]!r}.")
    if any(overflows for _, _, overflows in found):
        raise ConversionError("a run took more instructions than the timer of the board can count.")
    stack = max(stack for _, stack, _ in found)
    if stack >= PAINTED_BYTES:
        raise ConversionError(f"a run took {PAINTED_BYTES} bytes of stack or more.")
    ticks = max(ticks for ticks, _, _ in found)
    return {"instructions": round(ticks * instructions_per_tick), "stack_bytes": stack}


def without_probes(log: str) -> str:
    """Return the log of a self-test without the lines of the counting functions."""
    return re.sub(r"^probe: .*\n?", "", log, flags=re.MULTILINE)
