"""Tables of symbol probabilities: chosen for the fewest bits of table and data together, and coded in the control.

A table gives each symbol a level, 0 for "does not occur" or 1..64 in steps of 2 ** (1/4): a frequency that is off by
the 9 % of half a step costs 0.002 bits a symbol, and levels of a smooth distribution differ little from one symbol to
the next. Each level is coded given the one before it and what the last table of the same alphabet has there.
"""

from __future__ import annotations

import numpy as np

from edgewright.core.tensors import Array
from edgewright.ewz.kernels import (
    MAX_LEVEL,
    Coder,
    compiled,
    get_bit,
    get_tree,
    put_bit,
    put_tree,
)

# Contexts, from `base`: 9 for "does not occur", a tree of 64 for a first level, then for each of 6 slopes of the
# reference one "the same", one "up" and 16 of a unary count.
_ABSENT, _FIRST, _DELTA, _DELTA_SIZE = 0, 9, 73, 18
_SLOPES = 6
TABLE_CONTEXTS = _DELTA + _SLOPES * _DELTA_SIZE


@compiled
def _absent_context(reference: Array, symbol: int, last: int) -> int:
    expected = 0 if len(reference) == 0 else 1 if reference[symbol] == 0 else 2
    before = 0 if symbol == 0 else 1 if last == 0 else 2
    return _ABSENT + 3 * expected + before


@compiled
def _slope_context(reference: Array, symbol: int) -> int:
    if len(reference) == 0 or reference[symbol] == 0 or reference[symbol - 1] == 0:
        return _DELTA
    slope: int = min(max(reference[symbol] - reference[symbol - 1], -2), 2)
    return _DELTA + (slope + 3) * _DELTA_SIZE


@compiled
def put_levels(state: Array, out: Array, contexts: Array, base: int, levels: Array, reference: Array) -> None:
    """Append `levels`; `reference` is the last table of the same alphabet, or empty."""
    last = 0
    for symbol in range(len(levels)):
        level = levels[symbol]
        put_bit(state, out, contexts, base + _absent_context(reference, symbol, last), 0 if level else 1)
        if level and last == 0:
            put_tree(state, out, contexts, base + _FIRST, level - 1, 6)
        elif level:
            at = base + _slope_context(reference, symbol)
            delta = level - last
            put_bit(state, out, contexts, at, 1 if delta == 0 else 0)
            if delta:
                put_bit(state, out, contexts, at + 1, 1 if delta > 0 else 0)
                # No more steps than there is room for, so that each level has one code.
                room = MAX_LEVEL - last if delta > 0 else last - 1
                for step in range(1, room):
                    is_end = 1 if step == abs(delta) else 0
                    put_bit(state, out, contexts, at + 1 + min(step, 16), is_end)
                    if is_end:
                        break
        last = level


@compiled
def get_levels(
    coder: Coder, data: Array, contexts: Array, base: int, levels: Array, reference: Array
) -> tuple[bool, Coder]:
    """Fill `levels` with what `put_levels` appended; return whether an encoder writes this, and the state after it."""
    last = 0
    largest = 0
    for symbol in range(len(levels)):
        level = 0
        absent, coder = get_bit(coder, data, contexts, base + _absent_context(reference, symbol, last))
        if absent == 0 and last == 0:
            level, coder = get_tree(coder, data, contexts, base + _FIRST, 6)
            level += 1
        elif absent == 0:
            at = base + _slope_context(reference, symbol)
            level = last
            is_same, coder = get_bit(coder, data, contexts, at)
            if is_same == 0:
                is_up, coder = get_bit(coder, data, contexts, at + 1)
                room = MAX_LEVEL - last if is_up else last - 1
                size = 1
                is_end = 0
                while size < room and is_end == 0:
                    is_end, coder = get_bit(coder, data, contexts, at + 1 + min(size, 16))
                    size += 1 - is_end
                if room < 1:
                    return False, coder
                level = last + size if is_up else last - size
        levels[symbol] = level
        last = level
        largest = max(largest, level)
    return largest > 0, coder


@compiled
def _bit_cost(contexts: Array, index: int, bit: int) -> float:
    share = min(max(contexts[index, 0] >> 6, 16), 65520) / 65536.0
    cost: float = -np.log2(share if bit else 1.0 - share)
    return cost


@compiled
def choose_levels(counts: Array, contexts: Array, base: int, reference: Array) -> Array:
    """Return the levels (int64 [symbols]) with the fewest bits of table and data together, by dynamic programming.

    The data take sum(counts * log2(sum(weights) / weight)) bits. The logarithm of the sum of the weights is replaced
    by its tangent at the sum that the most frequent symbol's level of 64 implies, so that the cost is a sum over
    symbols; at the best levels both have the same derivative.
    """
    alphabet = len(counts)
    total = counts.sum()
    largest = max(counts.max(), 1)
    width = MAX_LEVEL + 1
    step_cost = np.empty((_SLOPES, 2 * MAX_LEVEL + 1))
    for slope in range(_SLOPES):
        at = base + _DELTA + slope * _DELTA_SIZE
        step_cost[slope, MAX_LEVEL] = _bit_cost(contexts, at, 1)
        for direction in range(2):
            run = _bit_cost(contexts, at, 0) + _bit_cost(contexts, at + 1, direction)
            for size in range(1, MAX_LEVEL + 1):
                index = at + 1 + min(size, 16)
                step_cost[slope, MAX_LEVEL + (size if direction else -size)] = run + _bit_cost(
                    contexts, index, 1
                )
                run += _bit_cost(contexts, index, 0)
    best = np.full(width, np.inf)
    best[0] = 0.0
    came = np.zeros((alphabet, width), dtype=np.uint8)
    for symbol in range(alphabet):
        made = np.full(width, np.inf)
        slope = 0 if symbol == 0 else (_slope_context(reference, symbol) - _DELTA) // _DELTA_SIZE
        ideal = MAX_LEVEL + 4.0 * np.log2(max(counts[symbol], 0.02) / largest)
        for last in range(width):
            if not np.isfinite(best[last]):
                continue
            absent = base + _absent_context(reference, symbol, last)
            if counts[symbol] == 0:
                cost = best[last] + _bit_cost(contexts, absent, 1)
                if cost < made[0]:
                    made[0] = cost
                    came[symbol, 0] = last
            present = best[last] + _bit_cost(contexts, absent, 0)
            for level in range(max(1, int(ideal) - 8), min(MAX_LEVEL, max(int(ideal) + 8, 12)) + 1):
                # Relative to the most frequent symbol: weight 2 ** ((level - 64) / 4).
                weight = 2.0 ** ((level - MAX_LEVEL) / 4)
                cost = (
                    present - counts[symbol] * (level - MAX_LEVEL) / 4 + 1.4426950408889634 * largest * weight
                )
                cost += 6.0 if last == 0 else step_cost[slope, MAX_LEVEL + level - last]
                if cost < made[level]:
                    made[level] = cost
                    came[symbol, level] = last
        best = made
    levels = np.zeros(alphabet, dtype=np.int64)
    level = int(np.argmin(best))
    for symbol in range(alphabet - 1, -1, -1):
        levels[symbol] = level
        level = came[symbol, level]
    if total == 0:
        levels[:] = 0
    return levels


@compiled
def data_bits(counts: Array, frequency: Array, bits: int) -> float:
    """Return how many bits symbols with `counts` take under `frequency`; infinite where one has none."""
    whole = 0.0
    for symbol in range(len(counts)):
        if counts[symbol]:
            if frequency[symbol] == 0:
                return np.inf
            whole += counts[symbol] * (bits - np.log2(frequency[symbol]))
    return whole
