"""Counting the pieces that an accelerator gets."""

from __future__ import annotations

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


def test_what_is_not_connected_runs_as_one_unless_something_is_between() -> None:
    assert count_partitions([True, True], [[], []]) == 1
    # Two branches, each with a gap: the first halves are one piece, the second halves another.
    assert count_partitions([True, True, False, False, True, True], [[], [], [0], [1], [2], [3]]) == 2


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[bool], list[list[int]]]:
    size = draw(st.integers(1, 12))
    sources = [
        sorted(draw(st.sets(st.integers(0, index - 1), max_size=3))) if index else [] for index in range(size)
    ]
    return draw(st.lists(st.booleans(), min_size=size, max_size=size)), sources


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_the_count_is_that_of_the_path_with_most_stretches(graph: tuple[list[bool], list[list[int]]]) -> None:
    taken, sources = graph

    def longest(index: int) -> int:
        """Return the most taken stretches on a path that ends in `index`."""
        best = int(taken[index])
        for source in sources[index]:
            best = max(best, longest(source) + (taken[index] and not taken[source]))
        return best

    assert count_partitions(taken, sources) == max(longest(index) for index in range(len(taken)))
