/* Steps on images. First run->view says what is read, then run->place what becomes of it, then run->sink where it
 * goes, and ew_resample does the work. The reference is edgewright.processing.resampling. */
#ifndef EW_IMAGES_H
#define EW_IMAGES_H

#include "ew_run.h"

enum { EW_NEAREST = 0, EW_BILINEAR, EW_BICUBIC, EW_AREA, EW_BILINEAR_FILTER, EW_BICUBIC_FILTER };
enum { EW_HALF_PIXEL = 0, EW_ALIGN, EW_ASYMMETRIC };

/* --- ew_views.c: what is read ------------------------------------------------------------------------------- */

/* order: EW_RGB, EW_BGR, EW_RGBA or EW_GREY: as the specification says. */
void ew_view_raw(ew_run *run, int32_t input, int32_t order);

/* Bytes [height, width, channels] in the arena, whose pixels lie as geometry number `geometry` says. */
void ew_view_dense(ew_run *run, const uint8_t *pixels, int32_t height, int32_t width, int32_t order, int32_t geometry);

void ew_view_channels(ew_run *run, int32_t order, int32_t red, int32_t green, int32_t blue);
int ew_view_crop(ew_run *run, int32_t height, int32_t width);
void ew_view_crop_fraction(ew_run *run, double fraction, int32_t is_square);

/* Whether rows of the view can be read where they lie. */
int32_t ew_is_direct(const ew_view *view);

/* Row `y` of the view from its column `x` on, where it lies; of a direct view. */
const uint8_t *ew_row(const ew_view *view, int32_t y, int32_t x);

/* Read the pixels of row `y` at `columns`; NULL: at `first` and the next ones. */
void ew_read(const ew_view *view, int32_t y, const int32_t *columns, int32_t first, int32_t count, uint8_t *to);

/* --- ew_places.c: what becomes of it, and where it goes ------------------------------------------------------ */

void ew_place_same(ew_run *run);
void ew_place_resize(ew_run *run, int32_t height, int32_t width);
int ew_place_short_side(ew_run *run, int32_t size);
void ew_place_letterbox(ew_run *run, int32_t height, int32_t width, int32_t is_top_left, int32_t grows,
                        const uint8_t *fill);
int ew_place_crop(ew_run *run, int32_t height, int32_t width);
void ew_keep_geometry(ew_run *run, int32_t number);

/* Geometry number `to` is number `from` after a resize to height x width. */
void ew_scale_geometry(ew_run *run, int32_t from, int32_t to, int32_t height, int32_t width);

void ew_sink_bytes(ew_run *run, void *to, int32_t is_chw);
void ew_sink_floats(ew_run *run, void *to, int32_t is_chw, const float *factor, const float *offset);
void ew_sink_table(ew_run *run, void *to, int32_t is_chw, const void *table, int32_t item_bytes);

/* Write row `y` of the canvas; `wide` holds factor and offset of every value of a row (see ew_widen). */
void ew_put_row(const ew_run *run, int32_t y, const uint8_t *row, const float *wide);
void ew_widen(const ew_run *run, float *wide);

/* --- ew_resample.c, ew_filter.c, ew_taps.c: the work ---------------------------------------------------------- */

/* Make the place of the view, and write it to the sink. EW_BAD_SIZE: the scratch is too small for such an image. */
int ew_resample(ew_run *run, int32_t method, int32_t corners, void *scratch, int32_t scratch_bytes);

/* Memory that is handed out piece by piece; NULL when it is used up. */
typedef struct {
    uint8_t *at;
    int32_t left;
} ew_pool;

void *ew_take(ew_pool *pool, int64_t bytes);

/* What ew_resample gives row by row to the canvas. */
typedef struct {
    const ew_run *run;
    uint8_t *row; /* of the canvas */
    const float *wide;
} ew_canvas;

int ew_filter(const ew_run *run, int32_t method, ew_pool *pool, const ew_canvas *canvas);
void ew_to_canvas(const ew_canvas *canvas, int32_t row, const uint8_t *pixels);

int32_t ew_nearest(int32_t size, int32_t out, int32_t corners, int32_t i);

/* The taps of point sampling of output pixel i: 2 or 4 indices inside, and weights of 11 bits. */
void ew_point_taps(int32_t size, int32_t out, int32_t method, int32_t corners, int32_t i, int32_t *indices,
                   int32_t *weights);

/* The taps of a filter: the first, and weights of 22 bits; returns how many, at most ew_filter_most. */
int32_t ew_filter_taps(int32_t size, int32_t out, int32_t method, int32_t i, int32_t *first, int32_t *weights);
int32_t ew_filter_most(int32_t size, int32_t out, int32_t method);

/* The same with weights in float32, for images of floats. */
void ew_point_floats(int32_t size, int32_t out, int32_t method, int32_t corners, int32_t i, int32_t *indices,
                     float *weights);
int32_t ew_filter_floats(int32_t size, int32_t out, int32_t method, int32_t i, int32_t *first, float *weights);

/* The channels of an image in the arena in another order; as ew_view_channels. */
void ew_channels(ew_run *run, const uint8_t *from, int32_t height, int32_t width, int32_t order, uint8_t *to,
                 int32_t made, int32_t red, int32_t green, int32_t blue);

#endif
