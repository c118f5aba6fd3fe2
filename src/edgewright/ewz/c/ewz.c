/* See ewz.h. */
#include "ewz.h"

#include <string.h>

#define FRAME_BYTES (1u << 24)
#define FIELDS 11
#define WORDS_AT (64 * FIELDS)
#define PICKS_AT (WORDS_AT + 4 * 256)
#define LEVELS_AT (PICKS_AT + 64)
#define CONTEXTS (LEVELS_AT + 181)
#define MAX_TABLES 8
#define KEPT_TABLES 256
#define MIN_RANGE_BYTES 64

enum { FRAME, METHOD, GAP, KIND, COUNT, STRIDE, BITS, TABLES, CODEBOOK, REUSE, BLOCK };

/* --- digests ------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t h[8];
    uint64_t total;
    uint8_t block[64];
} sha256;

static const uint32_t SHA_K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotated(uint32_t x, int n) { return (x >> n) | (x << (32 - n)); }

static void sha_block(sha256 *s, const uint8_t *p)
{
    uint32_t w[64], v[8];
    int i;
    for (i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotated(a, 7) ^ rotated(a, 18) ^ (a >> 3)) + w[i - 7] + (rotated(b, 17) ^ rotated(b, 19) ^ (b >> 10));
    }
    memcpy(v, s->h, sizeof v);
    for (i = 0; i < 64; i++) {
        uint32_t one = v[7] + (rotated(v[4], 6) ^ rotated(v[4], 11) ^ rotated(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + SHA_K[i] + w[i];
        uint32_t two = (rotated(v[0], 2) ^ rotated(v[0], 13) ^ rotated(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += one;
        v[0] = one + two;
    }
    for (i = 0; i < 8; i++)
        s->h[i] += v[i];
}

static void sha_start(sha256 *s)
{
    static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->h, first, sizeof first);
    s->total = 0;
}

static void sha_add(sha256 *s, const uint8_t *p, size_t n)
{
    while (n) {
        size_t at = (size_t)(s->total & 63), take = 64 - at < n ? 64 - at : n;
        memcpy(s->block + at, p, take);
        s->total += take;
        p += take;
        n -= take;
        if (at + take == 64)
            sha_block(s, s->block);
    }
}

static void sha_end(sha256 *s, uint8_t digest[32])
{
    uint64_t bits = s->total * 8;
    uint8_t tail[72] = {0x80}, length[8];
    int i;
    for (i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    sha_add(s, tail, 1 + (size_t)((119 - (s->total & 63)) & 63));
    sha_add(s, length, 8);
    for (i = 0; i < 32; i++)
        digest[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

static uint32_t crc32_of(const uint8_t *p, size_t n)
{
    uint32_t crc = 0xFFFFFFFFu;
    while (n--) {
        int i;
        crc ^= *p++;
        for (i = 0; i < 8; i++)
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1)));
    }
    return ~crc;
}

/* --- the container -------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *p;
    size_t left;
    int error;
} input;

static const uint8_t *take(input *in, uint64_t n)
{
    const uint8_t *p = in->p;
    if (n > in->left) {
        in->error = EWZ_BROKEN;
        return NULL;
    }
    in->p += (size_t)n;
    in->left -= (size_t)n;
    return p;
}

static uint64_t varint(input *in, uint64_t limit)
{
    uint64_t value = 0;
    int place;
    for (place = 0; place < 6; place++) {
        const uint8_t *byte = take(in, 1);
        if (!byte)
            return 0;
        value |= (uint64_t)(*byte & 0x7F) << (7 * place);
        if (*byte < 0x80) {
            if ((*byte == 0 && place) || value > limit)
                break;
            return value;
        }
    }
    in->error = EWZ_BROKEN;
    return 0;
}

/* Read the header; *digest and *files may be NULL; *file is that of `index`. */
static int header(input *in, size_t index, size_t *files, size_t *size, const uint8_t **digest, ewz_file *file)
{
    const uint8_t *magic = take(in, 4);
    uint64_t count, i, total = 0;
    if (!magic || memcmp(magic, "EWZ", 3) != 0)
        return EWZ_BROKEN;
    if (magic[3] != 1)
        return EWZ_UNSUPPORTED;
    count = varint(in, 16384);
    if (in->error || count == 0)
        return EWZ_BROKEN;
    for (i = 0; i < count; i++) {
        uint64_t name_size = varint(in, 1024), file_size;
        const uint8_t *name = take(in, name_size);
        file_size = varint(in, (uint64_t)1 << 33);
        if (in->error || name_size == 0 || file_size > SIZE_MAX - total)
            return EWZ_BROKEN;
        if (file && i == index) {
            file->name = (const char *)name;
            file->name_size = (size_t)name_size;
            file->offset = (size_t)total;
            file->size = (size_t)file_size;
        }
        total += file_size;
    }
    *digest = take(in, 32);
    *files = (size_t)count;
    *size = (size_t)total;
    return in->error;
}

