"""Replays a run on a model of the arena: every byte knows which tensor and which of its bytes lies there.

Each layer reads and writes as `ByRows` allows it; what it reads must be what was written.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgewright.microcontrollers.graph import Graph
from edgewright.microcontrollers.layer import Layer
from edgewright.microcontrollers.planner import Plan

_STRIDE = 1 << 20


class Replay:
    """An arena under a plan; views are the same bytes as the tensor that they are views of."""

    def __init__(self, graph: Graph, layers: Sequence[Layer], plan: Plan) -> None:
        self._graph, self._layers, self._plan = graph, layers, plan
        self._memory: npt.NDArray[np.int64] = np.full(plan.arena_bytes, -1, dtype=np.int64)
        self._root: dict[int, int] = {}
        for layer in layers:
            if layer.is_view:
                self._root[layer.writes[0]] = self._root.get(layer.reads[0], layer.reads[0])

    def run(self) -> None:
        """Run all layers, and assert that every byte that is read is the right one."""
        chained = {at: chain for chain in self._plan.chains for at in range(chain.first, chain.last + 1)}
        for index in self._graph.inputs:
            self._write(index)
        for at, layer in enumerate(self._layers):
            chain = chained.get(at)
            if chain is None:
                if not layer.is_view:
                    self._whole(at)
            elif chain.first == at:
                made = dict.fromkeys(range(chain.first, chain.last + 1), 0)
                for step in chain.steps:
                    self._row(step, made[step])
                    made[step] += 1
        for index in self._graph.outputs:
            self._read(index)

    def _whole(self, at: int) -> None:
        layer, rows = self._layers[at], self._layers[at].by_rows
        self._scribble(at)
        if rows is None:
            for index in layer.reads:
                self._read(index)
            for index in layer.writes:
                self._write(index)
            for position, index in enumerate(layer.reads):
                if position not in layer.in_place:
                    self._read(index)
        elif rows.count:
            for first in range(0, rows.count, rows.tile):
                self._tile(layer, first, min(first + rows.tile, rows.count), rows.count)
        else:
            for y in range(rows.rows):
                self._row(at, y)

    def _tile(self, layer: Layer, first: int, end: int, count: int) -> None:
        def part(index: int) -> tuple[int, int]:
            size = self._graph.tensor(index).size_bytes // count
            return first * size, end * size

        for index in layer.reads:
            self._read(index, *part(index))
        self._write(layer.writes[0], *part(layer.writes[0]))
        for position, index in enumerate(layer.reads):
            if position not in layer.in_place:
                self._read(index, *part(index))

    def _row(self, at: int, y: int) -> None:
        layer, rows = self._layers[at], self._layers[at].by_rows
        assert rows is not None
        self._scribble(at)
        row_bytes = self._graph.tensor(layer.writes[0]).size_bytes // rows.rows
        for times in range(2):
            for position, (index, reach) in enumerate(zip(layer.reads, rows.reaches, strict=True)):
                assert reach is not None
                size = self._graph.tensor(index).size_bytes // reach.size
                if times == 0 or position not in layer.in_place:
                    self._read(index, reach.first(y) * size, reach.end(y) * size)
            if times == 0:
                self._write(layer.writes[0], y * row_bytes, (y + 1) * row_bytes)

    def _scribble(self, at: int) -> None:
        size = self._layers[at].scratch_bytes
        if size:
            self._memory[self._plan.scratch[at] : self._plan.scratch[at] + size] = -2

    def _places(self, index: int, first: int, end: int) -> npt.NDArray[np.int64]:
        """Return the arena's bytes that hold bytes `first` to `end` of a tensor."""
        tensor, kept = self._graph.tensor(index), self._plan.rings.get(index)
        at: npt.NDArray[np.int64] = np.arange(first, end)
        if kept is not None:
            at %= kept * (tensor.size_bytes // tensor.shape[1])
        return at + self._plan.offsets[index]

    def _write(self, index: int, first: int = 0, end: int | None = None) -> None:
        end = self._graph.tensor(index).size_bytes if end is None else end
        self._memory[self._places(index, first, end)] = self._name(index) + np.arange(first, end)

    def _read(self, index: int, first: int = 0, end: int | None = None) -> None:
        end = self._graph.tensor(index).size_bytes if end is None else end
        there = self._memory[self._places(index, first, end)]
        assert (there == self._name(index) + np.arange(first, end)).all(), f"tensor {index}, {first} to {end}"

    def _name(self, index: int) -> int:
        return self._root.get(index, index) * _STRIDE
