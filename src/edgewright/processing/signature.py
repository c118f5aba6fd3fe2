"""What models take and give, as a specification sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgewright.core.tensors import TensorSpec
from edgewright.processing.specification import State


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
