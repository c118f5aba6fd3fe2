"""Transposed convolution: each output pixel gathers the input pixels that reach it; no sums are kept in memory."""

from __future__ import annotations

from edgewright.microcontrollers.layer import Layer, Site, render, require
from edgewright.microcontrollers.sums import sums_of

_TRANSPOSED = """\
static void @(const {{ type }} *in, {{ type }} *out,
    {{ tables }})
{
    int32_t n, y, x, c, i, j, k;
    for (n = 0; n < {{ batch }}; ++n) {
        for (y = 0; y < {{ out_height }}; ++y) {
            for (x = 0; x < {{ out_width }}; ++x) {
                for (c = 0; c < {{ channels }}; ++c) {
                    {{ begin.replace("#", "c") }}
                    for (i = {{ kernel_y - 1 }}; i >= 0; --i) {
                        const int32_t row = y + {{ pad_y }} - i;
                        if (row < 0 || row % {{ stride_y }} != 0 || row / {{ stride_y }} >= {{ height }}) {
                            continue;
                        }
                        for (j = {{ kernel_x - 1 }}; j >= 0; --j) {
                            const int32_t column = x + {{ pad_x }} - j;
                            const {{ weight_type }} *w =
                                weights + ((c * {{ kernel_y }} + i) * {{ kernel_x }} + j) * {{ depth }};
                            const {{ type }} *from;
                            if (column < 0 || column % {{ stride_x }} != 0 || column / {{ stride_x }} >= {{ width }}) {
                                continue;
                            }
                            from = in + ((n * {{ height }} + row / {{ stride_y }}) * {{ width }} +
                                         column / {{ stride_x }}) * {{ depth }};
                            for (k = 0; k < {{ depth }}; ++k) {
                                sum += {{ product % ("w[k] * (from[k] - (%d))" % zero if zero else "w[k] * from[k]") }};
                            }
                        }
                    }
{% for line in end %}
                    {{ line.replace("#", "c") }}
{% endfor %}
                }
            }
        }
    }
}
"""


def transpose_convolution(site: Site) -> Layer:
    """Return TRANSPOSE_CONV of int8, int16 or float32; float32 sums take the pixels in the interpreter's order."""
    weights, image, output = site.input(1), site.input(2), site.output()
    require(len(image.shape) == len(weights.shape) == len(output.shape) == 4, "a rank other than 4")
    channels, kernel_y, kernel_x, depth = weights.shape
    batch, height, width, image_depth = image.shape
    require(
        image_depth == depth and output.shape[3] == channels and output.shape[0] == batch,
        "a wrong output shape",
    )
    values: dict[str, object] = {}
    for axis, name, kernel, size, out_size in (
        ("H", "y", kernel_y, height, output.shape[1]),
        ("W", "x", kernel_x, width, output.shape[2]),
    ):
        stride = site.operator.integer(f"Stride{axis}")
        require(stride >= 1, f"stride {stride}")
        is_valid = site.operator.integer("Padding") == 1
        reached = (out_size - kernel + stride) // stride if is_valid else -(-out_size // stride)
        require(reached == size, f"an output of size {out_size} for an input of size {size}")
        values |= {
            f"kernel_{name}": kernel, f"stride_{name}": stride,
            f"pad_{name}": max((reached - 1) * stride + kernel - out_size, 0) // 2,
        }  # fmt: skip
    sums = sums_of(site, image, weights, output, axis=0, bias=3, is_folded=False)
    values |= dict(sums.values) | {
        "batch": batch, "height": height, "width": width, "depth": depth, "channels": channels,
        "out_height": output.shape[1], "out_width": output.shape[2],
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_TRANSPOSED, values),
        reads=(image.index,),
        writes=(output.index,),
        constants=sums.constants,
        arguments=tuple(constant.name for constant in sums.constants),
        needs=sums.needs,
        macs=image.count * channels * kernel_y * kernel_x,
    )
