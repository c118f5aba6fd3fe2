"""Steps of a processing as operators of the graph, around the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from edgewright.compress.folding.box_modules import Operator, decoder, placed_boxes
from edgewright.compress.folding.pixel_modules import letterboxed, placed_mask, resized
from edgewright.compress.folding.places import Placed
from edgewright.compress.folding.records import Expression, FoldedOutput, Steps
from edgewright.compress.folding.rules import DECODERS, resampling
from edgewright.core.tensors import TensorSpec
from edgewright.processing.images import Channels, Crop, Layout, Normalize
from edgewright.processing.masks import Argmax, Mask
from edgewright.processing.nms import Nms
from edgewright.processing.resize import Letterbox, Resize, ShortSide
from edgewright.processing.scores import Sigmoid, Softmax
from edgewright.processing.step import Step
from edgewright.processing.tensors import Cast, Dequantize, Reshape, Scale, Transpose
from edgewright.processing.values import ValueType

_DTYPES = {
    "float32": torch.float32, "uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32,
    "int64": torch.int64,
}  # fmt: skip


class Folded(nn.Module):
    """The model behind the steps of its inputs and before those of its outputs.

    Values have the batch axis in front, which the steps leave alone; that of boxes is always 1.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[TensorSpec],
        before: Sequence[Steps],
        behind: Behind,
    ) -> None:
        """Compose; `before` holds the steps of each of the model's `inputs`."""
        super().__init__()
        self.model = model
        self.before = nn.ModuleList(Before(steps, spec) for spec, steps in zip(inputs, before, strict=True))
        self.behind = behind

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs that `behind` makes of the model's."""
        prepared = [chain(value) for chain, value in zip(self.before, inputs, strict=True)]
        made = self.model(*prepared)
        outputs: tuple[torch.Tensor, ...] = self.behind(
            (made,) if isinstance(made, torch.Tensor) else tuple(made)
        )
        return outputs


class Behind(nn.Module):
    """The steps behind a model, as operators on its outputs.

    That it is a module tells quantizers where its operators come from, as of `Before`.

    Args:
        specs: of the model's outputs.
        outputs: what is made of them.
    """

    def __init__(self, specs: Sequence[TensorSpec], outputs: Sequence[FoldedOutput]) -> None:
        super().__init__()
        self._has_batch = [has_batch(spec) for spec in specs]
        self._outputs = outputs
        self._operators: dict[Expression, list[Operator]] = {}
        for one in outputs:
            self._add(one.expression)

    def forward(self, values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return the outputs, made of the model's, `values`."""
        made: dict[Expression, torch.Tensor] = {}
        return tuple(
            self._made(one.expression, values, made) if one.result else values[one.expression.outputs()[0]]
            for one in self._outputs
        )

    def _add(self, expression: Expression) -> None:
        self._operators[expression] = [operator_of(step, given) for step, given in expression.steps]
        for source in expression.sources:
            if not isinstance(source, int):
                self._add(source)

    def _made(
        self, expression: Expression, values: Sequence[torch.Tensor], made: dict[Expression, torch.Tensor]
    ) -> torch.Tensor:
        if expression not in made:
            taken = tuple(
                self._with_batch(source, values)
                if isinstance(source, int)
                else self._made(source, values, made)
                for source in expression.sources
            )
            for operator in self._operators[expression]:
                taken = (operator(*taken),)
            made[expression] = taken[0]
        return made[expression]

    def _with_batch(self, index: int, values: Sequence[torch.Tensor]) -> torch.Tensor:
        return values[index] if self._has_batch[index] else values[index].unsqueeze(0)


def has_batch(spec: TensorSpec) -> bool:
    """Return whether the first axis is the batch's, as `processing.values.tensor_type` sees it."""
    return bool(spec.shape) and spec.shape[0] in (1, None)


def with_named_inputs(module: nn.Module, count: int) -> nn.Module:
    """Return `module`, which takes any number of tensors, as one that takes `count`: torch.export wants their names."""
    root = nn.Module()
    root.body = module
    graph = torch.fx.Graph()
    inputs = tuple(graph.placeholder(f"input_{index}") for index in range(count))
    graph.output(graph.call_module("body", inputs))
    return torch.fx.GraphModule(root, graph)


class Before(nn.Module):
    """The steps of one input, of the type `spec`."""

    def __init__(self, steps: Steps, spec: TensorSpec) -> None:
        super().__init__()
        self._operators = [operator_of(step, given) for step, given in steps]
        self._is_bare = not has_batch(spec)
        self._made: torch.dtype = getattr(torch, spec.dtype)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the model's input."""
        if not self._operators:
            return value
        for operator in self._operators:
            value = operator(value)
        if value.dtype != self._made:  # of pixels that were resized
            value = value.to(self._made)
        return value.squeeze(0) if self._is_bare else value


def operator_of(step: Step, taken: tuple[ValueType, ...]) -> Operator:
    """Return the operators of a step that `rules.why_not` lets pass, on values with a batch axis."""
    if isinstance(step, (*DECODERS, Nms)):
        return _of_one(decoder(step, taken), taken)
    (given,) = taken
    if isinstance(step, Placed):
        return placed_mask(step, given) if given.kind == "mask" else placed_boxes(step, given)
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
    if isinstance(step, Letterbox):
        return letterboxed(step, given)
    if isinstance(step, (Resize, ShortSide)):
        return resized(given, resampling(step, given))
    if isinstance(step, Softmax):
        return lambda x: torch.softmax(x, dim=-1)
    if isinstance(step, Sigmoid):
        return torch.sigmoid
    if isinstance(step, Mask):
        return _indices(step, given)
    assert isinstance(step, Argmax)
    axis = 3 if step.axis == "last" else 1
    return lambda x: x.argmax(dim=axis).to(torch.int32)


def _indices(step: Mask, given: ValueType) -> Operator:
    shape = tuple(size or 0 for size in step.result((given,)).shape)

    def mask(x: torch.Tensor) -> torch.Tensor:
        found = x >= step.threshold if given.dtype == "float32" else x.clamp(0, 255)
        return found.to(torch.int32).reshape(x.shape[0], *shape)

    return mask


def _of_one(decode: Operator, given: tuple[ValueType, ...]) -> Operator:
    """Return `decode`, which knows no batch axis, for values with one of size 1."""
    shapes = [tuple(size or 0 for size in have.shape) for have in given]

    def run(*values: torch.Tensor) -> torch.Tensor:
        plain = (value.reshape(shape) for value, shape in zip(values, shapes, strict=True))
        return decode(*plain).unsqueeze(0)

    return run


def _linear(factor: torch.Tensor, offset: torch.Tensor, given: ValueType) -> Operator:
    is_first = given.kind == "image" and given.layout == "chw"
    shape = (-1, 1, 1) if is_first else (-1,)
    factor, offset = factor.to(torch.float32).reshape(shape), offset.to(torch.float32).reshape(shape)
    return lambda x: x.to(torch.float32) * factor + offset


def _turned(x: torch.Tensor) -> torch.Tensor:
    # Slices and a concatenation: every runtime has these, not every one a reversal.
    return torch.cat([x[..., 2:3], x[..., 1:2], x[..., 0:1]], dim=-1)


def _as_it_is(x: torch.Tensor) -> torch.Tensor:
    return x
