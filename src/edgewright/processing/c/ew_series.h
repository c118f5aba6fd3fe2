/* Steps on series, landmarks, and on scores run after run. */
#ifndef EW_SERIES_H
#define EW_SERIES_H

#include "ew_processing.h"

/* How many windows `rows` rows have; EW_BAD_SIZE where there are too few. */
int ew_count_windows(int32_t *windows, int32_t rows, int32_t length, int32_t hop);

/* [rows, row_bytes] -> [windows, length, row_bytes] */
void ew_window(const void *from, void *to, int32_t windows, int32_t length, int32_t hop, int32_t row_bytes);

/* (x - mean) / std of each of `channels`, the last axis. */
void ew_standardise(const float *from, float *to, int32_t count, int32_t channels, const float *mean,
                    const float *std);

/* The same with the mean and the deviation of what is given, over `time`: [outer, time, channels]. */
void ew_standardise_own(const float *from, float *to, int32_t outer, int32_t time, int32_t channels, float epsilon);

/* Points [points, size], of which `kept` coordinates stay; origin -1: the mean. scale: 0 none, 1 the largest
 * coordinate, 2 the largest distance. */
void ew_relative(const void *from, int32_t is_integer, float *to, int32_t points, int32_t size, int32_t kept,
                 int32_t origin, int32_t scale);

/* The states are those of edgewright.processing.smoothing. */
void ew_smooth(const float *from, float *to, int32_t size, float *state, int32_t runs, int32_t hold);
void ew_threshold(const float *from, float *to, int32_t size, float *state, float on, float off, int32_t min_runs,
                  int32_t off_runs);

/* Scores [time, classes] to codes; returns how many. */
int32_t ew_ctc(const float *scores, int32_t time, int32_t classes, int32_t blank, int32_t *to);

#endif
