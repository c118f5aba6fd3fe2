"""The plots of the report as plotly figures: plain dictionaries, so that nothing heavy is imported to make them.

Runtime is colour and precision is marker, in every plot. The colours are those of Okabe and Ito (2008), which
people with colour blindness can tell apart; they are readable on light and on dark ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.core.result import Result, Status, Summary
from edgewright.report.cells import significant

Figure = dict[str, object]

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
_MARKERS = {"fp32": "circle", "fp16": "diamond", "w8": "square", "w8a8": "triangle-up"}
_SHOWN_LAYERS = 12
_MAX_SAMPLES = 2000
_ROW_PX = 26


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One figure with what it shows and what it cannot show."""

    id: str
    title: str
    caption: str
    figure: Figure | None


def plots(summary: Summary) -> list[Plot]:
    """Return the plots of `summary`, in the order of the page; a figure is None where nothing was measured."""
    return [_trade_off(summary), _latencies(summary), _drops(summary), _sizes(summary), *_layers(summary)]


def _colour(runtime: str, summary: Summary) -> str:
    runtimes = sorted({result.target.runtime for result in summary.results})
    return _COLOURS[runtimes.index(runtime) % len(_COLOURS)]


def _marker(result: Result, summary: Summary) -> Figure:
    is_best = result.id == summary.recommended
    symbol = _MARKERS.get(str(result.target.precision), "x")
    is_single = result.target.threads == min(r.target.threads for r in summary.results)
    return {
        "color": _colour(result.target.runtime, summary),
        "symbol": symbol if is_single else f"{symbol}-open",
        "size": 17 if is_best else 10,
        "line": {"width": 2 if is_best or not is_single else 0, "color": _colour(result.target.runtime, summary)},
    }


def _trade_off(summary: Summary) -> Plot:
    has_metric = any(result.metric for result in summary.results)
    points = [(r, _quality(r)) for r in summary.results if r.latency_ms is not None]
    shown = [(r, quality) for r, quality in points if quality is not None]
    name = next((r.metric.name for r, _ in shown if r.metric), "cosine to the source")
    caption = (
        "Up and to the left is better. Colour is the runtime, shape the precision, hollow is more threads, large is recommended; "
        "the dashed line joins the Pareto front" + (", the dotted one is the source." if has_metric else ".")
    )
    if not shown:
        return Plot(id="trade-off", title="Accuracy against latency", caption="Nothing was measured.", figure=None)
    traces: list[object] = []
    front = sorted(
        (r.latency_ms.p50, quality) for r, quality in shown if r.id in summary.pareto and r.latency_ms is not None
    )
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "x": [x for x, _ in front],
            "y": [y for _, y in front],
            "line": {"dash": "dash", "width": 1, "color": "#888888"},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    )
    for result, quality in shown:
        assert result.latency_ms is not None
        size = f"{result.size_bytes / 1e3:,.0f} kB" if result.size_bytes else ""
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [result.latency_ms.p50],
                "y": [quality],
                "name": result.id,
                "marker": _marker(result, summary),
                "opacity": 1.0 if result.status is Status.OK else 0.4,
                "hovertemplate": f"{_plain(result.id)}<br>p50 {significant(result.latency_ms.p50)} ms<br>"
                f"{_plain(name)} {quality:.5g}<br>{size}<br>{result.status}<extra></extra>",
                "showlegend": False,
            }
        )
    layout: Figure = {
        "xaxis": {"title": {"text": "p50 latency, ms (log)"}, "type": "log"},
        "yaxis": {"title": {"text": _plain(name)}},
        "height": 420,
    }
    if has_metric:
        source = next(r.metric.source for r, _ in shown if r.metric)
        layout["shapes"] = [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": source,
                "y1": source,
                "line": {"dash": "dot", "width": 1, "color": "#888888"},
            }
        ]
    return Plot(
        id="trade-off", title="Accuracy against latency", caption=caption, figure={"data": traces, "layout": layout}
    )


def _quality(result: Result) -> float | None:
    if result.metric is not None:
        return result.metric.value
    return result.parity.cosine if result.parity is not None else None


def _latencies(summary: Summary) -> Plot:
    timed = [r for r in summary.results if r.latency_samples_ms]
    traces: list[object] = [
        {
            "type": "box",
            "x": _thinned(r.latency_samples_ms),
            "name": r.id,
            "orientation": "h",
            "boxpoints": False,
            "line": {"width": 1, "color": _colour(r.target.runtime, summary)},
            "showlegend": False,
        }
        for r in reversed(timed)
    ]
    layout: Figure = {
        "xaxis": {"title": {"text": "latency of one inference, ms (log)"}, "type": "log"},
        "yaxis": {"automargin": True},
        "height": 90 + _ROW_PX * max(len(timed), 1),
    }
    caption = (
        "Boxes are quartiles, whiskers reach 1.5 box lengths. All targets took turns in one run: these may be compared "
        "with each other, not with another build's."
    )
    figure = {"data": traces, "layout": layout} if timed else None
    return Plot(id="latencies", title="Latency distributions", caption=caption if timed else "Not measured.", figure=figure)


