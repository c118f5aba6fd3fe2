"""The page of a compression: one file that holds everything it shows, loads nothing, and escapes every name."""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.core.compression import CompressionSummary, Row, StepRecord
from edgewright.report import cells
from edgewright.report.compression import Column, columns_of, facts_text
from edgewright.report.compression_plots import colours_of, plots_of
from edgewright.report.page import (
    embedded,
    environment,
    figure_record,
    own_script,
    pairs_of,
    plotly_source,
    policy,
)

_MAX_ROWS = 200


@dataclass(frozen=True)
class PageTable:
    """A table of a pass: its title, column headings, rows of (text, is number), and how many rows are left out."""

    title: str
    head: list[str]
    rows: list[list[tuple[str, bool]]]
    left_out: int


def render(summary: CompressionSummary) -> str:
    """Return the page as text."""
    plots = plots_of(summary)
    plotly = plotly_source() if plots else ""
    script = own_script()
    results = [row.result for row in summary.rows]
    template = environment().get_template("compression.html.j2")
    return template.render(
        summary=summary,
        head=[(column.heading.replace("\n", " "), column.is_number) for column in _columns(summary)],
        groups=_groups(summary),
        facts={step.id: facts_text(step) for step in summary.steps},
        tables={step.id: tables_of(step) for step in summary.steps},
        options={step.id: _options(step) for step in summary.steps},
        best=_best(summary),
        reasons=cells.reasons(results),
        remarks=cells.timing_remarks(results),
        plots=plots,
        colours=colours_of(summary),
        figures=embedded({plot.key: figure_record(plot) for plot in plots}),
        source=pairs_of(summary.source),
        conditions=pairs_of(summary.conditions),
        plotly=plotly,
        script=script,
        policy=policy([plotly, script] if plots else [script]),
    )


def to_html_table(summary: CompressionSummary) -> str:
    """Return the table as an HTML fragment for notebooks; everything is escaped, nothing is loaded."""
    template = environment().get_template("compression_table.html.j2")
    head = [(column.heading.replace("\n", " "), column.is_number) for column in _columns(summary)]
    return template.render(summary=summary, head=head, groups=_groups(summary))


def tables_of(step: StepRecord) -> list[PageTable]:
    """Return the tables of a step; of very long ones the first rows."""
    made = []
    for title, rows in step.tables.items():
        head = list(dict.fromkeys(name for row in rows for name in row))
        shown = [
            [(_text(row.get(name, "")), isinstance(row.get(name), int | float)) for name in head]
            for row in rows[:_MAX_ROWS]
        ]
        made.append(PageTable(title, head, shown, max(0, len(rows) - _MAX_ROWS)))
    return made


def _columns(summary: CompressionSummary) -> list[Column]:
    return [column for column in columns_of(summary) if not column.is_short]


def _groups(summary: CompressionSummary) -> list[tuple[StepRecord, list[tuple[Row, list[tuple[str, bool]]]]]]:
    """Return per step its rows of (text, is number); what is said of the step alone stands in the first row."""
    columns = _columns(summary)
    groups = []
    for step in summary.steps:
        rows = []
        for index, row in enumerate(summary.rows_of(step.id)):
            texts = [
                (column.cell(step, row) if index == 0 or not column.of_step else "", column.is_number)
                for column in columns
            ]
            rows.append((row, texts))
        groups.append((step, rows))
    return groups


def _options(step: StepRecord) -> str:
    return ", ".join(f"{name} = {_text(value)}" for name, value in step.options.items())


@dataclass(frozen=True)
class Best:
    """The last step on one runtime beside the original: how many times smaller to download and faster, and the drop."""

    runtime: str
    smaller: str
    faster: str
    drop: str


def _best(summary: CompressionSummary) -> list[Best]:
    first = {row.runtime: row for row in summary.rows_of(summary.steps[0].id)}
    found = []
    for row in summary.rows_of(summary.steps[-1].id):
        before = first[row.runtime].download_bytes
        if row.download_bytes and before:
            smaller = cells.ratio(before / row.download_bytes)
            faster = cells.ratio(row.result.speed_up)
            found.append(Best(row.runtime, smaller, faster, cells.drop(row.result.metric)))
    return found


def _text(value: object) -> str:
    if isinstance(value, float):
        return cells.significant(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)
