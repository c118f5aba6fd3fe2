"""Operators of one int16 tensor, value by value: 65,536 results are too many for a table, so that these compute.

Source: LiteRT quantization specification, 16x8. Sigmoid and tanh go between the 256 entries of one table.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from edgewright.microcontrollers.fixed_point import Multiplier, multiplier_of, rounded
from edgewright.microcontrollers.graph import LIMITS, Tensor
from edgewright.microcontrollers.layer import (
    Constant,
    Layer,
    Site,
    float_literal,
    integers,
    render,
    require,
    value_by_value,
)

_VALUES = """\
static void @(const {{ source }} *in, {{ target }} *out{{ ", const int16_t *table" if has_table }}, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
{% for line in lines %}
        {{ line }}
{% endfor %}
    }
}
"""
# Sums in front of the gates are multiples of 2^-12; one entry of the table is a 24th, three 8th of 2^-9.
_GATE_SCALE = 2.0**-12
_UNIT_SCALE = 2.0**-15


def sigmoid_table(prefix: str) -> Constant:
    """Return 2**16 sigmoid(i / 24) - 2**15 for i = -256..255, raised by half of the error of interpolation.

    Each with the difference to the next one. A chord lies under the curve by h**2 |f''| / 8 at most; half of it above
    and half of it under is best. The entries at both ends are the limits. All 65,536 results of sigmoid and tanh with
    this table are the interpreter's.
    """
    values = []
    for i in range(255):
        real = 1 / (1 + math.exp(-i / 24))
        bend = real * (1 - real) * (2 * real - 1) / 24**2
        values.append(math.floor(65536 * (real + bend / 16) + 0.5) - 32768)
    values += [32767, 32767]
    curve = [*(-value for value in reversed(values[1:])), *values]
    pairs = [(low, high - low) for low, high in itertools.pairwise(curve)]
    return integers(f"{prefix}_sigmoid", "int16_t", [value for pair in pairs for value in pair], 2)


def logistic(site: Site) -> Layer:
    """Return LOGISTIC of int16 onto scale 2**-15."""
    return _gate(site, "sigmoid16", powers=(0,))


def tanh(site: Site) -> Layer:
    """Return TANH of int16 onto scale 2**-15."""
    return _gate(site, "tanh16", powers=(0, 1))


def _gate(site: Site, function: str, *, powers: tuple[int, ...]) -> Layer:
    """Return a function of `value / (3 * 2**12)`.

    Args:
        powers: an input of scale 2**(power - 12) is shifted; any other one is multiplied by 15 bits and rounded.
    """
    source, output = ends(site, ("int16",), ("int16",))
    require(output.scale == _UNIT_SCALE, f"an output of scale {output.scale:g}, not 2^-15")
    power = math.log2(source.scale / _GATE_SCALE)
    if power in powers:
        factor, places = 3 << int(power), 0
    else:
        real, places = source.scale / _GATE_SCALE * 3, 0
        while real <= 32767 / 2 and places <= 30:
            real *= 2
            places += 1
        factor = int(real)
        require(0 < factor <= 32767 and places <= 31, f"an input scale {source.scale:g}")
    value = f"in[i] * {factor}" if places == 0 else f"(in[i] * {factor} + {1 << (places - 1)}) >> {places}"
    return values(
        site, [f"out[i] = (int16_t){function}({value}, table);"], needs=(function,),
        table=sigmoid_table(site.prefix),
    )  # fmt: skip


def leaky_relu(site: Site) -> Layer:
    """Return LEAKY_RELU of int16."""
    source, output = ends(site, ("int16",), ("int16",))
    alpha = site.operator.real("Alpha")
    require(alpha >= 0, f"a negative alpha {alpha:g}")
    above = _checked(source.scale / output.scale)
    below = _checked(source.scale * alpha / output.scale)
    lines = [
        "int32_t value = in[i];",
        f"value = value >= 0 ? scaled(value, {above.mantissa}, {above.shift})",
        f"                   : scaled(value, {below.mantissa}, {below.shift});",
        "out[i] = (int16_t)clamped(value, -32768, 32767);",
    ]
    return values(site, lines, needs=("scaled", "clamped"))


def relu(site: Site) -> Layer:
    """Return RELU of int16, which may change the scale."""
    source, output = ends(site, ("int16",), ("int16",))
    by = _checked(source.scale / output.scale)
    return values(
        site,
        [f"out[i] = (int16_t)clamped(scaled(in[i], {by.mantissa}, {by.shift}), 0, 32767);"],
        needs=("scaled", "clamped"),
    )


def relu6(site: Site) -> Layer:
    """Return RELU6 of int16: the interpreter clamps, whatever the output's scale."""
    source, _ = ends(site, ("int16",), ("int16",))
    high = min(rounded(float(np.float32(6.0) / np.float32(source.scale))), 32767)
    return values(site, [f"out[i] = (int16_t)clamped(in[i], 0, {high});"], needs=("clamped",))


