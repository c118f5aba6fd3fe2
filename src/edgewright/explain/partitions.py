"""How many pieces an accelerator gets: maximal connected groups of its operations that can run as one."""

from __future__ import annotations

from collections.abc import Sequence


def count_partitions(is_taken: Sequence[bool], sources: Sequence[Sequence[int]]) -> int:
    """Return the number of groups of taken operations.

    Two neighbours share a group unless something between them is left out: then the group would need its own
    result before it has run. Groups that nothing connects stay apart.

    Args:
        is_taken: for each operation, in the order of execution, whether the accelerator takes it.
        sources: for each operation the positions of those whose results it reads, all before it.
    """
    group: list[int | None] = []
    parent: list[int] = []
    before: list[set[int]] = []  # for each group: those that must have ended before it begins
    reached: list[set[int]] = []  # for each operation: the groups that have ended before it

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    for position, taken in enumerate(is_taken):
        ended: set[int] = set()
        neighbours: list[int] = []
        for source in sources[position]:
            ended |= {root(number) for number in reached[source]}
            own = group[source]
            if own is None:
                continue
            if taken:
                neighbours.append(root(own))
            else:
                ended.add(root(own))
        chosen: int | None = None
        for neighbour in dict.fromkeys(neighbours):
            needs = {root(number) for number in before[neighbour]}
            if neighbour in ended:
                continue
            if chosen is None:
                chosen = neighbour
            elif chosen not in needs and neighbour not in {root(number) for number in before[chosen]}:
                parent[neighbour] = chosen
                before[chosen] |= before[neighbour]
        if taken and chosen is None:
            chosen = len(parent)
            parent.append(chosen)
            before.append(set())
        if chosen is not None:
            ended |= {root(neighbour) for neighbour in neighbours if root(neighbour) != chosen}
            before[chosen] |= ended
        group.append(chosen)
        reached.append(ended if chosen is None else set(before[chosen]))
    return len({root(number) for number in group if number is not None})
