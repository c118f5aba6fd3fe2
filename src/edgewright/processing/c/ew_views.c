/* Pixels as they lie in memory, read upright and in the order that steps want. */
#include <string.h>

#include "ew_images.h"

void ew_view_raw(ew_run *run, int32_t input, int32_t order)
{
    ew_view *view = &run->view;
    memset(view, 0, sizeof *view);
    view->raw = &run->raws[input];
    view->order = view->made = order;
    view->channels = order == EW_GREY ? 1 : order == EW_RGBA ? 4 : 3;
    view->height = view->raw->height;
    view->width = view->raw->width;
    view->geometry.source_height = view->geometry.height = view->height;
    view->geometry.source_width = view->geometry.width = view->width;
    view->geometry.scale_x = view->geometry.scale_y = 1.0;
}

static void set_dense(ew_run *run, const uint8_t *pixels, int32_t height, int32_t width, int32_t order)
{
    ew_view *view = &run->view;
    memset(view, 0, sizeof *view);
    memset(&run->dense, 0, sizeof run->dense);
    view->raw = &run->dense;
    view->order = view->made = order;
    view->channels = order == EW_GREY ? 1 : order == EW_RGBA ? 4 : 3;
    view->height = run->dense.height = height;
    view->width = run->dense.width = width;
    run->dense.data = pixels;
    run->dense.row_bytes = width * view->channels;
    run->dense.format = order;
}

void ew_view_dense(ew_run *run, const uint8_t *pixels, int32_t height, int32_t width, int32_t order, int32_t geometry)
{
    set_dense(run, pixels, height, width, order);
    if (geometry >= 0) {
        run->view.geometry = run->geometries[geometry];
    } else {
        run->view.geometry.source_height = run->view.geometry.height = height;
        run->view.geometry.source_width = run->view.geometry.width = width;
        run->view.geometry.scale_x = run->view.geometry.scale_y = 1.0;
    }
}

void ew_view_channels(ew_run *run, int32_t order, int32_t red, int32_t green, int32_t blue)
{
    run->view.made = order;
    run->view.channels = order == EW_GREY ? 1 : 3;
    run->view.background[0] = red;
    run->view.background[1] = green;
    run->view.background[2] = blue;
}

int ew_view_crop(ew_run *run, int32_t height, int32_t width)
{
    ew_view *view = &run->view;
    int32_t top = (view->height - height) / 2, left = (view->width - width) / 2;
    if (height > view->height || width > view->width) {
        return EW_BAD_SIZE;
    }
    view->top += top;
    view->left += left;
    view->height = view->geometry.height = height;
    view->width = view->geometry.width = width;
    view->geometry.offset_x -= (double)left;
    view->geometry.offset_y -= (double)top;
    return EW_OK;
}

void ew_view_crop_fraction(ew_run *run, double fraction, int32_t is_square)
{
    int32_t height = run->view.height, width = run->view.width, side;
    if (is_square) {
        side = height < width ? height : width;
        height = width = side;
    }
    height = (int32_t)((double)height * fraction + 0.5);
    width = (int32_t)((double)width * fraction + 0.5);
    (void)ew_view_crop(run, height < 1 ? 1 : height, width < 1 ? 1 : width);
}

int32_t ew_is_direct(const ew_view *view)
{
    const ew_raw *raw = view->raw;
    /* Grey that was made of colours is not what lies in memory, other orders are. */
    return raw->rotation == 0 && raw->format == view->made && (view->made == EW_GREY || view->order != EW_GREY);
}

const uint8_t *ew_row(const ew_view *view, int32_t y, int32_t x)
{
    return (const uint8_t *)view->raw->data + (ptrdiff_t)(view->top + y) * view->raw->row_bytes +
           (ptrdiff_t)(view->left + x) * view->channels;
}

typedef struct {
    int32_t r, g, b, a;
} pixel;

static int32_t byte_of(int32_t fixed)
{
    fixed = fixed < 0 ? 0 : fixed;
    fixed = fixed > 255 << 16 ? 255 << 16 : fixed;
    return fixed >> 16;
}

static int32_t grey_of(pixel p)
{
    return (19595 * p.r + 38470 * p.g + 7471 * p.b + 32768) >> 16;
}

/* Whether pixels go from memory to a view as they are, but for their order. */
static int32_t is_plain(const ew_view *view)
{
    return view->order <= EW_BGR && view->made <= EW_BGR;
}

static void put(const ew_view *view, pixel p, uint8_t *to)
{
    if (view->order == EW_GREY) {
        p.r = p.g = p.b = grey_of(p);
    } else if (view->order == EW_RGBA && view->made != EW_RGBA) {
        p.r = (p.r * p.a + view->background[0] * (255 - p.a) + 127) / 255;
        p.g = (p.g * p.a + view->background[1] * (255 - p.a) + 127) / 255;
        p.b = (p.b * p.a + view->background[2] * (255 - p.a) + 127) / 255;
    }
    if (view->made == EW_GREY) {
        to[0] = (uint8_t)grey_of(p);
        return;
    }
    to[0] = (uint8_t)(view->made == EW_BGR ? p.b : p.r);
    to[1] = (uint8_t)p.g;
    to[2] = (uint8_t)(view->made == EW_BGR ? p.r : p.b);
    if (view->made == EW_RGBA) {
        to[3] = (uint8_t)p.a;
    }
}

/* ITU-R BT.601, coefficients in 2**-16: full range 1.402, 0.344136, 0.714136, 1.772; video range these times 255/224,
 * and 255/219 for luma. */
