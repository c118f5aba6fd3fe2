"""Which part of a specification goes into the graph, and what is left of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from edgewright.compress.folded_rules import DECODERS, why_not
from edgewright.core.program import Program
from edgewright.core.tensors import Array
from edgewright.processing.boxes import DecodeEndToEnd
from edgewright.processing.masks import Mask
from edgewright.processing.nms import Nms
from edgewright.processing.processor import CheckedFlow, Plan
from edgewright.processing.specification import Flow, ResultFlow, Specification
from edgewright.processing.step import Frame, Step
from edgewright.processing.values import ValueType

_AnyFlow = TypeVar("_AnyFlow", bound=Flow)
Steps = tuple[tuple[Step, tuple[ValueType, ...]], ...]  # each with the types of what it is given


@dataclass(frozen=True, kw_only=True)
class Expression:
    """Steps on what the model gives, or on what other steps make of that.

    Attributes:
        sources: indices of the model's outputs, or expressions.
        steps: the first takes all sources.
    """

    sources: tuple[int | Expression, ...]
    steps: Steps = ()

    def outputs(self) -> tuple[int, ...]:
        """Return the indices of the model's outputs that are read."""
        found: list[int] = []
        for source in self.sources:
            found += (source,) if isinstance(source, int) else source.outputs()
        return tuple(dict.fromkeys(found))

    def apply(self, outputs: Sequence[Array]) -> Array:
        """Return what the reference makes of the model's outputs, all of them without a batch axis."""
        values = tuple(outputs[s] if isinstance(s, int) else s.apply(outputs) for s in self.sources)
        for step, given in self.steps:
            values = (step.apply(values, Frame(given=given)),)
        return values[0]


@dataclass(frozen=True, kw_only=True)
class FoldedOutput:
    """An output of the folded model.

    Attributes:
        result: what its steps make; None where it is an output of the model as it is.
    """

    name: str
    expression: Expression
    result: ValueType | None = None


@dataclass(frozen=True, kw_only=True)
class Split:
    """What goes where.

    Attributes:
        before: of each input of the program, the steps that go inside.
        outputs: of the folded model.
        specification: what is left.
        inside, outside: in words.
    """

    before: tuple[Steps, ...]
    outputs: tuple[FoldedOutput, ...]
    specification: Specification
    inside: tuple[str, ...]
    outside: tuple[str, ...]


def split(checked: Plan, program: Program, *, is_float: bool) -> Split:
    """Return what of the plan goes into the program's graph.

    Args:
        is_float: the program is not going to be quantized; else boxes are decoded and suppressed outside.
    """
    before, tensors, inside, outside = _before(checked, program)
    behind = _Behind(checked, program, is_float=is_float)
    outputs, values, results = behind.split()
    names = {flow.name for flow in (*values, *results)}
    specification = replace(
        checked.specification,
        tensors=tensors,
        values=tuple(flow for flow in values if flow.name in names),
        results=tuple(results),
    )
    return Split(
        before=before,
        outputs=tuple(outputs),
        specification=specification,
        inside=(*inside, *behind.inside),
        outside=(*outside, *behind.outside),
    )


def _before(
    checked: Plan, program: Program
) -> tuple[tuple[Steps, ...], tuple[Flow, ...], list[str], list[str]]:
    """Return the steps of each input that go inside, the flows to the inputs that are left, and both in words."""
    read = _sources_read(checked)
    flows = _checked_flows(checked)
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
        inside += [f"{step.name} into {spec.name}" for step in steps[count:]]
        outside += _staying(steps[:count], spec.name, {count - 1: why})
        tensors[index] = replace(item.flow, steps=steps[:count])
    return tuple(before), tuple(tensors), inside, outside


def _why_stays(item: CheckedFlow, index: int, read: Mapping[str, str]) -> str:
    given, step = item.taken(index), item.flow.steps[index]
    if len(given) != 1:
        return "it takes several values"
    if item.image in read and type(step).move is not Step.move:
        return f"{read[item.image]} needs to know where the pixels lay"
    return why_not(step, given)


