"""Sums of int8 products as C: for Helium (M55), for the DSP extension (M4, M7), and in plain C for everything else.

A function multiplies rows by all weights, two rows and two channels at a time (Helium: four channels), so that what is
loaded is used twice. The variants add the same integers, so that they agree bit by bit; -DEDGEWRIGHT_PORTABLE chooses
plain C everywhere. Sources: Arm C Language Extensions (names of the features), Armv7-M and Armv8.1-M manuals (SMLAD,
SXTB16, SMMULR; VMLADAVA, VQRDMULH, VRSHL).

The second rounding of a multiplier, by 2^p and half away from zero, is floor((u + 2^(p-1)) / 2^p) with u = v for v >= 0
and v - 1 below; tables hold p - 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.microcontrollers.layer import render

_VARIANTS = """\
/* What the core has beyond C: Helium (M55), or the DSP extension (M4, M7, M33). */
#if !defined(EDGEWRIGHT_PORTABLE) && defined(__ARM_FEATURE_MVE) && defined(__GNUC__)
#define HAS_HELIUM
#include <arm_mve.h>
#elif !defined(EDGEWRIGHT_PORTABLE) && defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
#define HAS_DSP

/* Four bytes. */
static inline uint32_t word(const int8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* Bytes 0 and 2 as two int16. */
static inline uint32_t even(uint32_t bytes)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(bytes));
    return pair;
}

/* Bytes 1 and 3 as two int16. */
static inline uint32_t odd(uint32_t bytes)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(bytes));
    return pair;
}
#endif
"""

_BOTH = """\
#ifdef HAS_DSP
/* sum and the products of both halves. */
static inline int32_t both(uint32_t left, uint32_t right, int32_t sum)
{
    __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(left), "r"(right));
    return sum;
}
#endif
"""

_HALVES = """\
#ifdef HAS_DSP
/* sum and the product of the lower halves. */
static inline int32_t lower(uint32_t left, uint32_t right, int32_t sum)
{
    __asm__("smlabb %0, %1, %2, %0" : "+r"(sum) : "r"(left), "r"(right));
    return sum;
}

/* sum and the product of the upper halves. */
static inline int32_t upper(uint32_t left, uint32_t right, int32_t sum)
{
    __asm__("smlatt %0, %1, %2, %0" : "+r"(sum) : "r"(left), "r"(right));
    return sum;
}

/* One tap of four channels; the next row of weights. */
#define TAP(t)                                                     \\
    {                                                              \\
        const uint32_t a = word(w), b = word(tap[t] + c);          \\
        const uint32_t a_even = even(a), b_even = even(b);         \\
        const uint32_t a_odd = odd(a), b_odd = odd(b);             \\
        w += channels;                                             \\
        s0 = lower(a_even, b_even, s0);                            \\
        s1 = lower(a_odd, b_odd, s1);                              \\
        s2 = upper(a_even, b_even, s2);                            \\
        s3 = upper(a_odd, b_odd, s3);                              \\
    }
#endif
"""

_SCALED = """\
/* Twice what scaled() gives, its lowest bit not yet cut off, for |value| < 2^30 and a division by 2^(places + 1). */
static inline int32_t scaled_twice(int32_t value, int32_t mantissa, int32_t places)
{
#ifdef HAS_DSP
    __asm__("smmulr %0, %1, %2" : "=r"(value) : "r"(value * 2), "r"(mantissa));
#else
    value = high_product(value, mantissa);
#endif
    return ((value + (value >> 31)) >> places) + 1;
}
"""

_SUMS = """\
#ifndef HAS_HELIUM
/* Sums of products of one row, with one channel. */
static inline int32_t sum_of_one(const int8_t *w, const int8_t *x, int32_t depth, int32_t sum)
{
    int32_t k = depth;
#ifdef HAS_DSP
    for (; k >= 4; k -= 4, w += 4, x += 4) {
        const uint32_t a = word(w), b = word(x);
        sum = both(odd(a), odd(b), both(even(a), even(b), sum));
    }
#endif
    for (; k > 0; --k) {
        sum += *w++ * *x++;
    }
    return sum;
}

/* One row, two channels. */
static inline void sums_of_two(const int8_t *w, const int8_t *x, int32_t depth, int32_t sums[2])
{
    const int8_t *v = w + depth;
    int32_t k = depth, first = sums[0], second = sums[1];
#ifdef HAS_DSP
    for (; k >= 4; k -= 4, w += 4, v += 4, x += 4) {
        const uint32_t b = word(x), b_even = even(b), b_odd = odd(b);
        uint32_t a = word(w);
        first = both(odd(a), b_odd, both(even(a), b_even, first));
        a = word(v);
        second = both(odd(a), b_odd, both(even(a), b_even, second));
    }
#endif
    for (; k > 0; --k) {
        const int32_t b = *x++;
        first += *w++ * b;
        second += *v++ * b;
    }
    sums[0] = first;
    sums[1] = second;
}

