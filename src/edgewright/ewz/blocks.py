"""Blocks of a range that share tables: the rows of a weight tensor differ in spread, and sparse ones in density.

Blocks are clustered by the bits that they take under each cluster's frequencies, as k-means clusters points by their
distance to each centre.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgewright.core.tensors import Array
from edgewright.ewz.symbols import MAX_STRIDE

_BLOCKS = (32, 128, 512, 2048)
_TABLES = (2, 4, 8)
_ROUNDS = 4
_MIN_COUNT = 8  # blocks of a range, at least
_MAX_COUNT = 1 << 12
_TABLE_BITS = 60.0
_SYMBOL_BITS = 1.2  # of a table, for each symbol that it holds
_SMOOTHING = 0.05
_MIN_PERIODIC, _MAX_PERIODIC = 1 << 10, 1 << 22  # symbols
_PEAKS = 12
_PEAK = 6.0  # times the root of the mean square


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which table codes each block; `bits` is about what that takes, tables and picks counted."""

    block: int
    picks: npt.NDArray[np.int64]
    counts: tuple[npt.NDArray[np.int64], ...]
    bits: float


def splits(values: Array, alphabet: int) -> Iterator[Split]:
    """Yield splits of symbols (uint8) into blocks that share 2, 4 or 8 tables."""
    from edgewright.ewz.kernels import count_blocks

    for block in _BLOCKS:
        number = -(-len(values) // block)
        if not _MIN_COUNT <= number <= _MAX_COUNT:
            continue
        counts = count_blocks(values, block, alphabet)
        for tables in _TABLES:
            picks = _cluster(counts.astype(np.float32), tables)
            used, picks = np.unique(picks, return_inverse=True)
            picks = picks.astype(np.int64)
            if len(used) < 2:
                continue
            sums = np.stack([counts[picks == pick].sum(axis=0) for pick in range(len(used))])
            bits = 4.0 * len(used) ** 2
            bits += sum(_bits(row) + _TABLE_BITS + _SYMBOL_BITS * int(np.count_nonzero(row)) for row in sums)
            pairs = np.zeros((len(used), len(used)), dtype=np.int64)
            np.add.at(pairs, (picks[:-1], picks[1:]), 1)
            bits += sum(_bits(row) for row in pairs)
            yield Split(block=block, picks=picks, counts=tuple(sums), bits=bits)


def periods(values: Array) -> list[int]:
    """Return up to two strides at which symbols (uint8) are alike: the length of a row whose columns differ.

    They are peaks of the autocorrelation of "is the most frequent symbol or not"; found by statistics, since most
    formats do not tell the shape of what they store.
    """
    if not _MIN_PERIODIC <= len(values) <= _MAX_PERIODIC:
        return []
    counts = np.bincount(values)
    marks = (values == counts.argmax()).astype(np.float32)
    marks -= marks.mean()
    size = 1 << (2 * len(values) - 1).bit_length()
    spectrum = np.fft.rfft(marks, size)
    alike = np.fft.irfft(spectrum * np.conj(spectrum), size)[2 : min(len(values) // 16, MAX_STRIDE)]
    noise = np.sqrt(np.square(alike).mean()) + 1e-9
    best = np.argsort(-alike)[:_PEAKS]
    found = [int(lag) + 2 for lag in best if alike[lag] > _PEAK * noise]
    return [lag for lag in found if len(values) % (4 * lag) == 0][:2]


def _cluster(counts: npt.NDArray[np.float32], tables: int) -> npt.NDArray[np.int64]:
    whole = counts.sum(axis=0) + _SMOOTHING
    # Blocks in the order of how dear they are under one table for all, cut into equal groups.
    dearness = counts @ -np.log2(whole / whole.sum()) / np.maximum(counts.sum(axis=1), 1)
    picks = (np.argsort(np.argsort(dearness)) * tables // len(counts)).astype(np.int64)
    for _ in range(_ROUNDS):
        sums = np.stack([counts[picks == pick].sum(axis=0) for pick in range(tables)])
        sums += _SMOOTHING * whole / whole.sum() + 1e-3
        costs = counts @ -np.log2(sums / sums.sum(axis=1, keepdims=True)).T
        moved = costs.argmin(axis=1)
        if np.array_equal(moved, picks):
            break
        picks = moved
    return picks


def _bits(counts: npt.NDArray[np.int64]) -> float:
    used = counts[counts > 0].astype(np.float64)
    return float((used * np.log2(used.sum() / used)).sum())