int ewz_open(const uint8_t *packed, size_t packed_size, size_t *files, size_t *size)
{
    input in = {packed, packed_size, 0};
    const uint8_t *digest;
    return header(&in, 0, files, size, &digest, NULL);
}

int ewz_entry(const uint8_t *packed, size_t packed_size, size_t index, ewz_file *file)
{
    input in = {packed, packed_size, 0};
    const uint8_t *digest;
    size_t files, size;
    int error = header(&in, index, &files, &size, &digest, file);
    return error ? error : index < files ? EWZ_OK : EWZ_BROKEN;
}

/* --- the binary code of the control ---------------------------------------------------------------------------- */

typedef struct {
    uint32_t p[CONTEXTS];
    uint16_t n[CONTEXTS];
    const uint8_t *data;
    size_t size, at;
    uint32_t code, range;
    uint32_t start[MAX_TABLES][257];
    uint32_t codebook[256];
    uint32_t x[4];
    input words;
    uint8_t *arena; /* first the kept tables, each behind its alphabet less 1; then what a frame needs */
    size_t arena_size, tables_size;
    int error;
} decoder;

static uint32_t next_byte(decoder *d) { return d->at < d->size ? d->data[d->at++] : 0; }

static void normalise(decoder *d)
{
    while (d->range < 1u << 24) {
        d->range <<= 8;
        d->code = d->code << 8 | next_byte(d);
    }
}

static uint32_t decision(decoder *d, uint32_t i)
{
    uint32_t p = d->p[i], share = p >> 6, bound, rate = 131072u / (2u * d->n[i] + 3u), bit;
    share = share < 16 ? 16 : share > 65520 ? 65520 : share;
    bound = (d->range >> 16) * share;
    bit = d->code < bound;
    if (bit) {
        d->range = bound;
        d->p[i] = p + (uint32_t)(((uint64_t)((1u << 22) - p) * rate) >> 16);
    } else {
        d->code -= bound;
        d->range -= bound;
        d->p[i] = p - (uint32_t)(((uint64_t)p * rate) >> 16);
    }
    if (d->n[i] < 1023)
        d->n[i]++;
    normalise(d);
    return bit;
}

static uint64_t direct(decoder *d, int bits)
{
    uint64_t value = 0;
    while (bits--) {
        d->range >>= 1;
        value <<= 1;
        if (d->code >= d->range) {
            d->code -= d->range;
            value |= 1;
        }
        normalise(d);
    }
    return value;
}

static uint32_t tree(decoder *d, uint32_t base, int bits)
{
    uint32_t node = 1;
    int i;
    for (i = 0; i < bits; i++)
        node = 2 * node + decision(d, base + node);
    return node - (1u << bits);
}

static uint32_t integer(decoder *d, int field, uint64_t limit)
{
    uint32_t bits = tree(d, 64u * (uint32_t)field, 6);
    uint64_t value = bits > 47 ? limit + 1 : ((uint64_t)1 << bits) + direct(d, (int)bits) - 1;
    if (value > limit) {
        d->error = EWZ_BROKEN;
        return 0;
    }
    return (uint32_t)value;
}

/* --- tables ---------------------------------------------------------------------------------------------------- */

/* Return the back-th last kept table of `alphabet` symbols (1: the last), or NULL; set *count to how many there are. */
static const uint8_t *kept(const decoder *d, uint32_t alphabet, uint32_t back, uint32_t *count)
{
    const uint8_t *found = NULL;
    uint32_t number = 0, pass;
    for (pass = 0; pass < 2; pass++) {
        size_t at = 0;
        uint32_t seen = 0;
        while (at < d->tables_size) {
            if (d->arena[at] + 1u == alphabet && seen++ + back == number && pass)
                found = d->arena + at + 1;
            at += d->arena[at] + 2u;
        }
        number = seen;
    }
    *count = number;
    return found;
}

