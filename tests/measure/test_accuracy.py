"""Accuracy statistics against published examples, written-out definitions and coverage simulations."""

import numpy as np
import pytest

from edgewright.core.errors import DataError, UsageError
from edgewright.measure.accuracy import compare_auc, compare_scores, mcnemar_mid_p, paired_score_interval


def _pairs(both: int, lost: int, gained: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    source = np.repeat([1.0, 1.0, 0.0, 0.0], [both, lost, gained, neither])
    candidate = np.repeat([1.0, 0.0, 1.0, 0.0], [both, lost, gained, neither])
    return source, candidate


def test_mcnemar_and_interval_of_the_published_airway_example() -> None:
    """21 children, 1 and 7 discordant pairs: mid-p 0.039 (Fagerland et al. 2013, BMC Med Res Methodol 13:91);

    Tango interval -0.517 to -0.026 (Fagerland et al. 2014, Statistics in Medicine 33:2850).
    """
    drop = compare_scores(*_pairs(1, 1, 7, 12))
    assert drop.p_value == pytest.approx(0.0391, abs=5e-5)
    assert drop.drop_points == pytest.approx(-100 * 6 / 21)
    assert drop.drop_ci95 == pytest.approx((-51.7, -2.6), abs=0.05)
    assert drop.conclusion == "proven better"


def test_mcnemar_of_the_published_approval_ratings() -> None:
    """Agresti, Categorical Data Analysis, 10.1: 794, 150, 86, 570; z**2 = 17.36, about 0.021 to 0.059."""
    drop = compare_scores(*_pairs(794, 150, 86, 570))
    assert drop.drop_points == pytest.approx(4.0)
    assert drop.drop_ci95 == pytest.approx((2.1, 5.9), abs=0.06)
    assert 2e-5 < drop.p_value < 5e-5  # the normal approximation gives 3.1e-5
    assert drop.conclusion == "proven worse"


def test_interval_without_discordant_pairs_is_not_empty() -> None:
    drop = compare_scores(*_pairs(90, 0, 0, 10))
    bound = 100 * 1.959964**2 / (100 + 1.959964**2)
    assert drop.drop_ci95 == pytest.approx((-bound, bound), rel=1e-5)
    assert drop.p_value == 1.0
    assert drop.conclusion == "not proven"
    assert drop.against(0.5) == "not proven"
    assert compare_scores(*_pairs(9000, 0, 0, 1000)).against(0.5) == "proven within"


@pytest.mark.parametrize(
    ("n", "lost", "gained"), [(32, 0.02, 0.0), (32, 0.1, 0.05), (200, 0.02, 0.02), (1000, 0.004, 0.001)]
)
def test_paired_score_interval_covers(n: int, lost: float, gained: float) -> None:
    """The exact coverage, summed over all outcomes: not below 93 % even for small n and rare disagreement."""
    from scipy.stats import multinomial

    covered = 0.0
    limit = min(n, int(n * (lost + gained) + 8 * np.sqrt(n * (lost + gained)) + 8))
    outcomes = multinomial(n, [lost, gained, 1 - lost - gained])
    for b in range(limit + 1):
        for c in range(limit + 1 - b):
            probability = float(outcomes.pmf([b, c, n - b - c]))
            if probability > 1e-9:
                low, high = paired_score_interval(b, c, n=n)
                covered += probability * (low <= lost - gained <= high)
    assert covered >= 0.93


@pytest.mark.parametrize("n", [12, 100])
def test_bootstrap_interval_covers_skewed_differences(n: int) -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for seed in range(150):
        source = rng.normal(1.0, 0.3, n)
        candidate = source - rng.gamma(2.0, 0.05, n)  # the true drop is 0.1
        low, high = compare_scores(source, candidate, seed=seed).drop_ci95
        hits += low <= 10.0 <= high
    assert hits >= 0.91 * 150


def test_permutation_p_is_uniform_without_an_effect() -> None:
    rng = np.random.default_rng(3)
    p = [compare_scores(x, x + rng.laplace(0, 0.1, 30)).p_value for x in rng.normal(size=(300, 30))]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09
    assert 0.42 < np.mean(np.array(p) < 0.5) < 0.58


def test_errors_count_upwards_as_a_drop() -> None:
    rng = np.random.default_rng(0)
    mse = rng.gamma(2.0, 0.1, 2000)
    worse = compare_scores(mse, mse + rng.gamma(1.0, 0.02, 2000), higher_is_better=False)
    assert worse.drop_points > 0
    assert worse.conclusion == "proven worse"
    assert worse.p_value < 1e-6
    assert worse.value > worse.source_value


def test_same_scores_give_the_same_record() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    assert compare_scores(a, b, seed=4) == compare_scores(a, b, seed=4)
    assert compare_scores(a, b, seed=4).drop_ci95 != compare_scores(a, b, seed=5).drop_ci95


def test_identical_real_scores_have_no_drop() -> None:
    scores = np.linspace(0.1, 0.9, 20)
    drop = compare_scores(scores, scores)
    assert (drop.drop_points, drop.drop_ci95, drop.p_value) == (0.0, (0.0, 0.0), 1.0)


def _delong_by_definition(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    def components(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = scores[labels == 1], scores[labels == 0]
        wins = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
        return wins.mean(axis=1), wins.mean(axis=0)

    (a10, a01), (b10, b01) = components(a), components(b)
    s10, s01 = np.cov(a10, b10), np.cov(a01, b01)
    contrast = np.array([1.0, -1.0])
    variance = contrast @ (s10 / a10.size + s01 / a01.size) @ contrast
    return float(a10.mean()), float(b10.mean()), float(np.sqrt(variance))


def test_delong_equals_its_definition_with_ties() -> None:
    """DeLong et al. (1988) written out over all pairs, equations 3 to 6."""
    rng = np.random.default_rng(1)
    labels = (rng.random(80) < 0.4).astype(float)
    a = np.round(rng.normal(labels, 1.0), 1)
    b = np.round(0.7 * a + rng.normal(0, 0.8, 80), 1)
    first, second, error = _delong_by_definition(labels, a, b)
    drop = compare_auc(labels, a, b)
    assert (drop.source_value, drop.value) == pytest.approx((first, second))
    half = (drop.drop_ci95[1] - drop.drop_ci95[0]) / 2
    assert half == pytest.approx(100 * 1.959964 * error, rel=1e-6)


def test_delong_p_is_calibrated_and_finds_a_worse_scorer() -> None:
    rng = np.random.default_rng(5)
    p, found = [], 0
    for _ in range(300):
        labels = np.repeat([0.0, 1.0], 60)
        signal = rng.normal(labels, 0.7)
        a, b = signal + rng.normal(0, 0.5, 120), signal + rng.normal(0, 0.5, 120)
        p.append(compare_auc(labels, a, b).p_value)
        found += compare_auc(labels, a, signal + rng.normal(0, 3.0, 120)).conclusion == "proven worse"
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09
    assert found > 0.9 * 300


def test_an_unchanged_ranking_has_no_auc_drop() -> None:
    labels, scores = np.array([0.0, 0, 1, 1, 1]), np.array([0.1, 0.6, 0.5, 0.8, 0.9])
    drop = compare_auc(labels, scores, 2 * scores - 1)
    assert (drop.drop_points, drop.p_value, drop.conclusion) == (0.0, 1.0, "not proven")
    assert drop.value == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("source", "candidate", "words"),
    [
        ([1.0, 0.0], [1.0], "2 source scores with 1"),
        ([], [], "n >= 1"),
        ([[1.0]], [[1.0]], r"\[1, 1\]"),
        ([1.0, np.nan], [1.0, 0.0], "1 of 2 source scores"),
        ([0.5], [0.4], "at least 2"),
    ],
)
def test_bad_scores_are_refused(source: list[float], candidate: list[float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        compare_scores(np.array(source), np.array(candidate))


def test_bad_labels_and_counts_are_refused() -> None:
    with pytest.raises(DataError, match="label of 0 or 1"):
        compare_auc(np.array([0.0, 2.0, 1.0]), np.zeros(3), np.zeros(3))
    with pytest.raises(DataError, match="2 samples of each class"):
        compare_auc(np.array([0.0, 0.0, 1.0]), np.zeros(3), np.zeros(3))
    with pytest.raises(UsageError, match="out of 3"):
        paired_score_interval(2, 2, n=3)
    with pytest.raises(UsageError, match="negative"):
        mcnemar_mid_p(-1, 2)
