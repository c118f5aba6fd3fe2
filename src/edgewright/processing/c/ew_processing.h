/* From what an app has (pixels, samples, numbers) to a model's tensors, and from tensors to results.
 *
 * C99 without dependencies and without malloc: everything lives in one block of memory that the caller gives, whose
 * size is known before. The arithmetic is the same on every machine, bit by bit, where float and double are IEEE 754
 * and products and sums are not fused (-ffp-contract=off).
 *
 * A specification is made into one file, NAME_processing.c, with one function: NAME_processing(). One run is
 *
 *     ew_init(NAME_processing(), memory, bytes);          once; ew_reset(memory) where a new stream begins
 *     ew_set_image(memory, 0, pixels, ...);               every input
 *     ew_prepare(memory, 0);                              writes the inputs of model 0
 *     ... the runtime reads ew_input(memory, 0, i) and writes ew_output(memory, 0, i) ...
 *     ew_finish(memory, 0);                               then the next model, if there are several
 *     ew_result(memory, 0, &value);
 *
 * What ew_set_... is given is read where it lies: it has to stay there, unchanged, until the last ew_finish of the run.
 * A block of memory belongs to one thread at a time; several blocks may be used at once.
 */
#ifndef EW_PROCESSING_H
#define EW_PROCESSING_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EW_MAX_RANK 8

enum {
    EW_OK = 0,
    EW_BAD_ARGUMENT = -1, /* a null pointer, no such input, model, tensor or result, or memory without ew_init */
    EW_BAD_SIZE = -2,     /* a size is 0, negative or too large, or not the one that is expected */
    EW_BAD_VALUE = -3,    /* samples or numbers that are infinite or not a number */
    EW_NO_ROOM = -4,      /* the memory is smaller than ew_bytes */
    EW_BAD_ORDER = -5,    /* called too early or too late: an input is not set, or a model has not been prepared */
    EW_UNALIGNED = -6,    /* memory not at a multiple of 8, or numbers not at a multiple of their size */
    EW_UNSUPPORTED = -7   /* no such format of pixels or rotation */
};

enum { EW_FLOAT32 = 0, EW_INT8, EW_UINT8, EW_INT16, EW_INT32, EW_INT64 };

enum {
    EW_IMAGE = 0, EW_AUDIO, EW_FRAMES, EW_SPECTRUM, EW_SERIES, EW_LANDMARKS, EW_TEXT, EW_TENSOR, EW_CLASSES,
    EW_CANDIDATES, EW_BOXES, EW_MASK, EW_KEYPOINTS, EW_CODES
};

/* Formats of pixels. The planes of the last three follow one another; chroma has half the width and height, rounded
 * up. YUV is that of ITU-R BT.601, full range (JPEG, Android); with EW_VIDEO_RANGE added, 16..235. */
enum {
    EW_RGB = 0, EW_BGR, EW_RGBA, EW_BGRA, EW_GREY, EW_NV12, EW_NV21, EW_I420,
    EW_VIDEO_RANGE = 256
};

typedef struct {
    const char *name;
    int32_t kind;
    int32_t dtype;
    int32_t order;   /* of an image's channels, as its steps take them: EW_RGB, EW_BGR, EW_RGBA, EW_GREY */
    int32_t rate_hz; /* of audio; 0: any */
    int32_t rank;
    int32_t shape[EW_MAX_RANK]; /* 0: any size */
    int32_t max_count;          /* of numbers */
} ew_input_info;

typedef struct {
    const char *name;
    int32_t dtype;
    int32_t rank; /* with the batch axis */
    int32_t shape[EW_MAX_RANK];
    uint32_t bytes;
    uint32_t offset; /* in the arena */
} ew_tensor_info;

typedef struct {
    const char *name;
    const ew_tensor_info *inputs;
    const ew_tensor_info *outputs;
    int32_t input_count;
    int32_t output_count;
} ew_model_info;

typedef struct {
    const char *name;
    int32_t kind;
    int32_t dtype;
    int32_t rank;
    int32_t shape[EW_MAX_RANK]; /* the most; exact where there is no length */
    int32_t lengths[2];         /* of the first two axes: which of the lengths that a run finds, or -1 */
    uint32_t offset;
    int32_t label_count;
    const char *const *labels; /* UTF-8 */
} ew_result_info;

typedef struct {
    const void *data;
    int32_t dtype;
    int32_t rank;
    int32_t shape[EW_MAX_RANK];
} ew_value;

struct ew_run;
typedef int ew_segment(struct ew_run *run);

/* A specification, as NAME_processing.c holds it. */
typedef struct {
    const char *name;
    const ew_input_info *inputs;
    const ew_model_info *models;
    const ew_result_info *results;
    ew_segment *reset;
    ew_segment *const *segments; /* one before each model and one behind the last */
    int32_t input_count;
    int32_t model_count;
    int32_t result_count;
    int32_t length_count;
    int32_t geometry_count;
    int32_t max_side; /* of an image, in pixels */
    uint32_t arena_bytes;
} ew_processing;

/* Bytes of memory that a specification needs; 0 for a null pointer. */
size_t ew_bytes(const ew_processing *what);

/* Put `memory`, at a multiple of 8, into the first state. */
int ew_init(const ew_processing *what, void *memory, size_t bytes);

/* Forget earlier runs: a new stream begins. */
int ew_reset(void *memory);

/* Give the pixels of an image as they lie in memory, the upper row first.
 *
 * row_bytes: from one row to the next, of the first plane; 0 where rows follow one another without gaps.
 * rotation: 0, 90, 180 or 270: degrees clockwise that turn the image upright. */
int ew_set_image(void *memory, int input, const uint8_t *pixels, int width, int height, int row_bytes, int format,
                 int rotation);

/* The same for YUV in three planes, as cameras give it: chroma_step is the bytes from one chroma value to the next in
 * a row (1 for planes of their own, 2 for interleaved ones), is_video_range as for EW_VIDEO_RANGE. */
int ew_set_yuv(void *memory, int input, const uint8_t *y, const uint8_t *u, const uint8_t *v, int width, int height,
               int row_bytes, int chroma_row_bytes, int chroma_step, int is_video_range, int rotation);

/* Give mono samples, -1..1, at the rate that the input's table says. */
int ew_set_samples(void *memory, int input, const float *samples, int count);

/* Give `count` numbers of the input's dtype: a series, landmarks or a tensor. */
int ew_set_values(void *memory, int input, const void *values, int count);

/* Make the inputs of a model; read its outputs. Models come in their order. */
int ew_prepare(void *memory, int model);
int ew_finish(void *memory, int model);

/* Where the tensors of a model lie, at multiples of 64 bytes; the same all the time. NULL: there is none. */
void *ew_input(void *memory, int model, int index);
void *ew_output(void *memory, int model, int index);

/* Set *value to a result; valid until the next ew_prepare or ew_reset. */
int ew_result(const void *memory, int result, ew_value *value);

/* For languages that cannot read the tables: the name of class `index`, NULL where there is none. */
const char *ew_label(const ew_processing *what, int result, int index);

#ifdef __cplusplus
}
#endif

#endif
