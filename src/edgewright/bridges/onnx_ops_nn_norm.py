"""Normalizations, and what is the identity when a model does not train."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_nn_window import padded

Tensor = torch.Tensor
_EPSILON = 1e-5


def _per_channel(value: Tensor, like: Tensor) -> Tensor:
    """Return [C] so that it broadcasts over [N, C, ...]."""
    return value.reshape(1, -1, *[1] * (like.dim() - 2))


@handles("BatchNormalization")
def _batch_norm(
    node: OnnxNode, value: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor | tuple[Tensor, ...]:
    epsilon = node.number("epsilon", _EPSILON)
    if node.opset < 9 and not node.integer("spatial", 1):
        raise node.refusal("spatial is 0: statistics for each place are not converted")
    is_training = node.integer("training_mode", 0) if node.opset >= 14 else node.n_outputs > 1
    if not is_training:
        return functional.batch_norm(value, mean, variance, scale, bias, training=False, eps=epsilon)
    if node.opset < 14:
        raise node.refusal("it is in its training mode. Export the model for inference")
    momentum = node.number("momentum", 0.9)
    axes = [0, *range(2, value.dim())]
    own_mean = torch.mean(value, dim=axes)
    own_variance = torch.mean((value - _per_channel(own_mean, value)) ** 2, dim=axes)
    result = functional.batch_norm(value, own_mean, own_variance, scale, bias, training=False, eps=epsilon)
    running = (
        mean * momentum + own_mean * (1 - momentum),
        variance * momentum + own_variance * (1 - momentum),
    )
    return (result, *running)[: max(node.n_outputs, 1)]


@handles("InstanceNormalization")
def _instance_norm(node: OnnxNode, value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    axes = list(range(2, value.dim()))
    normal = _standardized(value, axes, node.number("epsilon", _EPSILON))
    return normal * _per_channel(scale, value) + _per_channel(bias, value)


def _standardized(value: Tensor, axes: list[int], epsilon: float) -> Tensor:
    mean = torch.mean(value, dim=axes, keepdim=True)
    centred = value - mean
    variance = torch.mean(centred * centred, dim=axes, keepdim=True)
    return centred * torch.rsqrt(variance + epsilon)


@handles("LayerNormalization")
def _layer_norm(
    node: OnnxNode, value: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor | tuple[Tensor, ...]:
    epsilon = node.number("epsilon", _EPSILON)
    axis = node.axis(node.integer("axis", -1), value.dim())
    shape = list(value.shape[axis:])
    if node.n_outputs == 1 and list(scale.shape) == shape and (bias is None or list(bias.shape) == shape):
        return functional.layer_norm(value, shape, scale, bias, epsilon)
    axes = list(range(axis, value.dim()))
    mean = torch.mean(value, dim=axes, keepdim=True)
    centred = value - mean
    inverse = torch.rsqrt(torch.mean(centred * centred, dim=axes, keepdim=True) + epsilon)
    result = centred * inverse * scale
    return (result if bias is None else result + bias, mean, inverse)[: max(node.n_outputs, 1)]


@handles("GroupNormalization")
def _group_norm(node: OnnxNode, value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups, channels = node.integer("num_groups", 0), value.shape[1]
    if groups < 1 or channels % groups:
        raise node.refusal(f"{channels} channels do not make {groups} groups")
    if node.opset < 21:  # one scale for each group
        per = channels // groups
        scale = scale.reshape(-1, 1).expand(groups, per).reshape(-1)
        bias = bias.reshape(-1, 1).expand(groups, per).reshape(-1)
    grouped = value.reshape(value.shape[0], groups, -1)
    normal = _standardized(grouped, [2], node.number("epsilon", _EPSILON)).reshape(value.shape)
    return normal * _per_channel(scale, value) + _per_channel(bias, value)


@handles("RMSNormalization")
def _rms_norm(node: OnnxNode, value: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(node.axis(node.integer("axis", -1), value.dim()), value.dim()))
    square = torch.mean(value * value, dim=axes, keepdim=True)
    return value * torch.rsqrt(square + node.number("epsilon", _EPSILON)) * scale


@handles("LpNormalization")
def _lp_norm(node: OnnxNode, value: Tensor) -> Tensor:
    axis, power = node.axis(node.integer("axis", -1), value.dim()), node.integer("p", 2)
    if power not in (1, 2):
        raise node.refusal(f"p is {power}; 1 and 2 are defined")
    if power == 1:
        size = torch.sum(torch.abs(value), dim=axis, keepdim=True)
    else:
        size = torch.sqrt(torch.sum(value * value, dim=axis, keepdim=True))
    return value / torch.where(size == 0, torch.ones_like(size), size)


@handles("LRN")
def _lrn(node: OnnxNode, value: Tensor) -> Tensor:
    size = node.integer("size", 0)
    if size < 1 or size > 2 * value.shape[1] + 1:
        raise node.refusal(f"its size is {size} for {value.shape[1]} channels")
    before = (size - 1) // 2
    squares = value * value
    rest = [0] * (value.dim() - 2)
    squares = padded(squares, [before, *rest], [size - 1 - before, *rest])
    total = squares.narrow(1, 0, value.shape[1])
    for shift in range(1, size):
        total = total + squares.narrow(1, shift, value.shape[1])
    base = node.number("bias", 1.0) + node.number("alpha", 1e-4) / size * total
    return value / torch.pow(base, node.number("beta", 0.75))


@handles("MeanVarianceNormalization")
def _mean_variance_norm(node: OnnxNode, value: Tensor) -> Tensor:
    if node.opset < 9:
        axes = [0, 2, 3] if node.integer("across_channels", 0) == 0 else [0, 1, 2, 3]
        if not node.integer("normalize_variance", 1):
            return value - torch.mean(value, dim=axes, keepdim=True)
    else:
        axes = [node.axis(axis, value.dim()) for axis in node.integers("axes", [0, 2, 3])]
    mean = torch.mean(value, dim=axes, keepdim=True)
    centred = value - mean
    variance = torch.mean(centred * centred, dim=axes, keepdim=True)
    return centred / (torch.sqrt(variance) + 1e-9)


@handles("Dropout")
def _dropout(
    node: OnnxNode, value: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> Tensor | tuple[Tensor, ...]:
    is_training = False
    if node.opset >= 12 and training is not None:
        is_training = bool(node.constant(2).reshape(-1)[0])
    elif node.opset < 7:
        is_training = not node.integer("is_test", 0)
    if is_training:
        chance = node.float_at(1, 0.5) if node.opset >= 12 else node.number("ratio", 0.5)
        if chance != 0.0 and (node.opset >= 7):
            raise node.refusal("it is in its training mode, which is random. Export the model for inference")
    result = value.clone()  # an output of a graph may not be one of its inputs
    if node.n_outputs < 2:
        return result
    mask = torch.ones(value.shape, dtype=torch.bool if node.opset >= 10 else value.dtype)
    return result, mask


@handles("Softmax", "LogSoftmax", "Hardmax")
def _softmax(node: OnnxNode, value: Tensor) -> Tensor:
    if node.opset >= 13:
        return _soft(node, value, node.axis(node.integer("axis", -1), value.dim()))
    # Before opset 13 the axes from `axis` on are one.
    axis = node.axis(node.integer("axis", 1), value.dim())
    if axis == value.dim() - 1:
        return _soft(node, value, axis)
    flat = value.reshape(math.prod(value.shape[:axis]), math.prod(value.shape[axis:]))
    return _soft(node, flat, 1).reshape(value.shape)


def _soft(node: OnnxNode, value: Tensor, axis: int) -> Tensor:
    if node.op_type == "Softmax":
        return torch.softmax(value, dim=axis)
    if node.op_type == "LogSoftmax":
        return torch.log_softmax(value, dim=axis)
    places = torch.argmax(value, dim=axis, keepdim=True)
    shape = [-1 if index == axis else 1 for index in range(value.dim())]
    return (places == torch.arange(value.shape[axis]).reshape(shape)).to(value.dtype)