static void read_levels(decoder *d, uint32_t alphabet, const uint8_t *ref, uint8_t *levels)
{
    uint32_t last = 0, symbol, any = 0;
    for (symbol = 0; symbol < alphabet; symbol++) {
        uint32_t expected = !ref ? 0 : ref[symbol] == 0 ? 1 : 2, before = symbol == 0 ? 0 : last == 0 ? 1 : 2;
        uint32_t level = 0;
        if (!decision(d, LEVELS_AT + 3 * expected + before)) {
            if (last == 0) {
                level = tree(d, LEVELS_AT + 9, 6) + 1;
            } else {
                uint32_t at = LEVELS_AT + 73;
                if (ref && ref[symbol] && ref[symbol - 1]) {
                    int slope = (int)ref[symbol] - (int)ref[symbol - 1];
                    at += 18u * (uint32_t)(3 + (slope < -2 ? -2 : slope > 2 ? 2 : slope));
                }
                level = last;
                if (!decision(d, at)) {
                    uint32_t up = decision(d, at + 1), room = up ? 64 - last : last - 1, size;
                    if (room < 1) {
                        d->error = EWZ_BROKEN;
                        return;
                    }
                    for (size = 1; size < room; size++)
                        if (decision(d, at + 1 + (size < 16 ? size : 16)))
                            break;
                    level = up ? last + size : last - size;
                }
            }
        }
        levels[symbol] = (uint8_t)level;
        last = level;
        any |= level;
    }
    if (!any)
        d->error = EWZ_BROKEN;
}

/* Read a table and set `start` to the sums of its frequencies. */
static void read_table(decoder *d, uint32_t alphabet, int bits, uint32_t *start)
{
    static const uint32_t quarter[4] = {65536, 77936, 92682, 110218};
    uint32_t count, back, i, largest = 0;
    uint64_t whole = 0;
    int64_t rest = (int64_t)1 << bits;
    const uint8_t *levels = kept(d, alphabet, 0, &count);
    back = integer(d, REUSE, count < KEPT_TABLES ? count : KEPT_TABLES);
    if (d->error)
        return;
    if (back) {
        levels = kept(d, alphabet, back, &count);
    } else {
        uint8_t *made = d->arena + d->tables_size;
        if (d->arena_size - d->tables_size < alphabet + 1) {
            d->error = EWZ_NO_ROOM;
            return;
        }
        made[0] = (uint8_t)(alphabet - 1);
        read_levels(d, alphabet, count ? kept(d, alphabet, 1, &count) : NULL, made + 1);
        if (d->error)
            return;
        d->tables_size += alphabet + 1;
        levels = made + 1;
    }
#define WEIGHT(l) ((l) ? (uint64_t)quarter[((l) - 1) & 3] << (((l) - 1) >> 2) : 0)
    for (i = 0; i < alphabet; i++)
        whole += WEIGHT(levels[i]);
    start[0] = 0;
    for (i = 0; i < alphabet; i++) { /* the frequency of i, for now, in start[i + 1] */
        uint64_t share = (WEIGHT(levels[i]) << bits) / whole;
        start[i + 1] = levels[i] && !share ? 1 : (uint32_t)share;
        rest -= start[i + 1];
        if (start[i + 1] > start[largest + 1])
            largest = i;
    }
    if (rest > 0)
        start[largest + 1] += (uint32_t)rest;
    for (; rest < 0; rest++) {
        for (largest = 0, i = 1; i < alphabet; i++)
            if (start[i + 1] > start[largest + 1])
                largest = i;
        start[largest + 1]--;
    }
    for (i = 0; i < alphabet; i++)
        start[i + 1] += start[i];
}

/* --- ranges ---------------------------------------------------------------------------------------------------- */

static uint32_t read_symbol(decoder *d, const uint32_t *start, uint32_t alphabet, int bits, uint32_t *x)
{
    uint32_t slot = *x & ((1u << bits) - 1), low = 0, high = alphabet;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (start[middle] <= slot)
            low = middle;
        else
            high = middle;
    }
    *x = (start[low + 1] - start[low]) * (*x >> bits) + slot - start[low];
    if (*x < 1u << 16) {
        const uint8_t *word = take(&d->words, 2);
        *x = *x << 16 | (word ? (uint32_t)(word[0] | word[1] << 8) : 0);
    }
    return low;
}

