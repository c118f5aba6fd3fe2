"""Average and maximum over windows."""

from __future__ import annotations

from edgewright.microcontrollers.convolution import by_window, row_arguments, window_of
from edgewright.microcontrollers.fixed_point import activation_range
from edgewright.microcontrollers.graph import LIMITS
from edgewright.microcontrollers.layer import Layer, Site, float_literal, render, require
from edgewright.microcontrollers.shaping import same_scheme
from edgewright.microcontrollers.sums import LARGEST_FLOAT, limits_of

_POOL = """\
static void @(const {{ type }} *in, {{ type }} *out, int32_t first, int32_t last, int32_t in_rows)
{
    const {{ type }} *end;
    int32_t n, y, x, c, i, j;
    for (n = 0; n < {{ batch }}; ++n, in += {{ height * width * depth }}) {
        end = in + in_rows * {{ width * depth }};
        for (y = first; y < last; ++y) {
            const int32_t top = y * {{ stride_y }} - {{ pad_y }};
            const int32_t first_row = top < 0 ? 0 : top;
            const int32_t last_row = top + {{ kernel_y }} > {{ height }} ? {{ height }} : top + {{ kernel_y }};
            const {{ type }} *const line = in + first_row % in_rows * {{ width * depth }};
            for (x = 0; x < {{ out_width }}; ++x) {
                const int32_t left = x * {{ stride_x }} - {{ pad_x }};
                const int32_t begin = left < 0 ? 0 : left;
                const int32_t stop = left + {{ kernel_x }} > {{ width }} ? {{ width }} : left + {{ kernel_x }};
{% if is_average %}
                const int32_t count = (last_row - first_row) * (stop - begin);
{% endif %}
                for (c = 0; c < {{ depth }}; ++c) {
                    {{ value }} value = {{ first }};
                    const {{ type }} *row = line + c;
                    for (i = first_row; i < last_row; ++i) {
                        for (j = begin; j < stop; ++j) {
{% if is_average %}
                            value += row[j * {{ depth }}];
{% else %}
                            value = row[j * {{ depth }}] > value ? row[j * {{ depth }}] : value;
{% endif %}
                        }
                        row += {{ width * depth }};
                        if (row >= end) {
                            row -= in_rows * {{ width * depth }};
                        }
                    }
{% if is_average %}
                    value = {{ "value / (float)count" if type == "float" else
                        "(value > 0 ? value + count / 2 : value - count / 2) / count" }};
{% endif %}
                    *out++ = {{ end }};
                }
            }
        }
    }
}
"""


def average_pool(site: Site) -> Layer:
    """Return AVERAGE_POOL_2D of int8 or float32."""
    return _pool(site, is_average=True)


def max_pool(site: Site) -> Layer:
    """Return MAX_POOL_2D of int8 or float32."""
    return _pool(site, is_average=False)


def _pool(site: Site, *, is_average: bool) -> Layer:
    image, output = site.input(0), site.output()
    is_float = image.dtype == output.dtype == "float32"
    require(
        is_float or (image.dtype == output.dtype and image.dtype in ("int8", "int16")),
        f"types {image.dtype}/{output.dtype}; int8, int16 and float32 are made",
    )
    require(len(image.shape) == len(output.shape) == 4, "a rank other than 4")
    require(is_float or same_scheme(image, output), "an output whose quantization is not the input's")
    require(is_float or image.is_quantized, "an input without one scale")
    require(image.shape[0] == output.shape[0] and image.shape[3] == output.shape[3], "a wrong output shape")
    require(image.count > 0, "an empty tensor")
    kernel_y, kernel_x = site.operator.integer("FilterHeight"), site.operator.integer("FilterWidth")
    tall = window_of(site, 0, kernel=kernel_y, size=image.shape[1], out_size=output.shape[1])
    wide = window_of(site, 1, kernel=kernel_x, size=image.shape[2], out_size=output.shape[2])
    require(kernel_y * kernel_x < 1 << 15, "a window whose sum can leave 32 bits")
    if is_float:
        low, high = limits_of(site)
        first, end = float_literal(0.0 if is_average else -LARGEST_FLOAT), f"limited(value, {low}, {high})"
    else:
        least, most = activation_range(site.operator, output)
        lowest = LIMITS[output.dtype][0]
        first, end = "0" if is_average else str(lowest), f"({output.c_type})clamped(value, {least}, {most})"
    values: dict[str, object] = {
        "batch": image.shape[0], "depth": image.shape[3], "height": tall.size,
        "width": wide.size, "out_height": tall.out_size, "out_width": wide.out_size, "kernel_y": kernel_y,
        "kernel_x": kernel_x, "stride_y": tall.stride, "stride_x": wide.stride, "pad_y": tall.pad,
        "pad_x": wide.pad, "is_average": is_average, "first": first, "end": end,
        "type": output.c_type, "value": "float" if is_float else "int32_t",
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_POOL, values),
        arguments=row_arguments(tall),
        reads=(image.index,),
        writes=(output.index,),
        needs=("limited" if is_float else "clamped",),
        by_rows=by_window(image.shape[0], tall),
    )
