"""Which part of a specification goes into the graph, and what is left of it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

from edgewright.compress.folding.behind import Behind
from edgewright.compress.folding.places import moved_by, moves, readers
from edgewright.compress.folding.records import Split, Steps, checked_flows, staying
from edgewright.compress.folding.rules import why_not
from edgewright.core.program import Program
from edgewright.processing.planning import CheckedFlow, Plan
from edgewright.processing.specification import Flow
from edgewright.processing.step import Geometry


def split(checked: Plan, program: Program, *, is_float: bool) -> Split:
    """Return what of the plan goes into the program's graph.

    Args:
        is_float: the program is not going to be quantized; else boxes are decoded and suppressed outside.
    """
    behind = Behind(checked, program, is_float=is_float)
    known = behind.images_that_may_move()
    before, tensors, inside, outside, ways = _before(checked, program, known)
    stay = {
        image for image in ways if behind.has_mask(image) and any(moves(s) for f in tensors for s in f.steps)
    }
    if stay:  # a mask that is resized twice would be another one
        before, tensors, inside, outside, ways = _before(checked, program, known - stay)
    outputs, values, results = behind.split(ways)
    specification = replace(checked.specification, tensors=tensors, values=values, results=results)
    return Split(
        before=before,
        outputs=outputs,
        specification=specification,
        inside=(*inside, *behind.inside),
        outside=(*outside, *behind.outside),
    )


def _before(
    checked: Plan, program: Program, known: Set[str]
) -> tuple[tuple[Steps, ...], tuple[Flow, ...], list[str], list[str], dict[str, Geometry]]:
    """Return the steps of each input that go inside, the flows to the inputs that are left, both in words, and ways.

    Args:
        known: images whose pixels may be moved inside, as nothing outside needs to know how.
    Returns:
        At the end, image -> how its pixels are moved inside.
    """
    read = {
        image: f"{flow.steps[index].name} of {flow.name}"
        for image, found in readers(checked).items()
        if image not in known
        for flow, index in found
    }
    ways: dict[str, Geometry] = {}
    flows = checked_flows(checked)
    tensors = list(checked.specification.tensors)
    before: list[Steps] = []
    inside: list[str] = []
    outside: list[str] = []
    for spec in program.inputs:
        index = next((i for i, flow in enumerate(tensors) if flow.name == spec.name), None)
        if index is None:  # a constant or a state
            before.append(())
            continue
        item, why = flows[id(tensors[index])], ""
        steps, count = item.flow.steps, len(item.flow.steps)
        while count:
            why = _why_stays(item, count - 1, read)
            if why:
                break
            count -= 1
        before.append(tuple((steps[n], item.taken(n)) for n in range(count, len(steps))))
        way = moved_by(before[-1]) if item.image in known else None
        if way is not None:
            ways[item.image] = way
        inside += [f"{step.name} into {spec.name}" for step in steps[count:]]
        outside += staying(steps[:count], spec.name, {count - 1: why})
        tensors[index] = replace(item.flow, steps=steps[:count])
    return tuple(before), tuple(tensors), inside, outside, ways


def _why_stays(item: CheckedFlow, index: int, read: Mapping[str, str]) -> str:
    given, step = item.taken(index), item.flow.steps[index]
    if len(given) != 1:
        return "it takes several values"
    if item.image in read and moves(step):
        return f"{read[item.image]} needs to know where the pixels lay"
    return why_not(step, given)
