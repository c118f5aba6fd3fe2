"""Sums of products with constant weights: their tables, what they begin with, and how they become outputs.

int8 sums begin with a bias that holds the input's zero point and end with one multiplier per channel; float32 sums
begin at 0, take the bias last and are limited, in the order of the interpreter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgewright.microcontrollers.fixed_point import (
    Multiplier,
    activation_range,
    clamped,
    multiplier_of,
    scaled,
    wrapped,
)
from edgewright.microcontrollers.graph import Tensor
from edgewright.microcontrollers.layer import Constant, Site, float_literal, floats, integers, require
from edgewright.microcontrollers.taps import CHANNELS, blocked_scales, blocked_weights
from edgewright.microcontrollers.variants import Ending

LARGEST_FLOAT = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What a template needs for its sums.

    Attributes:
        values: type, tables (parameters), begin and end (statements, # for the channel), product, zero, and more.
        needs: arithmetic functions.
        ending: of sums that are small enough for the functions of `products` and `taps`, whose tables they have then:
            weights, pairs of biases and mantissas, shifts, and pointers to these.
    """

    constants: tuple[Constant, ...]
    values: Mapping[str, object]
    needs: tuple[str, ...]
    ending: Ending | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the functions of the layer take as `tables`: all constants, or with an ending a table of pointers."""
        names = tuple(constant.name for constant in self.constants)
        return names[-1:] if self.ending else names

    def with_weights(self, weights: Constant) -> Sums:
        """Return the same sums with another table of weights."""
        constants = (weights, *self.constants[1:])
        if self.ending:
            constants = (*constants[:-1], _pointers(constants[-1].name, constants[:-1]))
        return replace(self, constants=constants)


def sums_of(
    site: Site,
    image: Tensor,
    weights: Tensor,
    output: Tensor,
    *,
    axis: int,
    bias: int = 2,
    is_float_product: bool = False,
    is_folded: bool = True,
    has_ending: bool = False,
    is_depthwise: bool = False,
) -> Sums:
    """Return the sums of an operator of int8 or float32.

    Args:
        axis: of the output channels in `weights`.
        bias: position of the bias among the inputs.
        is_float_product: the interpreter multiplies the scales of input and weights as float32, not as double.
        is_folded: the input's zero point goes into the bias.
        has_ending: the layer can use the functions of `products`.
        is_depthwise: or those of `taps`, with weights [1, height, width, channels].
    Raises:
        UnsupportedError: other types, weights that are no constants, or scales that do not fit.
    """
    require(weights.value is not None, "weights that are computed at run time")
    require(image.count > 0 and output.count > 0, "an empty tensor")
    types = (image.dtype, weights.dtype, output.dtype)
    if types == ("float32", "float32", "float32"):
        return _floats(site, weights, bias)
    require(
        types in (("int8", "int8", "int8"), ("int16", "int8", "int16")),
        f"types {'/'.join(types)}; int8/int8/int8, int16/int8/int16 and float32 are made",
    )
    _check_scales(site, image, weights, output, axis=axis, bias=bias)
    if image.dtype == "int16":
        return _wide(site, image, weights, output, bias=bias, is_float_product=is_float_product)
    assert weights.value is not None
    matrix = np.moveaxis(weights.value.astype(np.int64), axis, 0).reshape(weights.shape[axis], -1)
    constants, values, ending = _requantized(
        site,
        image,
        weights,
        output,
        matrix,
        is_float_product=is_float_product,
        bias=bias,
        is_folded=is_folded,
        has_ending=has_ending or is_depthwise,
        is_depthwise=is_depthwise,
    )
    needs = () if ending else ("scaled", "clamped")
    return Sums(constants=constants, values=values, needs=needs, ending=ending)


def limits_of(site: Site) -> tuple[str, str]:
    """Return the lowest and the highest float32 that the fused activation lets through, as C.

    Raises:
        UnsupportedError: an activation that the kernels do not fuse.
    """
    activation = site.operator.integer("FusedActivationFunction")
    ranges = {0: (-LARGEST_FLOAT, LARGEST_FLOAT), 1: (0.0, LARGEST_FLOAT), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
    require(activation in ranges, f"the fused activation {activation}")
    low, high = ranges[activation]
    return float_literal(low), float_literal(high)


def _floats(site: Site, weights: Tensor, bias: int) -> Sums:
    assert weights.value is not None
    constants = [
        floats(f"{site.prefix}_tensor_{weights.index}", [float(one) for one in weights.value.reshape(-1)])
    ]
    low, high = limits_of(site)
    end = [f"*out++ = limited(sum, {low}, {high});"]
    tables = "const float *weights"
    if site.has_input(bias):
        stored = site.input(bias)
        require(stored.dtype == "float32" and stored.value is not None, f"a bias of {stored.dtype}")
        assert stored.value is not None
        constants.append(
            floats(f"{site.prefix}_tensor_{stored.index}", [float(one) for one in stored.value.reshape(-1)])
        )
        end.insert(0, "sum += bias[#];")
        tables += ", const float *bias"
    values: dict[str, object] = {
        "type": "float", "weight_type": "float", "tables": tables, "begin": "float sum = 0.0f;",
        "product": "%s", "end": end, "zero": 0, "weight_zero": 0, "suffix": "",
    }  # fmt: skip
    return Sums(constants=tuple(constants), values=values, needs=("limited",))


def _wide(
    site: Site, image: Tensor, weights: Tensor, output: Tensor, *, bias: int, is_float_product: bool
) -> Sums:
    """Return the sums of int16 values with int8 weights: 64 bits, symmetric, a multiplier of 16 bits.

    Source: LiteRT quantization specification, 16x8.
    """
    require(not image.zero_points.any() and not output.zero_points.any(), "int16 with a zero point")
    require(not weights.zero_points.any(), "weights with a zero point")
    channels = output.shape[-1]
    factors = _factors(image, weights, output, channels, is_float_product=is_float_product)
    raw = [0] * channels
    is_short = False
    if site.has_input(bias):
        stored = site.input(bias)
        assert stored.value is not None
        is_short = stored.dtype == "int32"
        require(
            stored.value.size == channels, f"a bias of {stored.value.size} values for {channels} channels"
        )
        raw = [int(value) for value in stored.value.reshape(-1)]
    require(not is_short, "a bias of int32 for int16; int64 is made")
    require(max(map(abs, raw)) < 1 << 46, "a bias that is far too large")
    mantissas = [min((by.mantissa + (1 << 15)) >> 16, 32767) for by in factors]
    require(max(by.shift for by in factors) < 15, "an output scale that is far too small")
    constants = (
        _weights(site, weights),
        site.table("bias", "int64_t", raw, 8),
        site.table("mantissa", "int32_t", mantissas, 4),
        site.table("shift", "int8_t", [15 - by.shift for by in factors], 1),
    )
    low, high = activation_range(site.operator, output)
    values: dict[str, object] = {
        "type": "int16_t", "weight_type": "int8_t", "zero": 0, "weight_zero": 0, "begin": "int64_t sum = bias[#];",
        "end": [f"*out++ = (int16_t)clamped(scaled_wide(sum, mantissa[#], shift[#]), {low}, {high});"],
        "tables": "const int8_t *weights, const int64_t *bias, const int32_t *mantissa, const int8_t *shift",
        "product": "(int32_t)%s", "suffix": "",
    }  # fmt: skip
    return Sums(constants=constants, values=values, needs=("scaled_wide", "clamped"))


def _factors(
    image: Tensor, weights: Tensor, output: Tensor, channels: int, *, is_float_product: bool
) -> list[Multiplier]:
    made = []
    for scale in np.broadcast_to(weights.scales, (channels,)):
        if is_float_product and len(weights.scales) == 1:
            product = float(np.float32(image.scale) * np.float32(scale))
        else:
            product = image.scale * float(scale)
        require(output.scale > 0, "an output with scale 0")
        made.append(multiplier_of(product / output.scale))
        require(made[-1].shift <= 30, "an output scale that is far too small")
    return made


def _check_scales(
    site: Site, image: Tensor, weights: Tensor, output: Tensor, *, axis: int, bias: int
) -> None:
    require(len(image.scales) == 1 and len(output.scales) == 1, "an input or output without one scale")
    require(weights.is_quantized, "weights without a scale")
    require(len(weights.scales) == 1 or weights.axis == axis, f"scales along axis {weights.axis}, not {axis}")
    if site.has_input(bias):
        added = site.input(bias)
        require(
            added.dtype in (("int32",) if image.dtype == "int8" else ("int32", "int64"))
            and added.value is not None,
            f"a bias of {added.dtype} that is no constant",
        )


def _requantized(
    site: Site,
    image: Tensor,
    weights: Tensor,
    output: Tensor,
    matrix: npt.NDArray[np.int64],
    *,
    is_float_product: bool,
    bias: int = 2,
    is_folded: bool = True,
    has_ending: bool = False,
    is_depthwise: bool = False,
) -> tuple[tuple[Constant, ...], dict[str, object], Ending | None]:
    """Return the constants of a layer with weights, and the template's values for them.

    Args:
        matrix: weights [output channels, products of one sum].
        is_float_product: the interpreter multiplies the scales of input and weights as float32, not as double.
        bias: position of the bias among the inputs.
        is_folded: the input's zero point goes into the bias.
        has_ending: the layer can use the functions of `products`, or with `is_depthwise` those of `taps`.
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
    factors = _factors(image, weights, output, channels, is_float_product=is_float_product)
    low, high = activation_range(site.operator, output)
    ending = None
    if has_ending and is_folded:
        spread = reach - np.abs(folded)
        folded, factors = _settled(
            folded, spread, factors, Ending(zero=output.zero_point, low=low, high=high)
        )
        reach = np.abs(folded) + spread
        is_wrapping = int(reach.max()) >= 2**31
    shifts = [by.shift for by in factors]
    # A mantissa of 0 gives 0, whatever the shift.
    downs = [-by.shift - 1 if by.mantissa else 0 for by in factors]
    if has_ending and is_folded and weight_zero == 0 and int(reach.max()) < 2**30 and min(downs) >= 0:
        ending = Ending(zero=output.zero_point, low=low, high=high)
        shifts = downs
    biases, mantissas = [wrapped(int(value)) for value in folded], [by.mantissa for by in factors]
    if ending is not None:
        table = _weights(site, weights)
        if is_depthwise:
            table = integers(f"{table.name}_blocks", "int8_t", blocked_weights(matrix.T), 1)
            scales, shifts = blocked_scales(biases, mantissas), shifts + [0] * (-channels % CHANNELS)
        else:
            # Four channels at a time are read, or two.
            filling = [0] * (3 if channels < 4 else channels % 2)
            pairs = zip(biases + filling, mantissas + filling, strict=True)
            scales = [value for pair in pairs for value in pair]
            shifts = shifts + filling
        tables = (
            table,
            site.table("scales", "int32_t", scales, 4),
            site.table("places", "int8_t", shifts, 1),
        )
        layer = _pointers(f"{site.prefix}_tables_{site.operator.position}", tables)
        values: dict[str, object] = {
            "type": "int8_t", "zero": image.zero_point, "suffix": ending.suffix, "tables": "const void *const *tables"
        }  # fmt: skip
        return (*tables, layer), values, ending
    constants = (
        _weights(site, weights),
        site.table("bias", "int32_t", biases, 4),
        site.table("mantissa", "int32_t", mantissas, 4),
        site.table("shift", "int8_t", shifts, 1),
    )
    begin = f"{'uint32_t sum = (uint32_t)' if is_wrapping else 'int32_t sum = '}bias[#];"
    plain = "(int32_t)sum" if is_wrapping else "sum"
    back = "(uint32_t)" if is_wrapping else ""
    end = [
        f"sum = {back}(scaled({plain}, mantissa[#], shift[#]) + ({output.zero_point}));",
        f"*out++ = (int8_t)clamped({plain}, {low}, {high});",
    ]
    return constants, {
        "type": "int8_t", "weight_type": "int8_t", "zero": image.zero_point,
        "weight_zero": weight_zero, "begin": begin, "end": end,
        "tables": "const int8_t *weights, const int32_t *bias, const int32_t *mantissa, const int8_t *shift",
        "product": "(uint32_t)((int32_t)%s)" if is_wrapping else "(int32_t)%s", "start": back,
        "suffix": "",
    }, None  # fmt: skip


