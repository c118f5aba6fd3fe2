/* See ew_boxes.h. */
#include "ew_boxes.h"

#include <string.h>

#include "ew_math.h"

#define MAX_EXPONENT 20.0f
#define MOST_CLASSES 16777216.0f

static void corners(float a, float b, float c, float d, int32_t format, int32_t height, int32_t width, float *to)
{
    float half;
    switch (format) {
    case EW_YXYX:
        to[0] = b;
        to[1] = a;
        to[2] = d;
        to[3] = c;
        break;
    case EW_XYWH:
        to[0] = a;
        to[1] = b;
        to[2] = a + c;
        to[3] = b + d;
        break;
    case EW_CXCYWH:
        half = c * 0.5f;
        to[0] = a - half;
        to[2] = a + half;
        half = d * 0.5f;
        to[1] = b - half;
        to[3] = b + half;
        break;
    default:
        to[0] = a;
        to[1] = b;
        to[2] = c;
        to[3] = d;
        break;
    }
    if (height > 0) {
        to[0] *= (float)width;
        to[1] *= (float)height;
        to[2] *= (float)width;
        to[3] *= (float)height;
    }
}

void ew_join_boxes(const float *boxes, const float *scores, int32_t n, int32_t given, int32_t skipped, int32_t format,
                   int32_t height, int32_t width, float *to)
{
    size_t classes = (size_t)(given - skipped);
    int32_t i;
    for (i = 0; i < n; ++i, boxes += 4, scores += given, to += 4 + classes) {
        corners(boxes[0], boxes[1], boxes[2], boxes[3], format, height, width, to);
        memcpy(to + 4, scores + skipped, classes * sizeof *to);
    }
}

/* Sort `order` by falling score; of equal ones the earlier stays first. Merges runs that grow: n log n steps. */
static void sort_by_score(int32_t *order, int32_t *spare, int32_t n, const float *rows, int32_t columns)
{
    int32_t size, first, i;
    for (size = 1; size < n; size *= 2) {
        for (first = 0; first < n; first += 2 * size) {
            int32_t a = first, middle = ew_least(first + size, n), b = middle, end = ew_least(first + 2 * size, n);
            for (i = first; i < end; ++i) {
                int32_t takes_b =
                    a == middle || (b < end && rows[(ptrdiff_t)order[b] * columns + 4] >
                                                   rows[(ptrdiff_t)order[a] * columns + 4]);
                spare[i] = takes_b ? order[b++] : order[a++];
            }
        }
        memcpy(order, spare, (size_t)n * sizeof *order);
    }
}

/* Put the rows that `order` names into `to` in that order; rows of which none is both source and target before. */
static void gather(const float *rows, const int32_t *order, int32_t n, int32_t columns, float *to)
{
    int32_t i;
    for (i = 0; i < n; ++i) {
        memcpy(to + (ptrdiff_t)i * columns, rows + (ptrdiff_t)order[i] * columns, (size_t)columns * sizeof *to);
    }
}

static int32_t is_good(const float *row, int32_t columns, float least)
{
    int32_t i;
    for (i = 0; i < columns; ++i) {
        if (!(row[i] - row[i] == 0.0f)) { /* infinite or not a number */
            return 0;
        }
    }
    return row[4] >= least && row[5] > -1.0f && row[5] < MOST_CLASSES;
}

/* The rows that are good, the best first. `made` [n, columns] is used up. */
static int32_t best_first(const float *made, int32_t n, int32_t columns, float least, float *to, int32_t *order)
{
    int32_t found = 0, i;
    for (i = 0; i < n; ++i) {
        if (is_good(made + (ptrdiff_t)i * columns, columns, least)) {
            order[found++] = i;
        }
    }
    sort_by_score(order, order + n, found, made, columns);
    gather(made, order, found, columns, to);
    return found;
}

int32_t ew_decode_ssd_outputs(const float *boxes, const float *classes, const float *scores, const float *counted,
                              int32_t n, int32_t format, int32_t height, int32_t width, float least, float *to,
                              void *scratch)
{
    float *made = (float *)scratch;
    int32_t *order = (int32_t *)(void *)(made + 6 * (ptrdiff_t)n), i;
    if (counted != NULL) {
        n = !(*counted > 0.0f) ? 0 : *counted < (float)n ? (int32_t)*counted : n;
    }
    for (i = 0; i < n; ++i, boxes += 4) {
        float *row = made + 6 * (ptrdiff_t)i;
        corners(boxes[0], boxes[1], boxes[2], boxes[3], format, height, width, row);
        row[4] = scores[i];
        row[5] = classes[i];
    }
    return best_first(made, n, 6, least, to, order);
}

