"""The figures of a compression: size, accuracy and latency after each step, a colour per runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgewright.core.compression import CompressionSummary, Row
from edgewright.report import cells
from edgewright.report.plots import Json, Legend, Plot

_HEIGHT_PX = 330
_LOG_FROM_RATIO = 8.0
_LEAST_ROOM_POINTS = 2.0
_MOST_LABELLED_BARS = 12


def plots_of(summary: CompressionSummary) -> list[Plot]:
    """Return every figure for which `summary` holds numbers."""
    made = (_tradeoff(summary), _downloads(summary), _accuracy(summary), _latency(summary), _memory(summary))
    return [plot for plot in made if plot is not None]


def colours_of(summary: CompressionSummary) -> dict[str, str]:
    """Return runtime -> colour, as in the report of a build."""
    return dict(Legend.of([row.result for row in summary.rows]).colours)


def _tradeoff(summary: CompressionSummary) -> Plot | None:
    """Return accuracy against download: each runtime's way from the original to the last step."""
    data: list[Json] = []
    sizes: list[float] = []
    colours = colours_of(summary)
    for runtime, colour in colours.items():
        points = [
            (row.download_bytes / 1e3, value, row.step)
            for row in summary.rows
            if row.runtime == runtime and row.download_bytes and (value := _quality(row)) is not None
        ]
        if not points:
            continue
        sizes += [x for x, _, _ in points]
        is_first = not data  # the runtimes' points are close together: one of them bears the labels
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers+text" if is_first else "lines+markers",
                "x": [x for x, _, _ in points],
                "y": [y for _, y, _ in points],
                "text": [_plain(step) for *_, step in points],
                "textposition": "top center",
                "textfont": {"size": 10},
                "hovertext": [
                    f"{_plain(step)} on {_plain(runtime)}<br>{cells.significant(x)} kB<br>{y:.4f}"
                    for x, y, step in points
                ],
                "hoverinfo": "text",
                "line": {"color": colour, "width": 1.5, "dash": "dot"},
                "marker": {"color": colour, "size": 9},
            }
        )
    if not data:
        return None
    y_axis, beyond = _axis(_quality_title(summary)), ""
    if _has_points(summary):
        y_axis, beyond = _cut(
            summary, y_axis, lambda row: None if row.result.metric is None else row.result.metric.value
        )
    return Plot(
        key="tradeoff",
        title="Accuracy against download",
        caption=f"Each runtime's way through the steps; left and up is better.{beyond}",
        height_px=_HEIGHT_PX,
        data=data,
        layout={"xaxis": _size_axis("download, kB", sizes), "yaxis": y_axis},
    )


def _has_points(summary: CompressionSummary) -> bool:
    """Return whether the metric is a share, whose points of drop are hundredths."""
    metrics = [row.result.metric for row in summary.rows if row.result.metric is not None]
    return bool(metrics) and all(0 <= metric.value <= 1 and 0 <= metric.source <= 1 for metric in metrics)


def _cut(
    summary: CompressionSummary, axis: Json, value: Callable[[Row], float | None], *, unit: float = 0.01
) -> tuple[Json, str]:
    """Return the axis, cut where a step in the middle of the chain lies far off, and a sentence that names it.

    A pruned model before its training would else squeeze all others into one line.

    Args:
        unit: of one point of drop, on this axis.
    """
    found = [(row.step, v) for row in summary.rows if (v := value(row)) is not None]
    ends = [v for step, v in found if step in (summary.steps[0].id, summary.steps[-1].id)]
    if not ends:
        return axis, ""
    room = max(_LEAST_ROOM_POINTS * unit, 2 * (max(ends) - min(ends)))
    low, high = min(ends) - room, max(ends) + room
    beyond = dict.fromkeys(step for step, v in found if not low <= v <= high)
    if not beyond:
        return axis, ""
    inside = [v for _, v in found if low <= v <= high]
    margin = 0.12 * (max(inside) - min(inside)) + 0.5 * unit
    cut: Json = {**axis, "range": [min(inside) - margin, max(inside) + margin]}
    return cut, f" Beyond the picture: {', '.join(map(_plain, beyond))}."


def _downloads(summary: CompressionSummary) -> Plot | None:
    return _bars(
        summary,
        key="download",
        title="Download after each step",
        caption='What travels: the artifact\'s files, and in the step "entropy" their .ewz container.',
        axis="download, kB",
        value=lambda row: None if row.download_bytes is None else row.download_bytes / 1e3,
    )


def _latency(summary: CompressionSummary) -> Plot | None:
    return _bars(
        summary,
        key="latency",
        title="Latency after each step",
        caption="Median of one inference; all steps of a runtime were timed in turns. Bars are 95 % intervals.",
        axis="p50, ms",
        value=lambda row: None if row.result.latency_ms is None else row.result.latency_ms.p50,
        interval=lambda row: None if row.result.latency_ms is None else row.result.latency_ms.p50_ci95,
    )


