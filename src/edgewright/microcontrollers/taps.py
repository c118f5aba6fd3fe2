"""Depthwise sums as C: one pixel at a time, given pointers to the pixels under the window.

The weights lie in blocks of eight channels, [channels / 8][taps][8], the last one filled up with zeros, so that a core
walks through them with offsets that are constants. So do the scales, [channels / 8][16]: biases of channels 0, 2, 4, 6
of the eight, and of 1, 3, 5, 7, as Helium widens them, and the same of the mantissas. Helium adds the products of two
taps as int16, which they fit in unless both weights are -128, before it widens them. See `products` for the variants.
Sources: Armv7-M and Armv8.1-M manuals (SXTB16, SMLABB, SMLATT; VMUL, VMOVLB, VQMOVNB).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewright.core.tensors import Array
from edgewright.microcontrollers.variants import VARIANTS, Ending

_TAP = """\
#ifdef HAS_DSP
/* One tap of four channels. Compilers load too much at once here, and run out of registers. */
#define TAP(from, in_from, w, in_w)                                                                        \\
    {                                                                                                      \\
        uint32_t a, b, i, j;                                                                               \\
        __asm__ volatile("ldr %[b], [%[tap], %[in_tap]]\\n"                                                 \\
                         "ldr %[a], [%[weight], %[in_weight]]\\n"                                           \\
                         "ldr %[b], [%[b], %[channel]]\\n"                                                  \\
                         "sxtb16 %[i], %[a]\\n"                                                             \\
                         "sxtb16 %[j], %[b]\\n"                                                             \\
                         "smlabb %[s0], %[i], %[j], %[s0]\\n"                                               \\
                         "smlatt %[s2], %[i], %[j], %[s2]\\n"                                               \\
                         "sxtb16 %[a], %[a], ror #8\\n"                                                     \\
                         "sxtb16 %[b], %[b], ror #8\\n"                                                     \\
                         "smlabb %[s1], %[a], %[b], %[s1]\\n"                                               \\
                         "smlatt %[s3], %[a], %[b], %[s3]"                                                 \\
                         : [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [a] "=&r"(a),   \\
                           [b] "=&r"(b), [i] "=&r"(i), [j] "=&r"(j)                                        \\
                         : [tap] "r"(from), [in_tap] "i"(in_from), [weight] "r"(w), [in_weight] "i"(in_w), \\
                           [channel] "r"(at)                                                               \\
                         : "memory");                                                                      \\
    }
#elif defined(HAS_HELIUM)
/* One tap of eight channels, as int16 in q0. */
#define PRODUCTS                                                                                           \\
    "ldr %[a], [%[tap], %[in_tap]]\\n"                                                                      \\
    "add %[a], %[channel]\\n"                                                                               \\
    "vldrb.s16 q0, [%[a]]\\n"                                                                               \\
    "vldrb.s16 q1, [%[weight], %[in_weight]]\\n"                                                            \\
    "vmul.i16 q0, q0, q1\\n"
/* The next tap too, which fits in. */
#define NEXT                                                                                               \\
    "ldr %[a], [%[tap], %[in_tap] + 4]\\n"                                                                  \\
    "add %[a], %[channel]\\n"                                                                               \\
    "vldrb.s16 q1, [%[a]]\\n"                                                                               \\
    "vldrb.s16 q2, [%[weight], %[in_weight] + 8]\\n"                                                        \\
    "vmul.i16 q1, q1, q2\\n"                                                                                \\
    "vadd.i16 q0, q0, q1\\n"
/* Loads that widen take the lower registers alone. */
#define TAP(next, from, in_from, w, in_w)                                                                  \\
    {                                                                                                      \\
        uint32_t a;                                                                                        \\
        __asm__ volatile(PRODUCTS next                                                                     \\
                         "vmovlb.s16 q1, q0\\n"                                                             \\
                         "vadd.i32 %q[even], %q[even], q1\\n"                                               \\
                         "vmovlt.s16 q0, q0\\n"                                                             \\
                         "vadd.i32 %q[odd], %q[odd], q0"                                                   \\
                         : [even] "+&w"(even), [odd] "+&w"(odd), [a] "=&l"(a)                              \\
                         : [tap] "r"(from), [in_tap] "i"(in_from), [weight] "l"(w), [in_weight] "i"(in_w), \\
                           [channel] "r"(at)                                                               \\
                         : "q0", "q1", "q2", "memory");                                                    \\
    }
#endif
"""

_TAPS = """\
/* One pixel of a depthwise convolution: {{ taps }} pointers, from which the pixels under the window are `at` away. */
SHARED taps{{ suffix }}(const int8_t *const *tap, int32_t at, int8_t *out, const void *const *tables,
    int32_t channels)
{
    const int8_t *const weights = tables[0], *const places = tables[2];
    const int32_t *scales = tables[1];
    int32_t c;
#ifdef HAS_HELIUM
    const int32_t whole = channels{{ " & ~7" if is_ragged }};
    for (c = 0; c < whole; c += 8, at += 8, scales += 16) {
        int32x4_t even = vldrwq_s32(scales), odd = vldrwq_s32(scales + 4);
        const int8_t *w = weights + c * {{ taps }};
        int16x8_t made;
{% if unrolled %}
{% for t in range(0, taps, step) %}
        TAP({{ "NEXT" if step == 2 and t + 1 < taps else '""' }}, tap, {{ 4 * t }}, w, {{ 8 * t }})
{% endfor %}
{% else %}
        for (int32_t t = 0; t < {{ taps // step * step }}; t += {{ step }}, w += {{ 8 * step }}) {
            TAP({{ "NEXT" if step == 2 else '""' }}, tap + t, 0, w, 0)
        }
{% if taps % step %}
        TAP("", tap + {{ taps - 1 }}, 0, w, 0)
{% endif %}
{% endif %}
        made = vmvnq_s16(vldrbq_s16(places + c));
        even = scaled_by{{ ending }}(even, vldrwq_s32(scales + 8), vmovlbq_s16(made));
        odd = scaled_by{{ ending }}(odd, vldrwq_s32(scales + 12), vmovltq_s16(made));
        made = vqmovntq_s32(vqmovnbq_s32(made, even), odd);
        made = vqaddq_n_s16(made, {{ zero }});
{% if is_whole %}
        made = vreinterpretq_s16_s8(vqmovnbq_s16(vreinterpretq_s8_s16(made), made));
{% else %}
        made = vminq_s16(vmaxq_s16(made, vdupq_n_s16({{ low }})), vdupq_n_s16({{ high }}));
{% endif %}
        vstrbq_s16(out + c, made);
    }
#else
    const int32_t whole = channels{{ " & ~3" if is_ragged }};
    for (c = 0; c < whole; c += 4, at += 4) {
        const int8_t *w = weights + (c & ~7) * {{ taps }} + (c & 4);
        const int32_t *scale = scales + 2 * (c & ~7) + (c & 4) / 2;
        int32_t s0 = scale[0], s1 = scale[4], s2 = scale[1], s3 = scale[5];
#ifdef HAS_DSP
{% if unrolled %}
{% for t in range(taps) %}
        TAP(tap, {{ 4 * t }}, w, {{ 8 * t }})
{% endfor %}
{% else %}
        for (int32_t t = 0; t < {{ taps }}; ++t, w += 8) {
            TAP(tap + t, 0, w, 0)
        }
{% endif %}
#else
        for (int32_t t = 0; t < {{ taps }}; ++t, w += 8) {
            const int8_t *x = tap[t] + at;
            s0 += w[0] * x[0];
            s1 += w[1] * x[1];
            s2 += w[2] * x[2];
            s3 += w[3] * x[3];
        }
#endif
        {
            const int32_t m0 = scale[8], m1 = scale[12], m2 = scale[9], m3 = scale[13];
            const int32_t p0 = places[c], p1 = places[c + 1], p2 = places[c + 2], p3 = places[c + 3];
            out[c] = level{{ ending }}(s0, m0, p0);
            out[c + 1] = level{{ ending }}(s1, m1, p1);
            out[c + 2] = level{{ ending }}(s2, m2, p2);
            out[c + 3] = level{{ ending }}(s3, m3, p3);
        }
    }
#endif
{% if is_ragged %}
    scales = tables[1];
    for (c = whole; c < channels; ++c, ++at) {
        const int32_t *scale = scales + 2 * (c & ~7) + (c & 1) * 4 + (c & 7) / 2;
        const int8_t *w = weights + (c & ~7) * {{ taps }} + (c & 7);
        int32_t sum = scale[0];
        for (int32_t t = 0; t < {{ taps }}; ++t, w += 8) {
            sum += *w * tap[t][at];
        }
#ifdef HAS_HELIUM
        out[c] = (int8_t)vgetq_lane_s32(
            levels{{ ending }}(vdupq_n_s32(sum), vdupq_n_s32(scale[8]), vdupq_n_s32(~places[c])), 0);
#else
        out[c] = level{{ ending }}(sum, scale[8], places[c]);
#endif
    }
{% endif %}
}
"""

# Of a block; all tables are filled up to whole blocks.
CHANNELS = 8
# Taps that are written one after another.
_MOST_UNROLLED = 9


def blocked_weights(weights: Array) -> list[int]:
    """Return weights [taps, channels] as the functions read them."""
    taps, channels = weights.shape
    blocks = -(-channels // CHANNELS)
    filled = np.zeros((taps, blocks * CHANNELS), dtype=weights.dtype)
    filled[:, :channels] = weights
    return [int(value) for value in filled.reshape(taps, blocks, CHANNELS).transpose(1, 0, 2).reshape(-1)]


def blocked_scales(biases: Sequence[int], mantissas: Sequence[int]) -> list[int]:
    """Return what sums begin with and are multiplied by, for each channel, as the functions read them."""
    channels = len(biases)
    filled = np.zeros((2, -(-channels // CHANNELS) * CHANNELS), dtype=np.int64)
    filled[:, :channels] = biases, mantissas
    # Values of a block: [biases or mantissas][four][even or odd]
    blocks = filled.reshape(2, -1, CHANNELS // 2, 2).transpose(1, 0, 3, 2)
    return [int(value) for value in blocks.reshape(-1)]


def suffix(ending: Ending, weights: Array) -> str:
    """Return what the name of the function for `weights` [taps, channels] ends with."""
    return f"{weights.shape[0]}{'' if _fits_int16(weights) else '_wide'}{ending.suffix}"


def depthwise_taps(ending: Ending, weights: Array, *, is_ragged: bool) -> tuple[str, ...]:
    """Return the functions that `taps<suffix>` needs for `weights` [taps, channels], and itself.

    Args:
        is_ragged: some layer of the model has channels that are no whole blocks.
    """
    count = weights.shape[0]
    text = ending.render(
        _TAPS, suffix=suffix(ending, weights), ending=ending.suffix, taps=count,
        unrolled=count <= _MOST_UNROLLED, step=2 if _fits_int16(weights) else 1, is_ragged=is_ragged,
    )  # fmt: skip
    return VARIANTS, _TAP, ending.level, text


def _fits_int16(weights: Array) -> bool:
    """Return whether the products of taps 0 and 1, 2 and 3, ... with any int8 add up to an int16."""
    pairs = (
        np.abs(weights[: len(weights) // 2 * 2].astype(np.int64)).reshape(-1, 2, weights.shape[1]).sum(axis=1)
    )
    return bool((128 * pairs < 2**15).all())
