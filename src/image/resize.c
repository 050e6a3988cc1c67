/* resize.c - Pillow's bicubic on 8-bit RGB, pixel for pixel.  [pre.resize]
 *
 * Along one axis an output pixel is a weighted mean of the input pixels around its centre: Keys'
 * cubic with a = -1/2, spread out by the scale when shrinking (Pillow's antialiasing), the weights
 * in fixed point.  The picture is resampled along its rows, rounded to 8 bits, then along its
 * columns; an axis whose size does not change is not touched.
 *
 * Columns go in strips, so that weights and the rows between the two passes stay small whatever
 * the proportions.  Other filters, other pixels and resizing in linear light are not here. */
#include <math.h>
#include <string.h>

#include "image/picture.h"

/* Fractional bits of the weights.  They sum to one, no weight is above 1.2 and those below zero
 * make up less than a quarter, so a sum over 8-bit pixels fits 32 bits. */
#define FRACTION 22

#define SIDE_MAX    ((size_t)1 << 30)
#define STRIP_TAPS  ((size_t)1 << 16) /* 256 KiB of weights: they stay in the second cache */
#define STRIP_BYTES ((size_t)4 << 20)
#define BLOCK       ((size_t)192) /* bytes of a row that are summed at a time */

typedef struct axis {
    size_t in, out;
    double scale;   /* input pixels per output pixel */
    double spread;  /* of the cubic: the scale when shrinking, else 1 */
    double support; /* reach of the cubic in input pixels */
} axis;

/* The input pixels that make one output pixel, and their weights. */
typedef struct taps {
    size_t first, n;
    int32_t *w;
} taps;

typedef struct work {
    const cv_picture *in;
    const cv_resize *to;
    cv_picture *out;
    axis across, down;
    size_t first_row, n_rows; /* of the input, that the part needs */
    size_t strip;             /* columns at a time */
    taps *columns;            /* [strip] */
    int32_t *column_weights;
    int32_t *row_weights;
    unsigned char *between; /* [n_rows][strip][3]: after the first pass */
} work;

/* ---- weights --------------------------------------------------------------------------------- */

static axis axis_of(size_t in, size_t out)
{
    const double scale = (double)in / (double)out, spread = scale > 1.0 ? scale : 1.0;
    return (axis){ .in = in, .out = out, .scale = scale, .spread = spread, .support = 2 * spread };
}

static size_t most_taps(const axis *a)
{
    const size_t n = 2 * (size_t)ceil(a->support) + 1;
    return n < a->in ? n : a->in;
}

/* The roundings and the order of these sums are Pillow's: a different last bit of a weight is a
 * different pixel somewhere. */
static double cubic(double x)
{
    x = fabs(x);
    if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5;
    return 0.0;
}

static double centre(const axis *a, size_t x)
{
    return ((double)x + 0.5) * a->scale;
}

/* Which pixels make output pixel x; at least one. */
static taps taps_at(const axis *a, size_t x)
{
    const double from = centre(a, x) - a->support + 0.5, to = centre(a, x) + a->support + 0.5;
    const size_t first = from > 0.0 ? (size_t)from : 0;
    const size_t end = (size_t)to < a->in ? (size_t)to : a->in;
    return (taps){ .first = first, .n = end - first };
}

/* The same with their weights, in w.  The cubic is worked out twice rather than kept in double:
 * one output pixel may take a whole side of a picture. */
static taps weights_at(const axis *a, size_t x, int32_t *w)
{
    taps t = taps_at(a, x);
    const double middle = centre(a, x), narrow = 1.0 / a->spread;
    double sum = 0.0;
    for (size_t k = 0; k < t.n; k++)
        sum += cubic(((double)(t.first + k) - middle + 0.5) * narrow);
    for (size_t k = 0; k < t.n; k++) {
        const double share = cubic(((double)(t.first + k) - middle + 0.5) * narrow) / sum;
        w[k] = (int32_t)(share * (1 << FRACTION) + (share < 0.0 ? -0.5 : 0.5));
    }
    t.w = w;
    return t;
}

