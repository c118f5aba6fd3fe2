"""Tell whether calibration samples look like the evaluation samples.

Each sample becomes a handful of numbers (level, spread, range, smoothness along each axis, likeness to
the mean sample, channel balance). Their distributions are compared by the two-sample Kolmogorov-Smirnov
statistic, which knows no unit and no shape of distribution. Smoothness and likeness are what random
numbers with the right mean and spread do not have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgewright.core.tensors import Array
from edgewright.data.lints import Lint

Floats = npt.NDArray[np.float64]

# A difference counts when chance alone would show it once in a million comparisons and it is not small.
# Measured on random halves of six real data sets: tests/data/test_calibration_evidence.py.
_CHANCE = 1e-6
WARN_DISTANCE = 0.25
SEVERE_DISTANCE = 0.5
_MAX_CHANNELS = 16
_PROJECTED = 64
_CHUNK_SAMPLES = 64
# Values of one set that are looked at: 128 MiB as float64, for photographs still over 100 samples.
_MAX_VALUES = 16 << 20
_RANGE = ("level", "spread", "minimum", "maximum")


def ks_distance(a: Floats, b: Floats) -> float:
    """Return sup |F_a - F_b| of the empirical distribution functions of two samples (1-D)."""
    points = np.concatenate([a, b])
    below_a = np.searchsorted(np.sort(a), points, side="right") / len(a)
    below_b = np.searchsorted(np.sort(b), points, side="right") / len(b)
    return float(np.abs(below_a - below_b).max())


def ks_critical(count_a: int, count_b: int) -> float:
    """Return the distance that two samples of one distribution exceed with probability 1e-6.

    2 exp(-2 t**2) = p, with t = (sqrt(m) + 0.12 + 0.11 / sqrt(m)) d and m = ab / (a + b).
    Source: Stephens, Journal of the Royal Statistical Society B 32 (1970), the leading term.
    """
    root = math.sqrt(count_a * count_b / (count_a + count_b))
    return math.sqrt(-math.log(_CHANCE / 2) / 2) / (root + 0.12 + 0.11 / root)


def describe(samples: Array, mean_sample: Floats, unit: float) -> dict[str, Floats]:
    """Return name -> one number per sample.

    Args:
        samples: [n, ...], numeric.
        mean_sample: [...], the mean over both sets, so that neither has an advantage.
        unit: the spread of both sets; guards the logarithm and the divisions.
    """
    values = samples.astype(np.float64)
    flat = values.reshape(len(values), -1)
    level, spread = flat.mean(axis=1), flat.std(axis=1)
    found: dict[str, Floats] = {"level": level}
    if flat.shape[1] == 1:
        return found
    tiny = 1e-6 * unit
    found["spread"] = np.log(spread + tiny)
    found["minimum"], found["maximum"] = flat.min(axis=1), flat.max(axis=1)
    centred = flat - level[:, None]
    profile = mean_sample.reshape(-1) - mean_sample.mean()
    found["likeness to the mean sample"] = (centred @ profile) / (
        np.linalg.norm(centred, axis=1) * np.linalg.norm(profile) + tiny
    )
    rest = tuple(range(1, values.ndim))
    for axis in rest:
        size = values.shape[axis]
        if size >= 4:
            steps = np.mean(np.diff(values, axis=axis) ** 2, axis=rest)
            found[f"smoothness along axis {axis}"] = 1 - steps / (2 * spread**2 + tiny**2)
        if values.ndim > 2 and 2 <= size <= _MAX_CHANNELS and axis in (1, values.ndim - 1):
            means = values.mean(axis=tuple(a for a in rest if a != axis))
            for channel in range(size):
                found[f"balance of channel {channel} (axis {axis})"] = means[:, channel] - level
    return found


def compared_count(samples: Array) -> int:
    """Return how many samples like those of [n, ...] `compare` looks at."""
    sample_size: int = samples[0].size
    return max(_MAX_VALUES // max(sample_size, 1), 32)


def compare(name: str, calibration: Array, evaluation: Array) -> list[Lint]:
    """Return what is different between two sets of samples of input `name`, at most one lint per kind.

    Only the first samples are looked at where a set has over 16 million values: give them in random order.

    Args:
        calibration, evaluation: [n, ...] with the same sample shape.
    """
    most = compared_count(calibration)
    a, b = calibration[:most].astype(np.float64), evaluation[:most].astype(np.float64)
    pooled_count = len(a) + len(b)
    mean_sample = (a.sum(axis=0) + b.sum(axis=0)) / pooled_count
    unit = float(np.concatenate([a.reshape(-1), b.reshape(-1)]).std())
    if unit == 0:
        return []
    in_a, in_b = describe(a, mean_sample, unit), describe(b, mean_sample, unit)
    critical = max(ks_critical(len(a), len(b)), WARN_DISTANCE)
    distances = {key: ks_distance(in_a[key], in_b[key]) for key in in_a}
    lints = []
    for code, kind, keys in (
        ("calibration-range", "range", [key for key in in_a if key in _RANGE]),
        ("calibration-structure", "structure", [key for key in in_a if key not in _RANGE]),
    ):
        worst = max(keys, key=lambda key: distances[key], default=None)
        if worst is None or distances[worst] <= critical:
            continue
        message = (
            f"calibration looks unlike the evaluation data in {kind}: input {name!r}, {worst}, median "
            f"{_median(in_a[worst])} in {len(a)} calibration samples and "
            f"{_median(in_b[worst])} in {len(b)} evaluation samples (distance {distances[worst]:.2f} of 1)"
        )
        lints.append(Lint(code=code, message=message, is_severe=distances[worst] >= SEVERE_DISTANCE))
    return lints


def _median(values: Floats) -> str:
    return f"{float(np.median(values)):.4g}"


def count_near_duplicates(inputs: Sequence[Array], *, seed: int) -> int:
    """Return how many samples lie within 1 % of the median pair distance of an earlier one.

    Each input counts in units of its own spread. Distances are taken after a random projection of a
    sample to 64 values, which keeps them within a few tens of percent.

    Args:
        inputs: numeric arrays [n, ...] of the same samples.
    Source: Johnson and Lindenstrauss (1984) for the projection.
    """
    count = len(inputs[0])
    generator = np.random.default_rng(seed)
    projected = np.zeros((count, _PROJECTED))
    for array in inputs:
        flat = array.reshape(count, -1)
        spread = float(flat.std(dtype=np.float64))
        if spread == 0:
            continue
        matrix = generator.normal(0, 1 / spread, (flat.shape[1], _PROJECTED))
        for start in range(0, count, _CHUNK_SAMPLES):
            projected[start : start + _CHUNK_SAMPLES] += (
                flat[start : start + _CHUNK_SAMPLES].astype(float) @ matrix
            )
    if count < 3 or not projected.any():
        return 0
    centred = projected - projected.mean(axis=0)
    squares = (centred**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * centred @ centred.T, 0.0)
    rows, columns = np.tril_indices(count, -1)
    near = np.zeros_like(distances, dtype=bool)
    near[rows, columns] = distances[rows, columns] <= 1e-4 * float(np.median(distances[rows, columns]))
    return int(near.any(axis=1).sum())
