"""Convolutions and fully connected layers: weights in flash, zero points folded into the bias, sizes as constants.

acc = sum w (x - z) = sum w x - z sum w, where padding holds x = z. A convolution gathers the pixels under its window
into a patch, so that its inner loop is one dot product; a depthwise one keeps a pointer to each pixel under the window.
Source: LiteRT 8-bit quantization specification (CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgewright.microcontrollers.fixed_point import activation_range, multiplier_of, wrapped
from edgewright.microcontrollers.graph import Tensor
from edgewright.microcontrollers.layer import STACK_BUFFER_BYTES, Constant, Layer, Site, render, require

_CONVOLUTION = """\
static void @(const int8_t *in, int8_t *out{{ ", int8_t *patch" if scratch }},
    const int8_t *weights, const int32_t *bias, const int32_t *mantissa, const int8_t *shift)
{
{% if not is_pointwise and not scratch %}
    int8_t patch[{{ taps * depth }}];
{% endif %}
    int32_t n, y, x, c, k;
{% if not is_pointwise %}
    int32_t i, j;
{% endif %}
{% if groups > 1 %}
    int32_t t;
{% endif %}
    for (n = 0; n < {{ batch }}; ++n) {
        for (y = 0; y < {{ out_height }}; ++y) {
            for (x = 0; x < {{ out_width }}; ++x) {
{% if is_pointwise %}
                const int32_t pixel = (n * {{ height }} + y * {{ stride_y }}) * {{ width }} + x * {{ stride_x }};
                const int8_t *patch = in + pixel * {{ depth }};
{% else %}
                int8_t *to = patch;
                for (i = 0; i < {{ kernel_y }}; ++i) {
                    const int32_t row = y * {{ stride_y }} + i * {{ dilation_y }} - {{ pad_y }};
                    for (j = 0; j < {{ kernel_x }}; ++j, to += {{ depth }}) {
                        const int32_t column = x * {{ stride_x }} + j * {{ dilation_x }} - {{ pad_x }};
{% if is_padded %}
                        if (row < 0 || row >= {{ height }} || column < 0 || column >= {{ width }}) {
                            memset(to, {{ zero }}, {{ depth }});
                            continue;
                        }
{% endif %}
                        memcpy(to, in + ((n * {{ height }} + row) * {{ width }} + column) * {{ depth }}, {{ depth }});
                    }
                }
{% endif %}
                for (c = 0; c < {{ channels }}; ++c) {
{% if groups == 1 %}
                    const int8_t *w = weights + c * {{ taps * depth }};
                    {{ sum_type }} sum = {{ start }}bias[c];
                    for (k = 0; k < {{ taps * depth }}; ++k) {
                        sum += {{ product % "w[k] * patch[k]" }};
                    }
{% else %}
                    const int8_t *w = weights + c * {{ taps * group_depth }};
                    const int8_t *from = patch + c / {{ channels // groups }} * {{ group_depth }};
                    {{ sum_type }} sum = {{ start }}bias[c];
                    for (t = 0; t < {{ taps }}; ++t) {
                        for (k = 0; k < {{ group_depth }}; ++k) {
                            sum += {{ product % ("w[t * %d + k] * from[t * %d + k]" % (group_depth, depth)) }};
                        }
                    }
{% endif %}
                    sum = {{ back }}(scaled({{ finish }}sum, mantissa[c], shift[c]) + {{ out_zero }});
                    *out++ = (int8_t)clamped({{ finish }}sum, {{ low }}, {{ high }});
                }
            }
        }
    }
}
"""

_DEPTHWISE = """\
static void @(const int8_t *in, int8_t *out{{ ", int8_t *border" if scratch }},
    const int8_t *weights, const int32_t *bias, const int32_t *mantissa, const int8_t *shift)
{
    const int8_t *tap[{{ taps }}];
{% if is_padded and not scratch %}
    int8_t border[{{ depth }}];
{% endif %}
    int32_t n, y, x, i, j, c, t;
{% if multiplier > 1 %}
    int32_t m;
{% endif %}
{% if is_padded %}
    memset(border, {{ zero }}, {{ depth }});
{% endif %}
    for (n = 0; n < {{ batch }}; ++n) {
        for (y = 0; y < {{ out_height }}; ++y) {
            for (x = 0; x < {{ out_width }}; ++x) {
                const int8_t **to = tap;
                for (i = 0; i < {{ kernel_y }}; ++i) {
                    const int32_t row = y * {{ stride_y }} + i * {{ dilation_y }} - {{ pad_y }};
                    for (j = 0; j < {{ kernel_x }}; ++j) {
                        const int32_t column = x * {{ stride_x }} + j * {{ dilation_x }} - {{ pad_x }};
{% if is_padded %}
                        if (row < 0 || row >= {{ height }} || column < 0 || column >= {{ width }}) {
                            *to++ = border;
                            continue;
                        }
{% endif %}
                        *to++ = in + ((n * {{ height }} + row) * {{ width }} + column) * {{ depth }};
                    }
                }
                for (c = 0; c < {{ depth }}; ++c) {
{% if multiplier > 1 %}
                    for (m = c * {{ multiplier }}; m < (c + 1) * {{ multiplier }}; ++m) {
{% else %}
                    {
                        const int32_t m = c;
{% endif %}
                        const int8_t *w = weights + m;
                        {{ sum_type }} sum = {{ start }}bias[m];
                        for (t = 0; t < {{ taps }}; ++t) {
                            sum += {{ product % ("w[t * %d] * tap[t][c]" % channels) }};
                        }
                        sum = {{ back }}(scaled({{ finish }}sum, mantissa[m], shift[m]) + {{ out_zero }});
                        *out++ = (int8_t)clamped({{ finish }}sum, {{ low }}, {{ high }});
                    }
                }
            }
        }
    }
}
"""

_FULLY_CONNECTED = """\
static void @(const int8_t *in, int8_t *out, const int8_t *weights, const int32_t *bias,
    const int32_t *mantissa, const int8_t *shift)
{
    int32_t n, c, k;
    for (n = 0; n < {{ rows }}; ++n, in += {{ depth }}) {
{% if weight_zero %}
        int32_t total = 0;
        for (k = 0; k < {{ depth }}; ++k) {
            total += in[k];
        }
{% endif %}
        for (c = 0; c < {{ channels }}; ++c) {
            const int8_t *w = weights + c * {{ depth }};
            {{ sum_type }} sum = {{ start }}bias[c];
{% if weight_zero %}
            sum -= {{ start }}total * {{ start }}({{ weight_zero }});
{% endif %}
            for (k = 0; k < {{ depth }}; ++k) {
                sum += {{ product % "w[k] * in[k]" }};
            }
            sum = {{ back }}(scaled({{ finish }}sum, mantissa[c], shift[c]) + {{ out_zero }});
            *out++ = (int8_t)clamped({{ finish }}sum, {{ low }}, {{ high }});
        }
    }
}
"""
_NEEDS = ("scaled", "clamped")


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
    def is_padded(self) -> bool:
        """True when some position reaches over the edge."""
        last = (self.out_size - 1) * self.stride - self.pad + (self.kernel - 1) * self.dilation
        return self.pad > 0 or last >= self.size


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


def convolution(site: Site) -> Layer:
    """Return CONV_2D of int8."""
    image, weights, output = site.input(0), site.input(1), site.output()
    check_types(site, image, weights, output, axis=0)
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
    matrix = weights_of(weights).reshape(channels, -1)
    constants, values = requantized(site, image, weights, output, matrix, is_float_product=False)
    taps = kernel_y * kernel_x
    is_padded = tall.is_padded or wide.is_padded
    is_pointwise = taps == 1 and not is_padded
    is_large = not is_pointwise and taps * depth > STACK_BUFFER_BYTES
    values |= _window_values(tall, wide) | {
        "batch": batch, "depth": depth, "channels": channels, "taps": taps, "groups": groups,
        "group_depth": group_depth, "is_pointwise": is_pointwise, "is_padded": is_padded, "scratch": is_large,
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        arguments=tuple(constant.name for constant in constants),
        text=render(_CONVOLUTION, values),
        reads=(image.index,),
        writes=(output.index,),
        constants=constants,
        needs=_NEEDS,
        scratch_bytes=taps * depth if is_large else 0,
        stack_bytes=0 if is_pointwise or is_large else taps * depth,
        macs=output.count * taps * group_depth,
    )


def depthwise_convolution(site: Site) -> Layer:
    """Return DEPTHWISE_CONV_2D of int8."""
    image, weights, output = site.input(0), site.input(1), site.output()
    check_types(site, image, weights, output, axis=3)
    require(len(image.shape) == len(weights.shape) == len(output.shape) == 4, "a rank other than 4")
    one, kernel_y, kernel_x, channels = weights.shape
    batch, height, width, depth = image.shape
    require(one == 1 and depth > 0 and channels % depth == 0, f"{channels} filters for {depth} channels")
    require(output.shape[3] == channels and output.shape[0] == batch, "a wrong output shape")
    tall = window_of(
        site, 0, kernel=kernel_y, size=height, out_size=output.shape[1],
        dilation=site.operator.integer("DilationHFactor"),
    )  # fmt: skip
    wide = window_of(
        site, 1, kernel=kernel_x, size=width, out_size=output.shape[2],
        dilation=site.operator.integer("DilationWFactor"),
    )  # fmt: skip
    matrix = weights_of(weights).reshape(-1, channels).T
    constants, values = requantized(site, image, weights, output, matrix, is_float_product=False)
    taps = kernel_y * kernel_x
    is_padded = tall.is_padded or wide.is_padded
    is_large = is_padded and depth > STACK_BUFFER_BYTES
    values |= _window_values(tall, wide) | {
        "batch": batch, "depth": depth, "channels": channels, "taps": taps, "multiplier": channels // depth,
        "is_padded": is_padded, "scratch": is_large,
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        arguments=tuple(constant.name for constant in constants),
        text=render(_DEPTHWISE, values),
        reads=(image.index,),
        writes=(output.index,),
        constants=constants,
        needs=_NEEDS,
        scratch_bytes=depth if is_large else 0,
        stack_bytes=8 * taps + (depth if is_padded and not is_large else 0),
        macs=output.count * taps,
    )


def fully_connected(site: Site) -> Layer:
    """Return FULLY_CONNECTED of int8."""
    rows, weights, output = site.input(0), site.input(1), site.output()
    check_types(site, rows, weights, output, axis=0)
    require(site.operator.integer("WeightsFormat") == 0, "shuffled weights")
    require(len(weights.shape) == 2, f"weights of rank {len(weights.shape)}")
    channels, depth = weights.shape
    require(
        depth > 0 and channels > 0 and rows.count % depth == 0, f"{rows.count} values for rows of {depth}"
    )
    count = rows.count // depth
    require(output.count == count * channels, f"an output of {output.count} values")
    constants, values = requantized(site, rows, weights, output, weights_of(weights), is_float_product=True)
    values |= {"rows": count, "depth": depth, "channels": channels}
    return Layer(
        operator=site.operator,
        arguments=tuple(constant.name for constant in constants),
        text=render(_FULLY_CONNECTED, values),
        reads=(rows.index,),
        writes=(output.index,),
        constants=constants,
        needs=_NEEDS,
        macs=count * channels * depth,
    )


def check_types(
    site: Site, image: Tensor, weights: Tensor, output: Tensor, *, axis: int, bias: int = 2
) -> None:
    """Check that an operator multiplies int8 with constant int8; `bias` is the position of its bias.

    Raises:
        UnsupportedError: it does not.
    """
    types = (image.dtype, weights.dtype, output.dtype)
    require(types == ("int8", "int8", "int8"), f"types {'/'.join(types)}; int8/int8/int8 is made")
    require(weights.value is not None, "weights that are computed at run time")
    require(len(image.scales) == 1 and len(output.scales) == 1, "an input or output without one scale")
    require(weights.is_quantized, "weights without a scale")
    require(len(weights.scales) == 1 or weights.axis == axis, f"scales along axis {weights.axis}, not {axis}")
    if site.has_input(bias):
        added = site.input(bias)
        require(
            added.dtype == "int32" and added.value is not None, f"a bias of {added.dtype} that is no constant"
        )
    require(image.count > 0 and output.count > 0, "an empty tensor")


def weights_of(weights: Tensor) -> npt.NDArray[np.int64]:
    """Return constant weights as int64."""
    assert weights.value is not None
    return weights.value.astype(np.int64)


def _window_values(tall: Window, wide: Window) -> dict[str, object]:
    return {
        "height": tall.size, "width": wide.size, "out_height": tall.out_size, "out_width": wide.out_size,
        "kernel_y": tall.kernel, "kernel_x": wide.kernel, "stride_y": tall.stride, "stride_x": wide.stride,
        "dilation_y": tall.dilation, "dilation_x": wide.dilation, "pad_y": tall.pad, "pad_x": wide.pad,
    }  # fmt: skip


def requantized(
    site: Site,
    image: Tensor,
    weights: Tensor,
    output: Tensor,
    matrix: npt.NDArray[np.int64],
    *,
    is_float_product: bool,
    bias: int = 2,
    is_folded: bool = True,
) -> tuple[tuple[Constant, ...], dict[str, object]]:
    """Return the constants of a layer with weights, and the template's values for them.

    Args:
        matrix: weights [output channels, products of one sum].
        is_float_product: the interpreter multiplies the scales of input and weights as float32, not as double.
        bias: position of the bias among the inputs.
        is_folded: the input's zero point goes into the bias.
    """
    channels, depth = matrix.shape
    weight_zeros = np.broadcast_to(weights.zero_points, (channels,))
    weight_zero = int(weight_zeros[0])
    if not is_float_product:
        require(not weight_zeros.any(), "weights with a zero point")
    require(bool(np.all(weight_zeros == weight_zero)), "weights with several zero points")
    raw = np.zeros(channels, dtype=np.int64)
    if site.has_input(bias):
        stored = site.input(bias).value
        assert stored is not None
        require(stored.size == channels, f"a bias of {stored.size} values for {channels} channels")
        raw = stored.astype(np.int64).reshape(-1)
    folded = raw
    if is_folded:
        folded = raw - image.zero_point * matrix.sum(axis=1) + depth * image.zero_point * weight_zero
    # Channels that training has switched off may have a bias near 2**31. C leaves the overflow of a signed sum
    # undefined; modulo 2**32 its result does not depend on the order.
    reach = np.abs(folded) + (128 if is_folded else 255) * (
        np.abs(matrix).sum(axis=1) + depth * abs(weight_zero)
    )
    is_wrapping = int(reach.max()) >= 2**31
    mantissas, shifts = [], []
    for scale in np.broadcast_to(weights.scales, (channels,)):
        if is_float_product and len(weights.scales) == 1:
            product = float(np.float32(image.scale) * np.float32(scale))
        else:
            product = image.scale * float(scale)
        require(output.scale > 0, "an output with scale 0")
        by = multiplier_of(product / output.scale)
        require(by.shift <= 30, "an output scale that is far too small")
        mantissas.append(by.mantissa)
        shifts.append(by.shift)
    try:
        low, high = activation_range(site.operator, output)
    except ValueError as err:
        require(False, str(err))
        raise
    constants = (
        _weights(site, weights),
        site.table("bias", "int32_t", [wrapped(int(value)) for value in folded], 4),
        site.table("mantissa", "int32_t", mantissas, 4),
        site.table("shift", "int8_t", shifts, 1),
    )
    return constants, {
        "zero": image.zero_point, "out_zero": output.zero_point, "low": low, "high": high,
        "weight_zero": weight_zero, "sum_type": "uint32_t" if is_wrapping else "int32_t",
        "start": "(uint32_t)" if is_wrapping else "", "finish": "(int32_t)" if is_wrapping else "",
        "back": "(uint32_t)" if is_wrapping else "",
        "product": "(uint32_t)((int32_t)%s)" if is_wrapping else "(int32_t)%s",
    }  # fmt: skip


def _weights(site: Site, weights: Tensor) -> Constant:
    from edgewright.microcontrollers.layer import integers

    assert weights.value is not None
    # Named by the tensor: layers that share weights share the table.
    values = [int(value) for value in weights.value.reshape(-1).tolist()]
    return integers(f"{site.prefix}_tensor_{weights.index}", "int8_t", values, 1)
