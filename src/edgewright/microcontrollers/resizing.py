"""Images of another size: by the nearest pixel, with tables of positions, or by interpolation in ten fractional bits.

Source: the behaviour that the LiteRT operators RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR document: aligned corners
map the last pixel to the last one, half-pixel centres map centres to centres.
"""

from __future__ import annotations

import math

import numpy as np

from edgewright.microcontrollers.fixed_point import rounded
from edgewright.microcontrollers.graph import Tensor
from edgewright.microcontrollers.layer import Constant, Layer, Site, floats, render, require
from edgewright.microcontrollers.shaping import constant_integers, same_scheme

_NEAREST = """\
static void @(const {{ c_type }} *in, {{ c_type }} *out, const int16_t *rows, const int16_t *columns)
{
    int32_t n, y, x;
    for (n = 0; n < {{ batch }}; ++n) {
        for (y = 0; y < {{ out_height }}; ++y) {
            for (x = 0; x < {{ out_width }}; ++x, out += {{ depth }}) {
                const int32_t pixel = (n * {{ height }} + rows[y]) * {{ width }} + columns[x];
                memcpy(out, in + pixel * {{ depth }}, {{ depth }} * sizeof *out);
            }
        }
    }
}
"""
# Positions have ten bits behind the point; the four weights of a pixel sum up to 2^20.
_BILINEAR = """\
static void @(const int8_t *in, int8_t *out)
{
    int32_t n, y, x, c;
    for (n = 0; n < {{ batch }}; ++n, in += {{ height * width * depth }}) {
        for (y = 0; y < {{ out_height }}; ++y) {
            const int32_t at_y = y * {{ step_y }} + ({{ first_y }});
            const int32_t top = at_y / 1024 > 0 ? at_y / 1024 : 0;
            const int32_t below = (at_y + 1023) / 1024;
            const int32_t bottom = below < {{ height - 1 }} ? below : {{ height - 1 }};
            const int32_t low = at_y - 1024 * top;
            for (x = 0; x < {{ out_width }}; ++x) {
                const int32_t at_x = x * {{ step_x }} + ({{ first_x }});
                const int32_t left = at_x / 1024 > 0 ? at_x / 1024 : 0;
                const int32_t behind = (at_x + 1023) / 1024;
                const int32_t right = behind < {{ width - 1 }} ? behind : {{ width - 1 }};
                const int32_t far = at_x - 1024 * left;
                for (c = 0; c < {{ depth }}; ++c) {
                    const int8_t *from = in + c;
                    const int32_t sum =
                        from[(top * {{ width }} + left) * {{ depth }}] * ((1024 - low) * (1024 - far)) +
                        from[(bottom * {{ width }} + left) * {{ depth }}] * (low * (1024 - far)) +
                        from[(top * {{ width }} + right) * {{ depth }}] * ((1024 - low) * far) +
                        from[(bottom * {{ width }} + right) * {{ depth }}] * (low * far);
                    *out++ = (int8_t)((sum + (sum > 0 ? 1 << 19 : -(1 << 19))) / (1 << 20));
                }
            }
        }
    }
}
"""
# The two pixels of every position and how far it is from the first one, worked out in float32 as the interpreter does.
_BILINEAR_FLOAT = """\
static void @(const float *in, float *out, const int16_t *rows, const float *lows,
    const int16_t *columns, const float *fars)
{
    int32_t n, y, x, c;
    for (n = 0; n < {{ batch }}; ++n, in += {{ height * width * depth }}) {
        for (y = 0; y < {{ out_height }}; ++y) {
            const float *top = in + rows[2 * y] * {{ width * depth }};
            const float *bottom = in + rows[2 * y + 1] * {{ width * depth }};
            const float low = lows[y];
            for (x = 0; x < {{ out_width }}; ++x) {
                const int32_t left = columns[2 * x] * {{ depth }}, right = columns[2 * x + 1] * {{ depth }};
                const float far = fars[x];
                for (c = 0; c < {{ depth }}; ++c) {
                    *out++ = top[left + c] * (1.0f - low) * (1.0f - far) + bottom[left + c] * low * (1.0f - far) +
                             top[right + c] * (1.0f - low) * far + bottom[right + c] * low * far + 0.0f;
                }
            }
        }
    }
}
"""


def resize_nearest(site: Site) -> Layer:
    """Return RESIZE_NEAREST_NEIGHBOR."""
    image, output = _ends(site)
    tables = []
    for name, size, out_size in (
        ("rows", image.shape[1], output.shape[1]),
        ("columns", image.shape[2], output.shape[2]),
    ):
        require(size < 1 << 15, f"an image of size {size}")
        tables.append(site.table(name, "int16_t", _nearest(site, size, out_size), 2))
    return Layer(
        operator=site.operator,
        text=render(_NEAREST, _values(image, output) | {"c_type": output.c_type}),
        reads=(image.index,),
        writes=(output.index,),
        constants=tuple(tables),
        arguments=tuple(table.name for table in tables),
    )


