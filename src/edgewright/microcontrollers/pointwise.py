"""Operators of one tensor, value by value, beyond the activations: roots, rounding, magnitudes, conversions.

Those of int8 are tables of 256 results worked out in advance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgewright.microcontrollers.fixed_point import clamped, multiplier_of, rounded, scaled
from edgewright.microcontrollers.layer import Layer, Site, render, require, value_by_value
from edgewright.microcontrollers.roots import SQUARE_ROOT, inverse_root
from edgewright.microcontrollers.tables import ends, float_values, table_layer
from edgewright.microcontrollers.wide import ends as wide_ends
from edgewright.microcontrollers.wide import values as wide_values

_INT8 = range(-128, 128)
_FINER_BITS = 20  # of the inverse square root

_FLOORED = """\
static float floored(float x)
{
    int32_t whole;
    if (!(x > -8388608.0f && x < 8388608.0f)) {
        return x;
    }
    whole = (int32_t)x;
    return (float)whole == x ? x : (float)(x < 0.0f ? whole - 1 : whole);
}
"""
_RAISED = """\
static float raised(float x)
{
    const float below = floored(x);
    return below == x ? x : below == -1.0f ? -0.0f : below + 1.0f;
}
"""
_NEAREST = """\
/* The nearest integer, ties to the even one. */
static float nearest(float x)
{
    const float below = floored(x), rest = x - below;
    return rest < 0.5f || (rest == 0.5f && (int32_t)below % 2 == 0) ? below : below + 1.0f;
}
"""
_POWER = """\
static float power_of_e(float x)
{
    return x > 88.7228394f ? x * 3.40282347e38f : (float)exponential((double)x);
}
"""
LOGARITHM = """\
/* log(x): of 2^k m it is k ln 2 + 2 artanh((m - 1) / (m + 1)), a series in double, rounded once. */
static float logarithm(float x)
{
    double m = (double)x, s, square, term, sum;
    int32_t k = 0, i;
    if (!(x > 0.0f)) {
        return x == 0.0f ? -1.0f / (x * x) : (x - x) / (x - x);
    }
    if (x > 3.40282347e38f) {
        return x;
    }
    while (m > 1.4142135623730951) {
        m *= 0.5;
        ++k;
    }
    while (m < 0.70710678118654752) {
        m *= 2.0;
        --k;
    }
    s = (m - 1.0) / (m + 1.0);
    square = s * s;
    term = s;
    sum = s;
    for (i = 3; i < 25; i += 2) {
        term *= square;
        sum += term / (double)i;
    }
    return (float)(2.0 * sum + (double)k * 0.69314718055994531);
}
"""
_CAST = """\
static void @(const {{ source }} *in, {{ target }} *out, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        out[i] = {{ expression }};
    }
}
"""


def absolute(site: Site) -> Layer:
    """Return ABS of int8, int16 or float32."""
    if site.input(0).dtype == "float32":
        # -0 becomes +0, too.
        return float_values(site, "in[i] > 0.0f ? in[i] : 0.0f - in[i]")
    if site.input(0).dtype == "int16":
        source, output = wide_ends(site, ("int16",), ("int16",))
        by = multiplier_of(source.scale / output.scale)
        require(by.shift <= 14, "an output scale that is far too small")
        size = "in[i] < 0 ? -in[i] : in[i]"
        value = size if source.scale == output.scale else f"scaled({size}, {by.mantissa}, {by.shift})"
        return wide_values(
            site, [f"out[i] = (int16_t)clamped({value}, -32768, 32767);"], needs=("scaled", "clamped")
        )
    source, output = ends(site)
    by = multiplier_of(source.scale / output.scale)
    require(by.shift <= 22, "an output scale that is far too small")

    def one(q: int) -> int:
        value = abs(q - source.zero_point)
        value = value if source.scale == output.scale else scaled(value, by)
        return clamped(value + output.zero_point, -128, 127)

    return table_layer(site, [one(q) for q in _INT8])


def negate(site: Site) -> Layer:
    """Return NEG of float32."""
    return float_values(site, "-in[i]")


def square(site: Site) -> Layer:
    """Return SQUARE of float32."""
    return float_values(site, "in[i] * in[i]")


def square_root(site: Site) -> Layer:
    """Return SQRT of float32."""
    return replace(float_values(site, "square_root(in[i])"), helpers=(SQUARE_ROOT,))


def inverse_square_root(site: Site) -> Layer:
    """Return RSQRT of float32, or of int8 whose zero point is -128: values below 0 stop the interpreter."""
    if site.input(0).dtype == "float32":
        return replace(float_values(site, "1.0f / square_root(in[i])"), helpers=(SQUARE_ROOT,))
    source, output = ends(site)
    require(source.zero_point == -128, "values that can be negative: a zero point other than -128")
    by = multiplier_of(1.0 / (math.sqrt(source.scale) * output.scale))
    require(by.shift - _FINER_BITS <= 0, "an output scale that is far too small")
    require(by.shift - _FINER_BITS >= -31, "an output scale that is far too large")

    def one(q: int) -> int:
        value = q - source.zero_point
        if value == 0:
            return 127
        root = inverse_root(value)
        fine = scaled(1, replace(root, shift=root.shift + _FINER_BITS))
        return clamped(scaled(fine, replace(by, shift=by.shift - _FINER_BITS)) + output.zero_point, -128, 127)

    return table_layer(site, [one(q) for q in _INT8])


def exponential(site: Site) -> Layer:
    """Return EXP of float32."""
    return replace(
        float_values(site, "power_of_e(in[i])"), helpers=(_POWER,), needs=("exponential",), is_exact=False
    )


def logarithm(site: Site) -> Layer:
    """Return LOG of float32."""
    return replace(float_values(site, "logarithm(in[i])"), helpers=(LOGARITHM,), is_exact=False)


def elu(site: Site) -> Layer:
    """Return ELU of int8 or float32: x, or exp(x) - 1 below 0."""
    if site.input(0).dtype == "float32":
        return replace(
            float_values(site, "in[i] < 0.0f ? (float)(exponential((double)in[i]) - 1.0) : in[i]"),
            needs=("exponential",),
            is_exact=False,
        )
    return table_layer(site, _looked_up(site, _elu_of))


def _elu_of(value: np.float32) -> np.float32:
    return np.float32(np.float32(math.exp(float(value))) - np.float32(1)) if value < 0 else value


def _looked_up(site: Site, function: Callable[[np.float32], np.float32]) -> list[int]:
    """Return `function` of the real number of each int8, worked out in float32 as the interpreter does."""
    source, output = ends(site)
    inverse = np.float32(1) / np.float32(output.scale)
    results = []
    for q in _INT8:
        real = function(np.float32(source.scale) * np.float32(q - source.zero_point))
        level = float(np.float32(rounded(float(real * inverse))) + np.float32(output.zero_point))
        results.append(clamped(math.trunc(max(min(level, 1e6), -1e6)), -128, 127))
    return results


def floor(site: Site) -> Layer:
    """Return FLOOR of float32."""
    return replace(float_values(site, "floored(in[i])"), helpers=(_FLOORED,))


def ceil(site: Site) -> Layer:
    """Return CEIL of float32."""
    return replace(float_values(site, "raised(in[i])"), helpers=(_FLOORED, _RAISED))


def round_(site: Site) -> Layer:
    """Return ROUND of float32, ties to even."""
    return replace(float_values(site, "nearest(in[i])"), helpers=(_FLOORED, _NEAREST))


def logical_not(site: Site) -> Layer:
    """Return LOGICAL_NOT."""
    require(site.input(0).dtype == site.output().dtype == "bool", f"type {site.input(0).dtype}")
    return _converted(site, "(uint8_t)!in[i]")


def cast(site: Site) -> Layer:
    """Return CAST between integers, bool and float32; not of float32 to integers, whose values may not fit."""
    source, output = site.input(0), site.output()
    known = ("int8", "int16", "int32", "bool")
    require(
        source.dtype in known and output.dtype in (*known, "float32"),
        f"types {source.dtype}/{output.dtype}; int8, int16, int32 and bool to these or float32 are made",
    )
    return _converted(site, "(uint8_t)(in[i] != 0)" if output.dtype == "bool" else f"({output.c_type})in[i]")


def _converted(site: Site, expression: str) -> Layer:
    source, output = site.input(0), site.output()
    require(source.count == output.count > 0, "an empty tensor")
    values: dict[str, object] = {
        "source": source.c_type, "target": output.c_type, "expression": expression
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_CAST, values),
        reads=(source.index,),
        writes=(output.index,),
        in_place=(0,) if source.dtype == output.dtype else (),
        arguments=(str(output.count),),
        by_rows=value_by_value(output, (source,)),
    )