def _thinned(samples: Sequence[float]) -> list[float]:
    """Return at most 2,000 samples with the same quantiles: the sorted ones at equal ranks."""
    ordered = sorted(samples)
    if len(ordered) <= _MAX_SAMPLES:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (_MAX_SAMPLES - 1))] for i in range(_MAX_SAMPLES)]


def _drops(summary: Summary) -> Plot:
    seen: dict[str, Result] = {}
    for result in summary.results:
        if result.metric is not None and result.metric.drop_ci95 is not None:
            seen.setdefault(result.target.artifact_id, result)
    if not seen:
        return Plot(id="drops", title="Drop against the source", caption="No metric was measured.", figure=None)
    traces: list[object] = []
    for name, result in reversed(seen.items()):
        assert result.metric is not None
        assert result.metric.drop_ci95 is not None
        low, high = result.metric.drop_ci95
        drop = result.metric.drop_points
        marker = _marker(result, summary) | {"size": 10}
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [drop],
                "y": [name],
                "error_x": {"type": "data", "symmetric": False, "array": [high - drop], "arrayminus": [drop - low]},
                "marker": marker,
                "showlegend": False,
                "hovertemplate": f"{_plain(name)}: {drop:+.3f} [{low:+.3f}, {high:+.3f}]<extra></extra>",
            }
        )
    first = next(iter(seen.values())).metric
    assert first is not None
    layout: Figure = {
        "xaxis": {"title": {"text": "drop, points (right is worse)"}, "zeroline": True},
        "yaxis": {"automargin": True},
        "height": 90 + _ROW_PX * len(seen),
    }
    caption = f"95 % interval, paired over {first.n:,} samples. An interval that holds 0 proves no difference."
    return Plot(id="drops", title="Drop against the source", caption=caption, figure={"data": traces, "layout": layout})


def _sizes(summary: Summary) -> Plot:
    seen: dict[str, Result] = {}
    for result in summary.results:
        if result.size_bytes is not None:
            seen.setdefault(result.target.artifact_id, result)
    rows = list(reversed(seen.items()))
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [r.size_bytes / 1e3 for _, r in rows if r.size_bytes is not None],
        "y": [name for name, _ in rows],
        "marker": {"color": [_colour(r.target.runtime, summary) for _, r in rows]},
        "hovertemplate": "%{y}: %{x:,.0f} kB<extra></extra>",
    }
    layout: Figure = {
        "xaxis": {"title": {"text": "bytes on disk, kB"}},
        "yaxis": {"automargin": True},
        "height": 90 + _ROW_PX * max(len(rows), 1),
    }
    figure = {"data": [trace], "layout": layout} if rows else None
    return Plot(id="sizes", title="Size", caption="All files of each artifact." if rows else "No artifact.", figure=figure)


def _layers(summary: Summary) -> list[Plot]:
    found = []
    silent = set()
    for result in summary.results:
        if result.latency_ms is None:
            continue
        if not result.layers:
            silent.add(result.target.runtime)
            continue
        costly = sorted(result.layers, key=lambda layer: -layer.time_us)[:_SHOWN_LAYERS]
        total = sum(layer.time_us for layer in result.layers) or 1.0
        rows = list(reversed(costly))
        trace = {
            "type": "bar",
            "orientation": "h",
            "x": [layer.time_us for layer in rows],
            "y": [_label(layer.name, layer.operator, index) for index, layer in enumerate(rows)],
            "marker": {"color": _colour(result.target.runtime, summary)},
            "text": [f"{100 * layer.time_us / total:.0f} %" for layer in rows],
            "hovertext": [_plain(f"{layer.name} ({layer.operator}) {layer.implementation}") for layer in rows],
            "hovertemplate": "%{hovertext}: %{x:.3g} µs<extra></extra>",
        }
        layout: Figure = {
            "xaxis": {"title": {"text": "µs of one inference, profiler on"}},
            "yaxis": {"automargin": True},
            "height": 90 + _ROW_PX * len(rows),
        }
        found.append(
            Plot(
                id=f"layers-{len(found)}",
                title=result.id,
                caption=f"{len(rows)} of {len(result.layers)} layers.",
                figure={"data": [trace], "layout": layout},
            )
        )
        silent.discard(result.target.runtime)
    profiled = {r.target.runtime for r in summary.results if r.layers}
    for runtime in sorted(silent - profiled):
        found.append(
            Plot(id=f"layers-{len(found)}", title=runtime, caption="This runtime has no profiler in Python.", figure=None)
        )
    return found


def _label(name: str, operator: str, index: int) -> str:
    short = name if len(name) <= 28 else f"…{name[-27:]}"
    return _plain(f"{short} · {operator}") + "\u200b" * index  # plotly adds up bars of equal names


def _plain(text: str) -> str:
    """Return `text` without what plotly would read as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")
