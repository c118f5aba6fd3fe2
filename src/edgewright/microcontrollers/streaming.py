"""Which layers run row by row: the chains with which the arena becomes smallest, as few layers as that takes.

A chain keeps rings of rows instead of whole tensors. Nothing is computed twice, so that a chain costs no
multiplications; it costs a call for each row and a table of the order. First, the least peak of bytes alive that any
division into chains reaches is found, segment by segment; then, for some limits from there up to the peak without
chains, the division with the fewest chained layers; the smallest arena of their plans wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgewright.microcontrollers.graph import Graph
from edgewright.microcontrollers.layer import Layer
from edgewright.microcontrollers.planner import Plan, inner_tensors, joined, plan_memory
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

_Cost = Callable[[int, int], int]


def plan_streamed(graph: Graph, layers: Sequence[Layer]) -> Plan:
    """Return the plan with the smallest arena, with chains where they make it smaller."""
    plain = plan_memory(graph, layers)
    if len(layers) > MOST_LAYERS:
        return plain
    found = Segments(graph, layers)
    if not found.chainable():
        return plain
    best, best_value = plain, _value(plain)
    for limit in _limits(found, len(layers)):
        chains = found.chains(_division(found.peak, len(layers), limit))
        if chains == best.chains:
            continue
        plan = plan_memory(graph, layers, chains)
        if _value(plan) < best_value:
            best, best_value = plan, _value(plan)
    return best


def _value(plan: Plan) -> float:
    chained = sum(chain.last - chain.first + 1 for chain in plan.chains)
    return plan.arena_bytes * (1 + _WORTH * chained)


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
                alive[span.begin : span.end] += row_bytes * kept_rows(span, row_bytes)
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
