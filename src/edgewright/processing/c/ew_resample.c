/* Nearest and point sampling, rows that stay as they are, and the canvas that all methods write to. */
#include <string.h>

#include "ew_images.h"
#include "ew_kernels.h"

void *ew_take(ew_pool *pool, int64_t bytes)
{
    uint8_t *made = pool->at;
    bytes = (bytes + 15) & ~(int64_t)15;
    if (bytes > pool->left) {
        return NULL;
    }
    pool->at += bytes;
    pool->left -= (int32_t)bytes;
    return made;
}

static void fill_row(const ew_run *run, uint8_t *row)
{
    int32_t channels = run->view.channels, x;
    for (x = 0; x < run->place.canvas_width; ++x) {
        memcpy(row + (ptrdiff_t)x * channels, run->place.fill, (size_t)channels);
    }
}

void ew_to_canvas(const ew_canvas *canvas, int32_t row, const uint8_t *pixels)
{
    const ew_place *place = &canvas->run->place;
    size_t channels = (size_t)canvas->run->view.channels;
    if (place->columns != place->canvas_width) {
        memcpy(canvas->row + (size_t)place->at_column * channels, pixels, (size_t)place->columns * channels);
        pixels = canvas->row;
    }
    ew_put_row(canvas->run, place->at_row + row, pixels, canvas->wide);
}

static int nearest(const ew_run *run, int32_t corners, ew_pool *pool, const ew_canvas *canvas)
{
    const ew_place *place = &run->place;
    int32_t *columns = (int32_t *)ew_take(pool, 4 * (int64_t)place->columns);
    uint8_t *pixels = (uint8_t *)ew_take(pool, (int64_t)place->columns * run->view.channels);
    int32_t i;
    if (columns == NULL || pixels == NULL) {
        return EW_BAD_SIZE;
    }
    for (i = 0; i < place->columns; ++i) {
        columns[i] = ew_nearest(run->view.width, place->width, corners, place->left + i);
    }
    for (i = 0; i < place->rows; ++i) {
        int32_t y = ew_nearest(run->view.height, place->height, corners, place->top + i);
        ew_read(&run->view, y, columns, 0, place->columns, pixels);
        ew_to_canvas(canvas, i, pixels);
    }
    return EW_OK;
}

static int same(const ew_run *run, ew_pool *pool, const ew_canvas *canvas)
{
    const ew_place *place = &run->place;
    int32_t is_direct = ew_is_direct(&run->view), i;
    uint8_t *pixels = NULL;
    if (!is_direct) {
        pixels = (uint8_t *)ew_take(pool, (int64_t)place->columns * run->view.channels);
        if (pixels == NULL) {
            return EW_BAD_SIZE;
        }
    }
    for (i = 0; i < place->rows; ++i) {
        if (is_direct) {
            ew_to_canvas(canvas, i, ew_row(&run->view, place->top + i, place->left));
        } else {
            ew_read(&run->view, place->top + i, NULL, place->left, place->columns, pixels);
            ew_to_canvas(canvas, i, pixels);
        }
    }
    return EW_OK;
}

static int point(const ew_run *run, int32_t method, int32_t corners, ew_pool *pool, const ew_canvas *canvas)
{
    const ew_place *place = &run->place;
    const ew_view *view = &run->view;
    int32_t taps = method == EW_BILINEAR ? 2 : 4, count = place->columns * view->channels;
    int32_t is_direct = ew_is_direct(view), held[4] = {-1, -1, -1, -1}, next = 0, i, k, s;
    int32_t *columns = (int32_t *)ew_take(pool, 4 * (int64_t)place->columns * taps);
    int16_t *weights = (int16_t *)ew_take(pool, 2 * (int64_t)place->columns * taps);
    int32_t *index = is_direct ? columns : (int32_t *)ew_take(pool, 4 * (int64_t)place->columns * taps);
    uint8_t *read = is_direct ? NULL : (uint8_t *)ew_take(pool, (int64_t)count * taps);
    int32_t *slots = (int32_t *)ew_take(pool, 4 * (int64_t)count * taps);
    uint8_t *pixels = (uint8_t *)ew_take(pool, count);
    if (columns == NULL || weights == NULL || index == NULL || (read == NULL && !is_direct) || slots == NULL ||
        pixels == NULL) {
        return EW_BAD_SIZE;
    }
    for (i = 0; i < place->columns; ++i) {
        int32_t wide[4];
        ew_point_taps(view->width, place->width, method, corners, place->left + i, columns + (ptrdiff_t)i * taps, wide);
        for (k = 0; k < taps; ++k) {
            weights[i * taps + k] = (int16_t)wide[k];
        }
    }
    for (i = 0; i < place->columns * taps; ++i) {
        index[i] = (is_direct ? columns[i] : i) * view->channels;
    }
    for (i = 0; i < place->rows; ++i) {
        const int32_t *rows[4] = {slots, slots, slots, slots};
        int32_t wanted[4], wide[4];
        ew_point_taps(view->height, place->height, method, corners, place->top + i, wanted, wide);
        for (k = 0; k < taps; ++k) {
            for (s = 0; s < taps && held[s] != wanted[k]; ++s) {
            }
            if (s == taps) {
                /* The slots go round: the row that was made first is the uppermost, which no later row needs. */
                s = next;
                next = next + 1 < taps ? next + 1 : 0;
                held[s] = wanted[k];
                if (!is_direct) {
                    ew_read(view, wanted[k], columns, 0, place->columns * taps, read);
                }
                ew_points_across(is_direct ? ew_row(view, wanted[k], 0) : read,
                                 (is_direct ? view->width : place->columns * taps) * view->channels, index, weights,
                                 taps, place->columns, view->channels, slots + (ptrdiff_t)s * count);
            }
            rows[k] = slots + (ptrdiff_t)s * count;
        }
        ew_points_down(rows, wide, taps, count, pixels);
        ew_to_canvas(canvas, i, pixels);
    }
    return EW_OK;
}

int ew_resample(ew_run *run, int32_t method, int32_t corners, void *scratch, int32_t scratch_bytes)
{
    const ew_place *place = &run->place;
    int64_t row_bytes = (int64_t)place->canvas_width * run->view.channels;
    ew_pool pool;
    ew_canvas canvas;
    float *wide;
    int32_t y;
    pool.at = (uint8_t *)scratch;
    pool.left = scratch_bytes;
    wide = (float *)ew_take(&pool, 8 * row_bytes);
    canvas.run = run;
    canvas.wide = wide;
    canvas.row = (uint8_t *)ew_take(&pool, row_bytes);
    if (wide == NULL || canvas.row == NULL) {
        return EW_BAD_SIZE;
    }
    ew_widen(run, wide);
    if (place->rows != place->canvas_height || place->columns != place->canvas_width) {
        fill_row(run, canvas.row);
        for (y = 0; y < place->canvas_height; ++y) {
            if (y < place->at_row || y >= place->at_row + place->rows) {
                ew_put_row(run, y, canvas.row, wide);
            }
        }
    }
    if (method == EW_NEAREST) {
        return nearest(run, corners, &pool, &canvas);
    }
    if (run->view.height == place->height && run->view.width == place->width) {
        return same(run, &pool, &canvas);
    }
    if (method == EW_BILINEAR || method == EW_BICUBIC) {
        return point(run, method, corners, &pool, &canvas);
    }
    return ew_filter(run, method, &pool, &canvas);
}
