"""Published processing of common models, by name: a specification made to fit a model's signature.

A preset is a function `NAME(models) -> Specification` in a module of its own subject (presets_images, presets_audio).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgewright.core.errors import FormatMismatchError, UnknownNameError, UsageError
from edgewright.core.tensors import TensorSpec
from edgewright.processing.planning import plan
from edgewright.processing.signature import Signature
from edgewright.processing.specification import Specification
from edgewright.processing.step import Step
from edgewright.processing.tensors import INTEGER_TYPES, Dequantize, IntegerType, Quantize

# name -> module of edgewright.processing : function. The first line of its docstring is its summary.
PRESETS: Mapping[str, str] = {
    "imagenet": "presets_images:imagenet",
    "mobilenet_v1": "presets_images:mobilenet_v1",
    "person_detect": "presets_images:person_detect",
    "cifar": "presets_images:cifar",
    "deeplab": "presets_images:deeplab",
    "ssd": "presets_boxes:ssd",
    "yolo": "presets_boxes:yolo",
    "fastestdet": "presets_boxes:fastestdet",
    "ultraface": "presets_boxes:ultraface",
    "ultraface_raw": "presets_boxes:ultraface_raw",
    "kws_mfcc": "presets_audio:kws_mfcc",
    "micro_speech": "presets_audio:micro_speech",
    "silero_vad": "presets_audio:silero_vad",
    "dtln": "presets_audio:dtln",
    "gesture": "presets_series:gesture",
    "motion": "presets_series:motion",
    "tensors": "presets_tensors:tensors",
}
_FOR_ANY = "tensors"  # fits nearly every model, and says nothing of what it is about


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Of one tensor: real = (integer - zero_point) * scale."""

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model that a specification is made for.

    Attributes:
        path: of its file, whose metadata may name classes.
        quantization: name of an integer input or output -> its parameters; none where the file does not say.
    """

    path: Path
    signature: Signature
    quantization: Mapping[str, Quantization] = field(default_factory=dict)


Preset = Callable[[Mapping[str, Subject]], Specification]


def names() -> list[str]:
    """Return the names of all presets."""
    return list(PRESETS)


def make(name: str, models: Mapping[str, Subject]) -> Specification:
    """Return the specification of preset `name` for `models` (name -> model; "" for the only one).

    Raises:
        UnknownNameError: no such preset.
        FormatMismatchError: the preset does not fit the signature.
    """
    if name not in PRESETS:
        raise UnknownNameError.of("preset", name, PRESETS)
    module, _, function = PRESETS[name].partition(":")
    preset: Preset = getattr(importlib.import_module(f"edgewright.processing.{module}"), function)
    return preset(models)


def fitting(models: Mapping[str, Subject]) -> list[str]:
    """Return the names of the presets that take these models' tensors; which of them is meant, nobody can see.

    The one for any tensors is left out.
    """
    found = []
    for name in (name for name in PRESETS if name != _FOR_ANY):
        with suppress(UsageError):
            plan(make(name, models), {key: subject.signature for key, subject in models.items()})
            found.append(name)
    return found


def only(name: str, models: Mapping[str, Subject]) -> Subject:
    """Return the model of a preset that takes one.

    Raises:
        FormatMismatchError: there are several.
    """
    if len(models) != 1:
        raise FormatMismatchError(f"preset {name!r} is for one model, but {len(models)} are given.")
    return next(iter(models.values()))


def to_tensor(subject: Subject, tensor: TensorSpec) -> tuple[Step, ...]:
    """Return what brings float32 to the dtype of an input of the model: nothing, or `quantize`.

    Raises:
        FormatMismatchError: it holds integers, and the file does not say what they mean.
    """
    if tensor.dtype == "float32":
        return ()
    found = _quantization(subject, tensor)
    return (Quantize(scale=found.scale, zero_point=found.zero_point, dtype=_integer(tensor)),)


def from_tensor(subject: Subject, tensor: TensorSpec) -> tuple[Step, ...]:
    """Return what brings an output of the model to float32: nothing, or `dequantize`.

    Raises:
        FormatMismatchError: as of `to_tensor`.
    """
    if tensor.dtype == "float32":
        return ()
    found = _quantization(subject, tensor)
    _integer(tensor)
    return (Dequantize(scale=found.scale, zero_point=found.zero_point),)


def _quantization(subject: Subject, tensor: TensorSpec) -> Quantization:
    if tensor.name not in subject.quantization:
        raise FormatMismatchError(
            f"tensor {tensor} holds integers, and {subject.path} does not say what they mean. Write a processing.toml "
            "with a step 'quantize' or 'dequantize'."
        )
    return subject.quantization[tensor.name]


def _integer(tensor: TensorSpec) -> IntegerType:
    for dtype in INTEGER_TYPES:
        if tensor.dtype == dtype:
            return dtype
    raise FormatMismatchError(
        f"tensor {tensor} is neither float32 nor quantized to {', '.join(INTEGER_TYPES)}."
    )
