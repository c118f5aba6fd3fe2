"""What a self-test says of its runs becomes instructions and stack, or an error."""

from __future__ import annotations

import pytest

from edgewright.core.errors import ConversionError
from edgewright.microcontrollers.probe import PAINTED_BYTES, probe_text, read_probe

LINE = "probe: %d ticks, %d bytes of stack, %d overflows\n"


def test_the_largest_run_counts() -> None:
    found = read_probe(LINE % (100, 300, 0) + LINE % (102, 296, 0), instructions_per_tick=31.25)
    assert found == {"instructions": 3188, "stack_bytes": 300}


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("kws: 20 runs, 0 failures", "did not say"),
        (LINE % (100, 300, 1), "more instructions than"),
        (LINE % (100, PAINTED_BYTES, 0), "bytes of stack or more"),
    ],
)
def test_what_cannot_be_told_is_an_error(log: str, why: str) -> None:
    with pytest.raises(ConversionError, match=why):
        read_probe(log, instructions_per_tick=40.0)


def test_each_core_has_its_own_counter() -> None:
    assert "0xE000E018" in probe_text(is_arm=True)
    assert "minstret" in probe_text(is_arm=False)
