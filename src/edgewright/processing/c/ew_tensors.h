/* Steps on any array. `count` is of values; arrays do not overlap unless they are the same. */
#ifndef EW_TENSORS_H
#define EW_TENSORS_H

#include "ew_processing.h"

/* A length as it is. */
int32_t ew_length(int32_t length);

/* Row number `row` of `to`. */
void ew_put(const void *from, int32_t row_bytes, void *to, int32_t row);

void ew_copy(const void *from, void *to, int32_t bytes);
/* Whether `count` values are whole rows of `inner`: EW_OK or EW_BAD_SIZE. */
int ew_is_multiple(int32_t count, int32_t inner);

void ew_fill_floats(float *to, int32_t count, float value);

/* Number i of an array of integers. */
int64_t ew_integer_at(const void *from, int32_t type, int32_t i);

/* Float to integer drops the fraction after clamping, NaN is 0; integers wrap. */
void ew_cast(const void *from, int32_t from_type, void *to, int32_t to_type, int32_t count);

/* y = x * factor + offset, [count / (channels * inner), channels, inner]; x of any number type. */
void ew_scale(const void *from, int32_t from_type, float *to, int32_t count, int32_t channels, int32_t inner,
              const float *factor, const float *offset);

/* round(x * reciprocal) + zero_point, half away from zero, clamped. */
void ew_quantize(const float *from, void *to, int32_t to_type, int32_t count, float reciprocal, int32_t zero_point);
void ew_dequantize(const void *from, int32_t from_type, float *to, int32_t count, float scale, int32_t zero_point);

/* The axis `axes[i]` of `from`, whose sizes are `shape`, becomes axis i of `to`. */
void ew_transpose(const void *from, void *to, int32_t item_bytes, int32_t rank, const int32_t *shape,
                  const int32_t *axes);

/* y = a * b, where b is repeated every `period` values. */
void ew_multiply(const float *a, const float *b, float *to, int32_t count, int32_t period);

#endif
