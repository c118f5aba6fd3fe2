"""Convolutions and fully connected layers: weights in flash, zero points folded into the bias, sizes as constants.

acc = sum w (x - z) = sum w x - z sum w, where padding holds x = z. A convolution gathers the pixels under its window
into a patch, so that its inner loop is one dot product. It makes the rows `first` to `last` of the output, of an input
of whose rows `in_rows` are kept, in a ring.
Source: LiteRT 8-bit quantization specification (CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from edgewright.microcontrollers.graph import ITEM_BYTES, Tensor
from edgewright.microcontrollers.layer import (
    STACK_BUFFER_BYTES,
    ByRows,
    Constant,
    Layer,
    Reach,
    Site,
    integers,
    render,
    require,
    shared_bytes,
)
from edgewright.microcontrollers.products import PIXELS_AT_ONCE, WIDE_BYTES, WORD_BYTES, row_products
from edgewright.microcontrollers.sums import Sums, sums_of

_LINES = """\
            for (i = 0; i < {{ kernel_y }}; ++i) {
                const int32_t row = y * {{ stride }} + i * {{ dilation_y }} - {{ pad }};
{% if is_padded %}
                lines[i] = NULL;
                if (row < 0 || row >= {{ height }}) {
{% if has_inside %}
                    is_inside = 0;
{% endif %}
                    continue;
                }
{% endif %}
                lines[i] = in + row % in_rows * {{ line }};
            }
