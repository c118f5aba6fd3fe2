/* What becomes of a view, and where it goes. */
#include <string.h>

#include "ew_images.h"
#include "ew_kernels.h"

static void scale(ew_geometry *g, int32_t height, int32_t width)
{
    double ratio_x = (double)width / (double)g->width, ratio_y = (double)height / (double)g->height;
    g->height = height;
    g->width = width;
    g->scale_x *= ratio_x;
    g->scale_y *= ratio_y;
    g->offset_x *= ratio_x;
    g->offset_y *= ratio_y;
}

void ew_scale_geometry(ew_run *run, int32_t from, int32_t to, int32_t height, int32_t width)
{
    run->geometries[to] = run->geometries[from];
    scale(&run->geometries[to], height, width);
}

static void set_place(ew_run *run, int32_t height, int32_t width)
{
    ew_place *place = &run->place;
    memset(place, 0, sizeof *place);
    place->height = place->rows = place->canvas_height = height;
    place->width = place->columns = place->canvas_width = width;
    scale(&run->view.geometry, height, width);
}

void ew_place_same(ew_run *run)
{
    set_place(run, run->view.height, run->view.width);
}

void ew_place_resize(ew_run *run, int32_t height, int32_t width)
{
    set_place(run, height, width);
}

int ew_place_short_side(ew_run *run, int32_t size)
{
    int32_t height = run->view.height, width = run->view.width, shorter = height < width ? height : width;
    int64_t tall = (int64_t)height * size / shorter, wide = (int64_t)width * size / shorter;
    if (tall > 16384 || wide > 16384 || tall * wide > 1 << 26) {
        return EW_BAD_SIZE;
    }
    set_place(run, (int32_t)tall, (int32_t)wide);
    return EW_OK;
}

void ew_place_letterbox(ew_run *run, int32_t height, int32_t width, int32_t is_top_left, int32_t grows,
                        const uint8_t *fill)
{
    int64_t have_height = run->view.height, have_width = run->view.width, rows = height, columns = width;
    ew_place *place = &run->place;
    ew_geometry *g = &run->view.geometry;
    if (!grows && have_height <= height && have_width <= width) {
        rows = have_height;
        columns = have_width;
    } else if (width * have_height <= height * have_width) {
        rows = (2 * have_height * width + have_width) / (2 * have_width);
        rows = rows < 1 ? 1 : rows;
    } else {
        columns = (2 * have_width * height + have_height) / (2 * have_height);
        columns = columns < 1 ? 1 : columns;
    }
    set_place(run, (int32_t)rows, (int32_t)columns);
    place->canvas_height = height;
    place->canvas_width = width;
    place->at_row = is_top_left ? 0 : (height - (int32_t)rows) / 2;
    place->at_column = is_top_left ? 0 : (width - (int32_t)columns) / 2;
    memcpy(place->fill, fill, (size_t)run->view.channels);
    g->height = height;
    g->width = width;
    g->offset_x += (double)place->at_column;
    g->offset_y += (double)place->at_row;
}

int ew_place_crop(ew_run *run, int32_t height, int32_t width)
{
    ew_place *place = &run->place;
    ew_geometry *g = &run->view.geometry;
    int32_t top = (place->rows - height) / 2, left = (place->columns - width) / 2;
    if (height > place->rows || width > place->columns) {
        return EW_BAD_SIZE;
    }
    place->top += top;
    place->left += left;
    place->rows = place->canvas_height = g->height = height;
    place->columns = place->canvas_width = g->width = width;
    g->offset_x -= (double)left;
    g->offset_y -= (double)top;
    return EW_OK;
}

void ew_keep_geometry(ew_run *run, int32_t number)
{
    run->geometries[number] = run->view.geometry;
}

void ew_sink_bytes(ew_run *run, void *to, int32_t is_chw)
{
    memset(&run->sink, 0, sizeof run->sink);
    run->sink.to = to;
    run->sink.is_chw = is_chw;
    run->sink.item_bytes = 1;
}

