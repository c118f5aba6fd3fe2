/* What a run holds while it runs; inside of the core and of NAME_processing.c only. */
#ifndef EW_RUN_H
#define EW_RUN_H

#include "ew_processing.h"

#define EW_ALIGNMENT 64
#define EW_TRY(call)              \
    do {                          \
        int ew_code_ = (call);    \
        if (ew_code_ != EW_OK) {  \
            return ew_code_;      \
        }                         \
    } while (0)

/* A raw input: numbers, or the planes of an image. */
typedef struct {
    const void *data;
    const uint8_t *u, *v;
    int32_t count; /* of numbers; 0: not set */
    int32_t width, height; /* upright */
    int32_t row_bytes, chroma_row_bytes, chroma_step;
    int32_t format, rotation;
    int32_t is_video_range;
} ew_raw;

/* Where the pixels of a prepared image lie in its source: source = (prepared - offset) / scale. */
typedef struct {
    int32_t source_height, source_width, height, width;
    double scale_x, scale_y, offset_x, offset_y;
} ew_geometry;

/* A raw image, or one in the arena, as steps see it: upright, in one order of channels, perhaps cropped. */
typedef struct {
    const ew_raw *raw;
    int32_t order;    /* that the specification says the pixels come in */
    int32_t made;     /* that they are read in */
    int32_t channels; /* of `made` */
    int32_t background[3];
    int32_t top, left, height, width;
    ew_geometry geometry;
} ew_view;

/* What a view becomes: an image of height x width, of which a window is made, which lies somewhere on a canvas. */
typedef struct {
    int32_t height, width;
    int32_t top, left, rows, columns;
    int32_t at_row, at_column, canvas_height, canvas_width;
    uint8_t fill[4];
} ew_place;

/* Where rows of pixels go, and as what. */
typedef struct {
    void *to;
    const float *factor, *offset; /* of each channel; NULL: bytes */
    const void *table;            /* 256 values of `item_bytes` for each channel; NULL: none */
    int32_t item_bytes;
    int32_t is_chw;
} ew_sink;

typedef struct ew_run {
    uint32_t magic;
    int32_t phase; /* 2 * models finished, + 1 where the next is prepared */
    const ew_processing *what;
    uint8_t *arena;
    int32_t *lengths;
    ew_geometry *geometries;
    ew_raw *raws;
    ew_raw dense; /* an image in the arena that is resized once more */
    ew_view view;
    ew_place place;
    ew_sink sink;
} ew_run;

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif


#endif
