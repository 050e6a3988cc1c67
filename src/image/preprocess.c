/* preprocess.c - what happens to a picture before a model is shown it: turned upright, resized, cut
 * from the middle, and its bytes looked up as normalised numbers.
 *
 * Reading files is decode.c, the resampling itself resize.c.  Training's random crops and flips
 * are not here. */
#include "image/picture.h"

#define SIDE_MAX  ((size_t)1 << 30)
#define TURN_TILE ((size_t)32)

/* ---- turning --------------------------------------------------------------------------------- */

/* How an upright picture is read from one that was stored otherwise: from pixel `start` of the
 * stored one, so many bytes on for a step to the right and for one down. */
typedef struct turning {
    size_t width, height;
    const unsigned char *start;
    ptrdiff_t right, down;
} turning;

static bool lies_on_side(int orientation)
{
    return orientation >= 5 && orientation <= 8;
}

static turning turning_of(const cv_picture *in)
{
    const int o = in->orientation;
    const bool from_right = o == 2 || o == 3 || o == 7 || o == 8;  /* where the stored rows and */
    const bool from_bottom = o == 3 || o == 4 || o == 6 || o == 7; /* columns are read from */
    const size_t stride = 3 * in->width;
    const ptrdiff_t x = from_right ? -3 : 3;
    const ptrdiff_t y = from_bottom ? -(ptrdiff_t)stride : (ptrdiff_t)stride;
    turning t = { .width = in->width, .height = in->height, .right = x, .down = y };
    t.start =
        in->pixels + (from_right ? stride - 3 : 0) + (from_bottom ? (in->height - 1) * stride : 0);
    if (lies_on_side(o)) {
        t.width = in->height;
        t.height = in->width;
        t.right = y;
        t.down = x;
    }
    return t;
}

/* Rows y .. y + n - 1 together: where `right` leaps from row to row, what is beside is at hand. */
static void turn_rows(const turning *t, size_t y, size_t n, unsigned char *pixels)
{
    for (size_t x = 0; x < t->width; x++) {
        const unsigned char *from = t->start + (ptrdiff_t)x * t->right + (ptrdiff_t)y * t->down;
        unsigned char *to = pixels + 3 * (y * t->width + x);
        for (size_t i = 0; i < n; i++) {
            const unsigned char *p = from + (ptrdiff_t)i * t->down;
            unsigned char *q = to + 3 * i * t->width;
            q[0] = p[0];
            q[1] = p[1];
            q[2] = p[2];
        }
    }
}

corvid_status cv_picture_turn(const corvid_allocator *mem, const cv_picture *in, cv_picture *out,
                              corvid_error *err)
{
    *out = (cv_picture){ .mem = mem };
    if (in->width < 1 || in->height < 1)
        return cv_fail(err, CORVID_E_ARGUMENT, "an empty picture cannot be turned");
    const turning t = turning_of(in);
    CV_TRY(cv_picture_new(mem, t.width, t.height, out, err));
    for (size_t y = 0; y < t.height; y += TURN_TILE)
        turn_rows(&t, y, t.height - y < TURN_TILE ? t.height - y : TURN_TILE, out->pixels);
    out->orientation = 1;
    return CORVID_OK;
}

/* ---- framing --------------------------------------------------------------------------------- */

/* Where a crop begins [pre.crop]: half of what is left over, a half rounded to the even side. */
static size_t crop_start(size_t side, size_t crop)
{
    const size_t over = side - crop, k = over / 2;
    return over % 2 ? k + k % 2 : k;
}

/* The crop's length and start; a side that is shorter stays whole. */
static void crop_side(size_t side, size_t crop, size_t *start, size_t *length)
{
    *length = crop == 0 || crop > side ? side : crop;
    *start = crop_start(side, *length);
}

/* The size that a picture of width x height is resized to [pre.resize].  The long side of one whose
 * short side is resized is truncated; all sides are at most 2^30, so the products fit. */
static void whole_size(const cv_framing *framing, size_t width, size_t height, cv_resize *to)
{
    const size_t shorter = width < height ? width : height;
    if (framing->resize) {
        to->width = framing->resize * width / shorter; /* resize itself where that is the short */
        to->height = framing->resize * height / shorter;
    } else {
        to->width = framing->width ? framing->width : width;
        to->height = framing->height ? framing->height : height;
    }
}

