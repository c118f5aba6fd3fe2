"""The preset for models that nobody has written another one for: numbers in, numbers out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from edgewright.core.errors import FormatMismatchError
from edgewright.core.tensors import TensorSpec
from edgewright.processing.presets import Subject, from_tensor, only, to_tensor
from edgewright.processing.specification import Flow, RawInput, ResultFlow, Specification
from edgewright.processing.tensors import INTEGER_TYPES
from edgewright.processing.values import RAW_DTYPES

_MAX_NAME = 40


def tensors(models: Mapping[str, Subject]) -> Specification:
    """A model's own tensors, each a raw input or a result; quantized ones as the float32 that they stand for.

    Raises:
        FormatMismatchError: a tensor is of a type that an app does not hand over.
    """
    subject = only("tensors", models)
    inputs, outputs = subject.signature.inputs, subject.signature.outputs
    given, made = _names((spec.name for spec in inputs), "input"), _names((s.name for s in outputs), "output")
    return Specification(
        task="other",
        inputs=tuple(
            RawInput(
                name=given[spec.name],
                kind="tensor",
                shape=tuple(size or 0 for size in spec.shape[1:]),
                dtype="float32" if _is_quantized(subject, spec) else _dtype(spec),
            )
            for spec in inputs
        ),
        tensors=tuple(
            Flow(
                name=spec.name,
                sources=(given[spec.name],),
                steps=to_tensor(subject, spec) if _is_quantized(subject, spec) else (),
            )
            for spec in inputs
        ),
        results=tuple(
            ResultFlow(
                name=made[spec.name],
                sources=(spec.name,),
                steps=from_tensor(subject, spec) if _is_quantized(subject, spec) else (),
            )
            for spec in outputs
        ),
    )


def _is_quantized(subject: Subject, tensor: TensorSpec) -> bool:
    return tensor.dtype in INTEGER_TYPES and tensor.name in subject.quantization


def _dtype(tensor: TensorSpec) -> str:
    if tensor.dtype not in RAW_DTYPES:
        raise FormatMismatchError(
            f"preset 'tensors' takes {', '.join(RAW_DTYPES)}, but the model takes {tensor}. Write a processing.toml."
        )
    return tensor.dtype


def _names(tensors: Iterable[str], what: str) -> dict[str, str]:
    """Return a name of a specification for each tensor's: "serving_default_x:0" is x, and no two are the same."""
    found: dict[str, str] = {}
    for tensor in tensors:
        words = re.findall(r"[A-Za-z0-9]+", tensor.removeprefix("serving_default_").partition(":")[0])
        name = "_".join(words)[:_MAX_NAME].rstrip("_")
        name = name if name[:1].isalpha() else f"{what}_{name}".rstrip("_")
        number, plain = 2, name
        # Languages write names in other cases, so that these count as the same.
        while name.lower() in {each.lower() for each in found.values()}:
            name, number = f"{plain}_{number}", number + 1
        found[tensor] = name
    return found
