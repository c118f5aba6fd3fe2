/* See ew_audio.h. */
#include "ew_audio.h"

#include <string.h>

#include "ew_math.h"
#include "ew_run.h"

int32_t ew_resampled(int32_t count, int32_t up, int32_t down)
{
    return (int32_t)(((int64_t)count * up + down - 1) / down);
}

void ew_resample_audio(const float *from, int32_t count, float *to, int32_t up, int32_t down, const float *weights,
                       int32_t taps)
{
    int32_t made = ew_resampled(count, up, down), i, j;
    for (i = 0; i < made; ++i) {
        int64_t place = (int64_t)i * down;
        const float *row = weights + (ptrdiff_t)(place % up) * taps;
        int32_t first = (int32_t)(place / up) - taps / 2;
        int32_t begin = first < 0 ? -first : 0, end = ew_least(taps, count - first);
        double sum = 0.0;
        for (j = begin; j < end; ++j) {
            sum += (double)from[first + j] * (double)row[j];
        }
        to[i] = (float)sum;
    }
}

void ew_fit_length(const void *from, int32_t rows, void *to, int32_t to_rows, int32_t row_bytes, int32_t at)
{
    const uint8_t *in = (const uint8_t *)from;
    uint8_t *out = (uint8_t *)to;
    size_t row = (size_t)row_bytes;
    int32_t missing = to_rows - rows, size = missing < 0 ? -missing : missing;
    size_t before = (size_t)(at == 0 ? 0 : at == 1 ? size / 2 : size);
    if (missing <= 0) {
        memmove(out, in + before * row, (size_t)to_rows * row);
        return;
    }
    memset(out, 0, (size_t)to_rows * row);
    memcpy(out + before * row, in, (size_t)rows * row);
}

void ew_pre_emphasis(const float *from, float *to, int32_t rows, int32_t length, float factor, int32_t repeats)
{
    int32_t row, i;
    for (row = 0; row < rows; ++row, from += length, to += length) {
        float first = from[0] * factor;
        to[0] = repeats ? from[0] - first : from[0];
        for (i = 1; i < length; ++i) {
            float before = from[i - 1] * factor;
            to[i] = from[i] - before;
        }
    }
}

void ew_peak(const float *from, float *to, int32_t count, int32_t is_absolute, float peak)
{
    float most = from[0];
    int32_t i;
    for (i = 0; i < count; ++i) {
        float size = is_absolute && from[i] < 0.0f ? -from[i] : from[i];
        most = i == 0 || size > most ? size : most;
    }
    for (i = 0; i < count; ++i) {
        to[i] = most > 0.0f ? from[i] / most * peak : from[i];
    }
}

void ew_context(const float *from, int32_t rows, float *to, float *state, int32_t kept, int32_t row)
{
    size_t old = (size_t)kept * (size_t)row;
    memcpy(to, state, old * sizeof *to);
    memcpy(to + old, from, (size_t)rows * (size_t)row * sizeof *to);
    memcpy(state, to + (size_t)rows * (size_t)row, old * sizeof *to);
}

int ew_count_frames(int32_t *frames, int32_t count, int32_t least, int32_t length, int32_t hop, int32_t pad)
{
    if (count < least) {
        return EW_BAD_SIZE;
    }
    *frames = 1 + (count + 2 * pad - length) / hop;
    return EW_OK;
}

static float sample_at(const float *from, int32_t count, int32_t mode, int32_t i)
{
    if (i >= 0 && i < count) {
        return from[i];
    }
    if (mode == EW_PAD_ZEROS) {
        return 0.0f;
    }
    if (mode == EW_PAD_EDGE) {
        return from[i < 0 ? 0 : count - 1];
    }
    return from[i < 0 ? -i : 2 * (count - 1) - i];
}

void ew_frame(const float *from, int32_t count, float *to, int32_t begin, int32_t frames, int32_t length,
              int32_t hop, int32_t pad, int32_t mode, const float *window)
{
    int32_t frame, i;
    for (frame = 0; frame < frames; ++frame, to += length) {
        int32_t first = (begin + frame) * hop - pad;
        if (first >= 0 && first + length <= count) {
            for (i = 0; i < length; ++i) {
                to[i] = from[first + i] * window[i];
            }
            continue;
        }
        for (i = 0; i < length; ++i) {
            to[i] = sample_at(from, count, mode, first + i) * window[i];
        }
    }
}

void ew_overlap_add(const float *from, int32_t frames, float *to, float *state, int32_t length, int32_t hop,
                    const float *window)
{
    int32_t frame, i;
    for (frame = 0; frame < frames; ++frame, from += length, to += hop) {
        for (i = 0; i < length; ++i) {
            float weighted = from[i] * window[i];
            state[i] += weighted;
        }
        memcpy(to, state, (size_t)hop * sizeof *to);
        memmove(state, state + hop, (size_t)(length - hop) * sizeof *state);
        memset(state + (length - hop), 0, (size_t)hop * sizeof *state);
    }
}
