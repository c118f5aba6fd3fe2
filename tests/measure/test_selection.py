"""The Pareto front, what pays, and the recommendation, on figures made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.core.budget import Verdict
from edgewright.core.result import LatencyResult, MetricResult, ParityResult, Result, Status
from edgewright.core.target import Precision, Target
from edgewright.measure.selection import pareto_front, recommend, why_it_does_not_pay


def row(
    precision: Precision,
    p50: float,
    size: int,
    drop: float = 0.0,
    *,
    runtime: str = "r",
    status: Status = Status.OK,
    valid: bool = True,
    is_pass: bool = True,
) -> Result:
    target = Target(runtime=runtime, precision=precision)
    return Result(
        id=target.id,
        target=target,
        status=status,
        size_bytes=size,
        latency_ms=LatencyResult(
            p50=p50, p95=p50, p99=p50, mean=p50, std=0, min=p50, max=p50, n=100, valid=valid
        ),
        metric=MetricResult(
            name="top1",
            source=0.9,
            value=0.9 - drop / 100,
            n=100,
            drop_points=drop,
            drop_ci95=None,
            p_value=None,
        ),
        verdict=Verdict(is_pass=is_pass),
    )


FULL, HALF, SMALL = (
    row(Precision.FP32, 10.0, 4000),
    row(Precision.FP16, 10.1, 3900),
    row(Precision.W8A8, 5.0, 1000, 0.3),
)


def test_the_front_and_the_recommendation() -> None:
    assert pareto_front([FULL, HALF, SMALL]) == (FULL.id, HALF.id, SMALL.id)
    worse = row(Precision.W8, 11.0, 4100, 1.0)
    assert worse.id not in pareto_front([FULL, worse])
    best, why = recommend([FULL, HALF, SMALL])
    assert best == SMALL.id
    assert "0.30 points lower" in why


def test_without_a_metric_the_noise_of_float32_keeps_no_result_on_the_front() -> None:
    def agreeing(result: Result, cosine: float) -> Result:
        parity = ParityResult(max_abs=1e-6, cosine=cosine, snr_db=120.0, agreement=None, n=8)
        return replace(result, metric=None, parity=parity)

    best = agreeing(row(Precision.FP32, 1.0, 1000), 1.0 - 2e-13)
    slower = agreeing(row(Precision.FP32, 2.0, 2000, runtime="s"), 1.0)
    assert pareto_front([best, slower]) == (best.id,)
    coarse = agreeing(row(Precision.W8, 0.5, 500), 0.999)
    assert pareto_front([best, slower, coarse]) == (best.id, coarse.id)


def test_a_precision_that_brings_nothing_does_not_pay() -> None:
    assert "does not pay" in why_it_does_not_pay(HALF, [FULL, HALF])
    assert why_it_does_not_pay(SMALL, [FULL, SMALL]) == ""
    assert why_it_does_not_pay(FULL, [FULL]) == ""
    assert why_it_does_not_pay(HALF, [HALF]) == ""  # without fp32 nothing can be said


@pytest.mark.parametrize(
    "change", [{"status": Status.DEGRADED}, {"valid": False}, {"is_pass": False}, {"status": Status.FAILED}]
)
def test_what_cannot_be_trusted_is_never_recommended(change: dict[str, object]) -> None:
    bad = row(Precision.W8A8, 1.0, 10, **change)  # type: ignore[arg-type]
    best, why = recommend([bad])
    assert best is None
    assert why.startswith("Nothing is recommended")


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3)),
        min_size=1,
        max_size=8,
        unique=True,
    )
)
def test_the_front_is_that_of_its_definition(points: list[tuple[int, int, int]]) -> None:
    results = [
        row(Precision.FP32, float(p), s, float(d), runtime=f"r{i}") for i, (p, s, d) in enumerate(points)
    ]
    front = set(pareto_front(results))
    for mine, result in zip(points, results, strict=True):
        is_beaten = any(
            other != mine and all(math.isclose(a, b) or a < b for a, b in zip(other, mine, strict=True))
            for other in points
        )
        assert (result.id in front) == (not is_beaten)
    best, _ = recommend(results)
    assert best in front
