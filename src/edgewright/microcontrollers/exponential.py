"""exp, logistic and tanh in fixed point, on Python's integers: for tables worked out in advance.

Source: the fixed-point exponential of Jacob et al. (2018): exp(-1/8) times a Taylor series on [-1/4, 0), then one
factor exp(-2**k) for each bit of the rest. Reciprocals are three steps of Newton's method from 48/17 - 32/17 d.
"""

from __future__ import annotations

import math

from edgewright.microcontrollers.fixed_point import clamped, high_product, shift_right, wrapped

_INT32_MAX = 2**31 - 1
# Logistic and tanh take Q4.27.
_INTEGER_BITS = 4


def logistic_of(value: int) -> int:
    """Return 1 / (1 + exp(-value)) as Q0.31, `value` as Q4.27."""
    if value == 0:
        return 1 << 30
    upper = reciprocal(exp_of_negative(-abs(value), _INTEGER_BITS))
    return upper if value > 0 else _INT32_MAX - upper


def tanh_of(value: int) -> int:
    """Return tanh(value) as Q0.31, `value` as Q4.27."""
    if value == 0:
        return 0
    # tanh(x) = (1 - exp(-2x)) / (1 + exp(-2x)); twice a Q4.27 is the same bits read as Q5.26.
    size = clamped(
        (_half_reciprocal(exp_of_negative(-abs(value), _INTEGER_BITS + 1)) - (1 << 29)) << 2,
        -(2**31),
        _INT32_MAX,
    )
    return size if value > 0 else -size


def reciprocal(x: int) -> int:
    """Return 1 / (1 + x) for x in [0, 1], both Q0.31."""
    return clamped(_half_reciprocal(x) << 1, -(2**31), _INT32_MAX)


def _half_reciprocal(x: int) -> int:
    """Return 2 / (1 + x) as Q2.29, for x as Q0.31."""
    half = (x + _INT32_MAX + 1) // 2
    guess = 1515870810 + high_product(half, -1010580540)
    for _ in range(3):
        rest = (1 << 29) - high_product(half, guess)
        guess += clamped(high_product(guess, rest) << 2, -(2**31), _INT32_MAX)
    return guess


def exp_of_negative(value: int, integer_bits: int) -> int:
    """Return exp(value) as Q0.31 for value <= 0 in fixed point with `integer_bits` before the point."""
    if value == 0:
        return _INT32_MAX
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    rest = (value & (quarter - 1)) - quarter
    result = _exp_of_quarter(clamped(rest << integer_bits, -(2**31), _INT32_MAX))
    remainder = wrapped(rest - value)
    for power in range(-2, integer_bits):
        if remainder & (1 << (fraction_bits + power)):
            result = high_product(result, _EXP_OF_POWERS[power])
    return result


_EXP_OF_POWERS = {power: math.floor(math.exp(-(2.0**power)) * 2**31 + 0.5) for power in range(-2, 5)}


def _exp_of_quarter(value: int) -> int:
    """Return exp(value) for -1/4 <= value < 0, both as Q0.31."""
    middle = math.floor(math.exp(-0.125) * 2**31 + 0.5)
    third = math.floor(2**31 / 3 + 0.5)
    x = value + (1 << 28)
    x2 = high_product(x, x)
    x3 = high_product(x2, x)
    x4 = high_product(x2, x2)
    series = shift_right(high_product(shift_right(x4, 2) + x3, third) + x2, 1)
    return middle + high_product(middle, x + series)