static corvid_status check_framing(const cv_framing *framing, corvid_error *err)
{
    const size_t sides[] = { framing->resize, framing->width, framing->height, framing->crop_width,
                             framing->crop_height };
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++)
        if (sides[i] > SIDE_MAX)
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "a picture's side of %zu pixels was asked for; at most %zu are possible",
                           sides[i], SIDE_MAX);
    return CORVID_OK;
}

/* What is to be done with an upright picture of width x height. */
static corvid_status plan(const cv_framing *framing, size_t width, size_t height,
                          uint64_t max_pixels, cv_resize *to, corvid_error *err)
{
    if (width < 1 || height < 1 || width > SIDE_MAX || height > SIDE_MAX)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "a picture of %zu x %zu pixels cannot be resized: sides are 1 to %zu", width,
                       height, SIDE_MAX);
    CV_TRY(check_framing(framing, err));
    whole_size(framing, width, height, to);
    if (to->width > SIDE_MAX || to->height > SIDE_MAX)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "a picture of %zu x %zu pixels would be resized to %zu x %zu; sides of at "
                       "most %zu are possible: ask for a smaller one, or give width and height",
                       width, height, to->width, to->height, SIDE_MAX);
    crop_side(to->width, framing->crop_width, &to->x, &to->part_width);
    crop_side(to->height, framing->crop_height, &to->y, &to->part_height);
    if ((uint64_t)to->part_width * to->part_height > max_pixels)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "a picture of %zu x %zu pixels would become one of %zu x %zu; at most %llu "
                       "pixels are allowed: ask for a smaller size or a crop",
                       width, height, to->part_width, to->part_height,
                       (unsigned long long)max_pixels);
    return CORVID_OK;
}

corvid_status cv_picture_frame(const corvid_allocator *mem, const cv_picture *in,
                               const cv_framing *framing, uint64_t max_pixels, cv_picture *out,
                               corvid_error *err)
{
    cv_picture upright = { .mem = mem };
    cv_resize to;
    *out = (cv_picture){ .mem = mem };
    const bool turned = framing->orient && in->orientation >= 2 && in->orientation <= 8;
    const bool swapped = turned && lies_on_side(in->orientation);
    CV_TRY(plan(framing, swapped ? in->height : in->width, swapped ? in->width : in->height,
                max_pixels, &to, err));
    if (turned) CV_TRY(cv_picture_turn(mem, in, &upright, err));
    const corvid_status status = cv_picture_resize(mem, turned ? &upright : in, &to, out, err);
    cv_picture_free(&upright);
    return status;
}

/* ---- normalising ----------------------------------------------------------------------------- */

const cv_normalise cv_normalise_255 = { .mean = { 123.675, 116.28, 103.53 },
                                        .std = { 58.395, 57.12, 57.375 } };
const cv_normalise cv_normalise_unit = { .mean = { 0.485, 0.456, 0.406 },
                                         .std = { 0.229, 0.224, 0.225 },
                                         .unit = true };

/* [pre.normalise] with OpenCV's precision: the difference of two floats is rounded to float, then
 * multiplied by a reciprocal in double. */
static float normalise_byte(double mean, double std, float v)
{
    const float difference = v - (float)mean;
    return (float)((double)difference * (1.0 / std));
}

/* [pre.normalise] with torchvision's: every step is one of floats. */
static float normalise_unit(double mean, double std, float v)
{
    return (v / 255.0f - (float)mean) / (float)std;
}

void cv_normalise_table(const cv_normalise *how, float table[3][256])
{
    for (size_t c = 0; c < 3; c++)
        for (size_t v = 0; v < 256; v++)
            table[c][v] = how->unit ? normalise_unit(how->mean[c], how->std[c], (float)v)
                                    : normalise_byte(how->mean[c], how->std[c], (float)v);
}

void cv_picture_values(const cv_picture *picture, float table[3][256], float *values)
{
    const size_t n = picture->width * picture->height;
    const unsigned char *p = picture->pixels;
    for (size_t i = 0; i < n; i++, p += 3) {
        values[i] = table[0][p[0]];
        values[n + i] = table[1][p[1]];
        values[2 * n + i] = table[2][p[2]];
    }
}
