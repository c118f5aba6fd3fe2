"""A checked plan as calls of the C core, one segment before each model and one behind the last."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgewright.core.errors import ConversionError, UsageError
from edgewright.core.tensors import TensorSpec
from edgewright.processing.c_pictures import PICTURE_STEPS, Picture, dense, raw_picture
from edgewright.processing.c_registry import emitter
from edgewright.processing.c_rows import make_rows, row_steps
from edgewright.processing.c_site import (
    ITEM_BYTES,
    TENSOR_ALIGNMENT,
    Buffer,
    Call,
    CValue,
    Site,
    plan_memory,
)
from edgewright.processing.planning import CheckedFlow, Plan
from edgewright.processing.signature import full_name, held_values
from edgewright.processing.specification import RawInput, ResultFlow
from edgewright.processing.step import Step
from edgewright.processing.values import MAX_SIDE, MAX_VALUES, ValueType, tensor_type

MODEL = "model"  # in the calls: here a model runs


@dataclass(frozen=True, kw_only=True)
class COptions:
    """Limits of a processing in C; its memory is planned for them.

    Attributes:
        max_side: of an image, in pixels.
        max_rows: of a raw input of any length: samples of audio, rows of a series.
        max_mask_pixels: of a mask that is brought back to the pixels of its source.
    """

    max_side: int = 8192
    max_rows: int = 1 << 20
    max_mask_pixels: int = 1 << 22

    def __post_init__(self) -> None:
        if not 1 <= self.max_side <= MAX_SIDE:
            raise UsageError(f"max_side is {self.max_side}; 1..{MAX_SIDE} pixels are expected.")
        for what, number in (("max_rows", self.max_rows), ("max_mask_pixels", self.max_mask_pixels)):
            if not 1 <= number <= MAX_VALUES:
                raise UsageError(f"{what} is {number}; 1..{MAX_VALUES} is expected.")


@dataclass(frozen=True, kw_only=True, eq=False)
class CTensor:
    """An input or output of a model: its spec with every size known, and its memory."""

    spec: TensorSpec
    value: CValue


@dataclass(frozen=True, kw_only=True, eq=False)
class CModelEnds:
    """The tensors of one model."""

    name: str
    inputs: tuple[CTensor, ...]
    outputs: tuple[CTensor, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class CProgram:
    """What becomes NAME_processing.c.

    Attributes:
        cuts: the number of calls before each model, in the order of `models`.
        most_raw: elements of each raw input at most.
    """

    plan: Plan
    site: Site
    models: tuple[CModelEnds, ...]
    results: tuple[tuple[ResultFlow, CValue], ...]
    cuts: tuple[int, ...]
    most_raw: tuple[int, ...]
    arena_bytes: int


def make_program(checked: Plan, *, name: str, options: COptions) -> CProgram:
    """Return `checked` as calls of the core.

    Raises:
        ConversionError: a step has no C; the message names all of them.
    """
    without = sorted(
        {
            step.name
            for flow in checked.specification.flows()
            for step in flow.steps
            if emitter(step.name) is None
        }
    )
    without += [f"input {row.name} (text)" for row in checked.specification.inputs if row.kind == "text"]
    if without:
        raise ConversionError(
            f"these steps of the specification have no C: {', '.join(without)}. "
            "Use others, or run the processing in Python."
        )
    site = Site(
        name=name,
        max_side=options.max_side,
        max_rows=options.max_rows,
        max_mask_pixels=options.max_mask_pixels,
    )
    return _Maker(checked, site).program()


class _Maker:
    def __init__(self, checked: Plan, site: Site) -> None:
        self.plan, self.site = checked, site
        self.values: dict[str, CValue] = {}
        self.most_raw: list[int] = []
        self.inputs: dict[str, CTensor] = {}
        self.results: list[tuple[ResultFlow, CValue]] = []
        self.models: list[CModelEnds] = []
        self.cuts: list[int] = []

    def program(self) -> CProgram:
        for number, row in enumerate(self.plan.specification.inputs):
            self.values[row.name] = self._raw(number, row)
        self._hold()
        for item in self.plan.order:
            if isinstance(item, str):
                self._model(item)
            else:
                self._flow(item)
        for state in self.plan.specification.states:
            self._copy(self.values[state.source], self.inputs[state.tensor].value)
        for _, value in self.results:
            assert isinstance(value.place, Buffer)
            value.place.use(len(self.site.calls))
        return CProgram(
            plan=self.plan,
            site=self.site,
            models=tuple(self.models),
            results=tuple(self.results),
            cuts=tuple(self.cuts),
            most_raw=tuple(self.most_raw),
            arena_bytes=plan_memory(self.site.buffers, len(self.site.calls)),
        )

    def _raw(self, number: int, row: RawInput) -> CValue:
        self.site.what = f"input {row.name!r}"
        made = row.type
        if row.kind == "image":
            self.most_raw.append(1)
            self.site.images[row.name] = raw_picture(self.site, number, made)
            return self.site.images[row.name]
        if None in made.shape[1:] or made.dtype not in ITEM_BYTES:
            raise self.site.refused(f"it is {made}, of which only the first size may be open")
        inner = math.prod(size for size in made.shape[1:] if size is not None)
        is_open = bool(made.shape) and made.shape[0] is None
        sizes = tuple(self.site.max_rows if size is None else size for size in made.shape)
        self.most_raw.append(math.prod(sizes))
        return CValue(
            type=made,
            bound=sizes,
            place=f"run->raws[{number}].data",
            rows=f"(run->raws[{number}].count / {inner})" if is_open else "",
        )

    def _hold(self) -> None:
        """Make the tensors that keep their values: constants and states."""
        for tensor, array in held_values(self.plan.specification, self.plan.signatures).items():
            self.site.what = f"tensor {tensor!r}"
            buffer = self.site.buffer(array.nbytes, is_kept=True, alignment=TENSOR_ALIGNMENT)
            made = ValueType(kind="tensor", shape=array.shape, dtype=str(array.dtype))
            self._keep(tensor, CValue(type=made, bound=array.shape, place=buffer))
            table = self.site.table(array)
            self.site.at_reset("ew_copy", table, buffer, array.nbytes, file="ew_tensors")

    def _keep(self, tensor: str, value: CValue) -> None:
        specs = {
            full_name(model, spec.name): spec
            for model, signature in self.plan.signatures.items()
            for spec in signature.inputs
        }
        self.inputs[tensor] = CTensor(spec=_sized(specs[tensor], value), value=value)

    def _model(self, model: str) -> None:
        signature = self.plan.signatures[model]
        number = len(self.site.calls)
        outputs = []
        for spec in signature.inputs:
            place = self.inputs[full_name(model, spec.name)].value.place
            assert isinstance(place, Buffer)
            # The model reads it after the last call before the cut, and may read it once more after an error.
            place.use(number)
        self.site.calls.append(Call(function=MODEL, arguments=()))
        for spec in signature.outputs:
            self.site.what = f"output {spec.name!r}"
            made = tensor_type(spec)
            if None in made.shape:
                raise self.site.refused(f"it is {made}, and an output's size has to be known")
            value = self.site.value(made)
            assert isinstance(value.place, Buffer)
            value.place.alignment = TENSOR_ALIGNMENT
            value.place.use(number)
            self.values[full_name(model, spec.name)] = value
            outputs.append(CTensor(spec=_sized(spec, value), value=value))
        self.cuts.append(number)
        inputs = tuple(self.inputs[full_name(model, spec.name)] for spec in signature.inputs)
        self.models.append(CModelEnds(name=model, inputs=inputs, outputs=tuple(outputs)))

    def _flow(self, item: CheckedFlow) -> None:
        flow = item.flow
        given = tuple(self.values[source] for source in flow.sources)
        index = 0
        while index < len(flow.steps):
            step, count = flow.steps[index], row_steps(flow.steps[index:])
            self.site.what = f"{flow.name!r}, step {index + 1} ({step.name})"
            if count:
                steps, types = flow.steps[index : index + count], item.types[index : index + count]
                given = (make_rows(self.site, steps, given[0], types),)
            else:
                given = (self._step(step, given, item.types[index]),)
            index += count or 1
        (made,) = given
        self.site.what = repr(flow.name)
        is_result = isinstance(flow, ResultFlow) and flow in self.plan.specification.results
        is_tensor = flow in self.plan.specification.tensors
        if is_result or is_tensor:
            made = self._owned(made, item.result)
        if is_result:
            assert isinstance(flow, ResultFlow)
            if made.rows and not made.rows.startswith("run->lengths["):
                rows = self.site.length()
                self.site.call(f"{rows} = ew_length", made.rows, file="ew_tensors")
                made = replace(made, rows=rows)
            self.results.append((flow, made))
            return
        self.values[flow.name] = made
        if item.image:
            self.site.images[item.image] = made
        if is_tensor:
            assert isinstance(made.place, Buffer)
            if made.rows:
                raise self.site.refused(f"it makes {made.type}, and a model's input has one size")
            made.place.alignment = TENSOR_ALIGNMENT
            self._keep(flow.name, made)

    def _step(self, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
        emit = emitter(step.name)
        assert emit is not None
        if step.name not in PICTURE_STEPS:
            given = tuple(dense(self.site, v) if isinstance(v, Picture) else v for v in given)
        value = emit(self.site, step, given, made)
        if isinstance(value, Picture) or value.geometry >= 0:
            return value
        # Steps that move no pixels leave them where they were.
        return replace(value, geometry=next((v.geometry for v in given if v.geometry >= 0), -1))

    def _owned(self, value: CValue, made: ValueType) -> CValue:
        """Return `value` in memory of its own, where the app or a runtime may read it as long as it wants."""
        if isinstance(value, Picture):
            value = dense(self.site, value)
        taken = [tensor.value.place for tensor in self.inputs.values()]
        taken += [result.place for _, result in self.results]
        taken += [tensor.value.place for model in self.models for tensor in (*model.inputs, *model.outputs)]
        if isinstance(value.place, Buffer) and value.place not in taken:
            return value
        copied = self.site.value(made, value)
        self._copy(value, copied)
        return copied

    def _copy(self, source: CValue, target: CValue) -> None:
        size = f"(int32_t)({source.count}) * {source.item_bytes}"
        self.site.call("ew_copy", source, target, size, file="ew_tensors")


def _sized(spec: TensorSpec, value: CValue) -> TensorSpec:
    """Return `spec` with every size known: those of `value`, and 1 for the batch."""
    batch = len(spec.shape) - len(value.bound)
    assert batch in (0, 1)
    return TensorSpec(name=spec.name, shape=(*[1] * batch, *value.bound), dtype=spec.dtype)
