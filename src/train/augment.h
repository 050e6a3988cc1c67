/* augment.h - what chance does to pictures before a model learns from them.
 *
 * Each picture is cut, mirrored, changed by RandAugment and partly erased, on its 8-bit pixels;
 * then the pictures of a batch may be mixed in pairs, on their normalised values.  Everything
 * follows from a key, so a batch is the same whoever makes it and whenever. */
#ifndef CV_AUGMENT_H
#define CV_AUGMENT_H

#include "base/rng.h"
#include "image/picture.h"

typedef enum cv_crop {
    CV_CROP_MIDDLE,  /* as for validation: cv_augment_middle */
    CV_CROP_RESIZED, /* a part of any size and proportions, resized */
    CV_CROP_PADDED   /* the middle, with a border around it, cut anywhere */
} cv_crop;

/* The operations of RandAugment, as bits of a mask. */
typedef enum cv_random_op {
    CV_OP_AUTO_CONTRAST,
    CV_OP_EQUALIZE,
    CV_OP_INVERT,
    CV_OP_ROTATE,
    CV_OP_POSTERIZE,
    CV_OP_SOLARIZE,
    CV_OP_SOLARIZE_ADD,
    CV_OP_COLOR,
    CV_OP_CONTRAST,
    CV_OP_BRIGHTNESS,
    CV_OP_SHARPNESS,
    CV_OP_SHEAR_X,
    CV_OP_SHEAR_Y,
    CV_OP_TRANSLATE_X,
    CV_OP_TRANSLATE_Y,
    CV_OPS
} cv_random_op;

#define CV_OPS_ALL ((1u << CV_OPS) - 1)

/* Probabilities are 0 to 1; ranges are { least, most }.  Zeros: nothing happens. */
typedef struct cv_augment {
    cv_crop crop;
    double area[2], ratio[2]; /* resized: of the area; width / height, by its logarithm */
    size_t tries;             /* before a part in the middle is taken */
    size_t padding;           /* padded: pixels on each side, */
    bool reflect;             /* which mirror those inside, or else are `fill` */
    double flip;              /* left becomes right */

    size_t ops;           /* RandAugment: drawn for each picture, with replacement, */
    double op;            /* each done with this probability */
    double level;         /* of their strength, 0 to 10: the mean */
    double level_spread;  /* and the deviation */
    unsigned mask;        /* which are drawn: bits 1 << CV_OP_... */
    unsigned char fill[3]; /* red, green, blue: where there is no picture */

    double erase; /* a rectangle */
    double erase_area[2], erase_ratio[2];
    bool erase_noise; /* with noise of the data's mean and deviation, else with the mean */

    double mixup, cutmix; /* of a batch; together at most 1 */
    double mixup_alpha, cutmix_alpha;
} cv_augment;

/* The recipe of VRWKV-S, B and VRWKV6-S, B on ImageNet.  The T models have mixup = cutmix = 0. */
cv_augment cv_augment_imagenet(void);

/* For small pictures such as CIFAR's: cut with a border of 4, mirrored.  Digits and letters need
 * flip = 0. */
cv_augment cv_augment_small(void);

/* CORVID_E_ARGUMENT with the field that is out of range. */
corvid_status cv_augment_check(const cv_augment *how, corvid_error *err);

/* A key for thing `index` of a step. */
uint64_t cv_augment_key(uint64_t seed, uint64_t step, uint64_t index);

/* Without chance: the middle of an upright picture, side x side, as `corvid classify` takes it. */
cv_framing cv_augment_middle(size_t side);

/* An upright picture to one of side x side.  mean and std are of 8-bit values. */
corvid_status cv_augment_picture(const corvid_allocator *mem, const cv_augment *how,
                                 const cv_picture *in, size_t side, const double mean[3],
                                 const double std[3], uint64_t key, cv_picture *out,
                                 corvid_error *err);

/* ---- mixing (augment_mix.c) ------------------------------------------------------------------ */

typedef enum cv_mix_kind { CV_MIX_NONE, CV_MIX_UP, CV_MIX_CUT } cv_mix_kind;

/* Picture j keeps `share` of itself, the rest is of picture n - 1 - j. */
typedef struct cv_mixture {
    cv_mix_kind kind;
    float share;
    size_t x0, y0, x1, y1; /* cut: the box [x0, x1) x [y0, y1) that is exchanged */
} cv_mixture;

/* How a batch is mixed.  The share of a box is what it leaves, after it was clipped. */
cv_mixture cv_mix_of(const cv_augment *how, size_t side, uint64_t key);

/* Mixes values [n][3][side][side] in place. */
void cv_mix_values(const cv_mixture *mix, size_t n, size_t side, float *values);

double cv_rng_gamma(cv_rng *rng, double shape);       /* mean `shape`, scale 1 */
double cv_rng_beta(cv_rng *rng, double a, double b);  /* in [0, 1] */

#endif
