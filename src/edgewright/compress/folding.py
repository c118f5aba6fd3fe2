"""Fold the processing into the model: what the graph can carry moves inside, so that the app hands over raw pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.compress.module import to_module, to_program
from edgewright.core.errors import ConversionError, UsageError
from edgewright.core.program import Program
from edgewright.core.tensors import Array, Layout, TensorSpec
from edgewright.processing.masks import Mask as MaskStep
from edgewright.processing.processor import CheckedFlow, Plan, Processor, Signature, plan
from edgewright.processing.specification import Specification
from edgewright.processing.step import Frame, Step, floats
from edgewright.processing.values import ValueType

if TYPE_CHECKING:
    import torch

_SAMPLES = 4
_ANY_SIZE = (360, 480)  # of a generated image whose size is free
# Of the largest output. A folded resize keeps the fractions that the reference rounds to whole steps of 255.
_TOLERANCE = 1e-4
_RESIZED_TOLERANCE = 0.03

Steps = tuple[tuple[Step, ValueType], ...]


@dataclass(frozen=True, kw_only=True)
class Folding:
    """What became of a program and its specification.

    Attributes:
        inside: what the graph carries now, in words, e.g. "normalize into pixels".
        outside: what stays in the processing, and why where it is known.
        difference: largest, of the folded model's outputs from those of processing and model apart, as a share of
            the largest output, over generated images.
    """

    program: Program
    specification: Specification
    inside: tuple[str, ...]
    outside: tuple[str, ...]
    difference: float


def fold_processing(program: Program, checked: Plan, *, folder: Path) -> Folding:
    """Return the `.pt2` program with what the graph can carry of its processing, and the specification that is left.

    The steps next to the model go inside, as far as each has an operator in the graph and a shape that is known: colour
    order, layout, normalization, casts, crop, plain resize before it; dequantize, softmax, sigmoid, argmax behind it.

    A resize or a crop needs an image of known size: `height` and `width` of the input in the specification. Where a
    result goes back to the pixels of the source, it stays outside: only there is known where the pixels lay.

    Args:
        folder: for the program.
    Raises:
        UsageError: nothing can be folded.
        ConversionError: the folded model does not agree with processing and model apart.
    """
    import torch

    from edgewright.compress.folded_modules import Folded, with_named_inputs

    if set(checked.signatures) != {""}:
        raise UsageError(f"the processing has {len(checked.signatures)} models; that of one can be folded.")
    before, after, specification, inside, outside = _split(checked, program)
    if not inside:
        raise UsageError(f"nothing can be folded: {'; '.join(outside) or 'the processing has no steps'}.")
    specs = tuple(_raw_spec(spec, steps) for spec, steps in zip(program.inputs, before, strict=True))
    module = to_module(program)
    folded = with_named_inputs(Folded(module, before, after), len(specs)).eval()
    examples = [torch.zeros(_static(spec.shape), dtype=getattr(torch, spec.dtype)) for spec in specs]
    with torch.no_grad():
        shapes = [tuple(value.shape) for value in folded(*examples)]
    outputs = tuple(
        _made_spec(spec, steps, shape)
        for spec, steps, shape in zip(program.outputs, after, shapes, strict=True)
    )
    source = replace(program, inputs=specs, outputs=outputs)
    made = to_program(folded, source, examples, folder=folder, step=f"fold({', '.join(inside)})")
    signature = Signature(inputs=made.inputs, outputs=made.outputs)
    difference = _compare(checked, plan(specification, signature), module, folded, after)
    has_resize = any("resize" in text for text in inside)
    limit = _RESIZED_TOLERANCE if has_resize else _TOLERANCE
    if not difference <= limit:
        raise ConversionError(
            f"the folded model differs from processing and model apart by {difference:.3g} of the largest output; at "
            f"most {limit:g} is right. Build it without --fold-processing."
        )
    return Folding(
        program=made,
        specification=specification,
        inside=tuple(inside),
        outside=tuple(outside),
        difference=difference,
    )


def _split(
    checked: Plan, program: Program
) -> tuple[list[Steps], list[Steps], Specification, list[str], list[str]]:
    read = _sources_read(checked)
    inside: list[str] = []
    outside: list[str] = []
    before: list[Steps] = []
    after: list[Steps] = []
    flows = {id(item.flow): item for item in checked.order if isinstance(item, CheckedFlow)}
    tensors, results = list(checked.specification.tensors), list(checked.specification.results)
    for spec in program.inputs:
        index = next((i for i, flow in enumerate(tensors) if flow.name == spec.name), None)
        if index is None:  # a constant or a state
            before.append(())
            continue
        item = flows[id(tensors[index])]
        count = len(item.flow.steps)
        while count and not _why_not(item, count - 1, read):
            count -= 1
        before.append(tuple((step, item.taken(n)[0]) for n, step in enumerate(item.flow.steps) if n >= count))
        inside += [f"{step.name} into {spec.name}" for step in item.flow.steps[count:]]
        outside += _staying(
            item.flow.steps[:count], spec.name, _why_not(item, count - 1, read) if count else "", last=True
        )
        tensors[index] = replace(item.flow, steps=item.flow.steps[:count])
    behind: set[str] = set()  # results whose first steps are next to the model
    for spec in program.outputs:
        users = [flow for flow in checked.specification.flows() if spec.name in flow.sources]
        is_state = any(state.source == spec.name for state in checked.specification.states)
        index = next(
            (i for i, flow in enumerate(results) if flow in users and flow.sources == (spec.name,)), None
        )
        if index is None or len(users) != 1 or is_state:
            after.append(())
            continue
        item = flows[id(results[index])]
        behind.add(item.flow.name)
        count = 0
        while count < len(item.flow.steps) and not _why_not(item, count, read):
            count += 1
        after.append(tuple((step, item.taken(n)[0]) for n, step in enumerate(item.flow.steps[:count])))
        inside += [f"{step.name} behind {spec.name}" for step in item.flow.steps[:count]]
        left = item.flow.steps[count:]
        outside += _staying(
            left, results[index].name, _why_not(item, count, read) if left else "", last=False
        )
        # The graph gives the indices of a mask as a tensor, of which the step makes a mask again.
        is_mask = count > 0 and item.flow.steps[count - 1].name == "argmax"
        results[index] = replace(results[index], steps=((MaskStep(),) if is_mask else ()) + left)
    for flow in (*checked.specification.values, *checked.specification.results):
        if flow.name not in behind:
            why = "it takes several values, or one that is used elsewhere, too"
            outside += _staying(flow.steps, flow.name, why, last=False)
    made = replace(checked.specification, tensors=tuple(tensors), results=tuple(results))
    return before, after, made, inside, outside


def _why_not(item: CheckedFlow, index: int, sources_read: Mapping[str, str]) -> str:
    """Return why the graph does not carry a step; empty where it does. `sources_read` is of `_sources_read`."""
    from edgewright.compress.folded_modules import can_fold

    given, step = item.taken(index), item.flow.steps[index]
    if len(given) != 1:
        return "it takes several values"
    if item.image in sources_read and _moves_pixels(step):
        return f"{sources_read[item.image]} needs to know where the pixels lay"
    if None in given[0].shape:
        return f"it gets {given[0]}, of which a size is open"
    return "" if can_fold(step, given[0]) else "no operator does the same"


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


def _moves_pixels(step: Step) -> bool:
    return type(step).move is not Step.move


def _staying(steps: Sequence[Step], of: str, why: str, *, last: bool) -> list[str]:
    """Return a sentence for each step that stays outside; `why` is of the one next to the model."""
    blocked = len(steps) - 1 if last else 0
    return [
        f"{step.name} of {of} stays outside" + (f": {why}" if number == blocked else "")
        for number, step in enumerate(steps)
    ]


def _raw_spec(spec: TensorSpec, steps: Steps) -> TensorSpec:
    """Return what the folded model takes in place of `spec`."""
    if not steps:
        return spec
    given = steps[0][1]
    layout: Layout | None = "nhwc" if given.layout == "hwc" else "nchw" if given.layout == "chw" else None
    return TensorSpec(
        name=spec.name,
        shape=(1, *given.shape),
        dtype=given.dtype,
        layout=layout if len(given.shape) == 3 else None,
    )


def _made_spec(spec: TensorSpec, steps: Steps, shape: tuple[int, ...]) -> TensorSpec:
    """Return what the folded model gives in place of `spec`."""
    if not steps:
        return spec
    is_mask = steps[-1][0].name == "argmax"
    return TensorSpec(name=spec.name, shape=shape, dtype="int32" if is_mask else "float32")


def _static(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(1 if size is None else size for size in shape)


def _compare(
    old: Plan, new: Plan, module: torch.nn.Module, folded: torch.nn.Module, after: Sequence[Steps]
) -> float:
    """Return the largest difference of the folded model's outputs, as a share of the largest, over generated inputs.

    Of masks it is the share of the pixels that differ.
    """
    worst = 0.0
    outputs = new.signatures[""].outputs
    for seed in range(_SAMPLES):
        raw = {name: _generated(have, seed) for name, have in old.types.items() if name in _inputs(old)}
        apart, inside = (
            _run(network, checked, Processor(checked).prepare(raw))
            for network, checked in ((module, old), (folded, new))
        )
        for want, got, steps, spec in zip(apart, inside, after, outputs, strict=True):
            for step, given in steps:
                want = step.apply((want[0],), Frame(given=(given,)))[None]
            if spec.dtype != "float32":
                worst = max(worst, float((want != got).mean()))
                continue
            largest = max(float(np.abs(want).max(initial=0.0)), 1e-6)
            worst = max(worst, float(np.abs(floats(want) - floats(got)).max(initial=0.0)) / largest)
    return worst


def _run(network: torch.nn.Module, checked: Plan, tensors: Mapping[str, Array]) -> list[Array]:
    import torch

    given = [torch.from_numpy(np.ascontiguousarray(tensors[s.name])) for s in checked.signatures[""].inputs]
    with torch.no_grad():
        made = network(*given)
    return [value.numpy() for value in ((made,) if isinstance(made, torch.Tensor) else made)]


def _inputs(checked: Plan) -> set[str]:
    return {row.name for row in checked.specification.inputs}


def _generated(have: ValueType, seed: int) -> Array:
    """Return an input of type `have`: smooth shapes and noise for an image, noise for anything else."""
    generator = np.random.default_rng(seed)
    shape = tuple(_ANY_SIZE[min(axis, 1)] if size is None else size for axis, size in enumerate(have.shape))
    if have.kind == "image":
        down, across = np.mgrid[0 : shape[0], 0 : shape[1]]
        waves = [np.sin(down / (9 + 4 * c + seed)) * np.cos(across / (13 + 3 * c)) for c in range(shape[2])]
        noise = generator.integers(-20, 21, size=shape)
        return np.clip(127.5 + 100 * np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)
    if have.dtype == "float32":
        return generator.standard_normal(shape).astype(np.float32)
    return generator.integers(0, 100, size=shape).astype(have.dtype)
