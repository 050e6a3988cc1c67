/* augment_ops.c - RandAugment: its operations on pixels, their strengths, and the drawing of them.
 *
 * The roundings are Pillow's, down to truncation where it truncates.  Moving pixels is
 * augment_geometry.c. */
#include "train/augment_ops.h"

#include <math.h>
#include <string.h>

#define LEVELS 10.0

static size_t n_pixels(const cv_picture *p)
{
    return p->width * p->height;
}

/* ---- tables: the same for every pixel -------------------------------------------------------- */

static void look_up(cv_picture *p, unsigned char table[3][256])
{
    unsigned char *at = p->pixels;
    for (size_t i = 0; i < n_pixels(p); i++, at += 3)
        for (size_t c = 0; c < 3; c++)
            at[c] = table[c][at[c]];
}

static void look_up_all(cv_picture *p, const unsigned char table[256])
{
    for (size_t i = 0; i < 3 * n_pixels(p); i++)
        p->pixels[i] = table[p->pixels[i]];
}

static void count(const cv_picture *p, size_t histogram[3][256])
{
    const unsigned char *at = p->pixels;
    memset(histogram, 0, 3 * sizeof histogram[0]);
    for (size_t i = 0; i < n_pixels(p); i++, at += 3)
        for (size_t c = 0; c < 3; c++)
            histogram[c][at[c]]++;
}

static unsigned char clamp(double v)
{
    return (unsigned char)(v <= 0.0 ? 0.0 : v >= 255.0 ? 255.0 : v);
}

/* Each channel by itself is stretched to 0..255. */
void cv_op_auto_contrast(cv_picture *p)
{
    size_t histogram[3][256];
    unsigned char table[3][256];
    count(p, histogram);
    for (size_t c = 0; c < 3; c++) {
        size_t low = 0, high = 255;
        while (low < 255 && histogram[c][low] == 0)
            low++;
        while (high > 0 && histogram[c][high] == 0)
            high--;
        const double scale = high > low ? 255.0 / (double)(high - low) : 1.0;
        const double offset = high > low ? -(double)low * scale : 0.0;
        for (size_t v = 0; v < 256; v++)
            table[c][v] = clamp((double)v * scale + offset);
    }
    look_up(p, table);
}

/* So many pixels make a step of one value; what has the largest value does not count. */
static void equalize_channel(const size_t histogram[256], size_t n, unsigned char table[256])
{
    size_t last = 255;
    while (last > 0 && histogram[last] == 0)
        last--;
    const size_t step = (n - histogram[last]) / 255;
    size_t before = step / 2;
    for (size_t v = 0; v < 256; v++) {
        const size_t to = step > 0 ? before / step : v;
        table[v] = (unsigned char)(to < 255 ? to : 255);
        before += histogram[v];
    }
}

void cv_op_equalize(cv_picture *p)
{
    size_t histogram[3][256];
    unsigned char table[3][256];
    count(p, histogram);
    for (size_t c = 0; c < 3; c++)
        equalize_channel(histogram[c], n_pixels(p), table[c]);
    look_up(p, table);
}

void cv_op_invert(cv_picture *p)
{
    for (size_t i = 0; i < 3 * n_pixels(p); i++)
        p->pixels[i] = (unsigned char)(255 - p->pixels[i]);
}

void cv_op_posterize(cv_picture *p, int bits)
{
    const unsigned kept = 0xFFu & ~(0xFFu >> bits);
    for (size_t i = 0; i < 3 * n_pixels(p); i++)
        p->pixels[i] = (unsigned char)(p->pixels[i] & kept);
}

void cv_op_solarize(cv_picture *p, double threshold)
{
    unsigned char table[256];
    for (size_t v = 0; v < 256; v++)
        table[v] = (unsigned char)((double)v < threshold ? v : 255 - v);
    look_up_all(p, table);
}

void cv_op_solarize_add(cv_picture *p, double amount)
{
    unsigned char table[256];
    for (size_t v = 0; v < 256; v++)
        table[v] = v < 128 ? clamp((double)v + amount) : (unsigned char)v;
    look_up_all(p, table);
}

/* ---- blending with a poorer picture ---------------------------------------------------------- */

/* Between poor (0) and v (1), or beyond. */
static unsigned char blend(unsigned char poor, unsigned char v, float factor)
{
    const float mixed = (float)poor + factor * (float)(v - poor);
    return (unsigned char)(mixed <= 0.0f ? 0.0f : mixed >= 255.0f ? 255.0f : mixed);
}

static void blend_all(cv_picture *p, unsigned char poor, double factor)
{
    unsigned char table[256];
    for (size_t v = 0; v < 256; v++)
        table[v] = blend(poor, (unsigned char)v, (float)factor);
    look_up_all(p, table);
}

/* How bright a pixel is, by ITU-R 601, in 16 bits of fraction. */
static unsigned char grey_of(const unsigned char *rgb)
{
    return (unsigned char)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

void cv_op_color(cv_picture *p, double factor)
{
    unsigned char *at = p->pixels;
    for (size_t i = 0; i < n_pixels(p); i++, at += 3) {
        const unsigned char grey = grey_of(at);
        for (size_t c = 0; c < 3; c++)
            at[c] = blend(grey, at[c], (float)factor);
    }
}

void cv_op_contrast(cv_picture *p, double factor)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n_pixels(p); i++)
        sum += grey_of(p->pixels + 3 * i);
    blend_all(p, (unsigned char)((double)sum / (double)n_pixels(p) + 0.5), factor);
}

void cv_op_brightness(cv_picture *p, double factor)
{
    blend_all(p, 0, factor);
}

