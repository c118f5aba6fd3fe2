"""Square roots without a library: of float32 exactly rounded, and the inverse one of integers in fixed point.

Source: the digit-by-digit square root on integers; Newton's method for 1 / sqrt(x): y (3 - x y**2) / 2 from y = 1, as
the interpreter takes it in Q3.28.
"""

from __future__ import annotations

from edgewright.microcontrollers.fixed_point import Multiplier, clamped, high_product

_INT32_MAX = 2**31 - 1
_NEWTON_STEPS = 5

SQUARE_ROOT = """\
/* The square root, exactly rounded: digit by digit on an integer of 50 bits. */
static float square_root(float x)
{
    uint32_t bits;
    uint64_t number, root = 0, bit = UINT64_C(1) << 48;
    int32_t power;
    if (!(x > 0.0f)) {
        return x == 0.0f ? x : (x - x) / (x - x);
    }
    memcpy(&bits, &x, sizeof bits);
    if (bits >= 0x7F800000u) {
        return x;
    }
    power = (int32_t)(bits >> 23);
    number = bits & 0x7FFFFFu;
    if (power > 0) {
        number |= 0x800000u;
    } else {
        power = 1;
        while (number < 0x800000u) {
            number <<= 1;
            --power;
        }
    }
    /* x = number 2^(power - 150); an even power goes out of the root. */
    number <<= power & 1 ? 25 : 26;
    power = (power & 1 ? power - 1 : power - 2) / 2;
    while (bit > 0) {
        if (number >= root + bit) {
            number -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
        bit >>= 2;
    }
    /* 25 bits: the last one rounds; there are no ties. */
    bits = (uint32_t)((root + 1) >> 1) + ((uint32_t)(power + 64 - 1) << 23);
    memcpy(&x, &bits, sizeof x);
    return x;
}
"""

INVERSE_ROOT = """\
/* 1 / sqrt(value) = mantissa / 2^31 * 2^-shift for value > 1, by Newton's method in Q3.28. */
static int32_t inverse_root(int32_t value, int32_t *shift)
{
    int32_t x = INT32_C(1) << 28, half, step, pairs;
    if (value <= 1) {
        *shift = 0;
        return INT32_MAX;
    }
    *shift = 11;
    while (value >= INT32_C(1) << 29) {
        value /= 4;
        ++*shift;
    }
    pairs = (leading_zeros((uint32_t)value) - 1) / 2 - 1;
    *shift -= pairs;
    value <<= 2 * pairs;
    half = shift_right(value >> 1, 1);
    for (step = 0; step < 5; ++step) {
        const int32_t cube = saturated_shift(high_product(high_product(x, x), x), 6);
        x = saturated_shift(high_product((INT32_C(1) << 28) + (INT32_C(1) << 27), x) - high_product(half, cube), 3);
    }
    x = high_product(x, 1518500250); /* sqrt(2) / 2 */
    if (*shift < 0) {
        x = (int32_t)((uint32_t)x << -*shift);
        *shift = 0;
    }
    return x;
}
"""


def inverse_root(value: int) -> Multiplier:
    """Return 1 / sqrt(value) for an integer >= 1 as a multiplier, as the C function computes it."""
    if value <= 1:
        return Multiplier(_INT32_MAX, 0)
    shift = 11
    while value >= 1 << 29:
        value //= 4
        shift += 1
    pairs = (32 - value.bit_length() - 1) // 2 - 1
    shift -= pairs
    value <<= 2 * pairs
    half = ((value >> 1) + 1) >> 1
    x = 1 << 28
    for _ in range(_NEWTON_STEPS):
        cube = _raised(high_product(high_product(x, x), x), 6)
        x = _raised(high_product((1 << 28) + (1 << 27), x) - high_product(half, cube), 3)
    x = high_product(x, 1518500250)
    if shift < 0:
        x, shift = x << -shift, 0
    return Multiplier(x, -shift)


def _raised(value: int, places: int) -> int:
    return clamped(value << places, -(2**31), _INT32_MAX)