def requantize(site: Site) -> Layer:
    """Return QUANTIZE of integers to integers of another width or scale."""
    source, output = ends(site, ("int8", "int16", "int32"), ("int8", "int16", "int32"), is_symmetric=False)
    require("int32" not in (source.dtype, output.dtype) or source.dtype != output.dtype, "types int32/int32")
    by = _checked(source.scale / output.scale, source.dtype)
    low, high = LIMITS[output.dtype]
    offset = f"in[i] - ({source.zero_point})" if source.zero_point else "in[i]"
    require(source.dtype != "int32" or source.zero_point == 0, "int32 with a zero point")
    value = f"scaled({offset}, {by.mantissa}, {by.shift}) + ({output.zero_point})"
    if output.dtype == "int32":
        return values(site, [f"out[i] = {value};"], needs=("scaled",))
    return values(
        site, [f"out[i] = ({output.c_type})clamped({value}, {low}, {high});"], needs=("scaled", "clamped")
    )


def from_float(site: Site) -> Layer:
    """Return QUANTIZE of float32 to int8 or int16."""
    source, output = site.input(0), site.output()
    require(output.dtype in ("int8", "int16"), f"types {source.dtype}/{output.dtype}; float32/int8 is made")
    require(len(output.scales) == 1 and output.scale > 0 and source.count == output.count > 0, "no scale")
    low, high = LIMITS[output.dtype]
    zero = output.zero_point
    lines = [
        f"const float value = in[i] / {float_literal(output.scale)};",
        f"if (!(value > {low - zero}.0f)) {{",
        f"    out[i] = {low};",
        f"}} else if (value >= {high - zero}.0f) {{",
        f"    out[i] = {high};",
        "} else {",
        f"    out[i] = ({output.c_type})(rounded(value) + ({zero}));",
        "}",
    ]
    return values(site, lines, needs=("rounded",), in_place=())


def ends(
    site: Site, sources: tuple[str, ...], outputs: tuple[str, ...], *, is_symmetric: bool = True
) -> tuple[Tensor, Tensor]:
    """Return input and output of a value-by-value operator on integers of these types, one scale each.

    Raises:
        UnsupportedError: other types, no scale, zero points where `is_symmetric`, or other counts.
    """
    source, output = site.input(0), site.output()
    require(
        source.dtype in sources and output.dtype in outputs,
        f"types {source.dtype}/{output.dtype}; {' or '.join(sources)} to {' or '.join(outputs)} is made",
    )
    for tensor in (source, output):
        require(len(tensor.scales) == 1 and tensor.scale > 0, "a tensor without one scale")
        require(not is_symmetric or tensor.zero_point == 0, f"{tensor.dtype} with a zero point")
    require(source.count == output.count and source.count > 0, "an empty tensor")
    return source, output


def _checked(factor: float, dtype: str = "int16") -> Multiplier:
    by = multiplier_of(factor)
    # What is shifted to the left stays within 32 bits.
    require(by.shift <= {"int8": 22, "int16": 14, "int32": 0}[dtype], "an output scale that is far too small")
    return by


def values(
    site: Site,
    lines: list[str],
    *,
    needs: tuple[str, ...],
    table: Constant | None = None,
    in_place: tuple[int, ...] = (0,),
) -> Layer:
    """Return the layer that runs `lines`, which make out[i] of in[i].

    Args:
        table: a further argument, `table`.
        in_place: () where a value is read after the one that takes its place.
    """
    source, output = site.input(0), site.output()
    described: dict[str, object] = {
        "source": source.c_type, "target": output.c_type, "lines": lines,
        "has_table": table is not None,
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_VALUES, described),
        reads=(source.index,),
        writes=(output.index,),
        in_place=in_place if source.dtype == output.dtype else (),
        needs=needs,
        constants=(table,) if table else (),
        arguments=(*((table.name,) if table else ()), str(output.count)),
        by_rows=value_by_value(output, (source,)),
    )
