"""Paired comparison of a source's and a candidate's scores: the drop, its interval, what it proves."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import DataError, UsageError
from edgewright.core.tensors import Array

Scores = npt.NDArray[np.float64]
CONFIDENCE = 0.95
_BOOTSTRAP_RESAMPLES = 4000
_PERMUTATIONS = 9999
_PERMUTATION_MAX_N = (
    1000  # above this the sign-flip distribution of a mean is normal for all practical purposes
)
_CHUNK_VALUES = 2_000_000  # random values drawn at a time: bounds memory at about 16 MB


@dataclass(frozen=True, kw_only=True)
class Drop:
    """How much worse a candidate scores than its source on the same samples.

    value, source_value: mean score of the candidate and of the source, in the metric's unit.
    drop_points: 100 x the worsening; positive means that the candidate is worse. For a metric in 0..1
        these are percentage points; for any other metric, hundredths of its unit.
    drop_ci95: 95 % interval of drop_points.
    p_value: two-sided, of "no difference".
    method: the names of the test and of the interval.
    """

    value: float
    source_value: float
    n: int
    drop_points: float
    drop_ci95: tuple[float, float]
    p_value: float
    method: str

    @property
    def conclusion(self) -> str:
        """Return "proven worse", "proven better" or "not proven", by whether the interval leaves out zero."""
        low, high = self.drop_ci95
        if low > 0.0:
            return "proven worse"
        if high < 0.0:
            return "proven better"
        return "not proven"

    def against(self, limit_points: float) -> str:
        """Return "proven within", "proven over" or "not proven" for a limit on drop_points."""
        low, high = self.drop_ci95
        if high <= limit_points:
            return "proven within"
        if low > limit_points:
            return "proven over"
        return "not proven"


def compare_scores(source: Array, candidate: Array, *, higher_is_better: bool = True, seed: int = 0) -> Drop:
    """Return the drop from `source` to `candidate`, paired by sample.

    Scores that are all 0 or 1 (top-1, top-5): McNemar's mid-p test and Tango's score interval, which keeps
    its coverage for small n and for zero discordant pairs. Any other score: the sign-flip permutation test
    and the paired BCa bootstrap with its tails widened for small n; both are seeded, so the same scores give
    the same record. Without any difference that interval is (0, 0): a bootstrap knows only what it has seen.

    Args:
        source, candidate: real [n], scores of the same samples in the same order; n >= 2 unless 0 or 1.
        higher_is_better: False for errors such as mse, where a higher score is a drop.
    Raises:
        DataError: the shapes differ, are not [n], n is too small, or a score is not finite.
    """
    before, after = _scores("source", source), _scores("candidate", candidate)
    if before.shape != after.shape:
        raise DataError(
            f"cannot compare {before.size} source scores with {after.size} candidate scores: a paired "
            "comparison needs one of each per sample. Score both on the same samples, in the same order."
        )
    worsening = before - after if higher_is_better else after - before
    if _is_binary(before) and _is_binary(after):
        lost, gained = int(np.sum(worsening > 0)), int(np.sum(worsening < 0))
        low, high = paired_score_interval(lost, gained, n=before.size)
        p_value = mcnemar_mid_p(lost, gained)
        method = "McNemar mid-p; Tango score interval"
    else:
        if before.size < 2:
            raise DataError(
                "an interval of real-valued scores needs at least 2 samples, got 1. Evaluate on more."
            )
        low, high = _bootstrap_interval(worsening, seed=seed)
        p_value = _sign_flip_p(worsening, seed=seed)
        method = "sign-flip permutation; paired BCa bootstrap"
    return Drop(
        value=float(after.mean()),
        source_value=float(before.mean()),
        n=before.size,
        drop_points=100.0 * float(worsening.mean()),
        drop_ci95=(100.0 * low, 100.0 * high),
        p_value=p_value,
        method=method,
    )


def compare_auc(labels: Array, source_scores: Array, candidate_scores: Array) -> Drop:
    """Return the drop of the area under the ROC curve of two scorings of the same samples, by DeLong's test.

    Args:
        labels: [n], 0 for a negative and 1 for a positive sample; at least 2 of each.
        source_scores, candidate_scores: real [n], higher for a positive sample.
    Raises:
        DataError: the shapes differ, a score is not finite, or a class has fewer than 2 samples.
    Source: DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44:837; midranks as in Sun and Xu (2014).
    """
    from scipy.special import ndtr
    from scipy.stats import rankdata

    truth = _scores("labels", labels)
    both = np.stack([_scores("source", source_scores), _scores("candidate", candidate_scores)])
    if both.shape[1] != truth.size or not _is_binary(truth):
        raise DataError(
            f"roc_auc needs one label of 0 or 1 per score, got {truth.size} labels with values "
            f"{np.unique(truth)[:5].tolist()} for {both.shape[1]} scores. Check the labels of the data set."
        )
    positive, negative = both[:, truth == 1.0], both[:, truth == 0.0]
    m, k = positive.shape[1], negative.shape[1]
    if min(m, k) < 2:
        raise DataError(f"roc_auc needs at least 2 samples of each class, got {m} positive and {k} negative.")
    everything = rankdata(np.concatenate([positive, negative], axis=1), axis=1)
    # share of the other class that each sample is ranked above: DeLong's structural components
    above_negative = (everything[:, :m] - rankdata(positive, axis=1)) / k
    below_positive = 1.0 - (everything[:, m:] - rankdata(negative, axis=1)) / m
    source_auc, candidate_auc = (float(a) for a in above_negative.mean(axis=1))
    variance = (
        float(np.var(above_negative[0] - above_negative[1], ddof=1)) / m
        + float(np.var(below_positive[0] - below_positive[1], ddof=1)) / k
    )
    drop, error = source_auc - candidate_auc, sqrt(variance)
    half_width = _normal_quantile() * error
    return Drop(
        value=candidate_auc,
        source_value=source_auc,
        n=truth.size,
        drop_points=100.0 * drop,
        drop_ci95=(100.0 * (drop - half_width), 100.0 * (drop + half_width)),
        p_value=float(2.0 * ndtr(-abs(drop) / error)) if error > 0.0 else (1.0 if drop == 0.0 else 0.0),
        method="DeLong",
    )


def mcnemar_mid_p(lost: int, gained: int) -> float:
    """Return the two-sided mid-p value of McNemar's test on the discordant pairs; 1 when there are none.

    Twice the binomial(lost + gained, 1/2) tail of the smaller count, with half weight on that count itself.
    Source: Fagerland, Lydersen and Laake (2013), BMC Medical Research Methodology 13:91, which
    recommends it over the exact conditional test because that is too conservative.
    """
    from scipy.stats import binom

    if lost < 0 or gained < 0:
        raise UsageError(f"counts of discordant pairs cannot be negative, got {lost} and {gained}.")
    smaller, pairs = min(lost, gained), lost + gained
    if lost == gained:
        return 1.0
    return float(2.0 * binom.cdf(smaller, pairs, 0.5) - binom.pmf(smaller, pairs, 0.5))


def paired_score_interval(lost: int, gained: int, *, n: int) -> tuple[float, float]:
    """Return the 95 % interval of (lost - gained) / n over n pairs, by inverting the score test.

    Source: Tango (1998), Statistics in Medicine 17:891, with the constrained maximum-likelihood
    estimate of the nuisance probability. Without discordant pairs it is z**2 / (n + z**2) to either side.
    Raises:
        UsageError: a negative count, or more discordant pairs than pairs.
    """
    if lost < 0 or gained < 0 or n < 1 or lost + gained > n:
        raise UsageError(f"cannot have {lost} + {gained} discordant pairs out of {n}.")
    z = _normal_quantile()
    return -_upper_bound(gained, lost, n, z), _upper_bound(lost, gained, n, z)


def _upper_bound(b: int, c: int, n: int, z: float) -> float:
    """Return the difference above (b - c) / n where the score statistic reaches -z, by bisection."""

    def statistic(delta: float) -> float:
        linear = -b - c + (2 * n - b + c) * delta
        nuisance = (sqrt(max(linear**2 + 8 * n * c * delta * (1 - delta), 0.0)) - linear) / (4 * n)
        variance = n * (2 * nuisance + delta * (1 - delta))
        return (b - c - n * delta) / sqrt(variance) if variance > 0.0 else 0.0

    low, high = (b - c) / n, 1.0
    if low >= high:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if statistic(middle) > -z else (low, middle)
    return (low + high) / 2


def _bootstrap_interval(differences: Scores, *, seed: int) -> tuple[float, float]:
    """Return the 95 % BCa bootstrap interval of the mean of paired differences, float64 [n].

    The tails are widened from the normal's to Student's with n - 1 degrees and by sqrt(n / (n - 1)),
    because a plain bootstrap interval is too short for small n.
    Source: Efron (1987), JASA 82:171 (BCa); Hesterberg (2015), The American Statistician 69:371 (widening).
    """
    from scipy.special import ndtr, ndtri, stdtrit

    n = differences.size
    centred = differences - differences.mean()
    if not np.any(np.abs(centred) > 1e-15 * max(1.0, float(np.abs(differences).max()))):
        mean = float(differences.mean())
        return mean, mean
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            differences[rng.integers(0, n, size=(rows, n))].mean(axis=1)
            for rows in _chunks(_BOOTSTRAP_RESAMPLES, n)
        ]
    )
    below = np.mean(means < differences.mean()) + 0.5 * np.mean(means == differences.mean())
    bias = float(ndtri(np.clip(below, 1e-3, 1 - 1e-3)))
    acceleration = float(np.sum(centred**3) / (6.0 * np.sum(centred**2) ** 1.5))
    widened = sqrt(n / (n - 1)) * float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2))
    levels = []
    for tail in (bias - widened, bias + widened):
        shrink = 1.0 - acceleration * tail
        levels.append(float(ndtr(bias + tail / shrink)) if shrink > 0.0 else float(tail > 0.0))
    low, high = np.quantile(means, levels)
    return float(low), float(high)


def _sign_flip_p(differences: Scores, *, seed: int) -> float:
    """Return the two-sided p-value of a mean difference of zero under random signs (normal if n > 1000)."""
    from scipy.special import ndtr

    n, observed = differences.size, abs(float(differences.sum()))
    spread = sqrt(float(np.sum(differences**2)))
    if spread == 0.0:
        return 1.0
    if n > _PERMUTATION_MAX_N:
        return float(2.0 * ndtr(-observed / spread))
    rng = np.random.default_rng(seed)
    reached = 0
    for rows in _chunks(_PERMUTATIONS, n):
        signs = 2.0 * rng.integers(0, 2, size=(rows, n), dtype=np.int8) - 1.0
        reached += int(np.sum(np.abs(signs @ differences) >= observed * (1.0 - 1e-12)))
    return (1 + reached) / (1 + _PERMUTATIONS)


def _chunks(rows: int, columns: int) -> list[int]:
    step = max(1, _CHUNK_VALUES // columns)
    return [min(step, rows - start) for start in range(0, rows, step)]


def _normal_quantile() -> float:
    from scipy.special import ndtri

    return float(ndtri(0.5 + CONFIDENCE / 2))


def _is_binary(scores: Scores) -> bool:
    return bool(np.all((scores == 0.0) | (scores == 1.0)))


def _scores(name: str, values: Array) -> Scores:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise DataError(
            f"{name} scores have shape {list(scores.shape)}, expected [n] with n >= 1: one per sample."
        )
    bad = int(np.sum(~np.isfinite(scores)))
    if bad:
        raise DataError(
            f"{bad} of {scores.size} {name} scores are NaN or infinite. Check the metric on them."
        )
    return scores