def _memory(summary: CompressionSummary) -> Plot | None:
    return _bars(
        summary,
        key="ram",
        title="RAM after each step",
        caption="Measured peak of a fresh process from before the model was loaded.",
        axis="peak, MB",
        value=lambda row: None if row.result.memory_bytes is None else row.result.memory_bytes / 1e6,
    )


def _accuracy(summary: CompressionSummary) -> Plot | None:
    steps = [step.id for step in summary.steps]
    data: list[Json] = []
    y_axis, beyond = _cut(
        summary,
        _axis("drop, points"),
        lambda row: None if row.result.metric is None else row.result.metric.drop_points,
        unit=1.0,
    )
    for runtime, colour in colours_of(summary).items():
        rows = [row for row in summary.rows if row.runtime == runtime and row.result.metric is not None]
        if not rows:
            continue
        lows, highs, drops = [], [], []
        for row in rows:
            metric = row.result.metric
            assert metric is not None
            low, high = metric.drop_ci95 or (metric.drop_points, metric.drop_points)
            drops.append(metric.drop_points)
            lows.append(metric.drop_points - low)
            highs.append(high - metric.drop_points)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [_plain(row.step) for row in rows],
                "y": drops,
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": highs,
                    "arrayminus": lows,
                    "thickness": 1,
                    "width": 3,
                },
                "line": {"color": colour, "width": 1.5},
                "marker": {"color": colour, "size": 7},
                "name": _plain(runtime),
                "hoverinfo": "x+y+name",
            }
        )
    if not data:
        return None
    return Plot(
        key="drop",
        title="Drop after each step",
        caption="Loss against the original in points, paired per sample, with its 95 % interval; below zero is "
        f"better.{beyond}",
        height_px=_HEIGHT_PX,
        data=data,
        layout={"xaxis": _steps_axis(steps), "yaxis": y_axis, "scattermode": "group"},
    )


def _bars(
    summary: CompressionSummary,
    *,
    key: str,
    title: str,
    caption: str,
    axis: str,
    value: Callable[[Row], float | None],
    interval: Callable[[Row], tuple[float, float] | None] = lambda row: None,
) -> Plot | None:
    data: list[Json] = []
    for runtime, colour in colours_of(summary).items():
        rows = [(row, v) for row in summary.rows if row.runtime == runtime and (v := value(row)) is not None]
        if not rows:
            continue
        trace: Json = {
            "type": "bar",
            "x": [_plain(row.step) for row, _ in rows],
            "y": [v for _, v in rows],
            "text": [cells.significant(v) for _, v in rows]
            if len(summary.rows) <= _MOST_LABELLED_BARS
            else [],
            "textposition": "outside",
            "textfont": {"size": 10},
            "cliponaxis": False,
            "marker": {"color": colour},
            "name": _plain(runtime),
            "hoverinfo": "x+y+name",
        }
        bounds = [interval(row) for row, _ in rows]
        if all(bound is not None for bound in bounds):
            trace["error_y"] = {
                "type": "data",
                "symmetric": False,
                "array": [b[1] - v for b, (_, v) in zip(bounds, rows, strict=True) if b is not None],
                "arrayminus": [v - b[0] for b, (_, v) in zip(bounds, rows, strict=True) if b is not None],
                "thickness": 1,
                "width": 3,
            }
        data.append(trace)
    if not data:
        return None
    return Plot(
        key=key,
        title=title,
        caption=caption,
        height_px=_HEIGHT_PX,
        data=data,
        layout={
            "xaxis": _steps_axis([step.id for step in summary.steps]),
            "yaxis": {**_axis(axis), "rangemode": "tozero"},
            "barmode": "group",
        },
    )


def _quality(row: Row) -> float | None:
    return None if row.result.metric is None else row.result.metric.value


def _quality_title(summary: CompressionSummary) -> str:
    return _plain(cells.quality_name([row.result for row in summary.rows]))


def _axis(title: str) -> Json:
    return {"title": {"text": title}, "automargin": True, "zeroline": False}


def _size_axis(title: str, values: Sequence[float]) -> Json:
    """Return a logarithmic axis for values that span more than a factor of 8, else a linear one."""
    axis = _axis(title)
    if min(values) > 0 and max(values) / min(values) > _LOG_FROM_RATIO:
        ticks = [m * 10.0**e for e in range(-3, 9) for m in (1, 2, 5)]
        shown = [tick for tick in ticks if 0.5 * min(values) <= tick <= 2 * max(values)]
        axis |= {
            "type": "log",
            "tickmode": "array",
            "tickvals": shown,
            "ticktext": [f"{t:,.10g}" for t in shown],
        }
        axis["title"] = {"text": f"{title}, logarithmic"}
    return axis


def _steps_axis(steps: Sequence[str]) -> Json:
    labels = [_plain(step) for step in steps]
    # A range of its own: the axis would else end at the points, through the middle of the outer bars.
    return {
        "type": "category",
        "range": [-0.5, len(labels) - 0.5],
        "categoryorder": "array",
        "categoryarray": labels,
        "automargin": True,
        "showgrid": False,
    }


def _plain(text: str) -> str:
    text = cells.shorten(text, 32)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
