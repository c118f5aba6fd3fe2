/* See ew_processing.h: memory, inputs, the order of calls, results. */
#include <string.h>

#include "ew_run.h"

#define MAGIC 0x45575052u

static const uint8_t ITEM_BYTES[] = {4, 1, 1, 2, 4, 8};

static size_t rounded_up(size_t bytes)
{
    return (bytes + 15) & ~(size_t)15;
}

static size_t head_bytes(const ew_processing *what)
{
    return rounded_up(sizeof(ew_run)) + rounded_up((size_t)what->input_count * sizeof(ew_raw)) +
           rounded_up((size_t)what->geometry_count * sizeof(ew_geometry)) +
           rounded_up((size_t)what->length_count * sizeof(int32_t));
}

size_t ew_bytes(const ew_processing *what)
{
    return what == NULL ? 0 : head_bytes(what) + what->arena_bytes + EW_ALIGNMENT;
}

static ew_run *run_of(const void *memory)
{
    ew_run *run = (ew_run *)(uintptr_t)memory;
    if (memory == NULL || (uintptr_t)memory % 8 != 0 || run->magic != MAGIC) {
        return NULL;
    }
    return run;
}

int ew_init(const ew_processing *what, void *memory, size_t bytes)
{
    ew_run *run = (ew_run *)memory;
    uint8_t *at = (uint8_t *)memory;
    if (what == NULL || memory == NULL) {
        return EW_BAD_ARGUMENT;
    }
    if ((uintptr_t)memory % 8 != 0) {
        return EW_UNALIGNED;
    }
    if (bytes < ew_bytes(what)) {
        return EW_NO_ROOM;
    }
    memset(memory, 0, ew_bytes(what));
    run->what = what;
    at += rounded_up(sizeof(ew_run));
    run->raws = (ew_raw *)(void *)at;
    at += rounded_up((size_t)what->input_count * sizeof(ew_raw));
    run->geometries = (ew_geometry *)(void *)at;
    at += rounded_up((size_t)what->geometry_count * sizeof(ew_geometry));
    run->lengths = (int32_t *)(void *)at;
    at += rounded_up((size_t)what->length_count * sizeof(int32_t));
    run->arena = at + (EW_ALIGNMENT - (uintptr_t)at % EW_ALIGNMENT) % EW_ALIGNMENT;
    run->magic = MAGIC;
    return ew_reset(memory);
}

int ew_reset(void *memory)
{
    ew_run *run = run_of(memory);
    int32_t i;
    if (run == NULL) {
        return EW_BAD_ARGUMENT;
    }
    for (i = 0; i < run->what->input_count; ++i) {
        run->raws[i].count = 0;
    }
    run->phase = 0;
    return run->what->reset(run);
}

/* The raw input to be set, NULL where it is of another kind. A run that has begun begins anew; results stay. */
static ew_raw *input_of(void *memory, int input, int is_image)
{
    ew_run *run = run_of(memory);
    if (run == NULL || input < 0 || input >= run->what->input_count ||
        (run->what->inputs[input].kind == EW_IMAGE) != is_image) {
        return NULL;
    }
    if (run->phase != 2 * run->what->model_count) {
        run->phase = 0;
    }
    run->raws[input].count = 0;
    return &run->raws[input];
}

static int set_geometry(ew_raw *raw, int width, int height, int rotation, int max_side)
{
    if (rotation != 0 && rotation != 90 && rotation != 180 && rotation != 270) {
        return EW_UNSUPPORTED;
    }
    if (width < 1 || height < 1 || width > max_side || height > max_side) {
        return EW_BAD_SIZE;
    }
    raw->rotation = rotation;
    raw->width = rotation % 180 == 0 ? width : height;
    raw->height = rotation % 180 == 0 ? height : width;
    return EW_OK;
}

/* Whether `rows` rows, `row_bytes` apart, fill no more than offsets in int32 can reach. */
static int are_rows_good(int64_t row_bytes, int64_t least, int64_t rows)
{
    return row_bytes >= least && row_bytes * rows <= INT32_MAX;
}

