/* A decoder of .ewz containers, version 1, in C99 without dependencies and without malloc.
 *
 * The container lies in memory (flash will do), the content goes to a buffer of the caller's, and everything else
 * lives in a workspace of the caller's. Every length is checked; whatever the container holds, nothing outside of
 * these three is touched. docs/ewz.md describes the format. A rest packed by zstd is not read (EWZ_UNSUPPORTED):
 * the packer takes LZMA instead wherever that is smaller or nearly so, as it is for the graphs of models.
 */
#ifndef EWZ_H
#define EWZ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    EWZ_OK = 0,
    EWZ_BROKEN = -1,      /* not a container, truncated, or changed */
    EWZ_UNSUPPORTED = -2, /* a later version, or a rest packed by zstd */
    EWZ_NO_ROOM = -3      /* the output or the workspace is too small */
};

typedef struct {
    const char *name; /* inside the container, not terminated */
    size_t name_size;
    size_t offset; /* in the content */
    size_t size;
} ewz_file;

/* Set *files and *size to the number of files and the bytes of their content together. */
int ewz_open(const uint8_t *packed, size_t packed_size, size_t *files, size_t *size);

/* Set *file to file number `index`; names are bytes from outside: check them before a file system sees them. */
int ewz_entry(const uint8_t *packed, size_t packed_size, size_t index, ewz_file *file);

/* Write the content, all files one after another, to `out`, and check every digest.
 *
 * `work` is at least EWZ_WORK_MIN bytes, aligned for uint32_t; each table of the container takes up to 257 more of it,
 * the rest of a frame its size, and a range 8. With any result but EWZ_OK, `out` holds nothing to be used.
 */
int ewz_unpack(const uint8_t *packed, size_t packed_size, uint8_t *out, size_t out_size, void *work, size_t work_size);

#define EWZ_WORK_MIN 65536

#ifdef __cplusplus
}
#endif

#endif
