/* augment.c - one picture cut, mirrored, changed and erased, as a key decides.
 *
 * RandAugment's operations are augment_ops.c, mixing pictures augment_mix.c.  The order, and
 * what is drawn, are those of the official ImageNet recipe; the generator is ours, so single
 * pictures are not. */
#include "train/augment.h"

#include <math.h>
#include <string.h>

#include "train/augment_ops.h"

/* More than any framing here makes; the sides have been checked. */
#define ANY_PIXELS UINT64_MAX

#define SIDE_MAX 4096

/* ---- recipes --------------------------------------------------------------------------------- */

cv_augment cv_augment_imagenet(void)
{
    return (cv_augment){ .crop = CV_CROP_RESIZED,
                         .area = { 0.08, 1.0 },
                         .ratio = { 3.0 / 4.0, 4.0 / 3.0 },
                         .tries = 10,
                         .flip = 0.5,
                         .ops = 2,
                         .op = 0.5,
                         .level = 9.0,
                         .level_spread = 0.5,
                         .mask = CV_OPS_ALL,
                         .fill = { 124, 116, 104 },
                         .erase = 0.25,
                         .erase_area = { 0.02, 1.0 / 3.0 },
                         .erase_ratio = { 3.0 / 10.0, 10.0 / 3.0 },
                         .erase_noise = true,
                         .mixup = 0.5,
                         .cutmix = 0.5,
                         .mixup_alpha = 0.8,
                         .cutmix_alpha = 1.0 };
}

cv_augment cv_augment_small(void)
{
    return (cv_augment){ .crop = CV_CROP_PADDED, .padding = 4, .flip = 0.5 };
}

static bool within(double v, double low, double high)
{
    return v >= low && v <= high;
}

static bool is_range(const double range[2], double low, double high)
{
    return within(range[0], low, high) && within(range[1], range[0], high);
}

corvid_status cv_augment_check(const cv_augment *how, corvid_error *err)
{
    const char *wrong = NULL;
    if (how->crop == CV_CROP_RESIZED && !(how->area[0] > 0.0 && is_range(how->area, 0.0, 1.0)))
        wrong = "the areas of a crop, expected 0 < least <= most <= 1";
    else if (how->crop == CV_CROP_RESIZED && !is_range(how->ratio, 0.01, 100.0))
        wrong = "the proportions of a crop, expected 0.01 <= least <= most <= 100";
    else if (how->crop == CV_CROP_PADDED && how->padding > SIDE_MAX)
        wrong = "the padding, expected at most 4096 pixels";
    else if (!within(how->flip, 0.0, 1.0) || !within(how->op, 0.0, 1.0) ||
             !within(how->erase, 0.0, 1.0))
        wrong = "the probability of flips, operations or erasing, expected 0 to 1";
    else if (how->ops > 0 && (!within(how->level, 0.0, 10.0) || how->ops > 100 ||
                              !within(how->level_spread, 0.0, 10.0)))
        wrong = "RandAugment, expected at most 100 operations of a level of 0 to 10";
    else if (how->erase > 0.0 &&
             (!is_range(how->erase_area, 0.0, 1.0) || !is_range(how->erase_ratio, 0.01, 100.0)))
        wrong = "erasing, expected areas of 0 to 1 and proportions of 0.01 to 100";
    else if (!within(how->mixup, 0.0, 1.0) || !within(how->cutmix, 0.0, 1.0) ||
             how->mixup + how->cutmix > 1.0)
        wrong = "the probabilities of mixup and cutmix, expected 0 to 1, together as well";
    else if ((how->mixup > 0.0 && !within(how->mixup_alpha, 0.01, 100.0)) ||
             (how->cutmix > 0.0 && !within(how->cutmix_alpha, 0.01, 100.0)))
        wrong = "alpha of mixup or cutmix, expected 0.01 to 100";
    if (!wrong) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT, "augmentation: out of range: %s", wrong);
}

/* Spreads x over all bits (the finish of splitmix64). */
static uint64_t spread(uint64_t x)
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

uint64_t cv_augment_key(uint64_t seed, uint64_t step, uint64_t index)
{
    return spread(spread(spread(seed) ^ step) ^ index);
}

