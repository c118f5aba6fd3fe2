"""Softmax of int8 in integers: a table of exponentials, one reciprocal a row."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgewright.microcontrollers import softmax_wide
from edgewright.microcontrollers.exponential import exp_of_negative, reciprocal
from edgewright.microcontrollers.fixed_point import clamped, high_product, multiplier_of, scaled, shift_right
from edgewright.microcontrollers.layer import Layer, Site, float_literal, render, require

_INTEGER_BITS = 5
_SUM_BITS = 12

_SOFTMAX = """\
static void @(const int8_t *in, int8_t *out, const int32_t *table)
{
    int32_t n, c;
    for (n = 0; n < {{ rows }}; ++n, in += {{ depth }}, out += {{ depth }}) {
        int32_t top = -128, sum = 0, zeros, factor;
        for (c = 0; c < {{ depth }}; ++c) {
            top = in[c] > top ? in[c] : top;
        }
        for (c = 0; c < {{ depth }}; ++c) {
            if (top - in[c] < {{ size }}) {
                sum += shift_right(table[top - in[c]], {{ sum_bits }});
            }
        }
        zeros = leading_zeros((uint32_t)sum);
        factor = reciprocal((int32_t)(((uint32_t)sum << zeros) - (UINT32_C(1) << 31)));
        for (c = 0; c < {{ depth }}; ++c) {
            int32_t value = -128;
            if (top - in[c] < {{ size }}) {
                value += shift_right(high_product(factor, table[top - in[c]]), {{ sum_bits + 23 }} - zeros);
            }
            out[c] = (int8_t)clamped(value, -128, 127);
        }
    }
}
"""

# Of two values, each output depends on nothing but the difference: -255 to 255.
_PAIRS = """\
static void @(const int8_t *in, int8_t *out, const int8_t *table)
{
    int32_t n;
    for (n = 0; n < {{ rows }}; ++n, in += 2, out += 2) {
        const int32_t more = in[0] - in[1];
        out[0] = table[255 + more];
        out[1] = table[255 - more];
    }
}
"""

_FLOAT = """\
static void @(const float *in, float *out)
{
    int32_t n, c;
    for (n = 0; n < {{ rows }}; ++n, in += {{ depth }}, out += {{ depth }}) {
        float top = in[0], sum = 0.0f;
        for (c = 1; c < {{ depth }}; ++c) {
            top = in[c] > top ? in[c] : top;
        }
        for (c = 0; c < {{ depth }}; ++c) {
            out[c] = (float)exponential((double)((in[c] - top) * {{ beta }}));
            sum += out[c];
        }
        for (c = 0; c < {{ depth }}; ++c) {
            out[c] = out[c] / sum;
        }
    }
}
"""


def softmax(site: Site) -> Layer:
    """Return SOFTMAX of int8, int16 or float32 over the last axis."""
    rows, output = site.input(0), site.output()
    if rows.dtype == "float32":
        return _floats(site)
    if rows.dtype == "int16":
        return softmax_wide.softmax(site)
    require(rows.dtype == output.dtype == "int8", f"types {rows.dtype}/{output.dtype}; int8/int8 is made")
    require(len(rows.scales) == 1 and len(output.scales) == 1, "an input or output without one scale")
    require(
        output.scale == 1 / 256 and output.zero_point == -128,
        "an output that is not scale 1/256, zero point -128",
    )
    require(len(rows.shape) >= 1 and rows.count > 0 and rows.count == output.count, "an empty tensor")
    depth = rows.shape[-1]
    require(depth <= 2048, f"rows of {depth}; up to 2048 fit the sum's 12 integer bits")
    powers = exponentials(site.operator.real("Beta"), rows.scale)
    if depth == 2:
        table = site.table("pairs", "int8_t", [of_two(more, powers) for more in range(-255, 256)], 1)
    else:
        table = site.table("exp", "int32_t", powers, 4)
    values: dict[str, object] = {
        "rows": rows.count // depth, "depth": depth,
        "size": table.count, "sum_bits": _SUM_BITS,
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_PAIRS if depth == 2 else _SOFTMAX, values),
        reads=(rows.index,),
        writes=(output.index,),
        in_place=(0,),
        constants=(table,),
        arguments=(table.name,),
        needs=() if depth == 2 else ("shift_right", "high_product", "leading_zeros", "reciprocal", "clamped"),
    )


def _floats(site: Site) -> Layer:
    rows, output = site.input(0), site.output()
    require(output.dtype == "float32", f"types float32/{output.dtype}")
    require(len(rows.shape) >= 1 and rows.count > 0 and rows.count == output.count, "an empty tensor")
    depth = rows.shape[-1]
    values: dict[str, object] = {
        "rows": rows.count // depth, "depth": depth, "beta": float_literal(site.operator.real("Beta"))
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_FLOAT, values),
        reads=(rows.index,),
        writes=(output.index,),
        in_place=(0,),
        needs=("exponential",),
        is_exact=False,
    )


def of_two(more: int, powers: Sequence[int]) -> int:
    """Return the output for the one of two values that is larger than the other by `more`, as _SOFTMAX computes it.

    Args:
        powers: see `exponentials`.
    """
    own, other = (powers[size] if size < len(powers) else 0 for size in (max(-more, 0), max(more, 0)))
    total = shift_right(own, _SUM_BITS) + shift_right(other, _SUM_BITS)
    zeros = 32 - total.bit_length()
    factor = reciprocal((total << zeros) - (1 << 31))
    return clamped(shift_right(high_product(factor, own), _SUM_BITS + 23 - zeros) - 128, -128, 127)


def exponentials(beta: float, scale: float) -> list[int]:
    """Return exp(-beta * scale * d) as Q0.31 for d = 0, 1, ... until the interpreter takes it for zero, 256 at most."""
    factor = min(beta * scale * 2.0 ** (31 - _INTEGER_BITS), 2.0**31 - 1.0)
    require(factor > 1.0, f"beta {beta:g} on scale {scale:g}")
    by = multiplier_of(factor)
    largest = math.floor(1.0 * ((1 << _INTEGER_BITS) - 1) * (1 << (31 - _INTEGER_BITS)) / (1 << by.shift))
    return [
        exp_of_negative(scaled(-distance, by), _INTEGER_BITS) for distance in range(min(largest, 255) + 1)
    ]
