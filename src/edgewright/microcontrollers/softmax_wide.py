"""Softmax of int16: exponentials and one reciprocal a row, each between the entries of a table of 513 values.

Source: LiteRT quantization specification (SOFTMAX, 16 bits): exp on [-10, 0] and 1 / (1 + x) on [0, 1] as Q0.15.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgewright.microcontrollers.fixed_point import multiplier_of, rounded
from edgewright.microcontrollers.layer import Constant, Layer, Site, integers, render, require

_ENTRIES = 512
_REACH = 10.0  # exp(-10) is taken for nothing
_LARGEST_DEPTH = 1 << 15

_LOOKUP = """\
/* The value of a table of 513 entries at `at` in [-32768, 32767], between two of them. */
static int32_t looked_up(const int16_t *table, int32_t at)
{
    const int16_t *entry = table + 256 + (at >> 7);
    return entry[0] + (((entry[1] - entry[0]) * (at & 127) + 64) >> 7);
}
"""
_SOFTMAX = """\
static void @(const int16_t *in, int16_t *out, const int16_t *exps, const int16_t *reciprocals)
{
    int32_t n, c;
    for (n = 0; n < {{ rows }}; ++n, in += {{ depth }}, out += {{ depth }}) {
        int32_t top = -32768, sum = 0, zeros, factor;
        for (c = 0; c < {{ depth }}; ++c) {
            top = in[c] > top ? in[c] : top;
        }
        for (c = 0; c < {{ depth }}; ++c) {
            const int32_t at = scaled(in[c] - top, {{ by.mantissa }}, {{ by.shift }}) + 32767;
            out[c] = (int16_t)looked_up(exps, clamped(at, -32768, 32767));
            sum += out[c];
        }
        zeros = leading_zeros((uint32_t)sum);
        factor = (int32_t)(((int64_t)sum * (INT64_C(1) << (zeros - 1)) + (1 << 13)) >> 14) - 98304;
        factor = looked_up(reciprocals, clamped(factor, -32768, 32767));
        for (c = 0; c < {{ depth }}; ++c) {
            out[c] = (int16_t)clamped(
                (int32_t)(((int64_t)out[c] * factor + (INT64_C(1) << (30 - zeros))) >> (31 - zeros)), 0, 32767);
        }
    }
}
"""


def softmax(site: Site) -> Layer:
    """Return SOFTMAX of int16 over the last axis, onto scale 2**-15."""
    rows, output = site.input(0), site.output()
    require(output.dtype == "int16", f"types {rows.dtype}/{output.dtype}")
    require(len(rows.scales) == 1 and len(output.scales) == 1, "an input or output without one scale")
    require(output.zero_point == 0, "an output with a zero point")
    require(abs(output.scale * 32768 - 1) < 0.001, f"an output of scale {output.scale:g}, not 2^-15")
    require(len(rows.shape) >= 1 and rows.count > 0 and rows.count == output.count, "an empty tensor")
    depth = rows.shape[-1]
    require(depth <= _LARGEST_DEPTH, f"rows of {depth}; up to {_LARGEST_DEPTH} fit a sum of 32 bits")
    factor = rows.scale * site.operator.real("Beta") / (_REACH / 65535)
    require(factor > 0, f"beta {site.operator.real('Beta'):g}")
    by = multiplier_of(factor)
    # Differences take 16 bits and a sign.
    require(by.shift <= 14, f"an input scale {rows.scale:g}")
    tables = (
        _table(f"{site.prefix}_exps", lambda x: float(np.float32(math.exp(x))), -_REACH, 0.0),
        _table(
            f"{site.prefix}_reciprocals",
            lambda x: float(np.float32(1) / (np.float32(1) + np.float32(x))), 0.0, 1.0,
        ),
    )  # fmt: skip
    values: dict[str, object] = {"rows": rows.count // depth, "depth": depth, "by": by}
    return Layer(
        operator=site.operator,
        text=render(_SOFTMAX, values),
        helpers=(_LOOKUP,),
        reads=(rows.index,),
        writes=(output.index,),
        in_place=(0,),
        constants=tables,
        arguments=tuple(table.name for table in tables),
        needs=("scaled", "clamped", "leading_zeros"),
    )


def _table(name: str, function: Callable[[float], float], low: float, high: float) -> Constant:
    """Return `function` on [low, high] as Q0.15, each entry moved by half of the error behind it."""
    single = np.float32
    step = (single(high) - single(low)) / single(_ENTRIES)
    unit = single(32768)

    def near(value: np.float32) -> np.float32:
        return single(rounded(float(value)))

    made = []
    for number in range(_ENTRIES):
        at = single(low) + single(number) * step
        value, middle, following = (
            single(function(float(x)))
            for x in (at, at + step / single(2), single(low) + single(number + 1) * step)
        )
        line = near((following * unit + near(value * unit)) / single(2))
        bias = near((line - near(middle * unit)) / single(2))
        made.append(int(np.clip(near(value * unit) - bias, -32768, 32767)))
    made.append(int(np.clip(near(single(function(high)) * unit), -32768, 32767)))
    return integers(name, "int16_t", made, 2)
