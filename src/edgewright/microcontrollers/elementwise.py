"""Operators of two tensors, value by value, with broadcasting.

Source: LiteRT 8-bit quantization specification (ADD, SUB, MUL). Sums are taken 20 bits (int16: 15) finer than the
inputs, on a common scale of twice the larger one.
"""

from __future__ import annotations

from edgewright.microcontrollers.broadcast import offset_of, spread
from edgewright.microcontrollers.fixed_point import Multiplier, activation_range, multiplier_of
from edgewright.microcontrollers.graph import Tensor
from edgewright.microcontrollers.layer import Layer, Site, render, require, value_by_value
from edgewright.microcontrollers.sums import limits_of

# How much finer than the inputs sums are taken.
_FINER_BITS = {"int8": 20, "int16": 15}

_FLAT = """\
static void @(const {{ type }} *left, const {{ type }} *right, {{ type }} *out, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        const {{ value }} value = {{ flat }};
        out[i] = {{ end }};
    }
}
"""


def add(site: Site) -> Layer:
    """Return ADD of int8, int16 or float32."""
    return _sum(site, sign="+")


def subtract(site: Site) -> Layer:
    """Return SUB of int8, int16 or float32."""
    return _sum(site, sign="-")


def multiply(site: Site) -> Layer:
    """Return MUL of int8, int16 or float32."""
    if site.output().dtype == "float32":
        return _floats(site, "*")
    left, right, output = _operands(site)
    by = multiplier_of(left.scale * right.scale / output.scale)
    require(by.shift <= 14, "an output scale that is far too small")
    product = f"({offset_of('LEFT', left)}) * ({offset_of('RIGHT', right)})"
    return _layer(site, f"scaled({product}, {by.mantissa}, {by.shift}) + {output.zero_point}")


def _sum(site: Site, *, sign: str) -> Layer:
    if site.output().dtype == "float32":
        return _floats(site, sign)
    left, right, output = _operands(site)
    finer_bits = _FINER_BITS[output.dtype]
    common = 2 * max(left.scale, right.scale)
    factors = [multiplier_of(one.scale / common) for one in (left, right)]
    total = multiplier_of(common / (2**finer_bits * output.scale))
    require(total.shift <= 0, "an output scale that is far too small")

    def finer(name: str, tensor: Tensor, by: Multiplier) -> str:
        return f"scaled(({offset_of(name, tensor)}) * {2**finer_bits}, {by.mantissa}, {by.shift})"

    both = f"{finer('LEFT', left, factors[0])} {sign} {finer('RIGHT', right, factors[1])}"
    return _layer(site, f"scaled({both}, {total.mantissa}, {total.shift}) + {output.zero_point}")


def _operands(site: Site) -> tuple[Tensor, Tensor, Tensor]:
    left, right, output = site.input(0), site.input(1), site.output()
    types = (left.dtype, right.dtype, output.dtype)
    require(
        types in (("int8",) * 3, ("int16",) * 3),
        f"types {'/'.join(types)}; int8/int8/int8, int16 and float32 are made",
    )
    for tensor in (left, right, output):
        require(len(tensor.scales) == 1 and tensor.scale > 0, "a tensor without one scale")
        require(tensor.dtype == "int8" or tensor.zero_point == 0, "int16 with a zero point")
        require(tensor.count > 0, "an empty tensor")
    return left, right, output


def _floats(site: Site, sign: str) -> Layer:
    left, right = site.input(0), site.input(1)
    require(left.dtype == right.dtype == "float32", f"types {left.dtype}/{right.dtype}/float32")
    require(min(left.count, right.count, site.output().count) > 0, "an empty tensor")
    low, high = limits_of(site)
    values = {
        "type": "float", "value": "float", "expression": f"LEFT {sign} RIGHT", "end": f"limited(value, {low}, {high})"
    }  # fmt: skip
    return _placed(site, values, ("limited",))


def _layer(site: Site, expression: str) -> Layer:
    output = site.output()
    low, high = activation_range(site.operator, output)
    values = {
        "type": output.c_type, "value": "int32_t", "expression": expression,
        "end": f"({output.c_type})clamped(value, {low}, {high})",
    }  # fmt: skip
    return _placed(site, values, ("scaled", "clamped"))


def _placed(site: Site, values: dict[str, str], needs: tuple[str, ...]) -> Layer:
    """Return the layer with a flat loop where no operand repeats along an axis, else with one loop for each axis."""
    left, right, output = site.input(0), site.input(1), site.output()
    if not all(one.count in (1, output.count) for one in (left, right)):
        value = values["expression"].replace("LEFT", "a").replace("RIGHT", "b")
        lines = [f"const {values['value']} value = {value};"]
        return spread(site, [left, right], values["end"], lines=lines, needs=needs)
    at = ["[i]" if one.count == output.count else "[0]" for one in (left, right)]
    flat = values["expression"].replace("LEFT", f"left{at[0]}").replace("RIGHT", f"right{at[1]}")
    return Layer(
        operator=site.operator,
        text=render(_FLAT, values | {"flat": flat}),
        arguments=(str(output.count),),
        reads=(left.index, right.index),
        writes=(output.index,),
        in_place=tuple(
            position
            for position, one in enumerate((left, right))
            if one.count == output.count and one.value is None
        ),
        needs=needs,
        by_rows=value_by_value(output, (left, right)),
    )