/* Decode the next range to `out`, where `room` bytes are left; the last `reserved` bytes of the arena are in use. */
static size_t read_range(decoder *d, uint8_t *out, size_t room, size_t reserved)
{
    uint8_t *picks;
    size_t picks_room;
    static const uint32_t word_bytes[4] = {1, 1, 2, 4};
    uint32_t kind = integer(d, KIND, 3), count = 4 * integer(d, COUNT, room / 2), stride = integer(d, STRIDE, 65535) + 1;
    int bits = (int)integer(d, BITS, 3) + 12;
    uint32_t tables = integer(d, TABLES, MAX_TABLES - 1) + 1, alphabet = kind == 1 ? 16 : 256, block = count, i, lane, at;
    uint64_t size = (uint64_t)count * word_bytes[kind] / (kind == 1 ? 2 : 1);
    uint8_t digest[32], promised[4];
    sha256 sha;
    if (d->error || size < MIN_RANGE_BYTES || count % (4 * stride) || size > room)
        return d->error = d->error ? d->error : EWZ_BROKEN, 0;
    if (kind >= 2) {
        alphabet = integer(d, CODEBOOK, 255) + 1;
        for (i = 0; i < alphabet; i++) {
            uint32_t place, word = 0;
            for (place = 4 - word_bytes[kind]; place < 4; place++)
                word = word << 8 | tree(d, WORDS_AT + 256 * place, 8);
            d->codebook[i] = word;
        }
    }
    for (i = 0; i < tables && !d->error; i++)
        read_table(d, alphabet, bits, d->start[i]);
    if (d->error)
        return 0;
    picks = d->arena + d->tables_size;
    picks_room = d->arena_size - d->tables_size < reserved ? 0 : d->arena_size - d->tables_size - reserved;
    if (tables > 1) {
        uint32_t last = 0, blocks;
        block = 4 * (integer(d, BLOCK, count / 4 - 1) + 1);
        blocks = (count + block - 1) / block;
        if (d->error || blocks > picks_room)
            return d->error = d->error ? d->error : EWZ_NO_ROOM, 0;
        for (i = 0; i < blocks; i++) {
            last = tree(d, PICKS_AT + 8 * last, 3);
            if (last >= tables)
                return d->error = EWZ_BROKEN, 0;
            picks[i] = (uint8_t)last;
        }
    }
    for (i = 0; i < 4; i++)
        promised[i] = (uint8_t)direct(d, 8);
    if (kind == 1)
        memset(out, 0, (size_t)size);
    for (i = 0, lane = 0; lane < stride; lane++)
        for (at = lane; at < count; at += stride, i++) {
            const uint32_t *start = d->start[tables > 1 ? picks[i / block] : 0];
            uint32_t symbol = read_symbol(d, start, alphabet, bits, &d->x[i & 3]);
            if (kind == 0)
                out[at] = (uint8_t)symbol;
            else if (kind == 1)
                out[at / 2] |= (uint8_t)(symbol << 4 * (at & 1));
            else {
                uint32_t word = d->codebook[symbol], k;
                for (k = 0; k < word_bytes[kind]; k++)
                    out[(size_t)at * word_bytes[kind] + k] = (uint8_t)(word >> 8 * k);
            }
        }
    sha_start(&sha);
    sha_add(&sha, out, (size_t)size);
    sha_end(&sha, digest);
    if (d->words.error || memcmp(digest, promised, 4) != 0)
        d->error = EWZ_BROKEN;
    return (size_t)size;
}

/* --- LZMA ------------------------------------------------------------------------------------------------------ */

enum { /* where the probabilities of each kind begin */
    IS_MATCH = 0,
    IS_REP = IS_MATCH + 12 * 16,
    IS_REP_G0 = IS_REP + 12,
    IS_REP_G1 = IS_REP_G0 + 12,
    IS_REP_G2 = IS_REP_G1 + 12,
    IS_REP0_LONG = IS_REP_G2 + 12,
    DISTANCE_SLOT = IS_REP0_LONG + 12 * 16,
    DISTANCE_LOW = DISTANCE_SLOT + 4 * 64,
    DISTANCE_ALIGN = DISTANCE_LOW + 128,
    LENGTH = DISTANCE_ALIGN + 16,
    REP_LENGTH = LENGTH + 2 + 2 * 16 * 8 + 256,
    LITERAL = REP_LENGTH + 2 + 2 * 16 * 8 + 256,
    LZMA_PROBABILITIES = LITERAL + (0x300 << 4)
};

