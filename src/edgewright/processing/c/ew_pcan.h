/* The second half of the micro front end; see edgewright.processing.pcan, which it equals. */
#ifndef EW_PCAN_H
#define EW_PCAN_H

#include "ew_processing.h"

/* Energies [rows, channels] to features. mean: the running means of the channels, kept from run to run.
 * even, odd: weights of the newest row in them. */
void ew_pcan(const float *from, float *to, int32_t rows, int32_t channels, float *mean, double even, double odd,
             double remaining, double strength, double offset);

#endif
