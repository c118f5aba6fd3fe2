"""Operators of one int8 tensor, value by value: each is a table of 256 results worked out in advance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edgewright.microcontrollers import wide
from edgewright.microcontrollers.exponential import logistic_of, tanh_of
from edgewright.microcontrollers.fixed_point import clamped, multiplier_of, rounded, scaled, shift_right
from edgewright.microcontrollers.graph import Tensor
from edgewright.microcontrollers.layer import Layer, Site, float_literal, render, require, value_by_value

_TABLE = """\
static void @(const int8_t *in, int8_t *out, const int8_t *table, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        out[i] = table[in[i] + 128];
    }
}
"""
_CLAMP = """\
static void @(const int8_t *in, int8_t *out, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        out[i] = (int8_t)clamped(in[i], {{ low }}, {{ high }});
    }
}
"""
_TO_FLOAT = """\
static void @(const {{ c_type }} *in, float *out, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        out[i] = (float)(in[i] - ({{ zero }})) * {{ scale }};
    }
}
"""
_FLOAT = """\
static void @(const float *in, float *out, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        out[i] = {{ expression }};
    }
}
"""
_INT8 = range(-128, 128)
_INTEGER_BITS = 4
_FRACTION_BITS = 31 - _INTEGER_BITS


def relu(site: Site) -> Layer:
    """Return RELU of int8 or int16, which may change the scale, or of float32."""
    if site.input(0).dtype == "float32":
        return float_values(site, "in[i] < 0.0f ? 0.0f : in[i]")
    if site.input(0).dtype == "int16":
        return wide.relu(site)
    source, output = ends(site)
    by = multiplier_of(source.scale / output.scale)
    low = max(-128, output.zero_point + rounded(float(np.float32(0.0) / np.float32(output.scale))))
    return table_layer(
        site, [clamped(output.zero_point + scaled(q - source.zero_point, by), low, 127) for q in _INT8]
    )


def relu6(site: Site) -> Layer:
    """Return RELU6 of int8, int16 or float32: the interpreter clamps, whatever the output's scale."""
    if site.input(0).dtype == "float32":
        return float_values(site, "in[i] > 6.0f ? 6.0f : in[i] < 0.0f ? 0.0f : in[i]")
    if site.input(0).dtype == "int16":
        return wide.relu6(site)
    source, output = ends(site)
    high = source.zero_point + rounded(float(np.float32(6.0) / np.float32(source.scale)))
    values: dict[str, object] = {"low": source.zero_point, "high": min(high, 127)}
    return Layer(
        operator=site.operator,
        text=render(_CLAMP, values),
        arguments=(str(output.count),),
        reads=(source.index,),
        writes=(output.index,),
        in_place=(0,),
        needs=("clamped",),
        by_rows=value_by_value(output, (source,)),
    )


def float_values(site: Site, expression: str) -> Layer:
    """Return the layer that computes `expression` of in[i], in float32.

    Raises:
        UnsupportedError: other types, or nothing in it.
    """
    source, output = site.input(0), site.output()
    require(source.dtype == output.dtype == "float32", f"types {source.dtype}/{output.dtype}")
    require(source.count == output.count and source.count > 0, "an empty tensor")
    return Layer(
        operator=site.operator,
        text=render(_FLOAT, {"expression": expression}),
        arguments=(str(output.count),),
        reads=(source.index,),
        writes=(output.index,),
        in_place=(0,),
        by_rows=value_by_value(output, (source,)),
    )


def leaky_relu(site: Site) -> Layer:
    """Return LEAKY_RELU of int8, int16 or float32."""
    if site.input(0).dtype == "float32":
        slope = float_literal(site.operator.real("Alpha"))
        return float_values(site, f"in[i] > 0.0f ? in[i] : in[i] * {slope}")
    if site.input(0).dtype == "int16":
        return wide.leaky_relu(site)
    source, output = ends(site)
    alpha = site.operator.real("Alpha")
    above = multiplier_of(source.scale / output.scale)
    below = multiplier_of(abs(source.scale * alpha / output.scale))
    require(alpha >= 0, f"a negative alpha {alpha:g}")

    def one(q: int) -> int:
        value = q - source.zero_point
        return clamped(output.zero_point + scaled(value, above if value >= 0 else below), -128, 127)

    return table_layer(site, [one(q) for q in _INT8])


def logistic(site: Site) -> Layer:
    """Return LOGISTIC of float32, of int16, or of int8 onto scale 1/256, zero point -128."""
    if site.input(0).dtype == "int16":
        return wide.logistic(site)
    if site.input(0).dtype == "float32":
        return replace(float_values(site, "logistic(in[i])"), needs=("logistic",), is_exact=False)
    _, output = ends(site)
    require(
        output.scale == 1 / 256 and output.zero_point == -128,
        "an output that is not scale 1/256, zero point -128",
    )
    return table_layer(site, _sigmoid_like(site, logistic_of, places=23, zero=-128))


def tanh(site: Site) -> Layer:
    """Return TANH of float32, of int16, or of int8 onto scale 1/128, zero point 0."""
    if site.input(0).dtype == "int16":
        return wide.tanh(site)
    if site.input(0).dtype == "float32":
        return replace(float_values(site, "hyperbolic(in[i])"), needs=("hyperbolic",), is_exact=False)
    _, output = ends(site)
    require(
        output.scale == 1 / 128 and output.zero_point == 0, "an output that is not scale 1/128, zero point 0"
    )
    return table_layer(site, _sigmoid_like(site, tanh_of, places=24, zero=0))


