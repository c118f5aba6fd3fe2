/* Filters over the area of an output pixel: area, and bilinear and bicubic with antialias. */
#include "ew_images.h"
#include "ew_math.h"

#define ROUND (1 << 21)
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

static uint8_t rounded(int32_t sum)
{
    return (uint8_t)(sum < 0 ? 0 : ew_least(sum >> 22, 255));
}

static void across(const uint8_t *row, const columns *table, int32_t width, int32_t channels, uint8_t *to)
{
    int32_t x, k, c;
    for (x = 0; x < width; ++x, to += channels) {
        const int32_t *w = table->weights + (ptrdiff_t)x * table->stride;
        const uint8_t *at = row + (ptrdiff_t)table->first[x] * channels;
        int32_t count = table->count[x];
        if (channels == 3) {
            int32_t r = ROUND, g = ROUND, b = ROUND;
            for (k = 0; k < count; ++k, at += 3) {
                r += at[0] * w[k];
                g += at[1] * w[k];
                b += at[2] * w[k];
            }
            to[0] = rounded(r);
            to[1] = rounded(g);
            to[2] = rounded(b);
            continue;
        }
        for (c = 0; c < channels; ++c) {
            int32_t sum = ROUND;
            for (k = 0; k < count; ++k) {
                sum += at[(ptrdiff_t)k * channels + c] * w[k];
            }
            to[c] = rounded(sum);
        }
    }
}

static void add_row(const uint8_t *row, int32_t weight, int32_t count, int32_t *sums)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        sums[i] += row[i] * weight;
    }
}

static void begin_row(int32_t count, int32_t *sums)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        sums[i] = ROUND;
    }
}

static void end_row(const int32_t *sums, int32_t count, uint8_t *to)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        to[i] = rounded(sums[i]);
    }
}

/* Make row `y` of the view across, to `to`. */
static void make_row(const work *w, int32_t y, uint8_t *to)
{
    const ew_view *view = &w->run->view;
    const uint8_t *row = w->read;
    if (row == NULL) {
        row = ew_row(view, y, w->begin);
    } else {
        ew_read(view, y, NULL, w->begin, w->end - w->begin, w->read);
    }
    across(row, &w->table, w->run->place.columns, view->channels, to);
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
            begin_row(w->count, w->sums + (ptrdiff_t)s * w->count);
            is_known = 0;
        }
        make_row(w, y, w->row);
        for (i = low; i < next; ++i) {
            s = i % SLOTS;
            if (y < first[s] + taps[s]) {
                add_row(w->row, w->weights[(ptrdiff_t)s * w->most + y - first[s]], w->count,
                        w->sums + (ptrdiff_t)s * w->count);
            }
        }
        for (; low < next && y + 1 >= first[low % SLOTS] + taps[low % SLOTS]; ++low) {
            end_row(w->sums + (ptrdiff_t)(low % SLOTS) * w->count, w->count, w->pixels);
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
        begin_row(w->count, w->sums);
        for (k = 0; k < taps; ++k) {
            uint8_t *row;
            s = (first + k) % (SLOTS - 1);
            row = rows + (ptrdiff_t)s * w->count;
            if (held[s] != first + k) {
                make_row(w, first + k, row);
                held[s] = first + k;
            }
            add_row(row, w->weights[k], w->count, w->sums);
        }
        end_row(w->sums, w->count, w->pixels);
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
