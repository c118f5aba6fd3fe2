"""Limits that the user sets by the environment."""

from __future__ import annotations

import pytest

from edgewright.core.errors import UsageError
from edgewright.workers.limits import limits_from_environment
from edgewright.workers.pool import Limits

DEFAULT = Limits(timeout_s=5.0, memory_bytes=100)


def test_what_is_set_replaces_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits_from_environment(DEFAULT) == DEFAULT
    monkeypatch.setenv("EDGEWRIGHT_TIMEOUT_S", "1.5")
    assert limits_from_environment(DEFAULT) == Limits(timeout_s=1.5, memory_bytes=100)
    monkeypatch.setenv("EDGEWRIGHT_MEMORY_MB", "2")
    assert limits_from_environment(DEFAULT) == Limits(timeout_s=1.5, memory_bytes=2_000_000)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "long"])
def test_what_is_no_number_above_zero_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TIMEOUT_S", text)
    with pytest.raises(UsageError, match=r"\$EDGEWRIGHT_TIMEOUT_S is '"):
        limits_from_environment(DEFAULT)
