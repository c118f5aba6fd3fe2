/* Which pixels make an output pixel along one axis, and with which weights. */
#include "ew_images.h"

static int64_t floored(int64_t a, int64_t b)
{
    return a >= 0 ? a / b : -((b - 1 - a) / b);
}

int32_t ew_nearest(int32_t size, int32_t out, int32_t corners, int32_t i)
{
    int64_t last = out > 1 ? out - 1 : 1;
    if (corners == EW_HALF_PIXEL) {
        return (int32_t)((2 * (int64_t)i + 1) * size / (2 * (int64_t)out));
    }
    if (corners == EW_ASYMMETRIC) {
        return (int32_t)((int64_t)i * size / out);
    }
    return (int32_t)((2 * (int64_t)i * (size - 1) + last) / (2 * last));
}

/* Keys' cubic of x >= 0. */
static double cubic(double x, double a)
{
    double t;
    if (x < 1.0) {
        t = (a + 2.0) * x - (a + 3.0);
        return t * x * x + 1.0;
    }
    if (x < 2.0) {
        t = (x - 5.0) * x + 8.0;
        return (t * x - 4.0) * a;
    }
    return 0.0;
}

/* Where output pixel i lies: returns the floor, and sets the rest as a fraction. */
static int64_t position_of(int32_t size, int32_t out, int32_t corners, int32_t i, int64_t *rest, int64_t *unit)
{
    int64_t position, floor;
    if (corners == EW_HALF_PIXEL) {
        position = (2 * (int64_t)i + 1) * size - out;
        *unit = 2 * (int64_t)out;
    } else if (corners == EW_ASYMMETRIC) {
        position = (int64_t)i * size;
        *unit = out;
    } else {
        position = (int64_t)i * (size - 1);
        *unit = out > 1 ? out - 1 : 1;
    }
    floor = floored(position, *unit);
    *rest = position - floor * *unit;
    return floor;
}

static void set_indices(int64_t floor, int32_t size, int32_t count, int32_t *indices)
{
    int32_t k;
    for (k = 0; k < count; ++k) {
        int64_t at = floor + k;
        indices[k] = (int32_t)(at < 0 ? 0 : at > size - 1 ? size - 1 : at);
    }
}

static void cubics(double t, double *exact)
{
    const double a = -0.75;
    exact[0] = cubic(t + 1.0, a);
    exact[1] = cubic(t, a);
    exact[2] = cubic(1.0 - t, a);
    exact[3] = cubic(2.0 - t, a);
}

void ew_point_taps(int32_t size, int32_t out, int32_t method, int32_t corners, int32_t i, int32_t *indices,
                   int32_t *weights)
{
    int64_t unit, rest, floor = position_of(size, out, corners, i, &rest, &unit);
    int32_t k, sum = 0;
    double exact[4];
    if (method == EW_BILINEAR) {
        weights[1] = (int32_t)((2 * rest * 2048 + unit) / (2 * unit));
        weights[0] = 2048 - weights[1];
        set_indices(floor, size, 2, indices);
        return;
    }
    cubics((double)rest / (double)unit, exact);
    for (k = 0; k < 4; ++k) {
        double scaled = exact[k] * 2048.0 + 0.5;
        weights[k] = (int32_t)scaled - (scaled < (double)(int32_t)scaled ? 1 : 0);
        sum += weights[k];
    }
    weights[2 * rest < unit ? 1 : 2] += 2048 - sum;
    set_indices(floor - 1, size, 4, indices);
}

void ew_point_floats(int32_t size, int32_t out, int32_t method, int32_t corners, int32_t i, int32_t *indices,
                     float *weights)
{
    int64_t unit, rest, floor = position_of(size, out, corners, i, &rest, &unit);
    double t = (double)rest / (double)unit, exact[4];
    int32_t k;
    if (method == EW_BILINEAR) {
        weights[0] = (float)(1.0 - t);
        weights[1] = (float)t;
        set_indices(floor, size, 2, indices);
        return;
    }
    cubics(t, exact);
    for (k = 0; k < 4; ++k) {
        weights[k] = (float)exact[k];
    }
    set_indices(floor - 1, size, 4, indices);
}

int32_t ew_filter_most(int32_t size, int32_t out, int32_t method)
{
    /* An even number: weights are packed in pairs. */
    int32_t whole = (size + out - 1) / out;
    return method == EW_AREA ? 2 * (whole / 2) + 4 : method == EW_BILINEAR_FILTER ? 2 * whole + 2 : 4 * whole + 2;
}

/* The share of the output pixel's area that lies in pixel x, times out. */
static int64_t part_of(int32_t size, int32_t out, int32_t i, int32_t x)
{
    int64_t low = (int64_t)x * out, high = ((int64_t)x + 1) * out;
    low = low > (int64_t)i * size ? low : (int64_t)i * size;
    high = high < ((int64_t)i + 1) * size ? high : ((int64_t)i + 1) * size;
    return high - low;
}

typedef struct {
    double centre, inverse, sum;
    int32_t is_cubic;
} kernel;

static double kernel_at(const kernel *k, int32_t x)
{
    double away = ((double)x + 0.5 - k->centre) * k->inverse;
    away = away < 0.0 ? -away : away;
    if (k->is_cubic) {
        return cubic(away, -0.5);
    }
    return away < 1.0 ? 1.0 - away : 0.0;
}

/* The pixels from *from up to the result that make output pixel i. */
static int32_t reach(int32_t size, int32_t out, int32_t method, int32_t i, int32_t *from, kernel *k)
{
    double scale = (double)size / (double)out, stretch = scale > 1.0 ? scale : 1.0, support;
    int32_t to, x;
    if (method == EW_AREA) {
        *from = (int32_t)((int64_t)i * size / out);
        return (int32_t)((((int64_t)i + 1) * size + out - 1) / out);
    }
    k->is_cubic = method == EW_BICUBIC_FILTER;
    support = k->is_cubic ? 2.0 * stretch : stretch;
    k->centre = ((double)i + 0.5) * scale;
    k->inverse = 1.0 / stretch;
    *from = k->centre - support + 0.5 > 0.0 ? (int32_t)(k->centre - support + 0.5) : 0;
    to = k->centre + support + 0.5 < (double)size ? (int32_t)(k->centre + support + 0.5) : size;
    k->sum = 0.0;
    for (x = *from; x < to; ++x) {
        k->sum += kernel_at(k, x);
    }
    return to;
}

int32_t ew_filter_taps(int32_t size, int32_t out, int32_t method, int32_t i, int32_t *first, int32_t *weights)
{
    kernel k;
    int32_t to = reach(size, out, method, i, first, &k), x;
    for (x = *first; x < to; ++x) {
        if (method == EW_AREA) {
            *weights++ = (int32_t)((2 * part_of(size, out, i, x) * 4194304 + size) / (2 * (int64_t)size));
        } else {
            double weight = kernel_at(&k, x) / k.sum * 4194304.0;
            *weights++ = (int32_t)(weight < 0.0 ? weight - 0.5 : weight + 0.5);
        }
    }
    return to - *first;
}

int32_t ew_filter_floats(int32_t size, int32_t out, int32_t method, int32_t i, int32_t *first, float *weights)
{
    kernel k;
    int32_t to = reach(size, out, method, i, first, &k), x;
    for (x = *first; x < to; ++x) {
        *weights++ = method == EW_AREA ? (float)((double)part_of(size, out, i, x) / (double)size)
                                       : (float)(kernel_at(&k, x) / k.sum);
    }
    return to - *first;
}
