"""What cores have beyond C, and how a sum becomes an int8: for Helium (M55), for the DSP extension (M4, M7), and plain.

The second rounding of a multiplier, by 2^p and half away from zero, is floor((u + 2^(p-1)) / 2^p) with u = v for v >= 0
and v - 1 below; tables hold p - 1. Where the activation cuts off all below the zero point, u = v does as well.
Sources: Arm C Language Extensions (names of the features), Armv7-M and Armv8.1-M manuals (SMMULR; VQRDMULH, VRSHL).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.microcontrollers.layer import render

VARIANTS = """\
/* `tables` of a layer point to its weights; to scales: for each channel what its sum begins with (the bias, and the
 * zero point of the input times the weights) and a mantissa; and to the places by which it is shifted, less one.
 */

/* What the core has beyond C: Helium (M55), or the DSP extension (M4, M7, M33). Application cores have it too, but
 * other rules for registers; bytes of a word are taken to lie from the lowest to the highest.
 */
#if !defined(EDGEWRIGHT_PORTABLE) && defined(__GNUC__) && !defined(__ARM_BIG_ENDIAN) && __ARM_ARCH_PROFILE == 'M'
#define HAS_ARM_M
#endif
#if defined(HAS_ARM_M) && defined(__ARM_FEATURE_MVE)
#define HAS_HELIUM
#define GATHERED 4 /* pixels at a time, of convolutions with windows */
#include <arm_mve.h>
#elif defined(HAS_ARM_M) && defined(__ARM_FEATURE_DSP) && defined(__OPTIMIZE__)
#define HAS_DSP /* needs all registers, which -O0 does not leave */
#endif
#ifndef GATHERED
#define GATHERED 2
#endif

/* Large functions that many layers call. */
#ifdef __GNUC__
#define SHARED static __attribute__((noinline)) void
#else
#define SHARED static void
#endif
"""

_LEVEL = """\
#ifndef HAS_HELIUM
/* The output for a sum with |sum| < 2^30; it is divided by 2^(places + 1) at last. */
static inline int8_t level{{ suffix }}(int32_t sum, int32_t mantissa, int32_t places)
{
    int32_t value;
#ifdef HAS_DSP
    __asm__("smmulr %0, %1, %2" : "=r"(value) : "r"(sum * 2), "r"(mantissa));
#else
    value = (int32_t)(((int64_t)sum * mantissa + (INT32_C(1) << 30)) >> 31);
#endif
{% if not is_rectified %}
    value += value >> 31;
{% endif %}
    value = (value >> places) + ({{ 2 * zero + 1 }}); /* twice the output, and a bit to cut off */
{% if is_whole %}
#ifdef HAS_DSP
    __asm__("ssat %0, #8, %1, asr #1" : "=r"(value) : "r"(value));
    return (int8_t)value;
#endif
{% endif %}
    value >>= 1;
    return (int8_t)(value < {{ low }} ? {{ low }} : value > {{ high }} ? {{ high }} : value);
}
#else
/* Four sums, scaled: without the zero point, and not yet within the limits. `shifts` are negative. */
static inline int32x4_t scaled_by{{ suffix }}(int32x4_t sums, int32x4_t mantissa, int32x4_t shifts)
{
    sums = vqrdmulhq_s32(sums, mantissa);
{% if not is_rectified %}
    sums = vaddq_s32(sums, vshrq_n_s32(sums, 31));
{% endif %}
    return vrshlq_s32(sums, shifts);
}

/* Their outputs. */
static inline int32x4_t levels{{ suffix }}(int32x4_t sums, int32x4_t mantissa, int32x4_t shifts)
{
    sums = vaddq_n_s32(scaled_by{{ suffix }}(sums, mantissa, shifts), {{ zero }});
    return vminq_s32(vmaxq_s32(sums, vdupq_n_s32({{ low }})), vdupq_n_s32({{ high }}));
}
#endif
"""


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

    @property
    def level(self) -> str:
        """The functions that make outputs of sums."""
        return self.render(_LEVEL)

    def render(self, template: str, **values: object) -> str:
        """Return `template` with what belongs to this ending, and `values`."""
        return render(
            template,
            {
                "suffix": self.suffix, "zero": self.zero, "low": self.low, "high": self.high,
                "is_whole": (self.low, self.high) == (-128, 127), "is_rectified": self.low >= self.zero, **values,
            },
        )  # fmt: skip
