"""What presets of images share: which input takes an image, and the steps from pixels to its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgewright.core.errors import FormatMismatchError
from edgewright.core.tensors import TensorSpec
from edgewright.processing.images import Channels, Layout, Normalize
from edgewright.processing.presets import Subject, from_tensor, to_tensor
from edgewright.processing.signature import Signature
from edgewright.processing.specification import Flow, RawInput
from edgewright.processing.step import Frame, Step
from edgewright.processing.tensors import Quantize

IMAGE = RawInput(name="image", kind="image", order="rgb")
HALF = (0.5,)  # mean and std of -1..1
# What brings pixels to integers that mean 0 for black: nothing, or minus 128.
_SHIFTS = {"uint8": 0, "int8": -128}
_RAW: Mapping[str, tuple[Step, ...]] = {
    "uint8": (),
    "int8": (Normalize(divisor=1.0), Quantize(scale=1.0, zero_point=-128, dtype="int8")),
}


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """The input of a model that takes an image; sizes in pixels."""

    tensor: TensorSpec
    layout: Literal["chw", "hwc"]
    height: int
    width: int
    channels: int


def image_input(preset: str, signature: Signature, *, side: int | None = None) -> ImageInput:
    """Return the only input of a model as an image.

    Args:
        side: height and width where the model takes any.
    Raises:
        FormatMismatchError: there are several inputs, or it is no image of 1 or 3 channels.
    """
    if len(signature.inputs) != 1:
        raise FormatMismatchError(
            f"processing {preset!r} is for a model with one input, but it has {len(signature.inputs)}."
        )
    (tensor,) = signature.inputs
    sizes = tensor.shape[1:]
    if len(sizes) != 3 or tensor.shape[0] not in (1, None):
        raise misfit(
            preset, tensor, expected="an image [1, height, width, channels] or [1, channels, height, width]"
        )
    is_first, is_last = sizes[0] in (1, 3), sizes[2] in (1, 3)
    if tensor.layout is not None and (is_first if tensor.layout == "nchw" else is_last):
        is_first = tensor.layout == "nchw"
        is_last = not is_first
    if is_first == is_last:
        raise misfit(preset, tensor, expected="1 or 3 channels on one of its axes")
    channels, height, width = sizes if is_first else (sizes[2], sizes[0], sizes[1])
    height, width = height or side, width or side
    if height is None or width is None:
        raise misfit(preset, tensor, expected="an image of fixed size")
    assert channels is not None
    return ImageInput(
        tensor=tensor, layout="chw" if is_first else "hwc", height=height, width=width, channels=channels
    )


def pixels_to(
    subject: Subject,
    image: ImageInput,
    moves: tuple[Step, ...],
    *,
    order: Literal["rgb", "bgr"] = "rgb",
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
    divisor: float = 255.0,
    is_raw: bool = False,
) -> Flow:
    """Return the flow from the input "image" to the model's tensor.

    Args:
        moves: what is done to the pixels first: crop, resize, letterbox.
        order: of the model's colours, where it has three.
        mean, std, divisor: as of the step "normalize".
        is_raw: an integer input takes the pixels themselves, whatever its quantization says.
    """
    steps: list[Step] = []
    if image.channels == 1:
        steps.append(Channels(order="grey"))
    elif order == "bgr":
        steps.append(Channels(order="bgr"))
    steps += moves
    raw = _RAW.get(image.tensor.dtype)
    if is_raw and raw is not None:
        steps += raw
    else:
        steps += _numbers(subject, image, Normalize(mean=mean, std=std, divisor=divisor))
    if image.layout == "chw":
        steps.append(Layout(layout="chw"))
    return Flow(name=image.tensor.name, sources=(IMAGE.name,), steps=tuple(steps))


def _numbers(subject: Subject, image: ImageInput, normalize: Normalize) -> tuple[Step, ...]:
    """Return the steps from pixels to the tensor's numbers.

    A quantized input mostly has the parameters that make its integers the pixels themselves. Where the way through
    `normalize` and `quantize` is off by one at most from that, because its scale was rounded (1/128 for 1/127.5), the
    pixels are taken, as the tools do that trained the model.
    """
    quantize = to_tensor(subject, image.tensor)
    if not quantize:
        return (normalize,)
    (last,) = quantize
    assert isinstance(last, Quantize)
    if last.dtype not in _RAW:
        return (normalize, last)
    pixels = np.arange(256, dtype=np.uint8)
    for factor, offset in zip(*normalize.factors(image.channels), strict=True):
        made = last.apply((pixels.astype(np.float32) * factor + offset,), Frame())
        if np.abs(made.astype(np.int32) - (np.arange(256) + _SHIFTS[last.dtype])).max() > 1:
            return (normalize, last)
    return _RAW[last.dtype]


def output_flow(
    subject: Subject, tensor: TensorSpec, *steps: Step, name: str
) -> tuple[tuple[Flow, ...], str]:
    """Return (flows to add to the specification's values, name to use) for an output in float32 after `steps`."""
    made = (*from_tensor(subject, tensor), *steps)
    if not made:
        return (), tensor.name
    return (Flow(name=name, sources=(tensor.name,), steps=made),), name


def misfit(preset: str, *tensors: TensorSpec, expected: str) -> FormatMismatchError:
    """Return the error for tensors that a preset is not for."""
    return FormatMismatchError(
        f"processing {preset!r} expects {expected}, but the model has {', '.join(map(str, tensors))}. "
        "Write a processing.toml, or take another preset."
    )
