/* The processing of @NAME@ checks itself; expected is what numpy makes of the same inputs. */
#include <string.h>

#include "@HEADER@"

#define RUNS @RUNS@
#define CHECKS @CHECKS@

/* What is expected of a tensor (0: model, index) or a result (1: index, 0), at some places. */
typedef struct {
    int32_t what, first, second, dtype, count, place_count;
    const int32_t *places;
    const float *wanted;
    float tolerance;
} check;

@TABLES@

static const check checks[RUNS * CHECKS] = {
@CHECK_ROWS@
};

static const int32_t shapes[][3] = {@SHAPE_ROWS@};

static union {
    int64_t alignment;
    uint8_t bytes[@BYTES@];
} memory;

static union {
    int64_t alignment;
    uint8_t bytes[@RAW_BYTES@];
} raw;

static uint32_t generator, digest;

static uint32_t draw(void)
{
    generator = generator * 1664525u + 1013904223u;
    return generator >> 8;
}

static void fill(void *to, int32_t dtype, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; ++i) {
        uint32_t number = draw();
        switch (dtype) {
        case EW_FLOAT32: {
            float scaled = (float)number * 1.1920928955078125e-7f;
            ((float *)to)[i] = scaled - 1.0f;
            break;
        }
        case EW_INT8:
        case EW_UINT8:
            ((uint8_t *)to)[i] = (uint8_t)(number & 255u);
            break;
        case EW_INT16:
            ((uint16_t *)to)[i] = (uint16_t)(number & 65535u);
            break;
        case EW_INT32:
            ((int32_t *)to)[i] = (int32_t)(number & 65535u);
            break;
        default:
            ((int64_t *)to)[i] = (int64_t)(number & 65535u);
            break;
        }
    }
}

static float value_at(const void *from, int32_t dtype, int32_t i)
{
    switch (dtype) {
    case EW_FLOAT32:
        return ((const float *)from)[i];
    case EW_INT8:
        return (float)((const int8_t *)from)[i];
    case EW_UINT8:
        return (float)((const uint8_t *)from)[i];
    case EW_INT16:
        return (float)((const int16_t *)from)[i];
    case EW_INT32:
        return (float)((const int32_t *)from)[i];
    default:
        return (float)((const int64_t *)from)[i];
    }
}

/* Bytes as they lie in memory where the lowest comes first, so that the digest is the same on every such machine. */
static void add_to_digest(const void *data, int32_t count, int32_t dtype)
{
    static const int32_t ITEM_BYTES[] = {4, 1, 1, 2, 4, 8};
    const uint8_t *at = (const uint8_t *)data;
    int32_t left = count * ITEM_BYTES[dtype];
    while (left-- > 0) {
        digest = (digest ^ *at++) * 16777619u;
    }
}

static int fails(const check *wanted, const void *made, int32_t count, int32_t dtype)
{
    int32_t i;
    if (made == NULL || dtype != wanted->dtype || count != wanted->count) {
        return 1;
    }
    add_to_digest(made, count, dtype);
    for (i = 0; i < wanted->place_count; ++i) {
        float away = value_at(made, dtype, wanted->places[i]) - wanted->wanted[i];
        if (!(away <= wanted->tolerance && -away <= wanted->tolerance)) {
            return 1;
        }
    }
    return 0;
}

static int count_of(const int32_t *shape, int32_t rank)
{
    int32_t i, count = 1;
    for (i = 0; i < rank; ++i) {
        count *= shape[i];
    }
    return count;
}

static int set_inputs(const ew_processing *what)
{
    static const int32_t ITEM_BYTES[] = {4, 1, 1, 2, 4, 8};
    uint8_t *at = raw.bytes;
    int32_t i;
    for (i = 0; i < what->input_count; ++i) {
        const ew_input_info *info = &what->inputs[i];
        int32_t count = count_of(shapes[i], info->rank), code;
        fill(at, info->dtype, count);
        if (info->kind == EW_IMAGE) {
            int32_t format = shapes[i][2] == 1 ? EW_GREY : shapes[i][2] == 4 ? EW_RGBA : info->order;
            code = ew_set_image(memory.bytes, i, at, shapes[i][1], shapes[i][0], 0, format, 0);
        } else {
            code = ew_set_values(memory.bytes, i, at, count);
        }
        if (code != EW_OK) {
            return code;
        }
        at += (count * ITEM_BYTES[info->dtype] + 15) / 16 * 16;
    }
    return EW_OK;
}

/* Returns the number of failures; *made becomes a digest of every bit that was made. */
int @NAME@_processing_test(uint32_t *made)
{
    const ew_processing *what = @NAME@_processing();
    const check *next = checks;
    int32_t run, model, i, failures = 0;
    generator = @SEED@;
    digest = 2166136261u;
    if (ew_init(what, memory.bytes, sizeof memory.bytes) != EW_OK) {
        return 1;
    }
    for (run = 0; run < RUNS; ++run) {
        if (set_inputs(what) != EW_OK) {
            return failures + 1;
        }
        for (model = 0; model < what->model_count; ++model) {
            const ew_model_info *info = &what->models[model];
            if (ew_prepare(memory.bytes, model) != EW_OK) {
                return failures + 1;
            }
            for (i = 0; i < info->input_count; ++i) {
                const ew_tensor_info *tensor = &info->inputs[i];
                failures += fails(next++, ew_input(memory.bytes, model, i), count_of(tensor->shape, tensor->rank),
                                  tensor->dtype);
            }
            for (i = 0; i < info->output_count; ++i) {
                const ew_tensor_info *tensor = &info->outputs[i];
                fill(ew_output(memory.bytes, model, i), tensor->dtype, count_of(tensor->shape, tensor->rank));
            }
            if (ew_finish(memory.bytes, model) != EW_OK) {
                return failures + 1;
            }
        }
        for (i = 0; i < what->result_count; ++i) {
            ew_value value;
            if (ew_result(memory.bytes, i, &value) != EW_OK) {
                return failures + 1;
            }
            failures += fails(next++, value.data, count_of(value.shape, value.rank), value.dtype);
        }
    }
    *made = digest;
    return failures;
}

#if !defined(EW_NO_MAIN) /* there the application has the main function */
#include <stdio.h>

int main(void)
{
    uint32_t bits = 0;
    int failures = @NAME@_processing_test(&bits);
    printf("@NAME@: %d runs, %d failures, digest %08lx\n", RUNS, failures, (unsigned long)bits);
    return failures != 0;
}
#endif