int ew_set_image(void *memory, int input, const uint8_t *pixels, int width, int height, int row_bytes, int format,
                 int rotation)
{
    static const uint8_t PIXEL_BYTES[] = {3, 3, 4, 4, 1, 1, 1, 1};
    ew_raw *raw = input_of(memory, input, 1);
    int kind = format & ~EW_VIDEO_RANGE;
    int64_t chroma_row;
    if (raw == NULL || pixels == NULL) {
        return EW_BAD_ARGUMENT;
    }
    if (format < 0 || kind > EW_I420 || (kind < EW_NV12 && kind != format)) {
        return EW_UNSUPPORTED;
    }
    EW_TRY(set_geometry(raw, width, height, rotation, run_of(memory)->what->max_side));
    if (row_bytes == 0) {
        row_bytes = width * PIXEL_BYTES[kind];
    }
    if (!are_rows_good(row_bytes, (int64_t)width * PIXEL_BYTES[kind], height)) {
        return EW_BAD_SIZE;
    }
    raw->data = pixels;
    raw->row_bytes = row_bytes;
    raw->format = kind;
    raw->is_video_range = format != kind;
    if (kind >= EW_NV12) {
        /* A row of interleaved chroma is as long as one of luma, but has room for the second value of the last pair. */
        chroma_row = kind == EW_I420 ? ((int64_t)row_bytes + 1) / 2 : (int64_t)row_bytes + row_bytes % 2;
        if (!are_rows_good(chroma_row, 1, height)) {
            return EW_BAD_SIZE;
        }
        raw->u = pixels + (ptrdiff_t)row_bytes * height;
        raw->v = kind == EW_I420 ? raw->u + (ptrdiff_t)chroma_row * ((height + 1) / 2) : raw->u + 1;
        if (kind == EW_NV21) {
            raw->v = raw->u;
            raw->u = raw->v + 1;
        }
        raw->chroma_row_bytes = (int32_t)chroma_row;
        raw->chroma_step = kind == EW_I420 ? 1 : 2;
        raw->format = EW_I420;
    }
    raw->count = 1;
    return EW_OK;
}

int ew_set_yuv(void *memory, int input, const uint8_t *y, const uint8_t *u, const uint8_t *v, int width, int height,
               int row_bytes, int chroma_row_bytes, int chroma_step, int is_video_range, int rotation)
{
    ew_raw *raw = input_of(memory, input, 1);
    if (raw == NULL || y == NULL || u == NULL || v == NULL) {
        return EW_BAD_ARGUMENT;
    }
    EW_TRY(set_geometry(raw, width, height, rotation, run_of(memory)->what->max_side));
    if (chroma_step < 1 || chroma_step > 8 || !are_rows_good(row_bytes, width, height) ||
        !are_rows_good(chroma_row_bytes, (int64_t)((width + 1) / 2 - 1) * chroma_step + 1, height)) {
        return EW_BAD_SIZE;
    }
    raw->data = y;
    raw->u = u;
    raw->v = v;
    raw->row_bytes = row_bytes;
    raw->chroma_row_bytes = chroma_row_bytes;
    raw->chroma_step = chroma_step;
    raw->format = EW_I420;
    raw->is_video_range = is_video_range != 0;
    raw->count = 1;
    return EW_OK;
}

static int set_numbers(void *memory, int input, const void *values, int count)
{
    ew_raw *raw = input_of(memory, input, 0);
    const ew_input_info *info;
    int64_t fixed = 1;
    int i, is_open = 0;
    if (raw == NULL || values == NULL) {
        return EW_BAD_ARGUMENT;
    }
    info = &run_of(memory)->what->inputs[input];
    for (i = 0; i < info->rank; ++i) {
        is_open |= info->shape[i] == 0;
        fixed *= info->shape[i] == 0 ? 1 : info->shape[i];
    }
    if (count < 1 || count > info->max_count || count % fixed != 0 || (!is_open && count != fixed)) {
        return EW_BAD_SIZE;
    }
    if ((uintptr_t)values % ITEM_BYTES[info->dtype] != 0) {
        return EW_UNALIGNED;
    }
    if (info->dtype == EW_FLOAT32) {
        for (i = 0; i < count; ++i) {
            uint32_t bits;
            memcpy(&bits, (const float *)values + i, sizeof bits);
            if ((bits & 0x7F800000u) == 0x7F800000u) {
                return EW_BAD_VALUE;
            }
        }
    }
    raw->data = values;
    raw->count = count;
    return EW_OK;
}

