/* ewz_main FILE OUT: unpack FILE to OUT, one file after another; exits with minus the decoder's result.
 * ewz_main FILE --damage: decode FILE with each byte changed in two ways and cut at each length; exits with 0 when
 * none of them is taken for whole. */
#include "ewz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORK_BYTES ((size_t)4 << 20)
#define MOST_BYTES ((size_t)64 << 20)

/* Decode from a copy of exact size, so that the sanitizer sees every byte read past its end. */
static int decode(const uint8_t *packed, size_t size, uint8_t **out, size_t *out_size)
{
    uint8_t *copy = malloc(size ? size : 1);
    void *work = malloc(WORK_BYTES);
    size_t files;
    int result;
    memcpy(copy, packed, size);
    result = ewz_open(copy, size, &files, out_size);
    *out = NULL;
    if (result == EWZ_OK && *out_size > MOST_BYTES)
        result = EWZ_NO_ROOM;
    if (result == EWZ_OK) {
        *out = malloc(*out_size ? *out_size : 1);
        result = ewz_unpack(copy, size, *out, *out_size, work, WORK_BYTES);
    }
    free(work);
    free(copy);
    return result;
}

static int damage(uint8_t *packed, size_t size)
{
    static const uint8_t masks[2] = {0xFF, 0x01};
    uint8_t *out;
    size_t at, out_size;
    int taken = 0, k;
    for (at = 0; at < size; at++) {
        for (k = 0; k < 2; k++) {
            packed[at] ^= masks[k];
            taken += decode(packed, size, &out, &out_size) == EWZ_OK;
            packed[at] ^= masks[k];
            free(out);
        }
        taken += decode(packed, at, &out, &out_size) == EWZ_OK;
        free(out);
    }
    return taken ? 102 : 0;
}

int main(int count, char **arguments)
{
    static uint8_t packed[8 << 20];
    uint8_t *out;
    size_t size, out_size;
    int result;
    FILE *file = count == 3 ? fopen(arguments[1], "rb") : NULL;
    if (!file)
        return 100;
    size = fread(packed, 1, sizeof packed, file);
    fclose(file);
    if (strcmp(arguments[2], "--damage") == 0)
        return damage(packed, size);
    result = decode(packed, size, &out, &out_size);
    if (result == EWZ_OK) {
        file = fopen(arguments[2], "wb");
        if (!file || fwrite(out, 1, out_size, file) != out_size || fclose(file))
            return 101;
    }
    free(out);
    return -result;
}