int32_t ew_decode_end_to_end(const float *rows, int32_t n, int32_t columns, int32_t format, int32_t height,
                             int32_t width, float least, float *to, void *scratch)
{
    float *made = (float *)scratch;
    int32_t *order = (int32_t *)(void *)(made + (ptrdiff_t)n * columns), i, k;
    for (i = 0; i < n; ++i, rows += columns) {
        float *row = made + (ptrdiff_t)i * columns;
        corners(rows[0], rows[1], rows[2], rows[3], format, height, width, row);
        memcpy(row + 4, rows + 4, (size_t)(columns - 4) * sizeof *row);
        for (k = 6; k < columns && height > 0; k += 3) {
            row[k] *= (float)width;
            row[k + 1] *= (float)height;
        }
    }
    return best_first(made, n, columns, least, to, order);
}

static float limited(float x)
{
    return x > MAX_EXPONENT ? MAX_EXPONENT : x;
}

void ew_decode_anchors(const float *offsets, const float *scores, int32_t given, int32_t skipped, int32_t levels,
                       const int32_t *shapes, const double *pitches, const double *sizes, int32_t is_swapped,
                       float centre_variance, float size_variance, double clip_width, double clip_height, float *to)
{
    int32_t level, row, column, k, axis, first = is_swapped ? 1 : 0;
    size_t classes = (size_t)(given - skipped);
    const double clips[2] = {clip_width, clip_height};
    for (level = 0; level < levels; ++level, shapes += 3, pitches += 2) {
        for (row = 0; row < shapes[0]; ++row) {
            for (column = 0; column < shapes[1]; ++column) {
                for (k = 0; k < shapes[2]; ++k) {
                    const double places[2] = {((double)column + 0.5) * pitches[0], ((double)row + 0.5) * pitches[1]};
                    for (axis = 0; axis < 2; ++axis) {
                        double place = places[axis], size = sizes[2 * k + axis];
                        float move = offsets[axis ^ first] * centre_variance;
                        float raised = ew_exp(limited(offsets[2 + (axis ^ first)] * size_variance));
                        float extent, centre, half;
                        if (clips[axis] > 0.0) {
                            place = place > clips[axis] ? clips[axis] : place;
                            size = size > clips[axis] ? clips[axis] : size;
                        }
                        extent = (float)size;
                        move *= extent;
                        centre = move + (float)place;
                        half = raised * extent * 0.5f;
                        to[axis] = centre - half;
                        to[2 + axis] = centre + half;
                    }
                    memcpy(to + 4, scores + skipped, classes * sizeof *to);
                    offsets += 4;
                    scores += given;
                    to += 4 + classes;
                }
            }
        }
        sizes += 2 * shapes[2];
    }
}

static float tanh_of(float x)
{
    double size = x < 0.0f ? -(double)x : (double)x, t;
    if (!(x == x) || size < 1e-4) {
        return x == x ? (float)((double)x - (double)x * (double)x * (double)x / 3.0) : x;
    }
    t = ew_exp_double(-2.0 * (size > 40.0 ? 40.0 : size));
    t = (1.0 - t) / (1.0 + t);
    return (float)(x < 0.0f ? -t : t);
}

static float powered(float x, double power)
{
    if (power == 1.0 || !(x == x)) {
        return x;
    }
    if (!(x > 0.0f)) {
        return 0.0f;
    }
    return ew_exp_of(power * ew_log((double)x));
}

