"""The integer arithmetic of quantized kernels, on Python's integers: for multipliers and tables worked out in advance.

Source: LiteRT 8-bit quantization specification; Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference" (2018), section 2.2 and appendix A. Multipliers are Q0.31 with a shift; the
product is rounded twice, half away from zero, as the interpreter does it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgewright.microcontrollers.graph import LIMITS, Operator, Tensor
from edgewright.microcontrollers.layer import UnsupportedError

_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1
ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")


@dataclass(frozen=True)
class Multiplier:
    """factor ~ mantissa / 2**31 * 2**shift, with 0 or 2**30 <= mantissa < 2**31."""

    mantissa: int
    shift: int


def multiplier_of(factor: float) -> Multiplier:
    """Return the nearest fixed-point multiplier of a factor >= 0; one under 2**-32 becomes zero."""
    if factor == 0.0:
        return Multiplier(0, 0)
    fraction, shift = math.frexp(factor)
    # C's round(): half away from zero.
    mantissa = math.floor(fraction * 2**31 + 0.5)
    if mantissa == 2**31:
        mantissa //= 2
        shift += 1
    return Multiplier(0, 0) if shift < -31 else Multiplier(mantissa, shift)


def rounded(value: float) -> int:
    """Return C's round(): the nearest integer, half away from zero."""
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def high_product(left: int, right: int) -> int:
    """Return the upper half of twice the product of two int32, rounded half away from zero; saturates at -1 * -1."""
    if left == right == _INT32_MIN:
        return _INT32_MAX
    product = left * right
    nudged = product + ((1 << 30) if product >= 0 else 1 - (1 << 30))
    # C's division cuts towards zero.
    return nudged >> 31 if nudged >= 0 else -(-nudged >> 31)


def shift_right(value: int, places: int) -> int:
    """Return value / 2**places, rounded half away from zero."""
    mask = (1 << places) - 1
    threshold = (mask >> 1) + (1 if value < 0 else 0)
    return (value >> places) + (1 if (value & mask) > threshold else 0)


def wrapped(value: int) -> int:
    """Return the int32 with the low 32 bits of `value`."""
    return (value + 2**31) % 2**32 - 2**31


def scaled(value: int, by: Multiplier) -> int:
    """Return value * by as the kernels round it."""
    left = max(by.shift, 0)
    return shift_right(high_product(wrapped(value << left), by.mantissa), max(-by.shift, 0))


def clamped(value: int, low: int, high: int) -> int:
    """Return `value` within [low, high]."""
    return min(max(value, low), high)


def activation_range(operator: Operator, output: Tensor) -> tuple[int, int]:
    """Return the lowest and highest integer that the fused activation lets through.

    Raises:
        UnsupportedError: an activation that the kernels do not fuse.
    """
    low, high = LIMITS[output.dtype]
    activation = operator.integer("FusedActivationFunction")

    def level(real: float) -> int:
        import numpy as np

        # The interpreter divides float32 by float32.
        return output.zero_point + rounded(float(np.float32(real) / np.float32(output.scale)))

    if activation == 0:
        return low, high
    if activation == 1:
        return max(low, level(0.0)), high
    if activation == 2:
        return max(low, level(-1.0)), min(high, level(1.0))
    if activation == 3:
        return max(low, level(0.0)), min(high, level(6.0))
    name = ACTIVATIONS[activation] if activation < len(ACTIVATIONS) else str(activation)
    raise UnsupportedError(f"a fused activation {name}")