/* The mean of a pixel and its eight neighbours, itself five times. */
static unsigned char smoothed(const unsigned char *at, size_t stride)
{
    const unsigned char *above = at - stride, *below = at + stride;
    const int sum = above[-3] + above[0] + above[3] + at[-3] + 5 * at[0] + at[3] + below[-3] +
                    below[0] + below[3];
    return (unsigned char)((2 * sum + 13) / 26);
}

/* The border has no smooth form, and stays. */
void cv_op_sharpness(const cv_picture *in, double factor, cv_picture *out)
{
    const size_t stride = 3 * in->width;
    memcpy(out->pixels, in->pixels, stride * in->height);
    for (size_t y = 1; y + 1 < in->height; y++)
        for (size_t i = y * stride + 3; i + 3 < (y + 1) * stride; i++)
            out->pixels[i] = blend(smoothed(in->pixels + i, stride), in->pixels[i], (float)factor);
}

/* ---- strengths ------------------------------------------------------------------------------- */

/* At level 0 and 10, and whether it goes in either direction. */
static const struct strength {
    double at_none, at_full;
    bool either_way;
} STRENGTHS[CV_OPS] = {
    [CV_OP_ROTATE] = { 0.0, 30.0, true },      [CV_OP_POSTERIZE] = { 4.0, 0.0, false },
    [CV_OP_SOLARIZE] = { 256.0, 0.0, false },  [CV_OP_SOLARIZE_ADD] = { 0.0, 110.0, false },
    [CV_OP_COLOR] = { 0.0, 0.9, true },        [CV_OP_CONTRAST] = { 0.0, 0.9, true },
    [CV_OP_BRIGHTNESS] = { 0.0, 0.9, true },   [CV_OP_SHARPNESS] = { 0.0, 0.9, true },
    [CV_OP_SHEAR_X] = { 0.0, 0.3, true },      [CV_OP_SHEAR_Y] = { 0.0, 0.3, true },
    [CV_OP_TRANSLATE_X] = { 0.0, 0.45, true }, [CV_OP_TRANSLATE_Y] = { 0.0, 0.45, true },
};

double cv_op_magnitude(cv_random_op op, double level)
{
    const struct strength *s = &STRENGTHS[op];
    level = level < 0.0 ? 0.0 : level > LEVELS ? LEVELS : level;
    return level / LEVELS * (s->at_full - s->at_none) + s->at_none;
}

static void exchange(cv_picture *p, cv_picture *spare)
{
    unsigned char *const pixels = p->pixels;
    p->pixels = spare->pixels;
    spare->pixels = pixels;
}

static void move(const cv_warp warp, const unsigned char fill[3], cv_picture *p, cv_picture *spare)
{
    cv_op_warp(p, &warp, fill, spare);
    exchange(p, spare);
}

void cv_op_apply(cv_random_op op, double m, const unsigned char fill[3], cv_picture *p,
                 cv_picture *spare)
{
    switch (op) {
    case CV_OP_AUTO_CONTRAST: cv_op_auto_contrast(p); break;
    case CV_OP_EQUALIZE: cv_op_equalize(p); break;
    case CV_OP_INVERT: cv_op_invert(p); break;
    case CV_OP_ROTATE: move(cv_warp_rotate(p->width, p->height, m), fill, p, spare); break;
    case CV_OP_POSTERIZE: cv_op_posterize(p, (int)ceil(m)); break;
    case CV_OP_SOLARIZE: cv_op_solarize(p, m); break;
    case CV_OP_SOLARIZE_ADD: cv_op_solarize_add(p, m); break;
    case CV_OP_COLOR: cv_op_color(p, 1.0 + m); break;
    case CV_OP_CONTRAST: cv_op_contrast(p, 1.0 + m); break;
    case CV_OP_BRIGHTNESS: cv_op_brightness(p, 1.0 + m); break;
    case CV_OP_SHARPNESS:
        cv_op_sharpness(p, 1.0 + m, spare);
        exchange(p, spare);
        break;
    case CV_OP_SHEAR_X: move(cv_warp_shear(m, 0.0), fill, p, spare); break;
    case CV_OP_SHEAR_Y: move(cv_warp_shear(0.0, m), fill, p, spare); break;
    case CV_OP_TRANSLATE_X:
        move(cv_warp_translate(m * (double)p->width, 0.0), fill, p, spare);
        break;
    case CV_OP_TRANSLATE_Y:
        move(cv_warp_translate(0.0, m * (double)p->height), fill, p, spare);
        break;
    case CV_OPS: break;
    }
}

/* ---- drawing --------------------------------------------------------------------------------- */

/* The k-th operation of a mask. */
static cv_random_op op_of(unsigned mask, size_t k)
{
    int op = 0;
    for (;; op++)
        if ((mask >> op & 1u) && k-- == 0) return (cv_random_op)op;
}

void cv_op_random(const cv_augment *how, cv_rng *rng, cv_picture *p, cv_picture *spare)
{
    const size_t n = (size_t)__builtin_popcount(how->mask & CV_OPS_ALL);
    for (size_t i = 0; i < how->ops && n > 0; i++) {
        const cv_random_op op = op_of(how->mask, (size_t)(cv_rng_uniform(rng) * (double)n));
        const double level = how->level + how->level_spread * (double)cv_rng_normal(rng);
        const bool done = cv_rng_uniform(rng) < how->op, negative = cv_rng_uniform(rng) < 0.5;
        const double m = cv_op_magnitude(op, level);
        if (done)
            cv_op_apply(op, negative && STRENGTHS[op].either_way ? -m : m, how->fill, p, spare);
    }
}
