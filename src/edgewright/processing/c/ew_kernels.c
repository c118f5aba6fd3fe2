/* See ew_kernels.h. */
#include "ew_kernels.h"

#include <string.h>

#include "ew_math.h"

/* EW_PLAIN and EW_NARROW leave faster ways out, for tests of the others. */
#if defined(__SSE2__) && !defined(EW_PLAIN)
#define HAS_NARROW 1
#include <emmintrin.h>
#endif
#if defined(HAS_NARROW) && defined(__x86_64__) && defined(__GNUC__) && !defined(EW_NARROW)
#include <immintrin.h>
#define HAS_WIDE 1
#define WIDE __attribute__((target("avx2")))
#endif

#define ROUND (1 << 21)

static uint8_t rounded(int32_t sum)
{
    return (uint8_t)(sum < 0 ? 0 : ew_least(sum >> 22, 255));
}

static void points_across(const uint8_t *row, const int32_t *index, const int16_t *weights, int32_t taps,
                          int32_t columns, int32_t channels, int32_t *to)
{
    int32_t x, c, k;
    for (x = 0; x < columns; ++x, index += taps, weights += taps) {
        for (c = 0; c < channels; ++c) {
            int32_t sum = 0;
            for (k = 0; k < taps; ++k) {
                sum += row[index[k] + c] * weights[k];
            }
            *to++ = sum;
        }
    }
}

#if defined(HAS_NARROW)

static __m128i pair_of(const void *from)
{
    int32_t bits;
    memcpy(&bits, from, sizeof bits);
    return _mm_set1_epi32(bits);
}

/* Eight bytes r g b r g b . . as pairs of the same colour: r r g g b b. */
static __m128i pairs(const uint8_t *at)
{
    __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)at);
    return _mm_unpacklo_epi8(_mm_unpacklo_epi8(bytes, _mm_srli_epi64(bytes, 24)), _mm_setzero_si128());
}

static void pairs_across(const uint8_t *row, const int32_t *index, const int16_t *weights, int32_t begin, int32_t end,
                         int32_t *to)
{
    int32_t x;
    for (x = begin; x < end; ++x) {
        /* Four sums, of which the next pixel overwrites the last. */
        _mm_storeu_si128((__m128i *)(void *)(to + 3 * (intptr_t)x),
                         _mm_madd_epi16(pairs(row + index[2 * x]), pair_of(weights + 2 * (intptr_t)x)));
    }
}

#if defined(HAS_WIDE)

/* The same loops for processors with AVX2; which one runs is asked when it runs. */
static int is_wide(void)
{
    return __builtin_cpu_supports("avx2") != 0;
}

WIDE static __m128i wide_pairs(const uint8_t *at)
{
    const __m128i order = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    return _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)(const void *)at), order);
}

WIDE static void wide_across(const uint8_t *row, const int32_t *index, const int16_t *weights, int32_t begin,
                             int32_t end, int32_t *to)
{
    int32_t x;
    for (x = begin; x < end; ++x) {
        _mm_storeu_si128((__m128i *)(void *)(to + 3 * (intptr_t)x),
                         _mm_madd_epi16(wide_pairs(row + index[2 * x]), pair_of(weights + 2 * (intptr_t)x)));
    }
}

WIDE static int32_t wide_down(const int32_t *a, const int32_t *b, int32_t v, int32_t w, int32_t count, uint8_t *to)
{
    __m256i first = _mm256_set1_epi32(v), second = _mm256_set1_epi32(w), half = _mm256_set1_epi32(ROUND);
    int32_t i;
    for (i = 0; i + 8 <= count; i += 8) {
        __m256i p = _mm256_mullo_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(a + i)), first);
        __m256i q = _mm256_mullo_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(b + i)), second);
        __m256i made = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(p, q), half), 22);
        __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(made), _mm256_extracti128_si256(made, 1));
        _mm_storel_epi64((__m128i *)(void *)(to + i), _mm_packus_epi16(words, words));
    }
    return i;
}

