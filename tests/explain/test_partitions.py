"""Counting the pieces that an accelerator gets."""

from __future__ import annotations

import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.explain.partitions import count_partitions


def test_a_chain_is_one_piece_and_a_gap_makes_two() -> None:
    chain = [[], [0], [1], [2]]
    assert count_partitions([True] * 4, chain) == 1
    assert count_partitions([True, True, False, True], chain) == 2
    assert count_partitions([False] * 4, chain) == 0


def test_branches_of_one_source_join_around_nothing() -> None:
    # 0 feeds 1 and 2, which 3 joins: all taken is one piece, though 1 and 2 do not touch.
    assert count_partitions([True] * 4, [[], [0], [0], [1, 2]]) == 1


def test_a_piece_never_needs_its_own_result() -> None:
    # 0 -> 1 (left out) -> 2, and 0 -> 2: 0 and 2 as one piece would wait for 1, which waits for them.
    assert count_partitions([True, False, True], [[], [0], [0, 1]]) == 2


def test_pieces_that_nothing_connects_stay_apart() -> None:
    assert count_partitions([True, True], [[], []]) == 2


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[bool], list[list[int]]]:
    size = draw(st.integers(1, 12))
    sources = [
        sorted(draw(st.sets(st.integers(0, index - 1), max_size=3))) if index else [] for index in range(size)
    ]
    return draw(st.lists(st.booleans(), min_size=size, max_size=size)), sources


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_the_count_lies_between_its_bounds(graph: tuple[list[bool], list[list[int]]]) -> None:
    taken, sources = graph
    count = count_partitions(taken, sources)
    assert count <= sum(taken)
    # At least one for each group that is connected at all.
    parent = list(range(len(taken)))

    def root(index: int) -> int:
        return index if parent[index] == index else root(parent[index])

    for index, source in itertools.chain.from_iterable([(i, s) for s in ss] for i, ss in enumerate(sources)):
        if taken[index] and taken[source]:
            parent[root(index)] = root(source)
    assert count >= len({root(index) for index in range(len(taken)) if taken[index]})
