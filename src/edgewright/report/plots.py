"""The plots of the report as plotly figures in plain JSON: no plotly code runs here, so they cost milliseconds.

A runtime has one colour and a precision one marker, the same in every plot. The colours follow Okabe and
Ito, which people with any colour vision tell apart; a hollow marker is a run with more threads than the fewest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.core.result import Result, Status, Summary
from edgewright.report import cells

_KNOWN_COLOURS = {
    "litert": "#1F83C9",
    "onnxruntime": "#D55E00",
    "openvino": "#009E73",
    "reference": "#888888",
}
_OTHER_COLOURS = (
    "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7B4FBF", "#B8A300", "#4C5B6B", "#E377C2", "#66A61E", "#A6761D",
)  # fmt: skip
_SYMBOLS = {
    "fp32": "circle",
    "fp16": "square",
    "w8": "diamond",
    "w8a8": "triangle-up",
    "w4a8": "triangle-down",
}
_LOG_FROM_RATIO = 8.0
_ROW_PX = 20
_FRAME_PX = 74

Json = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One figure: `data` and `layout` as plotly.js takes them, and the sentence below the heading."""

    key: str
    title: str
    caption: str
    height_px: int
    data: list[Json]
    layout: Json


@dataclass(frozen=True)
class Legend:
    """Colour per runtime, marker per precision, and the number of threads that is drawn solid."""

    colours: Mapping[str, str]
    symbols: Mapping[str, str]
    solid_threads: int

    @staticmethod
    def of(results: Sequence[Result]) -> Legend:
        """Return the legend of `results`; runtimes that are not ours take the other colours in order."""
        runtimes = list(dict.fromkeys(r.target.runtime for r in results))
        others = [name for name in runtimes if name not in _KNOWN_COLOURS]
        spare = {name: _OTHER_COLOURS[i % len(_OTHER_COLOURS)] for i, name in enumerate(others)}
        colours = {name: _KNOWN_COLOURS.get(name) or spare[name] for name in runtimes}
        precisions = list(dict.fromkeys(str(r.target.precision) for r in results))
        return Legend(
            colours,
            {name: _SYMBOLS.get(name, "cross") for name in precisions},
            min((r.target.threads for r in results), default=1),
        )

    def marker(self, result: Result, size: int = 10) -> Json:
        """Return the plotly marker of `result`."""
        colour = self.colours[result.target.runtime]
        hollow = "-open" if result.target.threads > self.solid_threads else ""
        symbol = self.symbols[str(result.target.precision)] + hollow
        return {
            "color": colour,
            "symbol": symbol,
            "size": size,
            "line": {"width": 2 if hollow else 0, "color": colour},
        }


def plots_of(summary: Summary) -> list[Plot]:
    """Return every plot for which `summary` holds figures."""
    legend = Legend.of(summary.results)
    made = (
        _tradeoff(summary, legend),
        _latency(summary, legend),
        _drops(summary, legend),
        _sizes(summary, legend),
    )
    return [plot for plot in made if plot is not None]


def _label(result: Result) -> str:
    """Return the id for plotly, which reads a little HTML in labels: angle brackets and ampersands are replaced."""
    return _plain(result.id)


def _plain(text: str) -> str:
    text = cells.shorten(text, 32)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _axis(title: str) -> Json:
    return {"title": {"text": title}, "automargin": True, "zeroline": False}


def _latency_axis(title: str, values: Sequence[float]) -> Json:
    """Return a logarithmic axis for values that span more than a factor of 8, else a linear one."""
    axis = _axis(title)
    if values and min(values) > 0 and max(values) / min(values) > _LOG_FROM_RATIO:
        ticks = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)]
        shown = [t for t in ticks if 0.5 * min(values) <= t <= 2 * max(values)]
        axis |= {"type": "log", "tickmode": "array", "tickvals": shown, "ticktext": [f"{t:g}" for t in shown]}
        axis["title"] = {"text": f"{title}, logarithmic"}
    return axis


def _rows_axis(labels: Sequence[str]) -> Json:
    return {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": list(reversed(labels)),
        "automargin": True,
        "tickmode": "array",
        "tickvals": list(labels),
        "range": [-0.6, len(labels) - 0.4],
        "showgrid": False,
    }


def _has_metric(results: Sequence[Result]) -> bool:
    return any(r.metric is not None for r in results)


