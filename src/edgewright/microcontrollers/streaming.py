"""Which layers run row by row: the chains with which the arena becomes smallest, as few layers as that takes.

A chain keeps rings of rows instead of whole tensors. Nothing is computed twice, so that a chain costs no
multiplications; it costs a call for each row and a table of the order. First, the least peak of bytes alive that any
division into chains reaches is found, segment by segment; then, for some limits from there up to the peak without
chains, the division with the fewest chained layers; the smallest arena of their plans wins. Where the packing needs
more than what is alive, short chains are tried beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgewright.microcontrollers.graph import Graph
from edgewright.microcontrollers.layer import Layer
from edgewright.microcontrollers.planner import Plan, inner_tensors, joined, plan_memory, ring_span
from edgewright.microcontrollers.timeline import (
    MOST_LAYERS,
    Chain,
    Span,
    Timeline,
    chain_of,
    consumers_of,
    kept_rows,
)

LONGEST_CHAIN = 14
MOST_CHAIN_STEPS = 2048
# A chain of more layers must make the arena smaller by this part of it for each.
_WORTH = 1 / 256
_LIMITS = 8
# An arena within this factor of its live bytes is left as it is; else chains of these lengths are tried one by one.
_NEAR = 1.01
_LENGTHS = (2, 4)
_ROUNDS = 3
# Of the arena, the size from which on a tensor is worth a chain of its own.
_LARGE = 1 / 4
# What one part more of the multiplications, done pixel by pixel and not in pairs, must make the arena smaller.
_PRICE = 4

_Cost = Callable[[int, int], int]


def plan_streamed(graph: Graph, layers: Sequence[Layer]) -> Plan:
    """Return the plan with the smallest arena, with chains where they make it smaller."""
    best = plan_memory(graph, layers)
    if len(layers) > MOST_LAYERS:
        return best
    found = Segments(graph, layers)
    if not found.chainable():
        return best
    for limit in _limits(found, len(layers)):
        best = found.better(best, found.chains(_division(found.peak, len(layers), limit)))
    for _ in range(_ROUNDS):
        before = best
        if best.arena_bytes <= best.live_bytes * _NEAR:
            break
        for segment in found.beside(before):
            chains = sorted([*before.chains, *found.chains([segment])], key=lambda chain: chain.first)
            best = found.better(best, tuple(chains))
        if best is before:
            break
    return best


def _limits(found: Segments, count: int) -> list[int]:
    """Return peaks from the least that can be reached to the one without chains."""
    least = _least_peak(found.peak, count)
    most = max(found.peak(at, at) for at in range(count))
    peaks = {found.peak(first, last) for first, last in found.known()}
    between = sorted(peak for peak in peaks if least < peak < most)
    chosen = [between[i * len(between) // _LIMITS] for i in range(_LIMITS)] if between else []
    return sorted({least, *chosen})


def _least_peak(peak: _Cost, count: int) -> int:
    least = [0] + [-1] * count
    for last in range(count):
        starts = range(max(0, last + 1 - LONGEST_CHAIN), last + 1)
        least[last + 1] = min(max(least[first], peak(first, last)) for first in starts)
    return least[count]


def _division(peak: _Cost, count: int, limit: int) -> list[tuple[int, int]]:
    """Return the segments, none with a larger peak than `limit`, of which the fewest layers are chained."""
    best: list[tuple[int, list[tuple[int, int]]] | None] = [(0, [])] + [None] * count
    for last in range(count):
        for first in range(last, max(-1, last - LONGEST_CHAIN), -1):
            before = best[first]
            if before is None or peak(first, last) > limit:
                continue
            chained = before[0] + (last - first + 1 if last > first else 0)
            known = best[last + 1]
            if known is None or chained < known[0]:
                best[last + 1] = (chained, [*before[1], (first, last)])
    found = best[count]
    assert found is not None
    return found[1]


class Segments:
    """Runs of layers, and the most bytes that are alive while each runs as a chain."""

    def __init__(self, graph: Graph, layers: Sequence[Layer]) -> None:
        self._graph, self._layers = graph, layers
        self._consumers = consumers_of(layers)
        self._root = _roots(layers)
        self._peaks: dict[tuple[int, int], int] = {}
        self._lives = self._all_lives()
        self._impossible = int(np.iinfo(np.int64).max)

    def chainable(self) -> bool:
        """Return whether any two layers can run as a chain."""
        return any(self.can_chain(at, at + 1) for at in range(len(self._layers) - 1))

    def known(self) -> list[tuple[int, int]]:
        """Return the segments whose peak was asked for and that can run."""
        return [segment for segment, peak in self._peaks.items() if peak < self._impossible]

    def chains(self, segments: Sequence[tuple[int, int]]) -> tuple[Chain, ...]:
        """Return the chains among `segments`."""
        return tuple(self._chain(first, last) for first, last in segments if last > first)

    def better(self, best: Plan, chains: tuple[Chain, ...]) -> Plan:
        """Return the plan with `chains` where it is worth more than `best`."""
        if chains == best.chains:
            return best
        plan = plan_memory(self._graph, self._layers, chains)
        return plan if self._value(plan) < self._value(best) else best

    def beside(self, plan: Plan) -> list[tuple[int, int]]:
        """Return short segments outside of the plan's chains that write a large tensor."""
        taken = {at for chain in plan.chains for at in range(chain.first, chain.last + 1)}
        large = {
            at
            for at, layer in enumerate(self._layers)
            if any(self._graph.tensor(i).size_bytes > plan.arena_bytes * _LARGE for i in layer.writes)
        }
        found = []
        for first in range(len(self._layers)):
            for length in _LENGTHS:
                segment = range(first, first + length)
                is_free = taken.isdisjoint(segment) and not large.isdisjoint(segment)
                if is_free and segment[-1] < len(self._layers) and self.can_chain(first, segment[-1]):
                    found.append((first, segment[-1]))
        return found

    def _value(self, plan: Plan) -> float:
        """Return the bytes of the arena, more for each chained layer and for what runs more slowly in a chain."""
        chained = [self._layers[at] for chain in plan.chains for at in range(chain.first, chain.last + 1)]
        total = sum(layer.macs for layer in self._layers)
        # Pixels of a row are multiplied in pairs; one is left over in each row of an odd width.
        slower = 0.0
        for layer in chained:
            width = self._graph.tensor(layer.writes[0]).shape[2]
            slower += layer.macs / max(total, 1) * (width % 2 / width)
        return plan.arena_bytes * (1 + _WORTH * len(chained) + _PRICE * slower)

    def peak(self, first: int, last: int) -> int:
        """Return the most bytes alive while layers `first` to `last` run; a huge number where they cannot."""
        if (first, last) not in self._peaks:
            self._peaks[first, last] = self._measured(first, last)
        return self._peaks[first, last]

    def _chain(self, first: int, last: int) -> Chain:
        inner = inner_tensors(self._graph, self._layers, first, last, self._consumers)
        written = {self._layers[at].writes[0] for at in range(first, last + 1)}
        return chain_of(self._layers, first, last, frozenset(written - set(inner)))

    def can_chain(self, first: int, last: int) -> bool:
        """Return whether all of the layers are by rows, and each but the last makes something for another."""
        for at in range(first, last + 1):
            layer = self._layers[at]
            if layer.by_rows is None or layer.is_view or len(layer.writes) != 1:
                return False
            uses = self._consumers.get(layer.writes[0], ())
            if at < last and not any(at < use <= last for use in uses):
                return False
        return True

    def _measured(self, first: int, last: int) -> int:
        chains: tuple[Chain, ...] = ()
        if last > first:
            if not self.can_chain(first, last):
                return self._impossible
            chains = (self._chain(first, last),)
            if len(chains[0].steps) > MOST_CHAIN_STEPS:
                return self._impossible
        timeline = Timeline(self._graph, self._layers, chains, first=first, last=last)
        inner = (
            set(inner_tensors(self._graph, self._layers, first, last, self._consumers)) if chains else set()
        )
        alive = np.zeros(timeline.moments, dtype=np.int64)
        spans: dict[int, Span] = {}
        for index, begin, end in self._lives:
            span = timeline.tensor_span(index) if begin <= last and end >= first else None
            if span is None:
                continue
            if index in inner:
                tensor = self._graph.tensor(index)
                row_bytes = tensor.size_bytes // tensor.shape[1]
                ring = ring_span(span, row_bytes * kept_rows(span, row_bytes))
                alive[ring.begin : ring.end] += ring.high
            else:
                root = self._root.get(index, index)
                spans[root] = joined(spans[root], span) if root in spans else span
        for span in spans.values():
            alive[span.begin : span.end] += span.high - span.low
        scratch = max(self._layers[at].scratch_bytes for at in range(first, last + 1))
        return int(alive.max()) + scratch

    def _all_lives(self) -> list[tuple[int, int, int]]:
        """Return each tensor, the layer that writes it and the last one that reads it."""
        writers = {index: at for at, layer in enumerate(self._layers) for index in layer.writes}
        made = [index for index in (*self._graph.inputs, *writers) if self._graph.tensor(index).value is None]
        return [
            (
                index,
                writers.get(index, -1),
                len(self._layers)
                if index in self._graph.outputs
                else max(self._consumers.get(index, (writers.get(index, -1),))),
            )
            for index in dict.fromkeys(made)
        ]


def _roots(layers: Sequence[Layer]) -> Mapping[int, int]:
    root: dict[int, int] = {}
    for layer in layers:
        if layer.is_view:
            root[layer.writes[0]] = root.get(layer.reads[0], layer.reads[0])
    return root