void ew_sink_floats(ew_run *run, void *to, int32_t is_chw, const float *factor, const float *offset)
{
    ew_sink_bytes(run, to, is_chw);
    run->sink.factor = factor;
    run->sink.offset = offset;
    run->sink.item_bytes = 4;
}

void ew_sink_table(ew_run *run, void *to, int32_t is_chw, const void *table, int32_t item_bytes)
{
    ew_sink_bytes(run, to, is_chw);
    run->sink.table = table;
    run->sink.item_bytes = item_bytes;
}

void ew_widen(const ew_run *run, float *wide)
{
    int32_t channels = run->view.channels, count = run->place.canvas_width * channels, i;
    if (run->sink.factor == NULL || run->sink.is_chw) {
        return;
    }
    for (i = 0; i < count; ++i) {
        wide[i] = run->sink.factor[i % channels];
        wide[count + i] = run->sink.offset[i % channels];
    }
}

static void put_plane(const ew_sink *sink, int32_t c, int32_t channels, const uint8_t *row, int32_t width,
                      ptrdiff_t at)
{
    int32_t x;
    if (sink->factor != NULL) {
        float factor = sink->factor[c], offset = sink->offset[c];
        float *to = (float *)sink->to + at;
        for (x = 0; x < width; ++x) {
            float product = (float)row[x * channels + c] * factor;
            to[x] = product + offset;
        }
    } else if (sink->table != NULL && sink->item_bytes == 4) {
        const float *table = (const float *)sink->table + 256 * c;
        float *to = (float *)sink->to + at;
        for (x = 0; x < width; ++x) {
            to[x] = table[row[x * channels + c]];
        }
    } else {
        const uint8_t *table = sink->table != NULL ? (const uint8_t *)sink->table + 256 * c : NULL;
        uint8_t *to = (uint8_t *)sink->to + at;
        for (x = 0; x < width; ++x) {
            uint8_t value = row[x * channels + c];
            to[x] = table != NULL ? table[value] : value;
        }
    }
}

static void put_interleaved(const ew_sink *sink, int32_t channels, const uint8_t *row, int32_t count, ptrdiff_t at,
                            const float *wide)
{
    int32_t i, c = 0;
    if (sink->factor != NULL) {
        float *to = (float *)sink->to + at;
        const float *offset = wide + count;
        for (i = 0; i < count; ++i) {
            float product = (float)row[i] * wide[i];
            to[i] = product + offset[i];
        }
        return;
    }
    if (sink->table == NULL) {
        memcpy((uint8_t *)sink->to + at, row, (size_t)count);
        return;
    }
    for (i = 0; i < count; ++i) {
        if (sink->item_bytes == 4) {
            ((float *)sink->to)[at + i] = ((const float *)sink->table)[256 * c + row[i]];
        } else {
            ((uint8_t *)sink->to)[at + i] = ((const uint8_t *)sink->table)[256 * c + row[i]];
        }
        c = c + 1 < channels ? c + 1 : 0;
    }
}

void ew_put_row(const ew_run *run, int32_t y, const uint8_t *row, const float *wide)
{
    int32_t channels = run->view.channels, width = run->place.canvas_width, c;
    if (!run->sink.is_chw) {
        put_interleaved(&run->sink, channels, row, width * channels, (ptrdiff_t)y * width * channels, wide);
        return;
    }
    if (channels == 3 && run->sink.factor != NULL) {
        ew_colours_to_planes(row, width, run->sink.factor, run->sink.offset,
                             (float *)run->sink.to + (ptrdiff_t)y * width,
                             (ptrdiff_t)run->place.canvas_height * width);
        return;
    }
    for (c = 0; c < channels; ++c) {
        put_plane(&run->sink, c, channels, row, width, ((ptrdiff_t)c * run->place.canvas_height + y) * width);
    }
}
