"""Statistics of latency samples: steady state, a summary with a validity flag, a comparison of artifacts.

Times come in as integer nanoseconds, in blocks of consecutive calls in one process. Nothing here measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, inf, log, sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import DataError, UsageError
from edgewright.core.tensors import Array

Verdict = Literal["a faster", "b faster", "no difference"]
Samples = npt.NDArray[np.float64]

STEADY_BLOCKS = 4
STEADY_TOLERANCE = 0.03
MAX_DRIFT = 0.10
MAX_DISPERSION = 0.15
MAX_WAIT_RATIO = 1.5
MIN_SAMPLES = 20
MINIMUM_EFFECT = 0.02
LOCATION_QUANTILE = 0.25
_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """Percentiles of one artifact's latency, in milliseconds over n calls, and whether they can be trusted.

    p50_ci95: interval of the median over blocks, since calls within a block are not independent.
    cpu_ms_p50: CPU time of the process per call, None when it was not measured.
    why_invalid: empty when valid.
    """

    p50: float
    p95: float
    p99: float
    mean: float
    std: float
    min: float
    max: float
    n: int
    p50_ci95: tuple[float, float]
    cpu_ms_p50: float | None
    valid: bool
    why_invalid: str


@dataclass(frozen=True, kw_only=True)
class Design:
    """How much to measure for one comparison: `launches` fresh pairs of processes, in interleaved blocks.

    The launch is the unit of replication: two processes of one artifact differ by 1 to 4 % for as long as
    they live (memory layout, thread placement), which more calls in the same process do not average out.

    The default was chosen on 1200 launches of four models in two runtimes on a busy two-core machine: of 148
    comparisons of an artifact with itself 3 claimed a difference, and a 5 % slow-down was found in 147. On 336 later
    launches of three other models at a load of 6: 0 and 42 of 42. Six launches found 97 to 99 % as well.
    """

    launches: int = 8
    blocks: int = 12
    samples_per_block: int = 50

    def __post_init__(self) -> None:
        if self.launches < 3 or self.blocks < 2 or self.samples_per_block < 1:
            raise UsageError(f"a comparison needs launches >= 3, blocks >= 2 and samples >= 1, got {self}.")

    @classmethod
    def for_call(cls, call_ms: float, *, block_ms: float = 5.0) -> "Design":
        """Return the default design for a call of `call_ms`: blocks of about `block_ms`, at least 3 calls.

        About a second of calls for a model under 1.6 ms; beyond that 192 x 3 calls over both artifacts.
        """
        if not (call_ms > 0.0 and block_ms > 0.0):
            raise UsageError(f"call_ms and block_ms must be positive, got {call_ms} and {block_ms}.")
        return cls(samples_per_block=max(3, ceil(block_ms / call_ms)))


@dataclass(frozen=True, kw_only=True)
class LatencyComparison:
    """The latency of b over that of a: above 1, b is slower. ci95 is over launches."""

    ratio: float
    ci95: tuple[float, float]
    launches: int
    verdict: Verdict


def is_steady(block_medians: Sequence[float]) -> bool:
    """Return whether warm-up is over: the last 4 block medians show no trend.

    Steady is when the last two medians average within 3 % of the two before them, or above them: what warm-up
    leaves behind (caches, lazy allocation, clock ramps) only ever gets faster. Noise that is slower is for
    `summarise` to find. A driver calls this after each block, and stops at its own limit of time.

    Args:
        block_medians: positive, any unit, oldest first.
    """
    if len(block_medians) < STEADY_BLOCKS:
        return False
    first, second, third, fourth = block_medians[-STEADY_BLOCKS:]
    return third + fourth >= (1.0 - STEADY_TOLERANCE) * (first + second)


def summarise(
    samples_ns: Sequence[Array], cpu_ns: Sequence[Array] | None = None, *, threads: int = 1
) -> LatencySummary:
    """Return percentiles of the pooled samples, and whether the machine was quiet enough to believe them.

    Not valid, with the reason, when
    - there are fewer than 20 samples: a 95th percentile would be the largest of them;
    - the median of the second half is over 10 % off the first half's: not steady, or clocks changed;
    - half the spread between the quartiles of the block medians is over 15 % of their median;
    - one thread's wall time exceeds 1.5 x its CPU time in the median: the call mostly waited for a core.

    Args:
        samples_ns: wall times, one array [k] of positive integers per block, in order of time; k may vary.
        cpu_ns: CPU times of the same calls in the same blocks.
        threads: of the runtime; CPU time is checked for one only, as several threads overlap.
    Raises:
        DataError: no samples, a time that is not positive, or cpu_ns with other counts.
    """
    blocks = _blocks(samples_ns)
    pooled = np.concatenate(blocks)
    medians = np.array([np.median(block) for block in blocks])
    cpu_p50 = None
    if cpu_ns is not None:
        cpu = [np.asarray(block, dtype=np.float64).ravel() for block in cpu_ns]
        if [b.size for b in cpu] != [b.size for b in blocks]:
            raise DataError("cpu_ns has other counts than samples_ns: expected one CPU time per wall time.")
        cpu_p50 = float(np.median(np.concatenate(cpu))) / 1e6
    p50, p95, p99 = (float(q) / 1e6 for q in np.quantile(pooled, (0.5, 0.95, 0.99)))
    why = "; ".join(_faults(pooled, medians, p50, cpu_p50 if threads == 1 else None))
    low, high = _median_interval(medians if len(blocks) >= 6 else pooled)
    return LatencySummary(
        p50=p50,
        p95=p95,
        p99=p99,
        mean=float(pooled.mean()) / 1e6,
        std=float(pooled.std(ddof=1)) / 1e6 if pooled.size > 1 else 0.0,
        min=float(pooled.min()) / 1e6,
        max=float(pooled.max()) / 1e6,
        n=pooled.size,
        # the median of medians can lie beside the pooled one; the interval always holds what is reported
        p50_ci95=(min(low / 1e6, p50), max(high / 1e6, p50)),
        cpu_ms_p50=cpu_p50,
        valid=not why,
        why_invalid=why,
    )


def compare_latency(
    a: Sequence[Sequence[Array]], b: Sequence[Sequence[Array]], *, minimum_effect: float = MINIMUM_EFFECT
) -> LatencyComparison:
    """Return which of two artifacts is faster, from interleaved runs in fresh processes.

    Each launch gives one number: the log of b's lower quartile over a's. The lower quartile rather than the
    median, because noise only adds time: on a shared two-core machine it gave fewer false alarms.
    The interval is Student's over launches. A verdict needs both an interval that leaves out 1 and a ratio
    beyond `minimum_effect`, so that a real but useless half per cent is not announced.

    Args:
        a, b: [launches][blocks][samples] of times in ns (wall or CPU); launch i of a and of b ran
            interleaved, block by block. At least 3 launches.
        minimum_effect: the smallest difference worth reporting, as a share.
    Raises:
        DataError: fewer than 3 launches, other launches in a than in b, a negative time, or mostly zeros.
    Source: launches as the unit follow Kalibera and Jones (2013), Rigorous benchmarking, ISMM.
    """
    from scipy.special import stdtrit

    if len(a) != len(b) or len(a) < 3:
        raise DataError(
            f"a comparison needs at least 3 launches of both, got {len(a)} of a and {len(b)} of b."
        )
    logs = np.array([log(_location(second) / _location(first)) for first, second in zip(a, b, strict=True)])
    middle = float(logs.mean())
    half = float(stdtrit(logs.size - 1, 0.5 + _CONFIDENCE / 2)) * float(logs.std(ddof=1)) / sqrt(logs.size)
    verdict: Verdict = "no difference"
    if middle - half > 0.0 and exp(middle) > 1.0 + minimum_effect:
        verdict = "a faster"
    elif middle + half < 0.0 and exp(-middle) > 1.0 + minimum_effect:
        verdict = "b faster"
    return LatencyComparison(
        ratio=exp(middle), ci95=(exp(middle - half), exp(middle + half)), launches=logs.size, verdict=verdict
    )


def _faults(pooled: Samples, medians: Samples, p50: float, cpu_p50: float | None) -> list[str]:
    faults = []
    if pooled.size < MIN_SAMPLES:
        faults.append(f"{pooled.size} samples, at least {MIN_SAMPLES} are needed")
    if pooled.size >= 2:
        half = pooled.size // 2
        drift = float(np.median(pooled[half:]) / np.median(pooled[:half])) - 1.0
        if abs(drift) > MAX_DRIFT:
            faults.append(f"the second half is {100 * drift:+.0f} % off the first")
    low, middle, high = (float(q) for q in np.quantile(medians, (0.25, 0.5, 0.75)))
    dispersion = (high - low) / (2.0 * middle)
    if dispersion > MAX_DISPERSION:
        faults.append(f"block medians spread by {100 * dispersion:.0f} %")
    if cpu_p50 is not None:
        wait = p50 / cpu_p50 if cpu_p50 > 0.0 else inf
        if wait > MAX_WAIT_RATIO:
            faults.append(f"wall time is {wait:.1f} x CPU time: the process waited for a core")
    return faults


def _median_interval(values: Samples) -> tuple[float, float]:
    """Return the 95 % interval of the median from order statistics; the range for under 6 values."""
    from scipy.stats import binom

    ordered = np.sort(values)
    rank = int(binom.ppf((1.0 - _CONFIDENCE) / 2, ordered.size, 0.5)) - 1
    rank = min(max(rank, 0), (ordered.size - 1) // 2)
    return float(ordered[rank]), float(ordered[ordered.size - 1 - rank])


def _location(launch: Sequence[Array]) -> float:
    pooled = np.concatenate(_blocks(launch, zero_allowed=True))
    location = float(np.quantile(pooled, LOCATION_QUANTILE))
    if location <= 0.0:
        raise DataError(
            f"a quarter of the {pooled.size} times of a launch are 0: the clock is too coarse for them."
        )
    return location


def _blocks(samples_ns: Sequence[Array], *, zero_allowed: bool = False) -> list[Samples]:
    blocks = [np.asarray(block, dtype=np.float64).ravel() for block in samples_ns]
    if not blocks or not all(block.size for block in blocks):
        raise DataError(f"no latency samples in {len(blocks)} blocks: expected at least one in each.")
    # a CPU clock that ticks late now and then reads 0; a wall time of 0 is a broken clock
    wrong = sum(int(np.sum(~((block >= 0.0) if zero_allowed else (block > 0.0)))) for block in blocks)
    if wrong:
        raise DataError(
            f"{wrong} latency samples are not positive: expected nanoseconds of a monotonic clock."
        )
    return blocks
