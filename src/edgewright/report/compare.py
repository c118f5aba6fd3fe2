"""Two results.json side by side: what became better, worse, new or lost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.result import Status
from edgewright.report import cells
from edgewright.report.records import RecordedResult, RecordedSummary, read_results

if TYPE_CHECKING:
    from rich.console import Console

LATENCY_REMARK = "two separate runs: indicative only"
_RANK = {
    Status.OK: 0,
    Status.INTERPRETED: 0,
    Status.DEGRADED: 1,
    Status.CONVERTED: 2,
    Status.UNAVAILABLE: 2,
    Status.FAILED: 3,
}
_MAX_GROWTH = 1.01  # sizes within 1 % are the same: converters write their own version into the file


@dataclass(frozen=True, kw_only=True)
class Change:
    """One id in both files, in one, or in the other; `regressions` are sentences."""

    id: str
    before: RecordedResult | None
    after: RecordedResult | None
    regressions: tuple[str, ...]

    @property
    def latency_ratio(self) -> float | None:
        """p50 after divided by p50 before; None unless both are measured and valid."""
        a, b = self.before, self.after
        if a is None or b is None or not (a.is_timing_valid and b.is_timing_valid):
            return None
        return b.p50_ms / a.p50_ms if a.p50_ms and b.p50_ms is not None else None

    def to_json(self) -> dict[str, object]:
        """Return the change as JSON values."""
        return {
            "id": self.id,
            "before": None if self.before is None else _figures(self.before),
            "after": None if self.after is None else _figures(self.after),
            "latency_ratio": self.latency_ratio,
            "latency_remark": LATENCY_REMARK,
            "regressions": list(self.regressions),
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every id of two results.json, in the order of the later one, then what it lacks."""

    before: RecordedSummary
    after: RecordedSummary
    changes: tuple[Change, ...]

    @property
    def regressions(self) -> tuple[str, ...]:
        """Everything that got worse, one sentence each, beginning with the id."""
        return tuple(f"{change.id}: {text}" for change in self.changes for text in change.regressions)

    @property
    def is_regression(self) -> bool:
        """Whether anything got worse; latency never counts, since two runs on a changing machine prove nothing."""
        return bool(self.regressions)

    @property
    def has_same_source(self) -> bool:
        """Whether both were built from the same source file."""
        return self.before.source_sha256 == self.after.source_sha256

    def to_json(self) -> dict[str, object]:
        """Return the comparison as JSON values."""
        return {
            "before": str(self.before.path),
            "after": str(self.after.path),
            "same_source": self.has_same_source,
            "recommended": {"before": self.before.recommended, "after": self.after.recommended},
            "changes": [change.to_json() for change in self.changes],
            "regressions": list(self.regressions),
            "is_regression": self.is_regression,
        }

    def render(self, console: Console) -> None:
        """Print one row per id, before -> after, then the regressions."""
        from rich.table import Table
        from rich.text import Text

        arrow = "→" if console.encoding.lower().startswith("utf") else "->"
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        headings = (
            "target",
            "status",
            "download, kB",
            "disk, kB",
            "metric",
            "drop, pts",
            "p50, ms",
            "ratio*",
        )
        for heading in headings:
            side = "left" if heading in ("target", "status") else "right"
            table.add_column(heading, justify="right" if side == "right" else "left", overflow="fold")
        for change in self.changes:
            texts = _texts(change, arrow)
            style = "red" if change.regressions else ""
            table.add_row(*(Text(text, style=style) for text in texts))
        console.print(table, highlight=False)
        lines = ["", f"* p50 after / before; {LATENCY_REMARK}, and never a regression by itself."]
        if not self.has_same_source:
            lines.append("The two builds have different sources.")
        if self.before.recommended != self.after.recommended:
            names = [cells.clean(s.recommended or "none") for s in (self.before, self.after)]
            lines.append(f"recommended: {names[0]} {arrow} {names[1]}")
        lines += [f"worse: {cells.clean(text)}" for text in self.regressions] or ["Nothing got worse."]
        for line in lines:
            console.print(Text(line), highlight=False)