WIDE static int32_t wide_colours(const uint8_t *row, const int32_t *weights, int32_t count)
{
    __m128i high = _mm_setzero_si128(), low = _mm_setzero_si128(), sum;
    int32_t k;
    for (k = 0; k < count; k += 2) {
        __m128i pixels = wide_pairs(row + 3 * (intptr_t)k);
        high = _mm_add_epi32(high, _mm_madd_epi16(pixels, pair_of(weights + k)));
        low = _mm_add_epi32(low, _mm_madd_epi16(pixels, pair_of(weights + k + 1)));
    }
    sum = _mm_add_epi32(_mm_add_epi32(_mm_slli_epi32(high, 11), low), _mm_set1_epi32(ROUND));
    sum = _mm_packs_epi32(_mm_srai_epi32(sum, 22), sum);
    return _mm_cvtsi128_si32(_mm_packus_epi16(sum, sum));
}

WIDE static int32_t wide_add(const uint8_t *row, int32_t weight, int32_t count, int32_t *sums)
{
    __m256i factor = _mm256_set1_epi32(weight);
    int32_t i;
    for (i = 0; i + 8 <= count; i += 8) {
        __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(row + i)));
        __m256i *to = (__m256i *)(void *)(sums + i);
        _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), _mm256_mullo_epi32(bytes, factor)));
    }
    return i;
}

#else

static int is_wide(void)
{
    return 0;
}

#define wide_across pairs_across
#define wide_down narrow_down
#define wide_colours narrow_colours
#define wide_add narrow_add

#endif

void ew_points_across(const uint8_t *row, int32_t length, const int32_t *index, const int16_t *weights, int32_t taps,
                      int32_t columns, int32_t channels, int32_t *to)
{
    int32_t begin = 0, end = 0;
    if (taps == 2 && channels == 3) {
        /* Between the borders, both pixels of a pair lie side by side. */
        while (begin < columns && index[2 * begin + 1] != index[2 * begin] + 3) {
            ++begin;
        }
        end = ew_most(columns - 1, begin); /* four sums are written: the last pixel is made alone */
        while (end > begin && (index[2 * end - 1] != index[2 * end - 2] + 3 || index[2 * end - 2] + 8 > length)) {
            --end;
        }
    }
    points_across(row, index, weights, taps, begin, channels, to);
    (is_wide() ? wide_across : pairs_across)(row, index, weights, begin, end, to);
    points_across(row, index + (intptr_t)end * taps, weights + (intptr_t)end * taps, taps, columns - end, channels,
                  to + (intptr_t)end * channels);
}

/* Four sums a * v + b * w of 30 bits: high and low parts of a and b side by side, as only 16 bits multiply at once. */
static __m128i blended(const int32_t *a, const int32_t *b, __m128i weights)
{
    const __m128i low = _mm_set1_epi32(255);
    __m128i p = _mm_loadu_si128((const __m128i *)(const void *)a);
    __m128i q = _mm_loadu_si128((const __m128i *)(const void *)b);
    __m128i highs = _mm_or_si128(_mm_srli_epi32(p, 8), _mm_slli_epi32(_mm_srli_epi32(q, 8), 16));
    __m128i lows = _mm_or_si128(_mm_and_si128(p, low), _mm_slli_epi32(_mm_and_si128(q, low), 16));
    __m128i sum = _mm_add_epi32(_mm_slli_epi32(_mm_madd_epi16(highs, weights), 8), _mm_madd_epi16(lows, weights));
    return _mm_srli_epi32(_mm_add_epi32(sum, _mm_set1_epi32(ROUND)), 22);
}

static int32_t narrow_down(const int32_t *a, const int32_t *b, int32_t v, int32_t w, int32_t count, uint8_t *to)
{
    __m128i weights = _mm_set1_epi32((int32_t)((uint32_t)v | (uint32_t)w << 16));
    int32_t i;
    for (i = 0; i + 8 <= count; i += 8) {
        __m128i words = _mm_packs_epi32(blended(a + i, b + i, weights), blended(a + i + 4, b + i + 4, weights));
        _mm_storel_epi64((__m128i *)(void *)(to + i), _mm_packus_epi16(words, words));
    }
    return i;
}