/* ---- cutting --------------------------------------------------------------------------------- */

cv_framing cv_augment_middle(size_t side)
{
    return (cv_framing){ .resize = cv_middle_side(side), .crop_width = side, .crop_height = side };
}

static corvid_status cut_middle(const corvid_allocator *mem, const cv_picture *in, size_t side,
                                cv_picture *out, corvid_error *err)
{
    const cv_framing middle = cv_augment_middle(side);
    return cv_picture_frame(mem, in, &middle, ANY_PIXELS, out, err);
}

/* Up to n - 1. */
static size_t draw(cv_rng *rng, size_t n)
{
    return (size_t)(cv_rng_uniform(rng) * (double)n);
}

static double between(cv_rng *rng, const double range[2])
{
    return range[0] + (range[1] - range[0]) * cv_rng_uniform(rng);
}

/* Proportions are drawn by their logarithm, so that 2 : 1 is as likely as 1 : 2. */
static double proportion(cv_rng *rng, const double range[2])
{
    const double logs[2] = { log(range[0]), log(range[1]) };
    return exp(between(rng, logs));
}

typedef struct box {
    size_t x, y, width, height;
} box;

/* The largest part in the middle whose proportions are allowed. */
static box middle_box(const cv_augment *how, const cv_picture *in)
{
    const double w = (double)in->width, h = (double)in->height;
    box b = { .width = in->width, .height = in->height };
    if (w / h < how->ratio[0]) b.height = (size_t)rint(w / how->ratio[0]);
    if (w / h > how->ratio[1]) b.width = (size_t)rint(h * how->ratio[1]);
    if (b.height < 1 || b.height > in->height) b.height = in->height;
    if (b.width < 1 || b.width > in->width) b.width = in->width;
    b.x = (in->width - b.width) / 2;
    b.y = (in->height - b.height) / 2;
    return b;
}

static box draw_box(const cv_augment *how, const cv_picture *in, cv_rng *rng)
{
    for (size_t i = 0; i < how->tries; i++) {
        const double area = between(rng, how->area) * (double)in->width * (double)in->height;
        const double ratio = proportion(rng, how->ratio);
        const double w = rint(sqrt(area * ratio)), h = rint(sqrt(area / ratio));
        if (w < 1.0 || h < 1.0 || w > (double)in->width || h > (double)in->height) continue;
        box b = { .width = (size_t)w, .height = (size_t)h };
        b.y = draw(rng, in->height - b.height + 1);
        b.x = draw(rng, in->width - b.width + 1);
        return b;
    }
    return middle_box(how, in);
}

static corvid_status cut_resized(const corvid_allocator *mem, const cv_augment *how,
                                 const cv_picture *in, size_t side, cv_rng *rng, cv_picture *out,
                                 corvid_error *err)
{
    const box b = draw_box(how, in, rng);
    const cv_resize to = { .width = side, .height = side, .part_width = side, .part_height = side };
    cv_picture part;
    CV_TRY(cv_picture_new(mem, b.width, b.height, &part, err));
    for (size_t y = 0; y < b.height; y++)
        memcpy(part.pixels + 3 * y * b.width, in->pixels + 3 * ((b.y + y) * in->width + b.x),
               3 * b.width);
    const corvid_status status = cv_picture_resize(mem, &part, &to, out, err);
    cv_picture_free(&part);
    return status;
}

/* at - padding as a place in 0..n-1, mirrored at the first and last pixel; n: outside. */
static size_t inside(size_t at, size_t padding, size_t n, bool reflect)
{
    if (at >= padding && at - padding < n) return at - padding;
    if (!reflect) return n;
    const size_t period = n > 1 ? 2 * (n - 1) : 1;
    const size_t away = (at + period * (padding / period + 1) - padding) % period;
    return away < n ? away : period - away;
}

static void shift_picture(const cv_augment *how, const cv_picture *in, size_t x, size_t y,
                          cv_picture *out)
{
    const size_t side = in->width;
    unsigned char *to = out->pixels;
    for (size_t row = 0; row < side; row++)
        for (size_t column = 0; column < side; column++, to += 3) {
            const size_t from_y = inside(row + y, how->padding, side, how->reflect);
            const size_t from_x = inside(column + x, how->padding, side, how->reflect);
            const bool there = from_x < side && from_y < side;
            memcpy(to, there ? in->pixels + 3 * (from_y * side + from_x) : how->fill, 3);
        }
}

