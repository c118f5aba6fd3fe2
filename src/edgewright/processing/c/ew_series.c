/* See ew_series.h. */
#include "ew_series.h"

#include <string.h>

#include "ew_math.h"
#include "ew_run.h"

int ew_count_windows(int32_t *windows, int32_t rows, int32_t length, int32_t hop)
{
    if (rows < length) {
        return EW_BAD_SIZE;
    }
    *windows = 1 + (rows - length) / hop;
    return EW_OK;
}

void ew_window(const void *from, void *to, int32_t windows, int32_t length, int32_t hop, int32_t row_bytes)
{
    size_t bytes = (size_t)length * (size_t)row_bytes;
    int32_t i;
    for (i = 0; i < windows; ++i) {
        memcpy((uint8_t *)to + (size_t)i * bytes, (const uint8_t *)from + (size_t)i * (size_t)hop * (size_t)row_bytes,
               bytes);
    }
}

void ew_standardise(const float *from, float *to, int32_t count, int32_t channels, const float *mean,
                    const float *std)
{
    int32_t i, c = 0;
    for (i = 0; i < count; ++i) {
        float centred = from[i] - mean[c];
        to[i] = centred / std[c];
        c = c + 1 < channels ? c + 1 : 0;
    }
}

void ew_standardise_own(const float *from, float *to, int32_t outer, int32_t time, int32_t channels, float epsilon)
{
    int32_t o, c, t;
    for (o = 0; o < outer; ++o) {
        for (c = 0; c < channels; ++c) {
            const float *x = from + (ptrdiff_t)o * time * channels + c;
            float *y = to + (ptrdiff_t)o * time * channels + c;
            double mean = 0.0, sum = 0.0;
            float deviation, centre;
            for (t = 0; t < time; ++t) {
                mean += (double)x[(ptrdiff_t)t * channels];
            }
            mean /= (double)time;
            for (t = 0; t < time; ++t) {
                double away = (double)x[(ptrdiff_t)t * channels] - mean;
                sum += away * away;
            }
            deviation = (float)ew_root(sum / (double)time);
            deviation = deviation < epsilon ? epsilon : deviation;
            centre = (float)mean;
            for (t = 0; t < time; ++t) {
                float centred = x[(ptrdiff_t)t * channels] - centre;
                y[(ptrdiff_t)t * channels] = centred / deviation;
            }
        }
    }
}

static float coordinate(const void *from, int32_t is_integer, int32_t i)
{
    return is_integer ? (float)((const int32_t *)from)[i] : ((const float *)from)[i];
}

void ew_relative(const void *from, int32_t is_integer, float *to, int32_t points, int32_t size, int32_t kept,
                 int32_t origin, int32_t scale)
{
    float most = 0.0f;
    int32_t c, i;
    for (c = 0; c < kept; ++c) {
        float centre;
        if (origin >= 0) {
            centre = coordinate(from, is_integer, origin * size + c);
        } else {
            double sum = 0.0;
            for (i = 0; i < points; ++i) {
                sum += (double)coordinate(from, is_integer, i * size + c);
            }
            centre = (float)(sum / (double)points);
        }
        for (i = 0; i < points; ++i) {
            to[i * kept + c] = coordinate(from, is_integer, i * size + c) - centre;
        }
    }
    for (i = 0; i < points && scale != 0; ++i) {
        float sum = 0.0f;
        for (c = 0; c < kept; ++c) {
            float x = to[i * kept + c], square = x * x;
            x = x < 0.0f ? -x : x;
            sum += square;
            most = scale == 1 && x > most ? x : most;
        }
        most = scale == 2 && sum > most ? sum : most;
    }
    most = scale == 2 ? ew_sqrt(most) : most;
    for (i = 0; i < points * kept && scale != 0; ++i) {
        to[i] = most > 0.0f ? to[i] / most : 0.0f;
    }
}

void ew_smooth(const float *from, float *to, int32_t size, float *state, int32_t runs, int32_t hold)
{
    float *scores = state + size, *means = scores + (ptrdiff_t)runs * size;
    int32_t most = ew_most(runs, hold), count = ew_least((int32_t)state[0] + 1, most), of, i, k;
    memmove(scores, scores + size, (size_t)(runs - 1) * (size_t)size * sizeof *scores);
    memmove(means, means + size, (size_t)(hold - 1) * (size_t)size * sizeof *means);
    memcpy(scores + (ptrdiff_t)(runs - 1) * size, from, (size_t)size * sizeof *scores);
    of = ew_least(count, runs);
    for (i = 0; i < size; ++i) {
        float sum = 0.0f, best;
        for (k = runs - of; k < runs; ++k) {
            sum += scores[(ptrdiff_t)k * size + i];
        }
        best = sum / (float)of;
        means[(ptrdiff_t)(hold - 1) * size + i] = best;
        for (k = ew_most(hold - count, 0); k < hold - 1; ++k) {
            float mean = means[(ptrdiff_t)k * size + i];
            best = best == best && !(mean <= best) ? mean : best; /* what is no number stays, as numpy's does */
        }
        to[i] = best;
    }
    state[0] = (float)count;
}

void ew_threshold(const float *from, float *to, int32_t size, float *state, float on, float off, int32_t min_runs,
                  int32_t off_runs)
{
    float *lit = state, *above = state + size, *below = above + size;
    int32_t i;
    for (i = 0; i < size; ++i) {
        above[i] = from[i] >= on ? (above[i] + 1.0f > (float)min_runs ? (float)min_runs : above[i] + 1.0f) : 0.0f;
        below[i] = from[i] < off ? (below[i] + 1.0f > (float)off_runs ? (float)off_runs : below[i] + 1.0f) : 0.0f;
        lit[i] = above[i] >= (float)min_runs ? 1.0f : below[i] >= (float)off_runs ? 0.0f : lit[i];
        to[i] = lit[i];
    }
}

int32_t ew_ctc(const float *scores, int32_t time, int32_t classes, int32_t blank, int32_t *to)
{
    int32_t before = -1, found = 0, t, c;
    for (t = 0; t < time; ++t, scores += classes) {
        int32_t best = 0;
        for (c = 1; c < classes; ++c) {
            best = ew_ranked(scores[c]) > ew_ranked(scores[best]) ? c : best;
        }
        if (best != before && best != blank) {
            to[found++] = best;
        }
        before = best;
    }
    return found;
}