def compare_results(a: Path, b: Path) -> Comparison:
    """Return how the results.json `b` differs from the earlier `a` (files, or the folders that hold them).

    A regression is: a worse status, a lost id, a budget no longer kept, an artifact or a download more than 1 %
    larger, or a drop whose 95 % interval lies wholly above the earlier one.
    Raises:
        UsageError: a file does not exist.
        IntegrityError: a file is not a results.json.
    """
    before, after = read_results(a), read_results(b)
    old = {result.id: result for result in before.results}
    new = {result.id: result for result in after.results}
    names = [*new, *(name for name in old if name not in new)]
    changes = tuple(_change(name, old.get(name), new.get(name)) for name in names)
    return Comparison(before=before, after=after, changes=changes)


def _change(name: str, before: RecordedResult | None, after: RecordedResult | None) -> Change:
    return Change(id=name, before=before, after=after, regressions=tuple(_worse(before, after)))


def _worse(before: RecordedResult | None, after: RecordedResult | None) -> list[str]:
    if before is None:
        return []
    if after is None:
        return ["is missing in the later results"] if before.status is Status.OK else []
    found = []
    if _RANK[after.status] > _RANK[before.status]:
        found.append(f"status was {before.status}, is {after.status}")
    if (
        before.is_within_budget
        and not after.is_within_budget
        and after.status not in (Status.FAILED, Status.UNAVAILABLE)
    ):
        found.append("no longer within budget")
    for what, old, new in (
        ("download", before.download_bytes, after.download_bytes),
        ("size", before.size_bytes, after.size_bytes),
    ):
        if old and new and new > old * _MAX_GROWTH:
            found.append(f"{what} was {cells.kilobytes(old)} kB, is {cells.kilobytes(new)} kB")
    is_same_metric = before.metric_name == after.metric_name
    if is_same_metric and before.drop_ci95 and after.drop_ci95 and after.drop_ci95[0] > before.drop_ci95[1]:
        found.append(f"drop was {_drop(before)}, is {_drop(after)} points: the 95 % intervals do not overlap")
    return found


def _drop(result: RecordedResult | None) -> str:
    return cells.MISSING if result is None or result.drop_points is None else cells.signed(result.drop_points)


def _texts(change: Change, arrow: str) -> list[str]:
    a, b = change.before, change.after

    def pair(one: str, other: str) -> str:
        if a is None or b is None:
            return other if a is None else one
        return one if one == other else f"{one} {arrow} {other}"

    status = pair(str(a.status) if a else "", str(b.status) if b else "")
    status += " (new)" if a is None else " (missing)" if b is None else ""
    return [
        cells.clean(change.id),
        status,
        pair(
            cells.kilobytes(a.download_bytes if a else None), cells.kilobytes(b.download_bytes if b else None)
        ),
        pair(cells.kilobytes(a.size_bytes if a else None), cells.kilobytes(b.size_bytes if b else None)),
        pair(_value(a), _value(b)),
        pair(_drop(a), _drop(b)),
        pair(cells.significant(a.p50_ms if a else None), cells.significant(b.p50_ms if b else None)),
        cells.ratio(change.latency_ratio),
    ]


def _value(result: RecordedResult | None) -> str:
    return cells.MISSING if result is None or result.metric_value is None else f"{result.metric_value:.4f}"


def _figures(result: RecordedResult) -> dict[str, object]:
    interval = result.drop_ci95
    return {
        "status": str(result.status),
        "download_bytes": result.download_bytes,
        "size_bytes": result.size_bytes,
        "metric": result.metric_name,
        "value": result.metric_value,
        "drop_points": result.drop_points,
        "drop_ci95": None if interval is None else list(interval),
        "p50_ms": result.p50_ms,
        "latency_valid": result.is_timing_valid,
        "memory_bytes": result.memory_bytes,
        "budget_pass": result.is_within_budget,
    }