static int32_t narrow_colours(const uint8_t *row, const int32_t *weights, int32_t count)
{
    __m128i high = _mm_setzero_si128(), low = _mm_setzero_si128(), sum;
    int32_t k;
    for (k = 0; k < count; k += 2) {
        __m128i pixels = pairs(row + 3 * (intptr_t)k);
        high = _mm_add_epi32(high, _mm_madd_epi16(pixels, pair_of(weights + k)));
        low = _mm_add_epi32(low, _mm_madd_epi16(pixels, pair_of(weights + k + 1)));
    }
    sum = _mm_add_epi32(_mm_add_epi32(_mm_slli_epi32(high, 11), low), _mm_set1_epi32(ROUND));
    sum = _mm_packs_epi32(_mm_srai_epi32(sum, 22), sum);
    return _mm_cvtsi128_si32(_mm_packus_epi16(sum, sum));
}

static __m128 affine(__m128i bytes, const float *factor, const float *offset)
{
    __m128i low = _mm_and_si128(bytes, _mm_set1_epi32(255));
    return _mm_add_ps(_mm_mul_ps(_mm_cvtepi32_ps(low), _mm_set1_ps(*factor)), _mm_set1_ps(*offset));
}

static int32_t quads_to_planes(const uint8_t *row, int32_t width, const float *factor, const float *offset, float *to,
                               ptrdiff_t plane)
{
    int32_t x, k;
    for (x = 0; x + 5 <= width; x += 4) { /* each pixel is read as four bytes */
        int32_t bits[4];
        __m128i pixels;
        for (k = 0; k < 4; ++k) {
            memcpy(&bits[k], row + 3 * (ptrdiff_t)(x + k), sizeof bits[k]);
        }
        pixels = _mm_set_epi32(bits[3], bits[2], bits[1], bits[0]);
        _mm_storeu_ps(to + x, affine(pixels, factor, offset));
        _mm_storeu_ps(to + x + plane, affine(_mm_srli_epi32(pixels, 8), factor + 1, offset + 1));
        _mm_storeu_ps(to + x + 2 * plane, affine(_mm_srli_epi32(pixels, 16), factor + 2, offset + 2));
    }
    return x;
}

static int32_t narrow_add(const uint8_t *row, int32_t weight, int32_t count, int32_t *sums)
{
    /* row * weight = (row * 128) * high + row * low, both of 16 bits. */
    int32_t high = ew_least(weight >> 7, 32767), low = weight - high * 128, i;
    __m128i weights = _mm_set1_epi32((int32_t)(((uint32_t)high & 0xFFFFu) | (uint32_t)low << 16));
    for (i = 0; i + 8 <= count; i += 8) {
        __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(row + i));
        __m128i words = _mm_unpacklo_epi8(bytes, _mm_setzero_si128()), wide = _mm_slli_epi16(words, 7);
        __m128i *to = (__m128i *)(void *)(sums + i);
        __m128i left = _mm_madd_epi16(_mm_unpacklo_epi16(wide, words), weights);
        __m128i right = _mm_madd_epi16(_mm_unpackhi_epi16(wide, words), weights);
        _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), left));
        _mm_storeu_si128(to + 1, _mm_add_epi32(_mm_loadu_si128(to + 1), right));
    }
    return i;
}

static int32_t points_down(const int32_t *a, const int32_t *b, int32_t v, int32_t w, int32_t count, uint8_t *to)
{
    return (is_wide() ? wide_down : narrow_down)(a, b, v, w, count, to);
}

static int32_t add_row(const uint8_t *row, int32_t weight, int32_t count, int32_t *sums)
{
    return (is_wide() ? wide_add : narrow_add)(row, weight, count, sums);
}

#else

void ew_points_across(const uint8_t *row, int32_t length, const int32_t *index, const int16_t *weights, int32_t taps,
                      int32_t columns, int32_t channels, int32_t *to)
{
    int32_t x;
    (void)length;
    if (taps != 2 || channels != 3) {
        points_across(row, index, weights, taps, columns, channels, to);
        return;
    }
    for (x = 0; x < columns; ++x, to += 3) {
        const uint8_t *a = row + index[2 * x], *b = row + index[2 * x + 1];
        int32_t v = weights[2 * x], w = weights[2 * x + 1];
        to[0] = a[0] * v + b[0] * w;
        to[1] = a[1] * v + b[1] * w;
        to[2] = a[2] * v + b[2] * w;
    }
}

static int32_t points_down(const int32_t *a, const int32_t *b, int32_t v, int32_t w, int32_t count, uint8_t *to)
{
    (void)a, (void)b, (void)v, (void)w, (void)count, (void)to;
    return 0;
}

