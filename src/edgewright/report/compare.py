"""Compare two builds row by row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.result import Status
from edgewright.report.cells import significant
from edgewright.report.records import RecordedResult, read_results

if TYPE_CHECKING:
    from rich.console import Console

LATENCY_CAVEAT = (
    "times of two separate runs are indicative only; use `edgewright bench` to compare two artifacts"
)
MAX_DROP_INCREASE_POINTS = 0.5
MAX_SIZE_INCREASE = 1.02
_RANK = {Status.OK: 0, Status.DEGRADED: 1, Status.FAILED: 2, Status.UNAVAILABLE: 2}


@dataclass(frozen=True, kw_only=True)
class Change:
    """One id in both builds; ratios are later / earlier, None where one of the two was not measured."""

    id: str
    status_before: str
    status_after: str
    size_ratio: float | None
    metric_before: float | None
    metric_after: float | None
    drop_before: float | None
    drop_after: float | None
    latency_p50_ratio: float | None
    is_same_artifact: bool


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What changed between two builds."""

    a: str
    b: str
    is_same_source: bool
    changes: tuple[Change, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    regressions: tuple[str, ...]
    recommended_before: str | None
    recommended_after: str | None

    @property
    def is_regression(self) -> bool:
        """True when a row got a worse status, a larger drop or file, or went missing."""
        return bool(self.regressions)

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {**asdict(self), "is_regression": self.is_regression, "latency_caveat": LATENCY_CAVEAT}

    def render(self, console: Console) -> None:
        """Print the table, what is new and missing, and the regressions."""
        from rich.table import Table

        table = Table("target", "status", box=None, pad_edge=False, header_style="bold")
        for heading in ("size", "metric", "drop", "p50 (indicative)", "artifact"):
            table.add_column(heading, justify="right", no_wrap=True)
        for c in self.changes:
            same = c.status_before == c.status_after
            table.add_row(
                c.id,
                c.status_after if same else f"{c.status_before} -> {c.status_after}",
                _ratio(c.size_ratio),
                _pair(c.metric_before, c.metric_after),
                _pair(c.drop_before, c.drop_after),
                _ratio(c.latency_p50_ratio),
                "same" if c.is_same_artifact else "differs",
            )
        console.print(table, highlight=False)
        if not self.is_same_source:
            console.print("the two builds have different sources", style="yellow")
        for name, ids in (("only in the first", self.only_in_a), ("only in the second", self.only_in_b)):
            if ids:
                console.print(f"{name}: {', '.join(ids)}", highlight=False, markup=False)
        if self.recommended_before != self.recommended_after:
            before, after = self.recommended_before or "nothing", self.recommended_after or "nothing"
            console.print(f"recommended: {before} -> {after}", highlight=False, markup=False)
        console.print(LATENCY_CAVEAT, style="dim", highlight=False)
        for regression in self.regressions:
            console.print(f"worse: {regression}", style="red", highlight=False, markup=False)
        if not self.regressions:
            console.print("nothing got worse", style="green")


def compare_results(a: Path, b: Path) -> Comparison:
    """Return what changed from the results.json `a` to `b`.

    Worse is: a row that is missing, a worse status, a drop that grew by more than 0.5 points, a file more than 2 % larger.
    Latency never counts: two times from two runs must not be compared.

    Raises:
        IntegrityError: one of the files is not a results.json.
    """
    before, after = read_results(a), read_results(b)
    shared = [name for name in before.rows if name in after.rows]
    changes = tuple(_change(before.rows[name], after.rows[name]) for name in shared)
    missing = tuple(name for name in before.rows if name not in after.rows)
    regressions = [f"{name} is missing" for name in missing]
    for change in changes:
        regressions += _regressions(change)
    return Comparison(
        a=str(a),
        b=str(b),
        is_same_source=before.source_sha256 == after.source_sha256,
        changes=changes,
        only_in_a=missing,
        only_in_b=tuple(name for name in after.rows if name not in before.rows),
        regressions=tuple(regressions),
        recommended_before=before.recommended,
        recommended_after=after.recommended,
    )


def _change(a: RecordedResult, b: RecordedResult) -> Change:
    return Change(
        id=a.id,
        status_before=a.status,
        status_after=b.status,
        size_ratio=_divided(b.size_bytes, a.size_bytes),
        metric_before=a.metric_value,
        metric_after=b.metric_value,
        drop_before=a.drop_points,
        drop_after=b.drop_points,
        latency_p50_ratio=_divided(b.latency_p50_ms, a.latency_p50_ms),
        is_same_artifact=a.sha256 is not None and a.sha256 == b.sha256,
    )


def _regressions(change: Change) -> list[str]:
    found = []
    if _RANK[Status(change.status_after)] > _RANK[Status(change.status_before)]:
        found.append(f"{change.id}: {change.status_before} -> {change.status_after}")
    if change.drop_before is not None and change.drop_after is not None:
        growth = change.drop_after - change.drop_before
        if growth > MAX_DROP_INCREASE_POINTS:
            found.append(f"{change.id}: the drop grew by {growth:.2f} points")
    if change.size_ratio is not None and change.size_ratio > MAX_SIZE_INCREASE:
        found.append(f"{change.id}: the file is {change.size_ratio:.2f}x as large")
    return found


def _divided(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _pair(a: float | None, b: float | None) -> str:
    if a is None or b is None:
        return ""
    return significant(b) if a == b else f"{significant(a)} -> {significant(b)}"
