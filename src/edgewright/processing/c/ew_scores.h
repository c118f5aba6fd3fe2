/* Steps from scores to classes. */
#ifndef EW_SCORES_H
#define EW_SCORES_H

#include <stdint.h>

/* Over each row of `size` values. */
void ew_softmax(const float *from, float *to, int32_t rows, int32_t size);
void ew_sigmoid(const float *from, float *to, int32_t count);

/* The best `k` of `count` scores as [k, 2]: index, score; those below *threshold left out, NULL for none.
 * Returns how many there are. */
int32_t ew_top_k(const float *scores, int32_t count, int32_t k, const float *threshold, float *to);

#endif
