"""What a self-test says of its runs becomes instructions and stack, or an error."""

from __future__ import annotations

import pytest

from edgewright.core.errors import ConversionError
from edgewright.microcontrollers.probe import PAINTED_BYTES, probe_text, read_probe

LINE = "probe: %d x 2**32 + %d ticks, %d bytes of stack\n"


def test_the_largest_run_counts() -> None:
    found = read_probe(LINE % (0, 100, 300) + LINE % (0, 102, 296), instructions_per_tick=31.25)
    assert found == {"instructions": 3188, "stack_bytes": 300}


def test_long_runs_are_counted_in_two_words() -> None:
    found = read_probe(LINE % (1, 5, 300) + LINE % (0, 2**32 - 1, 300), instructions_per_tick=1.0)
    assert found["instructions"] == 2**32 + 5


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("kws: 20 runs, 0 failures", "did not say"),
        (LINE % (0, 100, PAINTED_BYTES), "bytes of stack or more"),
    ],
)
def test_what_cannot_be_told_is_an_error(log: str, why: str) -> None:
    with pytest.raises(ConversionError, match=why):
        read_probe(log, instructions_per_tick=40.0)


def test_each_core_has_its_own_counter() -> None:
    assert "0xE000E010" in probe_text(is_arm=True)
    assert "minstret" in probe_text(is_arm=False)
