"""Operators of two or more tensors, value by value, with broadcasting: minimum, PReLU, comparisons and the like.

Source: LiteRT 8-bit quantization specification; what it leaves open is the interpreter's arithmetic, on integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgewright.microcontrollers.fixed_point import Multiplier, multiplier_of
from edgewright.microcontrollers.graph import LIMITS, Tensor
from edgewright.microcontrollers.layer import Layer, Site, render, require
from edgewright.microcontrollers.shaping import same_scheme
from edgewright.microcontrollers.sums import limits_of

_MAX_RANK = 8
_NAMES = ("a", "b", "c")
# How much finer than the inputs differences are taken.
_FINER_BITS = {"int8": 7, "int16": 0}

_VALUES = """\
static void @({% for one in operands %}const {{ one.c_type }} *in{{ loop.index0 }}, {% endfor %}{{ c_type }} *out)
{
    int32_t {% for axis in axes %}i{{ loop.index0 }}{{ ", " if not loop.last }}{% endfor %};
{% for axis in axes %}
{{ "    " * loop.index }}for (i{{ loop.index0 }} = 0; i{{ loop.index0 }} < {{ axis }}; ++i{{ loop.index0 }}) {
{% endfor %}
{% for one in operands %}
        const {{ one.c_type }} {{ one.name }} = in{{ loop.index0 }}[{{ one.at }}];
{% endfor %}
{% for line in lines %}
        {{ line }}
{% endfor %}
        *out++ = {{ result }};
{% for axis in axes %}
{{ "    " * (axes | length - loop.index0) }}}
{% endfor %}
}
"""


def maximum(site: Site) -> Layer:
    """Return MAXIMUM of tensors of one type and one scale."""
    return _extreme(site, ">")


def minimum(site: Site) -> Layer:
    """Return MINIMUM of tensors of one type and one scale."""
    return _extreme(site, "<")


def _extreme(site: Site, sign: str) -> Layer:
    operands = [site.input(0), site.input(1)]
    _one_type(site, operands, ("int8", "int16", "int32", "float32"))
    for tensor in operands:
        require(same_scheme(tensor, site.output()), "inputs whose quantization is not the output's")
    return spread(site, operands, f"a {sign} b ? a : b")


def squared_difference(site: Site) -> Layer:
    """Return SQUARED_DIFFERENCE of int8, int16 or float32."""
    operands = [site.input(0), site.input(1)]
    _one_type(site, operands, ("int8", "int16", "float32"))
    output = site.output()
    if output.dtype == "float32":
        return spread(site, operands, "difference * difference", lines=["const float difference = a - b;"])
    _one_scale([*operands, output])
    left, right = operands
    # The interpreter compares the scales in float32, and multiplies the output's by a power of two there, too.
    common = 2 * max(left.scale, right.scale)
    bits = _FINER_BITS[output.dtype]
    factors = [multiplier_of(one.scale / common) for one in operands]
    total = multiplier_of(common * common / (2 ** (2 * bits) * output.scale))
    require(total.shift <= 0, "an output scale that is far too small")
    terms = [
        f"scaled(({offset_of(name, one)}) * {2**bits}, {by.mantissa}, {by.shift})"
        for name, one, by in zip("ab", operands, factors, strict=True)
    ]
    low, high = LIMITS[output.dtype]
    lines = [
        f"const int32_t difference = {terms[0]} - {terms[1]};",
        f"const int32_t value = scaled(difference * difference, {total.mantissa}, {total.shift});",
    ]
    result = f"({output.c_type})clamped(value + ({output.zero_point}), {low}, {high})"
    return spread(site, operands, result, lines=lines, needs=("scaled", "clamped"))


def prelu(site: Site) -> Layer:
    """Return PRELU of int8, int16 with slopes of int8, or float32."""
    source, slope, output = site.input(0), site.input(1), site.output()
    types = (source.dtype, slope.dtype, output.dtype)
    known = (("float32",) * 3, ("int8",) * 3, ("int16", "int8", "int16"))
    require(types in known, f"types {'/'.join(types)}; int8, int16/int8/int16 and float32 are made")
    if output.dtype == "float32":
        return spread(site, [source, slope], "a >= 0.0f ? a : a * b")
    _one_scale([source, slope, output])
    above = _bounded(source.scale / output.scale, 14)
    below = _bounded(source.scale * slope.scale / output.scale, 6)
    low, high = LIMITS[output.dtype]
    lines = [
        f"int32_t value = {offset_of('a', source)};",
        f"value = value >= 0 ? scaled(value, {above.mantissa}, {above.shift})",
        f"                   : scaled(value * ({offset_of('b', slope)}), {below.mantissa}, {below.shift});",
    ]
    result = f"({output.c_type})clamped(value + ({output.zero_point}), {low}, {high})"
    return spread(site, [source, slope], result, lines=lines, needs=("scaled", "clamped"))


def divide(site: Site) -> Layer:
    """Return DIV of float32."""
    operands = [site.input(0), site.input(1)]
    _one_type(site, operands, ("float32",))
    low, high = limits_of(site)
    return spread(site, operands, f"limited(a / b, {low}, {high})", needs=("limited",))


def select(site: Site) -> Layer:
    """Return SELECT_V2: a value of the second or of the third tensor."""
    operands = [site.input(position) for position in range(3)]
    output = site.output()
    require(operands[0].dtype == "bool", f"a condition of {operands[0].dtype}")
    _one_type(site, operands[1:], ("int8", "int16", "int32", "float32"))
    for tensor in operands[1:]:
        require(same_scheme(tensor, output), "inputs whose quantization is not the output's")
    return spread(site, operands, "a ? b : c")


def logical(site: Site) -> Layer:
    """Return LOGICAL_AND or LOGICAL_OR."""
    operands = [site.input(0), site.input(1)]
    _one_type(site, operands, ("bool",))
    sign = {"LOGICAL_AND": "&&", "LOGICAL_OR": "||"}[site.operator.name]
    return spread(site, operands, f"(uint8_t)(a {sign} b)")


def compare(site: Site) -> Layer:
    """Return EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER or GREATER_EQUAL of tensors of one type."""
    operands = [site.input(0), site.input(1)]
    sign = _COMPARISONS[site.operator.name]
    dtype = operands[0].dtype
    require(operands[1].dtype == dtype, f"types {dtype}/{operands[1].dtype}")
    require(site.output().dtype == "bool", f"an output of {site.output().dtype}")
    require(dtype in ("int8", "int32", "float32"), f"type {dtype}; int8, int32 and float32 are made")
    if dtype == "int8":
        _one_scale(operands)
        factors = [_bounded(one.scale, 0) for one in operands]
        left, right = (
            f"scaled(({offset_of(name, one)}) * 256, {by.mantissa}, {by.shift})"
            for name, one, by in zip("ab", operands, factors, strict=True)
        )
        return spread(site, operands, f"(uint8_t)({left} {sign} {right})", needs=("scaled",))
    return spread(site, operands, f"(uint8_t)(a {sign} b)")


_COMPARISONS: Mapping[str, str] = {
    "EQUAL": "==", "NOT_EQUAL": "!=", "LESS": "<", "LESS_EQUAL": "<=", "GREATER": ">", "GREATER_EQUAL": ">="
}  # fmt: skip


def spread(
    site: Site,
    operands: Sequence[Tensor],
    result: str,
    *,
    lines: Sequence[str] = (),
    needs: tuple[str, ...] = (),
) -> Layer:
    """Return the layer that computes `result` of a, b, ... for every value of the output.

    Args:
        lines: statements before, on the same names.
    """
    output = site.output()
    require(min(output.count, *(one.count for one in operands)) > 0, "an empty tensor")
    axes, steps = _axes(operands, output)
    described = [
        {
            "c_type": one.c_type,
            "name": name,
            "at": " + ".join(
                f"i{axis}" if step == 1 else f"i{axis} * {step}" for axis, step in enumerate(own) if step
            ) or "0",
        }
        for name, one, own in zip(_NAMES, operands, steps, strict=False)
    ]  # fmt: skip
    values: dict[str, object] = {
        "operands": described, "c_type": output.c_type, "axes": axes, "lines": lines, "result": result
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_VALUES, values),
        reads=tuple(one.index for one in operands),
        writes=(output.index,),
        in_place=tuple(
            position
            for position, one in enumerate(operands)
            if one.count == output.count and one.value is None and one.size_bytes == output.size_bytes
            and one.dtype == output.dtype
        ),
        needs=needs,
    )  # fmt: skip


def _axes(operands: Sequence[Tensor], output: Tensor) -> tuple[list[int], list[list[int]]]:
    """Return the sizes of the loops, and for each operand its steps; a step of 0 repeats it.

    Neighbouring axes along which every operand goes on, or repeats, are one loop.
    """
    rank = len(output.shape)
    require(rank <= _MAX_RANK, f"rank {rank}; up to {_MAX_RANK} is made")
    steps = []
    for operand in operands:
        require(len(operand.shape) <= rank, "an operand of higher rank than the output")
        shape = (1,) * (rank - len(operand.shape)) + operand.shape
        fits = all(have in (1, want) for have, want in zip(shape, output.shape, strict=True))
        require(fits, f"a shape {list(operand.shape)} for {list(output.shape)}")
        step, found = 1, []
        for size in reversed(shape):
            found.append(step if size > 1 else 0)
            step *= size
        steps.append(found[::-1])
    sizes: list[int] = []
    merged: list[list[int]] = [[] for _ in operands]
    for axis, size in enumerate(output.shape):
        if size == 1:
            continue
        goes_on = bool(sizes) and all(
            own[-1] == here[axis] * size for own, here in zip(merged, steps, strict=True)
        )
        if goes_on:
            sizes[-1] *= size
            for own, here in zip(merged, steps, strict=True):
                own[-1] = here[axis]
        else:
            sizes.append(size)
            for own, here in zip(merged, steps, strict=True):
                own.append(here[axis])
    if not sizes:
        return [1], [[0] for _ in operands]
    return sizes, merged


def _one_type(site: Site, operands: Sequence[Tensor], known: tuple[str, ...]) -> None:
    types = [tensor.dtype for tensor in (*operands, site.output())]
    require(
        len(set(types)) == 1 and types[0] in known,
        f"types {'/'.join(types)}; {', '.join(known)} {'is' if len(known) == 1 else 'are'} made",
    )


def _one_scale(tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        require(len(tensor.scales) == 1 and tensor.scale > 0, "a tensor without one scale")
        require(tensor.dtype != "int16" or tensor.zero_point == 0, "int16 with a zero point")
        low, high = LIMITS[tensor.dtype]
        require(low <= tensor.zero_point <= high, f"a zero point {tensor.zero_point}")


def _bounded(factor: float, shift: int) -> Multiplier:
    by = multiplier_of(factor)
    require(by.shift <= shift, "an output scale that is far too small")
    return by


def offset_of(name: str, tensor: Tensor) -> str:
    """Return the value called `name` less the zero point, as C."""
    zero = tensor.zero_point
    return f"{name} {'-' if zero >= 0 else '+'} {abs(zero)}" if zero else name