def hard_swish(site: Site) -> Layer:
    """Return HARD_SWISH: x * relu6(x + 3) / 6, of int8 in 16 bits, or of float32."""
    if site.input(0).dtype == "float32":
        return replace(
            float_values(site, "in[i] * limited(in[i] + 3.0f, 0.0f, 6.0f) / 6.0f"), needs=("limited",)
        )
    source, output = ends(site)
    # The interpreter works out these factors in float32.
    finer = np.float32(1.0 / 128.0) * np.float32(source.scale)
    outer = multiplier_of(float(finer / np.float32(output.scale)))
    inner = multiplier_of(float(finer / (np.float32(3.0) / np.float32(32768.0))))
    require(outer.shift <= 0, "an output scale that is far too small")

    def one(q: int) -> int:
        fine = (q - source.zero_point) * 128
        product = _high_product16(fine, _half(outer.mantissa))
        gate = clamped(fine << (inner.shift - 1), -32768, 32767) if inner.shift > 0 else fine
        gate = _high_product16(gate, _half(inner.mantissa))
        if inner.shift > 0:
            gate = clamped(gate * 2, -32768, 32767)
        elif inner.shift < 0:
            gate = shift_right(gate, -inner.shift)
        gate = (gate + (1 << 15)) >> 1
        both = gate * product
        cut = both // (1 << 15) if both >= 0 else -(-both // (1 << 15))
        return clamped(shift_right(cut, -outer.shift) + output.zero_point, -128, 127)

    return table_layer(site, [one(q) for q in _INT8])


def quantize(site: Site) -> Layer:
    """Return QUANTIZE: of float32 to int8 or int16, or of integers to integers with another scale or width."""
    if site.input(0).dtype == "float32":
        return wide.from_float(site)
    if (site.input(0).dtype, site.output().dtype) != ("int8", "int8"):
        return wide.requantize(site)
    source, output = ends(site)
    by = multiplier_of(source.scale / output.scale)
    results = [clamped(output.zero_point + scaled(q - source.zero_point, by), -128, 127) for q in _INT8]
    return table_layer(site, results)


def dequantize(site: Site) -> Layer:
    """Return DEQUANTIZE of int8 or int16 to float32."""
    source, output = site.input(0), site.output()
    require(
        source.dtype in ("int8", "int16") and output.dtype == "float32",
        f"types {source.dtype}/{output.dtype}",
    )
    require(len(source.scales) == 1 and source.count == output.count > 0, "an input without one scale")
    values: dict[str, object] = {
        "c_type": source.c_type, "zero": source.zero_point, "scale": float_literal(source.scale)
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_TO_FLOAT, values),
        arguments=(str(output.count),),
        reads=(source.index,),
        writes=(output.index,),
        by_rows=value_by_value(output, (source,)),
    )


def _sigmoid_like(site: Site, function: Callable[[int], int], *, places: int, zero: int) -> list[int]:
    """Return the table of a function from Q4.27 to Q0.31, which is flat beyond what Q4.27 holds."""
    source = site.input(0)
    by = multiplier_of(source.scale * 2.0**_FRACTION_BITS)
    require(by.shift >= 0, f"an input scale {source.scale:g} that is far too small")
    radius = math.floor((2**_INTEGER_BITS - 1) * 2.0**_FRACTION_BITS / 2.0**by.shift)

    def one(q: int) -> int:
        value = q - source.zero_point
        if value <= -radius:
            return -128
        if value >= radius:
            return 127
        return clamped(shift_right(function(scaled(value, by)), places) + zero, -128, 127)

    return [one(q) for q in _INT8]


def _half(mantissa: int) -> int:
    """Return a Q0.31 mantissa as Q0.15."""
    return 32767 if mantissa >= 2**31 - 1 - (1 << 15) else (mantissa + (1 << 15)) >> 16


def _high_product16(left: int, right: int) -> int:
    """Return the upper half of twice the product of two int16, rounded half away from zero."""
    return clamped((left * right + (1 << 14)) >> 15, -32768, 32767)


def ends(site: Site) -> tuple[Tensor, Tensor]:
    """Return input and output of an operator on int8, one scale each.

    Raises:
        UnsupportedError: other types, no scale, or nothing in it.
    """
    source, output = site.input(0), site.output()
    require(source.dtype == output.dtype == "int8", f"types {source.dtype}/{output.dtype}; int8/int8 is made")
    for tensor in (source, output):
        require(len(tensor.scales) == 1 and tensor.scale > 0, "a tensor without one scale")
    require(source.count == output.count and source.count > 0, "an empty tensor")
    return source, output


def table_layer(site: Site, results: Sequence[int]) -> Layer:
    """Return the layer that looks `results` up, the one for -128 first."""
    source, output = site.input(0), site.output()
    table = site.table("table", "int8_t", results, 1)
    return Layer(
        operator=site.operator,
        text=_TABLE,
        reads=(source.index,),
        writes=(output.index,),
        in_place=(0,),
        constants=(table,),
        arguments=(table.name, str(output.count)),
        by_rows=value_by_value(output, (source,)),
    )