def _tradeoff(summary: Summary, legend: Legend) -> Plot | None:
    has_metric = _has_metric(summary.results)
    data: list[Json] = []
    points: list[tuple[float, float, str]] = []
    for result in summary.results:
        value = _quality(result, has_metric)
        if value is None or result.latency_ms is None:
            continue
        latency = result.latency_ms
        is_best, is_front = result.id == summary.recommended, result.id in summary.pareto
        marker = legend.marker(result, 13 if is_best else 10)
        if not latency.valid:
            marker["opacity"] = 0.45
        trace: Json = {
            "type": "scatter",
            "mode": "markers",
            "x": [latency.p50],
            "y": [value],
            "marker": marker,
            "showlegend": False,
            "hovertext": [
                f"{_label(result)}<br>p50 {cells.significant(latency.p50)} ms"
                f"<br>{_plain(cells.quality_name(summary.results))} {value:.4f}"
                + ("<br>recommended" if is_best else "<br>on the Pareto front" if is_front else "")
                + ("" if latency.valid else "<br>latency not valid")
            ],
            "hoverinfo": "text",
        }
        if latency.p50_ci95 is not None:
            low, high = latency.p50_ci95
            trace["error_x"] = _error(latency.p50 - low, high - latency.p50)
        if result.metric is not None and result.metric.drop_ci95 is not None:
            drop_low, drop_high = result.metric.drop_ci95
            drop_points = result.metric.drop_points
            # Metric per point of drop: negative where a larger value is better, so bounds change sides.
            slope = (value - result.metric.source) / drop_points if drop_points else 0.0
            if slope:
                ends = sorted((slope * (drop_low - drop_points), slope * (drop_high - drop_points)))
                trace["error_y"] = _error(ends[0], ends[1])
        data.append(trace)
        if is_front:
            points.append((latency.p50, value, result.id))
        if is_best:
            data.append(_ring(latency.p50, value))
    if not data:
        return None
    data = _front_line(points) + data
    name = _plain(cells.quality_name(summary.results))
    layout: Json = {
        "xaxis": _latency_axis(
            "p50 latency, ms", [r.latency_ms.p50 for r in summary.results if r.latency_ms]
        ),
        "yaxis": _axis(name if has_metric else "cosine to the source's outputs"),
    }
    source = next((r.metric.source for r in summary.results if r.metric is not None), None)
    if source is not None:
        layout["shapes"] = [_line("y", source, "dash")]
        layout["annotations"] = [
            {"xref": "paper", "x": 1, "y": source, "text": f"source {source:.4f}", "showarrow": False}
            | {"xanchor": "right", "yanchor": "bottom"}
        ]
    what = "The metric" if has_metric else "Agreement with the source (no metric was given)"
    return Plot(
        key="tradeoff",
        title="Accuracy against latency" if has_metric else "Fidelity against latency",
        caption=f"{what} against the median latency; bars are 95 % intervals, faint points were not timed validly. "
        "The dotted line joins the Pareto front (which also weighs size, so it may bend back); "
        "the ring is the recommended row.",
        height_px=420,
        data=data,
        layout=layout,
    )


def _quality(result: Result, has_metric: bool) -> float | None:
    if has_metric:
        return None if result.metric is None else result.metric.value
    return None if result.parity is None else result.parity.cosine


def _error(below: float, above: float) -> Json:
    return {
        "type": "data",
        "symmetric": False,
        "array": [abs(above)],
        "arrayminus": [abs(below)],
        "thickness": 1,
        "width": 3,
    }


def _ring(x: float, y: float) -> Json:
    marker = {
        "symbol": "circle-open",
        "size": 22,
        "color": "#E69F00",
        "line": {"width": 2, "color": "#E69F00"},
    }
    return {"type": "scatter", "mode": "markers", "x": [x], "y": [y], "marker": marker, "hoverinfo": "skip"}


def _front_line(points: Sequence[tuple[float, float, str]]) -> list[Json]:
    if len(points) < 2:
        return []
    ordered = sorted(points)
    line = {"dash": "dot", "width": 1.5, "color": "#888888"}
    x, y = [p[0] for p in ordered], [p[1] for p in ordered]
    return [{"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip"}]


def _line(axis: str, value: float, dash: str) -> Json:
    other = "x" if axis == "y" else "y"
    return {
        "type": "line",
        f"{axis}0": value,
        f"{axis}1": value,
        f"{other}ref": "paper",
        f"{other}0": 0,
        f"{other}1": 1,
        "line": {"dash": dash, "width": 1.2, "color": "#888888"},
    }


