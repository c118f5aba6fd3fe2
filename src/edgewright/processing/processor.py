"""Run a specification: the reference in numpy, around models that something else runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgewright.core.errors import DataError, FormatMismatchError, UsageError
from edgewright.core.tensors import Array, Arrays
from edgewright.processing.planning import CheckedFlow, Plan, plan
from edgewright.processing.signature import Signature, full_name, held_values
from edgewright.processing.step import Frame, Geometry, Step
from edgewright.processing.values import MAX_SIDE, RAW_DTYPES, ValueType, fits

Raw = Array | str
Execute = Callable[
    [str, Arrays], Arrays
]  # name of the model ("" for the only one), its inputs -> its outputs


@dataclass(kw_only=True, eq=False)
class _Run:
    """What one run has made so far.

    Attributes:
        values: of inputs, flows and the models' outputs, by name, without the batch axis.
        moved: image input, or value made of one -> where its pixels lie.
        geometries: image input -> where the pixels lie of what was prepared of it last.
        outputs: of the models, by name, as they came.
    """

    values: dict[str, Array]
    moved: dict[str, Geometry]
    geometries: dict[str, Geometry]
    outputs: dict[str, Array] = field(default_factory=dict)
    results: dict[str, Array] = field(default_factory=dict)


class Processor:
    """Runs a plan, and keeps the states of its steps and of the models between runs."""

    def __init__(self, checked: Plan) -> None:
        self.plan = checked
        self.reset()

    def reset(self) -> None:
        """Forget everything of earlier runs: a new stream begins."""
        self._step_states: dict[tuple[int, int], Array | None] = {}
        for item in self.plan.order:
            if isinstance(item, CheckedFlow):
                for index, step in enumerate(item.flow.steps):
                    self._step_states[id(item), index] = step.initial(item.taken(index))
        self._held = held_values(self.plan.specification, self.plan.signatures)

    def prepare(self, raw: Mapping[str, Raw]) -> dict[str, Array]:
        """Return the inputs, by name, of the model that is run first; nothing is run.

        Raises:
            DataError: as of `run`.
        """
        run = self._begin(raw)
        for item in self.plan.order:
            if isinstance(item, str):
                return self._inputs(item, run)
            self._make(item, run)
        raise AssertionError("a plan runs a model")

    def run(self, raw: Mapping[str, Raw], execute: Execute) -> dict[str, Array]:
        """Return the results of one run, by name.

        Args:
            raw: name of each input -> uint8 pixels, float32 samples, or what its kind says.
            execute: runs a model.
        Raises:
            DataError: an input is missing, or has another type or shape than the specification says.
        """
        run = self._begin(raw)
        for item in self.plan.order:
            if isinstance(item, str):
                self._take(item, execute(item, self._inputs(item, run)), run)
            else:
                self._make(item, run)
        self._keep(run)
        return run.results

    def _begin(self, raw: Mapping[str, Raw]) -> _Run:
        values, places = {}, {}
        for row in self.plan.specification.inputs:
            values[row.name] = array = require_raw(row.name, row.type, raw)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"input {row.name!r} holds NaN or infinite values. Mend what records it.")
            if row.kind == "image":
                height, width = array.shape[:2]
                places[row.name] = Geometry(
                    source_height=height, source_width=width, height=height, width=width
                )
        return _Run(values=values, moved=dict(places), geometries=places)

    def _make(self, item: CheckedFlow, run: _Run) -> None:
        """Run the steps of a flow."""
        flow = item.flow
        taken = tuple(run.values[source] for source in flow.sources)
        geometry = next((run.moved[source] for source in flow.sources if source in run.moved), None)
        for index, step in enumerate(flow.steps):
            given = item.taken(index)
            if any(None in kind.shape for kind in given):
                given = _as_they_are(flow.name, index, step, given, taken)
            frame = Frame(
                given=given,
                geometries=run.geometries,
                folder=self.plan.specification.folder or Path(),
                state=self._step_states[id(item), index],
            )
            # A model may give anything; what is no number is for the steps to leave out, not to warn of.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                taken = (step.apply(taken, frame),)
            self._step_states[id(item), index] = frame.state
            if geometry is not None:
                geometry = step.move(geometry)
        if flow in self.plan.specification.results:
            run.results[flow.name] = taken[0]
            return
        run.values[flow.name] = taken[0]
        if geometry is not None:
            run.moved[flow.name] = run.geometries[item.image] = geometry

    def _inputs(self, model: str, run: _Run) -> dict[str, Array]:
        """Return what the model is given, batch axis included."""
        inputs = {}
        for spec in self.plan.signatures[model].inputs:
            name = full_name(model, spec.name)
            array = self._held[name] if name in self._held else run.values[name]
            whole = array if array.ndim == len(spec.shape) else array[None]
            if any(want not in (None, have) for want, have in zip(spec.shape, whole.shape, strict=True)):
                raise DataError(
                    f"the inputs make {whole.dtype}{list(whole.shape)} for tensor {spec}. Give inputs of another "
                    "length, or put 'fit_length' or 'resize' before the other steps."
                )
            inputs[spec.name] = whole
        return inputs

    def _take(self, model: str, outputs: Arrays, run: _Run) -> None:
        """Note what the model gave."""
        for spec in self.plan.signatures[model].outputs:
            array, name = np.asarray(outputs[spec.name]), full_name(model, spec.name)
            run.outputs[name] = array
            has_batch = spec.shape and spec.shape[0] in (1, None) and len(array) == 1
            run.values[name] = array[0] if has_batch else array

    def _keep(self, run: _Run) -> None:
        """Keep what the models' states are in the next run."""
        for state in self.plan.specification.states:
            kept = run.outputs[state.source] if state.source in run.outputs else run.values[state.source]
            shape = self._held[state.tensor].shape
            if kept.size != math.prod(shape):
                raise FormatMismatchError(
                    f"state {state.tensor!r} holds {list(shape)}, but {state.source!r} came as {list(kept.shape)}."
                )
            self._held[state.tensor] = kept.reshape(shape).copy()