def resize_bilinear(site: Site) -> Layer:
    """Return RESIZE_BILINEAR of int8 or float32."""
    image, output = _ends(site)
    if image.dtype == "float32":
        return _bilinear_float(site, image, output)
    require(image.dtype == "int8", f"type {image.dtype}; int8 and float32 are made")
    values = _values(image, output)
    for axis, name in ((1, "y"), (2, "x")):
        size, out_size = image.shape[axis], output.shape[axis]
        require(size < 1 << 15 and out_size < 1 << 15, f"an image of size {size} to {out_size}")
        if site.operator.integer("AlignCorners") and out_size > 1:
            step = (1024 * (size - 1) + (out_size - 1) // 2) // (out_size - 1)
        else:
            step = (1024 * size + out_size // 2) // out_size
        require(step * out_size < 1 << 31, f"an image of size {size} to {out_size}")
        values[f"step_{name}"] = step
        values[f"first_{name}"] = step // 2 - 512 if site.operator.integer("HalfPixelCenters") else 0
    return Layer(
        operator=site.operator, text=render(_BILINEAR, values), reads=(image.index,), writes=(output.index,)
    )


def _bilinear_float(site: Site, image: Tensor, output: Tensor) -> Layer:
    tables: list[Constant] = []
    for axis, names in ((1, ("rows", "lows")), (2, ("columns", "fars"))):
        size, out_size = image.shape[axis], output.shape[axis]
        require(size < 1 << 15, f"an image of size {size}")
        pixels: list[int] = []
        rests: list[float] = []
        for real in _positions(site, size, out_size):
            first = max(math.floor(real), 0)
            pixels += [first, min(math.ceil(real), size - 1)]
            rests.append(float(real - np.float32(first)))
        tables.append(site.table(names[0], "int16_t", pixels, 2))
        tables.append(floats(f"{site.prefix}_{names[1]}_{site.operator.position}", rests))
    return Layer(
        operator=site.operator,
        text=render(_BILINEAR_FLOAT, _values(image, output)),
        reads=(image.index,),
        writes=(output.index,),
        constants=tuple(tables),
        arguments=tuple(table.name for table in tables),
    )


def _positions(site: Site, size: int, out_size: int) -> list[np.float32]:
    """Return for each position of the output its place in the input; half-pixel centres may lie left of the first."""
    half = np.float32(0.5 if site.operator.integer("HalfPixelCenters") else 0.0)
    if site.operator.integer("AlignCorners") and out_size > 1:
        factor = np.float32(size - 1) / np.float32(out_size - 1)
    else:
        factor = np.float32(size) / np.float32(out_size)
    return [(np.float32(position) + half) * factor - half for position in range(out_size)]


def _ends(site: Site) -> tuple[Tensor, Tensor]:
    image, output = site.input(0), site.output()
    require(image.dtype == output.dtype, f"types {image.dtype}/{output.dtype}")
    require(len(image.shape) == len(output.shape) == 4, "a rank other than 4")
    require(image.shape[0] == output.shape[0] and image.shape[3] == output.shape[3], "a wrong output shape")
    require(constant_integers(site, 1) == output.shape[1:3], "a size that is not the output's")
    require(image.count > 0 and output.count > 0, "an empty tensor")
    require(same_scheme(image, output), "an output whose quantization is not the input's")
    return image, output


def _values(image: Tensor, output: Tensor) -> dict[str, object]:
    return {
        "batch": image.shape[0], "height": image.shape[1], "width": image.shape[2], "depth": image.shape[3],
        "out_height": output.shape[1], "out_width": output.shape[2],
    }  # fmt: skip


def _nearest(site: Site, size: int, out_size: int) -> list[int]:
    """Return for each position of the output the position in the input, worked out in float32 as the interpreter."""
    is_aligned = bool(site.operator.integer("AlignCorners"))
    is_half = bool(site.operator.integer("HalfPixelCenters"))
    if is_aligned and out_size > 1:
        factor = np.float32(size - 1) / np.float32(out_size - 1)
    else:
        factor = np.float32(size) / np.float32(out_size)
    found = []
    for position in range(out_size):
        real = float((np.float32(position) + np.float32(0.5 if is_half else 0.0)) * factor)
        nearest = min(rounded(real) if is_aligned else math.floor(real), size - 1)
        found.append(max(nearest, 0))
    return found
