/* See ew_spectrum.h. */
#include "ew_spectrum.h"

#include "ew_math.h"
#include "ew_run.h"

void ew_magnitude(const float *from, float *to, int32_t count, int32_t power)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        float re = from[2 * i] * from[2 * i], im = from[2 * i + 1] * from[2 * i + 1], sum = re + im;
        to[i] = power == 2 ? sum : ew_sqrt(sum);
    }
}

void ew_multiply_spectra(const float *a, const float *b, float *to, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; ++i, a += 2, b += 2, to += 2) {
        float one = a[0] * b[0], two = a[1] * b[1], three = a[0] * b[1], four = a[1] * b[0];
        to[0] = one - two;
        to[1] = three + four;
    }
}

void ew_multiply_mask(const float *a, const float *mask, float *to, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        to[2 * i] = a[2 * i] * mask[i];
        to[2 * i + 1] = a[2 * i + 1] * mask[i];
    }
}

void ew_mel(const float *from, int32_t rows, int32_t size, float *to, int32_t bins, const int32_t *firsts,
            const int32_t *counts, const float *weights)
{
    int32_t row, bin, j;
    for (row = 0; row < rows; ++row, from += size) {
        const float *w = weights;
        for (bin = 0; bin < bins; ++bin) {
            const float *x = from + firsts[bin];
            double sum = 0.0;
            for (j = 0; j < counts[bin]; ++j) {
                sum += (double)x[j] * (double)*w++;
            }
            *to++ = (float)sum;
        }
    }
}

void ew_log_steps(const float *from, float *to, int32_t count, double offset, double floor, double factor, float span)
{
    float most = 0.0f;
    int32_t i;
    for (i = 0; i < count; ++i) {
        double lifted = (double)from[i] + offset;
        to[i] = (float)(ew_log(lifted < floor ? floor : lifted) * factor);
        most = i == 0 || to[i] > most ? to[i] : most;
    }
    if (span > 0.0f) {
        for (i = 0; i < count; ++i) {
            to[i] = to[i] < most - span ? most - span : to[i];
        }
    }
}

void ew_products(const float *from, int32_t rows, int32_t size, float *to, int32_t made, const float *table)
{
    int32_t row, k, t;
    for (row = 0; row < rows; ++row, from += size) {
        for (k = 0; k < made; ++k) {
            const float *w = table + (ptrdiff_t)k * size;
            double sum = 0.0;
            for (t = 0; t < size; ++t) {
                sum += (double)from[t] * (double)w[t];
            }
            *to++ = (float)sum;
        }
    }
}