/* Two rows, two channels: sums[0] and [1] of the first row. `wide` holds what `widen` made of the rows. */
static inline void sums_of_four(const int8_t *w, const int8_t *x, const uint32_t *wide, int32_t depth, int32_t sums[4])
{
    const int32_t whole = depth & ~3;
    int32_t k = depth, s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
    const int8_t *y = x + depth;
#ifdef HAS_DSP
    const int8_t *v = w + depth;
    const int8_t *const end = w + whole;
    if (whole > 0) {
        uint32_t a, c, pair, left, right;
        /* Compilers run out of registers here and keep pointers on the stack. */
        __asm__ volatile(
            "1: ldr %[a], [%[w]], #4\\n"
            "ldr %[c], [%[v]], #4\\n"
            "ldrd %[left], %[right], [%[wide]], #8\\n"
            "sxtb16 %[pair], %[a]\\n"
            "smlad %[s0], %[pair], %[left], %[s0]\\n"
            "smlad %[s2], %[pair], %[right], %[s2]\\n"
            "sxtb16 %[pair], %[c]\\n"
            "smlad %[s1], %[pair], %[left], %[s1]\\n"
            "smlad %[s3], %[pair], %[right], %[s3]\\n"
            "ldrd %[left], %[right], [%[wide]], #8\\n"
            "sxtb16 %[pair], %[a], ror #8\\n"
            "smlad %[s0], %[pair], %[left], %[s0]\\n"
            "smlad %[s2], %[pair], %[right], %[s2]\\n"
            "sxtb16 %[pair], %[c], ror #8\\n"
            "smlad %[s1], %[pair], %[left], %[s1]\\n"
            "smlad %[s3], %[pair], %[right], %[s3]\\n"
            "cmp %[w], %[end]\\n"
            "bne 1b"
            : [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [w] "+&r"(w), [v] "+&r"(v),
              [wide] "+&r"(wide), [a] "=&r"(a), [c] "=&r"(c), [pair] "=&r"(pair), [left] "=&r"(left),
              [right] "=&r"(right)
            : [end] "r"(end)
            : "cc", "memory");
    }
    k -= whole;
    x += whole;
    y += whole;
#else
    (void)wide;
    (void)whole;
#endif
    for (; k > 0; --k) {
        const int32_t c = w[depth], a = *w++, b = *x++, d = *y++;
        s0 += a * b;
        s1 += c * b;
        s2 += a * d;
        s3 += c * d;
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

/* Two rows as pairs of int16: of four values, bytes 0 and 2 of the first row, of the second, then bytes 1 and 3. */
static inline void widen(const int8_t *x, uint32_t *wide, int32_t depth)
{
#ifdef HAS_DSP
    int32_t k;
    for (k = depth; k >= 4; k -= 4, x += 4, wide += 4) {
        const uint32_t b = word(x), d = word(x + depth);
        wide[0] = even(b);
        wide[1] = even(d);
        wide[2] = odd(b);
        wide[3] = odd(d);
    }
#else
    (void)x;
    (void)wide;
    (void)depth;
#endif
}
#endif
"""

_LEVEL = """\
/* The output for a sum. */
static inline int8_t level{{ suffix }}(int32_t sum, int32_t mantissa, int32_t places)
{
    const int32_t twice = scaled_twice(sum, mantissa, places) + ({{ 2 * zero }});
{% if is_whole %}
#ifdef HAS_DSP
    int32_t value;
    __asm__("ssat %0, #8, %1, asr #1" : "=r"(value) : "r"(twice));
    return (int8_t)value;
#else
    return (int8_t)clamped(twice >> 1, {{ low }}, {{ high }});
#endif
{% else %}
    return (int8_t)clamped(twice >> 1, {{ low }}, {{ high }});
{% endif %}
}

#ifdef HAS_HELIUM
/* The outputs for four sums, as 32 bits. */
static inline int32x4_t levels{{ suffix }}(int32x4_t sums, int32x4_t mantissa, int32x4_t places)
{
    sums = vqrdmulhq_s32(sums, mantissa);
    sums = vrshlq_s32(vaddq_s32(sums, vshrq_n_s32(sums, 31)), vmvnq_s32(places));
    sums = vaddq_n_s32(sums, {{ zero }});
    return vminq_s32(vmaxq_s32(sums, vdupq_n_s32({{ low }})), vdupq_n_s32({{ high }}));
}
#endif
"""

_ROWS = """\
/* Rows of `depth` values times the weights of all channels. */
static void rows{{ suffix }}(const int8_t *in, int8_t *out, const int8_t *weights, const int32_t *bias,
    const int32_t *mantissa, const int8_t *places, int32_t rows, int32_t depth, int32_t channels,
    uint32_t *wide)
{
    int32_t c;
#ifdef HAS_HELIUM
    (void)wide;
    for (; rows > 0; --rows, in += depth, out += channels) {
        for (c = 0; c < channels; c += 4) {
            const mve_pred16_t some = vctp32q((uint32_t)(channels - c));
            const int8_t *x = in, *w0 = weights + c * depth;
            const int8_t *w1 = w0 + (c + 1 < channels ? depth : 0);
            const int8_t *w2 = w1 + (c + 2 < channels ? depth : 0);
            const int8_t *w3 = w2 + (c + 3 < channels ? depth : 0);
            int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, k = depth;
            int32x4_t sums;
            for (; k >= 16; k -= 16, x += 16, w0 += 16, w1 += 16, w2 += 16, w3 += 16) {
                const int8x16_t b = vldrbq_s8(x);
                s0 = vmladavaq_s8(s0, vldrbq_s8(w0), b);
                s1 = vmladavaq_s8(s1, vldrbq_s8(w1), b);
                s2 = vmladavaq_s8(s2, vldrbq_s8(w2), b);
                s3 = vmladavaq_s8(s3, vldrbq_s8(w3), b);
            }
            if (k > 0) {
                const mve_pred16_t rest = vctp8q((uint32_t)k);
                const int8x16_t b = vldrbq_z_s8(x, rest);
                s0 = vmladavaq_s8(s0, vldrbq_z_s8(w0, rest), b);
                s1 = vmladavaq_s8(s1, vldrbq_z_s8(w1, rest), b);
                s2 = vmladavaq_s8(s2, vldrbq_z_s8(w2, rest), b);
                s3 = vmladavaq_s8(s3, vldrbq_z_s8(w3, rest), b);
            }
            sums = vdupq_n_s32(s0);
            sums = vsetq_lane_s32(s1, sums, 1);
            sums = vsetq_lane_s32(s2, sums, 2);
            sums = vsetq_lane_s32(s3, sums, 3);
            sums = vaddq_s32(sums, vldrwq_z_s32(bias + c, some));
            sums = levels{{ suffix }}(sums, vldrwq_z_s32(mantissa + c, some), vldrbq_z_s32(places + c, some));
            vstrbq_p_s32(out + c, sums, some);
        }
    }
#else
    for (; rows > 1; rows -= 2, in += 2 * depth, out += 2 * channels) {
        const int8_t *w = weights;
        widen(in, wide, depth);
        for (c = 0; c + 1 < channels; c += 2, w += 2 * depth) {
            const int32_t m0 = mantissa[c], m1 = mantissa[c + 1], p0 = places[c], p1 = places[c + 1];
            int8_t *const to = out + c;
            int32_t sums[4];
            sums[0] = sums[2] = bias[c];
            sums[1] = sums[3] = bias[c + 1];
            sums_of_four(w, in, wide, depth, sums);
            to[0] = level{{ suffix }}(sums[0], m0, p0);
            to[1] = level{{ suffix }}(sums[1], m1, p1);
            to[channels] = level{{ suffix }}(sums[2], m0, p0);
            to[channels + 1] = level{{ suffix }}(sums[3], m1, p1);
        }
        if (c < channels) {
            out[c] = level{{ suffix }}(sum_of_one(w, in, depth, bias[c]), mantissa[c], places[c]);
            out[channels + c] =
                level{{ suffix }}(sum_of_one(w, in + depth, depth, bias[c]), mantissa[c], places[c]);
        }
    }
    if (rows > 0) {
        const int8_t *w = weights;
        for (c = 0; c + 1 < channels; c += 2, w += 2 * depth) {
            int32_t sums[2];
            sums[0] = bias[c];
            sums[1] = bias[c + 1];
            sums_of_two(w, in, depth, sums);
            out[c] = level{{ suffix }}(sums[0], mantissa[c], places[c]);
            out[c + 1] = level{{ suffix }}(sums[1], mantissa[c + 1], places[c + 1]);
        }
        if (c < channels) {
            out[c] = level{{ suffix }}(sum_of_one(w, in, depth, bias[c]), mantissa[c], places[c]);
        }
    }
#endif
}
"""

_TAPS = """\
/* One pixel of a depthwise convolution: {{ taps }} pointers to the pixels under the window. */
static void taps{{ taps }}{{ suffix }}(const int8_t *const *tap, int8_t *out, const int8_t *weights,
    const int32_t *bias, const int32_t *mantissa, const int8_t *places, int32_t channels)
{
    int32_t c, t;
#ifdef HAS_HELIUM
    const int32_t whole = channels - channels % 8;
    for (c = 0; c < whole; c += 8) {
        /* Channels 0, 2, 4, 6 of the eight, and 1, 3, 5, 7. */
        int32x4x2_t sums = vld2q_s32(bias + c);
        const int32x4x2_t by = vld2q_s32(mantissa + c);
        const int16x8_t shifts = vldrbq_s16(places + c);
        const int8_t *w = weights + c;
        int16x8_t made;
        for (t = 0; t < {{ taps }}; ++t, w += channels) {
            const int16x8_t a = vldrbq_s16(w), b = vldrbq_s16(tap[t] + c);
            sums.val[0] = vaddq_s32(sums.val[0], vmullbq_int_s16(a, b));
            sums.val[1] = vaddq_s32(sums.val[1], vmulltq_int_s16(a, b));
        }
        made = vreinterpretq_s16_s32(levels{{ suffix }}(sums.val[0], by.val[0], vmovlbq_s16(shifts)));
        made = vmovntq_s32(made, levels{{ suffix }}(sums.val[1], by.val[1], vmovltq_s16(shifts)));
        vstrbq_s16(out + c, made);
    }
#else
    const int32_t whole = channels - channels % 4;
    for (c = 0; c < whole; c += 4) {
        const int8_t *w = weights + c;
        int32_t s0 = bias[c], s1 = bias[c + 1], s2 = bias[c + 2], s3 = bias[c + 3];
{% if is_unrolled %}
#ifdef HAS_DSP
{% for t in range(taps) %}
        TAP({{ t }})
{% endfor %}
        (void)t;
#else
{% endif %}
        for (t = 0; t < {{ taps }}; ++t, w += channels) {
            const int8_t *x = tap[t] + c;
            s0 += w[0] * x[0];
            s1 += w[1] * x[1];
            s2 += w[2] * x[2];
            s3 += w[3] * x[3];
        }
{% if is_unrolled %}
#endif
{% endif %}
        {
            const int32_t m0 = mantissa[c], m1 = mantissa[c + 1], m2 = mantissa[c + 2], m3 = mantissa[c + 3];
            const int32_t p0 = places[c], p1 = places[c + 1], p2 = places[c + 2], p3 = places[c + 3];
            out[c] = level{{ suffix }}(s0, m0, p0);
            out[c + 1] = level{{ suffix }}(s1, m1, p1);
            out[c + 2] = level{{ suffix }}(s2, m2, p2);
            out[c + 3] = level{{ suffix }}(s3, m3, p3);
        }
    }
#endif
    for (c = whole; c < channels; ++c) {
        int32_t sum = bias[c];
        for (t = 0; t < {{ taps }}; ++t) {
            sum += weights[t * channels + c] * tap[t][c];
        }
        out[c] = level{{ suffix }}(sum, mantissa[c], places[c]);
    }
}
"""


# Taps of a depthwise convolution that are written one after another for the DSP extension.
MOST_UNROLLED = 9
# The functions for rows take a buffer of this type for two rows as int16.
WIDE_BYTES = 4
NEEDS = ("high_product", "clamped")


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How the sums of a layer become int8: output zero point and limits."""

    zero: int
    low: int
    high: int

    @property
    def suffix(self) -> str:
        """What the names of the functions for this ending end with."""
        return f"_{self.zero + 128}_{self.low + 128}_{self.high + 128}"

    def _render(self, template: str, taps: int = 0) -> str:
        return render(
            template,
            {
                "suffix": self.suffix, "zero": self.zero, "low": self.low, "high": self.high,
                "taps": taps, "is_unrolled": taps <= MOST_UNROLLED, "is_whole": (self.low, self.high) == (-128, 127),
            },
        )  # fmt: skip

    @property
    def rows(self) -> tuple[str, ...]:
        """The functions that `rows<suffix>` needs, and itself."""
        return (_VARIANTS, _BOTH, _SCALED, _SUMS, self._render(_LEVEL), self._render(_ROWS))

    def taps(self, taps: int) -> tuple[str, ...]:
        """Return the functions that `taps<taps><suffix>` needs, and itself."""
        return (_VARIANTS, _HALVES, _SCALED, self._render(_LEVEL), self._render(_TAPS, taps))
