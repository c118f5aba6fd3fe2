/* Non-maximum suppression; see edgewright.processing.nms. */
#ifndef EW_NMS_H
#define EW_NMS_H

#include <stdint.h>

enum { EW_HARD = 0, EW_SOFT_LINEAR, EW_SOFT_GAUSSIAN };

typedef struct {
    int32_t count, classes, columns; /* candidates [count, columns] */
    int32_t mode, is_per_class, is_multi_label;
    int32_t limit, before;
    float iou, score;
    double sigma;
} ew_nms_options;

/* Boxes [limit, columns - classes + 2] to `to`; returns how many. scratch: 20 * before bytes. */
int32_t ew_nms(const float *candidates, const ew_nms_options *options, float *to, void *scratch);

#endif
