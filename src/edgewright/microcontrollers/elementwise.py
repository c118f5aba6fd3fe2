"""Operators of two tensors, value by value, with broadcasting.

Source: LiteRT 8-bit quantization specification (ADD, SUB, MUL). Sums are taken 20 bits (int16: 15) finer than the
inputs, on a common scale of twice the larger one.
"""

from __future__ import annotations

from edgewright.microcontrollers.fixed_point import Multiplier, activation_range, multiplier_of
from edgewright.microcontrollers.graph import Tensor
from edgewright.microcontrollers.layer import ByRows, Layer, Site, render, require, value_by_value
from edgewright.microcontrollers.sums import limits_of

_MAX_RANK = 6
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

_BROADCAST = """\
static void @(const {{ type }} *left, const {{ type }} *right, {{ type }} *out)
{
    int32_t {% for axis in axes %}i{{ loop.index0 }}{{ ", " if not loop.last }}{% endfor %};
{% for axis in axes %}
{{ "    " * loop.index }}for (i{{ loop.index0 }} = 0; i{{ loop.index0 }} < {{ axis.size }}; ++i{{ loop.index0 }}) {
{% endfor %}
        const {{ type }} *a = left{{ at_left }};
        const {{ type }} *b = right{{ at_right }};
        const {{ value }} value = {{ spread }};
        *out++ = {{ end }};
{% for axis in axes %}
{{ "    " * (axes | length - loop.index0) }}}
{% endfor %}
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
    product = f"({_offset('LEFT', left)}) * ({_offset('RIGHT', right)})"
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
        return f"scaled(({_offset(name, tensor)}) * {2**finer_bits}, {by.mantissa}, {by.shift})"

    both = f"{finer('LEFT', left, factors[0])} {sign} {finer('RIGHT', right, factors[1])}"
    return _layer(site, f"scaled({both}, {total.mantissa}, {total.shift}) + {output.zero_point}")


def _offset(name: str, tensor: Tensor) -> str:
    zero = tensor.zero_point
    return f"{name} {'-' if zero >= 0 else '+'} {abs(zero)}" if zero else name


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
    values: dict[str, object] = {
        "type": "float", "value": "float", "expression": f"LEFT {sign} RIGHT", "end": f"limited(value, {low}, {high})"
    }  # fmt: skip
    return _placed(site, values, ("limited",))


def _layer(site: Site, expression: str) -> Layer:
    output = site.output()
    low, high = activation_range(site.operator, output)
    values: dict[str, object] = {
        "type": output.c_type, "value": "int32_t", "expression": expression,
        "end": f"({output.c_type})clamped(value, {low}, {high})",
    }  # fmt: skip
    return _placed(site, values, ("scaled", "clamped"))


def _placed(site: Site, values: dict[str, object], needs: tuple[str, ...]) -> Layer:
    """Return the layer with flat loops where no operand repeats along an axis, else with one loop for each axis."""
    left, right, output = site.input(0), site.input(1), site.output()
    in_place = tuple(
        position
        for position, one in enumerate((left, right))
        if one.count == output.count and one.value is None
    )
    expression = str(values["expression"])
    arguments: tuple[str, ...] = ()
    by_rows: ByRows | None = None
    if all(one.count in (1, output.count) for one in (left, right)):
        at = ["[i]" if one.count == output.count else "[0]" for one in (left, right)]
        flat = expression.replace("LEFT", f"left{at[0]}").replace("RIGHT", f"right{at[1]}")
        text = render(_FLAT, values | {"flat": flat})
        arguments, by_rows = (str(output.count),), value_by_value(output, (left, right))
    else:
        axes = _axes(left, right, output)
        spread = expression.replace("LEFT", "*a").replace("RIGHT", "*b")
        values |= {"axes": axes, "spread": spread}
        for side in ("left", "right"):
            values[f"at_{side}"] = "".join(f" + i{one['index']} * {one[side]}" for one in axes if one[side])
        text = render(_BROADCAST, values)
    return Layer(
        operator=site.operator,
        text=text,
        arguments=arguments,
        reads=(left.index, right.index),
        writes=(output.index,),
        in_place=in_place,
        needs=needs,
        by_rows=by_rows,
    )


def _axes(left: Tensor, right: Tensor, output: Tensor) -> list[dict[str, int]]:
    """Return size and steps of every axis of the output; a step of 0 repeats the operand."""
    rank = len(output.shape)
    require(rank <= _MAX_RANK, f"broadcasting of rank {rank}; up to {_MAX_RANK} is made")
    steps = []
    for operand in (left, right):
        require(len(operand.shape) <= rank, "an operand of higher rank than the output")
        shape = (1,) * (rank - len(operand.shape)) + operand.shape
        fits = all(have in (1, want) for have, want in zip(shape, output.shape, strict=True))
        require(fits, f"shapes {list(left.shape)} and {list(right.shape)} for {list(output.shape)}")
        step, found = 1, []
        for size in reversed(shape):
            found.append(step if size > 1 else 0)
            step *= size
        steps.append(found[::-1])
    return [
        {"index": axis, "size": size, "left": steps[0][axis], "right": steps[1][axis]}
        for axis, size in enumerate(output.shape)
    ]
