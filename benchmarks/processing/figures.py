"""Figures that must keep a bound, and the table of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reporting import conditions, print_table, write_json


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row: what came out, what MANIFEST.md says, and the bound that it must keep."""

    what: str
    got: float
    least: float
    most: float = float("inf")
    asked: str = ""

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bounds."""
        return self.least <= self.got <= self.most


def report(figures: Sequence[Figure], json: Path | None) -> int:
    """Print the figures, and HOLDS or FAILS; return 0 when each keeps its bound."""
    rows = [(f.what, f"{f.got:.4g}", f.asked, "ok" if f.holds else "FAILS") for f in figures]
    print_table(("from raw files", "got", "MANIFEST.md", ""), rows)
    record: dict[str, object] = {
        "conditions": conditions(),
        "figures": {f.what: f.got for f in figures},
    }
    write_json(json, record)
    failed = [f.what for f in figures if not f.holds]
    print(f"FAILS: {', '.join(failed)}" if failed else "HOLDS: every figure keeps its bound")
    return 1 if failed else 0
