"""When each row of each tensor is written and last read: the order of all rows, and what is alive at each moment.

Layers run one after another; a chain of layers runs row by row instead: a row of the last layer asks for the rows that
it needs, those for theirs, and so on, so that only as many rows are kept as the windows reach over. Nothing is computed
twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edgewright.microcontrollers.graph import Graph, Tensor
from edgewright.microcontrollers.layer import Layer, Reach

# Longer runs are looked at layer by layer, so that time and memory stay bounded.
MOST_STEPS = 8192
MOST_LAYERS = 400


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Layers `first` to `last` that run row by row.

    Attributes:
        steps: positions of the layers in the order in which each makes its next row.
    """

    first: int
    last: int
    steps: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Span:
    """What is alive of a piece of memory.

    Attributes:
        begin: the first moment; moment 0 is before the first step, and the last one after the last step.
        low, high: int64 [moments]: bytes `low` to `high` are alive at `begin`, `begin` + 1, ...
    """

    begin: int
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]

    @property
    def end(self) -> int:
        """The moment behind the last."""
        return self.begin + len(self.low)


class Timeline:
    """The moments of a run.

    Args:
        chains: that do not overlap, in their order.
        first, last: of the layers that are looked at; what is alive before and after is whole.
    """

    def __init__(
        self,
        graph: Graph,
        layers: Sequence[Layer],
        chains: Sequence[Chain] = (),
        *,
        first: int = 0,
        last: int | None = None,
    ) -> None:
        self._graph, self._layers = graph, layers
        self.first, self.last = first, len(layers) - 1 if last is None else last
        self._chains = chains
        self._times, self._flat, self.moments = self._order()
        self._producers = {index: at for at, layer in enumerate(layers) for index in layer.writes}
        self._consumers: dict[int, list[int]] = {}
        for at, layer in enumerate(layers):
            for index in dict.fromkeys(layer.reads):
                self._consumers.setdefault(index, []).append(at)

    def times(self, at: int) -> Sequence[int]:
        """Return the moments of the steps of layer number `at`."""
        return self._times[at]

    def tensor_span(self, index: int) -> Span | None:
        """Return what is alive of a tensor, None if it never is."""
        tensor = self._graph.tensor(index)
        low = np.full(self.moments, tensor.size_bytes, dtype=np.int64)
        for at in self._consumers.get(index, ()):
            if at >= self.first:
                np.minimum(low, self._read_until(at, tensor), out=low)
        producer = self._producers.get(index)
        if index in self._graph.outputs:
            low[:] = 0
        elif producer is not None and producer >= self.first and not self._consumers.get(index):
            low[: self._times[producer][-1] + 1] = 0
        high = self._written(producer, tensor)
        alive = np.flatnonzero(high > low)
        if not len(alive):
            return None
        begin, end = int(alive[0]), int(alive[-1]) + 1
        return Span(begin=begin, low=low[begin:end], high=np.maximum(high, low)[begin:end])

    def _order(self) -> tuple[dict[int, list[int]], set[int], int]:
        """Return the moments of each layer's steps, the layers whose two moments are those of its first and last
        tile, and the number of moments.
        """
        chains = {chain.first: chain for chain in self._chains}
        total = sum(_moments(layer) for layer in self._layers[self.first : self.last + 1])
        is_fine = total <= MOST_STEPS and len(self._layers) <= MOST_LAYERS
        times: dict[int, list[int]] = {at: [] for at in range(self.first, self.last + 1)}
        flat: set[int] = set()
        now, at = 1, self.first
        while at <= self.last:
            chain = chains.get(at)
            steps = chain.steps if chain else (at,) * (_moments(self._layers[at]) if is_fine else 1)
            if chain is None and is_fine and _is_flat(self._layers[at]):
                flat.add(at)
            for step in steps:
                times[step].append(now)
                now += 1
            at = chain.last + 1 if chain else at + 1
        return times, flat, now + 1

    def _written(self, producer: int | None, tensor: Tensor) -> npt.NDArray[np.int64]:
        """Return the bytes of a tensor that are written up to each moment, or being written."""
        high = np.full(self.moments, tensor.size_bytes, dtype=np.int64)
        if producer is None or producer < self.first:
            return high
        if producer > self.last:
            high[:] = 0
            return high
        times = self._times[producer]
        high[: times[0]] = 0
        if producer in self._flat:
            high[times[0] : times[1]] = self._tile_bytes(producer, tensor)
        elif self._is_by_rows(producer):
            row_bytes = tensor.size_bytes // _rows(self._layers[producer])
            for row, (now, then) in enumerate(zip(times, [*times[1:], self.moments], strict=True)):
                high[now:then] = (row + 1) * row_bytes
        return high

    def _read_until(self, at: int, tensor: Tensor) -> npt.NDArray[np.int64]:
        """Return the first byte of a tensor that layer number `at` still reads at each moment."""
        low = np.zeros(self.moments, dtype=np.int64)
        if at > self.last:
            return low
        times, layer = self._times[at], self._layers[at]
        low[times[-1] + 1 :] = tensor.size_bytes
        if not self._is_by_rows(at) and at not in self._flat:
            return low
        assert layer.by_rows is not None
        positions = [position for position, read in enumerate(layer.reads) if read == tensor.index]
        reaches = [layer.by_rows.reaches[position] for position in positions]
        size = self._graph.tensor(layer.writes[0]).size_bytes
        in_place = len(positions) == 1 and positions[0] in layer.in_place and size == tensor.size_bytes
        if at in self._flat:
            tile_bytes = self._tile_bytes(at, tensor)
            low[times[0]] = tile_bytes if in_place else 0
            low[times[0] + 1 : times[1] + 1] = tensor.size_bytes - (0 if in_place else tile_bytes)
            return low
        known = [reach for reach in reaches if reach is not None]
        row_bytes = tensor.size_bytes // known[0].size
        low[times[0]] = _first(known, 1 if in_place else 0) * row_bytes
        for row, (before, now) in enumerate(pairwise(times), start=1):
            low[before + 1 : now + 1] = _first(known, row) * row_bytes
            if in_place:
                low[now] = _first(known, row + 1) * row_bytes
        return low

    def _tile_bytes(self, at: int, tensor: Tensor) -> int:
        rows = self._layers[at].by_rows
        assert rows is not None
        return min(tensor.size_bytes // rows.count * rows.tile, tensor.size_bytes)

    def _is_by_rows(self, at: int) -> bool:
        return self._layers[at].by_rows is not None and (
            len(self._times[at]) > 1 or _rows(self._layers[at]) == 1
        )


def _rows(layer: Layer) -> int:
    return layer.by_rows.rows if layer.by_rows is not None else 1


def _is_flat(layer: Layer) -> bool:
    return layer.by_rows is not None and layer.by_rows.count > 0


def _moments(layer: Layer) -> int:
    """Return how many moments a layer takes as a whole: one for each row; between two tiles, all is linear."""
    return 2 if _is_flat(layer) else _rows(layer)


def _first(reaches: Sequence[Reach], row: int) -> int:
    return min(reach.first(row) for reach in reaches)


def chain_of(layers: Sequence[Layer], first: int, last: int, whole: frozenset[int]) -> Chain:
    """Return the chain of layers `first` to `last`, which all are by rows.

    Args:
        whole: tensors of which every row is wanted; others are made as far as they are needed.
    """
    producers = {layers[at].writes[0]: at for at in range(first, last + 1)}
    made = dict.fromkeys(range(first, last + 1), 0)
    steps: list[int] = []

    def want(at: int, rows: int) -> None:
        layer = layers[at]
        assert layer.by_rows is not None
        while made[at] < rows:
            for index, reach in zip(layer.reads, layer.by_rows.reaches, strict=True):
                if index in producers and reach is not None:
                    want(producers[index], reach.end(made[at]))
            steps.append(at)
            made[at] += 1

    for at in range(last, first - 1, -1):
        if layers[at].writes[0] in whole:
            want(at, _rows(layers[at]))
    return Chain(first=first, last=last, steps=tuple(steps))


def kept_rows(span: Span, row_bytes: int) -> int:
    """Return how many rows a ring must hold for a span of rows."""
    return int((span.high - span.low).max()) // row_bytes


def consumers_of(layers: Sequence[Layer]) -> Mapping[int, list[int]]:
    """Return tensor -> positions of the layers that read it."""
    found: dict[int, list[int]] = {}
    for at, layer in enumerate(layers):
        for index in dict.fromkeys(layer.reads):
            found.setdefault(index, []).append(at)
    return found
