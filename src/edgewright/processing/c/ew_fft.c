/* See ew_fft.h. Stockham's transform: each stage writes its results in their final order, so that nothing is sorted.
 * Real samples are halved: even ones are real, odd ones imaginary parts of a transform of half the size. */
#include "ew_fft.h"

#include "ew_run.h"

typedef struct {
    double re, im;
} number;

static number plus(number a, number b)
{
    number c;
    c.re = a.re + b.re;
    c.im = a.im + b.im;
    return c;
}

static number minus(number a, number b)
{
    number c;
    c.re = a.re - b.re;
    c.im = a.im - b.im;
    return c;
}

static number times(number a, number b)
{
    number c;
    c.re = a.re * b.re - a.im * b.im;
    c.im = a.re * b.im + a.im * b.re;
    return c;
}

static number scaled(number a, double factor)
{
    a.re *= factor;
    a.im *= factor;
    return a;
}

/* a times -i */
static number turned(number a)
{
    number c;
    c.re = a.im;
    c.im = -a.re;
    return c;
}

/* exp(-2 pi i k / size), of the table of half a turn. */
static number turn_at(const double *turn, int32_t size, int32_t k)
{
    number c;
    int32_t half = size / 2, at = k < half ? k : k - half;
    c.re = k < half ? turn[2 * at] : -turn[2 * at];
    c.im = k < half ? turn[2 * at + 1] : -turn[2 * at + 1];
    return c;
}

static void stage_2(const number *x, number *y, int32_t m, int32_t s, const double *turn, int32_t size)
{
    int32_t p, q;
    for (p = 0; p < m; ++p) {
        number w = turn_at(turn, size, 2 * s * p);
        for (q = 0; q < s; ++q) {
            number a = x[q + s * p], b = x[q + s * (p + m)];
            y[q + s * 2 * p] = plus(a, b);
            y[q + s * (2 * p + 1)] = times(minus(a, b), w);
        }
    }
}

static void stage_3(const number *x, number *y, int32_t m, int32_t s, const double *turn, int32_t size)
{
    const double root = 0.86602540378443864676; /* sqrt(3) / 2 */
    int32_t p, q;
    for (p = 0; p < m; ++p) {
        number w1 = turn_at(turn, size, 2 * s * p), w2 = turn_at(turn, size, 4 * s * p);
        for (q = 0; q < s; ++q) {
            number a = x[q + s * p], b = x[q + s * (p + m)], c = x[q + s * (p + 2 * m)];
            number sum = plus(b, c), middle = minus(a, scaled(sum, 0.5)), side = scaled(turned(minus(b, c)), root);
            y[q + s * 3 * p] = plus(a, sum);
            y[q + s * (3 * p + 1)] = times(plus(middle, side), w1);
            y[q + s * (3 * p + 2)] = times(minus(middle, side), w2);
        }
    }
}

static void stage_4(const number *x, number *y, int32_t m, int32_t s, const double *turn, int32_t size)
{
    int32_t p, q;
    for (p = 0; p < m; ++p) {
        number w1 = turn_at(turn, size, 2 * s * p), w2 = turn_at(turn, size, 4 * s * p);
        number w3 = turn_at(turn, size, 6 * s * p);
        for (q = 0; q < s; ++q) {
            number a = x[q + s * p], b = x[q + s * (p + m)], c = x[q + s * (p + 2 * m)], d = x[q + s * (p + 3 * m)];
            number even = plus(a, c), odd = plus(b, d), left = minus(a, c), right = turned(minus(b, d));
            y[q + s * 4 * p] = plus(even, odd);
            y[q + s * (4 * p + 1)] = times(plus(left, right), w1);
            y[q + s * (4 * p + 2)] = times(minus(even, odd), w2);
            y[q + s * (4 * p + 3)] = times(minus(left, right), w3);
        }
    }
}

