"""Average and maximum over windows."""

from __future__ import annotations

from edgewright.microcontrollers.convolution import window_of
from edgewright.microcontrollers.fixed_point import activation_range
from edgewright.microcontrollers.layer import Layer, Site, render, require

_POOL = """\
static void @(const int8_t *in, int8_t *out)
{
    int32_t n, y, x, c, i, j;
    for (n = 0; n < {{ batch }}; ++n) {
        for (y = 0; y < {{ out_height }}; ++y) {
            const int32_t top = y * {{ stride_y }} - {{ pad_y }};
            const int32_t first_row = top < 0 ? 0 : top;
            const int32_t last_row = top + {{ kernel_y }} > {{ height }} ? {{ height }} : top + {{ kernel_y }};
            for (x = 0; x < {{ out_width }}; ++x) {
                const int32_t left = x * {{ stride_x }} - {{ pad_x }};
                const int32_t first = left < 0 ? 0 : left;
                const int32_t last = left + {{ kernel_x }} > {{ width }} ? {{ width }} : left + {{ kernel_x }};
{% if is_average %}
                const int32_t count = (last_row - first_row) * (last - first);
{% endif %}
                for (c = 0; c < {{ depth }}; ++c) {
                    int32_t value = {{ 0 if is_average else -128 }};
                    for (i = first_row; i < last_row; ++i) {
                        const int8_t *row = in + ((n * {{ height }} + i) * {{ width }}) * {{ depth }} + c;
                        for (j = first; j < last; ++j) {
{% if is_average %}
                            value += row[j * {{ depth }}];
{% else %}
                            value = row[j * {{ depth }}] > value ? row[j * {{ depth }}] : value;
{% endif %}
                        }
                    }
{% if is_average %}
                    value = (value > 0 ? value + count / 2 : value - count / 2) / count;
{% endif %}
                    *out++ = (int8_t)clamped(value, {{ low }}, {{ high }});
                }
            }
        }
    }
}
"""


def average_pool(site: Site) -> Layer:
    """Return AVERAGE_POOL_2D of int8."""
    return _pool(site, is_average=True)


def max_pool(site: Site) -> Layer:
    """Return MAX_POOL_2D of int8."""
    return _pool(site, is_average=False)


def _pool(site: Site, *, is_average: bool) -> Layer:
    image, output = site.input(0), site.output()
    require(image.dtype == output.dtype == "int8", f"types {image.dtype}/{output.dtype}; int8/int8 is made")
    require(len(image.shape) == len(output.shape) == 4, "a rank other than 4")
    require(len(image.scales) == 1 and len(output.scales) == 1, "an input or output without one scale")
    require(
        image.scale == output.scale and image.zero_point == output.zero_point,
        "an output whose quantization is not the input's",
    )
    require(image.shape[0] == output.shape[0] and image.shape[3] == output.shape[3], "a wrong output shape")
    require(image.count > 0, "an empty tensor")
    kernel_y, kernel_x = site.operator.integer("FilterHeight"), site.operator.integer("FilterWidth")
    tall = window_of(site, 0, kernel=kernel_y, size=image.shape[1], out_size=output.shape[1])
    wide = window_of(site, 1, kernel=kernel_x, size=image.shape[2], out_size=output.shape[2])
    require(kernel_y * kernel_x < 1 << 23, "a window whose sum can leave 32 bits")
    try:
        low, high = activation_range(site.operator, output)
    except ValueError as err:
        require(False, str(err))
        raise
    values: dict[str, object] = {
        "batch": image.shape[0], "depth": image.shape[3], "height": tall.size,
        "width": wide.size, "out_height": tall.out_size, "out_width": wide.out_size, "kernel_y": kernel_y,
        "kernel_x": kernel_x, "stride_y": tall.stride, "stride_x": wide.stride, "pad_y": tall.pad,
        "pad_x": wide.pad, "is_average": is_average, "low": low, "high": high,
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_POOL, values),
        reads=(image.index,),
        writes=(output.index,),
        needs=("clamped",),
    )
