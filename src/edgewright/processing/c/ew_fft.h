/* Fourier transforms of real samples, in double. Sizes are even, with no prime factor above 5. */
#ifndef EW_FFT_H
#define EW_FFT_H

#include <stdint.h>

/* [rows, length] -> [rows, size / 2 + 1, 2], shorter rows with zeros after them.
 *
 * turn: cos and -sin of 2 pi k / size for k < size / 2, one pair after the other.
 * scratch: 2 * size doubles. */
void ew_fft(const float *from, int32_t rows, int32_t length, float *to, int32_t size, const double *turn,
            double *scratch);

/* [rows, size / 2 + 1, 2] -> [rows, length]: the inverse, of which the first samples are kept. */
void ew_inverse_fft(const float *from, int32_t rows, float *to, int32_t length, int32_t size, const double *turn,
                    double *scratch);

#endif
