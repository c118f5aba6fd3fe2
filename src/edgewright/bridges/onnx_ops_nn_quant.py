"""Quantized operators, in plain arithmetic: whole numbers are exact in float32 up to 2**24, and runtimes compute it."""

from __future__ import annotations

import math
from functools import reduce

import torch

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_math import wide
from edgewright.bridges.onnx_ops_nn_conv import convolved
from edgewright.bridges.onnx_ops_nn_window import Window, window_of
from edgewright.bridges.onnx_values import carrier_of

Tensor = torch.Tensor
# numbers of onnx.TensorProto.DataType
_UINT8 = 2
_RANGES = {
    _UINT8: (0, 255),
    3: (-128, 127),
    4: (0, 65535),
    5: (-32768, 32767),
    21: (0, 15),
    22: (-8, 7),
    25: (0, 3),
    26: (-2, 1),
}
# Products of two bytes less their zero points stay below 2**16, so that this many add up exactly in float32.
_EXACT_TERMS = 256
_BYTES = (torch.int8, torch.uint8)


def _aligned(node: OnnxNode, factor: Tensor, value: Tensor) -> Tensor:
    """Return a scale or a zero point so that it broadcasts over `value`: for all, for each slice, for each block."""
    if factor.numel() == 1:
        return factor.reshape(())
    axis = node.axis(node.integer("axis", 1), value.dim())
    if factor.dim() == 1 and factor.shape[0] == value.shape[axis]:
        return factor.reshape([-1 if index == axis else 1 for index in range(value.dim())])
    block = node.integer("block_size", 0)
    blocks = -(-value.shape[axis] // block) if block > 0 else 0
    wanted = [blocks if index == axis else size for index, size in enumerate(value.shape)]
    if list(factor.shape) != wanted:
        raise node.refusal(
            f"scales of shape {list(factor.shape)} do not fit {list(value.shape)} along axis {axis}"
        )
    spread = factor.unsqueeze(axis + 1)
    shape = list(spread.shape)
    shape[axis + 1] = block
    merged = [*wanted[:axis], blocks * block, *wanted[axis + 1 :]]
    return spread.expand(shape).reshape(merged).narrow(axis, 0, value.shape[axis])


def _range(node: OnnxNode, element_type: int) -> tuple[int, int]:
    if element_type not in _RANGES:
        carrier_of(element_type)  # raises for the 8 and 4 bit floats
        raise node.refusal(f"it quantizes to the element type {element_type}, which is not converted")
    return _RANGES[element_type]


def _saturated(value: Tensor, low: int, high: int, dtype: torch.dtype) -> Tensor:
    return torch.clamp(value, low, high).to(torch.int32).to(dtype)


@handles("QuantizeLinear")
def _quantize(node: OnnxNode, value: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    if zero is not None:
        kind = node.input_types[2]
    else:
        kind = node.integer("output_dtype", 0) or (node.output_types[0] if node.output_types else 0) or _UINT8
    low, high = _range(node, kind)
    dtype = carrier_of(kind)
    # Halves go to the even number; the zero point comes after.
    steps = torch.round(value.to(scale.dtype) / _aligned(node, scale, value))
    if zero is not None and not (node.is_constant(2) and not node.constant(2).any()):
        steps = steps + _aligned(node, wide(zero).to(steps.dtype), value)
    return _saturated(steps, low, high, dtype)


@handles("DequantizeLinear")
def _dequantize(node: OnnxNode, value: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    carrier_of(node.input_types[0] if node.input_types else _UINT8)  # refuses 8 and 4 bit floats
    steps = wide(value)
    if zero is not None and not (node.is_constant(2) and not node.constant(2).any()):
        steps = steps - _aligned(node, wide(zero), value).to(steps.dtype)
    return steps.to(scale.dtype) * _aligned(node, scale, value)


@handles("DynamicQuantizeLinear")
def _dynamic_quantize(node: OnnxNode, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return uint8 values, their scale and their zero point; the range always holds 0."""
    low, high = torch.amin(value).clamp(max=0.0), torch.amax(value).clamp(min=0.0)
    scale = (high - low) / 255
    safe = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.clamp(torch.round(-low / safe), 0, 255)
    steps = torch.round(value / safe) + zero
    zero_byte = zero.to(torch.int32).to(torch.uint8)
    return _saturated(steps, 0, 255, torch.uint8), scale, zero_byte


def _centred(value: Tensor, zero: Tensor | None, *, at_rows: bool = False) -> Tensor:
    """Return whole numbers less their zero point, in float32.

    Args:
        at_rows: several zero points belong to the rows, i.e. to the last axis but one.
    """
    steps = wide(value).to(torch.float32)
    if zero is None:
        return steps
    offset = wide(zero).to(torch.float32)
    if offset.numel() == 1:
        offset = offset.reshape(())
    elif at_rows and offset.dim() == 1:
        offset = offset.unsqueeze(-1)
    return steps - offset


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return the int32 matrix product of whole numbers in float32, exactly: in parts that are exact, then added."""
    depth = left.shape[-1]
    parts: list[Tensor] = []
    for start in range(0, depth, _EXACT_TERMS):
        count = min(_EXACT_TERMS, depth - start)
        rows = right.narrow(max(right.dim() - 2, 0), start, count)
        parts.append(torch.matmul(left.narrow(-1, start, count), rows).to(torch.int32))
    return reduce(torch.add, parts)


def _require_bytes(node: OnnxNode, *values: Tensor) -> None:
    if any(value.dtype not in _BYTES for value in values):
        raise node.refusal(
            f"it multiplies {[str(value.dtype) for value in values]}; 8 bit integers are expected"
        )


@handles("MatMulInteger")
def _matmul_integer(
    node: OnnxNode,
    left: Tensor,
    right: Tensor,
    left_zero: Tensor | None = None,
    right_zero: Tensor | None = None,
) -> Tensor:
    _require_bytes(node, left, right)
    return _product(_centred(left, left_zero, at_rows=True), _centred(right, right_zero))


@handles("QLinearMatMul")
def _quantized_matmul(
    node: OnnxNode,
    left: Tensor,
    left_scale: Tensor,
    left_zero: Tensor,
    right: Tensor,
    right_scale: Tensor,
    right_zero: Tensor,
    scale: Tensor,
    zero: Tensor,
) -> Tensor:
    _require_bytes(node, left, right, zero)
    total = _product(_centred(left, left_zero, at_rows=True), _centred(right, right_zero))
    rows = left_scale.unsqueeze(-1) if left_scale.dim() == 1 and left_scale.numel() > 1 else left_scale
    return _requantized(node, total, rows * right_scale / scale, zero)


def _requantized(node: OnnxNode, total: Tensor, factor: Tensor, zero: Tensor) -> Tensor:
    info = torch.iinfo(zero.dtype)
    if factor.numel() == 1:
        factor = factor.reshape(())
    steps = torch.round(total.to(factor.dtype) * factor) + wide(zero).to(factor.dtype).reshape(())
    return _saturated(steps, info.min, info.max, zero.dtype)


def _exact_conv(node: OnnxNode, value: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Return the int32 convolution of whole numbers in float32, exactly."""
    taps = math.prod(window.kernel)
    inner = weight.shape[1]
    if taps > _EXACT_TERMS:
        raise node.refusal(f"its kernel is {list(window.kernel)}; {_EXACT_TERMS} places are computed exactly")
    step = max(_EXACT_TERMS // taps, 1)
    if inner <= step:
        return convolved(node, value, weight, None, window).to(torch.int32)
    if node.integer("group", 1) != 1:
        raise node.refusal(f"it has groups of {inner} channels; {step} are computed exactly")
    parts: list[Tensor] = []
    for start in range(0, inner, step):
        count = min(step, inner - start)
        part = convolved(node, value.narrow(1, start, count), weight.narrow(1, start, count), None, window)
        parts.append(part.to(torch.int32))
    return reduce(torch.add, parts)


def _conv_operands(
    node: OnnxNode, value: Tensor, zero: Tensor | None, weight: Tensor, weight_zero: Tensor | None
) -> tuple[Tensor, Tensor, Window]:
    _require_bytes(node, value, weight)
    window = window_of(node, value.shape[2:], list(weight.shape[2:]))
    # Flat, as the converter to LiteRT loses track of the layout of 4 axes between arithmetic and a convolution.
    flat = weight.reshape(weight.shape[0], -1)
    offset = (
        weight_zero.reshape(-1, 1) if weight_zero is not None and weight_zero.numel() > 1 else weight_zero
    )
    return _centred(value, zero), _centred(flat, offset).reshape(weight.shape), window


@handles("ConvInteger")
def _conv_integer(
    node: OnnxNode,
    value: Tensor,
    weight: Tensor,
    zero: Tensor | None = None,
    weight_zero: Tensor | None = None,
) -> Tensor:
    numbers, filters, window = _conv_operands(node, value, zero, weight, weight_zero)
    return _exact_conv(node, numbers, filters, window)


@handles("QLinearConv")
def _quantized_conv(
    node: OnnxNode,
    value: Tensor,
    value_scale: Tensor,
    value_zero: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero: Tensor,
    scale: Tensor,
    zero: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    numbers, filters, window = _conv_operands(node, value, value_zero, weight, weight_zero)
    total = _exact_conv(node, numbers, filters, window)
    shape = [1, -1, *[1] * (value.dim() - 2)]
    if bias is not None:
        total = total + bias.reshape(shape)
    factor = value_scale.reshape(()) * weight_scale / scale.reshape(())
    return _requantized(node, total, factor.reshape(shape) if factor.numel() > 1 else factor, zero)
