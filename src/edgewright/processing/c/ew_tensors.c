/* See ew_tensors.h. */
#include "ew_tensors.h"

#include <string.h>

int32_t ew_length(int32_t length)
{
    return length;
}

void ew_put(const void *from, int32_t row_bytes, void *to, int32_t row)
{
    memcpy((uint8_t *)to + (size_t)row * (size_t)row_bytes, from, (size_t)row_bytes);
}

void ew_copy(const void *from, void *to, int32_t bytes)
{
    if (from != to) {
        memmove(to, from, (size_t)bytes);
    }
}

int ew_is_multiple(int32_t count, int32_t inner)
{
    return count > 0 && count % inner == 0 ? EW_OK : EW_BAD_SIZE;
}

void ew_fill_floats(float *to, int32_t count, float value)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        to[i] = value;
    }
}

int64_t ew_integer_at(const void *from, int32_t type, int32_t i)
{
    switch (type) {
    case EW_INT8:
        return ((const int8_t *)from)[i];
    case EW_UINT8:
        return ((const uint8_t *)from)[i];
    case EW_INT16:
        return ((const int16_t *)from)[i];
    case EW_INT32:
        return ((const int32_t *)from)[i];
    default:
        return ((const int64_t *)from)[i];
    }
}

static float float_at(const void *from, int32_t type, int32_t i)
{
    return type == EW_FLOAT32 ? ((const float *)from)[i] : (float)ew_integer_at(from, type, i);
}

static void put_integer(void *to, int32_t type, int32_t i, int64_t value)
{
    switch (type) {
    case EW_INT8:
        ((int8_t *)to)[i] = (int8_t)value;
        break;
    case EW_UINT8:
        ((uint8_t *)to)[i] = (uint8_t)value;
        break;
    case EW_INT16:
        ((int16_t *)to)[i] = (int16_t)value;
        break;
    case EW_INT32:
        ((int32_t *)to)[i] = (int32_t)value;
        break;
    default:
        ((int64_t *)to)[i] = value;
        break;
    }
}

static int64_t clamped(float x, int32_t type)
{
    static const int64_t LOW[] = {0, INT8_MIN, 0, INT16_MIN, INT32_MIN, INT64_MIN};
    static const int64_t HIGH[] = {0, INT8_MAX, UINT8_MAX, INT16_MAX, INT32_MAX, INT64_MAX};
    if (!(x == x)) {
        return 0;
    }
    /* The limits as floats: those of 32 and 64 bits round up to a power of two, which is too large already. */
    if (x <= (float)LOW[type]) {
        return LOW[type];
    }
    return x >= (float)HIGH[type] ? HIGH[type] : (int64_t)x;
}

void ew_cast(const void *from, int32_t from_type, void *to, int32_t to_type, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        if (to_type == EW_FLOAT32) {
            ((float *)to)[i] = float_at(from, from_type, i);
        } else if (from_type == EW_FLOAT32) {
            put_integer(to, to_type, i, clamped(((const float *)from)[i], to_type));
        } else {
            put_integer(to, to_type, i, ew_integer_at(from, from_type, i));
        }
    }
}

void ew_scale(const void *from, int32_t from_type, float *to, int32_t count, int32_t channels, int32_t inner,
              const float *factor, const float *offset)
{
    int32_t i = 0, c = 0, end;
    while (i < count) {
        for (end = i + inner; i < end; ++i) {
            float product = float_at(from, from_type, i) * factor[c];
            to[i] = product + offset[c];
        }
        c = c + 1 < channels ? c + 1 : 0;
    }
}

void ew_quantize(const float *from, void *to, int32_t to_type, int32_t count, float reciprocal, int32_t zero_point)
{
    const float limit = 1048576.0f;
    int32_t low = to_type == EW_UINT8 ? 0 : to_type == EW_INT8 ? -128 : -32768;
    int32_t high = to_type == EW_UINT8 ? 255 : to_type == EW_INT8 ? 127 : 32767;
    int32_t i;
    for (i = 0; i < count; ++i) {
        float x = from[i] * reciprocal;
        int32_t q = 0;
        if (x == x) {
            x = x < -limit ? -limit : x > limit ? limit : x;
            q = (int32_t)(x < 0.0f ? x - 0.5f : x + 0.5f);
        }
        q += zero_point;
        q = q < low ? low : q > high ? high : q;
        put_integer(to, to_type, i, q);
    }
}

void ew_dequantize(const void *from, int32_t from_type, float *to, int32_t count, float scale, int32_t zero_point)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        to[i] = (float)(ew_integer_at(from, from_type, i) - zero_point) * scale;
    }
}

void ew_transpose(const void *from, void *to, int32_t item_bytes, int32_t rank, const int32_t *shape,
                  const int32_t *axes)
{
    int32_t strides[EW_MAX_RANK], steps[EW_MAX_RANK], at[EW_MAX_RANK] = {0}, axis, source = 0;
    const uint8_t *in = (const uint8_t *)from;
    uint8_t *out = (uint8_t *)to;
    int32_t stride = item_bytes;
    for (axis = rank - 1; axis >= 0; --axis) {
        strides[axis] = stride;
        stride *= shape[axis];
    }
    for (axis = 0; axis < rank; ++axis) {
        steps[axis] = strides[axes[axis]];
    }
    if (stride == 0) {
        return;
    }
    for (;;) {
        memcpy(out, in + source, (size_t)item_bytes);
        out += item_bytes;
        for (axis = rank - 1; axis >= 0; --axis) {
            source += steps[axis];
            if (++at[axis] < shape[axes[axis]]) {
                break;
            }
            source -= steps[axis] * shape[axes[axis]];
            at[axis] = 0;
        }
        if (axis < 0) {
            return;
        }
    }
}

void ew_multiply(const float *a, const float *b, float *to, int32_t count, int32_t period)
{
    int32_t i, j = 0;
    for (i = 0; i < count; ++i) {
        to[i] = a[i] * b[j];
        j = j + 1 < period ? j + 1 : 0;
    }
}
