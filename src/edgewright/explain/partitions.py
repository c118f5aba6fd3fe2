"""How many pieces an accelerator gets: as few groups of its operations as can each run in one go."""

from __future__ import annotations

from collections.abc import Sequence


def count_partitions(is_taken: Sequence[bool], sources: Sequence[Sequence[int]]) -> int:
    """Return the number of groups of taken operations.

    Operations share a group, connected or not, unless one of them needs something that is left out and that needs the
    other: then the group would wait for itself. So the number of groups is the largest number of taken stretches on
    one path through the graph.

    Args:
        is_taken: for each operation, in the order of execution, whether the accelerator takes it.
        sources: for each operation the positions of those whose results it reads, all before it.
    """
    stages: list[
        int
    ] = []  # of a taken operation: its group; of another: the first group that can come after it
    for position, taken in enumerate(is_taken):
        earliest = 0
        for source in sources[position]:
            has_left = is_taken[source] and not taken
            earliest = max(earliest, stages[source] + has_left)
        stages.append(earliest)
    return len({stage for stage, taken in zip(stages, is_taken, strict=True) if taken})
