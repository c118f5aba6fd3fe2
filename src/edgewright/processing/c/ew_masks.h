/* Steps to masks and keypoints. */
#ifndef EW_MASKS_H
#define EW_MASKS_H

#include "ew_run.h"

/* The best class of each of `pixels`: of [pixels, classes], or of [classes, pixels]; to uint8, or int32 for more than
 * 256 classes. */
void ew_argmax(const void *from, int32_t type, int32_t pixels, int32_t classes, int32_t is_first, void *to);

/* Integers cut to 0..255; floats: 1 from the threshold on, else 0. */
void ew_mask(const void *from, int32_t type, int32_t count, float threshold, uint8_t *to);

/* The mask [rows, columns] of `item_bytes` as large as the source; sets its size. EW_BAD_SIZE: more than `most`.
 * places: an int32_t for each column of the source. */
int ew_mask_to_source(const ew_run *run, int32_t geometry, const void *mask, int32_t item_bytes, int32_t rows,
                      int32_t columns, int32_t fill, void *to, int32_t most, void *places, int32_t *to_rows,
                      int32_t *to_columns);

/* [points, rows, columns], or [rows, columns, points], to [points, 3]. */
void ew_heatmaps(const float *from, int32_t points, int32_t rows, int32_t columns, int32_t is_last, int32_t refines,
                 float cell_height, float cell_width, float *to);

/* Rows [points, size]; x, y, score: their columns, -1: there is none. */
void ew_keypoints(const float *from, int32_t points, int32_t size, int32_t x, int32_t y, int32_t score,
                  int32_t height, int32_t width, float *to);

#endif
