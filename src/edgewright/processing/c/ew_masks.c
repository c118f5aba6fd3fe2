/* See ew_masks.h. */
#include "ew_masks.h"

#include "ew_math.h"
#include "ew_tensors.h"

void ew_argmax(const void *from, int32_t type, int32_t pixels, int32_t classes, int32_t is_first, void *to)
{
    int32_t i, c;
    for (i = 0; i < pixels; ++i) {
        int32_t at = is_first ? i : i * classes, step = is_first ? pixels : 1, best = 0;
        for (c = 1; c < classes; ++c) {
            int32_t a = at + c * step, b = at + best * step, is_above;
            if (type == EW_FLOAT32) {
                is_above = ew_ranked(((const float *)from)[a]) > ew_ranked(((const float *)from)[b]);
            } else {
                is_above = ew_integer_at(from, type, a) > ew_integer_at(from, type, b);
            }
            best = is_above ? c : best;
        }
        if (classes <= 256) {
            ((uint8_t *)to)[i] = (uint8_t)best;
        } else {
            ((int32_t *)to)[i] = best;
        }
    }
}

void ew_mask(const void *from, int32_t type, int32_t count, float threshold, uint8_t *to)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        if (type == EW_FLOAT32) {
            to[i] = ((const float *)from)[i] >= threshold;
        } else {
            int64_t value = ew_integer_at(from, type, i);
            to[i] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
        }
    }
}

/* The mask's row or column for number i of the source's, -1 where that is outside. */
static int32_t place_of(int32_t i, double scale, double offset, double ratio, int32_t size)
{
    double place = (double)i + 0.5;
    place *= scale;
    place += offset;
    place *= ratio;
    return place >= 0.0 && place < (double)size ? (int32_t)place : -1;
}

int ew_mask_to_source(const ew_run *run, int32_t geometry, const void *mask, int32_t item_bytes, int32_t rows,
                      int32_t columns, int32_t fill, void *to, int32_t most, void *places, int32_t *to_rows,
                      int32_t *to_columns)
{
    const ew_geometry *g = &run->geometries[geometry];
    double ratio_x = (double)columns / (double)g->width, ratio_y = (double)rows / (double)g->height;
    int32_t *column = (int32_t *)places, y, x, at = 0;
    if ((int64_t)g->source_height * g->source_width > most) {
        return EW_BAD_SIZE;
    }
    for (x = 0; x < g->source_width; ++x) {
        column[x] = place_of(x, g->scale_x, g->offset_x, ratio_x, columns);
    }
    for (y = 0; y < g->source_height; ++y) {
        int32_t row = place_of(y, g->scale_y, g->offset_y, ratio_y, rows);
        for (x = 0; x < g->source_width; ++x, ++at) {
            int32_t is_inside = row >= 0 && column[x] >= 0, from = is_inside ? row * columns + column[x] : 0;
            if (item_bytes == 1) {
                ((uint8_t *)to)[at] = is_inside ? ((const uint8_t *)mask)[from] : (uint8_t)fill;
            } else {
                ((int32_t *)to)[at] = is_inside ? ((const int32_t *)mask)[from] : fill;
            }
        }
    }
    *to_rows = g->source_height;
    *to_columns = g->source_width;
    return EW_OK;
}

/* A quarter towards the higher neighbour. */
static double shift(float left, float right, int32_t at, int32_t size)
{
    if (at == 0 || at == size - 1) {
        return 0.0;
    }
    return ew_ranked(right) > ew_ranked(left) ? 0.25 : ew_ranked(left) > ew_ranked(right) ? -0.25 : 0.0;
}

void ew_heatmaps(const float *from, int32_t points, int32_t rows, int32_t columns, int32_t is_last, int32_t refines,
                 float cell_height, float cell_width, float *to)
{
    int32_t step = is_last ? points : 1, point, i;
    for (point = 0; point < points; ++point, to += 3) {
        const float *map = from + (is_last ? point : (ptrdiff_t)point * rows * columns), *at;
        int32_t best = 0, x, y;
        double right = 0.0, down = 0.0;
        for (i = 1; i < rows * columns; ++i) {
            best = ew_ranked(map[(ptrdiff_t)i * step]) > ew_ranked(map[(ptrdiff_t)best * step]) ? i : best;
        }
        y = best / columns;
        x = best % columns;
        at = map + (ptrdiff_t)best * step;
        if (refines) {
            right = shift(x > 0 ? at[-step] : 0.0f, x + 1 < columns ? at[step] : 0.0f, x, columns);
            down = shift(y > 0 ? at[-(ptrdiff_t)columns * step] : 0.0f,
                         y + 1 < rows ? at[(ptrdiff_t)columns * step] : 0.0f, y, rows);
        }
        to[0] = (float)((double)x + 0.5 + right) * cell_width;
        to[1] = (float)((double)y + 0.5 + down) * cell_height;
        to[2] = *at - *at == 0.0f ? *at : 0.0f;
    }
}

void ew_keypoints(const float *from, int32_t points, int32_t size, int32_t x, int32_t y, int32_t score,
                  int32_t height, int32_t width, float *to)
{
    int32_t i;
    for (i = 0; i < points; ++i, from += size, to += 3) {
        to[0] = height > 0 ? from[x] * (float)width : from[x];
        to[1] = height > 0 ? from[y] * (float)height : from[y];
        to[2] = score >= 0 ? from[score] : 1.0f;
    }
}
