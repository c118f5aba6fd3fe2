"""Where each tensor lies in the arena: what is alive when, shared memory, and the smallest packing of a short search.

Tensors that are views of others, or results written over an input as a whole, form one block. Of a tensor whose layers
run from its first row to its last, the rows that are not yet written and those that nobody reads any more are free: two
blocks may overlap as long as what is alive of them never does. Of a tensor within a chain only some rows are kept, in a
ring (see `timeline`). The search places blocks one after another as low as they go, in several orders, and moves blocks
within each; it ends when it reaches the largest sum of bytes alive at one moment, which no plan can undercut.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgewright.microcontrollers.graph import Graph
from edgewright.microcontrollers.layer import Layer
from edgewright.microcontrollers.timeline import Chain, Span, Timeline, consumers_of, kept_rows

ALIGNMENT = 4
# Moves of one block in each order, and the pairs of blocks that they look at, all together.
_MOVES = 100
_MOST_LOOKS = 2_000_000
_SEED = 20240229


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arena.

    Attributes:
        offsets: tensor index -> bytes from the arena's start, for every tensor that is no constant.
        scratch: position of a layer -> offset of its scratch memory.
        arena_bytes: size of the whole arena.
        state: (offset, bytes, first value of each byte) of tensors that keep their value; they come first.
        live_bytes: the largest sum of bytes alive at one moment.
        chains: of layers that run row by row, in their order.
        rings: tensor index -> number of rows that are kept; row r lies at r modulo that.
    """

    offsets: Mapping[int, int]
    scratch: Mapping[int, int]
    arena_bytes: int
    state: tuple[tuple[int, int, int], ...]
    live_bytes: int
    chains: tuple[Chain, ...] = ()
    rings: Mapping[int, int] = field(default_factory=dict)


@dataclass(eq=False)
class _Block:
    """A piece of memory; `near` holds for each other block the differences of places that make them overlap."""

    size: int
    span: Span
    tensors: list[int] = field(default_factory=list)
    scratch_of: tuple[int, ...] = ()
    near: dict[_Block, tuple[int, int]] = field(default_factory=dict)


_Placed = dict[_Block, int]


def plan_memory(graph: Graph, layers: Sequence[Layer], chains: Sequence[Chain] = ()) -> Plan:
    """Return where the tensors of `layers`, in their order, lie.

    Inputs are written before the first step, outputs are read after the last one.

    Args:
        chains: of layers that run row by row.
    """
    timeline = Timeline(graph, layers, chains)
    states = [tensor.index for tensor in graph.tensors if tensor.is_variable and tensor.value is None]
    state, end = [], 0
    for index in states:
        state.append((end, graph.tensor(index).size_bytes, _first_value(graph, index)))
        end += _aligned(graph.tensor(index).size_bytes)
    rings = _rings(graph, layers, chains, timeline)
    blocks = _blocks(graph, layers, chains, timeline, rings, frozenset(states))
    live = _aligned(end + _most_alive(blocks, timeline.moments))
    _meet(blocks)
    placed = _search(blocks, end, live)
    return Plan(
        offsets={index: place[0] for index, place in zip(states, state, strict=True)}
        | {index: offset for block, offset in placed.items() for index in block.tensors},
        scratch={at: offset for block, offset in placed.items() for at in block.scratch_of},
        arena_bytes=max(_total(placed), end),
        state=tuple(state),
        live_bytes=live,
        chains=tuple(chains),
        rings=rings,
    )


