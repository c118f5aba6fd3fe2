"""report.html: one page that holds everything it shows, loads nothing, and escapes every name it was given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.files import write_text
from edgewright.core.result import Result, Status, Summary
from edgewright.report import cells
from edgewright.report.page import (
    embedded,
    environment,
    figure_record,
    own_script,
    pairs_of,
    plotly_source,
    policy,
)
from edgewright.report.plots import Legend, plots_of
from edgewright.report.table import columns_of

_MAX_SAMPLES = 80_000  # over all candidates: keeps the page under 6 MB; evidence/ holds every sample
_MAX_LAYERS = 12
_MARKS = {"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "cross": "✚"}


def write_report(summary: Summary, path: Path) -> None:
    """Write the page of `summary` to `path`, atomically.

    Raises:
        UsageError: `path` cannot be written or the disk is full.
        UnavailableError: the plotly package is not whole.
    """
    write_text(path, render(summary))


def render(summary: Summary) -> str:
    """Return the page as text."""
    plots = plots_of(summary)
    plotly = plotly_source() if plots else ""
    script = own_script()
    legend = Legend.of(summary.results)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            head=_head(summary),
            rows=_rows(summary),
            reasons=cells.reasons(summary.results),
            remarks=cells.timing_remarks(summary.results),
            recommended=next((r for r in summary.results if r.id == summary.recommended), None),
            counts=_counts(summary.results),
            plots=plots,
            figures=embedded({plot.key: figure_record(plot) for plot in plots}),
            legend=legend,
            marks={name: _MARKS.get(symbol, "✚") for name, symbol in legend.symbols.items()},
            layers=_layers(summary),
            samples=_samples(summary.results),
            source=pairs_of(summary.source),
            conditions=pairs_of(summary.conditions),
            plotly=plotly,
            script=script,
            policy=policy([plotly, script] if plots else [script]),
        )
    )


def _counts(results: Sequence[Result]) -> list[tuple[str, int]]:
    counts = [(str(status), sum(r.status is status for r in results)) for status in Status]
    return [(name, count) for name, count in counts if count]


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the value to sort by (empty sorts last), and whether it is a number."""

    text: str
    key: str
    is_number: bool


def _head(summary: Summary) -> list[tuple[str, bool]]:
    return [(c.heading.replace("\n", " "), c.is_number) for c in columns_of(summary) if c.is_full]


def _rows(summary: Summary) -> list[tuple[Result, list[Cell]]]:
    columns = [column for column in columns_of(summary) if column.is_full]
    rows = []
    for result in summary.results:
        texts = [(column.cell(result), column.is_number) for column in columns]
        rows.append((result, [Cell(text, _sort_key(text, number), number) for text, number in texts]))
    return rows


def _sort_key(text: str, is_number: bool) -> str:
    if not is_number:
        return text
    number = text.partition(" ")[0].rstrip("x!").replace(",", "")
    return "" if number == cells.MISSING else number


@dataclass(frozen=True)
class LayerCost:
    """One layer beside the slowest: `share` in percent of the layers' sum, `bar` in percent of the slowest."""

    name: str
    operator: str
    implementation: str
    time_us: float
    share: float
    bar: float


def _layers(summary: Summary) -> list[tuple[str, list[LayerCost], str]]:
    """Return (id, slowest layers, remark) for one candidate per runtime: the recommended one, else the fastest ok."""
    shown: list[tuple[str, list[LayerCost], str]] = []
    for runtime in dict.fromkeys(r.target.runtime for r in summary.results):
        own = [r for r in summary.results if r.target.runtime == runtime]
        profiled = [r for r in own if r.layers]
        if not profiled:
            ran = any(r.latency_ms is not None for r in own)
            why = (
                "no per-layer times: its profiler gave none"
                if ran
                else "did not run, so it has no per-layer times"
            )
            shown.append((runtime, [], why))
            continue
        best = min(profiled, key=_layer_order(summary))
        total = sum(layer.time_us for layer in best.layers) or 1.0
        slowest = sorted(best.layers, key=lambda layer: -layer.time_us)[:_MAX_LAYERS]
        top = slowest[0].time_us or 1.0
        costs = [
            LayerCost(
                x.name,
                x.operator,
                x.implementation,
                x.time_us,
                100 * x.time_us / total,
                100 * x.time_us / top,
            )
            for x in slowest
        ]
        rest = len(best.layers) - len(costs)
        remark = f"{cells.significant(total)} µs in {len(best.layers)} layers" + (
            f"; {rest} faster ones not shown" if rest else ""
        )
        shown.append((best.id, costs, remark))
    return shown


def _layer_order(summary: Summary) -> _LayerOrder:
    return _LayerOrder(summary.recommended)


@dataclass(frozen=True)
class _LayerOrder:
    recommended: str | None

    def __call__(self, result: Result) -> tuple[bool, bool, float]:
        p50 = result.latency_ms.p50 if result.latency_ms is not None else float("inf")
        return (result.id != self.recommended, result.status is not Status.OK, p50)


def _samples(results: Sequence[Result]) -> dict[str, tuple[int, str]]:
    """Return id -> (step, JSON list in ms); every step-th sample is shown where there are very many."""
    count = sum(len(r.latency_samples_ms) for r in results)
    step = max(1, -(-count // _MAX_SAMPLES))
    return {
        r.id: (
            step,
            json.dumps([float(f"{v:.4g}") for v in r.latency_samples_ms[::step]], separators=(",", ":")),
        )
        for r in results
        if r.latency_samples_ms
    }
