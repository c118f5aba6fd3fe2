"""A result as short texts: the same figures, units and digits in the terminal, in HTML and in a notebook."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from edgewright.core.result import LatencyResult, MetricResult, Result, Status, Summary

MISSING = "-"
_DIGITS = 3
_KILO = 1e3
_MEGA = 1e6


def significant(value: float | None) -> str:
    """Return `value` with 3 significant digits and without an exponent, e.g. 0.0123, 1.23, 12.3, 1,234."""
    if value is None:
        return MISSING
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if value == 0:
        return "0"
    exponent = int(f"{abs(value):.{_DIGITS - 1}e}".partition("e")[2])
    return f"{value:,.{min(max(_DIGITS - 1 - exponent, 0), 9)}f}"


def kilobytes(size_bytes: int | None) -> str:
    """Return `size_bytes` in kB (1,000 bytes)."""
    return MISSING if size_bytes is None else significant(size_bytes / _KILO)


def megabytes(size_bytes: int | None) -> str:
    """Return `size_bytes` in MB (1,000,000 bytes)."""
    return MISSING if size_bytes is None else f"{size_bytes / _MEGA:,.1f}"


def ratio(value: float | None) -> str:
    """Return a speed-up, e.g. 1.53x."""
    return MISSING if value is None else f"{significant(value)}x"


def drop(metric: MetricResult | None, *, with_interval: bool = True) -> str:
    """Return the drop in points with its sign (plus is a loss), and its 95 % interval where there is one."""
    if metric is None:
        return MISSING
    text = signed(metric.drop_points)
    if with_interval and metric.drop_ci95 is not None:
        low, high = metric.drop_ci95
        text += f" [{signed(low)}, {signed(high)}]"
    return text


def signed(value: float) -> str:
    """Return `value` with sign and 2 decimals; a value that rounds to nothing has no sign."""
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def quality(result: Result) -> str:
    """Return the metric, or without one the cosine to the source's outputs."""
    if result.metric is not None:
        return f"{result.metric.value:.4f}"
    if result.parity is not None and result.parity.cosine is not None:
        return f"{result.parity.cosine:.4f}"
    return MISSING


def quality_name(results: Sequence[Result]) -> str:
    """Return the heading of the `quality` column."""
    names = [result.metric.name for result in results if result.metric is not None]
    return clean(names[0]) if names else "cosine"


def milliseconds(latency: LatencyResult | None, value: float | None) -> str:
    """Return a latency; an exclamation mark says that the measurement is not valid."""
    return significant(value) + ("" if latency is None or latency.valid else "!")


def budget(result: Result, summary: Summary) -> str:
    """Return pass or over; a dash where the build had no budget or measured nothing."""
    if result.latency_ms is None and result.size_bytes is None:
        return MISSING
    if result.status is Status.FAILED or not summary.conditions.get("budget"):
        return MISSING
    return "pass" if result.verdict.is_pass else "over"


def reasons(results: Sequence[Result]) -> list[tuple[Status, str, list[str]]]:
    """Return (status, reason, ids) of every row that is not ok; equal reasons are told once."""
    groups: dict[tuple[Status, str], list[str]] = {}
    for result in results:
        if result.status is not Status.OK:
            groups.setdefault((result.status, result.reason or "no reason given"), []).append(result.id)
    return [(status, reason, ids) for (status, reason), ids in groups.items()]


def timing_remarks(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """Return (why, ids) of the rows whose latency is measured but not valid."""
    groups: dict[str, list[str]] = {}
    for result in results:
        if result.latency_ms is not None and not result.latency_ms.valid:
            groups.setdefault(result.latency_ms.why_invalid or "no reason given", []).append(result.id)
    return list(groups.items())


def clean(text: str) -> str:
    """Return `text` on one line without control and direction characters: names in models are not trusted."""
    kept = [" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text]
    return " ".join("".join(kept).split())


def shorten(text: str, length: int) -> str:
    """Return `text` cleaned and cut to `length` characters with an ellipsis."""
    text = clean(text)
    return text if len(text) <= length else text[: length - 3].rstrip() + "..."