def _rings(
    graph: Graph, layers: Sequence[Layer], chains: Sequence[Chain], timeline: Timeline
) -> dict[int, int]:
    consumers = consumers_of(layers)
    rings = {}
    for chain in chains:
        for index in inner_tensors(graph, layers, chain.first, chain.last, consumers):
            span, rows = timeline.tensor_span(index), graph.tensor(index).shape[1]
            assert span is not None
            rings[index] = kept_rows(span, graph.tensor(index).size_bytes // rows)
    return rings


def inner_tensors(
    graph: Graph, layers: Sequence[Layer], first: int, last: int, consumers: Mapping[int, Sequence[int]]
) -> list[int]:
    """Return the tensors that only the layers `first` to `last` write and read."""
    return [
        index
        for at in range(first, last + 1)
        for index in layers[at].writes
        if index not in graph.outputs and consumers.get(index) and max(consumers[index]) <= last
    ]


def _blocks(
    graph: Graph,
    layers: Sequence[Layer],
    chains: Sequence[Chain],
    timeline: Timeline,
    rings: Mapping[int, int],
    states: frozenset[int],
) -> list[_Block]:
    of: dict[int, _Block] = {}
    blocks: list[_Block] = []
    uses = consumers_of(layers)
    last_use = {index: positions[-1] for index, positions in uses.items()}
    last_use |= dict.fromkeys(graph.outputs, len(layers))

    def start(index: int) -> None:
        tensor, span = graph.tensor(index), timeline.tensor_span(index)
        if tensor.value is not None or index in states:
            return
        size = tensor.size_bytes
        if span is None:
            span = _whole(1, 2, size)
        if index in rings:
            size = size // tensor.shape[1] * rings[index]
            span = ring_span(span, size)
        blocks.append(_Block(size, span, [index]))
        of[index] = blocks[-1]

    for index in graph.inputs:
        if index not in of:
            start(index)
    for at, layer in enumerate(layers):
        for number, index in enumerate(layer.writes):
            if index in of:
                continue
            shared = _shared(graph, layer, of, at, last_use) if number == 0 else None
            span = timeline.tensor_span(index)
            if shared is None or span is None:
                start(index)
                continue
            shared.tensors.append(index)
            shared.span = joined(shared.span, span)
            of[index] = shared
    blocks += _scratches(layers, chains, timeline)
    return blocks


def _scratches(layers: Sequence[Layer], chains: Sequence[Chain], timeline: Timeline) -> list[_Block]:
    """Return the memory that layers need while they run; those of a chain use the same."""
    groups = [tuple(range(chain.first, chain.last + 1)) for chain in chains]
    chained = {at for group in groups for at in group}
    groups += [(at,) for at in range(len(layers)) if at not in chained]
    made = []
    for group in groups:
        size = max(layers[at].scratch_bytes for at in group)
        if size:
            begin = min(timeline.times(at)[0] for at in group)
            end = max(timeline.times(at)[-1] for at in group) + 1
            users = tuple(at for at in group if layers[at].scratch_bytes)
            made.append(_Block(size, _whole(begin, end, size), [], users))
    return made


def ring_span(span: Span, size: int) -> Span:
    """Return what is alive of a ring of `size` bytes that keeps the tensor of `span`: all that was ever written."""
    return Span(begin=span.begin, low=np.zeros_like(span.low), high=np.minimum(span.high, size))


def _whole(begin: int, end: int, size: int) -> Span:
    moments = end - begin
    return Span(begin=begin, low=np.zeros(moments, np.int64), high=np.full(moments, size, np.int64))


def joined(one: Span, other: Span) -> Span:
    """Return a span that covers both."""
    begin, end = min(one.begin, other.begin), max(one.end, other.end)
    low = np.full(end - begin, np.iinfo(np.int64).max)
    high = np.zeros(end - begin, np.int64)
    for span in (one, other):
        part = slice(span.begin - begin, span.end - begin)
        low[part] = np.minimum(low[part], np.where(span.high > span.low, span.low, low[part]))
        high[part] = np.maximum(high[part], np.where(span.high > span.low, span.high, high[part]))
    return Span(begin=begin, low=np.minimum(low, high), high=high)


def _first_value(graph: Graph, index: int) -> int:
    """Return what the bytes of a state begin with: the real number 0."""
    tensor = graph.tensor(index)
    return tensor.zero_point if tensor.dtype in ("int8", "uint8") and tensor.is_quantized else 0


def _shared(
    graph: Graph, layer: Layer, of: Mapping[int, _Block], at: int, last_use: Mapping[int, int]
) -> _Block | None:
    """Return the block of the input whose memory the layer's output takes over.

    Layers that run by rows need none: the search may place their output over what they have read.
    """
    if not layer.is_view and layer.by_rows is not None:
        return None
    positions = (0,) if layer.is_view else layer.in_place
    for position in positions:
        source = layer.reads[position]
        block = of.get(source)
        if block is None:
            continue
        if layer.is_view or (
            max(last_use.get(index, 0) for index in block.tensors) == at
            and block.size >= graph.tensor(layer.writes[0]).size_bytes
            and layer.reads.count(source) == 1
        ):
            return block
    return None


def _most_alive(blocks: Sequence[_Block], moments: int) -> int:
    alive = np.zeros(moments, dtype=np.int64)
    for block in blocks:
        alive[block.span.begin : block.span.end] += block.span.high - block.span.low
    return int(alive.max())


def _meet(blocks: Sequence[_Block]) -> None:
    """Write into each block which places relative to the others are forbidden."""
    for number, one in enumerate(blocks):
        for other in blocks[number + 1 :]:
            begin, end = max(one.span.begin, other.span.begin), min(one.span.end, other.span.end)
            if begin >= end:
                continue
            a, b = (slice(begin - block.span.begin, end - block.span.begin) for block in (one, other))
            alive = (one.span.high[a] > one.span.low[a]) & (other.span.high[b] > other.span.low[b])
            if not alive.any():
                continue
            # `other` is `d` bytes behind `one`: they overlap where low - high' < d < high - low'.
            least = int((one.span.low[a] - other.span.high[b])[alive].min())
            most = int((one.span.high[a] - other.span.low[b])[alive].max())
            least, most = least // ALIGNMENT * ALIGNMENT, _aligned(most)
            one.near[other] = (-most, -least)
            other.near[one] = (least, most)


def _search(blocks: Sequence[_Block], start: int, goal: int) -> _Placed:
    orders = [
        sorted(blocks, key=lambda block: (-block.size, block.span.begin)),
        sorted(blocks, key=lambda block: -block.span.end),
        sorted(blocks, key=lambda block: (block.span.begin - block.span.end, -block.size)),
        sorted(blocks, key=lambda block: (block.span.begin, -block.size)),
        sorted(blocks, key=lambda block: -block.size * (block.span.end - block.span.begin + 1)),
    ]
    best: _Placed = {}
    draw = random.Random(_SEED)
    looks = sum(len(block.near) for block in blocks) * len(orders)
    moves = min(_MOVES, 6 * len(blocks), _MOST_LOOKS // max(looks, 1)) if len(blocks) > 1 else 0
    best_total = -1
    for order in orders:
        now = _place(order, start)
        total = _total(now)
        for _ in range(moves):
            if total <= goal:
                break
            moved = list(now)
            block = moved.pop(draw.randrange(len(moved)))
            moved.insert(draw.randrange(len(moved) + 1), block)
            then = _place(moved, start)
            if _total(then) <= total:
                now, total = then, _total(then)
        if best_total < 0 or total < best_total:
            best, best_total = now, total
        if best_total <= goal:
            break
    return best


def _place(order: Sequence[_Block], start: int) -> _Placed:
    placed: _Placed = {}
    for block in order:
        taken = sorted(
            (placed[other] + least, placed[other] + most)
            for other, (least, most) in block.near.items()
            if other in placed
        )
        place = start
        for least, most in taken:
            if least < place < most:
                place = most
        placed[block] = place
    return placed


def _total(placed: _Placed) -> int:
    return max((offset + _aligned(block.size) for block, offset in placed.items()), default=0)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
