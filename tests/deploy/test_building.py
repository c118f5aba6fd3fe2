"""Tools on bundles: what they print, and what is quoted when they fail."""

from __future__ import annotations

import sys

import pytest

from edgewright.core.errors import ConversionError
from edgewright.deploy.building import run_tool

LINES = "import sys; print('one'); print('two'); print('three', file=sys.stderr); sys.exit(int(sys.argv[1]))"


def test_what_is_printed_comes_back_and_a_failure_quotes_its_lines() -> None:
    command = [sys.executable, "-c", LINES]
    done = run_tool([*command, "0"], failure="no", quoted=slice(1), most_characters=9, timeout_s=60)
    assert (done.stdout, done.stderr) == ("one\ntwo\n", "three\n")
    with pytest.raises(ConversionError, match=r"^the tool fails: two \| thr$"):
        run_tool(
            [*command, "3"], failure="the tool fails", quoted=slice(-2, None), most_characters=9, timeout_s=60
        )


def test_a_tool_that_is_not_there_is_an_error_of_the_bundle() -> None:
    with pytest.raises(ConversionError, match="the tool fails"):
        run_tool(["no-such-tool"], failure="the tool fails", quoted=slice(1), most_characters=9, timeout_s=60)
