"""What of a specification goes into the graph: records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.core.tensors import Array
from edgewright.processing.nms import Nms
from edgewright.processing.planning import CheckedFlow, Plan
from edgewright.processing.specification import Specification
from edgewright.processing.step import Frame, Step
from edgewright.processing.values import ValueType

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

    @property
    def suppression(self) -> Nms | None:
        """The step that makes boxes of candidates, where there is one."""
        return next((step for step, _ in self.steps if isinstance(step, Nms)), None)

    def apply(self, outputs: Sequence[Array]) -> Array:
        """Return what the reference makes of the model's outputs, all of them without a batch axis."""
        values = tuple(outputs[s] if isinstance(s, int) else s.apply(outputs) for s in self.sources)
        for step, given in self.steps:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
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


def checked_flows(checked: Plan) -> dict[int, CheckedFlow]:
    """Return id of each flow -> the flow with its types."""
    return {id(item.flow): item for item in checked.order if isinstance(item, CheckedFlow)}


def staying(steps: Sequence[Step], of: str, reasons: Mapping[int, str]) -> tuple[str, ...]:
    """Return the sentence that tells of `steps` that they stay outside, and why; none where there are none.

    Args:
        reasons: index of a step -> why, with "it" for the step.
    """
    if not steps:
        return ()
    known = [(steps[n].name, why) for n, why in sorted(reasons.items()) if why and n < len(steps)]
    if len(steps) > 1:
        known = [
            ("", f"{name} {why.removeprefix('it ')}" if why.startswith("it ") else f"{name}: {why}")
            for name, why in known
        ]
    names = ", ".join(step.name for step in steps)
    told = "; ".join(why for _, why in known)
    return (
        f"{names} of {of} {'stay' if len(steps) > 1 else 'stays'} outside" + (f": {told}" if told else ""),
    )
