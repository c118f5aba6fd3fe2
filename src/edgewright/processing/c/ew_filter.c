/* Filters over the area of an output pixel: area, and bilinear and bicubic with antialias. */
#include "ew_images.h"
#include "ew_kernels.h"
#include "ew_math.h"

/* Output rows that one source row takes part in, where the image shrinks; source rows that make an output row, where
 * it grows. Bicubic: two on each side, and two for rounding. */
#define SLOTS 7

typedef struct {
    int32_t *first, *count, *weights;
    int32_t stride;
} columns;

/* What both ways down the image share. */
typedef struct {
    const ew_run *run;
    const ew_canvas *canvas;
    columns table;
    int32_t method, begin, end; /* columns of the view that are read */
    int32_t count;              /* values of a row that is made */
    int32_t most;               /* taps of an output row */
    int32_t *weights;           /* [SLOTS, most] */
    int32_t *sums;              /* [SLOTS, count] */
    uint8_t *read, *row, *pixels;
} work;

/* Make row `y` of the view across, to `to`. */
static void make_row(const work *w, int32_t y, uint8_t *to)
{
    const ew_view *view = &w->run->view;
    const uint8_t *row = w->read;
    int32_t length = w->end - w->begin;
    if (row == NULL) {
        row = ew_row(view, y, w->begin);
        length = view->width - w->begin;
    } else {
        ew_read(view, y, NULL, w->begin, w->end - w->begin, w->read);
    }
    ew_filter_across(row, length * view->channels, w->table.first, w->table.count, w->table.weights, w->table.stride,
                     w->run->place.columns, view->channels, to);
}

/* The image shrinks: each source row is made across once and goes to the sums of the few output rows that it takes
 * part in. */
static void shrink(const work *w)
{
    const ew_place *place = &w->run->place;
    int32_t first[SLOTS], taps[SLOTS], low = 0, next = 0, y = 0, is_known = 0, s, i;
    while (low < place->rows) {
        for (; next < place->rows && next - low < SLOTS; ++next) {
            s = next % SLOTS;
            if (!is_known) {
                taps[s] = ew_filter_taps(w->run->view.height, place->height, w->method, place->top + next, &first[s],
                                         w->weights + (ptrdiff_t)s * w->most);
                is_known = 1;
                y = low == next ? first[s] : y;
            }
            if (first[s] > y) {
                break;
            }
            ew_begin_sums(w->count, w->sums + (ptrdiff_t)s * w->count);
            is_known = 0;
        }
        make_row(w, y, w->row);
        for (i = low; i < next; ++i) {
            s = i % SLOTS;
            if (y < first[s] + taps[s]) {
                ew_add_row(w->row, w->weights[(ptrdiff_t)s * w->most + y - first[s]], w->count,
                        w->sums + (ptrdiff_t)s * w->count);
            }
        }
        for (; low < next && y + 1 >= first[low % SLOTS] + taps[low % SLOTS]; ++low) {
            ew_end_sums(w->sums + (ptrdiff_t)(low % SLOTS) * w->count, w->count, w->pixels);
            ew_to_canvas(w->canvas, low, w->pixels);
        }
        ++y;
    }
}

/* The image grows: each output row is made of few source rows, which are kept until later ones take their place. */
static void grow(const work *w)
{
    const ew_place *place = &w->run->place;
    uint8_t *rows = (uint8_t *)w->sums + 4 * (ptrdiff_t)w->count; /* behind the only sums that are needed */
    int32_t held[SLOTS - 1], s, i, k, first, taps;
    for (s = 0; s < SLOTS - 1; ++s) {
        held[s] = -1;
    }
    for (i = 0; i < place->rows; ++i) {
        taps = ew_filter_taps(w->run->view.height, place->height, w->method, place->top + i, &first, w->weights);
        ew_begin_sums(w->count, w->sums);
        for (k = 0; k < taps; ++k) {
            uint8_t *row;
            s = (first + k) % (SLOTS - 1);
            row = rows + (ptrdiff_t)s * w->count;
            if (held[s] != first + k) {
                make_row(w, first + k, row);
                held[s] = first + k;
            }
            ew_add_row(row, w->weights[k], w->count, w->sums);
        }
        ew_end_sums(w->sums, w->count, w->pixels);
        ew_to_canvas(w->canvas, i, w->pixels);
    }
}

int ew_filter(const ew_run *run, int32_t method, ew_pool *pool, const ew_canvas *canvas)
{
    const ew_view *view = &run->view;
    const ew_place *place = &run->place;
    work w;
    int32_t i;
    w.run = run;
    w.canvas = canvas;
    w.method = method;
    w.count = place->columns * view->channels;
    w.most = ew_filter_most(view->height, place->height, method);
    w.table.stride = ew_filter_most(view->width, place->width, method);
    w.table.first = (int32_t *)ew_take(pool, 4 * (int64_t)place->columns);
    w.table.count = (int32_t *)ew_take(pool, 4 * (int64_t)place->columns);
    w.table.weights = (int32_t *)ew_take(pool, 4 * (int64_t)place->columns * w.table.stride);
    w.weights = (int32_t *)ew_take(pool, 4 * (int64_t)SLOTS * w.most);
    w.sums = (int32_t *)ew_take(pool, 4 * (int64_t)SLOTS * w.count);
    w.row = (uint8_t *)ew_take(pool, w.count);
    w.pixels = (uint8_t *)ew_take(pool, w.count);
    if (w.table.first == NULL || w.table.count == NULL || w.table.weights == NULL || w.weights == NULL ||
        w.sums == NULL || w.row == NULL || w.pixels == NULL) {
        return EW_BAD_SIZE;
    }
    w.begin = view->width;
    w.end = 0;
    for (i = 0; i < place->columns; ++i) {
        w.table.count[i] = ew_filter_taps(view->width, place->width, method, place->left + i, &w.table.first[i],
                                          w.table.weights + (ptrdiff_t)i * w.table.stride);
        ew_pack_taps(w.table.weights + (ptrdiff_t)i * w.table.stride, w.table.count[i]);
        w.begin = ew_least(w.begin, w.table.first[i]);
        w.end = ew_most(w.end, w.table.first[i] + w.table.count[i]);
    }
    for (i = 0; i < place->columns; ++i) {
        w.table.first[i] -= w.begin;
    }
    w.read = NULL;
    if (!ew_is_direct(view)) {
        w.read = (uint8_t *)ew_take(pool, (int64_t)(w.end - w.begin) * view->channels);
        if (w.read == NULL) {
            return EW_BAD_SIZE;
        }
    }
    if (view->height >= place->height) {
        shrink(&w);
    } else {
        grow(&w);
    }
    return EW_OK;
}
