"""Depthwise convolutions: pointers to the pixels under the window, and one pixel of all channels at a time.

Their sizes lie in a table, so that layers share their code. Pointers to the first windows serve for all that lie within
the image; pixels over its edge are those of a border of zero points. Rows are made as in `convolution`.
Source: LiteRT 8-bit quantization specification (DEPTHWISE_CONV_2D).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgewright.microcontrollers.convolution import (
    MOST_LINES,
    POINTER_BYTES,
    by_window,
    convolution_with,
    lines_of,
    row_arguments,
    window_of,
    window_values,
)
from edgewright.microcontrollers.graph import ITEM_BYTES, Tensor
from edgewright.microcontrollers.layer import (
    STACK_BUFFER_BYTES,
    Layer,
    Site,
    integers,
    render,
    require,
    shared_bytes,
)
from edgewright.microcontrollers.sums import sums_of
from edgewright.microcontrollers.taps import CHANNELS, depthwise_taps, suffix

_DEPTHWISE = """\
/* `window`: {{ sizes }}. */
static void @(const {{ type }} *in, {{ type }} *out{{ ", int8_t *scratch" if scratch }},
    {{ tables }}, const {{ size_type }} *window, int32_t first, int32_t last, int32_t in_rows)
{
    const {{ type }} *lines[{{ kernel_y }}], *tap[{{ taps }}];
{% if scratch %}
    {{ type }} *const border = ({{ type }} *)(void *)scratch;
{% elif border %}
    {{ type }} border[{{ border }}];
{% endif %}
    const int32_t height = window[0], width = window[1], depth = window[2], line = width * depth;
    int32_t n, y, x, i, j, at{{ ", c, t" if not suffix }};
{% if multiplier > 1 %}
    int32_t m;
{% endif %}
{% if border %}
    memset(border, {{ zero }}, (size_t)depth * sizeof *border);
{% endif %}
    for (n = 0; n < {{ batch }}; ++n, in += height * line) {
        for (y = first; y < last; ++y) {
            int32_t left = -window[7], is_ready = 0{{ ", is_inside = 1" if border }};
{{ lines }}            for (x = window[3]; x > 0; --x, left += window[6]) {
{% if border %}
                const int32_t is_whole = is_inside && left >= 0 && left <= width - {{ reach }};
{% else %}
                const int32_t is_whole = 1;
{% endif %}
                /* Pointers to the first pixels serve for all windows that lie within the image. */
                if (!is_whole || !is_ready) {
                    const {{ type }} **to = tap;
                    for (i = 0; i < {{ kernel_y }}; ++i) {
                        int32_t column = is_whole ? 0 : left;
                        for (j = 0; j < {{ kernel_x }}; ++j, column += {{ dilation_x }}) {
{% if border %}
                            *to++ = lines[i] == NULL || column < 0 || column >= width ? border
                                                                                      : lines[i] + column * depth;
{% else %}
                            *to++ = lines[i] + column * depth;
{% endif %}
                        }
                    }
                }
                is_ready = is_whole;
                at = is_whole ? left * depth : 0;
{% if suffix %}
                taps{{ suffix }}(tap, at, out, tables, depth);
                out += depth;
{% else %}
                for (c = 0; c < depth; ++c, ++at) {
{% if multiplier > 1 %}
                    for (m = c * {{ multiplier }}; m < (c + 1) * {{ multiplier }}; ++m) {
{% else %}
                    {
                        const int32_t m = c;
{% endif %}
                        const {{ weight_type }} *w = weights + m;
                        {{ begin.replace("#", "m") }}
                        for (t = 0; t < {{ taps }}; ++t, w += depth * {{ multiplier }}) {
                            sum += {{ product % "*w * tap[t][at]" }};
                        }
{% for line in end %}
                        {{ line.replace("#", "m") }}
{% endfor %}
                    }
                }
{% endif %}
            }
        }
    }
}
"""

_SIZES = "height, width, channels; output width; step and padding along y; along x"


def depthwise_convolution(site: Site) -> Layer:
    """Return DEPTHWISE_CONV_2D of int8 or float32."""
    image, weights, output = site.input(0), site.input(1), site.output()
    require(len(image.shape) == len(weights.shape) == len(output.shape) == 4, "a rank other than 4")
    one, kernel_y, kernel_x, channels = weights.shape
    batch, height, width, depth = image.shape
    require(one == 1 and depth > 0 and channels % depth == 0, f"{channels} filters for {depth} channels")
    require(output.shape[3] == channels and output.shape[0] == batch, "a wrong output shape")
    multiplier = site.operator.integer("DepthMultiplier")
    require(
        multiplier * depth == channels, f"a multiplier of {multiplier} for {depth} to {channels} channels"
    )
    if depth == 1 and image.dtype == "int8" and weights.value is not None:
        return _of_one_channel(site, weights)
    tall = window_of(
        site, 0, kernel=kernel_y, size=height, out_size=output.shape[1],
        dilation=site.operator.integer("DilationHFactor"),
    )  # fmt: skip
    wide = window_of(
        site, 1, kernel=kernel_x, size=width, out_size=output.shape[2],
        dilation=site.operator.integer("DilationWFactor"),
    )  # fmt: skip
    require(kernel_y <= MOST_LINES, f"a window of {kernel_y} rows; up to {MOST_LINES} are made")
    sums = sums_of(site, image, weights, output, axis=3, is_depthwise=channels == depth)
    taps, item = kernel_y * kernel_x, ITEM_BYTES[image.dtype]
    border_bytes = _border_bytes(site, depth * item) if tall.is_padded or wide.is_padded else 0
    is_large = border_bytes > STACK_BUFFER_BYTES
    sizes = (
        height, width, depth, output.shape[2], tall.stride, tall.pad, wide.stride, wide.pad,
    )  # fmt: skip
    is_small = max(sizes) < 1 << 16
    # Named by what is in it: layers of the same sizes share it.
    name = "_".join(map(str, (f"{site.prefix}_window", *sizes)))
    window = integers(name, "uint16_t" if is_small else "int32_t", sizes, 2 if is_small else 4)
    values = dict(sums.values) | window_values(tall, wide) | {
        "batch": batch, "taps": taps, "multiplier": channels // depth, "scratch": is_large,
        "border": border_bytes // item, "sizes": _SIZES, "reach": wide.extent, "size_type": window.c_type,
    }  # fmt: skip
    helpers: tuple[str, ...] = ()
    if sums.ending is not None:
        assert weights.value is not None
        matrix = weights.value.reshape(taps, channels)
        values["suffix"] = suffix(sums.ending, matrix)
        is_ragged = any(one.shape[-1] > 1 and one.shape[-1] % CHANNELS for one in site.alike(0))
        helpers = depthwise_taps(sums.ending, matrix, is_ragged=is_ragged)
    lines = lines_of(
        values | {"is_padded": border_bytes > 0},
        stride="window[4]", pad="window[5]", height="height", line="line", has_inside=True,
    )  # fmt: skip
    return Layer(
        operator=site.operator,
        arguments=(*sums.arguments, window.name, *row_arguments(tall)),
        text=render(_DEPTHWISE, values | {"lines": lines}),
        reads=(image.index,),
        writes=(output.index,),
        constants=(*sums.constants, window),
        needs=sums.needs,
        helpers=helpers,
        scratch_bytes=border_bytes if is_large else 0,
        stack_bytes=POINTER_BYTES * (taps + kernel_y) + (0 if is_large else border_bytes),
        macs=output.count * taps,
        by_rows=by_window(batch, tall),
    )


def _border_bytes(site: Site, pixel_bytes: int) -> int:
    """Return the size of a pixel outside the image: that of the model's largest, so that layers share their code."""
    sizes = (image.shape[-1] * ITEM_BYTES.get(image.dtype, 0) for image in site.alike(0))
    return shared_bytes(pixel_bytes, sizes)


def _of_one_channel(site: Site, weights: Tensor) -> Layer:
    """Return the depthwise convolution of an image of one channel: a convolution, with its weights turned."""
    require(len(weights.scales) == 1 or weights.axis == 3, f"scales along axis {weights.axis}, not 3")
    assert weights.value is not None
    turned = replace(
        weights,
        shape=(weights.shape[3], weights.shape[1], weights.shape[2], 1),
        value=np.ascontiguousarray(weights.value.transpose(3, 1, 2, 0)),
        axis=0,
    )
    # Another layer may use the same weights as they are.
    return convolution_with(site, turned, marked="_turned")