static pixel of_yuv(const ew_raw *raw, int32_t x, int32_t y)
{
    ptrdiff_t at = (ptrdiff_t)(y >> 1) * raw->chroma_row_bytes + (ptrdiff_t)(x >> 1) * raw->chroma_step;
    int32_t luma = ((const uint8_t *)raw->data)[(ptrdiff_t)y * raw->row_bytes + x];
    int32_t u = raw->u[at] - 128, v = raw->v[at] - 128;
    pixel p;
    if (raw->is_video_range) {
        luma = 76309 * (luma - 16) + 32768;
        p.r = byte_of(luma + 104597 * v);
        p.g = byte_of(luma - 25675 * u - 53279 * v);
        p.b = byte_of(luma + 132201 * u);
    } else {
        luma = 65536 * luma + 32768;
        p.r = byte_of(luma + 91881 * v);
        p.g = byte_of(luma - 22554 * u - 46802 * v);
        p.b = byte_of(luma + 116130 * u);
    }
    p.a = 255;
    return p;
}

static void read_yuv(const ew_view *view, int32_t y, const int32_t *columns, int32_t first, int32_t count, uint8_t *to)
{
    const ew_raw *raw = view->raw;
    int32_t is_turned = raw->rotation % 180 != 0, is_back = raw->rotation >= 180, plain = is_plain(view);
    int32_t red = view->made == EW_BGR ? 2 : 0, i;
    y += view->top;
    /* Of the upright image, x runs along the rows in memory or, turned by 90 or 270 degrees, across them. */
    if (is_back) {
        y = raw->height - 1 - y;
    }
    for (i = 0; i < count; ++i, to += view->channels) {
        int32_t x = view->left + (columns != NULL ? columns[i] : first + i);
        pixel p;
        if (raw->rotation == 90 || raw->rotation == 180) {
            x = raw->width - 1 - x;
        }
        p = of_yuv(raw, is_turned ? y : x, is_turned ? x : y);
        if (plain) {
            to[red] = (uint8_t)p.r;
            to[1] = (uint8_t)p.g;
            to[2 - red] = (uint8_t)p.b;
        } else {
            put(view, p, to);
        }
    }
}

/* Pixels of three or four bytes, and single bytes, to three in the order that is wanted. */
static void read_plain(const ew_view *view, const uint8_t *row, ptrdiff_t step, int32_t red, int32_t bytes,
                       const int32_t *columns, int32_t first, int32_t count, uint8_t *to)
{
    int32_t to_red = view->made == EW_BGR ? 2 : 0, i;
    int32_t green = bytes == 1 ? 0 : 1, blue = bytes == 1 ? 0 : 2 - red;
    for (i = 0; i < count; ++i, to += 3) {
        const uint8_t *at = row + (ptrdiff_t)(columns != NULL ? columns[i] : first + i) * step;
        to[to_red] = at[red];
        to[1] = at[green];
        to[2 - to_red] = at[blue];
    }
}

void ew_read(const ew_view *view, int32_t y, const int32_t *columns, int32_t first, int32_t count, uint8_t *to)
{
    const ew_raw *raw = view->raw;
    const uint8_t *row = (const uint8_t *)raw->data;
    int32_t bytes = raw->format == EW_GREY ? 1 : raw->format >= EW_RGBA ? 4 : 3;
    int32_t red = raw->format == EW_BGR || raw->format == EW_BGRA ? 2 : 0, i;
    ptrdiff_t step = bytes;
    if (raw->format > EW_GREY) {
        read_yuv(view, y, columns, first, count, to);
        return;
    }
    y += view->top;
    /* Pixel x of the upright row lies at row + x * step. */
    switch (raw->rotation) {
    case 0:
        row += (ptrdiff_t)y * raw->row_bytes;
        break;
    case 90:
        row += (ptrdiff_t)(raw->width - 1) * raw->row_bytes + (ptrdiff_t)y * bytes;
        step = -(ptrdiff_t)raw->row_bytes;
        break;
    case 180:
        row += (ptrdiff_t)(raw->height - 1 - y) * raw->row_bytes + (ptrdiff_t)(raw->width - 1) * bytes;
        step = -step;
        break;
    default:
        row += (ptrdiff_t)(raw->height - 1 - y) * bytes;
        step = raw->row_bytes;
        break;
    }
    row += view->left * step;
    if (is_plain(view)) {
        read_plain(view, row, step, red, bytes, columns, first, count, to);
        return;
    }
    for (i = 0; i < count; ++i, to += view->channels) {
        const uint8_t *at = row + (ptrdiff_t)(columns != NULL ? columns[i] : first + i) * step;
        pixel p;
        if (bytes == 1) {
            p.r = p.g = p.b = at[0];
            p.a = 255;
        } else {
            p.r = at[red];
            p.g = at[1];
            p.b = at[2 - red];
            p.a = bytes == 4 ? at[3] : 255;
        }
        put(view, p, to);
    }
}

void ew_channels(ew_run *run, const uint8_t *from, int32_t height, int32_t width, int32_t order, uint8_t *to,
                 int32_t made, int32_t red, int32_t green, int32_t blue)
{
    int32_t y;
    set_dense(run, from, height, width, order);
    ew_view_channels(run, made, red, green, blue);
    for (y = 0; y < height; ++y) {
        ew_read(&run->view, y, NULL, 0, width, to + (ptrdiff_t)y * width * run->view.channels);
    }
}
