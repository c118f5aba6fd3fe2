"""Latency statistics on seeded simulations of noise, drift, preemption and processes that differ."""

import numpy as np
import pytest

from edgewright.core.errors import DataError, UsageError
from edgewright.measure.latency import Design, compare_latency, is_steady, summarise

Blocks = list[np.ndarray]


def _process(rng: np.random.Generator, *, ns: float = 1e6, blocks: int = 12, k: int = 20) -> Blocks:
    """One process on a noisy machine: an offset, 2 % jitter, 5 % of calls preempted, one slow block."""
    offset = ns * np.exp(rng.normal(0.0, 0.008))
    times = offset * (1.0 + np.abs(rng.normal(0.0, 0.02, (blocks, k))))
    times *= np.where(rng.random((blocks, k)) < 0.05, rng.uniform(2.0, 20.0, (blocks, k)), 1.0)
    times[rng.integers(blocks)] *= 1.3
    return [block.astype(np.int64) for block in times]


def _verdicts(slowdown: float, *, comparisons: int = 100, launches: int = 8) -> list[str]:
    rng = np.random.default_rng(11)
    return [
        compare_latency(
            [_process(rng) for _ in range(launches)],
            [_process(rng, ns=1e6 * (1.0 + slowdown)) for _ in range(launches)],
        ).verdict
        for _ in range(comparisons)
    ]


def test_an_artifact_does_not_differ_from_itself() -> None:
    assert _verdicts(0.0).count("no difference") >= 95


def test_a_slow_down_of_five_per_cent_is_found_both_ways() -> None:
    assert _verdicts(0.05).count("a faster") >= 90
    assert _verdicts(-0.05).count("b faster") >= 90


def test_a_real_difference_below_the_minimum_effect_is_not_announced() -> None:
    calm = [[np.full(20, 1_000_000 + i)] * 12 for i in range(8)]
    slower = [[np.full(20, 1_010_000 + 2 * i)] * 12 for i in range(8)]
    comparison = compare_latency(calm, slower)
    assert comparison.ratio == pytest.approx(1.01, abs=1e-5)
    assert comparison.ci95[0] > 1.0
    assert comparison.verdict == "no difference"
    assert compare_latency(calm, slower, minimum_effect=0.005).verdict == "a faster"


def test_the_ratio_turns_over_with_the_order() -> None:
    rng = np.random.default_rng(2)
    a, b = [_process(rng) for _ in range(8)], [_process(rng, ns=2e6) for _ in range(8)]
    forth, back = compare_latency(a, b), compare_latency(b, a)
    assert forth.ratio == pytest.approx(1.0 / back.ratio)
    assert (forth.verdict, back.verdict) == ("a faster", "b faster")
    assert forth.ci95[0] < 2.0 < forth.ci95[1]


def test_summary_of_known_numbers() -> None:
    blocks = [np.arange(1, 11) * 1_000_000 for _ in range(10)]
    cpu = [block // 2 * 2 for block in blocks]
    summary = summarise(blocks, cpu)
    assert (summary.p50, summary.min, summary.max, summary.n) == (5.5, 1.0, 10.0, 100)
    assert summary.mean == pytest.approx(5.5)
    assert summary.std == pytest.approx(np.std(np.tile(np.arange(1, 11), 10), ddof=1))
    assert summary.cpu_ms_p50 == pytest.approx(5.5)
    assert summary.p50_ci95 == (5.5, 5.5)
    assert (summary.valid, summary.why_invalid) == (True, "")


def test_preemption_spikes_move_p99_and_not_the_verdict_on_validity() -> None:
    summary = summarise(_process(np.random.default_rng(0), blocks=20))
    assert summary.valid, summary.why_invalid
    assert summary.p99 > 1.5 * summary.p50
    assert summary.p50 == pytest.approx(1.01, rel=0.04)


def test_drift_makes_it_invalid() -> None:
    ramp = [np.full(20, 1_000_000 * (1.0 + 0.03 * i)) for i in range(12)]
    summary = summarise(ramp)
    assert not summary.valid
    assert "second half" in summary.why_invalid


def test_blocks_that_disagree_make_it_invalid() -> None:
    summary = summarise([np.full(20, 1_000_000 if i % 2 else 1_600_000) for i in range(12)])
    assert not summary.valid
    assert "block medians" in summary.why_invalid


def test_waiting_for_a_core_makes_one_thread_invalid() -> None:
    wall, cpu = [np.full(20, 2_000_000)] * 6, [np.full(20, 1_000_000)] * 6
    assert "waited for a core" in summarise(wall, cpu).why_invalid
    assert summarise(wall, cpu, threads=2).valid


def test_too_few_samples_are_invalid_and_still_summarised() -> None:
    summary = summarise([np.array([3_000_000])])
    assert (summary.p50, summary.std, summary.valid) == (3.0, 0.0, False)
    assert "1 samples" in summary.why_invalid


def test_median_interval_covers() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(200):
        shift = rng.normal(0, 0.05, (12, 1))
        low, high = summarise(list(1e6 * np.exp(shift + rng.normal(0, 0.02, (12, 30))))).p50_ci95
        hits += low <= 1.0 <= high
    assert hits >= 0.94 * 200


def test_steady_after_warm_up_and_not_before() -> None:
    medians = [3.0, 2.2, 1.6, 1.3, 1.15, 1.05, 1.01, 1.0, 1.0, 0.99]
    states = [is_steady(medians[:n]) for n in range(len(medians) + 1)]
    assert states[:8] == [False] * 8
    assert states[-1]


def test_noise_does_not_hold_up_the_warm_up() -> None:
    rng = np.random.default_rng(0)
    waits = []
    for _ in range(200):
        medians = rng.normal(1.0, 0.02, 40) + (rng.random(40) < 0.1)
        waits.append(next(n for n in range(4, 41) if is_steady(list(medians[:n]))))
    assert np.mean(waits) < 6


def test_design_fits_the_call() -> None:
    assert Design.for_call(0.05).samples_per_block == 100
    assert Design.for_call(40.0).samples_per_block == 3
    with pytest.raises(UsageError, match="launches >= 3"):
        Design(launches=2)
    with pytest.raises(UsageError, match="positive"):
        Design.for_call(0.0)


def test_bad_samples_are_refused() -> None:
    with pytest.raises(DataError, match="no latency samples"):
        summarise([])
    with pytest.raises(DataError, match="1 latency samples are not positive"):
        summarise([np.array([5, 0])])
    with pytest.raises(DataError, match="other counts"):
        summarise([np.array([5, 6])], [np.array([5])])
    with pytest.raises(DataError, match="clock is too coarse"):
        compare_latency([[np.array([0, 0, 5])]] * 3, [[np.array([1])]] * 3)
    assert compare_latency([[np.array([0, 5, 5, 5, 5])]] * 3, [[np.array([5])]] * 3).ratio == 1.0
    with pytest.raises(DataError, match="at least 3 launches"):
        compare_latency([[np.array([1])]] * 2, [[np.array([1])]] * 2)
