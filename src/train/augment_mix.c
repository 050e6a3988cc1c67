/* augment_mix.c - mixup and cutmix: the pictures of a batch mixed in pairs, and how much of each.
 *
 * A batch is in random order, so picture j may as well be mixed with picture n - 1 - j as with any
 * other; this way it is done in place. */
#include <math.h>

#include "train/augment.h"

/* ---- chance ---------------------------------------------------------------------------------- */

/* Marsaglia and Tsang's way for shapes of at least 1; smaller ones by one more and a power of a
 * uniform number. */
double cv_rng_gamma(cv_rng *rng, double shape)
{
    if (shape < 1.0) {
        const double u = 1.0 - cv_rng_uniform(rng); /* (0, 1] */
        return cv_rng_gamma(rng, shape + 1.0) * pow(u, 1.0 / shape);
    }
    const double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        const double x = (double)cv_rng_normal(rng), root = 1.0 + c * x, v = root * root * root;
        const double u = 1.0 - cv_rng_uniform(rng);
        if (root > 0.0 && log(u) < 0.5 * x * x + d * (1.0 - v + log(v))) return d * v;
    }
}

double cv_rng_beta(cv_rng *rng, double a, double b)
{
    const double x = cv_rng_gamma(rng, a), y = cv_rng_gamma(rng, b);
    if (x + y > 0.0) return x / (x + y);
    return cv_rng_uniform(rng) * (a + b) < a ? 1.0
                                             : 0.0; /* both underflowed: all mass is at the ends */
}

/* ---- how ------------------------------------------------------------------------------------- */

/* Around `centre`, `length` wide, clipped to the side. */
static void clip(size_t side, size_t centre, size_t length, size_t *from, size_t *to)
{
    const size_t half = length / 2;
    *from = centre > half ? centre - half : 0;
    *to = centre + half < side ? centre + half : side;
}

static cv_mixture cut_of(double kept, size_t side, cv_rng *rng)
{
    cv_mixture mix = { .kind = CV_MIX_CUT };
    const size_t length = (size_t)((double)side * sqrt(1.0 - kept));
    const size_t x = (size_t)(cv_rng_uniform(rng) * (double)side);
    const size_t y = (size_t)(cv_rng_uniform(rng) * (double)side);
    clip(side, x, length, &mix.x0, &mix.x1);
    clip(side, y, length, &mix.y0, &mix.y1);
    const double area = (double)(mix.x1 - mix.x0) * (double)(mix.y1 - mix.y0);
    mix.share = (float)(1.0 - area / ((double)side * (double)side));
    return mix;
}

cv_mixture cv_mix_of(const cv_augment *how, size_t side, uint64_t key)
{
    cv_rng rng;
    cv_rng_seed(&rng, key);
    const double u = cv_rng_uniform(&rng);
    if (u < how->mixup)
        return (cv_mixture){ .kind = CV_MIX_UP,
                             .share =
                                 (float)cv_rng_beta(&rng, how->mixup_alpha, how->mixup_alpha) };
    if (u < how->mixup + how->cutmix)
        return cut_of(cv_rng_beta(&rng, how->cutmix_alpha, how->cutmix_alpha), side, &rng);
    return (cv_mixture){ .kind = CV_MIX_NONE, .share = 1.0f };
}

/* ---- doing it -------------------------------------------------------------------------------- */

static void mix_pair(float share, size_t n, float *a, float *b)
{
    for (size_t i = 0; i < n; i++) {
        const float x = a[i], y = b[i];
        a[i] = share * x + (1.0f - share) * y;
        b[i] = share * y + (1.0f - share) * x;
    }
}

static void exchange_box(const cv_mixture *mix, size_t side, float *a, float *b)
{
    for (size_t c = 0; c < 3; c++)
        for (size_t y = mix->y0; y < mix->y1; y++)
            for (size_t x = mix->x0; x < mix->x1; x++) {
                const size_t i = (c * side + y) * side + x;
                const float was = a[i];
                a[i] = b[i];
                b[i] = was;
            }
}

void cv_mix_values(const cv_mixture *mix, size_t n, size_t side, float *values)
{
    const size_t size = 3 * side * side;
    for (size_t j = 0; j < n / 2; j++) {
        float *a = values + j * size, *b = values + (n - 1 - j) * size;
        if (mix->kind == CV_MIX_UP) mix_pair(mix->share, size, a, b);
        if (mix->kind == CV_MIX_CUT) exchange_box(mix, side, a, b);
    }
}