"""

_CONVOLUTION = """\
static void @(const {{ type }} *in, {{ type }} *out{{ ", int8_t *scratch" if scratch }},
    {{ tables }}, int32_t first, int32_t last, int32_t in_rows)
{
    const {{ type }} *lines[{{ kernel_y }}];
{% if scratch and rows == 2 %}
#ifdef HAS_DSP
    int8_t *const patch = scratch + {{ wide_bytes }};
#else
    int8_t *const patch = scratch;
#endif
{% elif scratch %}
    {{ type }} *const patch = ({{ type }} *)(void *)scratch;
{% elif not is_pointwise %}
    {{ type }} patch[{{ "GATHERED * " if rows == 2 }}{{ row }}];
{% endif %}
{% if suffix %}
    {{ wide }}
{% endif %}
{% if rows == 2 %}
    int32_t filled = 0;
{% endif %}
    int32_t n, y, x, i{{ ", c, k" if not suffix }};
{% if not is_pointwise and dilation_x > 1 %}
    int32_t j;
{% endif %}
{% if groups > 1 %}
    int32_t t;
{% endif %}
{% if row > taps * depth %}
    memset(patch, 0, GATHERED * {{ row }});
{% endif %}
    for (n = 0; n < {{ batch }}; ++n, in += {{ height * width * depth }}) {
        for (y = first; y < last; ++y) {
{% if is_padded and dilation_x == 1 and not is_pointwise %}
            int32_t is_inside = 1;
{% endif %}
{{ lines }}            for (x = 0; x < {{ out_width }}; ++x) {
{% if is_pointwise %}
                const {{ type }} *patch = lines[0] + x * {{ stride_x * depth }};
{% else %}
                {{ type }} *to = patch{{ " + filled * %d" % row if rows == 2 }};
                const int32_t left = x * {{ stride_x }} - {{ pad_x }};
{% if dilation_x == 1 %}
{% if is_padded %}
                const int32_t begin = left < 0 ? 0 : left;
                const int32_t end = left < {{ width - kernel_x }} ? left + {{ kernel_x }} : {{ width }};
{% endif %}
{% if is_padded %}
                const int32_t count = end - begin;
                if (!is_inside || count < {{ kernel_x }}) {
                    memset(to, {{ zero }}, {{ taps * depth }} * sizeof *to);
                    for (i = 0; i < {{ kernel_y }}; ++i, to += {{ kernel_x * depth }}) {
                        if (lines[i] != NULL && count == {{ kernel_x }}) {
                            memcpy(to, lines[i] + left * {{ depth }}, {{ kernel_x * depth }} * sizeof *to);
                        } else if (lines[i] != NULL) {
                            memcpy(to + (begin - left) * {{ depth }}, lines[i] + begin * {{ depth }},
                                   (size_t)count * {{ depth }} * sizeof *to);
                        }
                    }
                } else
{% endif %}
                    for (i = 0; i < {{ kernel_y }}; ++i, to += {{ kernel_x * depth }}) {
                        memcpy(to, lines[i] + left * {{ depth }}, {{ kernel_x * depth }} * sizeof *to);
                    }
{% else %}
                for (i = 0; i < {{ kernel_y }}; ++i) {
                    for (j = 0; j < {{ kernel_x }}; ++j, to += {{ depth }}) {
                        const int32_t column = left + j * {{ dilation_x }};
{% if is_padded %}
                        if (lines[i] == NULL || column < 0 || column >= {{ width }}) {
                            memset(to, {{ zero }}, {{ depth }} * sizeof *to);
                            continue;
                        }
{% endif %}
                        memcpy(to, lines[i] + column * {{ depth }}, {{ depth }} * sizeof *to);
                    }
                }
{% endif %}
{% endif %}
{% if rows == 2 %}
                if (++filled == GATHERED) {
                    rows{{ suffix }}(patch, out, tables, GATHERED, {{ row }}, {{ channels }}, wide);
                    out += GATHERED * {{ channels }};
                    filled = 0;
                }
{% elif suffix %}
                rows{{ suffix }}(patch, out, tables, 1, {{ row }}, {{ channels }}, wide);
                out += {{ channels }};
{% else %}
                for (c = 0; c < {{ channels }}; ++c) {
{% if groups == 1 %}
                    const {{ weight_type }} *w = weights + c * {{ taps * depth }};
                    {{ begin.replace("#", "c") }}
                    for (k = 0; k < {{ taps * depth }}; ++k) {
                        sum += {{ product % "w[k] * patch[k]" }};
                    }
{% else %}
                    const {{ weight_type }} *w = weights + c * {{ taps * group_depth }};
                    const {{ type }} *from = patch + c / {{ channels // groups }} * {{ group_depth }};
                    {{ begin.replace("#", "c") }}
                    for (t = 0; t < {{ taps }}; ++t) {
                        for (k = 0; k < {{ group_depth }}; ++k) {
                            sum += {{ product % ("w[t * %d + k] * from[t * %d + k]" % (group_depth, depth)) }};
                        }
                    }
{% endif %}
{% for line in end %}
                    {{ line.replace("#", "c") }}
{% endfor %}
                }
{% endif %}
            }
        }
    }
{% if rows == 2 %}
    if (filled > 0) {
        rows{{ suffix }}(patch, out, tables, filled, {{ row }}, {{ channels }}, wide);
    }
{% endif %}
}
"""

_ROWS = """\
static void @(const {{ type }} *in, {{ type }} *out,
    {{ tables }}, int32_t depth, int32_t channels, int32_t rows)
{
    int32_t n, c, k;
    for (n = 0; n < rows; ++n, in += depth) {
{% if weight_zero %}
        int32_t total = 0;
        for (k = 0; k < depth; ++k) {
            total += in[k];
        }
{% endif %}
        for (c = 0; c < channels; ++c) {
            const {{ weight_type }} *w = weights + c * depth;
            {{ begin.replace("#", "c") }}
{% if weight_zero %}
            sum -= {{ start }}total * {{ start }}({{ weight_zero }});
{% endif %}
            for (k = 0; k < depth; ++k) {
                sum += {{ product % "w[k] * in[k]" }};
            }
{% for line in end %}
            {{ line.replace("#", "c") }}
{% endfor %}
        }
    }
}
"""

_WHOLE = """\
static void @(const int8_t *in, int8_t *out{{ ", int8_t *scratch" if scratch }},
    {{ tables }}, int32_t depth, int32_t channels, int32_t rows)
{
    {{ wide }}
    rows{{ suffix }}(in, out, tables, rows, depth, channels, wide);
}
"""

# Convolutions keep as many pointers to rows on the stack.
MOST_LINES = 512
POINTER_BYTES = 8
# Buffers for two rows as int16 have one of these sizes, so that layers share their code.
_WIDES_BYTES = (256, 1024, STACK_BUFFER_BYTES)


@dataclass(frozen=True, kw_only=True)
class Window:
    """One axis of a sliding window: where it begins and how far it goes."""

    size: int
    out_size: int
    kernel: int
    stride: int
    dilation: int
    pad: int

    @property
    def extent(self) -> int:
        """How many values lie under the window, from its first to its last."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def is_padded(self) -> bool:
        """True when some position reaches over the edge."""
        last = (self.out_size - 1) * self.stride - self.pad + (self.kernel - 1) * self.dilation
        return self.pad > 0 or last >= self.size

    @property
    def reach(self) -> Reach:
        """The rows of the input that a row of the output needs, of a window along y."""
        rows = (self.kernel - 1) * self.dilation + 1
        return Reach(size=self.size, rows=rows, stride=self.stride, pad=self.pad)


def window_of(site: Site, axis: int, *, kernel: int, size: int, out_size: int, dilation: int = 1) -> Window:
    """Return the window along `axis` (0: y, 1: x) and check the output's size against it.

    Raises:
        UnsupportedError: a stride of zero, or sizes that do not belong together.
    """
    stride = site.operator.integer("StrideH" if axis == 0 else "StrideW")
    require(
        stride >= 1 and dilation >= 1 and kernel >= 1,
        f"stride {stride}, dilation {dilation}, kernel {kernel}",
    )
    reach = (kernel - 1) * dilation + 1
    is_valid = site.operator.integer("Padding") == 1
    want = (size - reach + stride) // stride if is_valid else -(-size // stride)
    require(want == out_size and out_size >= 1, f"an output of size {out_size} where {want} is expected")
    pad = max((out_size - 1) * stride + reach - size, 0) // 2
    return Window(size=size, out_size=out_size, kernel=kernel, stride=stride, dilation=dilation, pad=pad)


def row_arguments(tall: Window) -> tuple[str, str, str]:
    """Return the last arguments of a function that makes all rows of an input that is kept whole."""
    return "0", str(tall.out_size), str(tall.size)


def by_window(batch: int, tall: Window) -> ByRows | None:
    """Return how a function that takes `row_arguments` makes its rows; None for more than one image."""
    return ByRows(rows=tall.out_size, reaches=(tall.reach,)) if batch == 1 else None


def convolution(site: Site) -> Layer:
    """Return CONV_2D of int8 or float32."""
    return convolution_with(site, site.input(1))


def convolution_with(site: Site, weights: Tensor, *, marked: str = "") -> Layer:
    """Return a convolution with `weights` [channels, height, width, depth of a group].

    Args:
        marked: what the name of the table of weights ends with, where they are not those of the model's tensor.
    """
    image, output = site.input(0), site.output()
    require(len(image.shape) == len(weights.shape) == len(output.shape) == 4, "a rank other than 4")
    channels, kernel_y, kernel_x, group_depth = weights.shape
    batch, height, width, depth = image.shape
    require(group_depth > 0 and depth % group_depth == 0, f"{depth} channels in groups of {group_depth}")
    groups = depth // group_depth
    require(
        channels % groups == 0 and output.shape[3] == channels and output.shape[0] == batch,
        "a wrong output shape",
    )
    tall = window_of(
        site, 0, kernel=kernel_y, size=height, out_size=output.shape[1],
        dilation=site.operator.integer("DilationHFactor"),
    )  # fmt: skip
    wide = window_of(
        site, 1, kernel=kernel_x, size=width, out_size=output.shape[2],
        dilation=site.operator.integer("DilationWFactor"),
    )  # fmt: skip
    require(kernel_y <= MOST_LINES, f"a window of {kernel_y} rows; up to {MOST_LINES} are made")
    sums = sums_of(site, image, weights, output, axis=0, has_ending=groups == 1)
    if marked:
        table = sums.constants[0]
        sums = sums.with_weights(replace(table, name=f"{table.name}{marked}"))
    taps, item = kernel_y * kernel_x, ITEM_BYTES[image.dtype]
    is_padded = tall.is_padded or wide.is_padded
    is_pointwise = taps == 1 and not is_padded
    if is_pointwise and groups == 1 and output.count == batch * height * width * channels:
        return _rows(site, image, output, sums, sizes=(batch * height * width, depth, channels))
    is_pointwise = is_pointwise and sums.ending is None
    pixels = batch * output.shape[1] * output.shape[2]
    rows = 2 if sums.ending and pixels > 1 else 1
    row = taps * depth
    if rows == 2 and row % WORD_BYTES:
        # Rows of whole words, with weights of zero behind the others.
        row += -row % WORD_BYTES
        sums = sums.with_weights(_filled(weights, sums.constants[0], row))
    patch_bytes = 0 if is_pointwise else rows * row * item
    wide_bytes = WIDE_BYTES * row if rows == 2 else 0
    is_large = patch_bytes + wide_bytes > STACK_BUFFER_BYTES
    values = dict(sums.values) | window_values(tall, wide) | {
        "batch": batch, "depth": depth, "channels": channels, "taps": taps, "groups": groups,
        "group_depth": group_depth, "is_pointwise": is_pointwise, "is_padded": is_padded, "scratch": is_large,
        "rows": rows, "row": row, "wide": _wide(wide_bytes, is_large), "wide_bytes": wide_bytes,
    }  # fmt: skip
    lines = lines_of(
        values, stride=str(tall.stride), pad=str(tall.pad), height=str(height), line=str(width * depth),
        has_inside=wide.dilation == 1 and not is_pointwise,
    )  # fmt: skip
    return Layer(
        operator=site.operator,
        arguments=(*sums.arguments, *row_arguments(tall)),
        text=render(_CONVOLUTION, values | {"lines": lines}),
        reads=(image.index,),
        writes=(output.index,),
        constants=sums.constants,
        needs=sums.needs,
        helpers=row_products(sums.ending) if sums.ending else (),
        scratch_bytes=patch_bytes + wide_bytes if is_large else 0,
        stack_bytes=(0 if is_large else patch_bytes + wide_bytes) + POINTER_BYTES * kernel_y,
        macs=output.count * taps * group_depth,
        by_rows=by_window(batch, tall),
    )


def _filled(weights: Tensor, table: Constant, row: int) -> Constant:
    """Return the table of weights with zeros behind each channel's, `row` values in all."""
    assert weights.value is not None
    matrix = weights.value.reshape(weights.shape[0], -1)
    filled = np.pad(matrix, ((0, 0), (0, row - matrix.shape[1])))
    return integers(f"{table.name}_filled", "int8_t", filled.reshape(-1).tolist(), 1)


def _wide(wide_bytes: int, is_large: bool) -> str:
    """Return the declaration of the buffer for two rows as int16; it comes first in a scratch."""
    if wide_bytes and is_large:
        return "uint32_t *const wide = (uint32_t *)(void *)scratch;"
    nothing = "uint32_t *const wide = NULL;"
    if not wide_bytes:
        return nothing
    return f"\n#ifdef HAS_DSP\n    uint32_t wide[{wide_bytes // WIDE_BYTES}];\n#else\n    {nothing}\n#endif"


def fully_connected(site: Site) -> Layer:
    """Return FULLY_CONNECTED of int8 or float32."""
    rows, weights, output = site.input(0), site.input(1), site.output()
    require(site.operator.integer("WeightsFormat") == 0, "shuffled weights")
    require(len(weights.shape) == 2, f"weights of rank {len(weights.shape)}")
    channels, depth = weights.shape
    require(
        depth > 0 and channels > 0 and rows.count % depth == 0, f"{rows.count} values for rows of {depth}"
    )
    count = rows.count // depth
    require(output.count == count * channels, f"an output of {output.count} values")
    sums = sums_of(site, rows, weights, output, axis=0, is_float_product=True, has_ending=True)
    return _rows(site, rows, output, sums, sizes=(count, depth, channels))


def _rows(site: Site, image: Tensor, output: Tensor, sums: Sums, *, sizes: tuple[int, int, int]) -> Layer:
    """Return the layer that multiplies `sizes` = rows, depth, channels; all layers of the kind share the code."""
    count, depth, channels = sizes
    by_rows = _by_pixels(image, output, count)
    if sums.ending is None:
        return Layer(
            operator=site.operator,
            arguments=(*sums.arguments, str(depth), str(channels), str(count)),
            text=render(_ROWS, sums.values),
            reads=(image.index,),
            writes=(output.index,),
            constants=sums.constants,
            needs=sums.needs,
            macs=prod(sizes),
            by_rows=by_rows,
        )
    wide_bytes = _wide_bytes(site, depth) if count > 1 else 0
    is_large = wide_bytes > STACK_BUFFER_BYTES
    values = dict(sums.values) | {"scratch": is_large, "wide": _wide(wide_bytes, is_large)}
    return Layer(
        operator=site.operator,
        arguments=(*sums.arguments, str(depth), str(channels), str(count)),
        text=render(_WHOLE, values),
        reads=(image.index,),
        writes=(output.index,),
        constants=sums.constants,
        needs=sums.needs,
        helpers=row_products(sums.ending),
        scratch_bytes=wide_bytes if is_large else 0,
        stack_bytes=0 if is_large else wide_bytes,
        macs=prod(sizes),
        by_rows=by_rows,
    )


def _wide_bytes(site: Site, depth: int) -> int:
    """Return the size of a buffer for two rows as int16: that of the longest rows, so that layers share their code."""
    pointwise = (one for one in site.alike(1) if prod(one.shape[1:]) == one.shape[-1])
    return shared_bytes(WIDE_BYTES * depth, (WIDE_BYTES * weights.shape[-1] for weights in pointwise))


def _by_pixels(image: Tensor, output: Tensor, count: int) -> ByRows | None:
    """Return how the functions for rows of values make those of an image, whose pixels are their rows."""
    if len(image.shape) != 4 or image.shape[:3] != output.shape[:3] or image.shape[0] != 1:
        return None
    height, width = image.shape[1:3]
    if count != height * width:
        return None
    return ByRows(rows=height, reaches=(Reach(size=height),), count=count, tile=PIXELS_AT_ONCE)


def lines_of(
    values: Mapping[str, object], *, stride: str, pad: str, height: str, line: str, has_inside: bool
) -> str:
    """Return the loop that finds the rows of the input under a window, as C.

    Args:
        values: is_padded, kernel_y and dilation_y.
        stride, pad, height, line: along y, of the input; `line` is the distance of two rows.
        has_inside: rows that are missing are noted in `is_inside`.
    """
    sizes = {"stride": stride, "pad": pad, "height": height, "line": line, "has_inside": has_inside}
    return render(_LINES, {**values, **sizes})


def window_values(tall: Window, wide: Window) -> dict[str, object]:
    """Return what a template may need to know of the windows along y and x."""
    return {
        "height": tall.size, "width": wide.size, "out_height": tall.out_size, "out_width": wide.out_size,
        "kernel_y": tall.kernel, "kernel_x": wide.kernel, "stride_y": tall.stride, "stride_x": wide.stride,
        "dilation_y": tall.dilation, "dilation_x": wide.dilation, "pad_y": tall.pad, "pad_x": wide.pad,
    }  # fmt: skip
