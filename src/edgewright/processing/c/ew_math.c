/* See ew_math.h. */
#include "ew_math.h"

#include <string.h>

static double double_of(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

double ew_exp_double(double x)
{
    /* x = k ln 2 + r with |r| <= ln(2) / 2, and exp(r) by its Taylor series; ln 2 in two parts, so that k times the
     * first is exact. */
    const double high = 6.93147180369123816490e-01, low = 1.90821492927058770002e-10;
    double turns = x * 1.44269504088896338700, r, sum;
    int32_t k = (int32_t)(turns < 0 ? turns - 0.5 : turns + 0.5);
    r = (x - (double)k * high) - (double)k * low;
    sum = 1.0 / 6227020800.0;
    sum = sum * r + 1.0 / 479001600.0;
    sum = sum * r + 1.0 / 39916800.0;
    sum = sum * r + 1.0 / 3628800.0;
    sum = sum * r + 1.0 / 362880.0;
    sum = sum * r + 1.0 / 40320.0;
    sum = sum * r + 1.0 / 5040.0;
    sum = sum * r + 1.0 / 720.0;
    sum = sum * r + 1.0 / 120.0;
    sum = sum * r + 1.0 / 24.0;
    sum = sum * r + 1.0 / 6.0;
    sum = sum * r + 0.5;
    sum = sum * r + 1.0;
    sum = sum * r + 1.0;
    return sum * double_of((uint64_t)(int64_t)(k + 1023) << 52);
}

float ew_exp_of(double x)
{
    if (!(x == x)) {
        return (float)x;
    }
    if (x > 89.0) {
        return (float)double_of((uint64_t)0x7FF << 52);
    }
    /* Below, float holds nothing but 0. */
    return x < -104.0 ? 0.0f : (float)ew_exp_double(x);
}

float ew_exp(float x)
{
    return ew_exp_of((double)x);
}

float ew_sigmoid_of(float x)
{
    /* Of |x|, so that the exponential never overflows. */
    float raised = ew_exp(x >= 0.0f ? -x : x);
    return (x >= 0.0f ? 1.0f : raised) / (1.0f + raised);
}

double ew_log(double x)
{
    const double high = 6.93147180369123816490e-01, low = 1.90821492927058770002e-10;
    uint64_t bits = bits_of(x);
    double m, s, z, sum;
    int32_t k = 0;
    if (!(x == x) || bits == (uint64_t)0x7FF << 52) {
        return x;
    }
    if (!(x > 0.0)) {
        return double_of((uint64_t)0xFFF << 52);
    }
    if (bits < (uint64_t)1 << 52) { /* subnormal */
        bits = bits_of(x * 18014398509481984.0);
        k = -54;
    }
    k += (int32_t)(bits >> 52) - 1023;
    bits = (bits & (((uint64_t)1 << 52) - 1)) | (uint64_t)1023 << 52;
    m = double_of(bits);
    if (m > 1.41421356237309514547) {
        m *= 0.5;
        ++k;
    }
    /* x = 2**k m, and log(m) = 2 artanh((m - 1) / (m + 1)) by its series; |s| < 0.172 */
    s = (m - 1.0) / (m + 1.0);
    z = s * s;
    sum = 2.0 / 19.0;
    sum = sum * z + 2.0 / 17.0;
    sum = sum * z + 2.0 / 15.0;
    sum = sum * z + 2.0 / 13.0;
    sum = sum * z + 2.0 / 11.0;
    sum = sum * z + 2.0 / 9.0;
    sum = sum * z + 2.0 / 7.0;
    sum = sum * z + 2.0 / 5.0;
    sum = sum * z + 2.0 / 3.0;
    sum = sum * z;
    return (double)k * high + (2.0 * s + (s * sum + (double)k * low));
}

double ew_root(double x)
{
    double root;
    int i;
    if (!(x > 0.0) || bits_of(x) == (uint64_t)0x7FF << 52) {
        return x > 0.0 || !(x == x) ? x : 0.0;
    }
    /* A first guess by halving the exponent, within 3.5 %, then Newton's method: the number of right digits doubles. */
    root = double_of((bits_of(x) >> 1) + ((uint64_t)0x1FF7A3BE << 32));
    for (i = 0; i < 4; ++i) {
        root = 0.5 * (root + x / root);
    }
    return root;
}

float ew_sqrt(float x)
{
    /* No root of a float lies within a unit of a double's last place of the middle between two floats: the last
     * rounding is the right one. */
    return (float)ew_root((double)x);
}
