/* See ew_nms.h. */
#include "ew_nms.h"

#include <string.h>

#include "ew_math.h"
#include "ew_run.h"

/* One candidate that takes part, as one of its classes. */
typedef struct {
    float score;
    int32_t row, label;
    float area;
    int32_t is_left;
} part;

/* Whether `a` comes before `b`: by score, then by row, then by class. */
static int32_t is_before(const part *a, const part *b)
{
    if (a->score != b->score) {
        return a->score > b->score;
    }
    return a->row != b->row ? a->row < b->row : a->label < b->label;
}

/* Let the part at `i` of a heap, whose root is the last of all, sink to its place. */
static void sink(part *heap, int32_t i, int32_t n)
{
    for (;;) {
        int32_t child = 2 * i + 1;
        part held;
        if (child >= n) {
            return;
        }
        if (child + 1 < n && is_before(&heap[child], &heap[child + 1])) {
            ++child;
        }
        if (!is_before(&heap[i], &heap[child])) {
            return;
        }
        held = heap[i];
        heap[i] = heap[child];
        heap[child] = held;
        i = child;
    }
}

/* Take part: the heap holds the best `most`, the root is the last of them. */
static int32_t take(part *heap, int32_t n, int32_t most, float score, int32_t row, int32_t label)
{
    part made;
    int32_t i;
    made.score = score;
    made.row = row;
    made.label = label;
    made.area = 0.0f;
    made.is_left = 1;
    if (n < most) {
        heap[n++] = made;
        if (n == most) {
            for (i = n / 2 - 1; i >= 0; --i) {
                sink(heap, i, n);
            }
        }
    } else if (is_before(&made, &heap[0])) {
        heap[0] = made;
        sink(heap, 0, n);
    }
    return n;
}

/* A score as it is compared: what is infinite or no number is below everything. */
static float ranked(float score)
{
    return score - score == 0.0f ? score : -3.402823466e+38f * 2.0f;
}

static int32_t are_finite(const float *values, int32_t n)
{
    int32_t i;
    for (i = 0; i < n; ++i) {
        if (!(values[i] - values[i] == 0.0f)) {
            return 0;
        }
    }
    return 1;
}

/* Whether the corners and the keypoints, which follow the scores, are numbers, and the box has an area. */
static int32_t is_usable(const float *box, const ew_nms_options *o)
{
    return are_finite(box, 4) && are_finite(box + 4 + o->classes, o->columns - 4 - o->classes) &&
           box[2] > box[0] && box[3] > box[1];
}

static int32_t selected(const float *candidates, const ew_nms_options *o, part *parts)
{
    int32_t n = 0, row, c, i;
    for (row = 0; row < o->count; ++row) {
        const float *at = candidates + (ptrdiff_t)row * o->columns, *scores = at + 4;
        if (o->is_multi_label) {
            for (c = 0; c < o->classes; ++c) {
                if (ranked(scores[c]) >= o->score && is_usable(at, o)) {
                    n = take(parts, n, o->before, scores[c], row, c);
                }
            }
        } else {
            int32_t best = 0;
            for (c = 1; c < o->classes; ++c) {
                best = ranked(scores[c]) > ranked(scores[best]) ? c : best;
            }
            if (ranked(scores[best]) >= o->score && is_usable(at, o)) {
                n = take(parts, n, o->before, scores[best], row, best);
            }
        }
    }
    /* The heap becomes a row, the best first: the root is the last, time and again. */
    for (i = n / 2 - 1; i >= 0 && n < o->before; --i) {
        sink(parts, i, n);
    }
    for (i = n - 1; i > 0; --i) {
        part held = parts[0];
        parts[0] = parts[i];
        parts[i] = held;
        sink(parts, 0, i);
    }
    return n;
}

static float shared_area(const float *a, const float *b)
{
    float low_x = a[0] > b[0] ? a[0] : b[0], low_y = a[1] > b[1] ? a[1] : b[1];
    float high_x = a[2] < b[2] ? a[2] : b[2], high_y = a[3] < b[3] ? a[3] : b[3];
    float width = high_x - low_x, height = high_y - low_y;
    width = width > 0.0f ? width : 0.0f;
    height = height > 0.0f ? height : 0.0f;
    return width * height;
}

/* What is left of the score of a box that shares `shared` of `all` with a better one. */
static float reduced(const ew_nms_options *o, float score, float shared, float all)
{
    float share = shared / all, limit = o->iou * all;
    share = share == share ? share : 0.0f;
    if (o->mode == EW_SOFT_LINEAR) {
        return shared > limit ? score * (1.0f - share) : score;
    } else {
        double exponent = -((double)share * (double)share) / o->sigma;
        return score * (exponent < -700.0 ? 0.0f : (float)ew_exp_double(exponent));
    }
}

int32_t ew_nms(const float *candidates, const ew_nms_options *o, float *to, void *scratch)
{
    part *parts = (part *)scratch;
    int32_t n = selected(candidates, o, parts), kept = 0, from = 0, i, best;
    size_t rest = (size_t)(o->columns - 4 - o->classes);
    for (i = 0; i < n; ++i) {
        const float *box = candidates + (ptrdiff_t)parts[i].row * o->columns;
        parts[i].area = (box[2] - box[0]) * (box[3] - box[1]);
    }
    while (kept < o->limit) {
        const float *box;
        while (from < n && !parts[from].is_left) {
            ++from;
        }
        if (from == n) {
            break;
        }
        best = from;
        for (i = from + 1; i < n && o->mode != EW_HARD; ++i) {
            best = parts[i].is_left && parts[i].score > parts[best].score ? i : best;
        }
        parts[best].is_left = 0;
        box = candidates + (ptrdiff_t)parts[best].row * o->columns;
        memcpy(to, box, 4 * sizeof *to);
        to[4] = parts[best].score;
        to[5] = (float)parts[best].label;
        memcpy(to + 6, box + 4 + o->classes, rest * sizeof *to);
        to += 6 + rest;
        ++kept;
        for (i = from; i < n; ++i) {
            float shared, all, limit;
            if (!parts[i].is_left || (o->is_per_class && parts[i].label != parts[best].label)) {
                continue;
            }
            shared = shared_area(candidates + (ptrdiff_t)parts[i].row * o->columns, box);
            all = parts[i].area + parts[best].area;
            all -= shared;
            limit = o->iou * all;
            if (o->mode == EW_HARD) {
                parts[i].is_left = !(shared > limit);
            } else {
                parts[i].score = reduced(o, parts[i].score, shared, all);
                parts[i].is_left = !(parts[i].score < o->score);
            }
        }
    }
    return kept;
}
