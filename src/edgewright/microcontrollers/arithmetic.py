"""The functions of C that kernels share; a model's file holds those alone that it calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Function:
    """One function of C, and the ones that it calls."""

    text: str
    needs: tuple[str, ...] = ()


FUNCTIONS: dict[str, Function] = {
    "high_product": Function(
        text="""\
/* The upper half of twice the product, rounded to nearest. */
static inline int32_t high_product(int32_t left, int32_t right)
{
    return (int32_t)(((int64_t)left * right + (INT32_C(1) << 30)) >> 31);
}
"""
    ),
    "shift_right": Function(
        text="""\
/* value / 2^places for 0 <= places <= 31, rounded to nearest, half away from zero. */
static int32_t shift_right(int32_t value, int32_t places)
{
    const int32_t mask = (int32_t)((UINT32_C(1) << places) - 1u);
    return (value >> places) + ((value & mask) > (mask >> 1) + (value < 0));
}
"""
    ),
    "scaled": Function(
        text="""\
/* value * mantissa / 2^31 * 2^shift, rounded twice as the interpreter does. */
static int32_t scaled(int32_t value, int32_t mantissa, int32_t shift)
{
    const int32_t left = shift > 0 ? shift : 0;
    return shift_right(high_product((int32_t)((uint32_t)value << left), mantissa), left - shift);
}
""",
        needs=("high_product", "shift_right"),
    ),
    "scaled_wide": Function(
        text="""\
/* value * mantissa / 2^places of a 48-bit sum and a 15-bit mantissa, rounded once. */
static int32_t scaled_wide(int64_t value, int32_t mantissa, int32_t places)
{
    return (int32_t)((value * mantissa + (INT64_C(1) << (places - 1))) >> places);
}
"""
    ),
    "clamped": Function(
        text="""\
static inline int32_t clamped(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}
"""
    ),
    "limited": Function(
        text="""\
static float limited(float value, float low, float high)
{
    value = value < low ? low : value;
    return high < value ? high : value;
}
"""
    ),
    "exponential": Function(
        text="""\
/* exp(x): 2^k times a Taylor series on |r| <= ln 2 / 2, in double, rounded once. */
static double exponential(double x)
{
    double sum = 1.0, term = 1.0, power;
    uint64_t bits;
    int32_t k, i;
    if (!(x > -120.0)) {
        return x <= -120.0 ? 0.0 : x;
    }
    if (x > 120.0) {
        x = 120.0;
    }
    k = (int32_t)(x * 1.4426950408889634 + (x < 0.0 ? -0.5 : 0.5));
    x -= (double)k * 0.693147180369123816490; /* ln 2 in two parts */
    x -= (double)k * 1.90821492927058770002e-10;
    for (i = 1; i < 14; ++i) {
        term *= x / (double)i;
        sum += term;
    }
    bits = (uint64_t)(k + 1023) << 52;
    memcpy(&power, &bits, sizeof power);
    return sum * power;
}
"""
    ),
    "logistic": Function(
        text="""\
/* In float, and flat or a mere exponential far out, as the interpreter does it. */
static float logistic(float x)
{
    if (x > 16.6190472f) {
        return 1.0f;
    }
    if (x < -9.0f) {
        return (float)exponential((double)x);
    }
    return 1.0f / (1.0f + (float)exponential(-(double)x));
}
""",
        needs=("exponential",),
    ),
    "hyperbolic": Function(
        text="""\
/* tanh(x); near 0, where the difference would lose its digits, by its series. */
static float hyperbolic(float x)
{
    const double wide = (double)x, twice = wide > 50.0 ? 100.0 : wide < -50.0 ? -100.0 : 2.0 * wide;
    if (wide < 1e-3 && wide > -1e-3) {
        return (float)(wide - wide * wide * wide / 3.0);
    }
    return (float)(1.0 - 2.0 / (exponential(twice) + 1.0));
}
""",
        needs=("exponential",),
    ),
    "reciprocal": Function(
        text="""\
/* 1 / (1 + x) for x in [0, 1) as Q0.31: three steps of Newton's method on half the denominator. */
static int32_t reciprocal(int32_t x)
{
    const int32_t half = (x >> 1) + (INT32_C(1) << 30);
    int32_t guess = 1515870810 + high_product(half, -1010580540); /* 48/17 - 32/17 d, as Q2.29 */
    int32_t step;
    for (step = 0; step < 3; ++step) {
        const int32_t rest = (INT32_C(1) << 29) - high_product(half, guess);
        guess += saturated_shift(high_product(guess, rest), 2);
    }
    return saturated_shift(guess, 1);
}
""",
        needs=("high_product", "saturated_shift"),
    ),
    "saturated_shift": Function(
        text="""\
static int32_t saturated_shift(int32_t value, int32_t places)
{
    if (value > INT32_MAX >> places) {
        return INT32_MAX;
    }
    return value < INT32_MIN >> places ? INT32_MIN : (int32_t)((uint32_t)value << places);
}
"""
    ),
    "sigmoid16": Function(
        text="""\
/* Sigmoid of value / (3 * 2^12) as Q0.15. The table holds 2^16 sigmoid(i / 24) - 2^15 for i = -256 to 255, and for
 * each the difference to the next one.
 */
static int32_t sigmoid16(int32_t value, const int16_t *table)
{
    const int32_t size = clamped(value, -130559, 130559), rest = size & 0x1FF; /* before 255 << 9 */
    table += 2 * (256 + (size >> 9));
    return (table[0] * 512 + table[1] * rest + (1 << 24) + (1 << 9) + (size >> 31)) >> 10;
}
""",
        needs=("clamped",),
    ),
    "tanh16": Function(
        text="""\
/* tanh of value / (3 * 2^12) as Q0.15: 2 sigmoid(2 x) - 1, see sigmoid16. */
static int32_t tanh16(int32_t value, const int16_t *table)
{
    const int32_t size = clamped(value, -(1 << 16), (1 << 16) - 1), rest = size & 0xFF;
    table += 2 * (256 + (size >> 8));
    return (table[0] * 256 + table[1] * rest + (1 << 7) + (size >> 31)) >> 8;
}
""",
        needs=("clamped",),
    ),
    "rounded": Function(
        text="""\
/* The nearest integer, half away from zero, for |value| < 2^31. */
static int32_t rounded(float value)
{
    const int32_t whole = (int32_t)value;
    const float rest = value - (float)whole;
    return rest >= 0.5f ? whole + 1 : rest <= -0.5f ? whole - 1 : whole;
}
"""
    ),
    "leading_zeros": Function(
        text="""\
static int32_t leading_zeros(uint32_t value)
{
    int32_t count = 0;
    while (count < 32 && !(value & (UINT32_C(1) << 31))) {
        value <<= 1;
        ++count;
    }
    return count;
}
"""
    ),
}


def definitions(names: Iterable[str]) -> str:
    """Return the C text of the functions called `names` and of those that they call, each once, callees first."""
    order: list[str] = []

    def add(name: str) -> None:
        if name not in order:
            for needed in FUNCTIONS[name].needs:
                add(needed)
            order.append(name)

    for name in sorted(set(names)):
        add(name)
    return "\n".join(FUNCTIONS[name].text for name in order)
