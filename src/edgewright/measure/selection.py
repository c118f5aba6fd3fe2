"""Choose among results: the Pareto front, whether a quantized model pays, and the recommendation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgewright.core.result import Result, Status
from edgewright.core.target import Precision

FASTER_ENOUGH = 0.95  # at least 5 % faster than fp32 of the same runtime and threads ...
SMALLER_ENOUGH = 0.75  # ... or at least 25 % smaller: else a quantized model does not pay
SIZE_WEIGHT = 0.5
_COSINE_DIGITS = 6  # what lies below is the order of float32 sums, which makes no result better than another


def pareto_front(results: Sequence[Result]) -> tuple[str, ...]:
    """Return the ids of the ok results that no other ok result beats in drop, p50 latency and size at once."""
    points = {r.id: _costs(r) for r in results if r.status is Status.OK and r.latency_ms and r.size_bytes}
    return tuple(
        name for name, mine in points.items() if not any(_dominates(o, mine) for o in points.values())
    )


def _costs(result: Result) -> tuple[float, float, float]:
    assert result.latency_ms is not None
    assert result.size_bytes is not None
    return (_drop(result), result.latency_ms.p50, float(result.size_bytes))


def _drop(result: Result) -> float:
    """Loss against the source: points of the metric, or 1 - cosine where there is no metric."""
    if result.metric is not None:
        return result.metric.drop_points
    if result.parity is not None and result.parity.cosine is not None:
        return round(1.0 - result.parity.cosine, _COSINE_DIGITS)
    return 0.0


def _dominates(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def why_it_does_not_pay(result: Result, results: Sequence[Result]) -> str:
    """Return why a reduced precision is not worth it, or an empty text when it is.

    It pays when it is at least 5 % faster, or at least 25 % smaller, than fp32 of the same runtime and threads.
    """
    if result.target.precision is Precision.FP32 or result.latency_ms is None or not result.size_bytes:
        return ""
    base = next((r for r in results if _same_place(r, result) and r.target.precision is Precision.FP32), None)
    if base is None or base.latency_ms is None or not base.size_bytes:
        return ""
    speed, size = result.latency_ms.p50 / base.latency_ms.p50, result.size_bytes / base.size_bytes
    if speed <= FASTER_ENOUGH or size <= SMALLER_ENOUGH:
        return ""
    return f"does not pay: {1 / speed:.2f}x the speed and {1 / size:.2f}x smaller than {base.id}"


def _same_place(a: Result, b: Result) -> bool:
    return a.target.runtime == b.target.runtime and a.target.threads == b.target.threads


def recommend(results: Sequence[Result]) -> tuple[str | None, str]:
    """Return the id to ship and the reason in one sentence, or None and why nothing is recommended.

    Among the Pareto results that are ok, within budget, validly timed and that pay, the one with the least
    log(p50 / best p50) + 0.5 log(size / best size): halving the time counts as much as a quarter of the size.
    """
    front = set(pareto_front(results))
    notes: list[str] = []
    candidates: list[Result] = []
    for result in results:
        if result.id not in front or not result.verdict.is_pass:
            continue
        if result.latency_ms is None or not result.latency_ms.valid:
            notes.append(f"{result.id} was not timed validly")
        elif loss := why_it_does_not_pay(result, results):
            notes.append(f"{result.id} {loss}")
        else:
            candidates.append(result)
    if not candidates:
        states = {str(r.status) for r in results}
        detail = (
            "; ".join(notes) or f"no result is ok and within budget (statuses: {', '.join(sorted(states))})"
        )
        return None, f"Nothing is recommended: {detail}."
    fastest = min(r.latency_ms.p50 for r in candidates if r.latency_ms)
    smallest = min(r.size_bytes for r in candidates if r.size_bytes)

    def cost(result: Result) -> tuple[float, str]:
        assert result.latency_ms is not None
        assert result.size_bytes is not None
        latency, size = result.latency_ms.p50 / fastest, result.size_bytes / smallest
        return (math.log(latency) + SIZE_WEIGHT * math.log(size), result.id)

    best = min(candidates, key=cost)
    return best.id, _why(best, candidates)


def _why(best: Result, candidates: Sequence[Result]) -> str:
    assert best.latency_ms is not None
    assert best.size_bytes is not None
    parts = [f"p50 {best.latency_ms.p50:.3g} ms", f"{best.size_bytes / 1e3:,.0f} kB"]
    if best.metric is not None:
        drop = best.metric.drop_points
        parts.append(f"{best.metric.name} {_signed_drop(drop)}")
    else:
        parts.append("accuracy not measured")
    if best.speed_up is not None and best.target.precision is not Precision.FP32:
        parts.append(f"{best.speed_up:.2f}x the speed of fp32 on {best.target.runtime}")
    others = len(candidates) - 1
    scope = (
        f"the best balance of latency and size among {others + 1} candidates"
        if others
        else "the only candidate"
    )
    return f"{best.id}: {', '.join(parts)}; {scope} on the Pareto front that keep every budget."


def _signed_drop(drop: float) -> str:
    return (
        "unchanged"
        if drop == 0
        else f"{abs(drop):.2f} points {'lower' if drop > 0 else 'higher'} than the source"
    )