def _settled(
    biases: npt.NDArray[np.int64],
    spreads: npt.NDArray[np.int64],
    factors: Sequence[Multiplier],
    ending: Ending,
) -> tuple[npt.NDArray[np.int64], list[Multiplier]]:
    """Return smaller biases, and their multipliers, for channels whose bias alone decides their output.

    Training switches channels off, and their biases of 2**30 would keep the whole layer from the quick functions.
    Where bias - spread and bias + spread give the same output q, so does q - zero times 2**k, divided by 2**k, as long
    as the spread is less than a half of that.
    """
    new_biases, new_factors = biases.copy(), list(factors)
    for channel, (bias, spread, by) in enumerate(
        zip(biases.tolist(), spreads.tolist(), factors, strict=True)
    ):
        if abs(bias) + spread < 2**30 or by.shift > 0 or abs(wrapped(bias)) + spread >= 2**31:
            continue
        ends = {
            clamped(scaled(wrapped(bias) + end, by) + ending.zero, ending.low, ending.high)
            for end in (-spread, spread)
        }
        if len(ends) > 1:
            continue
        places = (spread + 2).bit_length() + 1
        new_biases[channel] = (ends.pop() - ending.zero) * 2**places
        new_factors[channel] = Multiplier(1 << 30, 1 - places)
    return new_biases, new_factors


def _pointers(name: str, tables: Sequence[Constant]) -> Constant:
    """Return the table of pointers to `tables`; 4 bytes each on the cores that the code is for."""
    names = ", ".join(table.name for table in tables)
    return Constant(
        name=name, c_type="void *const", count=len(tables), size_bytes=4 * len(tables), values=f"    {names}"
    )


def _weights(site: Site, weights: Tensor) -> Constant:
    assert weights.value is not None
    # Named by the tensor: layers that share weights share the table.
    values = [int(value) for value in weights.value.reshape(-1).tolist()]
    return integers(f"{site.prefix}_tensor_{weights.index}", "int8_t", values, 1)
