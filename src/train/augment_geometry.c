/* augment_geometry.c - rotating, shearing and moving a picture: every pixel of the result is
 * interpolated where it comes from.
 *
 * Bicubic with a = -3/4, as the official recipe's warp has; the sums are in double and rounded
 * once.  Pixels are points at whole numbers.  Resizing is not here: image/resize.c does that. */
#include <math.h>

#include "train/augment_ops.h"

#define A (-0.75)

/* ---- where pixels come from ------------------------------------------------------------------ */

cv_warp cv_warp_rotate(size_t width, size_t height, double degrees)
{
    const double turn = degrees * (3.14159265358979323846 / 180.0), c = cos(turn), s = sin(turn);
    const double x = 0.5 * ((double)width - 1.0), y = 0.5 * ((double)height - 1.0);
    return (cv_warp){
        .xx = c, .xy = s, .x0 = x - c * x - s * y, .yx = -s, .yy = c, .y0 = y + s * x - c * y
    };
}

cv_warp cv_warp_shear(double x, double y)
{
    return (cv_warp){ .xx = 1.0, .xy = -x, .yx = -y, .yy = 1.0 };
}

cv_warp cv_warp_translate(double x, double y)
{
    return (cv_warp){ .xx = 1.0, .x0 = -x, .yy = 1.0, .y0 = -y };
}

/* ---- interpolating --------------------------------------------------------------------------- */

/* The weights of the pixels at -1, 0, 1, 2 for a point at t in [0, 1). */
static void cubic_weights(double t, double w[4])
{
    const double u = 1.0 - t;
    w[0] = A * t * u * u;
    w[1] = ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    w[2] = ((A + 2.0) * u - (A + 3.0)) * u * u + 1.0;
    w[3] = A * u * t * t;
}

static unsigned char rounded(double v)
{
    v += 0.5;
    return (unsigned char)(v <= 0.0 ? 0.0 : v >= 255.0 ? 255.0 : v);
}

/* A point all of whose 16 pixels are inside; at: the first of them. */
static void inner_pixel(const unsigned char *at, size_t stride, const double wx[4],
                        const double wy[4], unsigned char out[3])
{
    double sum[3] = { 0.0 };
    for (size_t j = 0; j < 4; j++, at += stride)
        for (size_t c = 0; c < 3; c++)
            sum[c] +=
                wy[j] * (wx[0] * at[c] + wx[1] * at[3 + c] + wx[2] * at[6 + c] + wx[3] * at[9 + c]);
    for (size_t c = 0; c < 3; c++)
        out[c] = rounded(sum[c]);
}

/* Any point; (x, y) is the pixel at weight 1.  What is outside is of the fill colour. */
static void outer_pixel(const cv_picture *in, double x, double y, const double wx[4],
                        const double wy[4], const unsigned char fill[3], unsigned char out[3])
{
    double sum[3] = { 0.0 };
    for (size_t j = 0; j < 4; j++)
        for (size_t i = 0; i < 4; i++) {
            const double px = x - 1.0 + (double)i, py = y - 1.0 + (double)j;
            const bool inside =
                px >= 0.0 && py >= 0.0 && px < (double)in->width && py < (double)in->height;
            const unsigned char *from =
                inside ? in->pixels + 3 * ((size_t)py * in->width + (size_t)px) : fill;
            for (size_t c = 0; c < 3; c++)
                sum[c] += wx[i] * wy[j] * from[c];
        }
    for (size_t c = 0; c < 3; c++)
        out[c] = rounded(sum[c]);
}

void cv_op_warp(const cv_picture *in, const cv_warp *warp, const unsigned char fill[3],
                cv_picture *out)
{
    const double most_x = (double)in->width - 3.0, most_y = (double)in->height - 3.0;
    unsigned char *to = out->pixels;
    double wx[4], wy[4];
    for (size_t row = 0; row < in->height; row++)
        for (size_t column = 0; column < in->width; column++, to += 3) {
            const double x = warp->xx * (double)column + warp->xy * (double)row + warp->x0;
            const double y = warp->yx * (double)column + warp->yy * (double)row + warp->y0;
            const double left = floor(x), top = floor(y);
            cubic_weights(x - left, wx);
            cubic_weights(y - top, wy);
            if (left >= 1.0 && top >= 1.0 && left <= most_x && top <= most_y)
                inner_pixel(in->pixels + 3 * (((size_t)top - 1) * in->width + (size_t)left - 1),
                            3 * in->width, wx, wy, to);
            else
                outer_pixel(in, left, top, wx, wy, fill, to);
        }
}