def _latency(summary: Summary, legend: Legend) -> Plot | None:
    timed = [r for r in summary.results if len(r.latency_samples_ms) > 1 and r.latency_ms is not None]
    if not timed:
        return None
    data: list[Json] = []
    ends: list[float] = []
    for result in timed:
        low, q1, median, q3, high = (
            float(v) for v in np.percentile(np.asarray(result.latency_samples_ms), [1, 25, 50, 75, 99])
        )
        ends += [low, high]
        colour = legend.colours[result.target.runtime]
        is_valid = result.latency_ms is not None and result.latency_ms.valid
        data.append(
            {
                "type": "box",
                "orientation": "h",
                "y": [_label(result)],
                "q1": [q1],
                "median": [median],
                "q3": [q3],
                "lowerfence": [low],
                "upperfence": [high],
                "name": _label(result),
                "line": {"color": colour, "width": 1.3},
                "opacity": 1.0 if is_valid else 0.45,
                "width": 0.62,
                "showlegend": False,
            }
        )
    layout: Json = {
        "xaxis": _latency_axis("latency, ms", ends),
        "yaxis": _rows_axis([_label(r) for r in timed]),
    }
    return Plot(
        key="latency",
        title="Latency distributions",
        caption="Box: quartiles and median; whiskers: 1st to 99th percentile of single inferences. "
        "Faint boxes were not timed validly.",
        height_px=_FRAME_PX + _ROW_PX * len(timed),
        data=data,
        layout=layout,
    )


def _drops(summary: Summary, legend: Legend) -> Plot | None:
    rows = [r for r in summary.results if r.metric is not None]
    if not rows:
        return None
    data: list[Json] = []
    for result in rows:
        assert result.metric is not None
        trace: Json = {
            "type": "scatter",
            "mode": "markers",
            "x": [result.metric.drop_points],
            "y": [_label(result)],
            "marker": legend.marker(result, 9),
            "hovertext": [f"{_label(result)}<br>drop {cells.drop(result.metric)}"],
            "hoverinfo": "text",
        }
        if result.metric.drop_ci95 is not None:
            low, high = result.metric.drop_ci95
            trace["error_x"] = _error(result.metric.drop_points - low, high - result.metric.drop_points)
        data.append(trace)
    shapes = [_line("x", 0.0, "solid")]
    annotations: list[Json] = []
    budget = summary.conditions.get("budget")
    limit = budget.get("drop_points") if isinstance(budget, Mapping) else None
    if isinstance(limit, int | float):
        shapes.append(_line("x", float(limit), "dash"))
        annotations.append(
            {"yref": "paper", "y": 1, "x": float(limit), "text": f"budget {limit:g}", "showarrow": False}
            | {"xanchor": "left", "yanchor": "bottom"}
        )
    return Plot(
        key="drop",
        title="Drop against the source",
        caption="Loss in points, paired per sample, with its 95 % interval; right of zero is worse than the source.",
        height_px=_FRAME_PX + _ROW_PX * len(rows),
        data=data,
        layout={
            "xaxis": _axis("drop, points"),
            "yaxis": _rows_axis([_label(r) for r in rows]),
            "shapes": shapes,
            "annotations": annotations,
        },
    )


def _sizes(summary: Summary, legend: Legend) -> Plot | None:
    first: dict[str, Result] = {}
    for result in summary.results:
        if result.size_bytes is not None and result.status is not Status.FAILED:
            first.setdefault(result.target.artifact_id, result)
    if not first:
        return None
    labels = [_plain(name) for name in first]
    sizes = [(r.size_bytes or 0) / 1e3 for r in first.values()]
    trace: Json = {
        "type": "bar",
        "orientation": "h",
        "x": sizes,
        "y": labels,
        "marker": {"color": [legend.colours[r.target.runtime] for r in first.values()]},
        "text": [f"{cells.significant(size)} kB" for size in sizes],
        "textposition": "outside",
        "cliponaxis": False,
        "textfont": {"size": 11},
        "hoverinfo": "x+y",
        "width": 0.68,
    }
    return Plot(
        key="size",
        title="Size",
        caption="Bytes of the artifact on disk; it is the same for every number of threads.",
        height_px=_FRAME_PX + _ROW_PX * len(first),
        data=[trace],
        layout={"xaxis": {**_axis("size, kB"), "range": [0, 1.2 * max(sizes)]}, "yaxis": _rows_axis(labels)},
    )
