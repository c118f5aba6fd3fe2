"""Layers row by row: only rows that nobody needs are overwritten, nothing is computed twice, no output bit changes."""

from __future__ import annotations

import numpy as np
import pytest
from tests.microcontrollers.arena_replay import Replay
from tests.microcontrollers.image_graphs import ImageGraph, random_graph

from edgewright.microcontrollers import streaming
from edgewright.microcontrollers.planner import plan_memory
from edgewright.microcontrollers.streaming import Segments, plan_streamed
from edgewright.microcontrollers.timeline import chain_of


def test_a_result_over_its_input_takes_one_row_more() -> None:
    made = ImageGraph(rows=16, row_bytes=20)
    made.window(made.add(16, 20), reach=1)
    graph, layers = made.finish()
    plan = plan_memory(graph, layers)
    Replay(graph, layers, plan).run()
    assert plan.arena_bytes == plan.live_bytes == 17 * 20


def test_a_chain_of_windows_keeps_the_rows_under_each_window() -> None:
    made = ImageGraph(rows=32, row_bytes=8)
    wide = made.window(made.add(32, 64), reach=3, pad=1)
    made.window(made.add(16, 8), reach=3, stride=2, reads=wide)
    graph, layers = made.finish()
    plan = plan_streamed(graph, layers)
    Replay(graph, layers, plan).run()
    assert [(chain.first, chain.last) for chain in plan.chains] == [(0, 1)]
    assert plan.rings == {1: 3}
    # The input, three rows of 64 bytes; the output goes where rows of the input were read.
    assert plan.arena_bytes <= 32 * 8 + 3 * 64 + 8
    assert plan_memory(graph, layers).arena_bytes >= 32 * 64


def test_a_chain_makes_every_row_once_and_none_too_early() -> None:
    made = ImageGraph(rows=12, row_bytes=8)
    first = made.window(made.add(12, 8), reach=3, pad=1)
    made.window(made.add(6, 8), reach=2, stride=2, reads=first)
    graph, layers = made.finish()
    chain = chain_of(layers, 0, 1, frozenset(graph.outputs))
    assert chain.steps == (0, 0, 1) * 6


def test_rows_that_nobody_needs_are_not_made() -> None:
    made = ImageGraph(rows=9, row_bytes=8)
    first = made.window(made.add(9, 8), reach=1)
    made.window(made.add(2, 8), reach=2, stride=3, reads=first)
    graph, layers = made.finish()
    chain = chain_of(layers, 0, 1, frozenset(graph.outputs))
    assert chain.steps.count(0) == 5


def test_where_a_chain_pays_nothing_there_is_none() -> None:
    made = ImageGraph(rows=8, row_bytes=100)
    small = made.window(made.add(8, 10), reach=3, pad=1)
    made.window(made.add(8, 10), reach=3, pad=1, reads=small)
    graph, layers = made.finish()
    assert not plan_streamed(graph, layers).chains


def test_random_graphs_read_what_was_written(rng: np.random.Generator) -> None:
    chained = 0
    for _ in range(20):
        graph, layers = random_graph(rng)
        plain, streamed = plan_memory(graph, layers), plan_streamed(graph, layers)
        for plan in (plain, streamed):
            Replay(graph, layers, plan).run()
            assert plan.live_bytes <= plan.arena_bytes
            assert all(offset % 4 == 0 for offset in (*plan.offsets.values(), *plan.scratch.values()))
        assert streamed.arena_bytes <= plain.arena_bytes
        chained += len(streamed.chains)
    assert chained > 0


def test_chains_anywhere_read_what_was_written(rng: np.random.Generator) -> None:
    ringed = 0
    for _ in range(40):
        graph, layers = random_graph(rng)
        segments, wanted, at = Segments(graph, layers), [], 0
        while at < len(layers):
            ends = [end for end in range(at + 1, len(layers)) if segments.can_chain(at, end)]
            last = int(rng.choice(ends)) if ends else at
            wanted.append((at, last))
            at = last + 1
        plan = plan_memory(graph, layers, segments.chains(wanted))
        Replay(graph, layers, plan).run()
        ringed += len(plan.rings)
    assert ringed >= 40


def test_a_smaller_ring_is_found_out(rng: np.random.Generator) -> None:
    made = ImageGraph(rows=12, row_bytes=8)
    wide = made.window(made.add(12, 64), reach=3, pad=1)
    made.window(made.add(12, 8), reach=3, pad=1, reads=wide)
    graph, layers = made.finish()
    plan = plan_streamed(graph, layers)
    (ring,) = plan.rings
    plan.rings[ring] -= 1  # type: ignore[index]
    with pytest.raises(AssertionError, match="tensor 1"):
        Replay(graph, layers, plan).run()


def test_a_long_graph_is_planned_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MOST_LAYERS", 1)
    made = ImageGraph(rows=32, row_bytes=8)
    wide = made.window(made.add(32, 64), reach=3, pad=1)
    made.window(made.add(16, 8), reach=3, stride=2, reads=wide)
    graph, layers = made.finish()
    plan = plan_streamed(graph, layers)
    Replay(graph, layers, plan).run()
    assert not plan.chains
