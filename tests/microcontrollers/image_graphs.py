"""Graphs of layers that make images row by row, without C: only sizes and reaches matter to the plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewright.microcontrollers.graph import Graph, Operator, Tensor
from edgewright.microcontrollers.layer import ByRows, Layer, Reach


class ImageGraph:
    """A graph in the making; tensor 0 is the input, tensors that nothing reads are outputs."""

    def __init__(self, *, rows: int, row_bytes: int) -> None:
        self._tensors: list[Tensor] = []
        self._layers: list[Layer] = []
        self.add(rows, row_bytes)

    def add(self, rows: int, row_bytes: int) -> int:
        """Add an int8 tensor [1, rows, row_bytes, 1] and return its index."""
        tensor = Tensor(
            index=len(self._tensors),
            name=f"t{len(self._tensors)}",
            shape=(1, rows, row_bytes, 1),
            dtype="int8",
            scales=np.zeros(0, dtype=np.float32),
            zero_points=np.zeros(0, dtype=np.int64),
            axis=0,
            value=None,
            is_variable=False,
        )
        self._tensors.append(tensor)
        return tensor.index

    def rows(self, index: int) -> int:
        """Return the rows of a tensor."""
        return self._tensors[index].shape[1]

    def row_bytes(self, index: int) -> int:
        """Return the bytes of a row."""
        return self._tensors[index].shape[2]

    def window(
        self,
        target: int,
        *,
        reach: int,
        stride: int = 1,
        pad: int = 0,
        reads: int = 0,
        scratch_bytes: int = 0,
    ) -> int:
        """Add a layer with a window over `reads` and return `target`."""
        size = self.rows(reads)
        found = Reach(size=size, rows=reach, stride=stride, pad=pad)
        self._layer((reads,), target, ByRows(rows=self.rows(target), reaches=(found,)), scratch=scratch_bytes)
        return target

    def values(self, reads: Sequence[int], target: int, *, tile: int = 1, in_place: bool = True) -> int:
        """Add a layer that works value by value on tensors of the same number of rows."""
        count = min(self._tensors[index].size_bytes for index in (*reads, target))
        reaches = tuple(Reach(size=self.rows(index)) for index in reads)
        rows = ByRows(rows=self.rows(target), reaches=reaches, count=count, tile=tile)
        self._layer(tuple(reads), target, rows, in_place=tuple(range(len(reads))) if in_place else ())
        return target

    def whole(self, reads: Sequence[int], target: int, *, is_view: bool = False) -> int:
        """Add a layer that reads everything before it writes, or a view."""
        self._layer(tuple(reads), target, None, is_view=is_view)
        return target

    def finish(self) -> tuple[Graph, list[Layer]]:
        """Return the graph and its layers."""
        read = {index for layer in self._layers for index in layer.reads}
        written = {index for layer in self._layers for index in layer.writes}
        outputs = tuple(sorted(written - read))
        graph = Graph(
            tensors=tuple(self._tensors),
            operators=tuple(layer.operator for layer in self._layers),
            inputs=tuple(tensor.index for tensor in self._tensors if tensor.index not in written),
            outputs=outputs,
            input_names=("x",),
            output_names=tuple("y" for _ in outputs),
            sha256="0" * 64,
        )
        return graph, self._layers

    def _layer(
        self,
        reads: tuple[int, ...],
        target: int,
        rows: ByRows | None,
        *,
        in_place: tuple[int, ...] = (),
        is_view: bool = False,
        scratch: int = 0,
    ) -> None:
        operator = Operator(position=len(self._layers), name="ANY", inputs=reads, outputs=(target,))
        layer = Layer(
            operator=operator,
            reads=reads,
            writes=(target,),
            in_place=in_place,
            is_view=is_view,
            scratch_bytes=scratch,
            by_rows=rows,
        )
        self._layers.append(layer)


def random_graph(draw: np.random.Generator) -> tuple[Graph, list[Layer]]:
    """Return two to ten layers: windows, results value by value with one or two inputs, views, and whole layers."""

    def number(low: int, high: int) -> int:
        return int(draw.integers(low, high + 1))

    made = ImageGraph(rows=number(1, 24), row_bytes=number(1, 40))
    there = [0]
    for _ in range(number(2, 10)):
        source = there[-1] if draw.random() < 0.7 else int(draw.choice(there))
        rows, row_bytes = made.rows(source), made.row_bytes(source)
        kind = draw.random()
        if kind < 0.55:
            reach, stride = number(1, 5), number(1, 3)
            pad = number(0, reach - 1)
            out_rows = (rows + 2 * pad - reach) // stride + 1
            if out_rows < 1:
                continue
            target = made.add(out_rows, number(1, 60))
            scratch = number(0, 50) if draw.random() < 0.2 else 0
            made.window(target, reach=reach, stride=stride, pad=pad, reads=source, scratch_bytes=scratch)
        elif kind < 0.8:
            same = [i for i in there if (made.rows(i), made.row_bytes(i)) == (rows, row_bytes)]
            target = made.add(rows, row_bytes)
            tile, in_place = (1, True) if draw.random() < 0.7 else (number(1, 9), False)
            made.values((source, int(draw.choice(same))), target, tile=tile, in_place=in_place)
        elif kind < 0.9:
            target = made.whole((source,), made.add(rows, row_bytes), is_view=True)
        else:
            target = made.whole((source,), made.add(number(1, 9), number(1, 60)))
        there.append(target)
    return made.finish()
