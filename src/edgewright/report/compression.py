"""A compression for people and programs: the table of all steps, results.json with its evidence, and the page."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.compression import CompressionSummary, Row, StepRecord
from edgewright.core.files import write_json, write_text
from edgewright.report import cells
from edgewright.report.records import RESULTS_NAME, write_evidence
from edgewright.report.table import STYLES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MAX_CHARACTERS = 400
_MAX_NOTES = 12
_SHOWN_FACTS = 8
_KEEP = 0  # never left out


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column; `order` says when it is left out on a narrow terminal: 1 first, `_KEEP` never.

    Attributes:
        of_step: it says the same for every runtime, and stands in the first row of a step alone.
    """

    heading: str
    cell: Callable[[StepRecord, Row], str]
    order: int = _KEEP
    of_step: bool = False
    is_number: bool = True
    is_short: bool = False  # stands where the full column was left out


def columns_of(summary: CompressionSummary) -> list[Column]:
    """Return the columns, each with one unit: of the model, of what it answers, of each runtime's file."""
    results = [row.result for row in summary.rows]
    columns = [
        Column(heading="step", cell=lambda s, r: cells.shorten(s.id, 24), of_step=True, is_number=False),
        Column(heading="MACs\nM", cell=lambda s, r: _millions(s.macs), of_step=True, order=6),
        Column(heading="param.\nk", cell=lambda s, r: _thousands(s.parameters), of_step=True, order=7),
        Column(heading="zeros\n%", cell=lambda s, r: _percent(s.sparsity), of_step=True, order=3),
        Column(heading="runtime", cell=lambda s, r: cells.shorten(r.runtime, 20), is_number=False),
        Column(heading="prec.", cell=lambda s, r: str(r.result.target.precision), order=4, is_number=False),
        Column(heading="status", cell=lambda s, r: str(r.result.status), is_number=False),
        Column(
            heading=cells.shorten(cells.quality_name(results), 12), cell=lambda s, r: cells.quality(r.result)
        ),
    ]
    if any(result.metric is not None for result in results):
        columns += [
            Column(
                heading="drop, pts\n[95 % interval]", cell=lambda s, r: cells.drop(r.result.metric), order=5
            ),
            Column(
                heading="drop\npts",
                cell=lambda s, r: cells.drop(r.result.metric, with_interval=False),
                order=10,
                is_short=True,
            ),
        ]
    return [
        *columns,
        Column(heading="p50\nms", cell=lambda s, r: _p50(r), order=9),
        Column(heading="speed\nx", cell=lambda s, r: cells.significant(r.result.speed_up)),
        Column(heading="download\nkB", cell=lambda s, r: _download(r)),
        Column(heading=".ewz\nkB", cell=lambda s, r: cells.kilobytes(r.result.download_bytes), order=1),
        Column(heading="disk\nkB", cell=lambda s, r: cells.kilobytes(r.result.size_bytes), order=8),
        Column(heading="RAM\nMB", cell=lambda s, r: cells.megabytes(r.result.memory_bytes), order=2),
    ]


def render_table(summary: CompressionSummary, console: Console) -> None:
    """Print the table, what each step says of itself, every reason that a row is not ok, the commands, the warnings."""
    from rich.text import Text

    console.print(_table(summary, console.width), highlight=False)
    for line, style in _lines(summary):
        console.print(Text(line, style=style), highlight=False, soft_wrap=line.startswith("  edgewright"))


