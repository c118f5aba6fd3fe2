"""Back to the pixels that the folded model takes: where its own steps moved them, the graph knows the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgewright.core.tensors import Array
from edgewright.processing.planning import CheckedFlow, Plan
from edgewright.processing.source import ToSource
from edgewright.processing.specification import Flow
from edgewright.processing.step import Floats, Frame, Geometry, Step, floats
from edgewright.processing.values import ValueType

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Placed(Step):
    """The step "to_source" where the way is known: boxes, or a mask, back to the pixels that the folded model takes.

    Boxes are not clipped: their number would show only when it runs. A mask takes the model's pixels' size.

    Attributes:
        geometry: of the steps inside.
        fill: class of what the prepared image does not show.
    """

    name: ClassVar[str] = ToSource.name
    geometry: Geometry
    fill: int = 0

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        is_mask = have.kind == "mask"
        return have.of(self.geometry.source_height, self.geometry.source_width) if is_mask else have

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        if frame.given[0].kind == "mask":
            own = Frame(given=frame.given, geometries={"image": self.geometry})
            return ToSource(fill=self.fill).apply(values, own)
        offsets, factors = self.columns(values[0].shape[1])
        return (floats(values[0]) - offsets) * factors

    def columns(self, count: int) -> tuple[Floats, Floats]:
        """Return what is taken from each column of rows of boxes, and by what it is then multiplied, float32."""
        offsets, factors = np.zeros(count, dtype=np.float32), np.ones(count, dtype=np.float32)
        found = self.geometry
        for across in (0, 2, *range(6, count, 3)):
            offsets[across : across + 2] = found.offset_x, found.offset_y
            factors[across : across + 2] = 1.0 / found.scale_x, 1.0 / found.scale_y
        return offsets, factors

    def places(self, rows: int, columns: int) -> tuple[Integers, Integers]:
        """Return the row and the column of a mask of this size for each pixel's; those outside are not in 0..size-1."""
        found = self.geometry
        return (
            _places(found.source_height, found.scale_y, found.offset_y, rows / found.height),
            _places(found.source_width, found.scale_x, found.offset_x, columns / found.width),
        )


def readers(checked: Plan) -> dict[str, list[tuple[Flow, int]]]:
    """Return image input -> the flows that bring values back to its pixels, and which of their steps does."""
    images = [row.name for row in checked.specification.inputs if row.kind == "image"]
    found: dict[str, list[tuple[Flow, int]]] = {}
    for flow in checked.specification.flows():
        for index, step in enumerate(flow.steps):
            image = step.geometry_of()
            if image is not None:
                for name in [image] if image else images:
                    found.setdefault(name, []).append((flow, index))
    return found


def moved_by(steps: Sequence[tuple[Step, tuple[ValueType, ...]]]) -> Geometry | None:
    """Return what `steps`, with the types that they are given, do to the pixels; None where they move none."""
    moving = [number for number, (step, _) in enumerate(steps) if moves(step)]
    if not moving:
        return None
    given = steps[moving[0]][1][0]
    assert given.height is not None and given.width is not None
    geometry = Geometry(
        source_height=given.height, source_width=given.width, height=given.height, width=given.width
    )
    for step, _ in steps[moving[0] :]:
        geometry = step.move(geometry)
    return geometry


def moves(step: Step) -> bool:
    """Return whether the step moves the pixels of an image."""
    return type(step).move is not Step.move


def prepared_once(checked: Plan, items: Mapping[int, CheckedFlow], image: str) -> bool:
    """Return whether one tensor alone is made of the image, and nothing else: then its way is the only one."""
    specification = checked.specification
    users = [flow for flow in specification.flows() if image in flow.sources]
    return len(users) == 1 and users[0] in specification.tensors and items[id(users[0])].image == image


def _places(size: int, scale: float, offset: float, ratio: float) -> Integers:
    # As of the step "to_source".
    places: Integers = np.floor(((np.arange(size) + 0.5) * scale + offset) * ratio).astype(np.int64)
    return places
