/* Steps from a model's tensors to candidates, [n, 4 + classes + 3 keypoints], and to boxes, [n, 6 + 3 keypoints].
 *
 * height, width: of the prepared image where coordinates are 0..1, else 0. */
#ifndef EW_BOXES_H
#define EW_BOXES_H

#include "ew_run.h"

enum { EW_XYXY = 0, EW_YXYX, EW_XYWH, EW_CXCYWH };
enum { EW_LINEAR = 0, EW_SIGMOID, EW_TANH };
enum { EW_OBJECT_FIRST = 0, EW_OBJECT_AFTER_BOX, EW_OBJECT_NONE };

/* The first `skipped` of the `given` scores of each box are left out. */
void ew_join_boxes(const float *boxes, const float *scores, int32_t n, int32_t given, int32_t skipped, int32_t format,
                   int32_t height, int32_t width, float *to);

/* Rows with a score of `least` at least and finite numbers, the best first; returns how many. counted: NULL for all.
 * scratch: 8 * n bytes. */
int32_t ew_decode_ssd_outputs(const float *boxes, const float *classes, const float *scores, const float *counted,
                              int32_t n, int32_t format, int32_t height, int32_t width, float least, float *to,
                              void *scratch);
int32_t ew_decode_end_to_end(const float *rows, int32_t n, int32_t columns, int32_t format, int32_t height,
                             int32_t width, float least, float *to, void *scratch);

/* See edgewright.processing.anchors. shapes: of each level stride, rows, columns, anchors a cell; pitches: of each
 * level in x and y; sizes: width and height of all anchors of a cell, level after level. */
void ew_decode_anchors(const float *offsets, const float *scores, int32_t given, int32_t skipped, int32_t levels,
                       const int32_t *shapes, const double *pitches, const double *sizes, int32_t is_swapped,
                       float centre_variance, float size_variance, double clip_width, double clip_height, float *to);

/* What ew_decode_grid is told. */
typedef struct {
    int32_t cells, channels;
    int32_t channel_step, cell_step; /* between values in the tensor */
    int32_t centre, is_exponential, objectness, is_sigmoid;
    double objectness_power, class_power;
    float width, height;
} ew_grid;

/* shapes: rows and columns of each grid; pitches: width and height of a cell. */
void ew_decode_grid(const float *from, const ew_grid *grid, int32_t grids, const int32_t *shapes, const float *pitches,
                    float *to);

void ew_decode_yolo(const float *from, int32_t n, int32_t channels, int32_t is_rows, int32_t has_objectness,
                    int32_t keypoints, int32_t height, int32_t width, float *to);

/* In source pixels; boxes of which nothing is left are left out. Returns how many are left. */
int32_t ew_boxes_to_source(const ew_run *run, int32_t geometry, const float *from, int32_t n, int32_t columns,
                           float *to);
void ew_points_to_source(const ew_run *run, int32_t geometry, const float *from, int32_t n, int32_t columns,
                         float *to);

#endif
