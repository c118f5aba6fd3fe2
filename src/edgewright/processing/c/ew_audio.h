/* Steps on samples and on rows in time. */
#ifndef EW_AUDIO_H
#define EW_AUDIO_H

#include "ew_processing.h"

enum { EW_PAD_ZEROS = 0, EW_PAD_REFLECT, EW_PAD_EDGE };

/* How many samples `count` samples are at another rate. */
int32_t ew_resampled(int32_t count, int32_t up, int32_t down);

/* weights: [up, taps]; see edgewright.processing.audio.resample_filter. */
void ew_resample_audio(const float *from, int32_t count, float *to, int32_t up, int32_t down, const float *weights,
                       int32_t taps);

/* Rows of `row_bytes`: cut or filled up with zeros to `to_rows`; at: 0 the start stays, 1 the centre, 2 the end. */
void ew_fit_length(const void *from, int32_t rows, void *to, int32_t to_rows, int32_t row_bytes, int32_t at);

void ew_pre_emphasis(const float *from, float *to, int32_t rows, int32_t length, float factor, int32_t repeats);
void ew_peak(const float *from, float *to, int32_t count, int32_t is_absolute, float peak);

/* The kept rows, then the new ones, to `to`; the last `kept` rows stay in `state`. */
void ew_context(const float *from, int32_t rows, float *to, float *state, int32_t kept, int32_t row);

/* How many frames `count` samples have, `pad` more samples lying on both ends; EW_BAD_SIZE below `least`. */
int ew_count_frames(int32_t *frames, int32_t count, int32_t least, int32_t length, int32_t hop, int32_t pad);

/* Frames from number `begin` on. */
void ew_frame(const float *from, int32_t count, float *to, int32_t begin, int32_t frames, int32_t length,
              int32_t hop, int32_t pad, int32_t mode, const float *window);

/* Frames [frames, length], times `window`, to [frames * hop]; `state` holds `length` values. */
void ew_overlap_add(const float *from, int32_t frames, float *to, float *state, int32_t length, int32_t hop,
                    const float *window);

#endif