static corvid_status cut_padded(const corvid_allocator *mem, const cv_augment *how,
                                const cv_picture *in, size_t side, cv_rng *rng, cv_picture *out,
                                corvid_error *err)
{
    cv_picture middle;
    const size_t y = draw(rng, 2 * how->padding + 1), x = draw(rng, 2 * how->padding + 1);
    CV_TRY(cut_middle(mem, in, side, &middle, err));
    const corvid_status status = cv_picture_new(mem, side, side, out, err);
    if (status == CORVID_OK) shift_picture(how, &middle, x, y, out);
    cv_picture_free(&middle);
    return status;
}

static corvid_status cut(const corvid_allocator *mem, const cv_augment *how, const cv_picture *in,
                         size_t side, cv_rng *rng, cv_picture *out, corvid_error *err)
{
    switch (how->crop) {
    case CV_CROP_RESIZED: return cut_resized(mem, how, in, side, rng, out, err);
    case CV_CROP_PADDED: return cut_padded(mem, how, in, side, rng, out, err);
    case CV_CROP_MIDDLE: break;
    }
    return cut_middle(mem, in, side, out, err);
}

/* ---- mirroring and erasing ------------------------------------------------------------------- */

static void mirror(cv_picture *p)
{
    for (size_t y = 0; y < p->height; y++) {
        unsigned char *left = p->pixels + 3 * y * p->width, *right = left + 3 * (p->width - 1);
        for (; left < right; left += 3, right -= 3)
            for (size_t c = 0; c < 3; c++) {
                const unsigned char was = left[c];
                left[c] = right[c];
                right[c] = was;
            }
    }
}

static unsigned char byte_of(double v)
{
    return (unsigned char)(v <= 0.0 ? 0.0 : v >= 255.0 ? 255.0 : v);
}

static size_t erased_length(double length, size_t side)
{
    const double rounded = rint(length);
    return rounded < (double)side ? (size_t)rounded : side;
}

static void erase(const cv_augment *how, const double mean[3], const double std[3], cv_rng *rng,
                  cv_picture *p)
{
    const double ratio = proportion(rng, how->erase_ratio);
    const double area = between(rng, how->erase_area) * (double)p->width * (double)p->height;
    const size_t height = erased_length(sqrt(area * ratio), p->height);
    const size_t width = erased_length(sqrt(area / ratio), p->width);
    const size_t top = draw(rng, p->height - height + 1), left = draw(rng, p->width - width + 1);
    for (size_t y = top; y < top + height; y++)
        for (size_t x = left; x < left + width; x++)
            for (size_t c = 0; c < 3; c++) {
                const double noise = how->erase_noise ? (double)cv_rng_normal(rng) : 0.0;
                p->pixels[3 * (y * p->width + x) + c] = byte_of(mean[c] + std[c] * noise);
            }
}

/* ---- all of it ------------------------------------------------------------------------------- */

static corvid_status change(const corvid_allocator *mem, const cv_augment *how, cv_rng *rng,
                            cv_picture *p, corvid_error *err)
{
    cv_picture spare;
    CV_TRY(cv_picture_new(mem, p->width, p->height, &spare, err));
    cv_op_random(how, rng, p, &spare);
    cv_picture_free(&spare);
    return CORVID_OK;
}

corvid_status cv_augment_picture(const corvid_allocator *mem, const cv_augment *how,
                                 const cv_picture *in, size_t side, const double mean[3],
                                 const double std[3], uint64_t key, cv_picture *out,
                                 corvid_error *err)
{
    cv_rng rng;
    corvid_status status = CORVID_OK;
    cv_rng_seed(&rng, key);
    CV_TRY(cut(mem, how, in, side, &rng, out, err));
    if (cv_rng_uniform(&rng) < how->flip) mirror(out);
    if (how->ops > 0) status = change(mem, how, &rng, out, err);
    if (cv_rng_uniform(&rng) < how->erase) erase(how, mean, std, &rng, out);
    if (status != CORVID_OK) cv_picture_free(out);
    return status;
}
