/* See ew_pcan.h. All that is made on the way is whole and below 2^53, so that doubles hold it exactly. */
#include "ew_pcan.h"

#include "ew_math.h"

#define MAX_SIGNAL 2147483648.0

/* Rounds down what is at least 0 and below 2^53. */
static double whole(double x)
{
    return (double)(int64_t)x;
}

/* The root of an energy at the scale of 16-bit samples, rounded down: the largest k with k * k <= energy * 2^24. */
static double signal_of(float energy)
{
    double square = (double)energy * 16777216.0, k;
    if (!(energy > 0.0f)) {
        return 0.0;
    }
    if (square >= MAX_SIGNAL * MAX_SIGNAL) {
        return MAX_SIGNAL;
    }
    k = whole(ew_root(square));
    /* The root may be off by its last place, which matters where it is whole. Squares below 2^53 are exact. */
    if (k < 67108864.0) {
        if (k * k > square) {
            k -= 1.0;
        } else if ((k + 1.0) * (k + 1.0) <= square) {
            k += 1.0;
        }
    }
    return k;
}

static double feature(double signal, double mean, double strength, double offset)
{
    double gain = whole(2097152.0 * ew_exp_double(-strength * ew_log(mean * 8.0 + offset)) + 0.5);
    double ratio, shrunk;
    gain = gain > 32767.0 ? 32767.0 : gain;
    ratio = whole(signal * gain / 64.0) / 4096.0;
    shrunk = whole((ratio < 2.0 ? ratio * ratio / 4.0 : ratio - 1.0) * 64.0) * 8.0;
    return whole(64.0 * ew_log(shrunk > 1.0 ? shrunk : 1.0) + 0.5);
}

void ew_pcan(const float *from, float *to, int32_t rows, int32_t channels, float *mean, double even, double odd,
             double remaining, double strength, double offset)
{
    int32_t row, c;
    for (row = 0; row < rows; ++row) {
        const float *x = from + (ptrdiff_t)row * channels;
        float *y = to + (ptrdiff_t)row * channels;
        for (c = 0; c < channels; ++c) {
            double smoothing = c % 2 ? odd : even;
            double signal = signal_of(x[c]), noise, left, least = whole(signal * remaining);
            mean[c] = (float)(signal * smoothing + (double)mean[c] * (1.0 - smoothing));
            noise = (double)mean[c];
            left = whole(signal - (noise < signal ? noise : signal));
            y[c] = (float)feature(left > least ? left : least, noise, strength, offset);
        }
    }
}