class _Behind:
    """The flows behind the model: each is followed from the model's outputs as far as the graph carries it."""

    def __init__(self, checked: Plan, program: Program, *, is_float: bool) -> None:
        self.specification = checked.specification
        self.is_float = is_float
        self.names = [spec.name for spec in program.outputs]
        self.taken = {spec.name for spec in program.inputs} | {row.name for row in self.specification.inputs}
        self.items = _checked_flows(checked)
        self.values = {flow.name: flow for flow in self.specification.values}
        self.inside: dict[str, None] = {}  # an ordered set
        self.outside: list[str] = []

    def split(self) -> tuple[tuple[FoldedOutput, ...], tuple[Flow, ...], tuple[ResultFlow, ...]]:
        """Return the outputs of the folded model, and the values and results that are left."""
        reached, wanted = self._follow()
        read = {source for flow in self.specification.flows() for source in flow.sources}
        read |= {state.source for state in self.specification.states}
        kept = [name for name in self.names if name in wanted or name not in read]
        self.taken |= {*kept, *(name for name in wanted if name in self.values)}
        outputs = [
            FoldedOutput(name=name, expression=Expression(sources=(self.names.index(name),))) for name in kept
        ]
        sources: dict[str, str] = {}  # flow -> the output that it is from
        for name, (expression, result) in reached.items():
            same = next((one for one in outputs if one.expression == expression), None)
            if same is None:
                same = FoldedOutput(
                    name=self._free_name(name, expression), expression=expression, result=result
                )
                outputs.append(same)
            sources[name] = same.name
        outputs.sort(key=lambda one: min(one.expression.outputs()))
        values = tuple(
            self._left(flow, reached.get(flow.name), sources)
            for flow in self.specification.values
            if flow.name in wanted
        )
        results = tuple(
            self._left(flow, reached.get(flow.name), sources) for flow in self.specification.results
        )
        return tuple(outputs), values, results

    def _follow(self) -> tuple[dict[str, tuple[Expression, ValueType]], dict[str, None]]:
        """Return the flows with steps that go inside, by name, and the names that are read outside."""
        wanted = dict.fromkeys(source for flow in self.specification.tensors for source in flow.sources)
        wanted |= dict.fromkeys(state.source for state in self.specification.states)
        reached: dict[str, tuple[Expression, ValueType]] = {}
        flows: list[Flow] = list(self.specification.results)
        done: set[str] = set()
        while True:
            flows += [self.values[name] for name in wanted if name in self.values]
            flows = [flow for flow in flows if flow.name not in done]
            if not flows:
                return reached, wanted
            flow = flows.pop(0)
            done.add(flow.name)
            expression = self._reach(flow)
            if expression is None:
                wanted |= dict.fromkeys(flow.sources)
            else:
                reached[flow.name] = expression, self.items[id(flow)].types[len(expression.steps) - 1]

    def _reach(self, flow: Flow) -> Expression | None:
        """Return the first steps of `flow` that go inside, up to one whose result can leave the graph."""
        item = self.items[id(flow)]
        sources, why = self._sources(flow)
        blocked = 0
        if not why:
            blocked, why = self._carried(item)
        count = blocked
        while count and not _can_leave(item, count - 1):
            count -= 1
        reasons = {blocked: why}
        if count < blocked:
            reasons[count] = f"its candidates would leave the graph before {flow.steps[blocked].name}"
        self.outside += _staying(flow.steps[count:], flow.name, {n - count: w for n, w in reasons.items()})
        if not count:
            return None
        made = Expression(sources=sources, steps=_typed(item, count))
        self._tell(made)
        return made

    def _sources(self, flow: Flow) -> tuple[tuple[int | Expression, ...], str]:
        """Return what the steps of `flow` take inside; else why they do not."""
        found: list[int | Expression] = []
        for name in flow.sources:
            if name in self.names:
                found.append(self.names.index(name))
                continue
            value = self.values.get(name)
            if value is None:
                return (), f"{name!r} does not come from the model"
            sources, why = self._sources(value)
            item, count = self.items[id(value)], len(value.steps)
            if why or self._carried(item)[0] < count:
                return (), f"it takes {name!r}, which is not made inside"
            found.append(Expression(sources=sources, steps=_typed(item, count)))
        return tuple(found), ""

    def _carried(self, item: CheckedFlow) -> tuple[int, str]:
        """Return how many first steps the graph carries, and why not the next one."""
        for index, step in enumerate(item.flow.steps):
            why = why_not(step, item.taken(index))
            if not why and not self.is_float and isinstance(step, (Nms, *DECODERS)):
                why = "the model is to be quantized, and boxes and scores would lose their precision"
            if why:
                return index, why
        return len(item.flow.steps), ""

    def _tell(self, expression: Expression) -> None:
        for source in expression.sources:
            if not isinstance(source, int):
                self._tell(source)
        where = " and ".join(self.names[index] for index in expression.outputs())
        self.inside |= dict.fromkeys(f"{step.name} behind {where}" for step, _ in expression.steps)

    def _free_name(self, flow: str, expression: Expression) -> str:
        """Return the name of the only output that the steps read; of several, that of the flow; or one more number."""
        read = expression.outputs()
        first = self.names[read[0]] if len(read) == 1 else flow
        name, number = first, 2
        while name in self.taken:
            name, number = f"{first}_{number}", number + 1
        self.taken.add(name)
        return name

    def _left(
        self, flow: _AnyFlow, reached: tuple[Expression, ValueType] | None, sources: Mapping[str, str]
    ) -> _AnyFlow:
        """Return `flow` without the steps that are inside, but with one that reads what they give."""
        if reached is None:
            return flow
        expression, result = reached
        read: tuple[Step, ...] = ()
        last = expression.steps[-1][0]
        if isinstance(last, Nms):
            read = (DecodeEndToEnd(score=last.score),)
        elif result.kind == "mask":
            read = (Mask(),)
        return replace(
            flow, sources=(sources[flow.name],), steps=(*read, *flow.steps[len(expression.steps) :])
        )


def _typed(item: CheckedFlow, count: int) -> Steps:
    return tuple((step, item.taken(n)) for n, step in enumerate(item.flow.steps[:count]))


def _can_leave(item: CheckedFlow, index: int) -> bool:
    """Return whether a step outside can read what step `index` makes, as a tensor of the model."""
    return item.types[index].kind in ("tensor", "mask") or isinstance(item.flow.steps[index], Nms)


def _checked_flows(checked: Plan) -> dict[int, CheckedFlow]:
    return {id(item.flow): item for item in checked.order if isinstance(item, CheckedFlow)}


def _sources_read(checked: Plan) -> dict[str, str]:
    """Return image input -> the step, and what it is of, that brings values back to the pixels of that image."""
    images = [row.name for row in checked.specification.inputs if row.kind == "image"]
    read: dict[str, str] = {}
    for flow in checked.specification.flows():
        for step in flow.steps:
            image = step.geometry_of()
            if image is not None:
                read |= dict.fromkeys([image] if image else images, f"{step.name} of {flow.name}")
    return read


def _staying(steps: Sequence[Step], of: str, reasons: Mapping[int, str]) -> list[str]:
    """Return a sentence for each step that stays outside, with its reason where there is one."""
    return [
        f"{step.name} of {of} stays outside" + (f": {reasons[number]}" if reasons.get(number) else "")
        for number, step in enumerate(steps)
    ]
