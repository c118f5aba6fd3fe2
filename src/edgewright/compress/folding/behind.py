"""The steps behind a model: how far the graph carries them, and what is left outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from edgewright.compress.folding.places import Placed, prepared_once, readers
from edgewright.compress.folding.records import Expression, FoldedOutput, Steps, checked_flows, staying
from edgewright.compress.folding.rules import DECODERS, why_not
from edgewright.core.program import Program
from edgewright.processing.boxes import DecodeEndToEnd
from edgewright.processing.masks import Mask
from edgewright.processing.nms import Nms
from edgewright.processing.planning import CheckedFlow, Plan
from edgewright.processing.source import ToSource
from edgewright.processing.specification import Flow, ResultFlow
from edgewright.processing.step import Geometry, Step
from edgewright.processing.values import ValueType

_AnyFlow = TypeVar("_AnyFlow", bound=Flow)


@dataclass(frozen=True, kw_only=True)
class _Reached:
    """A flow whose first `count` steps are inside; `result` is of what leaves the graph."""

    expression: Expression
    result: ValueType
    count: int


class Behind:
    """The flows behind the model: each is followed from the model's outputs as far as the graph carries it."""

    def __init__(self, checked: Plan, program: Program, *, is_float: bool) -> None:
        self.specification = checked.specification
        self.is_float = is_float
        self.names = [spec.name for spec in program.outputs]
        self.taken = {spec.name for spec in program.inputs} | {row.name for row in self.specification.inputs}
        self.items = checked_flows(checked)
        self.values = {flow.name: flow for flow in self.specification.values}
        self.readers = readers(checked)
        self.ways: Mapping[str, Geometry] = {}
        self.checked = checked
        self.inside: dict[str, None] = {}  # an ordered set
        self.outside: list[str] = []

    def images_that_may_move(self) -> set[str]:
        """Return the images to whose pixels the graph itself can bring everything back that goes there."""
        return {
            image
            for image, found in self.readers.items()
            if prepared_once(self.checked, self.items, image)
            and all(flow in self.specification.results and self._leaves_at(flow, i) for flow, i in found)
        }

    def has_mask(self, image: str) -> bool:
        """Return whether a mask goes back to the pixels of `image`."""
        return any(self.items[id(flow)].taken(index)[0].kind == "mask" for flow, index in self.readers[image])

    def split(
        self, ways: Mapping[str, Geometry]
    ) -> tuple[tuple[FoldedOutput, ...], tuple[Flow, ...], tuple[ResultFlow, ...]]:
        """Return the outputs of the folded model, and the values and results that are left.

        Args:
            ways: image -> how its pixels are moved inside.
        """
        self.ways = ways
        reached, wanted = self._follow()
        read = {source for flow in self.specification.flows() for source in flow.sources}
        read |= {state.source for state in self.specification.states}
        kept = [name for name in self.names if name in wanted or name not in read]
        self.taken |= {*kept, *(name for name in wanted if name in self.values)}
        outputs = [
            FoldedOutput(name=name, expression=Expression(sources=(self.names.index(name),))) for name in kept
        ]
        sources: dict[str, str] = {}  # flow -> the output that it is from
        for name, found in reached.items():
            same = next((one for one in outputs if one.expression == found.expression), None)
            if same is None:
                free = self._free_name(name, found.expression)
                same = FoldedOutput(name=free, expression=found.expression, result=found.result)
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

    def _follow(self) -> tuple[dict[str, _Reached], dict[str, None]]:
        """Return the flows with steps that go inside, by name, and the names that are read outside."""
        wanted = dict.fromkeys(source for flow in self.specification.tensors for source in flow.sources)
        wanted |= dict.fromkeys(state.source for state in self.specification.states)
        reached: dict[str, _Reached] = {}
        flows: list[Flow] = list(self.specification.results)
        done: set[str] = set()
        while True:
            flows += [self.values[name] for name in wanted if name in self.values]
            flows = [flow for flow in flows if flow.name not in done]
            if not flows:
                return reached, wanted
            flow = flows.pop(0)
            done.add(flow.name)
            found = self._reach(flow)
            if found is None:
                wanted |= dict.fromkeys(flow.sources)
            else:
                reached[flow.name] = found

    def _reach(self, flow: Flow) -> _Reached | None:
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
        steps, result = _typed(item, count), item.types[count - 1] if count else item.given[0]
        way = self._way(item, count) if count else None
        if way is not None:
            steps = (*steps, (way, (result,)))
            if result.kind == "mask":
                count += 1
            else:
                reasons[count] = "it clips boxes, and how many are left shows only when it runs"
            result = way.result((result,))
        self.outside += staying(flow.steps[count:], flow.name, {n - count: w for n, w in reasons.items()})
        if not count:
            return None
        made = Expression(sources=sources, steps=steps)
        self._tell(made)
        return _Reached(expression=made, result=result, count=count)

    def _leaves_at(self, flow: Flow, index: int) -> bool:
        """Return whether step `index` is the first that stays outside, and gets boxes or a mask of the graph."""
        item = self.items[id(flow)]
        _, why = self._sources(flow)
        count = 0 if why else self._carried(item)[0]
        return 0 < count == index and _can_leave(item, count - 1) and item.types[count - 1].kind != "tensor"

    def _way(self, item: CheckedFlow, count: int) -> Placed | None:
        """Return what brings values back to the image's pixels, where that is step `count` and the way is known."""
        step = item.flow.steps[count] if count < len(item.flow.steps) else None
        for image, way in self.ways.items():
            if isinstance(step, ToSource) and (item.flow, count) in self.readers[image]:
                return Placed(geometry=way, fill=step.fill)
        return None

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

    def _left(self, flow: _AnyFlow, reached: _Reached | None, sources: Mapping[str, str]) -> _AnyFlow:
        """Return `flow` without the steps that are inside, but with one that reads what they give."""
        if reached is None:
            return flow
        suppression = reached.expression.suppression
        read: tuple[Step, ...] = ()
        if suppression is not None:
            read = (DecodeEndToEnd(score=suppression.score),)
        elif reached.result.kind == "mask":
            read = (Mask(),)
        return replace(flow, sources=(sources[flow.name],), steps=(*read, *flow.steps[reached.count :]))


def _typed(item: CheckedFlow, count: int) -> Steps:
    return tuple((step, item.taken(n)) for n, step in enumerate(item.flow.steps[:count]))


def _can_leave(item: CheckedFlow, index: int) -> bool:
    """Return whether a step outside can read what step `index` makes, as a tensor of the model."""
    return item.types[index].kind in ("tensor", "mask") or isinstance(item.flow.steps[index], Nms)
