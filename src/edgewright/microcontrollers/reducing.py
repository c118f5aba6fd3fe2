"""Means, sums and extremes over constant axes, and where the largest or smallest value is."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from edgewright.microcontrollers.fixed_point import multiplier_of
from edgewright.microcontrollers.graph import LIMITS, Tensor
from edgewright.microcontrollers.layer import Layer, Site, render, require
from edgewright.microcontrollers.shaping import axis_of, constant_integers, same_scheme, strides

_REDUCED = """\
static void @(const {{ type }} *in, {{ type }} *out)
{
    int32_t {% for axis in kept + gone %}i{{ axis.index }}{{ ", " if not loop.last }}{% endfor %};
{% for axis in kept %}
{{ "    " * loop.index }}for (i{{ axis.index }} = 0; i{{ axis.index }} < {{ axis.size }}; ++i{{ axis.index }}) {
{% endfor %}
    {
        const {{ type }} *from = in{% for axis in kept %} + i{{ axis.index }} * {{ axis.step }}{% endfor %};
        {{ value }} value = {{ first }};
{% for axis in gone %}
        for (i{{ axis.index }} = 0; i{{ axis.index }} < {{ axis.size }}; ++i{{ axis.index }}) {
{% endfor %}
            {{ step }}
{% for axis in gone %}
        }
{% endfor %}
{% for line in end %}
        {{ line }}
{% endfor %}
    }
{% for axis in kept %}
{{ "    " * (kept | length - loop.index0) }}}
{% endfor %}
}
"""
_ARGUMENT = """\
static void @(const {{ type }} *in, int32_t *out)
{
    int32_t n, c, i;
    for (n = 0; n < {{ outer }}; ++n, in += {{ size * inner }}) {
        for (c = 0; c < {{ inner }}; ++c) {
            int32_t best = 0;
            for (i = 1; i < {{ size }}; ++i) {
                best = in[i * {{ inner }} + c] {{ sign }} in[best * {{ inner }} + c] ? i : best;
            }
            *out++ = best;
        }
    }
}
"""


def mean(site: Site) -> Layer:
    """Return MEAN of int8, int16 or float32 over constant axes."""
    return _summed(site, is_mean=True)


def sum_(site: Site) -> Layer:
    """Return SUM of int8, int16 or float32 over constant axes."""
    return _summed(site, is_mean=False)


def reduce_max(site: Site) -> Layer:
    """Return REDUCE_MAX of int8 or float32 over constant axes."""
    return _extreme(site, ">")


def reduce_min(site: Site) -> Layer:
    """Return REDUCE_MIN of int8 or float32 over constant axes."""
    return _extreme(site, "<")


def arg_max(site: Site) -> Layer:
    """Return ARG_MAX of int8 or float32 along a constant axis; the first of equal values."""
    return _argument(site, ">")


def arg_min(site: Site) -> Layer:
    """Return ARG_MIN of int8 or float32 along a constant axis; the first of equal values."""
    return _argument(site, "<")


def _summed(site: Site, *, is_mean: bool) -> Layer:
    source, output = _ends(site, ("int8", "int16", "float32"))
    loops, count = _loops(site, source, output)
    from_ = f"from[{loops['at']}]"
    if source.dtype == "float32":
        end = f"*out++ = value / {count}.0f;" if is_mean else "*out++ = value;"
        values = {"value": "float", "first": "0", "step": f"value += {from_};", "end": [end]}
        return _layer(site, loops | values, ())
    require(len(source.scales) == len(output.scales) == 1, "an input or output without one scale")
    require(source.dtype == "int8" or source.zero_point == output.zero_point == 0, "int16 with a zero point")
    require(count < (1 << 23 if source.dtype == "int8" else 1 << 15), f"a mean or sum of {count} values")
    by = multiplier_of(source.scale / output.scale)
    mantissa, shift = by.mantissa, by.shift
    if is_mean:
        # The division by the count goes into the mantissa, which keeps the bits of the largest power of two in it.
        places = min(count.bit_length() - 1, 31 + by.shift)
        mantissa, shift = (by.mantissa << places) // count, by.shift - places
    span = 1 << (8 if source.dtype == "int8" else 16)
    fits = (count * span) << max(shift, 0) < 1 << 31
    require(fits and by.shift <= 8 and shift >= -31, f"scales {source.scale:g} and {output.scale:g}")
    low, high = LIMITS[output.dtype]
    end = (
        f"value = scaled(value - ({source.zero_point * count}), {mantissa}, {shift}) + ({output.zero_point});"
    )
    values = {
        "value": "int32_t", "first": "0", "step": f"value += {from_};",
        "end": [end, f"*out++ = ({output.c_type})clamped(value, {low}, {high});"],
    }  # fmt: skip
    return _layer(site, loops | values, ("scaled", "clamped"))


def _extreme(site: Site, sign: str) -> Layer:
    source, output = _ends(site, ("int8", "float32"))
    require(same_scheme(source, output), "an output whose quantization is not the input's")
    loops, _ = _loops(site, source, output)
    values = {
        "value": source.c_type, "first": "from[0]", "end": ["*out++ = value;"],
        "step": f"value = from[{loops['at']}] {sign} value ? from[{loops['at']}] : value;",
    }  # fmt: skip
    return _layer(site, loops | values, ())


def _argument(site: Site, sign: str) -> Layer:
    source, output = site.input(0), site.output()
    require(source.dtype in ("int8", "float32"), f"type {source.dtype}; int8 and float32 are made")
    require(output.dtype == "int32", f"an output of {output.dtype}; int32 is made")
    axes = constant_integers(site, 1)
    require(len(axes) == 1, "more than one axis")
    axis = axis_of(axes[0], len(source.shape))
    size = source.shape[axis]
    outer, inner = prod(source.shape[:axis]), prod(source.shape[axis + 1 :])
    require(source.count > 0 and output.count == outer * inner, "a wrong output shape")
    values: dict[str, object] = {
        "type": source.c_type, "outer": outer, "inner": inner, "size": size, "sign": sign
    }  # fmt: skip
    return Layer(
        operator=site.operator, text=render(_ARGUMENT, values), reads=(source.index,), writes=(output.index,)
    )


def _ends(site: Site, known: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    source, output = site.input(0), site.output()
    require(
        source.dtype == output.dtype and source.dtype in known,
        f"types {source.dtype}/{output.dtype}; {', '.join(known)} are made",
    )
    return source, output


def _loops(site: Site, source: Tensor, output: Tensor) -> tuple[dict[str, object], int]:
    """Return the loops over axes that stay and axes that go, and how many values become one."""
    rank = len(source.shape)
    axes = {axis_of(axis, rank) for axis in constant_integers(site, 1)}
    require(bool(axes) and source.count > 0, "no axis, or an empty tensor")
    kept_sizes = [size for axis, size in enumerate(source.shape) if axis not in axes]
    require(output.count == prod(kept_sizes), "a wrong output shape")
    steps = strides(source.shape)
    described = [{"index": i, "size": size, "step": steps[i]} for i, size in enumerate(source.shape)]
    gone = [one for one in described if one["index"] in axes]
    loops: dict[str, object] = {
        "kept": [one for one in described if one["index"] not in axes], "gone": gone, "type": output.c_type,
        "at": " + ".join(f"i{one['index']} * {one['step']}" for one in gone),
    }  # fmt: skip
    return loops, prod(one["size"] for one in gone)


def _layer(site: Site, values: Mapping[str, object], needs: tuple[str, ...]) -> Layer:
    return Layer(
        operator=site.operator,
        text=render(_REDUCED, values),
        reads=(site.input(0).index,),
        writes=(site.output().index,),
        needs=needs,
    )
