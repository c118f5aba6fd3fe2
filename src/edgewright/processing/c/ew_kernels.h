/* The inner loops of images. Sums are of integers and exact, and floats have one product and one sum, so that every
 * way to make them gives the same. */
#ifndef EW_KERNELS_H
#define EW_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Point sampling across: `taps` values an output value, from `index`. The row has `length` values. */
void ew_points_across(const uint8_t *row, int32_t length, const int32_t *index, const int16_t *weights, int32_t taps,
                      int32_t columns, int32_t channels, int32_t *to);

/* Point sampling down, `taps` rows of `count` values: rounded to bytes. */
void ew_points_down(const int32_t *const *rows, const int32_t *weights, int32_t taps, int32_t count, uint8_t *to);

/* A filter across. weights: `stride` a column, packed by ew_pack_taps; first: the first pixel of each. */
void ew_filter_across(const uint8_t *row, int32_t length, const int32_t *first, const int32_t *counts,
                      const int32_t *weights, int32_t stride, int32_t columns, int32_t channels, uint8_t *to);

/* Two taps at a time: the high parts of their weights, then the low 11 bits. `weights` has room for an even count. */
void ew_pack_taps(int32_t *weights, int32_t count);

/* sums += row * weight */
void ew_add_row(const uint8_t *row, int32_t weight, int32_t count, int32_t *sums);

/* Pixels of three bytes to three planes of floats, byte * factor + offset of each colour, `plane` floats apart. */
void ew_colours_to_planes(const uint8_t *row, int32_t width, const float *factor, const float *offset, float *to,
                          ptrdiff_t plane);

/* Sums of 22 bits rounded to bytes; ew_begin_sums puts the half in. */
void ew_begin_sums(int32_t count, int32_t *sums);
void ew_end_sums(const int32_t *sums, int32_t count, uint8_t *to);

#endif
