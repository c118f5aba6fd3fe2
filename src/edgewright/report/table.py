"""The table of a build for terminals, pipes and notebooks; it fits the width by leaving columns out."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright.core.result import Result, Status, Summary
from edgewright.report import cells

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {
    Status.OK: "green",
    Status.INTERPRETED: "cyan",
    Status.CONVERTED: "bright_black",
    Status.DEGRADED: "yellow",
    Status.FAILED: "red",
    Status.UNAVAILABLE: "bright_black",
}
_MAX_REASON_CHARACTERS = 400
_MAX_WARNINGS = 12
_KEEP = 0  # never left out


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column; `order` says when it is left out on a narrow terminal: 1 first, `_KEEP` never."""

    heading: str
    cell: Callable[[Result], str]
    order: int = _KEEP
    is_number: bool = True
    is_full: bool = True  # the short form of a full column takes its place when that is left out


def columns_of(summary: Summary) -> list[Column]:
    """Return the columns of `summary`, each with one unit, left to right."""
    unit = "pts" if any(r.metric is not None for r in summary.results) else ""

    def p(name: str) -> Callable[[Result], str]:
        return lambda r: cells.milliseconds(
            r.latency_ms, None if r.latency_ms is None else float(getattr(r.latency_ms, name))
        )

    columns = [
        Column(heading="runtime", cell=lambda r: cells.shorten(r.target.runtime, 24), is_number=False),
        Column(heading="prec.", cell=lambda r: str(r.target.precision), is_number=False),
        Column(heading="thr.", cell=lambda r: str(r.target.threads)),
        Column(heading="status", cell=lambda r: str(r.status), is_number=False),
        Column(heading=".ewz\nkB", cell=lambda r: cells.kilobytes(r.download_bytes), order=6),
        Column(heading="disk\nkB", cell=lambda r: cells.kilobytes(r.size_bytes), order=9),
        Column(heading=cells.shorten(cells.quality_name(summary.results), 12), cell=cells.quality, order=8),
    ]
    if unit:
        short = Column(
            heading=f"drop\n{unit}",
            cell=lambda r: cells.drop(r.metric, with_interval=False),
            order=10,
            is_full=False,
        )
        full = Column(heading=f"drop, {unit}\n[95 % interval]", cell=lambda r: cells.drop(r.metric), order=4)
        columns += [full, short]
    return [
        *columns,
        Column(heading="p50\nms", cell=p("p50")),
        Column(heading="p95\nms", cell=p("p95"), order=3),
        Column(heading="p99\nms", cell=p("p99"), order=1),
        Column(heading="vs\nfp32", cell=lambda r: cells.ratio(r.speed_up), order=7),
        Column(heading="RAM\nMB", cell=lambda r: cells.megabytes(r.memory_bytes), order=5),
        Column(heading="budget", cell=lambda r: cells.budget(r, summary), order=2, is_number=False),
    ]


def render_table(summary: Summary, console: Console) -> None:
    """Print the table, the recommendation and why, every reason that a row is not ok, and the warnings."""
    from rich.table import Table
    from rich.text import Text

    marks = _Marks.of(console.encoding)
    columns, gap = _fitting(summary, console.width)
    table = Table(
        box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold", collapse_padding=True
    )
    table.add_column("", no_wrap=True, width=1)
    for column in columns:
        table.add_column(
            Text(column.heading, justify="right" if column.is_number else "left"),
            justify="right" if column.is_number else "left",
            no_wrap=True,
            vertical="bottom",
            overflow="ellipsis",
        )
    for result in summary.results:
        is_best = result.id == summary.recommended
        row: list[Text] = [Text(marks.of_result(result, summary), style="bold yellow" if is_best else "")]
        for column in columns:
            style = STYLES[result.status] if column.heading == "status" else "bold" if is_best else ""
            row.append(Text(column.cell(result), style=style))
        table.add_row(*row)
    console.print(table, highlight=False)
    for line, style in _lines(summary, marks):
        console.print(Text(line, style=style), highlight=False)


