"""What a rule says of one operation."""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.explain.coverage import Verdict


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The verdict on one operation; `cause` is the operator inside it that blocks, where it is made of several."""

    verdict: Verdict
    reason: str = ""
    cause: str = ""


OK = Finding(verdict=Verdict.OK)


def blocked(reason: str, cause: str = "") -> Finding:
    """Return the finding that blocks."""
    return Finding(verdict=Verdict.BLOCKED, reason=reason, cause=cause)


def fallback(reason: str, cause: str = "") -> Finding:
    """Return the finding of a slower path."""
    return Finding(verdict=Verdict.FALLBACK, reason=reason, cause=cause)