int ew_set_samples(void *memory, int input, const float *samples, int count)
{
    const ew_run *run = run_of(memory);
    if (run == NULL || input < 0 || input >= run->what->input_count || run->what->inputs[input].kind != EW_AUDIO) {
        return EW_BAD_ARGUMENT;
    }
    return set_numbers(memory, input, samples, count);
}

int ew_set_values(void *memory, int input, const void *values, int count)
{
    return set_numbers(memory, input, values, count);
}

int ew_prepare(void *memory, int model)
{
    ew_run *run = run_of(memory);
    int32_t i;
    if (run == NULL || model < 0 || model >= run->what->model_count) {
        return EW_BAD_ARGUMENT;
    }
    if (model == 0) {
        for (i = 0; i < run->what->input_count; ++i) {
            if (run->raws[i].count == 0) {
                return EW_BAD_ORDER;
            }
        }
    } else if (run->phase != 2 * model) {
        return EW_BAD_ORDER;
    }
    run->phase = 0; /* until it is done, nothing is ready */
    EW_TRY(run->what->segments[model](run));
    run->phase = 2 * model + 1;
    return EW_OK;
}

int ew_finish(void *memory, int model)
{
    ew_run *run = run_of(memory);
    if (run == NULL || model < 0 || model >= run->what->model_count) {
        return EW_BAD_ARGUMENT;
    }
    if (run->phase != 2 * model + 1) {
        return EW_BAD_ORDER;
    }
    run->phase = 0;
    if (model == run->what->model_count - 1) {
        EW_TRY(run->what->segments[model + 1](run));
    }
    run->phase = 2 * model + 2;
    return EW_OK;
}

static void *tensor_of(void *memory, int model, int index, int is_input)
{
    ew_run *run = run_of(memory);
    const ew_model_info *info;
    if (run == NULL || model < 0 || model >= run->what->model_count) {
        return NULL;
    }
    info = &run->what->models[model];
    if (index < 0 || index >= (is_input ? info->input_count : info->output_count)) {
        return NULL;
    }
    return run->arena + (is_input ? info->inputs : info->outputs)[index].offset;
}

void *ew_input(void *memory, int model, int index)
{
    return tensor_of(memory, model, index, 1);
}

void *ew_output(void *memory, int model, int index)
{
    return tensor_of(memory, model, index, 0);
}

int ew_result(const void *memory, int result, ew_value *value)
{
    const ew_run *run = run_of(memory);
    const ew_result_info *info;
    int axis;
    if (run == NULL || value == NULL || result < 0 || result >= run->what->result_count) {
        return EW_BAD_ARGUMENT;
    }
    if (run->phase != 2 * run->what->model_count) {
        return EW_BAD_ORDER;
    }
    info = &run->what->results[result];
    value->data = run->arena + info->offset;
    value->dtype = info->dtype;
    value->rank = info->rank;
    memcpy(value->shape, info->shape, sizeof value->shape);
    for (axis = 0; axis < 2; ++axis) {
        if (info->lengths[axis] >= 0) {
            value->shape[axis] = run->lengths[info->lengths[axis]];
        }
    }
    return EW_OK;
}

const char *ew_label(const ew_processing *what, int result, int index)
{
    if (what == NULL || result < 0 || result >= what->result_count || index < 0 ||
        index >= what->results[result].label_count) {
        return NULL;
    }
    return what->results[result].labels[index];
}