def to_text(summary: CompressionSummary, width: int = 120) -> str:
    """Return what `render_table` prints, as plain text of at most `width` columns."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    render_table(summary, console)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def write_results(summary: CompressionSummary, out: Path) -> None:
    """Write `out/results.json`, and the samples behind its figures into `out/evidence`.

    Raises:
        UsageError: the folder cannot be written or the disk is full.
    """
    write_evidence([row.result for row in summary.rows], summary.conditions, out)
    write_json(out / RESULTS_NAME, summary.to_json())


def write_report(summary: CompressionSummary, path: Path) -> None:
    """Write the page of `summary` to `path`, atomically; it loads nothing.

    Raises:
        UsageError: `path` cannot be written or the disk is full.
        UnavailableError: the plotly package is not whole.
    """
    from edgewright.report.compression_page import render

    write_text(path, render(summary))


def facts_text(step: StepRecord) -> str:
    """Return the facts of a step on one line."""
    return ", ".join(
        f"{cells.clean(name)} {_fact(value)}" for name, value in list(step.facts.items())[:_SHOWN_FACTS]
    )


def _fact(value: float | int | str) -> str:
    if isinstance(value, bool | str):
        return cells.shorten(str(value), 80)
    return f"{value:,}" if isinstance(value, int) else cells.significant(value)


def _table(summary: CompressionSummary, width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    columns, gap = _fitting(summary, width)
    table = Table(
        box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold", collapse_padding=True
    )
    for column in columns:
        side = "right" if column.is_number else "left"
        table.add_column(
            Text(column.heading, justify="right" if column.is_number else "left"),
            justify="right" if side == "right" else "left",
            no_wrap=True,
            vertical="bottom",
            overflow="ellipsis",
        )
    for step in summary.steps:
        for index, row in enumerate(summary.rows_of(step.id)):
            texts = []
            for column in columns:
                style = STYLES[row.result.status] if column.heading == "status" else ""
                style = "bold" if column.heading == "step" else style
                shown = column.cell(step, row) if index == 0 or not column.of_step else ""
                texts.append(Text(shown, style=style))
            table.add_row(*texts)
    return table


def _fitting(summary: CompressionSummary, width: int) -> tuple[list[Column], int]:
    """Return the columns that fit `width`, and the gap between them (2 where there is room, else 1)."""
    every = columns_of(summary)
    steps = {step.id: step for step in summary.steps}
    widths = {
        id(column): max(
            [len(line) for line in column.heading.split("\n")]
            + [len(column.cell(steps[row.step], row)) for row in summary.rows]
        )
        for column in every
    }
    left_out: set[int] = set()
    while True:
        has_full = not any("[" in column.heading and column.order in left_out for column in every)
        columns = [c for c in every if c.order not in left_out and not (c.is_short and has_full)]
        needed = sum(widths[id(column)] for column in columns)
        for gap in (2, 1):
            if needed + gap * len(columns) <= width:
                return columns, gap
        candidates = [column.order for column in columns if column.order != _KEEP]
        if not candidates:
            return columns, 1
        left_out.add(min(candidates))


def _lines(summary: CompressionSummary) -> list[tuple[str, str]]:
    """Return (line, style) of what stands below the table."""
    lines: list[tuple[str, str]] = [("", "")]
    for step in summary.steps:
        facts, notes = facts_text(step), [cells.shorten(note, _MAX_CHARACTERS) for note in step.notes]
        if facts:
            lines.append((f"{cells.clean(step.id)}: {facts}", ""))
        lines += [(f"{cells.clean(step.id)}: {note}", "yellow") for note in notes[:_MAX_NOTES]]
    results = [row.result for row in summary.rows]
    for why, ids in cells.timing_remarks(results):
        lines.append((f"! latency not valid: {', '.join(ids)}: {cells.shorten(why, _MAX_CHARACTERS)}", ""))
    for status, reason, ids in cells.reasons(results):
        lines.append(
            (f"{status}: {', '.join(ids)}: {cells.shorten(reason, _MAX_CHARACTERS)}", STYLES[status])
        )
    for warning in summary.warnings[:_MAX_NOTES]:
        lines.append((f"warning: {cells.shorten(warning, _MAX_CHARACTERS)}", ""))
    if summary.failure:
        lines.append((f"the chain ended early: {cells.shorten(summary.failure, 2 * _MAX_CHARACTERS)}", "red"))
    if summary.commands:
        lines += [("", ""), ("Build a step's model for every runtime:", "")]
        lines += [(f"  {command}", "") for command in summary.commands.values()]
    return lines


def _millions(value: int | None) -> str:
    return cells.MISSING if value is None else cells.significant(value / 1e6)


def _thousands(value: int | None) -> str:
    return cells.MISSING if value is None else cells.significant(value / 1e3)


def _percent(share: float | None) -> str:
    return cells.MISSING if share is None else f"{100 * share:.1f}"


def _p50(row: Row) -> str:
    latency = row.result.latency_ms
    return cells.milliseconds(latency, None if latency is None else latency.p50)


def _download(row: Row) -> str:
    return cells.kilobytes(row.download_bytes)
