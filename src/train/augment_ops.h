/* augment_ops.h - the operations of RandAugment, each on a picture in place or from one to another.
 *
 * Those on pixels give what Pillow's ImageOps and ImageEnhance give.  The moving ones follow
 * OpenCV's warp: bicubic with a = -3/4, where what lies outside has the fill colour and is weighted
 * in. */
#ifndef CV_AUGMENT_OPS_H
#define CV_AUGMENT_OPS_H

#include "train/augment.h"

void cv_op_auto_contrast(cv_picture *p);
void cv_op_equalize(cv_picture *p);
void cv_op_invert(cv_picture *p);
void cv_op_posterize(cv_picture *p, int bits);                /* keeps so many, 0 to 8 */
void cv_op_solarize(cv_picture *p, double threshold);         /* inverts from there on */
void cv_op_solarize_add(cv_picture *p, double amount);        /* to values below 128 */
void cv_op_color(cv_picture *p, double factor);               /* 0: grey, 1: as it is */
void cv_op_contrast(cv_picture *p, double factor);            /* 0: its mean grey */
void cv_op_brightness(cv_picture *p, double factor);          /* 0: black */
void cv_op_sharpness(const cv_picture *in, double factor, cv_picture *out); /* 0: smooth */

/* Where pixel (x, y) of the result comes from: (xx x + xy y + x0, yx x + yy y + y0). */
typedef struct cv_warp {
    double xx, xy, x0, yx, yy, y0;
} cv_warp;

cv_warp cv_warp_rotate(size_t width, size_t height, double degrees); /* clockwise, by its centre */
cv_warp cv_warp_shear(double x, double y); /* by the corner at the origin */
cv_warp cv_warp_translate(double x, double y);                       /* pixels */

/* out has the size of in. */
void cv_op_warp(const cv_picture *in, const cv_warp *warp, const unsigned char fill[3],
                cv_picture *out);

/* The strength of an operation at a level of 0 to 10; what has none gives 0. */
double cv_op_magnitude(cv_random_op op, double level);

/* One operation at a strength; parts of the side for translations.  `spare` is a picture of the
 * same size, which may change places with p. */
void cv_op_apply(cv_random_op op, double magnitude, const unsigned char fill[3], cv_picture *p,
                 cv_picture *spare);

/* All that RandAugment does to a picture. */
void cv_op_random(const cv_augment *how, cv_rng *rng, cv_picture *p, cv_picture *spare);

#endif
