"""What the gates of the int8 LSTM are made of, as C: curves between the entries of a table, sums, products, roundings.

Sums become 16 bits as variants.py says, where the sign of a sum does for that of its product: they differ for products
of 0 alone, which come out as 0 both ways. Products of two values of 16 bits are multiplied by 2^30 / 2^31 first, so
that the two roundings together are (v + 2^(n-1) + (v < 0 ? -1 : 1)) >> n. Helium interpolates |v| in 16 bits: the lower
bits of rest times difference are cut off before the rest is added and halved, which changes nothing.
Sources: Armv7E-M and Armv8.1-M manuals (SMMLAR, SMLAD, QADD16; VRHADD, VQRSHRN, gather loads).
"""

from __future__ import annotations

GATES = """\
#ifndef HAS_HELIUM
#ifndef HAS_DSP
static inline int32_t gate_limited(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}
#endif

/* sum + 2^places * entry + the lowest places of `at` * difference of the entries. */
#ifdef HAS_DSP
#define BETWEEN(result, table, at, places, sum) \\
    do { \\
        uint32_t pair, parts = 1u << (places); \\
        memcpy(&pair, (table) + 2 * ((at) >> (places)), sizeof pair); \\
        __asm__("bfi %0, %1, #16, #" #places : "+r"(parts) : "r"(at)); \\
        result = both(pair, parts, sum); \\
    } while (0)
#else
#define BETWEEN(result, table, at, places, sum) \\
    do { \\
        const int16_t *const pair = (table) + 2 * ((at) >> (places)); \\
        result = (sum) + pair[0] * (1 << (places)) + pair[1] * ((at) & ((1 << (places)) - 1)); \\
    } while (0)
#endif

/* Sigmoid of value / (3 * 2^12) as Q0.15. The table is given by its middle, see `sigmoid16`; half: 2^24 + 2^9. */
static inline int32_t gate_sigmoid(int32_t value, const int16_t *table, int32_t half)
{
    int32_t result;
    BETWEEN(result, table, value, 9, half + (value >> 31));
    return result >> 10;
}

/* tanh of value / (3 * 2^12) as Q0.15: twice the sigmoid of the double. */
static inline int32_t gate_tanh(int32_t value, const int16_t *table)
{
    int32_t result;
#ifdef HAS_DSP
    __asm__("ssat %0, #17, %0" : "+r"(value));
#else
    value = gate_limited(value, -65536, 65535);
#endif
    BETWEEN(result, table, value, 8, 128 + (value >> 31));
    return result >> 8;
}

/* The sum within 16 bits. */
static inline int32_t gate_sum(int32_t left, int32_t right)
{
    int32_t sum = left + right;
#ifdef HAS_DSP
    __asm__("ssat %0, #16, %0" : "+r"(sum));
    return sum;
#else
    return gate_limited(sum, -32768, 32767);
#endif
}

#ifdef HAS_DSP
/* Two parts, limited to 16 bits, in one word. */
static inline int32_t gate_pair(int32_t low, int32_t high)
{
    int32_t pair;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair) : "r"(low), "r"(high));
    return pair;
}

/* Three times the sums of both parts of two gates. */
static inline void gate_values(int32_t left, int32_t right, int32_t values[2])
{
    const int32_t three = 3;
    __asm__("qadd16 %0, %1, %2" : "=r"(left) : "r"(left), "r"(right));
    __asm__("smulbb %0, %1, %2" : "=r"(values[0]) : "r"(left), "r"(three));
    __asm__("smultb %0, %1, %2" : "=r"(values[1]) : "r"(left), "r"(three));
}
#else
/* twice * mantissa / 2^32 / 2^places within 16 bits; half: 2^(places - 1). */
static inline int32_t gate_part(int32_t twice, int32_t mantissa, int32_t half, int32_t places)
{
    const int32_t value = (int32_t)(((int64_t)twice * mantissa + (INT64_C(1) << 31)) >> 32);
    return gate_limited(places > 0 ? (value + half + (twice >> 31)) >> places : value, -32768, 32767);
}
#endif

/* left * right / 2^places for 0 < left < 2^15 and 16 bits; `half` is 2^(places - 1) + 1. */
static inline int32_t gate_product(int32_t left, int32_t right, int32_t half, int32_t places)
{
    return (half + 2 * (right >> 31) + (int16_t)left * (int16_t)right) >> places;
}

/* Of four values each, twice bytes 0 and 2, then 1 and 3, as two int16. */
static inline void widen_values(const int8_t *x, uint32_t *wide, int32_t count)
{
#ifdef HAS_DSP
    for (; count >= 4; count -= 4, x += 4, wide += 2) {
        const uint32_t four = word(x);
        __asm__("sadd16 %0, %1, %1" : "=r"(wide[0]) : "r"(even(four)));
        __asm__("sadd16 %0, %1, %1" : "=r"(wide[1]) : "r"(odd(four)));
    }
#else
    (void)x;
    (void)wide;
    (void)count;
#endif
}
#else
/* Sigmoid of value / 2^12 as Q0.15; the table is given by its middle. */
static inline int16x8_t gate_sigmoids(int16x8_t value, const int16_t *table)
{
    const int16x8_t sign = vshrq_n_s16(value, 15);
    const uint16x8_t size = vreinterpretq_u16_s16(vabsq_s16(value)), by = vdupq_n_u16(3 << 7);
    const uint16x8_t at = vshlq_n_u16(vmulhq_u16(size, by), 2), rest = vmulq_u16(size, by);
    const int16x8_t low = vldrhq_gather_offset_s16(table, at), step = vldrhq_gather_offset_s16(table + 1, at);
    const uint16x8_t more = vmulhq_u16(rest, vreinterpretq_u16_s16(step));
    const int16x8_t result = veorq_s16(vrhaddq_s16(low, vreinterpretq_s16_u16(more)), sign);
    return vaddq_n_s16(vsubq_s16(result, sign), 1 << 14);
}

/* tanh of size * factor / 2^8 / (3 * 2^12) with the sign of `value`; that is no more than 255 * 2^8. */
static inline int16x8_t gate_tanhs(int16x8_t value, uint16x8_t size, uint16_t factor, const int16_t *table)
{
    const uint16x8_t by = vdupq_n_u16(factor);
    const int16x8_t sign = vshrq_n_s16(value, 15);
    const uint16x8_t at = vshlq_n_u16(vmulhq_u16(size, by), 2), rest = vmulq_u16(size, by);
    const int16x8_t low = vldrhq_gather_offset_s16(table, at), step = vldrhq_gather_offset_s16(table + 1, at);
    const uint16x8_t more = vrmulhq_u16(rest, vreinterpretq_u16_s16(step));
    return vsubq_s16(veorq_s16(vaddq_s16(low, vreinterpretq_s16_u16(more)), sign), sign);
}

/* |value| up to a limit. */
static inline uint16x8_t gate_size(int16x8_t value, uint16_t most)
{
    return vminq_u16(vreinterpretq_u16_s16(vabsq_s16(value)), vdupq_n_u16(most));
}

/* Products of two values of 16 bits, with what their rounding adds. */
static inline int32x4_t gate_rounded(int32x4_t value)
{
    return vaddq_s32(value, vorrq_n_s32(vshrq_n_s32(value, 31), 1));
}
#endif
"""
