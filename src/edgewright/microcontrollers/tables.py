"""Operators of one int8 tensor, value by value: each is a table of 256 results worked out in advance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewright.microcontrollers.fixed_point import clamped, multiplier_of, rounded, scaled
from edgewright.microcontrollers.graph import Tensor
from edgewright.microcontrollers.layer import Layer, Site, render, require

_TABLE = """\
static void @(const int8_t *in, int8_t *out, const int8_t *table)
{
    int32_t i;
    for (i = 0; i < {{ count }}; ++i) {
        out[i] = table[in[i] + 128];
    }
}
"""
_CLAMP = """\
static void @(const int8_t *in, int8_t *out)
{
    int32_t i;
    for (i = 0; i < {{ count }}; ++i) {
        out[i] = (int8_t)clamped(in[i], {{ low }}, {{ high }});
    }
}
"""
_INT8 = range(-128, 128)


def relu(site: Site) -> Layer:
    """Return RELU of int8, which may change the scale."""
    source, output = _ends(site)
    by = multiplier_of(source.scale / output.scale)
    low = max(-128, output.zero_point + rounded(float(np.float32(0.0) / np.float32(output.scale))))
    return _table(
        site, [clamped(output.zero_point + scaled(q - source.zero_point, by), low, 127) for q in _INT8]
    )


def relu6(site: Site) -> Layer:
    """Return RELU6 of int8: the interpreter clamps, whatever the output's scale."""
    source, output = _ends(site)
    high = source.zero_point + rounded(float(np.float32(6.0) / np.float32(source.scale)))
    values: dict[str, object] = {
        "count": output.count, "low": source.zero_point, "high": min(high, 127)
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_CLAMP, values),
        reads=(source.index,),
        writes=(output.index,),
        in_place=(0,),
        needs=("clamped",),
    )


def leaky_relu(site: Site) -> Layer:
    """Return LEAKY_RELU of int8."""
    source, output = _ends(site)
    alpha = float(np.float32(site.operator.real("Alpha")))
    above = multiplier_of(source.scale / output.scale)
    below = multiplier_of(abs(source.scale * alpha / output.scale))
    require(alpha >= 0, f"a negative alpha {alpha:g}")

    def one(q: int) -> int:
        value = q - source.zero_point
        return clamped(output.zero_point + scaled(value, above if value >= 0 else below), -128, 127)

    return _table(site, [one(q) for q in _INT8])


def _ends(site: Site) -> tuple[Tensor, Tensor]:
    source, output = site.input(0), site.output()
    require(source.dtype == output.dtype == "int8", f"types {source.dtype}/{output.dtype}; int8/int8 is made")
    for tensor in (source, output):
        require(len(tensor.scales) == 1 and tensor.scale > 0, "a tensor without one scale")
    require(source.count == output.count and source.count > 0, "an empty tensor")
    return source, output


def _table(site: Site, results: Sequence[int]) -> Layer:
    source, output = site.input(0), site.output()
    table = site.table("table", "int8_t", results, 1)
    values: dict[str, object] = {"count": output.count}
    return Layer(
        operator=site.operator,
        text=render(_TABLE, values),
        reads=(source.index,),
        writes=(output.index,),
        in_place=(0,),
        constants=(table,),
        arguments=(table.name,),
    )