typedef struct {
    input in;
    uint32_t code, range;
    uint16_t *p;
} lzma;

static uint32_t lzma_byte(lzma *z)
{
    const uint8_t *byte = take(&z->in, 1);
    return byte ? *byte : 0;
}

static void lzma_normalise(lzma *z)
{
    if (z->range < 1u << 24) {
        z->range <<= 8;
        z->code = z->code << 8 | lzma_byte(z);
    }
}

static uint32_t lzma_bit(lzma *z, uint32_t i)
{
    uint32_t bound;
    lzma_normalise(z);
    bound = (z->range >> 11) * z->p[i];
    if (z->code < bound) {
        z->range = bound;
        z->p[i] = (uint16_t)(z->p[i] + ((2048 - z->p[i]) >> 5));
        return 0;
    }
    z->range -= bound;
    z->code -= bound;
    z->p[i] = (uint16_t)(z->p[i] - (z->p[i] >> 5));
    return 1;
}

static uint32_t lzma_tree(lzma *z, uint32_t base, int bits)
{
    uint32_t node = 1;
    int i;
    for (i = 0; i < bits; i++)
        node = 2 * node + lzma_bit(z, base + node);
    return node - (1u << bits);
}

static uint32_t lzma_reverse(lzma *z, uint32_t base, int bits)
{
    uint32_t node = 1, value = 0;
    int i;
    for (i = 0; i < bits; i++) {
        uint32_t bit = lzma_bit(z, base + node);
        node = 2 * node + bit;
        value |= bit << i;
    }
    return value;
}

static uint32_t lzma_length(lzma *z, uint32_t base, uint32_t place)
{
    if (!lzma_bit(z, base))
        return 2 + lzma_tree(z, base + 2 + 8 * place, 3);
    if (!lzma_bit(z, base + 1))
        return 10 + lzma_tree(z, base + 2 + 128 + 8 * place, 3);
    return 18 + lzma_tree(z, base + 2 + 256, 8);
}

static uint32_t lzma_distance(lzma *z, uint32_t length)
{
    uint32_t group = length - 2 < 3 ? length - 2 : 3, slot = lzma_tree(z, DISTANCE_SLOT + 64 * group, 6), distance;
    int bits = (int)(slot >> 1) - 1, i;
    if (slot < 4)
        return slot;
    distance = (2 | (slot & 1)) << bits;
    if (slot < 14)
        return distance + lzma_reverse(z, DISTANCE_LOW + distance - slot, bits);
    for (i = bits - 1; i >= 4; i--) {
        lzma_normalise(z);
        z->range >>= 1;
        if (z->code >= z->range) {
            z->code -= z->range;
            distance |= 1u << i;
        }
    }
    return distance + lzma_reverse(z, DISTANCE_ALIGN, 4);
}

static uint32_t lzma_literal(lzma *z, uint32_t base, int is_matched, uint32_t match)
{
    uint32_t node = 1;
    while (node < 256) {
        uint32_t bit, expected = (match >> 7) & 1;
        match <<= 1;
        bit = lzma_bit(z, base + (is_matched ? ((1 + expected) << 8) : 0) + node);
        node = 2 * node + bit;
        if (is_matched && bit != expected)
            is_matched = 0;
    }
    return node & 0xFF;
}