static int32_t quads_to_planes(const uint8_t *row, int32_t width, const float *factor, const float *offset, float *to,
                               ptrdiff_t plane)
{
    (void)row, (void)width, (void)factor, (void)offset, (void)to, (void)plane;
    return 0;
}

static int32_t add_row(const uint8_t *row, int32_t weight, int32_t count, int32_t *sums)
{
    (void)row, (void)weight, (void)count, (void)sums;
    return 0;
}

#endif

void ew_add_row(const uint8_t *row, int32_t weight, int32_t count, int32_t *sums)
{
    int32_t i;
    for (i = add_row(row, weight, count, sums); i < count; ++i) {
        sums[i] += row[i] * weight;
    }
}

void ew_points_down(const int32_t *const *rows, const int32_t *weights, int32_t taps, int32_t count, uint8_t *to)
{
    const int32_t *a = rows[0], *b = rows[1];
    int32_t v = weights[0], w = weights[1], i;
    if (taps == 2) {
        /* Weights are positive and sum up to 1: no sum leaves 0..255. */
        for (i = points_down(a, b, v, w, count, to); i < count; ++i) {
            to[i] = (uint8_t)((a[i] * v + b[i] * w + ROUND) >> 22);
        }
        return;
    }
    for (i = 0; i < count; ++i) {
        to[i] = rounded(a[i] * v + b[i] * w + rows[2][i] * weights[2] + rows[3][i] * weights[3] + ROUND);
    }
}

void ew_pack_taps(int32_t *weights, int32_t count)
{
    int32_t k;
    for (k = 0; k < count; k += 2) {
        int32_t a = weights[k], b = k + 1 < count ? weights[k + 1] : 0;
        int16_t parts[4];
        parts[2] = (int16_t)(a & 2047);
        parts[3] = (int16_t)(b & 2047);
        parts[0] = (int16_t)((a - parts[2]) / 2048);
        parts[1] = (int16_t)((b - parts[3]) / 2048);
        memcpy(weights + k, parts, sizeof parts);
    }
}

void ew_filter_across(const uint8_t *row, int32_t length, const int32_t *first, const int32_t *counts,
                      const int32_t *weights, int32_t stride, int32_t columns, int32_t channels, uint8_t *to)
{
    int32_t x, k, c;
#if defined(HAS_NARROW)
    int32_t (*const colours)(const uint8_t *, const int32_t *, int32_t) = is_wide() ? wide_colours : narrow_colours;
#endif
    for (x = 0; x < columns; ++x, to += channels, weights += stride) {
        const uint8_t *at = row + (intptr_t)first[x] * channels;
        const int16_t *parts = (const int16_t *)(const void *)weights;
        int32_t sums[4] = {ROUND, ROUND, ROUND, ROUND};
#if defined(HAS_NARROW)
        /* Two pixels are read as eight bytes. */
        if (channels == 3 && 3 * (first[x] + counts[x] + 1) + 2 <= length) {
            int32_t made = colours(at, weights, counts[x]);
            to[0] = (uint8_t)(made & 255);
            to[1] = (uint8_t)(made >> 8 & 255);
            to[2] = (uint8_t)(made >> 16 & 255);
            continue;
        }
#else
        (void)length;
#endif
        for (k = 0; k < counts[x]; ++k, at += channels) {
            const int16_t *part = parts + (k & ~1) * 2 + (k & 1);
            int32_t weight = part[0] * 2048 + part[2];
            for (c = 0; c < channels; ++c) {
                sums[c] += at[c] * weight;
            }
        }
        for (c = 0; c < channels; ++c) {
            to[c] = rounded(sums[c]);
        }
    }
}

void ew_begin_sums(int32_t count, int32_t *sums)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        sums[i] = ROUND;
    }
}

void ew_end_sums(const int32_t *sums, int32_t count, uint8_t *to)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        to[i] = rounded(sums[i]);
    }
}

void ew_colours_to_planes(const uint8_t *row, int32_t width, const float *factor, const float *offset, float *to,
                          ptrdiff_t plane)
{
    int32_t done = quads_to_planes(row, width, factor, offset, to, plane), x, c;
    for (c = 0; c < 3; ++c) {
        for (x = done; x < width; ++x) {
            float product = (float)row[3 * x + c] * factor[c];
            to[c * plane + x] = product + offset[c];
        }
    }
}
