"""Lint: a finding about data that does not stop the work, but that the user must see."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lint:
    """A finding about a data set or a calibration.

    Attributes:
        code: stable, kebab-case ("calibration-scale").
        message: what was found, in which input, and what to do.
        is_severe: numbers that rest on this data cannot be trusted; a build marks them degraded.
    """

    code: str
    message: str
    is_severe: bool = False

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"
