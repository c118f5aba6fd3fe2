/* See ew_resize_floats.h. Columns first, then rows; each product is rounded before it is added. */
#include "ew_resize_floats.h"

#include <string.h>

#include "ew_images.h"

/* The taps of output pixel i: how many, and each with its index and weight. */
static int32_t taps_of(int32_t size, int32_t out, int32_t method, int32_t corners, int32_t i, int32_t *indices,
                       float *weights)
{
    int32_t first, count, k;
    if (method == EW_BILINEAR || method == EW_BICUBIC) {
        ew_point_floats(size, out, method, corners, i, indices, weights);
        return method == EW_BILINEAR ? 2 : 4;
    }
    count = ew_filter_floats(size, out, method, i, &first, weights);
    for (k = 0; k < count; ++k) {
        indices[k] = first + k;
    }
    return count;
}

static void nearest(const float *from, int32_t height, int32_t width, int32_t channels, float *to, int32_t to_height,
                    int32_t to_width, int32_t corners)
{
    int32_t y, x;
    for (y = 0; y < to_height; ++y) {
        const float *row = from + (ptrdiff_t)ew_nearest(height, to_height, corners, y) * width * channels;
        for (x = 0; x < to_width; ++x, to += channels) {
            memcpy(to, row + (ptrdiff_t)ew_nearest(width, to_width, corners, x) * channels,
                   (size_t)channels * sizeof *to);
        }
    }
}

int ew_resize_floats(const float *from, int32_t height, int32_t width, int32_t channels, float *to, int32_t to_height,
                     int32_t to_width, int32_t method, int32_t corners, void *scratch, int32_t scratch_bytes)
{
    ew_pool pool;
    int32_t most = 4, count, x, y, k, i, *indices;
    float *middle, *weights;
    if (method == EW_NEAREST) {
        nearest(from, height, width, channels, to, to_height, to_width, corners);
        return EW_OK;
    }
    if (height == to_height && width == to_width) {
        memcpy(to, from, sizeof *to * (size_t)height * (size_t)width * (size_t)channels);
        return EW_OK;
    }
    if (method != EW_BILINEAR && method != EW_BICUBIC) {
        most = ew_filter_most(width, to_width, method);
        k = ew_filter_most(height, to_height, method);
        most = most > k ? most : k;
    }
    pool.at = (uint8_t *)scratch;
    pool.left = scratch_bytes;
    middle = (float *)ew_take(&pool, 4 * (int64_t)height * to_width * channels);
    indices = (int32_t *)ew_take(&pool, 4 * (int64_t)most);
    weights = (float *)ew_take(&pool, 4 * (int64_t)most);
    if (middle == NULL || indices == NULL || weights == NULL) {
        return EW_BAD_SIZE;
    }
    for (x = 0; x < to_width; ++x) {
        count = taps_of(width, to_width, method, corners, x, indices, weights);
        for (y = 0; y < height; ++y) {
            const float *row = from + (ptrdiff_t)y * width * channels;
            float *made = middle + ((ptrdiff_t)y * to_width + x) * channels;
            for (i = 0; i < channels; ++i) {
                float sum = row[(ptrdiff_t)indices[0] * channels + i] * weights[0];
                for (k = 1; k < count; ++k) {
                    float product = row[(ptrdiff_t)indices[k] * channels + i] * weights[k];
                    sum += product;
                }
                made[i] = sum;
            }
        }
    }
    for (y = 0; y < to_height; ++y) {
        ptrdiff_t size = (ptrdiff_t)to_width * channels;
        count = taps_of(height, to_height, method, corners, y, indices, weights);
        for (i = 0; i < size; ++i) {
            float sum = middle[indices[0] * size + i] * weights[0];
            for (k = 1; k < count; ++k) {
                float product = middle[indices[k] * size + i] * weights[k];
                sum += product;
            }
            to[y * size + i] = sum;
        }
    }
    return EW_OK;
}