void ew_decode_grid(const float *from, const ew_grid *grid, int32_t grids, const int32_t *shapes, const float *pitches,
                    float *to)
{
    int32_t box = grid->objectness == EW_OBJECT_FIRST ? 1 : 0, scores = grid->objectness == EW_OBJECT_NONE ? 4 : 5;
    int32_t number, cell, axis, c, step = grid->channel_step;
    for (number = 0; number < grids; ++number, shapes += 2, pitches += 2) {
        for (cell = 0; cell < shapes[0] * shapes[1]; ++cell, from += grid->cell_step) {
            float object = 1.0f;
            for (axis = 0; axis < 2; ++axis) {
                float offset = from[(box + axis) * step], size = from[(box + 2 + axis) * step], centre, half;
                offset = grid->centre == EW_SIGMOID ? ew_sigmoid_of(offset)
                         : grid->centre == EW_TANH  ? tanh_of(offset)
                                                    : offset;
                centre = (offset + (float)(axis == 0 ? cell % shapes[1] : cell / shapes[1])) * pitches[axis];
                if (grid->is_exponential) {
                    size = ew_exp(limited(size)) * pitches[axis];
                } else {
                    size = ew_sigmoid_of(size) * (axis == 0 ? grid->width : grid->height);
                }
                half = size * 0.5f;
                to[axis] = centre - half;
                to[2 + axis] = centre + half;
            }
            if (scores == 5) {
                object = from[(box != 0 ? 0 : 4) * step];
                object = powered(grid->is_sigmoid ? ew_sigmoid_of(object) : object, grid->objectness_power);
            }
            for (c = scores; c < grid->channels; ++c) {
                float score = from[c * step];
                score = powered(grid->is_sigmoid ? ew_sigmoid_of(score) : score, grid->class_power);
                to[4 + c - scores] = scores == 5 ? object * score : score;
            }
            to += 4 + grid->channels - scores;
        }
    }
}

void ew_decode_yolo(const float *from, int32_t n, int32_t channels, int32_t is_rows, int32_t has_objectness,
                    int32_t keypoints, int32_t height, int32_t width, float *to)
{
    int32_t step = is_rows ? 1 : n, i, c, first = channels - 3 * keypoints;
    for (i = 0; i < n; ++i, from += is_rows ? channels : 1) {
        corners(from[0], from[step], from[2 * step], from[3 * step], EW_CXCYWH, height, width, to);
        to += 4;
        for (c = has_objectness ? 5 : 4; c < channels; ++c) {
            float value = from[(ptrdiff_t)c * step];
            if (has_objectness) {
                value = from[4 * (ptrdiff_t)step] * value;
            } else if (c >= first && height > 0 && (c - first) % 3 < 2) {
                value *= (float)((c - first) % 3 == 0 ? width : height);
            }
            *to++ = value;
        }
    }
}

typedef struct {
    float offset[2], factor[2], size[2];
} way;

static way way_back(const ew_run *run, int32_t geometry)
{
    const ew_geometry *g = &run->geometries[geometry];
    way back;
    back.offset[0] = (float)g->offset_x;
    back.offset[1] = (float)g->offset_y;
    back.factor[0] = (float)(1.0 / g->scale_x);
    back.factor[1] = (float)(1.0 / g->scale_y);
    back.size[0] = (float)g->source_width;
    back.size[1] = (float)g->source_height;
    return back;
}

static float moved(const way *back, int32_t axis, float x)
{
    return (x - back->offset[axis]) * back->factor[axis];
}

static float clipped(float x, float high)
{
    x = x < 0.0f ? 0.0f : x;
    return x > high ? high : x;
}

int32_t ew_boxes_to_source(const ew_run *run, int32_t geometry, const float *from, int32_t n, int32_t columns,
                           float *to)
{
    way back = way_back(run, geometry);
    int32_t found = 0, i, k;
    for (i = 0; i < n; ++i, from += columns) {
        for (k = 0; k < columns; ++k) {
            int32_t axis = k < 4 ? k % 2 : (k - 6) % 3;
            to[k] = from[k];
            if (k < 4) {
                to[k] = clipped(moved(&back, axis, from[k]), back.size[axis]);
            } else if (k >= 6 && axis < 2) {
                to[k] = moved(&back, axis, from[k]);
            }
        }
        if (to[2] > to[0] && to[3] > to[1]) {
            to += columns;
            ++found;
        }
    }
    return found;
}

void ew_points_to_source(const ew_run *run, int32_t geometry, const float *from, int32_t n, int32_t columns,
                         float *to)
{
    way back = way_back(run, geometry);
    int32_t i, k;
    for (i = 0; i < n; ++i, from += columns, to += columns) {
        for (k = 0; k < columns; ++k) {
            to[k] = k < 2 ? moved(&back, k, from[k]) : from[k];
        }
    }
}