def to_text(summary: Summary, width: int = 120) -> str:
    """Return what `render_table` prints, as plain text of at most `width` columns."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    render_table(summary, console)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def to_html_table(summary: Summary) -> str:
    """Return the table and the lines below it as an HTML fragment; everything is escaped, nothing is loaded."""
    marks = _Marks.of("utf-8")
    columns = [column for column in columns_of(summary) if column.is_full]
    head = "".join(
        f'<th style="text-align:{_side(column)}">{html.escape(column.heading).replace(chr(10), "<br>")}</th>'
        for column in columns
    )
    rows = []
    for result in summary.results:
        weight = ' style="font-weight:600"' if result.id == summary.recommended else ""
        data = "".join(
            f'<td style="text-align:{_side(column)};font-variant-numeric:tabular-nums;white-space:nowrap">'
            f"{html.escape(column.cell(result))}</td>"
            for column in columns
        )
        rows.append(f"<tr{weight}><td>{marks.of_result(result, summary)}</td>{data}</tr>")
    lines = "".join(f"<div>{html.escape(line)}</div>" for line, _ in _lines(summary, marks) if line)
    return (
        f"<div><table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f'<div style="font-size:90%">{lines}</div></div>'
    )


def _side(column: Column) -> str:
    return "right" if column.is_number else "left"


@dataclass(frozen=True)
class _Marks:
    recommended: str
    pareto: str

    @staticmethod
    def of(encoding: str) -> _Marks:
        """Return the star and the diamond where the stream can write them."""
        is_unicode = encoding.lower().replace("-", "").startswith("utf")
        return _Marks("★", "◇") if is_unicode else _Marks("*", "+")

    def of_result(self, result: Result, summary: Summary) -> str:
        if result.id == summary.recommended:
            return self.recommended
        return self.pareto if result.id in summary.pareto else " "


def _fitting(summary: Summary, width: int) -> tuple[list[Column], int]:
    """Return the columns that fit `width`, and the gap between them (2 where there is room, else 1)."""
    every = columns_of(summary)
    widths = {
        id(column): max(
            [len(line) for line in column.heading.split("\n")]
            + [_cells(column.cell(r)) for r in summary.results]
        )
        for column in every
    }
    left_out: set[int] = set()
    while True:
        full = not any(not c.is_full for c in every) or not any(
            c.order in left_out and "[" in c.heading for c in every
        )
        columns = [c for c in every if c.order not in left_out and (c.is_full or not full)]
        needed = 1 + sum(widths[id(c)] for c in columns)
        for gap in (2, 1):
            if needed + gap * len(columns) <= width:
                return columns, gap
        candidates = [c.order for c in columns if c.order != _KEEP]
        if not candidates:
            return columns, 1
        left_out.add(min(candidates))


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _lines(summary: Summary, marks: _Marks) -> list[tuple[str, str]]:
    """Return (line, style) of what stands below the table."""
    star = f"{marks.recommended} " if summary.recommended else ""
    lines = [("", ""), (f"{star}{cells.clean(summary.why)}", "bold")]
    if any(name != summary.recommended for name in summary.pareto):
        lines.append((f"{marks.pareto} also on the Pareto front of drop, p50 latency and size", ""))
    for why, ids in cells.timing_remarks(summary.results):
        lines.append((f"! latency not valid: {_ids(ids)}: {cells.shorten(why, _MAX_REASON_CHARACTERS)}", ""))
    found = cells.reasons(summary.results)
    if found:
        lines.append(("", ""))
    for status, reason, ids in found:
        text = f"{status}: {_ids(ids)}: {cells.shorten(reason, _MAX_REASON_CHARACTERS)}"
        lines.append((text, STYLES[status]))
    if summary.warnings:
        lines.append(("", ""))
    for warning in summary.warnings[:_MAX_WARNINGS]:
        lines.append((f"warning: {cells.shorten(warning, _MAX_REASON_CHARACTERS)}", ""))
    if len(summary.warnings) > _MAX_WARNINGS:
        lines.append((f"... and {len(summary.warnings) - _MAX_WARNINGS} more warnings in results.json", ""))
    return lines


def _ids(ids: Sequence[str]) -> str:
    return ", ".join(cells.clean(name) for name in ids)
