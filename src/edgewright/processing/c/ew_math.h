/* Functions of float, the same bits everywhere: products and sums of IEEE doubles in a fixed order, no libm. */
#ifndef EW_MATH_H
#define EW_MATH_H

#include <stdint.h>

/* e to the power x, within one unit of the last place of float; 0 and infinity where float ends, NaN for NaN. */
float ew_exp(float x);

float ew_exp_of(double x);

/* 1 / (1 + exp(-x)) */
float ew_sigmoid_of(float x);

/* The natural logarithm of a double, within 1e-13 of it; -infinity for 0 and below, NaN for NaN. */
double ew_log(double x);

/* The square root, correctly rounded; 0 for what is below 0. */
float ew_sqrt(float x);

/* The square root of a double, within one unit of its last place; 0 for what is not above 0. */
double ew_root(double x);

/* e to the power x in double, within 1e-13 of it, for |x| up to 700. */
double ew_exp_double(double x);

/* What is not a number counts as -infinity. */
static inline float ew_ranked(float x)
{
    return x == x ? x : -3.402823466e+38f * 2.0f;
}

static inline int32_t ew_least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static inline int32_t ew_most(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

#endif
