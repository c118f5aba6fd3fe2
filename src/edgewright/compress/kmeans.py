"""k-means of numbers: the few values that stand for many."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Init = Literal["kmeans++", "linear"]
Floats = npt.NDArray[np.float64]
_RESTARTS = 4
_MAX_ROUNDS = 300


def fit_codebook(values: npt.NDArray[np.floating], count: int, *, init: Init, seed: int) -> Floats:
    """Return at most `count` numbers, float64 [k] sorted, near which `values` lie: sum of squares is minimal locally.

    With no more than `count` different values these are returned as they are.

    Args:
        values: finite, any shape, at least one.
        init: "kmeans++" (Arthur and Vassilvitskii 2007; the best of several starts) or "linear", evenly spaced from
            the smallest to the largest, which serves the rare large weights (Han, Mao, Dally 2016, 3.2).
    """
    ordered = np.sort(values.astype(np.float64), axis=None)
    different = np.unique(ordered)
    if len(different) <= count:
        return different
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    if init == "linear":
        return _lloyd(ordered, sums, np.linspace(ordered[0], ordered[-1], count))
    generator = np.random.default_rng(seed)
    starts = [_spread_start(ordered, count, generator) for _ in range(_RESTARTS)]
    fits = [_lloyd(ordered, sums, start) for start in starts]
    return min(fits, key=lambda centres: squared_error(ordered, centres))


def nearest(values: npt.NDArray[np.floating], codebook: Floats) -> npt.NDArray[np.int64]:
    """Return the index of the nearest number of the sorted `codebook` for each of `values`, in their shape."""
    borders = (codebook[1:] + codebook[:-1]) / 2
    return np.searchsorted(borders, values.astype(np.float64)).astype(np.int64)


def squared_error(values: npt.NDArray[np.floating], codebook: Floats) -> float:
    """Return the sum of squared distances of `values` to the nearest number of the sorted `codebook`."""
    return float(np.square(values - codebook[nearest(values, codebook)]).sum())


def _spread_start(ordered: Floats, count: int, generator: np.random.Generator) -> Floats:
    """Draw values, each with a probability that grows with the squared distance to those drawn before."""
    drawn = [ordered[generator.integers(len(ordered))]]
    distances = np.square(ordered - drawn[0])
    for _ in range(count - 1):
        reached = np.cumsum(distances)
        if reached[-1] == 0:
            break
        place = np.searchsorted(reached, generator.random() * reached[-1], side="right")
        drawn.append(ordered[min(int(place), len(ordered) - 1)])
        np.minimum(distances, np.square(ordered - drawn[-1]), out=distances)
    return np.unique(drawn)


def _lloyd(ordered: Floats, sums: Floats, centres: Floats) -> Floats:
    """Move each centre to the mean of its values until nothing moves; a centre without values stays.

    `ordered` is sorted, so a cluster is a range and `sums`, the running sums, give its mean at once.
    """
    for _ in range(_MAX_ROUNDS):
        edges = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(ordered)]])
        counts = np.diff(edges)
        totals = sums[edges[1:]] - sums[edges[:-1]]
        moved = np.where(counts > 0, totals / np.maximum(counts, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = np.sort(moved)
    return centres
