"""Check a specification against its models: every name, every type, and the order of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewright.core.errors import FormatMismatchError, RecipeError, UnknownNameError, UsageError
from edgewright.core.tensors import TensorSpec
from edgewright.processing.signature import Signature, full_name, held_values, with_state_sizes
from edgewright.processing.specification import (
    Constant,
    Flow,
    ResultFlow,
    Specification,
    State,
    check_label_count,
    specification_record,
)
from edgewright.processing.values import ValueType, fits, tensor_type


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedFlow:
    """A flow with the types before each step, the last being the result's.

    Attributes:
        given: of the sources.
        types: types[i] is what step i makes; empty without steps.
        image: the image input that the flow's pixels come from, empty where they come from none.
    """

    flow: Flow
    given: tuple[ValueType, ...]
    types: tuple[ValueType, ...]
    image: str

    @property
    def result(self) -> ValueType:
        """The type of what the flow makes."""
        return self.types[-1] if self.types else self.given[0]

    def taken(self, index: int) -> tuple[ValueType, ...]:
        """Return the types that step `index` gets."""
        return self.given if index == 0 else (self.types[index - 1],)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A specification that fits its models.

    Attributes:
        order: what is done, one after another: a flow, or the name of a model to run.
        flows: name of a value, tensor or result -> its checked flow. Results are under "results.NAME".
        types: of inputs, values and the models' outputs, by name.
    """

    specification: Specification
    signatures: Mapping[str, Signature]
    order: tuple[CheckedFlow | str, ...]
    types: Mapping[str, ValueType]

    @property
    def results(self) -> dict[str, ValueType]:
        """Name of each result -> its type."""
        return self._made(self.specification.results)

    @property
    def tensors(self) -> dict[str, ValueType]:
        """Name of each tensor that the specification makes -> its type; an input may have the same name."""
        return self._made(self.specification.tensors)

    def _made(self, flows: Sequence[Flow]) -> dict[str, ValueType]:
        names = {id(flow): flow.name for flow in flows}
        return {
            names[id(item.flow)]: item.result
            for item in self.order
            if isinstance(item, CheckedFlow) and id(item.flow) in names
        }

    def lines(self) -> list[str]:
        """Return what comes in, what each tensor gets, and what comes out, a line each, for people."""
        rows = [("input", row.name, row.type) for row in self.specification.inputs]
        rows += [("value", flow.name, self.types[flow.name]) for flow in self.specification.values]
        rows += [("tensor", name, made) for name, made in self.tensors.items()]
        rows += [("result", name, made) for name, made in self.results.items()]
        return [f"{what} {name}: {made}" for what, name, made in rows]

    def to_json(self) -> dict[str, object]:
        """Return the specification and the types as JSON values."""
        return {"specification": specification_record(self.specification), "types": self.lines()}


def plan(specification: Specification, signatures: Mapping[str, Signature] | Signature) -> Plan:
    """Return `specification` checked against its models: every name, every type, and the order of work.

    Args:
        signatures: name of the model -> its signature; one alone for a specification of one model.
    Raises:
        UsageError: a name that nothing makes, a step that does not take what it gets, a circle, or a tensor that is
            fed twice or not at all or with another type or shape.
    """
    models = {"": signatures} if isinstance(signatures, Signature) else dict(signatures)
    names = [model.name for model in specification.models] or [""]
    if sorted(names) != sorted(models):
        raise FormatMismatchError(
            f"the specification has the models {names}, but {sorted(models)} are given."
        )
    return _Planner(specification, with_state_sizes(models, specification.states)).plan()


