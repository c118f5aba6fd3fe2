/* Images of float32 that lie in the arena. */
#ifndef EW_RESIZE_FLOATS_H
#define EW_RESIZE_FLOATS_H

#include <stdint.h>

/* [height, width, channels] -> [to_height, to_width, channels]; method and corners as of ew_resample. EW_BAD_SIZE: the
 * scratch is too small. */
int ew_resize_floats(const float *from, int32_t height, int32_t width, int32_t channels, float *to, int32_t to_height,
                     int32_t to_width, int32_t method, int32_t corners, void *scratch, int32_t scratch_bytes);

#endif
