"""Rows of the last axis at unit length.

Source: the LiteRT operator L2_NORMALIZATION (int8 onto scale 1/128).
"""

from __future__ import annotations

from dataclasses import replace

from edgewright.microcontrollers.graph import Tensor
from edgewright.microcontrollers.layer import Layer, Site, render, require
from edgewright.microcontrollers.roots import INVERSE_ROOT, SQUARE_ROOT

_ROWS = """\
static void @(const {{ type }} *in, {{ type }} *out{{ ", const %s *table" % table if table }})
{
    int32_t n, c;
    for (n = 0; n < {{ rows }}; ++n, in += {{ depth }}, out += {{ depth }}) {
{% for line in lines %}
        {{ line }}
{% endfor %}
    }
}
"""


def l2_normalization(site: Site) -> Layer:
    """Return L2_NORMALIZATION of float32, or of int8 onto scale 1/128, zero point 0."""
    rows, depth = rows_of(site, ("int8", "float32"))
    require(site.operator.integer("FusedActivationFunction") == 0, "a fused activation")
    each = f"for (c = 0; c < {depth}; ++c) {{"
    if rows.dtype == "float32":
        lines = [
            "float sum = 0.0f, length;",
            each,
            "    sum += in[c] * in[c];",
            "}",
            "length = square_root(sum);",
            "length = length < 1e-6f ? 1e-6f : length;",
            each,
            "    out[c] = in[c] / length;",
            "}",
        ]
        return replace(by_rows(site, lines), helpers=(SQUARE_ROOT,))
    output = site.output()
    require(len(rows.scales) == len(output.scales) == 1, "an input or output without one scale")
    require(
        output.scale == 1 / 128 and output.zero_point == 0, "an output that is not scale 1/128, zero point 0"
    )
    require(depth * 255 * 255 < 1 << 31, f"rows of {depth}")
    value = f"in[c] - ({rows.zero_point})"
    lines = [
        "int32_t sum = 0, shift, mantissa;",
        each,
        f"    sum += ({value}) * ({value});",
        "}",
        "mantissa = inverse_root(sum, &shift);",
        each,
        f"    out[c] = (int8_t)clamped(scaled({value}, mantissa, 7 - shift), -128, 127);",
        "}",
    ]
    return replace(
        by_rows(site, lines),
        helpers=(INVERSE_ROOT,),
        needs=("scaled", "clamped", "leading_zeros", "saturated_shift", "high_product", "shift_right"),
    )


def rows_of(site: Site, known: tuple[str, ...]) -> tuple[Tensor, int]:
    """Return the input of an operator over rows, and how long each of them is.

    Raises:
        UnsupportedError: other types, other shapes, or nothing in it.
    """
    rows, output = site.input(0), site.output()
    require(
        rows.dtype == output.dtype and rows.dtype in known,
        f"types {rows.dtype}/{output.dtype}; {' and '.join(known)} made",
    )
    require(len(rows.shape) >= 1 and rows.shape == output.shape and rows.count > 0, "an empty tensor")
    return rows, rows.shape[-1]


def by_rows(site: Site, lines: list[str], *, table: str = "") -> Layer:
    """Return the layer that runs `lines` for each row, which make out[c] of in[c].

    Args:
        table: type of a further argument, `table`.
    """
    rows = site.input(0)
    depth = rows.shape[-1]
    values: dict[str, object] = {
        "type": rows.c_type, "rows": rows.count // depth, "depth": depth, "lines": lines, "table": table
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_ROWS, values),
        reads=(rows.index,),
        writes=(site.output().index,),
        in_place=(0,),
    )