def _as_they_are(
    flow: str, index: int, step: Step, given: tuple[ValueType, ...], values: tuple[Array, ...]
) -> tuple[ValueType, ...]:
    """Return `given` with the lengths that were open; the step's type rule bounds what is made of them.

    Raises:
        DataError: the step does not take such lengths.
    """
    found = tuple(
        kind if kind.kind == "text" else kind.of(*value.shape)
        for kind, value in zip(given, values, strict=True)
    )
    try:
        step.result(found)
    except UsageError as err:
        raise DataError(f"{flow!r}, step {index + 1}: {err}") from err
    return found


def require_raw(name: str, want: ValueType, raw: Mapping[str, Raw]) -> Array:
    """Return the array of the input `name`, which takes values of the type `want`.

    Raises:
        DataError: it is missing, or has another type or shape. Whether its numbers are finite is not looked at.
    """
    if name not in raw:
        raise DataError(f"input {name!r} is not given; {want} is expected.")
    value = raw[name]
    array = np.asarray(value)
    if want.kind == "text":
        if not isinstance(value, str):
            raise DataError(f"input {name!r} is {type(value).__name__}, but a text is expected.")
        return array
    have = (
        replace(want, shape=array.shape, dtype=str(array.dtype)) if str(array.dtype) in RAW_DTYPES else None
    )
    if have is None or not fits(have, want) or 0 in array.shape:
        raise DataError(f"input {name!r} is {array.dtype}{list(array.shape)}, but {want} is expected.")
    if want.kind == "image" and max(array.shape[:2]) > MAX_SIDE:
        raise DataError(
            f"input {name!r} has {array.shape[1]}x{array.shape[0]} pixels; sides of up to {MAX_SIDE} are expected."
        )
    return array


__all__ = [
    "CheckedFlow", "Execute", "Plan", "Processor", "Raw", "Signature", "Step", "full_name", "plan", "require_raw",
]  # fmt: skip