/* Decode exactly `size` bytes to `out`; `p` has room for all probabilities. */
static int unlzma(const uint8_t *packed, size_t packed_size, uint8_t *out, size_t size, uint16_t *p)
{
    lzma z;
    uint32_t state = 0, rep[4] = {0, 0, 0, 0}, properties, lc, lp, pb, i;
    size_t at = 0;
    z.in.p = packed;
    z.in.left = packed_size;
    z.in.error = 0;
    z.p = p;
    z.range = 0xFFFFFFFFu;
    z.code = 0;
    properties = lzma_byte(&z);
    lc = properties % 9;
    lp = properties / 9 % 5;
    pb = properties / 45;
    if (pb > 4 || lc + lp > 4 || lzma_byte(&z) != 0)
        return EWZ_BROKEN;
    for (i = 0; i < LZMA_PROBABILITIES; i++)
        p[i] = 1024;
    for (i = 0; i < 4; i++)
        z.code = z.code << 8 | lzma_byte(&z);
    while (!z.in.error) {
        uint32_t place = (uint32_t)at & ((1u << pb) - 1), length;
        if (!lzma_bit(&z, IS_MATCH + 16 * state + place)) {
            uint32_t before = at ? out[at - 1] : 0, context;
            context = (((uint32_t)at & ((1u << lp) - 1)) << lc) + (before >> (8 - lc));
            if (at >= size || (state >= 7 && rep[0] >= at))
                return EWZ_BROKEN;
            out[at] = (uint8_t)lzma_literal(&z, LITERAL + 0x300 * context, state >= 7, state >= 7 ? out[at - rep[0] - 1] : 0);
            at++;
            state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
            continue;
        }
        if (!lzma_bit(&z, IS_REP + state)) {
            length = lzma_length(&z, LENGTH, place);
            rep[3] = rep[2];
            rep[2] = rep[1];
            rep[1] = rep[0];
            rep[0] = lzma_distance(&z, length);
            state = state < 7 ? 7 : 10;
            if (rep[0] == 0xFFFFFFFFu) { /* the end mark */
                lzma_normalise(&z);
                return at == size && z.in.left == 0 && !z.in.error ? EWZ_OK : EWZ_BROKEN;
            }
        } else {
            length = 1;
            if (!lzma_bit(&z, IS_REP_G0 + state)) {
                if (!lzma_bit(&z, IS_REP0_LONG + 16 * state + place))
                    length = 0;
            } else {
                uint32_t distance;
                if (!lzma_bit(&z, IS_REP_G1 + state)) {
                    distance = rep[1];
                } else {
                    if (!lzma_bit(&z, IS_REP_G2 + state)) {
                        distance = rep[2];
                    } else {
                        distance = rep[3];
                        rep[3] = rep[2];
                    }
                    rep[2] = rep[1];
                }
                rep[1] = rep[0];
                rep[0] = distance;
            }
            if (length == 0) {
                length = 1;
                state = state < 7 ? 9 : 11;
            } else {
                length = lzma_length(&z, REP_LENGTH, place);
                state = state < 7 ? 8 : 11;
            }
        }
        if (rep[0] >= at || length > size - at)
            return EWZ_BROKEN;
        for (; length; length--, at++)
            out[at] = out[at - rep[0] - 1];
    }
    return EWZ_BROKEN;
}

/* --- frames ---------------------------------------------------------------------------------------------------- */

/* Copy the rest of a frame to where it belongs: `gaps` pairs of place and size, the first at the end of the arena. */
static int fill_gaps(decoder *d, const uint8_t *packed, size_t packed_size, uint8_t *out, size_t rest, size_t gaps)
{
    uint32_t method = integer(d, METHOD, 2);
    const uint8_t *from = packed;
    size_t i;
    if (d->error)
        return d->error;
    if (method == 1)
        return EWZ_UNSUPPORTED;
    if (method == 2) {
        size_t at = d->tables_size, used = 8 * gaps, needed;
        at += (size_t)((0 - (uintptr_t)(d->arena + at)) & 1);
        needed = at + 2 * (size_t)LZMA_PROBABILITIES;
        if (d->arena_size < used || d->arena_size - used < needed || d->arena_size - used - needed < rest)
            return EWZ_NO_ROOM;
        /* Through void *: the arena is bytes, and `at` was made even. */
        if (unlzma(packed, packed_size, d->arena + needed, rest, (uint16_t *)(void *)(d->arena + at)))
            return EWZ_BROKEN;
        from = d->arena + needed;
    } else if (packed_size != rest) {
        return EWZ_BROKEN;
    }
    for (i = 1; i <= gaps; i++) {
        uint32_t gap[2];
        memcpy(gap, d->arena + d->arena_size - 8 * i, 8);
        memcpy(out + gap[0], from, gap[1]);
        from += gap[1];
    }
    return EWZ_OK;
}

