"""Where each tensor lies in the arena: lifetimes, shared memory, and the smallest packing that a short search finds.

Tensors that are views of others, or are written over their input, form one block. Blocks that are never alive at the
same time may overlap. The search places blocks one after another at the tightest gap that holds them, in several
orders; it ends when it reaches the largest sum of blocks alive at one time, which no plan can undercut.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgewright.microcontrollers.graph import Graph
from edgewright.microcontrollers.layer import Layer

ALIGNMENT = 4
_SHUFFLES = 200
_SEED = 20240229


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arena.

    Attributes:
        offsets: tensor index -> bytes from the arena's start, for every tensor that is no constant.
        scratch: position of a layer -> offset of its scratch memory.
        arena_bytes: size of the whole arena.
        state: (offset, bytes, first value of each byte) of tensors that keep their value; they come first.
        live_bytes: the largest sum of blocks alive at one time.
    """

    offsets: Mapping[int, int]
    scratch: Mapping[int, int]
    arena_bytes: int
    state: tuple[tuple[int, int, int], ...]
    live_bytes: int


@dataclass
class _Block:
    """Memory that is alive from step `begin` to step `end`, both inclusive."""

    size: int
    begin: int
    end: int
    tensors: list[int] = field(default_factory=list)
    scratch_of: int = -1

    def meets(self, other: _Block) -> bool:
        return self.begin <= other.end and other.begin <= self.end


def plan_memory(graph: Graph, layers: Sequence[Layer]) -> Plan:
    """Return where the tensors of `layers`, in their order, lie.

    Inputs are written before step 0, outputs are read after the last one.
    """
    blocks = _blocks(graph, layers)
    state = [block for block in blocks if block.begin < -1]
    others = [block for block in blocks if block.begin >= -1]
    fixed: list[tuple[_Block, int]] = []
    end = 0
    for block in state:
        fixed.append((block, end))
        end += _aligned(block.size)
    live = end + _most_alive(others, len(layers))
    best = _search(others, end, live)
    placed = [*fixed, *best]
    return Plan(
        offsets={index: offset for block, offset in placed for index in block.tensors},
        scratch={block.scratch_of: offset for block, offset in placed if block.scratch_of >= 0},
        arena_bytes=_total(placed),
        state=tuple((offset, block.size, _first(graph, block)) for block, offset in fixed),
        live_bytes=live,
    )


def _blocks(graph: Graph, layers: Sequence[Layer]) -> list[_Block]:
    last_use: dict[int, int] = {}
    for step, layer in enumerate(layers):
        for index in layer.reads:
            last_use[index] = step
    for index in graph.outputs:
        last_use[index] = len(layers)
    of: dict[int, _Block] = {}
    blocks: list[_Block] = []

    def start(index: int, step: int) -> None:
        tensor = graph.tensor(index)
        block = _Block(tensor.size_bytes, step, last_use.get(index, step), [index])
        blocks.append(block)
        of[index] = block

    for tensor in graph.tensors:
        if tensor.is_variable and tensor.value is None:
            start(tensor.index, -2)
            of[tensor.index].end = len(layers)
    for index in graph.inputs:
        if index not in of:
            start(index, -1)
    for step, layer in enumerate(layers):
        if layer.scratch_bytes:
            blocks.append(_Block(layer.scratch_bytes, step, step, [], scratch_of=step))
        for number, index in enumerate(layer.writes):
            if index in of:
                continue
            shared = _shared(graph, layer, of, step) if number == 0 else None
            if shared is None:
                start(index, step)
                continue
            shared.tensors.append(index)
            shared.end = max(shared.end, last_use.get(index, step))
            of[index] = shared
    return blocks


def _first(graph: Graph, block: _Block) -> int:
    """Return what the bytes of a state begin with: the real number 0."""
    tensor = graph.tensor(block.tensors[0])
    return tensor.zero_point if tensor.dtype in ("int8", "uint8") and tensor.is_quantized else 0


def _shared(graph: Graph, layer: Layer, of: Mapping[int, _Block], step: int) -> _Block | None:
    """Return the block of the input whose memory the layer's output takes over."""
    positions = (0,) if layer.is_view else layer.in_place
    for position in positions:
        source = layer.reads[position]
        block = of.get(source)
        if block is None or block.begin < -1:
            continue
        if layer.is_view or (
            block.end == step
            and block.size >= graph.tensor(layer.writes[0]).size_bytes
            and layer.reads.count(source) == 1
        ):
            return block
    return None


def _most_alive(blocks: Sequence[_Block], steps: int) -> int:
    return max(
        (
            sum(_aligned(block.size) for block in blocks if block.begin <= step <= block.end)
            for step in range(-1, steps + 1)
        ),
        default=0,
    )


def _search(blocks: Sequence[_Block], start: int, goal: int) -> list[tuple[_Block, int]]:
    orders = [
        sorted(blocks, key=lambda block: (-block.size, block.begin)),
        sorted(blocks, key=lambda block: (block.begin - block.end, -block.size)),
        sorted(blocks, key=lambda block: (block.begin, -block.size)),
        sorted(blocks, key=lambda block: -block.size * (block.end - block.begin + 1)),
    ]
    best: list[tuple[_Block, int]] = []
    best_total = -1
    draw = random.Random(_SEED)
    for attempt in range(len(orders) + _SHUFFLES):
        if attempt < len(orders):
            order = orders[attempt]
        else:
            # Two blocks of the best order so far change places.
            order = [block for block, _ in best]
            if len(order) < 2:
                break
            one, two = draw.sample(range(len(order)), 2)
            order[one], order[two] = order[two], order[one]
        placed = _place(order, start)
        total = max(_total(placed), start)
        if best_total < 0 or total <= best_total:
            best, best_total = placed, total
        if best_total <= goal:
            break
    return best


def _place(order: Sequence[_Block], start: int) -> list[tuple[_Block, int]]:
    placed: list[tuple[_Block, int]] = []
    for block in order:
        size = _aligned(block.size)
        taken = sorted(
            (offset, offset + _aligned(other.size)) for other, offset in placed if other.meets(block)
        )
        cursor, chosen, tightest = start, -1, -1
        for begin, end in taken:
            gap = begin - cursor
            if gap >= size and (chosen < 0 or gap < tightest):
                chosen, tightest = cursor, gap
            cursor = max(cursor, end)
        placed.append((block, cursor if chosen < 0 else chosen))
    return placed


def _total(placed: Sequence[tuple[_Block, int]]) -> int:
    return max((offset + _aligned(block.size) for block, offset in placed), default=0)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
