"""Segments of a file whose format is not understood: cut where the statistics of its bytes change."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from edgewright.core.tensors import Array

Counts = npt.NDArray[np.int64]
WINDOW_BYTES = 1 << 11
_MAX_WINDOWS = 1 << 10  # more take longer windows: the work grows with their number
_PHASES = 4
_TABLE_BITS = 400.0  # of a table of bytes; a sparse one takes less
_RANGE_BITS = 100.0


def find_segments(content: Array) -> list[tuple[int, int]]:
    """Return (start, length) of the pieces of `content` (uint8) that are each best coded by tables of their own.

    Windows of 2 KiB or more are merged with their neighbours, those first that save most, as long as one set of
    tables takes fewer bits than two.
    """
    window_bytes = WINDOW_BYTES
    while len(content) > _MAX_WINDOWS * window_bytes:
        window_bytes *= 2
    from edgewright.ewz.kernels import count_planes

    count = len(content) // window_bytes
    if count == 0:
        return []
    counts = [
        count_planes(content[at * window_bytes : (at + 1) * window_bytes], _PHASES, True)
        for at in range(count)
    ]
    costs = [_bits(c) for c in counts]
    after = [*range(1, count), -1]
    before = list(range(-1, count - 1))
    version = [0] * count
    size = [1] * count
    waiting: list[tuple[float, int, int, int, int]] = []

    def offer(first: int, second: int) -> None:
        gain = costs[first] + costs[second] - _bits(counts[first] + counts[second])
        if gain > 0:
            # Per window, or two long alike segments would go before many short ones.
            waiting_gain = gain / min(size[first], size[second])
            heapq.heappush(waiting, (-waiting_gain, first, second, version[first], version[second]))

    for first in range(count - 1):
        offer(first, first + 1)
    while waiting:
        _, first, second, own, other = heapq.heappop(waiting)
        if version[first] != own or version[second] != other:
            continue
        counts[first] = counts[first] + counts[second]
        costs[first] = _bits(counts[first])
        size[first] += size[second]
        version[first] += 1
        version[second] = -1
        after[first] = after[second]
        if after[first] >= 0:
            before[after[first]] = first
            offer(first, after[first])
        if before[first] >= 0:
            offer(before[first], first)
    pieces = []
    at = 0
    while at >= 0:
        pieces.append((at * window_bytes, size[at] * window_bytes))
        at = after[at]
    start, length = pieces[-1]
    pieces[-1] = (start, len(content) - start if len(content) - start - length < window_bytes else length)
    return pieces


def _bits(counts: Counts) -> float:
    """Return about how many bits the bytes counted by phase (int64 [4, 256]) take, as bytes or as byte planes."""
    return _RANGE_BITS + min(
        _entropy(counts.sum(axis=0, keepdims=True)),
        _entropy(counts[:2] + counts[2:]),
        _entropy(counts),
    )


def _entropy(planes: Counts) -> float:
    used = np.maximum(planes, 1)
    totals = np.maximum(planes.sum(axis=1), 1)
    bits = float((totals * np.log2(totals)).sum() - (planes * np.log2(used)).sum())
    return bits + float(np.minimum(2.0 * (planes > 0).sum(axis=1) + 20.0, _TABLE_BITS).sum())