static unsigned char pixel(int32_t sum)
{
    const int32_t v = sum >> FRACTION;
    return (unsigned char)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* ---- along a row ----------------------------------------------------------------------------- */

/* Two sums of 32 bits in one of 64: a multiplication serves a row and its neighbour.  What a
 * negative low sum borrows from the high one is given back here. */
static void put_pair(uint64_t sums, unsigned char *low, unsigned char *high)
{
    const int32_t a = (int32_t)(uint32_t)sums;
    *low = pixel(a);
    *high = pixel((int32_t)(uint32_t)((sums - (uint64_t)(int64_t)a) >> 32));
}

static inline uint64_t both(unsigned char a, unsigned char b)
{
    return a | (uint64_t)b << 32;
}

/* One output pixel of two rows.  a, b: the rows' first pixel that counts. */
static void across_pixel(const taps *t, const unsigned char *a, const unsigned char *b,
                         unsigned char *to_a, unsigned char *to_b)
{
    const uint64_t half = both(1, 1) << (FRACTION - 1);
    uint64_t red = half, green = half, blue = half;
    for (size_t k = 0; k < t->n; k++, a += 3, b += 3) {
        const uint64_t w = (uint64_t)(int64_t)t->w[k];
        red += w * both(a[0], b[0]);
        green += w * both(a[1], b[1]);
        blue += w * both(a[2], b[2]);
    }
    put_pair(red, to_a, to_b);
    put_pair(green, to_a + 1, to_b + 1);
    put_pair(blue, to_a + 2, to_b + 2);
}

/* Output columns x .. x + n - 1 of the rows that the part needs, to `to`, rows `stride` apart. */
static void pass_across(const work *k, size_t x, size_t n, unsigned char *to, size_t stride)
{
    const size_t row_bytes = 3 * k->in->width, most = most_taps(&k->across);
    for (size_t i = 0; i < n; i++)
        k->columns[i] = weights_at(&k->across, x + i, k->column_weights + i * most);
    for (size_t r = 0; r < k->n_rows; r += 2) {
        const size_t next = r + 1 < k->n_rows; /* the last of an odd number goes with itself */
        const unsigned char *a = k->in->pixels + (k->first_row + r) * row_bytes;
        const unsigned char *b = a + next * row_bytes;
        unsigned char *to_a = to + r * stride, *to_b = to_a + next * stride;
        for (size_t i = 0; i < n; i++) {
            const taps *t = &k->columns[i];
            across_pixel(t, a + 3 * t->first, b + 3 * t->first, to_a + 3 * i, to_b + 3 * i);
        }
    }
}

/* ---- along the columns ----------------------------------------------------------------------- */

/* n bytes of one output row; from: the same bytes of the first row that counts.  Inlined with n a
 * constant, so that the compiler makes vectors of it. */
static inline void down_bytes(const taps *t, const unsigned char *from, size_t stride, size_t n,
                              unsigned char *restrict to)
{
    uint32_t sums[BLOCK]; /* unsigned, as those of the rows: what is on the way may wrap */
    for (size_t i = 0; i < n; i++)
        sums[i] = 1 << (FRACTION - 1);
    for (size_t k = 0; k < t->n; k++, from += stride)
        for (size_t i = 0; i < n; i++)
            sums[i] += (uint32_t)t->w[k] * from[i];
    for (size_t i = 0; i < n; i++)
        to[i] = pixel((int32_t)sums[i]);
}

/* Output rows of the part, `bytes` of each.  from: row first_row of the input, of which rows are
 * from_stride apart. */
static void pass_down(const work *k, const unsigned char *from, size_t from_stride, size_t bytes,
                      unsigned char *to, size_t to_stride)
{
    for (size_t y = 0; y < k->to->part_height; y++, to += to_stride) {
        const taps t = weights_at(&k->down, k->to->y + y, k->row_weights);
        const unsigned char *start = from + (t.first - k->first_row) * from_stride;
        size_t i = 0;
        for (; bytes - i >= BLOCK; i += BLOCK)
            down_bytes(&t, start + i, from_stride, BLOCK, to + i);
        if (i < bytes && bytes > BLOCK) /* the last block ends with the row */
            down_bytes(&t, start + bytes - BLOCK, from_stride, BLOCK, to + bytes - BLOCK);
        else if (i < bytes)
            down_bytes(&t, start, from_stride, bytes, to);
    }
}

/* ---- together -------------------------------------------------------------------------------- */

static bool within(size_t first, size_t n, size_t whole)
{
    return n >= 1 && whole <= SIDE_MAX && first < whole && n <= whole - first;
}

static corvid_status check_sizes(const cv_picture *in, const cv_resize *to, corvid_error *err)
{
    if (in->width < 1 || in->height < 1 || in->width > SIDE_MAX || in->height > SIDE_MAX)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "a picture of %zu x %zu pixels cannot be resized: sides are 1 to %zu",
                       in->width, in->height, SIDE_MAX);
    if (!within(to->x, to->part_width, to->width) || !within(to->y, to->part_height, to->height))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "resizing to %zu x %zu, %zu x %zu pixels from (%zu, %zu) on: sides are 1 to "
                       "%zu and the part lies within",
                       to->width, to->height, to->part_width, to->part_height, to->x, to->y,
                       SIDE_MAX);
    return CORVID_OK;
}

