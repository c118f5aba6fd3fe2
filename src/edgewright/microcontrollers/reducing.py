"""Means over axes."""

from __future__ import annotations

import numpy as np

from edgewright.microcontrollers.fixed_point import multiplier_of
from edgewright.microcontrollers.graph import LIMITS
from edgewright.microcontrollers.layer import Layer, Site, render, require
from edgewright.microcontrollers.shaping import axis_of, constant_integers, strides

_MEAN = """\
static void @(const {{ type }} *in, {{ type }} *out)
{
    int32_t {% for axis in kept + gone %}i{{ axis.index }}{{ ", " if not loop.last }}{% endfor %};
{% for axis in kept %}
{{ "    " * loop.index }}for (i{{ axis.index }} = 0; i{{ axis.index }} < {{ axis.size }}; ++i{{ axis.index }}) {
{% endfor %}
    {
        const {{ type }} *from = in{% for axis in kept %} + i{{ axis.index }} * {{ axis.step }}{% endfor %};
        {{ "float" if is_float else "int32_t" }} sum = 0;
{% for axis in gone %}
        for (i{{ axis.index }} = 0; i{{ axis.index }} < {{ axis.size }}; ++i{{ axis.index }}) {
{% endfor %}
            sum += from[{{ at }}];
{% for axis in gone %}
        }
{% endfor %}
{% if is_float %}
        *out++ = sum / {{ count }}.0f;
{% else %}
        sum = scaled(sum - ({{ offset }}), {{ mantissa }}, {{ shift }}) + ({{ zero }});
        *out++ = ({{ type }})clamped(sum, {{ low }}, {{ high }});
{% endif %}
    }
{% for axis in kept %}
{{ "    " * (kept | length - loop.index0) }}}
{% endfor %}
}
"""


def mean(site: Site) -> Layer:
    """Return MEAN of int8, int16 or float32 over constant axes."""
    source, output = site.input(0), site.output()
    is_float = source.dtype == output.dtype == "float32"
    require(
        is_float or (source.dtype == output.dtype and source.dtype in ("int8", "int16")),
        f"types {source.dtype}/{output.dtype}; int8, int16 and float32 are made",
    )
    require(is_float or len(source.scales) == len(output.scales) == 1, "an input or output without one scale")
    rank = len(source.shape)
    axes = {axis_of(axis, rank) for axis in constant_integers(site, 1)}
    require(bool(axes) and source.count > 0, "no axis, or an empty tensor")
    require(
        output.count == int(np.prod([s for i, s in enumerate(source.shape) if i not in axes])),
        "a wrong output shape",
    )
    steps = strides(source.shape)
    described = [{"index": i, "size": size, "step": steps[i]} for i, size in enumerate(source.shape)]
    gone = [one for one in described if one["index"] in axes]
    count = int(np.prod([one["size"] for one in gone]))
    require(count < (1 << 23 if source.dtype == "int8" else 1 << 15), f"a mean over {count} values")
    values: dict[str, object] = {
        "kept": [one for one in described if one["index"] not in axes], "gone": gone, "count": count,
        "at": " + ".join(f"i{one['index']} * {one['step']}" for one in gone),
        "type": output.c_type, "is_float": is_float,
    }  # fmt: skip
    if not is_float:
        by = multiplier_of(source.scale / output.scale)
        # The division by the count goes into the mantissa, which keeps the bits of the largest power of two in it.
        places = min(count.bit_length() - 1, 31 + by.shift)
        mantissa, shift = (by.mantissa << places) // count, by.shift - places
        require(by.shift <= 8 and shift >= -31, f"scales {source.scale:g} and {output.scale:g}")
        values |= {
            "offset": source.zero_point * count, "mantissa": mantissa, "shift": shift, "zero": output.zero_point,
            "low": LIMITS[output.dtype][0], "high": LIMITS[output.dtype][1],
        }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_MEAN, values),
        reads=(source.index,),
        writes=(output.index,),
        needs=() if is_float else ("scaled", "clamped"),
    )
