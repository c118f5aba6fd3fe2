"""Which channels to remove, so that a share of the MACs or parameters remains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgewright.compress.prune_graph import Costs, Group, removed_channels

if TYPE_CHECKING:
    from torch import Tensor

Quantity = Literal["macs", "parameters"]
_MAX_MOVES = 200
_NEAR = 0.002
# Layers with fewer than this many steps of `round_to` are rounded to half as many, and so on.
_MIN_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Root -> the channels to remove, and what should remain: `remains` of the quantity; `least` is possible."""

    channels: Mapping[str, tuple[int, ...]]
    remains: float
    least: float


def choose(
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    costs: Costs,
    what: Quantity,
    target: float,
    *,
    widths: Mapping[str, int],
    round_to: int,
    keep_at_least: float,
    is_global: bool,
    per_cost: bool,
) -> Choice:
    """Return the least important units whose removal leaves about `target` MACs or parameters.

    Args:
        scores: root -> float [units], see `importance_of`; groups without any stay whole.
        widths: root -> channels of the unpruned layer, of which the share `keep_at_least` stays.
        round_to: layers keep a multiple of this many channels, narrow ones of a half, a quarter, ... of it.
        is_global: rank the units of all groups together; else every group loses the same share.
        per_cost: rank by score per saved MAC or parameter.
    """
    ranked = [_Ranked.of(group, scores[group.root]) for group in groups if group.root in scores]
    allowed = [
        _allowed(entry.group, widths[entry.group.root], round_to, keep_at_least, entry.order)
        for entry in ranked
    ]
    prices = [1.0] * len(ranked)
    if per_cost:
        whole = costs.total(what, {})
        prices = [
            max((whole - costs.total(what, removed_channels([(e.group, e.group.units[0])]))) / whole, 1e-12)
            for e in ranked
        ]
    keys: list[tuple[float, int]] = []
    for place, entry in enumerate(ranked):
        for rank, unit in enumerate(entry.order):
            score = float(entry.scores[unit]) / prices[place]
            keys.append((score if is_global else rank / len(entry.order), place))
    keys.sort()

    def counts_of(length: int) -> list[int]:
        wanted = [0] * len(ranked)
        for _, place in keys[:length]:
            wanted[place] += 1
        return [_nearest(options, count) for options, count in zip(allowed, wanted, strict=True)]

    def cost_of(counts: Sequence[int]) -> float:
        return costs.total(
            what, removed_channels((e.group, e.channels(n)) for e, n in zip(ranked, counts, strict=True))
        )

    least = cost_of([options[-1] for options in allowed])
    low, high = 0, len(keys)  # the cost falls as more of the ranking goes
    while low < high:
        middle = (low + high) // 2
        if cost_of(counts_of(middle)) > target:
            low = middle + 1
        else:
            high = middle
    counts = _refine(counts_of(low), allowed, cost_of, target)
    return Choice(
        channels={e.group.root: e.channels(n) for e, n in zip(ranked, counts, strict=True) if n},
        remains=cost_of(counts),
        least=least,
    )


@dataclass(frozen=True, kw_only=True)
class _Ranked:
    """A group with its units in the order in which they go."""

    group: Group
    scores: Tensor
    order: tuple[int, ...]

    @staticmethod
    def of(group: Group, scores: Tensor) -> _Ranked:
        order = tuple(int(i) for i in scores.argsort(stable=True))
        return _Ranked(group=group, scores=scores, order=order)

    def channels(self, count: int) -> tuple[int, ...]:
        """Return the channels of the `count` least important units."""
        return tuple(sorted(c for unit in self.order[:count] for c in self.group.units[unit]))


def _allowed(
    group: Group, width: int, round_to: int, keep_at_least: float, order: Sequence[int]
) -> tuple[int, ...]:
    """Return how many units may go, ascending from 0."""
    step = max(round_to, 1)
    while step > 1 and width < _MIN_STEPS * step:
        step = max(1, step // 2)
    floor = max(1, math.ceil(keep_at_least * width))
    left = group.channels
    found = [0]
    for count, unit in enumerate(order[:-1], start=1):
        left -= len(group.units[unit])
        if left < floor:
            break
        if left % step == 0:
            found.append(count)
    if len(found) == 1 and len(group.units[0]) > 1 and step > 1:  # units do not fit the steps: heads of 12
        return _allowed(group, width, 1, keep_at_least, order)
    return tuple(found)


def _nearest(options: Sequence[int], count: int) -> int:
    return min(options, key=lambda option: (abs(option - count), option))


def _refine(
    counts: list[int],
    allowed: Sequence[Sequence[int]],
    cost_of: Callable[[Sequence[int]], float],
    target: float,
) -> list[int]:
    """Return `counts` with single layers one step wider or narrower, while that comes nearer to `target`."""
    best = abs(cost_of(counts) - target)
    for _ in range(_MAX_MOVES):
        if best <= _NEAR * target:
            break
        moves: list[tuple[float, list[int]]] = []
        for place, options in enumerate(allowed):
            now = options.index(counts[place])
            for other in (now - 1, now + 1):
                if 0 <= other < len(options):
                    moved = [*counts[:place], options[other], *counts[place + 1 :]]
                    moves.append((abs(cost_of(moved) - target), moved))
        nearest = min(moves, key=lambda move: move[0], default=(best, counts))
        if nearest[0] >= best:
            break
        best, counts = nearest
    return counts
