/* See ew_scores.h. */
#include "ew_scores.h"

#include <float.h>

#include "ew_math.h"

void ew_softmax(const float *from, float *to, int32_t rows, int32_t size)
{
    int32_t row, i;
    for (row = 0; row < rows; ++row, from += size, to += size) {
        float most = from[0];
        double total = 0.0;
        for (i = 1; i < size; ++i) {
            most = from[i] > most ? from[i] : most;
        }
        for (i = 0; i < size; ++i) {
            to[i] = ew_exp(from[i] - most);
            total += (double)to[i];
        }
        for (i = 0; i < size; ++i) {
            to[i] = to[i] / (float)total;
        }
    }
}

void ew_sigmoid(const float *from, float *to, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        to[i] = ew_sigmoid_of(from[i]);
    }
}

static float ranked(float score)
{
    if (!(score == score)) {
        return ew_ranked(score);
    }
    return score > FLT_MAX ? FLT_MAX : score < -FLT_MAX ? -FLT_MAX : score;
}

int32_t ew_top_k(const float *scores, int32_t count, int32_t k, const float *threshold, float *to)
{
    int32_t found = 0, i, place;
    for (i = 0; i < count; ++i) {
        float score = ranked(scores[i]);
        if ((threshold != 0 && score < *threshold) || (found == k && score <= to[2 * (k - 1) + 1])) {
            continue;
        }
        /* Into its place; of equal scores the earlier one stays in front. */
        place = found < k ? found++ : k - 1;
        for (; place > 0 && score > to[2 * (place - 1) + 1]; --place) {
            to[2 * place] = to[2 * (place - 1)];
            to[2 * place + 1] = to[2 * (place - 1) + 1];
        }
        to[2 * place] = (float)i;
        to[2 * place + 1] = score;
    }
    return found;
}
