"""Budgets, and the gate that a result passes or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from edgewright.core.errors import UnknownNameError, UsageError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Upper limits; None is no limit. `download_mb`, `size_mb` and `memory_mb` are 10^6 bytes."""

    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    download_mb: float | None = None
    size_mb: float | None = None
    memory_mb: float | None = None
    drop_points: float | None = None
    energy_mj: float | None = None

    @staticmethod
    def parse(texts: Sequence[str]) -> Budget:
        """Return the budget of `name=value` texts, as `--budget` takes them.

        Raises:
            UsageError: not `name=number`, a negative number, or one name twice.
            UnknownNameError: no budget has this name.
        """
        known = {field.name for field in fields(Budget)}
        values: dict[str, float] = {}
        for text in texts:
            name, _, value = text.partition("=")
            if name not in known:
                raise UnknownNameError.of("budget", name, known)
            if name in values:
                raise UsageError(f"budget {name} is given twice. Keep one.")
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if not (math.isfinite(number) and number >= 0):
                raise UsageError(f"budget {text!r} is not NAME=NUMBER with a number >= 0, e.g. size_mb=5.")
            values[name] = number
        return Budget(**values)

    def limits(self) -> dict[str, float]:
        """Return the limits that are set."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a result keeps its budget; `violations` are sentences."""

    is_pass: bool
    violations: tuple[str, ...] = ()


def gate(measured: Mapping[str, float | None], budget: Budget) -> Verdict:
    """Return the verdict on `measured`; a budget on something nobody measured fails.

    Args:
        measured: budget name -> value in the unit of the name; None or absent is "not measured".
    """
    violations = []
    for name, limit in budget.limits().items():
        value = measured.get(name)
        if value is None:
            violations.append(f"{name}: not measured, so the budget of {limit:g} is not proven")
        elif not value <= limit:
            violations.append(f"{name}: {value:.4g} > {limit:g}")
    return Verdict(is_pass=not violations, violations=tuple(violations))
