/* Steps on spectra, and on their magnitudes. */
#ifndef EW_SPECTRUM_H
#define EW_SPECTRUM_H

#include <stdint.h>

/* Pairs of real and imaginary parts to their sizes (power 1), or these squared (power 2). */
void ew_magnitude(const float *from, float *to, int32_t count, int32_t power);
void ew_multiply_spectra(const float *a, const float *b, float *to, int32_t count);

/* Each pair of `a` times one number of `mask`. */
void ew_multiply_mask(const float *a, const float *mask, float *to, int32_t count);

/* [rows, size] -> [rows, bins]: bin b is the sum over j < counts[b] of x[firsts[b] + j] times the next weight. */
void ew_mel(const float *from, int32_t rows, int32_t size, float *to, int32_t bins, const int32_t *firsts,
            const int32_t *counts, const float *weights);

/* log(max(x + offset, floor)) * factor; what is more than `span` below the largest is lifted, 0: nothing is. */
void ew_log_steps(const float *from, float *to, int32_t count, double offset, double floor, double factor, float span);

/* [rows, size] -> [rows, made]: row by row times the table [made, size]. */
void ew_products(const float *from, int32_t rows, int32_t size, float *to, int32_t made, const float *table);

#endif