static void find_rows(work *k)
{
    const size_t y = k->to->y, n = k->to->part_height;
    k->first_row = y;
    k->n_rows = n;
    if (k->down.in == k->down.out) return;
    const taps top = taps_at(&k->down, y), bottom = taps_at(&k->down, y + n - 1);
    k->first_row = top.first;
    k->n_rows = bottom.first + bottom.n - top.first;
}

/* As many columns as keep weights and the rows between the passes small; at least one. */
static size_t strip_columns(const work *k, bool down)
{
    size_t n = STRIP_TAPS / most_taps(&k->across);
    if (down && n > STRIP_BYTES / 3 / k->n_rows) n = STRIP_BYTES / 3 / k->n_rows;
    if (n > k->to->part_width) n = k->to->part_width;
    return n ? n : 1;
}

static corvid_status get_memory(const corvid_allocator *mem, work *k, bool across, bool down,
                                corvid_error *err)
{
    void *taken;
    if (down) {
        CV_TRY(cv_alloc_or_fail(mem, most_taps(&k->down), sizeof *k->row_weights,
                                "the weights of a row", &taken, err));
        k->row_weights = taken;
    }
    if (!across) return CORVID_OK;
    k->strip = strip_columns(k, down);
    CV_TRY(cv_alloc_or_fail(mem, k->strip, sizeof *k->columns, "the columns of a picture", &taken,
                            err));
    k->columns = taken;
    CV_TRY(cv_alloc_or_fail(mem, k->strip * most_taps(&k->across), sizeof *k->column_weights,
                            "the weights of columns", &taken, err));
    k->column_weights = taken;
    if (!down) return CORVID_OK;
    CV_TRY(cv_alloc_or_fail(mem, k->strip * k->n_rows, 3, "a strip of a picture", &taken, err));
    k->between = taken;
    return CORVID_OK;
}

static void resample(const work *k, bool across, bool down)
{
    const cv_resize *to = k->to;
    const size_t in_bytes = 3 * k->in->width, out_bytes = 3 * to->part_width;
    const unsigned char *corner = k->in->pixels + k->first_row * in_bytes + 3 * to->x;
    unsigned char *out = k->out->pixels;
    if (!across && down) pass_down(k, corner, in_bytes, out_bytes, out, out_bytes);
    for (size_t y = 0; !across && !down && y < to->part_height; y++)
        memcpy(out + y * out_bytes, corner + y * in_bytes, out_bytes);
    for (size_t x = 0; across && x < to->part_width; x += k->strip) {
        const size_t rest = to->part_width - x, n = rest < k->strip ? rest : k->strip;
        if (!down) {
            pass_across(k, to->x + x, n, out + 3 * x, out_bytes);
        } else {
            pass_across(k, to->x + x, n, k->between, 3 * n);
            pass_down(k, k->between, 3 * n, 3 * n, out + 3 * x, out_bytes);
        }
    }
}

corvid_status cv_picture_resize(const corvid_allocator *mem, const cv_picture *in,
                                const cv_resize *to, cv_picture *out, corvid_error *err)
{
    *out = (cv_picture){ .mem = mem };
    CV_TRY(check_sizes(in, to, err));
    const bool across = in->width != to->width, down = in->height != to->height;
    work k = { .in = in, .to = to, .out = out };
    k.across = axis_of(in->width, to->width);
    k.down = axis_of(in->height, to->height);
    find_rows(&k);

    corvid_status status = cv_picture_new(mem, to->part_width, to->part_height, out, err);
    if (status == CORVID_OK) status = get_memory(mem, &k, across, down, err);
    if (status == CORVID_OK) {
        resample(&k, across, down);
        out->orientation = in->orientation;
    } else {
        cv_picture_free(out);
        *out = (cv_picture){ .mem = mem };
    }
    cv_free(mem, k.between);
    cv_free(mem, k.row_weights);
    cv_free(mem, k.column_weights);
    cv_free(mem, k.columns);
    return status;
}
