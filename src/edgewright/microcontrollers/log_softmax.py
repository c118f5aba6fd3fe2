"""The logarithm of softmax: of int8 in fixed point, of float32 in double.

Source: the LiteRT operator LOG_SOFTMAX. log(z) of z = 2**k r, with r near the fourth root of 1/2, is k log 2 and a
rational function of r; the constants below are those of its expansion, in Q0.31.
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgewright.microcontrollers.fixed_point import multiplier_of
from edgewright.microcontrollers.layer import Layer, Site, render, require
from edgewright.microcontrollers.normalizing import by_rows, rows_of
from edgewright.microcontrollers.pointwise import LOGARITHM
from edgewright.microcontrollers.softmax import exponentials

_INTEGER_BITS = 5
_SUM_BITS = 12
_OUTPUT_BITS = 4


def _q31(real: float) -> int:
    return math.floor(real * 2**31 + 0.5)


_ROOT = 2.0**0.25
_LOG_OF_SUM = render(
    """\
/* log(z) in Q5.26, for z >= 1 in Q12.19. */
static int32_t log_of_sum(int32_t z)
{
    const int32_t zeros = leading_zeros((uint32_t)z);
    const int32_t low = high_product(z, {{ half }}), low_zeros = leading_zeros((uint32_t)low) - 1;
    const int32_t first = saturated_shift(high_product(saturated_shift(z, zeros - 1), {{ half }}), 1);
    const int32_t second = saturated_shift(z, low_zeros), r = first < second ? first : second;
    const int32_t up = ({{ sum_bits }} - zeros) * (1 << 25) + (1 << 23);
    const int32_t down = ({{ sum_bits }} - low_zeros) * (1 << 25) - (1 << 23), power = up > down ? up : down;
    const int32_t p = (int32_t)(((int64_t)r + {{ fourth }} + 1) / 2), q = 2 * (r - {{ fourth }});
    const int32_t square = high_product(q, q);
    const int32_t top = high_product(q, r) + high_product(high_product(q, square), {{ alpha_n }});
    const int32_t bottom = high_product(p, {{ alpha_i }} + q + high_product({{ alpha_d }}, square)) +
        high_product({{ alpha_f }}, q);
    return saturated_shift(
        high_product(power, {{ log_2 }}) + high_product(shift_right(top, 6), reciprocal(bottom)), 1);
}
""",
    {
        "half": _q31(0.5**0.5), "fourth": _q31(0.5**0.25), "log_2": _q31(math.log(2)), "sum_bits": _SUM_BITS,
        "alpha_n": _q31(11 / 240 * _ROOT), "alpha_d": _q31(_ROOT / 20), "alpha_i": _q31(2 / _ROOT - _ROOT),
        "alpha_f": _q31(_ROOT / 4),
    },
)  # fmt: skip


def log_softmax(site: Site) -> Layer:
    """Return LOG_SOFTMAX of float32, or of int8 onto scale 1/16, zero point 127."""
    rows, depth = rows_of(site, ("int8", "float32"))
    if rows.dtype == "int8":
        return _integers(site)
    lines = [
        "float top = in[0], sum = 0.0f;",
        f"for (c = 1; c < {depth}; ++c) {{",
        "    top = in[c] > top ? in[c] : top;",
        "}",
        f"for (c = 0; c < {depth}; ++c) {{",
        "    sum += (float)exponential((double)(in[c] - top));",
        "}",
        "sum = logarithm(sum);",
        f"for (c = 0; c < {depth}; ++c) {{",
        "    out[c] = in[c] - top - sum;",
        "}",
    ]
    layer = by_rows(site, lines)
    return replace(layer, helpers=(LOGARITHM,), needs=("exponential",), is_exact=False)


def _integers(site: Site) -> Layer:
    rows, depth = rows_of(site, ("int8",))
    output = site.output()
    require(len(rows.scales) == len(output.scales) == 1, "an input or output without one scale")
    require(
        output.scale == 1 / 16 and output.zero_point == 127,
        "an output that is not scale 1/16, zero point 127",
    )
    require(depth <= 2048, f"rows of {depth}; up to 2048 fit the sum's 12 integer bits")
    table = site.table("exp", "int32_t", exponentials(1.0, rows.scale), 4)
    by = multiplier_of(min(rows.scale * 2.0 ** (31 - _INTEGER_BITS), 2.0**31 - 1.0))
    require(1 <= by.shift <= 31, f"an input scale {rows.scale:g}")
    radius = math.floor((2**_INTEGER_BITS - 1) * 2.0 ** (31 - _INTEGER_BITS) / 2.0**by.shift)
    back = multiplier_of(2.0 ** (31 - by.shift) / by.mantissa)
    require(back.shift <= 0, f"an input scale {rows.scale:g}")
    lines = [
        "int32_t top = -128, sum = 0, least;",
        f"for (c = 0; c < {depth}; ++c) {{",
        "    top = in[c] > top ? in[c] : top;",
        "}",
        f"for (c = 0; c < {depth}; ++c) {{",
        f"    sum += top - in[c] < {table.count} ? shift_right(table[top - in[c]], {_SUM_BITS}) : 0;",
        "}",
        "sum = log_of_sum(sum);",
        # What lies further below the top than this leaves the 4 integer bits of the output.
        f"least = scaled(sum + INT32_MIN, {back.mantissa}, {back.shift});",
        f"least = least > {-radius - 1} ? least : {-radius - 1};",
        f"for (c = 0; c < {depth}; ++c) {{",
        "    const int32_t distance = in[c] - top;",
        "    int32_t value = -128;",
        "    if (distance > least) {",
        f"        value = scaled(distance, {by.mantissa}, {by.shift}) - sum;",
        f"        value = clamped(shift_right(value, {31 - _INTEGER_BITS - _OUTPUT_BITS}) + 127, -128, 127);",
        "    }",
        "    out[c] = (int8_t)value;",
        "}",
    ]
    layer = by_rows(site, lines, table="int32_t")
    return replace(
        layer,
        helpers=(_LOG_OF_SUM,),
        constants=(table,),
        arguments=(table.name,),
        needs=(
            "shift_right", "high_product", "leading_zeros", "reciprocal", "saturated_shift", "scaled", "clamped",
        ),
    )  # fmt: skip
