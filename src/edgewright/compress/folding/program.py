"""Fold the processing into the model: what the graph can carry moves inside, so that the app hands over raw pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.compress.folding.proof import Proof, Run, generated, prove, prove_behind
from edgewright.compress.folding.records import FoldedOutput, Steps
from edgewright.compress.folding.split import split
from edgewright.compress.module import to_module, to_program
from edgewright.core.errors import ConversionError, UsageError
from edgewright.core.program import Program
from edgewright.core.tensors import Array, Layout, TensorSpec
from edgewright.processing.planning import Plan, plan
from edgewright.processing.processor import Raw
from edgewright.processing.signature import Signature
from edgewright.processing.specification import Specification

if TYPE_CHECKING:
    import torch

_SAMPLES = 4
_TOLERANCE = 1e-4  # of the largest output, and of a score


@dataclass(frozen=True, kw_only=True)
class Folding:
    """What became of a program and its specification.

    Attributes:
        inside: what the graph carries now, in words, e.g. "normalize into pixels".
        outside: what stays in the processing, and why where it is known.
        proof: how the folded model compares with processing and model apart, over generated and real inputs.
    """

    program: Program
    specification: Specification
    inside: tuple[str, ...]
    outside: tuple[str, ...]
    proof: Proof


def fold_processing(
    program: Program,
    checked: Plan,
    *,
    folder: Path,
    is_float: bool = True,
    samples: Sequence[Mapping[str, Raw]] = (),
) -> Folding:
    """Return the `.pt2` program with what the graph can carry of its processing, and the specification that is left.

    The steps next to the model go inside, as far as each has operators in the graph and a shape that is known: colour
    order, layout, normalization, casts, crops and resizes before it; dequantize, softmax, sigmoid, argmax, and the
    decoding of boxes with their suppression behind it. Boxes leave the graph as rows of a fixed number.

    A resize or a crop needs an image of known size: `height` and `width` of the input in the specification. What brings
    a result back to the pixels of the source goes inside where the resize does, and stays outside with it.

    Args:
        folder: for the program.
        is_float: the program is not going to be quantized; else boxes are decoded and suppressed outside.
        samples: raw inputs, on which the results are compared beside generated ones.
    Raises:
        UsageError: nothing can be folded.
        ConversionError: the folded model does not agree with processing and model apart.
    """
    import torch

    from edgewright.compress.folding.graph_modules import Behind, Folded, with_named_inputs

    if set(checked.signatures) != {""}:
        raise UsageError(f"the processing has {len(checked.signatures)} models; that of one can be folded.")
    parts = split(checked, program, is_float=is_float)
    if not parts.inside:
        raise UsageError(
            f"nothing can be folded: {'; '.join(parts.outside) or 'the processing has no steps'}."
        )
    specs = tuple(_raw_spec(spec, steps) for spec, steps in zip(program.inputs, parts.before, strict=True))
    module, behind = to_module(program), Behind(program.outputs, parts.outputs)
    folded = with_named_inputs(Folded(module, program.inputs, parts.before, behind), len(specs)).eval()
    examples = [torch.zeros(_static(spec.shape), dtype=getattr(torch, spec.dtype)) for spec in specs]
    with torch.no_grad():
        shapes = [tuple(value.shape) for value in folded(*examples)]
    outputs = tuple(
        _made_spec(one, program.outputs, shape) for one, shape in zip(parts.outputs, shapes, strict=True)
    )
    source = replace(program, inputs=specs, outputs=outputs)
    made = to_program(folded, source, examples, folder=folder, step=f"fold({', '.join(parts.inside)})")
    new = plan(parts.specification, Signature(inputs=made.inputs, outputs=made.outputs))
    has_text = any(row.kind == "text" for row in checked.specification.inputs)
    seeds = () if has_text else range(_SAMPLES)
    proof = prove(
        checked,
        new,
        parts,
        apart=_run(module),
        folded=_run(folded),
        samples=chain((generated(checked, seed) for seed in seeds), samples),
        limit=_TOLERANCE,
    )
    behind_alone = prove_behind(parts, program.outputs, _run(lambda *values: behind(values)), seeds=_SAMPLES)
    fault = proof.fault(_TOLERANCE) or behind_alone.fault(_TOLERANCE)
    if fault:
        raise ConversionError(
            f"the folded model is not the same as processing and model apart: {fault}. Build it without "
            "--fold-processing."
        )
    return Folding(
        program=made,
        specification=parts.specification,
        inside=parts.inside,
        outside=parts.outside,
        proof=proof,
    )


def _raw_spec(spec: TensorSpec, steps: Steps) -> TensorSpec:
    """Return what the folded model takes in place of `spec`."""
    if not steps:
        return spec
    (given,) = steps[0][1]
    layout: Layout | None = "nhwc" if given.layout == "hwc" else "nchw" if given.layout == "chw" else None
    return TensorSpec(
        name=spec.name,
        shape=(1, *given.shape),
        dtype=given.dtype,
        layout=layout if len(given.shape) == 3 else None,
    )


def _made_spec(one: FoldedOutput, specs: Sequence[TensorSpec], shape: tuple[int, ...]) -> TensorSpec:
    """Return what the folded model gives."""
    if one.result is None:
        return specs[one.expression.outputs()[0]]
    dtype = "int32" if one.result.kind == "mask" else "float32"
    return TensorSpec(name=one.name, shape=shape, dtype=dtype)


def _static(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(1 if size is None else size for size in shape)


def _run(network: Callable[..., torch.Tensor | Sequence[torch.Tensor]]) -> Run:
    """Return `network` as a function of arrays."""
    import torch

    def run(values: Sequence[Array]) -> list[Array]:
        given = [torch.from_numpy(np.ascontiguousarray(value)) for value in values]
        with torch.no_grad():
            made = network(*given)
        return [value.numpy() for value in ((made,) if isinstance(made, torch.Tensor) else made)]

    return run