class _Planner:
    def __init__(self, specification: Specification, models: Mapping[str, Signature]) -> None:
        self.specification, self.models = specification, models
        self.inputs = {row.name: row for row in specification.inputs}
        self.values = {flow.name: flow for flow in specification.values}
        self.tensors = {flow.name: flow for flow in specification.tensors}
        self.outputs = {full_name(m, spec.name): (m, spec) for m, s in models.items() for spec in s.outputs}
        self.types: dict[str, ValueType] = {row.name: row.type for row in specification.inputs}
        # Apart, as a tensor may be called like the input that it is made of.
        self.tensor_types: dict[str, ValueType] = {}
        self.images = {row.name: row.name for row in specification.inputs if row.kind == "image"}
        # name -> what was prepared of images on the way to it; image -> what was prepared of it last
        self.origins: dict[str, frozenset[str]] = {}
        self.prepared: dict[str, str] = {}
        self.order: list[CheckedFlow | str] = []
        self.open: list[str] = []

    def plan(self) -> Plan:
        self._check_tensors()
        for flow in self.specification.results:
            self._flow(flow)
        for model in self.models:
            if model not in self.order:
                raise RecipeError(f"no result needs the model {model!r}; the specification leaves it unused.")
        used = {
            source for item in self.order if isinstance(item, CheckedFlow) for source in item.flow.sources
        }
        for name in (*self.inputs, *self.values):
            if name not in used:
                raise RecipeError(f"nothing uses {name!r}. Remove it, or name it in a `from`.")
        for state in self.specification.states:
            self._check_state(state)
        held_values(self.specification, self.models)
        return Plan(
            specification=self.specification,
            signatures=self.models,
            order=tuple(self.order),
            types=self.types,
        )

    def _check_tensors(self) -> None:
        wanted = {full_name(m, spec.name) for m, s in self.models.items() for spec in s.inputs}
        rows: Sequence[Flow | Constant | State] = (
            *self.specification.tensors, *self.specification.constants, *self.specification.states,
        )  # fmt: skip
        fed = [row.name if isinstance(row, Flow) else row.tensor for row in rows]
        for name in fed:
            if name not in wanted:
                raise UnknownNameError.of("input tensor of the model", name, wanted)
        missing = sorted(wanted - set(fed))
        if missing:
            raise FormatMismatchError(
                f"the model's input {missing[0]!r} is fed by nothing; "
                "give it a row in [[tensors]], [[constants]] or [[states]]."
            )
        clash = sorted((set(self.inputs) | set(self.values)) & set(self.outputs))
        if clash:
            raise RecipeError(f"{clash[0]!r} names an output of the model, too. Choose another name.")
        clash = sorted(set(self.values) & wanted)
        if clash:
            raise RecipeError(f"the value {clash[0]!r} has the name of a model's input. Choose another name.")

    def _check_state(self, state: State) -> None:
        self._need(state.source)
        wanted = self._spec(state.tensor)
        # An output is kept whole, as a state's first axis need not be a batch.
        _, made = self.outputs.get(state.source, ("", None))
        have = _whole(made) if made else self.types[state.source]
        want = _whole(wanted) if made else tensor_type(wanted)
        if not fits(have, want):
            raise FormatMismatchError(f"state {state.tensor!r} takes {want}, but {state.source!r} is {have}.")

    def _spec(self, tensor: str) -> TensorSpec:
        found = [s for m, g in self.models.items() for s in g.inputs if full_name(m, s.name) == tensor]
        return found[0]

    def _need(self, name: str) -> None:
        """Bring everything into the order that `name` is made of."""
        if name in self.types and name not in self.outputs:
            return
        if name in self.open:
            circle = " -> ".join([*self.open, name])
            raise RecipeError(f"{circle} is a circle. Use a state for what the run before gave.")
        self.open.append(name)
        if name in self.values:
            self._flow(self.values[name])
        elif name in self.outputs:
            model, spec = self.outputs[name]
            self._run(model)
            self.types[name] = tensor_type(spec)
        else:
            known = [*self.inputs, *self.values, *self.outputs]
            raise UnknownNameError.of("input, value or output", name, known)
        self.open.pop()

    def _run(self, model: str) -> None:
        if model in self.order:
            return
        for spec in self.models[model].inputs:
            name = full_name(model, spec.name)
            if name not in self.tensors:
                continue
            self._flow(self.tensors[name])
            have, want = self.tensor_types[name], tensor_type(spec)
            if not fits(have, want):
                raise FormatMismatchError(
                    f"tensor {name!r} takes {want}, but the specification makes {have}. Change its steps."
                )
        self.order.append(model)
        fed = (
            self.origins.get(full_name(model, spec.name), frozenset()) for spec in self.models[model].inputs
        )
        origins = frozenset().union(*fed)
        self.origins |= {full_name(model, spec.name): origins for spec in self.models[model].outputs}

    def _flow(self, flow: Flow) -> None:
        for source in flow.sources:
            if source in self.inputs and source in self.tensor_types:
                raise RecipeError(
                    f"{flow.name!r} is from the input {source!r}, but a tensor of that name was made before it. Give "
                    "the input another name."
                )
            self._need(source)
        given = tuple(self.types[source] for source in flow.sources)
        taken, types = given, []
        if not flow.steps and len(given) != 1:
            raise RecipeError(f"{flow.name!r} is from {len(given)} values and has no step that takes them.")
        for number, step in enumerate(flow.steps, start=1):
            low, high = step.count
            if not low <= len(taken) <= high:
                raise RecipeError(
                    f"{flow.name!r}, step {number}: {step.name!r} takes {low}..{high} values, but gets {len(taken)}."
                )
            self._check_geometry(flow, step.geometry_of())
            try:
                made = step.result(taken)
            except UsageError as err:
                raise type(err)(f"{flow.name!r}, step {number}: {err}") from err
            types.append(made)
            taken = (made,)
        if isinstance(flow, ResultFlow):
            check_label_count(flow, taken[0].classes)
            if taken[0].dtype == "string":
                raise RecipeError(
                    f"result {flow.name!r} is {taken[0]}; numbers are expected. Take another output."
                )
        images = [self.images[source] for source in flow.sources if source in self.images]
        checked = CheckedFlow(flow=flow, given=given, types=tuple(types), image=images[0] if images else "")
        if flow not in self.specification.results:
            types_of_kind = self.tensor_types if flow.name in self.tensors else self.types
            types_of_kind[flow.name] = checked.result
            self.origins[flow.name] = self._origins(flow)
            if images:
                self.origins[flow.name] = frozenset((flow.name,))
                self.images[flow.name] = images[0]
                self.prepared[images[0]] = flow.name
        self.order.append(checked)

    def _check_geometry(self, flow: Flow, image: str | None) -> None:
        """Raise UsageError where the image that a step of `flow` reads the geometry of is not there, or not clear."""
        if image is None:
            return
        known = [row.name for row in self.specification.inputs if row.kind == "image"]
        if image and image not in known:
            raise UnknownNameError.of(f"image input for {flow.name!r}", image, known)
        if not image and len(known) != 1:
            raise RecipeError(
                f"{flow.name!r} goes back to the pixels of an image, but {len(known)} inputs are images. "
                "Name one in the step's option `image`."
            )
        # The geometry is the one that was prepared last: it must be what the values come from.
        last, origins = self.prepared.get(image or known[0]), self._origins(flow)
        if last and last not in origins:
            raise RecipeError(
                f"{flow.name!r} comes from {sorted(origins)}, but {last!r} is prepared of the image before it. Put it "
                "before the results that need that."
            )

    def _origins(self, flow: Flow) -> frozenset[str]:
        return frozenset().union(*(self.origins.get(source, frozenset()) for source in flow.sources))


def _whole(spec: TensorSpec) -> ValueType:
    return ValueType(kind="tensor", shape=spec.shape, dtype=spec.dtype)
