"""What models take and give, as a specification sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgewright.core.errors import RecipeError
from edgewright.core.tensors import Array, TensorSpec
from edgewright.processing.specification import Specification, State
from edgewright.processing.values import MAX_VALUES


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Inputs and outputs of one model, batch axis included."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def full_name(model: str, tensor: str) -> str:
    """Return the name by which a specification calls a tensor of `model`."""
    return f"{model}.{tensor}" if model else tensor


def with_state_sizes(models: Mapping[str, Signature], states: Sequence[State]) -> dict[str, Signature]:
    """Return the signatures with the sizes that states hold: an unknown one of a state's tensor is 1.

    The output that a state is of has the same sizes, which a model with a loop or a branch often does not say.
    """
    sizes: dict[str, tuple[int | None, ...]] = {}
    inputs = {full_name(m, spec.name): spec for m, s in models.items() for spec in s.inputs}
    for state in states:
        if state.tensor in inputs:
            shape = tuple(1 if size is None else size for size in inputs[state.tensor].shape)
            sizes |= {f"in {state.tensor}": shape, f"out {state.source}": shape}

    def sized(spec: TensorSpec, name: str) -> TensorSpec:
        shape = sizes.get(name, spec.shape)
        known = len(shape) == len(spec.shape) and all(
            have in (None, size) for have, size in zip(spec.shape, shape, strict=True)
        )
        return replace(spec, shape=shape) if known else spec

    return {
        model: Signature(
            inputs=tuple(sized(spec, f"in {full_name(model, spec.name)}") for spec in signature.inputs),
            outputs=tuple(sized(spec, f"out {full_name(model, spec.name)}") for spec in signature.outputs),
        )
        for model, signature in models.items()
    }


def held_values(specification: Specification, models: Mapping[str, Signature]) -> dict[str, Array]:
    """Return what the constants and states among the models' inputs hold before the first run, by full name.

    Raises:
        RecipeError: there are too many or too few numbers, or one that the tensor's type does not hold.
    """
    held: dict[str, float | tuple[float, ...]] = {
        constant.tensor: constant.value for constant in specification.constants
    } | {state.tensor: state.initial for state in specification.states}
    return {
        full_name(model, spec.name): _filled(spec, held[full_name(model, spec.name)])
        for model, signature in models.items()
        for spec in signature.inputs
        if full_name(model, spec.name) in held
    }


def _filled(spec: TensorSpec, value: float | tuple[float, ...]) -> Array:
    shape = tuple(1 if size is None else size for size in spec.shape)
    numbers = np.asarray(value, dtype=np.float64)
    if (numbers.ndim and numbers.size != math.prod(shape)) or math.prod(shape) > MAX_VALUES:
        raise RecipeError(
            f"{spec.name!r} is given {numbers.size} numbers, but {spec} is expected, up to {MAX_VALUES} in all."
        )
    if spec.dtype == "string":
        raise RecipeError(f"{spec.name!r} is given numbers, but {spec} is expected.")
    with np.errstate(all="ignore"):
        held = numbers.astype(spec.dtype)
        fits = np.isfinite(held) & (spec.dtype.startswith("float") | (held.astype(np.float64) == numbers))
    if not fits.all():
        raise RecipeError(f"{spec.name!r} is given {value!r:.80}, which {spec.dtype} does not hold.")
    return np.broadcast_to(held, shape).copy() if not held.ndim else held.reshape(shape)
