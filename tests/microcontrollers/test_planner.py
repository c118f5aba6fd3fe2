"""The arena: no two tensors that are alive together overlap, views and in-place results share memory."""

from __future__ import annotations

import numpy as np

from edgewright.microcontrollers.graph import Graph, Operator, Tensor
from edgewright.microcontrollers.layer import Layer
from edgewright.microcontrollers.planner import plan_memory


def tensor(index: int, size: int) -> Tensor:
    return Tensor(
        index=index,
        name=f"t{index}",
        shape=(size,),
        dtype="int8",
        scales=np.zeros(0, dtype=np.float32),
        zero_points=np.zeros(0, dtype=np.int64),
        axis=0,
        value=None,
        is_variable=False,
    )


def chain(sizes: list[int], layers: list[Layer], outputs: tuple[int, ...]) -> Graph:
    return Graph(
        tensors=tuple(tensor(i, size) for i, size in enumerate(sizes)),
        operators=tuple(layer.operator for layer in layers),
        inputs=(0,),
        outputs=outputs,
        input_names=("x",),
        output_names=tuple("y" for _ in outputs),
        sha256="0" * 64,
    )


def layer(
    step: int,
    reads: tuple[int, ...],
    writes: tuple[int, ...],
    *,
    in_place: tuple[int, ...] = (),
    is_view: bool = False,
    scratch_bytes: int = 0,
) -> Layer:
    operator = Operator(position=step, name="ADD", inputs=reads, outputs=writes)
    return Layer(
        operator=operator,
        reads=reads,
        writes=writes,
        in_place=in_place,
        is_view=is_view,
        scratch_bytes=scratch_bytes,
    )


def test_a_chain_needs_its_largest_neighbours() -> None:
    layers = [layer(0, (0,), (1,)), layer(1, (1,), (2,)), layer(2, (2,), (3,))]
    plan = plan_memory(chain([100, 200, 40, 300], layers, (3,)), layers)
    assert plan.arena_bytes == plan.live_bytes == 340


def test_a_result_in_place_takes_no_memory_unless_the_input_lives_on() -> None:
    once = [layer(0, (0,), (1,)), layer(1, (1, 0), (2,), in_place=(0, 1))]
    assert plan_memory(chain([64, 64, 64], once, (2,)), once).arena_bytes == 128
    kept = [*once, layer(2, (0, 2), (3,))]
    plan = plan_memory(chain([64, 64, 64, 64], kept, (3,)), kept)
    assert plan.offsets[2] == plan.offsets[1] != plan.offsets[0]
    twice = [layer(0, (0,), (1,), in_place=(0,)), layer(1, (0, 1), (2,))]
    plan = plan_memory(chain([64, 64, 64], twice, (2,)), twice)
    assert plan.offsets[0] != plan.offsets[1]


def test_views_share_and_keep_their_memory_alive() -> None:
    layers = [layer(0, (0,), (1,), is_view=True), layer(1, (0,), (2,)), layer(2, (1, 2), (3,))]
    plan = plan_memory(chain([64, 64, 64, 64], layers, (3,)), layers)
    assert plan.offsets[0] == plan.offsets[1]
    assert len({plan.offsets[i] for i in (1, 2, 3)}) == 3


def test_random_graphs_never_overlap(rng: np.random.Generator) -> None:
    for _ in range(60):
        count = int(rng.integers(2, 14))
        sizes = [int(size) for size in rng.integers(1, 500, count + 1)]
        layers = [
            layer(
                step,
                tuple(
                    int(i)
                    for i in rng.choice(step + 1, int(min(step + 1, rng.integers(1, 3))), replace=False)
                ),
                (step + 1,),
                scratch_bytes=int(rng.choice([0, 0, 50])),
            )
            for step in range(count)
        ]
        graph = chain(sizes, layers, (count,))
        plan = plan_memory(graph, layers)
        last = {i: step for step, one in enumerate(layers) for i in one.reads} | {count: count}
        spans = [
            (i - 1, last.get(i, i - 1), plan.offsets[i], plan.offsets[i] + sizes[i]) for i in range(count + 1)
        ]
        spans += [(s, s, at, at + layers[s].scratch_bytes) for s, at in plan.scratch.items()]
        for a, one in enumerate(spans):
            assert one[3] <= plan.arena_bytes
            for other in spans[a + 1 :]:
                if one[0] <= other[1] and other[0] <= one[1]:
                    assert one[3] <= other[2] or other[3] <= one[2]
        assert plan.arena_bytes >= plan.live_bytes
