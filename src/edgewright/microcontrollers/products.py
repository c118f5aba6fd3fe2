"""Rows times weights as C: for Helium (M55), for the DSP extension (M4, M7), and in plain C for everything else.

A function multiplies rows by all weights, two rows and two channels at a time, so that what is loaded is used twice
(Helium: four channels, whose tables serve some rows). The variants add the same integers, so that they agree bit by
bit; -DEDGEWRIGHT_PORTABLE chooses plain C everywhere.
Sources: Armv7-M and Armv8.1-M manuals (SMLAD, SXTB16; VMLADAVA, tail-predicated loops).
"""

from __future__ import annotations

from edgewright.microcontrollers.variants import VARIANTS, Ending

_WORDS = """\
#ifdef HAS_DSP
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

_DOT = """\
/* sum and the products of two rows. */
static inline int32_t dot(const int8_t *w, const int8_t *x, int32_t depth, int32_t sum)
{
#ifdef HAS_HELIUM
    __asm__ volatile(
        "dlstp.8 lr, %[depth]\\n"
        "1: vldrb.8 q0, [%[x]], #16\\n"
        "vldrb.8 q1, [%[w]], #16\\n"
        "vmladava.s8 %[sum], q0, q1\\n"
        "letp lr, 1b"
        : [sum] "+&Te"(sum), [x] "+&r"(x), [w] "+&r"(w)
        : [depth] "r"(depth)
        : "q0", "q1", "lr", "memory");
#else
#ifdef HAS_DSP
    for (; depth >= 4; depth -= 4, w += 4, x += 4) {
        const uint32_t a = word(w), b = word(x);
        sum = both(odd(a), odd(b), both(even(a), even(b), sum));
    }
#endif
    for (; depth > 0; --depth) {
        sum += *w++ * *x++;
    }
#endif
    return sum;
}
"""

_SUMS_OF_FOUR = """\
#ifdef HAS_HELIUM
/* Sums of products of one row, with four channels whose weights lie `step` apart. `row` moves on by whole vectors. */
static inline int32x4_t sums_of_four(const int8_t *w0, int32_t step, const int8_t **row, int32_t depth)
{
    const int8_t *x = *row, *w1, *w2, *w3;
    int32_t s0, s1, s2, s3;
    int32x4_t sums;
    /* Compilers do not make loops of this kind: the last turn deals with the values that are left. */
    __asm__ volatile(
        "add %[w1], %[w0], %[step]\\n"
        "add %[w2], %[w1], %[step]\\n"
        "add %[w3], %[w2], %[step]\\n"
        "mov %[s0], #0\\n"
        "mov %[s1], #0\\n"
        "mov %[s2], #0\\n"
        "mov %[s3], #0\\n"
        "dlstp.8 lr, %[depth]\\n"
        "1: vldrb.8 q0, [%[x]], #16\\n"
        "vldrb.8 q1, [%[w0]], #16\\n"
        "vmladava.s8 %[s0], q0, q1\\n"
        "vldrb.8 q1, [%[w1]], #16\\n"
        "vmladava.s8 %[s1], q0, q1\\n"
        "vldrb.8 q1, [%[w2]], #16\\n"
        "vmladava.s8 %[s2], q0, q1\\n"
        "vldrb.8 q1, [%[w3]], #16\\n"
        "vmladava.s8 %[s3], q0, q1\\n"
        "letp lr, 1b\\n"
        "vmov %q[sums][2], %q[sums][0], %[s0], %[s2]\\n"
        "vmov %q[sums][3], %q[sums][1], %[s1], %[s3]"
        : [s0] "=&Te"(s0), [s1] "=&Te"(s1), [s2] "=&Te"(s2), [s3] "=&Te"(s3), [x] "+&r"(x), [w0] "+&r"(w0),
          [w1] "=&r"(w1), [w2] "=&r"(w2), [w3] "=&r"(w3), [sums] "=w"(sums)
        : [depth] "r"(depth), [step] "r"(step)
        : "q0", "q1", "lr", "memory");
    *row = x;
    return sums;
}
#endif
"""

_SUMS = """\
#ifndef HAS_HELIUM
/* Sums of products of one row, with two channels; the second one's weights lie `step` behind the first one's. */
static inline void sums_of_two(const int8_t *w, int32_t step, const int8_t *x, int32_t depth, int32_t sums[2])
{
    const int8_t *v = w + step;
    int32_t k = depth, first = sums[0], second = sums[1];
#ifdef HAS_DSP
    const int8_t *const end = w + (depth & ~3);
    if (depth >= 4) {
        uint32_t a, b, c, pair;
        __asm__ volatile(
            "1: ldr %[b], [%[x]], #4\\n"
            "ldr %[a], [%[w]], #4\\n"
            "sxtb16 %[c], %[b]\\n"
            "sxtb16 %[pair], %[a]\\n"
            "smlad %[first], %[pair], %[c], %[first]\\n"
            "sxtb16 %[b], %[b], ror #8\\n"
            "sxtb16 %[pair], %[a], ror #8\\n"
            "ldr %[a], [%[v]], #4\\n"
            "smlad %[first], %[pair], %[b], %[first]\\n"
            "sxtb16 %[pair], %[a]\\n"
            "smlad %[second], %[pair], %[c], %[second]\\n"
            "sxtb16 %[pair], %[a], ror #8\\n"
            "smlad %[second], %[pair], %[b], %[second]\\n"
            "cmp %[w], %[end]\\n"
            "bne 1b"
            : [first] "+&r"(first), [second] "+&r"(second), [w] "+&r"(w), [v] "+&r"(v), [x] "+&r"(x), [a] "=&r"(a),
              [b] "=&r"(b), [c] "=&r"(c), [pair] "=&r"(pair)
            : [end] "r"(end)
            : "cc", "memory");
    }
    k &= 3;
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
static inline void sums_of_four(const int8_t *w, int32_t step, const int8_t *x, const uint32_t *wide, int32_t depth,
    int32_t sums[4])
{
    int32_t k = depth, s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
    const int8_t *v = w + step, *y = x + depth;
#ifdef HAS_DSP
    const int32_t whole = depth & ~3;
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
#endif
    for (; k > 0; --k) {
        const int32_t a = *w++, b = *x++, c = *v++, d = *y++;
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

_ROWS = """\
/* Rows of `depth` values times the weights of all channels; see `tables` in the first lines. */
SHARED rows{{ suffix }}(const int8_t *in, int8_t *out, const void *const *tables, int32_t rows, int32_t depth,
    int32_t channels, uint32_t *wide)
{
    const int8_t *const weights = tables[0];
    const int32_t *const scales = tables[1];
    const int8_t *const places = tables[2];
    int32_t c;
#ifdef HAS_HELIUM
    /* Fewer than four channels are computed one by one. */
    const int32_t step = channels < 4 ? 0 : depth, back = depth - ((depth + 15) & ~15);
    (void)wide;
    for (; rows > 0; rows -= {{ pixels }}, in += {{ pixels }} * depth, out += {{ pixels }} * channels) {
        const int32_t some = rows < {{ pixels }} ? rows : {{ pixels }};
        for (c = 0; c < channels; c += step ? 4 : 1) {
            int32x4x2_t scale;
            int32x4_t shifts;
            const int8_t *x = in;
            int8_t *to;
            int32_t n;
            if (step && c > channels - 4) {
                c = channels - 4;
            }
            scale = vld2q_s32(scales + 2 * c);
            shifts = vmvnq_s32(vldrbq_s32(places + c));
            to = out + c;
            for (n = some; n > 0; --n, x += back, to += channels) {
                int32x4_t sums = sums_of_four(weights + c * depth, step, &x, depth);
                sums = levels{{ suffix }}(vaddq_s32(sums, scale.val[0]), scale.val[1], shifts);
                if (step) {
                    vstrbq_s32(to, sums);
                } else {
                    *to = (int8_t)vgetq_lane_s32(sums, 0);
                }
            }
        }
    }
#else
    for (; rows > 0; rows -= 2, in += 2 * depth, out += 2 * channels) {
        const int8_t *w = weights, *p = places;
        const int32_t *s = scales;
        int8_t *to = out;
        if (rows > 1) {
            widen(in, wide, depth);
        }
        for (c = channels; c > 0; c -= 2, w += 2 * depth, s += 4, p += 2, to += 2) {
            /* Where the last channel is alone, it is computed twice. */
            const int32_t next = c > 1;
            int8_t *below = to;
            int32_t sums[4], m0, m1, p0, p1;
            sums[0] = sums[2] = s[0];
            sums[1] = sums[3] = s[2];
            if (rows > 1) {
                sums_of_four(w, next ? depth : 0, in, wide, depth, sums);
                below += channels;
            } else {
                sums_of_two(w, next ? depth : 0, in, depth, sums);
            }
            m0 = s[1], m1 = s[3], p0 = p[0], p1 = p[1];
            /* What there is no place for is written first, and then over. */
            below[next] = level{{ suffix }}(sums[3], m1, p1);
            below[0] = level{{ suffix }}(sums[2], m0, p0);
            to[next] = level{{ suffix }}(sums[1], m1, p1);
            to[0] = level{{ suffix }}(sums[0], m0, p0);
        }
    }
#endif
}
"""

# The functions for rows take a buffer of this type for two rows as int16.
WIDE_BYTES = 4
# Of values that the DSP extension multiplies at a time.
WORD_BYTES = 4
# Rows of which `rows<suffix>` reads values after it has written some outputs of the same rows.
PIXELS_AT_ONCE = 8


def row_products(ending: Ending) -> tuple[str, ...]:
    """Return the functions that `rows<suffix>` needs, and itself."""
    return (
        VARIANTS, _WORDS, _SUMS_OF_FOUR, _SUMS, ending.level, ending.render(_ROWS, pixels=PIXELS_AT_ONCE),
    )  # fmt: skip


def word_products(*, has_four: bool) -> tuple[str, ...]:
    """Return the functions that take four bytes at a time, and with Helium and `has_four` the function sums_of_four."""
    return (VARIANTS, _WORDS, _BOTH, *((_SUMS_OF_FOUR,) if has_four else ()))


def dot_product() -> tuple[str, ...]:
    """Return the functions that `dot` needs, and itself: sums of one row and one channel, of one value at least."""
    return VARIANTS, _WORDS, _BOTH, _DOT
