"""Steps of a processing as operators of the graph, around the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from edgewright.processing.images import Channels, Crop, Layout, Normalize
from edgewright.processing.masks import Argmax
from edgewright.processing.resize import Resize
from edgewright.processing.scores import Sigmoid, Softmax
from edgewright.processing.step import Step
from edgewright.processing.tensors import Cast, Dequantize, Reshape, Scale, Transpose
from edgewright.processing.values import ValueType

_DTYPES = {
    "float32": torch.float32, "uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32,
    "int64": torch.int64,
}  # fmt: skip
_MASK_CLASSES = 256  # of a mask that is made of a tensor
_INTERPOLATION = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest-exact"}


def can_fold(step: Step, given: ValueType) -> bool:
    """Return whether the graph can carry `step` on a value of type `given`, whose shape is known."""
    if isinstance(step, Channels):
        return {step.order, given.order} <= {"rgb", "bgr"}
    if isinstance(step, Resize):
        # With a filter or other corners the runtimes' own operators do not agree with one another.
        is_plain = step.method in _INTERPOLATION and not step.antialias and step.corners == "half_pixel"
        return is_plain and given.kind == "image" and given.layout == "hwc"
    if isinstance(step, Argmax):
        classes = given.shape[-1 if step.axis == "last" else 0]
        return classes is not None and classes <= _MASK_CLASSES
    kinds = (Cast, Crop, Dequantize, Layout, Normalize, Reshape, Scale, Sigmoid, Softmax, Transpose)
    return isinstance(step, kinds) and not (isinstance(step, Cast) and step.dtype != "float32")


class Folded(nn.Module):
    """The model behind the steps of its inputs and before those of its outputs.

    Values have the batch axis in front, which the steps leave alone.
    """

    def __init__(
        self,
        model: nn.Module,
        before: Sequence[Sequence[tuple[Step, ValueType]]],
        after: Sequence[Sequence[tuple[Step, ValueType]]],
    ) -> None:
        """Compose; `before` and `after` hold, for each input and output, steps and the types that they are given."""
        super().__init__()
        self.model = model
        self._before = [[_operator(step, given) for step, given in steps] for steps in before]
        self._after = [[_operator(step, given) for step, given in steps] for steps in after]

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs, in the model's order."""
        prepared = [_chain(steps, value) for steps, value in zip(self._before, inputs, strict=True)]
        made = self.model(*prepared)
        outputs = (made,) if isinstance(made, torch.Tensor) else tuple(made)
        return tuple(_chain(steps, value) for steps, value in zip(self._after, outputs, strict=True))


def with_named_inputs(module: nn.Module, count: int) -> nn.Module:
    """Return `module`, which takes any number of tensors, as one that takes `count`: torch.export wants their names."""
    root = nn.Module()
    root.body = module
    graph = torch.fx.Graph()
    inputs = tuple(graph.placeholder(f"input_{index}") for index in range(count))
    graph.output(graph.call_module("body", inputs))
    return torch.fx.GraphModule(root, graph)


Operator = Callable[[torch.Tensor], torch.Tensor]


def _chain(steps: Sequence[Operator], value: torch.Tensor) -> torch.Tensor:
    for step in steps:
        value = step(value)
    return value


def _operator(step: Step, given: ValueType) -> Operator:
    if isinstance(step, Cast):
        dtype = _DTYPES[step.dtype]
        return lambda x: x.to(dtype)
    if isinstance(step, Normalize):
        factor, offset = step.factors(given.channels)
        return _linear(torch.from_numpy(factor), torch.from_numpy(offset), given)
    if isinstance(step, Scale):
        return _linear(torch.tensor(step.factor), torch.tensor(step.offset), given)
    if isinstance(step, Dequantize):
        scale, zero_point = step.scale, step.zero_point
        return lambda x: (x.to(torch.float32) - zero_point) * scale
    if isinstance(step, Channels):
        return _as_it_is if step.order == given.order else _turned
    if isinstance(step, Layout):
        if step.layout == given.layout:
            return _as_it_is
        axes = (0, 3, 1, 2) if step.layout == "chw" else (0, 2, 3, 1)
        return lambda x: x.permute(*axes)
    if isinstance(step, Transpose):
        moved = (0, *(axis + 1 for axis in step.axes))
        return lambda x: x.permute(*moved)
    if isinstance(step, Reshape):
        shape = step.shape
        return lambda x: x.reshape(x.shape[0], *shape)
    if isinstance(step, Crop):
        assert given.height is not None and given.width is not None
        top, left, height, width = step.place(given.height, given.width)
        return lambda x: x[:, top : top + height, left : left + width]
    if isinstance(step, Resize):
        return _resized(step.height, step.width, _INTERPOLATION[step.method])
    if isinstance(step, Softmax):
        return lambda x: torch.softmax(x, dim=-1)
    if isinstance(step, Sigmoid):
        return torch.sigmoid
    assert isinstance(step, Argmax)
    axis = 3 if step.axis == "last" else 1
    return lambda x: x.argmax(dim=axis).to(torch.int32)


def _linear(factor: torch.Tensor, offset: torch.Tensor, given: ValueType) -> Operator:
    is_first = given.kind == "image" and given.layout == "chw"
    shape = (-1, 1, 1) if is_first else (-1,)
    factor, offset = factor.to(torch.float32).reshape(shape), offset.to(torch.float32).reshape(shape)
    return lambda x: x.to(torch.float32) * factor + offset


def _resized(height: int, width: int, mode: str) -> Operator:
    def resize(x: torch.Tensor) -> torch.Tensor:
        channels_first = x.to(torch.float32).permute(0, 3, 1, 2)
        if mode == "nearest-exact":
            made = functional.interpolate(channels_first, size=(height, width), mode=mode)
        else:
            made = functional.interpolate(
                channels_first, size=(height, width), mode=mode, align_corners=False
            )
            made = made.clamp(0, 255)  # bicubic overshoots
        return made.permute(0, 2, 3, 1)

    return resize


def _turned(x: torch.Tensor) -> torch.Tensor:
    # Slices and a concatenation: every runtime has these, not every one a reversal.
    return torch.cat([x[..., 2:3], x[..., 1:2], x[..., 0:1]], dim=-1)


def _as_it_is(x: torch.Tensor) -> torch.Tensor:
    return x