static void stage_5(const number *x, number *y, int32_t m, int32_t s, const double *turn, int32_t size)
{
    /* cos and sin of 72 and 144 degrees */
    const double c1 = 0.30901699437494742410, c2 = -0.80901699437494742410;
    const double s1 = 0.95105651629515357212, s2 = 0.58778525229247312917;
    int32_t p, q, k;
    for (p = 0; p < m; ++p) {
        number w[5];
        for (k = 1; k < 5; ++k) {
            w[k] = turn_at(turn, size, 2 * k * s * p);
        }
        for (q = 0; q < s; ++q) {
            number a = x[q + s * p], b = x[q + s * (p + m)], c = x[q + s * (p + 2 * m)];
            number d = x[q + s * (p + 3 * m)], e = x[q + s * (p + 4 * m)];
            number near = plus(b, e), far = plus(c, d), apart = minus(b, e), between = minus(c, d);
            number one = plus(a, plus(scaled(near, c1), scaled(far, c2)));
            number two = plus(a, plus(scaled(near, c2), scaled(far, c1)));
            number side = turned(plus(scaled(apart, s1), scaled(between, s2)));
            number other = turned(minus(scaled(apart, s2), scaled(between, s1)));
            y[q + s * 5 * p] = plus(a, plus(near, far));
            y[q + s * (5 * p + 1)] = times(plus(one, side), w[1]);
            y[q + s * (5 * p + 2)] = times(plus(two, other), w[2]);
            y[q + s * (5 * p + 3)] = times(minus(two, other), w[3]);
            y[q + s * (5 * p + 4)] = times(minus(one, side), w[4]);
        }
    }
}

/* Transform `size` / 2 numbers at `x`; returns where the result lies, `x` or `y`. */
static number *transformed(number *x, number *y, int32_t size, const double *turn)
{
    int32_t left = size / 2, stride = 1;
    while (left > 1) {
        number *swap = x;
        int32_t radix = left % 4 == 0 ? 4 : left % 2 == 0 ? 2 : left % 3 == 0 ? 3 : 5;
        left /= radix;
        if (radix == 4) {
            stage_4(x, y, left, stride, turn, size);
        } else if (radix == 2) {
            stage_2(x, y, left, stride, turn, size);
        } else if (radix == 3) {
            stage_3(x, y, left, stride, turn, size);
        } else {
            stage_5(x, y, left, stride, turn, size);
        }
        stride *= radix;
        x = y;
        y = swap;
    }
    return x;
}

void ew_fft(const float *from, int32_t rows, int32_t length, float *to, int32_t size, const double *turn,
            double *scratch)
{
    int32_t half = size / 2, row, k;
    number *x = (number *)(void *)scratch, *y = x + half;
    for (row = 0; row < rows; ++row, from += length, to += 2 * (half + 1)) {
        const number *z;
        for (k = 0; k < half; ++k) {
            x[k].re = 2 * k < length ? (double)from[2 * k] : 0.0;
            x[k].im = 2 * k + 1 < length ? (double)from[2 * k + 1] : 0.0;
        }
        z = transformed(x, y, size, turn);
        for (k = 0; k <= half; ++k) {
            number a = z[k < half ? k : 0], b = z[k > 0 ? half - k : 0], even, odd;
            b.im = -b.im;
            even = plus(a, b);
            odd = times(turned(minus(a, b)), turn_at(turn, size, k));
            to[2 * k] = (float)(0.5 * (even.re + odd.re));
            to[2 * k + 1] = (float)(0.5 * (even.im + odd.im));
        }
    }
}

void ew_inverse_fft(const float *from, int32_t rows, float *to, int32_t length, int32_t size, const double *turn,
                    double *scratch)
{
    int32_t half = size / 2, row, k;
    double factor = 1.0 / (double)size;
    number *x = (number *)(void *)scratch, *y = x + half;
    for (row = 0; row < rows; ++row, from += 2 * (half + 1), to += length) {
        const number *z;
        for (k = 0; k < half; ++k) {
            number a, b, w = turn_at(turn, size, k), even, odd;
            a.re = (double)from[2 * k];
            a.im = k == 0 ? 0.0 : (double)from[2 * k + 1];
            b.re = (double)from[2 * (half - k)];
            b.im = k == 0 ? 0.0 : -(double)from[2 * (half - k) + 1];
            w.im = -w.im;
            even = plus(a, b);
            odd = times(minus(a, b), w);
            /* even + i odd, with real and imaginary parts swapped: the transform forward is the inverse then. */
            x[k].im = even.re - odd.im;
            x[k].re = even.im + odd.re;
        }
        z = transformed(x, y, size, turn);
        for (k = 0; k < length; ++k) {
            to[k] = (float)(factor * (k % 2 == 0 ? z[k / 2].im : z[k / 2].re));
        }
    }
}
