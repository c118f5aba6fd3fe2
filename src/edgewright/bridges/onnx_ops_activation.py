"""Activations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from edgewright.bridges.onnx_ops import OnnxNode, handles

Tensor = torch.Tensor


@handles("Relu")
def _relu(node: OnnxNode, value: Tensor) -> Tensor:
    if value.dtype.is_floating_point:
        return functional.relu(value)
    return torch.clamp(value.to(torch.int64), 0).to(value.dtype)


@handles("Sigmoid", "Softplus", "Softsign", "HardSwish", "Mish")
def _plain(node: OnnxNode, value: Tensor) -> Tensor:
    if node.op_type == "Softsign":
        return value / (1 + torch.abs(value))
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "Sigmoid": torch.sigmoid,
        "Softplus": _softplus,
        "HardSwish": functional.hardswish,
        "Mish": _mish,
    }
    return functions[node.op_type](value)


def _softplus(value: Tensor) -> Tensor:
    """Return log(1 + exp(x)) = max(x, 0) + log(1 + u), u = exp(-|x|).

    Runtimes without log1p lose the digits of a small u in 1 + u. With s = u / (2 + u), at most 1/3,
    log(1 + u) = 2 artanh(s) = 2 s (1 + s^2/3 + s^4/5 + ...), of which 8 terms are exact in float32.
    """
    small = torch.exp(-torch.abs(value))
    ratio = small / (2 + small)
    square = ratio * ratio
    series = torch.full_like(square, 1 / 15)
    for odd in (13, 11, 9, 7, 5, 3, 1):
        series = series * square + 1 / odd
    return torch.clamp(value, min=0) + 2 * ratio * series


def _mish(value: Tensor) -> Tensor:
    """Return x tanh(log(1 + e)) = x n / (n + 2) with e = exp(x), n = e (e + 2); from 20 on it is x."""
    power = torch.exp(torch.clamp(value, max=20))
    number = power * (power + 2)
    return value * (number / (number + 2))


@handles("LeakyRelu")
def _leaky_relu(node: OnnxNode, value: Tensor) -> Tensor:
    return functional.leaky_relu(value, node.number("alpha", 0.01))


@handles("Elu")
def _elu(node: OnnxNode, value: Tensor) -> Tensor:
    alpha = node.number("alpha", 1.0)
    return functional.elu(value, alpha)


@handles("Celu")
def _celu(node: OnnxNode, value: Tensor) -> Tensor:
    alpha = node.number("alpha", 1.0)
    return torch.clamp(value, min=0) + torch.clamp(alpha * (torch.exp(value / alpha) - 1), max=0)


@handles("Selu")
def _selu(node: OnnxNode, value: Tensor) -> Tensor:
    alpha = node.number("alpha", 1.6732632423543772848170429916717)
    gamma = node.number("gamma", 1.0507009873554804934193349852946)
    return gamma * torch.where(value > 0, value, alpha * (torch.exp(value) - 1))


@handles("Gelu")
def _gelu(node: OnnxNode, value: Tensor) -> Tensor:
    kind = node.text("approximate", "none")
    if kind not in ("none", "tanh"):
        raise node.refusal(f"approximate {kind!r} is unknown")
    return functional.gelu(value, approximate=kind)


@handles("HardSigmoid")
def _hard_sigmoid(node: OnnxNode, value: Tensor) -> Tensor:
    return torch.clamp(node.number("alpha", 0.2) * value + node.number("beta", 0.5), 0.0, 1.0)


@handles("Swish")
def _swish(node: OnnxNode, value: Tensor) -> Tensor:
    alpha = node.number("alpha", 1.0)
    return functional.silu(value) if alpha == 1.0 else value * torch.sigmoid(alpha * value)


@handles("ThresholdedRelu")
def _thresholded_relu(node: OnnxNode, value: Tensor) -> Tensor:
    return torch.where(value > node.number("alpha", 1.0), value, torch.zeros_like(value))


@handles("PRelu")
def _prelu(node: OnnxNode, value: Tensor, slope: Tensor) -> Tensor:
    if node.opset < 7 and slope.dim() == 1 and slope.numel() > 1:
        slope = slope.reshape(-1, *[1] * (value.dim() - 2))
    if not value.dtype.is_floating_point:
        return torch.where(
            value.to(torch.int64) >= 0, value.to(torch.int64), slope.to(torch.int64) * value.to(torch.int64)
        ).to(value.dtype)
    return torch.clamp(value, min=0) + slope * torch.clamp(value, max=0)


@handles("Shrink")
def _shrink(node: OnnxNode, value: Tensor) -> Tensor:
    bias, limit = node.number("bias", 0.0), node.number("lambd", 0.5)
    number = value if value.dtype.is_floating_point else value.to(torch.float32)
    zero = torch.zeros_like(number)
    result = torch.where(number < -limit, number + bias, torch.where(number > limit, number - bias, zero))
    return result.to(value.dtype)