/* Decode the next frame to `out`, where `room` bytes are left; return its size, or 0 and set d->error. */
static size_t read_frame(decoder *d, input *in, uint8_t *out, size_t room)
{
    size_t sizes[3], size, at = 0, rest = 0, gaps = 0;
    const uint8_t *parts[3];
    uint64_t most = room < FRAME_BYTES ? room : FRAME_BYTES;
    int i;
    for (i = 0; i < 3; i++)
        sizes[i] = (size_t)varint(in, 2 * most + 1024);
    for (i = 0; i < 3; i++)
        parts[i] = take(in, sizes[i]);
    d->error = in->error;
    if (d->error)
        return 0;
    d->data = parts[0];
    d->size = sizes[0];
    d->at = 0;
    d->range = 0xFFFFFFFFu;
    for (i = 0; i < 4; i++)
        d->code = d->code << 8 | next_byte(d);
    d->words.p = parts[2];
    d->words.left = sizes[2];
    d->words.error = sizes[2] % 2 || (sizes[2] && sizes[2] < 16) ? EWZ_BROKEN : 0;
    for (i = 0; i < 4 && sizes[2] && !d->words.error; i++) {
        const uint8_t *p = take(&d->words, 4);
        d->x[i] = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        if (d->x[i] < 1u << 16)
            d->words.error = EWZ_BROKEN;
    }
    size = (size_t)integer(d, FRAME, most - 1) + 1;
    while (!d->error && !d->words.error) {
        uint32_t gap = integer(d, GAP, size - at + 1), place[2];
        size_t length;
        int is_last = gap == 0;
        if (d->error)
            break;
        length = is_last ? size - at : gap - 1;
        if (d->arena_size - d->tables_size < 8 * (gaps + 1)) {
            d->error = EWZ_NO_ROOM;
            break;
        }
        place[0] = (uint32_t)at;
        place[1] = (uint32_t)length;
        gaps++;
        memcpy(d->arena + d->arena_size - 8 * gaps, place, 8);
        at += length;
        rest += length;
        if (is_last) {
            d->error = fill_gaps(d, parts[1], sizes[1], out, rest, gaps);
            break;
        }
        if (sizes[2] == 0)
            d->error = EWZ_BROKEN;
        else
            at += read_range(d, out + at, size - at, 8 * gaps);
    }
    for (i = 0; i < 4 && sizes[2]; i++)
        if (d->x[i] != 1u << 16)
            d->words.error = EWZ_BROKEN;
    if (!d->error && (d->words.error || d->words.left))
        d->error = EWZ_BROKEN;
    return d->error ? 0 : size;
}

static int check_content(const uint8_t *packed, size_t packed_size, size_t files, const uint8_t *out, const uint8_t *promised)
{
    static const char hex[] = "0123456789abcdef";
    sha256 all, one;
    uint8_t digest[32];
    size_t i;
    sha_start(&all);
    for (i = 0; i < files; i++) {
        ewz_file file = {0};
        uint8_t line[64];
        int k;
        if (ewz_entry(packed, packed_size, i, &file))
            return EWZ_BROKEN;
        sha_start(&one);
        sha_add(&one, out + file.offset, file.size);
        sha_end(&one, digest);
        for (k = 0; k < 32; k++) {
            line[2 * k] = (uint8_t)hex[digest[k] >> 4];
            line[2 * k + 1] = (uint8_t)hex[digest[k] & 15];
        }
        sha_add(&all, line, 64);
        sha_add(&all, (const uint8_t *)"  ", 2);
        sha_add(&all, (const uint8_t *)file.name, file.name_size);
        sha_add(&all, (const uint8_t *)"\n", 1);
    }
    if (files > 1)
        sha_end(&all, digest);
    return memcmp(digest, promised, 32) == 0 ? EWZ_OK : EWZ_BROKEN;
}

int ewz_unpack(const uint8_t *packed, size_t packed_size, uint8_t *out, size_t out_size, void *work, size_t work_size)
{
    input in = {packed, packed_size, 0};
    decoder *d = (decoder *)work;
    const uint8_t *digest, *check;
    size_t files, size, done = 0;
    uint32_t i, crc;
    int error = header(&in, 0, &files, &size, &digest, NULL);
    if (error)
        return error;
    if (size > out_size || work_size < EWZ_WORK_MIN)
        return EWZ_NO_ROOM;
    memset(d, 0, sizeof *d);
    d->arena = (uint8_t *)work + sizeof *d;
    d->arena_size = work_size - sizeof *d;
    for (i = 0; i < CONTEXTS; i++)
        d->p[i] = 1u << 21;
    while (done < size) {
        done += read_frame(d, &in, out + done, size - done);
        if (d->error)
            return d->error;
    }
    crc = crc32_of(packed, packed_size - in.left);
    check = take(&in, 4);
    if (!check || in.left || crc != ((uint32_t)check[0] | (uint32_t)check[1] << 8 | (uint32_t)check[2] << 16 | (uint32_t)check[3] << 24))
        return EWZ_BROKEN;
    return check_content(packed, packed_size, files, out, digest);
}
