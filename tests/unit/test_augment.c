/* test_augment.c - augmentation: each operation against Pillow's pixels or a slow direct form, the
 * ranges of what is drawn, and the shares of mixed pictures. */
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/augment_ops.h"

static const corvid_allocator *const mem = &cv_libc_allocator;
static const double MEAN[3] = { 123.675, 116.28, 103.53 }, STD[3] = { 58.395, 57.12, 57.375 };
static const unsigned char FILL[3] = { 124, 116, 104 };

/* ---- helpers --------------------------------------------------------------------------------- */

static cv_picture new_picture(size_t width, size_t height)
{
    cv_picture p;
    corvid_error err;
    ASSERT_OK(cv_picture_new(mem, width, height, &p, &err), &err);
    return p;
}

static cv_picture noise_picture(size_t width, size_t height, uint64_t seed)
{
    cv_picture p = new_picture(width, height);
    cv_rng rng;
    cv_rng_seed(&rng, seed);
    for (size_t i = 0; i < 3 * width * height; i++)
        p.pixels[i] = (unsigned char)(cv_rng_next(&rng) >> 40);
    return p;
}

/* Red tells the column, green the row. */
static cv_picture places_picture(size_t width, size_t height)
{
    cv_picture p = new_picture(width, height);
    for (size_t i = 0; i < width * height; i++) {
        p.pixels[3 * i] = (unsigned char)(i % width);
        p.pixels[3 * i + 1] = (unsigned char)(i / width);
        p.pixels[3 * i + 2] = 7;
    }
    return p;
}

static cv_picture augmented(const cv_augment *how, const cv_picture *in, size_t side, uint64_t key)
{
    cv_picture out;
    corvid_error err;
    ASSERT_OK(cv_augment_check(how, &err), &err);
    ASSERT_OK(cv_augment_picture(mem, how, in, side, MEAN, STD, key, &out, &err), &err);
    assert_int_equal(out.width, side);
    assert_int_equal(out.height, side);
    return out;
}

static const unsigned char *pixel(const cv_picture *p, size_t x, size_t y)
{
    return p->pixels + 3 * (y * p->width + x);
}

static void assert_same(const cv_picture *a, const cv_picture *b)
{
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_memory_equal(a->pixels, b->pixels, 3 * a->width * a->height);
}

/* ---- operations on pixels -------------------------------------------------------------------- */

enum { SMALL_WIDTH = 7, SMALL_HEIGHT = 5, SMALL = 3 * SMALL_WIDTH * SMALL_HEIGHT };

static cv_picture small_picture(void)
{
    cv_picture p = new_picture(SMALL_WIDTH, SMALL_HEIGHT);
    for (size_t i = 0; i < SMALL; i++) {
        const size_t c = i % 3, x = i / 3 % SMALL_WIDTH, y = i / 3 / SMALL_WIDTH;
        const size_t spot = (x + 2 * y) % 5 == 0 ? 90 : 0;
        p.pixels[i] =
            (unsigned char)((37 + x * x * 5 + y * 29 + c * 41 + x * y * (11 + c) + spot) % 230);
    }
    return p;
}

/* What Pillow 9.4 makes of that picture (ImageOps, ImageEnhance with 1 + strength; the addition of
 * SolarizeAdd in numpy, cut to 8 bits). */
static const struct expected {
    cv_random_op op;
    double magnitude;
    unsigned char pixels[SMALL];
} EXPECTED[] = {
    // clang-format off
    { CV_OP_AUTO_CONTRAST, 0.0,
      { 147, 206, 243, 45, 98, 141, 63, 117, 159, 93, 149, 189, 135, 194, 231, 21, 73, 117,
        255, 29, 76, 74, 129, 170, 93, 150, 191, 124, 185, 225, 0, 54, 103, 222, 0, 53, 14, 72,
        122, 93, 157, 203, 108, 166, 204, 249, 25, 75, 185, 252, 16, 241, 22, 77, 34, 97, 150, 114,
        185, 234, 39, 107, 164, 143, 202, 239, 189, 255, 17, 246, 27, 82, 40, 105, 158, 229, 17,
        79, 215, 6, 72, 45, 121, 184, 178, 239, 0, 237, 15, 67, 140, 209, 255, 114, 187, 239, 209,
        1, 69, 40, 119, 184, 159, 249, 38 } },
    { CV_OP_EQUALIZE, 0.0,
      { 127, 168, 209, 42, 83, 124, 57, 98, 139, 82, 123, 164, 117, 158, 199, 22, 63, 104,
        217, 28, 69, 66, 107, 148, 82, 124, 166, 108, 151, 194, 4, 48, 92, 190, 5, 50, 16, 62, 108,
        82, 129, 176, 95, 136, 177, 212, 25, 68, 159, 204, 19, 206, 23, 70, 33, 82, 131, 100, 151,
        202, 37, 90, 143, 124, 165, 206, 162, 206, 20, 210, 27, 74, 38, 88, 138, 196, 19, 72, 184,
        10, 66, 42, 101, 160, 153, 194, 5, 202, 17, 62, 121, 170, 219, 100, 153, 206, 179, 6, 63,
        38, 99, 160, 137, 202, 37 } },
    { CV_OP_INVERT, 0.0,
      { 128, 87, 46, 213, 172, 131, 198, 157, 116, 173, 132, 91, 138, 97, 56, 233, 192,
        151, 38, 227, 186, 189, 148, 107, 173, 131, 89, 147, 104, 61, 251, 207, 163, 65, 250, 205,
        239, 193, 147, 173, 126, 79, 160, 119, 78, 43, 230, 187, 96, 51, 236, 49, 232, 185, 222,
        173, 124, 155, 104, 53, 218, 165, 112, 131, 90, 49, 93, 49, 235, 45, 228, 181, 217, 167,
        117, 59, 236, 183, 71, 245, 189, 213, 154, 95, 102, 61, 250, 53, 238, 193, 134, 85, 36,
        155, 102, 49, 76, 249, 192, 217, 156, 95, 118, 53, 218 } },
    { CV_OP_POSTERIZE, 3.0,
      { 96, 160, 192, 32, 64, 96, 32, 96, 128, 64, 96, 160, 96, 128, 192, 0, 32, 96, 192,
        0, 64, 64, 96, 128, 64, 96, 160, 96, 128, 192, 0, 32, 64, 160, 0, 32, 0, 32, 96, 64, 128,
        160, 64, 128, 160, 192, 0, 64, 128, 192, 0, 192, 0, 64, 32, 64, 128, 96, 128, 192, 32, 64,
        128, 96, 160, 192, 160, 192, 0, 192, 0, 64, 32, 64, 128, 192, 0, 64, 160, 0, 64, 32, 96,
        160, 128, 192, 0, 192, 0, 32, 96, 160, 192, 96, 128, 192, 160, 0, 32, 32, 96, 160, 128,
        192, 32 } },
    { CV_OP_SOLARIZE, 100.0,
      { 128, 87, 46, 42, 83, 131, 57, 98, 116, 82, 132, 91, 138, 97, 56, 22, 63, 151, 38,
        28, 69, 66, 148, 107, 82, 131, 89, 147, 104, 61, 4, 48, 92, 65, 5, 50, 16, 62, 147, 82,
        126, 79, 95, 119, 78, 43, 25, 68, 96, 51, 19, 49, 23, 70, 33, 82, 124, 155, 104, 53, 37,
        90, 112, 131, 90, 49, 93, 49, 20, 45, 27, 74, 38, 88, 117, 59, 19, 72, 71, 10, 66, 42, 154,
        95, 102, 61, 5, 53, 17, 62, 134, 85, 36, 155, 102, 49, 76, 6, 63, 38, 99, 95, 118, 53, 37 }
},
    { CV_OP_SOLARIZE_ADD, 57.6,
      { 184, 168, 209, 99, 140, 181, 114, 155, 139, 139, 180, 164, 174, 158, 199, 79, 120,
        161, 217, 85, 126, 123, 164, 148, 139, 181, 166, 165, 151, 194, 61, 105, 149, 190, 62, 107,
        73, 119, 165, 139, 129, 176, 152, 136, 177, 212, 82, 125, 159, 204, 76, 206, 80, 127, 90,
        139, 131, 157, 151, 202, 94, 147, 143, 181, 165, 206, 162, 206, 77, 210, 84, 131, 95, 145,
        138, 196, 76, 129, 184, 67, 123, 99, 158, 160, 153, 194, 62, 202, 74, 119, 178, 170, 219,
        157, 153, 206, 179, 63, 120, 95, 156, 160, 137, 202, 94 } },
    { CV_OP_COLOR, 0.81,
      { 100, 174, 248, 15, 89, 163, 30, 104, 178, 55, 129, 203, 90, 164, 238, 0, 69, 143,
        255, 0, 52, 39, 113, 187, 54, 130, 206, 79, 157, 235, 0, 54, 134, 255, 0, 37, 0, 69, 152,
        51, 136, 221, 68, 142, 216, 255, 0, 53, 150, 232, 0, 255, 0, 59, 0, 89, 177, 65, 158, 250,
        2, 98, 194, 97, 171, 245, 153, 233, 0, 255, 0, 63, 4, 95, 185, 255, 0, 67, 255, 0, 64, 3,
        109, 216, 147, 221, 0, 255, 0, 49, 88, 177, 255, 65, 161, 255, 255, 0, 62, 0, 107, 218,
        115, 232, 0 } },
    { CV_OP_COLOR, -0.81,
      { 153, 161, 169, 68, 76, 84, 83, 91, 99, 108, 116, 124, 143, 151, 159, 48, 56, 64,
        113, 77, 85, 92, 100, 108, 109, 117, 125, 136, 144, 152, 33, 41, 49, 88, 53, 62, 45, 54,
        63, 112, 121, 130, 121, 129, 137, 109, 74, 82, 167, 175, 140, 106, 71, 80, 65, 74, 84, 134,
        143, 153, 71, 81, 91, 150, 158, 166, 170, 178, 143, 110, 75, 84, 71, 80, 90, 100, 66, 76,
        90, 56, 67, 80, 92, 103, 158, 166, 130, 100, 65, 74, 153, 162, 172, 134, 144, 154, 85, 52,
        63, 78, 90, 101, 158, 171, 139 } },
    { CV_OP_CONTRAST, 0.81,
      { 144, 218, 255, 0, 64, 138, 17, 91, 165, 62, 136, 210, 125, 200, 255, 0, 28, 102,
        255, 0, 39, 33, 107, 182, 62, 138, 214, 109, 187, 255, 0, 1, 80, 255, 0, 4, 0, 26, 109, 62,
        147, 232, 86, 160, 234, 255, 0, 37, 201, 255, 0, 255, 0, 40, 0, 62, 151, 95, 187, 255, 0,
        77, 172, 138, 212, 255, 207, 255, 0, 255, 0, 48, 0, 73, 163, 255, 0, 44, 247, 0, 33, 0, 96,
        203, 191, 255, 0, 255, 0, 26, 133, 221, 255, 95, 191, 255, 238, 0, 28, 0, 93, 203, 162,
        255, 0 } },
    { CV_OP_CONTRAST, -0.43,
      { 117, 141, 164, 69, 92, 116, 78, 101, 124, 92, 115, 139, 112, 135, 159, 58, 81, 104,
        169, 61, 84, 83, 106, 129, 92, 116, 140, 107, 131, 156, 47, 72, 98, 153, 48, 74, 54, 80,
        107, 92, 119, 145, 99, 123, 146, 166, 59, 84, 136, 161, 56, 163, 58, 85, 64, 92, 120, 102,
        131, 160, 66, 96, 127, 116, 139, 163, 137, 163, 56, 165, 60, 87, 67, 95, 124, 157, 56, 86,
        150, 51, 83, 69, 103, 136, 132, 156, 48, 160, 55, 80, 114, 142, 170, 102, 132, 163, 147,
        49, 81, 67, 102, 136, 123, 160, 66 } },
    { CV_OP_BRIGHTNESS, 0.77,
      { 224, 255, 255, 74, 146, 219, 100, 173, 246, 145, 217, 255, 207, 255, 255, 38, 111,
        184, 255, 49, 122, 116, 189, 255, 145, 219, 255, 191, 255, 255, 7, 84, 162, 255, 8, 88, 28,
        109, 191, 145, 228, 255, 168, 240, 255, 255, 44, 120, 255, 255, 33, 255, 40, 123, 58, 145,
        231, 177, 255, 255, 65, 159, 253, 219, 255, 255, 255, 255, 35, 255, 47, 130, 67, 155, 244,
        255, 33, 127, 255, 17, 116, 74, 178, 255, 255, 255, 8, 255, 30, 109, 214, 255, 255, 177,
        255, 255, 255, 10, 111, 67, 175, 255, 242, 255, 65 } },
    { CV_OP_BRIGHTNESS, -0.3,
      { 88, 117, 146, 29, 58, 86, 39, 68, 97, 57, 86, 114, 81, 110, 139, 15, 44, 72, 151,
        19, 48, 46, 74, 103, 57, 86, 116, 75, 105, 135, 2, 33, 64, 133, 3, 35, 11, 43, 75, 57, 90,
        123, 66, 95, 123, 148, 17, 47, 111, 142, 13, 144, 16, 49, 23, 57, 91, 70, 105, 141, 25, 63,
        100, 86, 115, 144, 113, 144, 14, 147, 18, 51, 26, 61, 96, 137, 13, 50, 128, 7, 46, 29, 70,
        112, 107, 135, 3, 141, 11, 43, 84, 119, 153, 70, 107, 144, 125, 4, 44, 26, 69, 112, 95,
        141, 25 } },
    { CV_OP_SHARPNESS, 0.9,
      { 127, 168, 209, 42, 83, 124, 57, 98, 139, 82, 123, 164, 117, 158, 199, 22, 63, 104,
        217, 28, 69, 66, 107, 148, 67, 125, 183, 109, 184, 243, 0, 16, 75, 254, 0, 3, 0, 47, 93,
        82, 129, 176, 95, 136, 177, 255, 0, 36, 176, 255, 0, 255, 0, 55, 0, 99, 148, 101, 200, 251,
        37, 90, 143, 124, 165, 206, 163, 255, 0, 243, 0, 59, 0, 89, 155, 243, 0, 40, 233, 0, 35,
        42, 101, 160, 153, 194, 5, 202, 17, 62, 121, 170, 219, 100, 153, 206, 179, 6, 63, 38, 99,
        160, 137, 202, 37 } },
    { CV_OP_SHARPNESS, -0.9,
      { 127, 168, 209, 42, 83, 124, 57, 98, 139, 82, 123, 164, 117, 158, 199, 22, 63, 104,
        217, 28, 69, 66, 107, 148, 96, 122, 148, 106, 117, 144, 67, 79, 108, 125, 51, 96, 62, 76,
        122, 82, 129, 176, 95, 136, 177, 164, 88, 99, 141, 139, 65, 156, 53, 84, 79, 64, 113, 98,
        101, 152, 37, 90, 143, 124, 165, 206, 160, 156, 66, 176, 73, 88, 100, 86, 120, 148, 50,
        103, 134, 56, 96, 42, 101, 160, 153, 194, 5, 202, 17, 62, 121, 170, 219, 100, 153, 206,
        179, 6, 63, 38, 99, 160, 137, 202, 37 } }, // clang-format on
};

static void pixel_operations_are_pillows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof EXPECTED / sizeof EXPECTED[0]; i++) {
        cv_picture p = small_picture(), spare = new_picture(SMALL_WIDTH, SMALL_HEIGHT);
        cv_op_apply(EXPECTED[i].op, EXPECTED[i].magnitude, FILL, &p, &spare);
        for (size_t k = 0; k < SMALL; k++)
            if (p.pixels[k] != EXPECTED[i].pixels[k])
                fail_msg("operation %d, strength %g: byte %zu is %d, expected %d",
                         (int)EXPECTED[i].op, EXPECTED[i].magnitude, k, p.pixels[k],
                         EXPECTED[i].pixels[k]);
        cv_picture_free(&p);
        cv_picture_free(&spare);
    }
}

/* Equalising so many pixels that a step is more than one of them, said another way: a value's place
 * is how many pixels are darker. */
static void equalize_by_counting(void **state)
{
    (void)state;
    cv_picture p = noise_picture(64, 48, 5), was = noise_picture(64, 48, 5);
    const size_t n = 64 * 48;
    for (size_t i = 0; i < 3 * n; i++) /* not even: squares */
        p.pixels[i] = was.pixels[i] = (unsigned char)(was.pixels[i] * was.pixels[i] / 300);
    cv_op_equalize(&p);
    for (size_t c = 0; c < 3; c++) {
        unsigned char most = 0;
        for (size_t i = 0; i < n; i++)
            if (was.pixels[3 * i + c] > most) most = was.pixels[3 * i + c];
        size_t n_most = 0;
        for (size_t i = 0; i < n; i++)
            n_most += was.pixels[3 * i + c] == most;
        const size_t step = (n - n_most) / 255;
        assert_true(step > 1);
        for (size_t i = 0; i < n; i += 7) {
            size_t darker = 0;
            for (size_t k = 0; k < n; k++)
                darker += was.pixels[3 * k + c] < was.pixels[3 * i + c];
            const size_t want = (darker + step / 2) / step;
            assert_int_equal(p.pixels[3 * i + c], want > 255 ? 255 : want);
        }
    }
    cv_picture_free(&p);
    cv_picture_free(&was);
}

static void one_colour_stays(void **state)
{
    (void)state;
    cv_picture p = new_picture(5, 4), was = new_picture(5, 4);
    for (size_t i = 0; i < 60; i++)
        p.pixels[i] = was.pixels[i] = (unsigned char)(i % 3 * 100 + 3);
    cv_op_auto_contrast(&p);
    cv_op_equalize(&p);
    assert_same(&p, &was);
    cv_op_posterize(&p, 8);
    cv_op_color(&p, 1.0);
    cv_op_contrast(&p, 1.0);
    cv_op_brightness(&p, 1.0);
    cv_op_solarize(&p, 256.0);
    cv_op_solarize_add(&p, 0.0);
    assert_same(&p, &was);
    cv_op_posterize(&p, 0);
    for (size_t i = 0; i < 60; i++)
        assert_int_equal(p.pixels[i], 0);
    cv_picture_free(&p);
    cv_picture_free(&was);
}

/* The grey of a pixel is its weighted mean, to the nearest. */
static void grey_by_its_definition(void **state)
{
    (void)state;
    cv_picture p = noise_picture(60, 50, 77), was = noise_picture(60, 50, 77);
    cv_op_color(&p, 0.0);
    for (size_t i = 0; i < 9000; i++) {
        const unsigned char *rgb = was.pixels + i / 3 * 3;
        const double grey = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
        assert_true(fabs(p.pixels[i] - grey) < 0.503);
    }
    cv_picture_free(&p);
    cv_picture_free(&was);
}

/* ---- moving ---------------------------------------------------------------------------------- */

/* Keys' cubic by the distance. */
static double keys(double d)
{
    const double a = -0.75;
    d = fabs(d);
    if (d <= 1.0) return (a + 2.0) * d * d * d - (a + 3.0) * d * d + 1.0;
    if (d < 2.0) return a * d * d * d - 5.0 * a * d * d + 8.0 * a * d - 4.0 * a;
    return 0.0;
}

/* Every pixel of a wide border and of the picture, weighted by its distance from (x, y). */
static double direct(const cv_picture *in, size_t c, double x, double y)
{
    double sum = 0.0;
    for (long j = (long)floor(y) - 3; j <= (long)floor(y) + 3; j++)
        for (long i = (long)floor(x) - 3; i <= (long)floor(x) + 3; i++) {
            const bool there = i >= 0 && j >= 0 && i < (long)in->width && j < (long)in->height;
            const double v = there ? pixel(in, (size_t)i, (size_t)j)[c] : FILL[c];
            sum += keys((double)i - x) * keys((double)j - y) * v;
        }
    return sum;
}

/* Where (x, y) of the result comes from, by geometry in the test's own words. */
static void origin(cv_random_op op, double m, const cv_picture *p, double *x, double *y)
{
    const double cx = ((double)p->width - 1) / 2, cy = ((double)p->height - 1) / 2;
    const double px = *x - cx, py = *y - cy, turn = m * acos(-1.0) / 180.0;
    switch (op) {
    case CV_OP_ROTATE: /* clockwise on a screen, so back against it */
        *x = cx + px * cos(-turn) - py * sin(-turn);
        *y = cy + px * sin(-turn) + py * cos(-turn);
        break;
    case CV_OP_SHEAR_X: *x -= m * *y; break;
    case CV_OP_SHEAR_Y: *y -= m * *x; break;
    case CV_OP_TRANSLATE_X: *x -= m * (double)p->width; break;
    case CV_OP_TRANSLATE_Y: *y -= m * (double)p->height; break;
    default: fail();
    }
}

static void moving_is_the_direct_form(void **state)
{
    (void)state;
    static const struct {
        cv_random_op op;
        double m;
    } cases[] = {
        { CV_OP_ROTATE, 27.0 },        { CV_OP_ROTATE, -13.37 },     { CV_OP_SHEAR_X, 0.27 },
        { CV_OP_SHEAR_X, -0.111 },     { CV_OP_SHEAR_Y, 0.3 },       { CV_OP_SHEAR_Y, -0.2 },
        { CV_OP_TRANSLATE_X, 0.123 },  { CV_OP_TRANSLATE_X, -0.45 }, { CV_OP_TRANSLATE_Y, 0.41 },
        { CV_OP_TRANSLATE_Y, -0.011 },
    };
    static const size_t sizes[][2] = { { 24, 24 }, { 17, 9 }, { 3, 31 }, { 1, 1 } };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++)
        for (size_t s = 0; s < 4; s++) {
            cv_picture in = noise_picture(sizes[s][0], sizes[s][1], k + 50 * s);
            cv_picture p = noise_picture(sizes[s][0], sizes[s][1], k + 50 * s);
            cv_picture spare = new_picture(sizes[s][0], sizes[s][1]);
            cv_op_apply(cases[k].op, cases[k].m, FILL, &p, &spare);
            for (size_t i = 0; i < p.width * p.height; i++)
                for (size_t c = 0; c < 3; c++) {
                    double x = (double)(i % p.width), y = (double)(i / p.width);
                    origin(cases[k].op, cases[k].m, &p, &x, &y);
                    double want = direct(&in, c, x, y);
                    want = want < 0.0 ? 0.0 : want > 255.0 ? 255.0 : want;
                    /* rounded to the nearest, a half either way */
                    if (fabs(p.pixels[3 * i + c] - want) > 0.5 + 1e-9)
                        fail_msg("case %zu, pixel %zu: %d, expected %g", k, i, p.pixels[3 * i + c],
                                 want);
                }
            cv_picture_free(&in);
            cv_picture_free(&p);
            cv_picture_free(&spare);
        }
}

static void whole_steps_move_pixels(void **state)
{
    (void)state;
    cv_picture in = noise_picture(9, 9, 3), out = new_picture(9, 9);
    const cv_warp right = cv_warp_translate(2.0, 0.0), up = cv_warp_translate(0.0, -3.0);
    cv_op_warp(&in, &right, FILL, &out);
    for (size_t y = 0; y < 9; y++)
        for (size_t x = 0; x < 9; x++)
            assert_memory_equal(pixel(&out, x, y), x < 2 ? FILL : pixel(&in, x - 2, y), 3);
    cv_op_warp(&in, &up, FILL, &out);
    for (size_t y = 0; y < 9; y++)
        for (size_t x = 0; x < 9; x++)
            assert_memory_equal(pixel(&out, x, y), y > 5 ? FILL : pixel(&in, x, y + 3), 3);
    const cv_warp quarter = cv_warp_rotate(9, 9, 90.0); /* the left column becomes the top row */
    cv_op_warp(&in, &quarter, FILL, &out);
    for (size_t y = 0; y < 9; y++)
        for (size_t x = 0; x < 9; x++)
            assert_memory_equal(pixel(&out, x, y), pixel(&in, y, 8 - x), 3);
    cv_picture_free(&in);
    cv_picture_free(&out);
}

static void strengths_are_the_tables(void **state)
{
    (void)state;
    static const struct {
        cv_random_op op;
        double none, nine, full;
    } rows[] = {
        { CV_OP_ROTATE, 0, 27, 30 },           { CV_OP_POSTERIZE, 4, 0.4, 0 },
        { CV_OP_SOLARIZE, 256, 25.6, 0 },      { CV_OP_SOLARIZE_ADD, 0, 99, 110 },
        { CV_OP_COLOR, 0, 0.81, 0.9 },         { CV_OP_CONTRAST, 0, 0.81, 0.9 },
        { CV_OP_BRIGHTNESS, 0, 0.81, 0.9 },    { CV_OP_SHARPNESS, 0, 0.81, 0.9 },
        { CV_OP_SHEAR_X, 0, 0.27, 0.3 },       { CV_OP_SHEAR_Y, 0, 0.27, 0.3 },
        { CV_OP_TRANSLATE_X, 0, 0.405, 0.45 }, { CV_OP_TRANSLATE_Y, 0, 0.405, 0.45 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_true(fabs(cv_op_magnitude(rows[i].op, 0.0) - rows[i].none) < 1e-9);
        assert_true(fabs(cv_op_magnitude(rows[i].op, 9.0) - rows[i].nine) < 1e-9);
        assert_true(fabs(cv_op_magnitude(rows[i].op, 10.0) - rows[i].full) < 1e-9);
        assert_true(fabs(cv_op_magnitude(rows[i].op, 11.5) - rows[i].full) < 1e-9);
        assert_true(fabs(cv_op_magnitude(rows[i].op, -1.0) - rows[i].none) < 1e-9);
    }
}

/* Four operations that are told apart by what they make of a 100, each drawn as often, half of them
 * done. */
static void operations_are_drawn_evenly(void **state)
{
    (void)state;
    cv_augment how = { .ops = 1, .op = 1.0, .level = 5.0, .mask = 1u << CV_OP_INVERT };
    cv_picture p = small_picture(), was = small_picture(),
               spare = new_picture(SMALL_WIDTH, SMALL_HEIGHT);
    cv_rng rng;
    cv_rng_seed(&rng, 7);
    cv_op_random(&how, &rng, &p, &spare);
    for (size_t i = 0; i < SMALL; i++)
        assert_int_equal(p.pixels[i], 255 - was.pixels[i]);
    how.op = 0.5;
    how.mask |= 1u << CV_OP_BRIGHTNESS | 1u << CV_OP_POSTERIZE | 1u << CV_OP_SOLARIZE;
    size_t inverted = 0, darker = 0, brighter = 0, same = 0;
    const size_t n = 8000;
    for (size_t i = 0; i < n; i++) {
        memset(p.pixels, 100, SMALL);
        cv_op_random(&how, &rng, &p, &spare);
        inverted += p.pixels[0] == 155;
        darker += p.pixels[0] == 55;
        brighter += p.pixels[0] == 145;
        same += p.pixels[0] == 100; /* not done, or solarised from 128 on */
        if (!memchr("\x9b\x37\x91\x64\x40", p.pixels[0], 5)) fail_msg("%d", p.pixels[0]);
    }
    assert_true(labs((long)inverted - (long)n / 8) < 130); /* 4.4 deviations */
    assert_true(labs((long)darker - (long)n / 16) < 100);
    assert_true(labs((long)brighter - (long)n / 16) < 100);
    assert_true(labs((long)same - (long)(n / 2 + n / 8)) < 200);
    cv_picture_free(&p);
    cv_picture_free(&was);
    cv_picture_free(&spare);
}

/* ---- cutting --------------------------------------------------------------------------------- */

static void the_middle(void **state)
{
    (void)state;
    static const struct {
        size_t side, resize;
    } cases[] = { { 32, 32 }, { 96, 96 }, { 224, 256 }, { 192, 219 } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const cv_framing f = cv_augment_middle(cases[i].side);
        assert_int_equal(f.resize, cases[i].resize);
        assert_int_equal(f.crop_width, cases[i].side);
        assert_int_equal(f.crop_height, cases[i].side);
    }
    const cv_augment nothing = { .crop = CV_CROP_MIDDLE };
    cv_picture in = noise_picture(32, 32, 9), out = augmented(&nothing, &in, 32, 1);
    assert_same(&in, &out); /* exactly the pixels */
    cv_picture_free(&in);
    cv_picture_free(&out);
}

/* The pixel in the middle is always one from inside, and tells the shift. */
static void padded_cuts_are_shifts(void **state)
{
    (void)state;
    enum { SIDE = 9, PAD = 4, LAST = SIDE - 1 };
    cv_picture in = places_picture(SIDE, SIDE);
    for (int reflect = 0; reflect < 2; reflect++) {
        const cv_augment how = { .crop = CV_CROP_PADDED,
                                 .padding = PAD,
                                 .reflect = reflect == 1,
                                 .fill = { 200, 201, 202 } };
        size_t seen[SIDE][SIDE] = { { 0 } };
        for (uint64_t key = 0; key < 2000; key++) {
            cv_picture out = augmented(&how, &in, SIDE, key);
            const int dx = pixel(&out, 4, 4)[0] - 4, dy = pixel(&out, 4, 4)[1] - 4;
            seen[dy + PAD][dx + PAD]++;
            for (int i = 0; i < SIDE * SIDE; i++) {
                const int x = i % SIDE + dx, y = i / SIDE + dy;
                const int near_x = x < 0 ? -x : x > LAST ? 2 * LAST - x : x;
                const int near_y = y < 0 ? -y : y > LAST ? 2 * LAST - y : y;
                const bool outside = near_x != x || near_y != y;
                assert_memory_equal(
                    out.pixels + 3 * i,
                    outside && !reflect ? how.fill : pixel(&in, (size_t)near_x, (size_t)near_y), 3);
            }
            cv_picture_free(&out);
        }
        for (size_t i = 0; i < SIDE * SIDE; i++)
            assert_true(seen[i / SIDE][i % SIDE] > 3); /* of 2000 / 81 */
    }
    cv_picture_free(&in);
}

/* A border wider than the picture goes to and fro. */
static void wide_reflections(void **state)
{
    (void)state;
    const cv_augment how = { .crop = CV_CROP_PADDED, .padding = 11, .reflect = true };
    cv_picture in = places_picture(3, 3);
    for (uint64_t key = 0; key < 300; key++) {
        cv_picture out = augmented(&how, &in, 3, key);
        for (size_t y = 0; y < 3; y++)
            for (size_t x = 0; x + 1 < 3; x++) { /* neighbours differ by one */
                assert_int_equal(abs(pixel(&out, x, y)[0] - pixel(&out, x + 1, y)[0]), 1);
                assert_true(pixel(&out, x, y)[0] < 3);
            }
        cv_picture_free(&out);
    }
    cv_picture one = noise_picture(1, 1, 4), out = augmented(&how, &one, 1, 3);
    assert_same(&one, &out);
    cv_picture_free(&one);
    cv_picture_free(&out);
    cv_picture_free(&in);
}

/* On slopes the corners of the result tell which part was cut. */
static void resized_cuts_are_in_their_ranges(void **state)
{
    (void)state;
    enum { W = 240, H = 200, SIDE = 32, N = 3000 };
    cv_augment how = cv_augment_imagenet();
    how.flip = how.erase = 0.0;
    how.ops = 0;
    cv_picture in = places_picture(W, H);
    double least = 1.0, most = 0.0, narrow = 9.0, wide = 0.0, mean = 0.0;
    for (uint64_t key = 0; key < N; key++) {
        cv_picture out = augmented(&how, &in, SIDE, key);
        /* a pixel of the result is width / SIDE apart from the next: 20 of them, away from
         * borders */
        const double width = (pixel(&out, 26, 16)[0] - pixel(&out, 6, 16)[0]) * SIDE / 20.0;
        const double height = (pixel(&out, 16, 26)[1] - pixel(&out, 16, 6)[1]) * SIDE / 20.0;
        const double area = width * height / (W * H), ratio = width / height;
        least = area < least ? area : least;
        most = area > most ? area : most;
        narrow = ratio < narrow ? ratio : narrow;
        wide = ratio > wide ? ratio : wide;
        mean += area / N;
        cv_picture_free(&out);
    }
    assert_true(least > 0.07 && least < 0.1);
    assert_true(most > 0.9 && most < 1.03);
    assert_true(narrow > 0.70 && narrow < 0.80);
    assert_true(wide > 1.26 && wide < 1.42);
    assert_true(mean > 0.45 && mean < 0.54); /* 0.54, less what does not fit */
    cv_picture_free(&in);
}

static void resized_cuts_of_all_and_of_none(void **state)
{
    (void)state;
    cv_augment how = {
        .crop = CV_CROP_RESIZED, .area = { 1.0, 1.0 }, .ratio = { 1.0, 1.0 }, .tries = 1
    };
    const cv_resize whole = { .width = 20, .height = 20, .part_width = 20, .part_height = 20 };
    cv_picture in = noise_picture(31, 31, 2), out = augmented(&how, &in, 20, 5), want;
    corvid_error err;
    ASSERT_OK(cv_picture_resize(mem, &in, &whole, &want, &err), &err);
    assert_same(&out, &want);
    cv_picture_free(&in);
    cv_picture_free(&out);
    cv_picture_free(&want);

    /* No part of all of this area is nearly square: the middle 13 x 10 instead. */
    how.ratio[0] = 3.0 / 4.0;
    how.ratio[1] = 4.0 / 3.0;
    how.tries = 10;
    cv_picture strip = places_picture(100, 10), part = new_picture(13, 10);
    for (size_t i = 0; i < 130; i++)
        memcpy(part.pixels + 3 * i, pixel(&strip, 43 + i % 13, i / 13), 3);
    out = augmented(&how, &strip, 20, 5);
    ASSERT_OK(cv_picture_resize(mem, &part, &whole, &want, &err), &err);
    assert_same(&out, &want);
    cv_picture_free(&strip);
    cv_picture_free(&part);
    cv_picture_free(&out);
    cv_picture_free(&want);
}

/* ---- mirroring and erasing ------------------------------------------------------------------- */

static void flips(void **state)
{
    (void)state;
    cv_picture in = noise_picture(15, 15, 1);
    cv_augment how = { .flip = 0.5 };
    size_t n_flipped = 0;
    for (uint64_t key = 0; key < 1000; key++) {
        cv_picture out = augmented(&how, &in, 15, cv_augment_key(3, 4, key));
        const bool flipped = memcmp(out.pixels, in.pixels, 3) != 0;
        n_flipped += flipped;
        for (size_t y = 0; y < 15; y++)
            for (size_t x = 0; x < 15; x++)
                assert_memory_equal(pixel(&out, x, y), pixel(&in, flipped ? 14 - x : x, y), 3);
        cv_picture_free(&out);
    }
    assert_true(n_flipped > 430 && n_flipped < 570);
    how = cv_augment_small();
    how.flip = 0.0;
    how.padding = 0;
    for (uint64_t key = 0; key < 100; key++) { /* digits */
        cv_picture out = augmented(&how, &in, 15, key);
        assert_same(&in, &out);
        cv_picture_free(&out);
    }
    cv_picture_free(&in);
}

static void erasing(void **state)
{
    (void)state;
    enum { SIDE = 60, N = 1500 };
    cv_augment how = { .erase = 1.0,
                       .erase_area = { 0.02, 1.0 / 3 },
                       .erase_ratio = { 0.3, 1 / 0.3 } };
    cv_picture in = new_picture(SIDE, SIDE);
    double mean_area = 0.0, sum = 0.0, squares = 0.0, n = 0.0;
    memset(in.pixels, 1, 3 * SIDE * SIDE);
    for (uint64_t key = 0; key < N; key++) {
        size_t x0 = SIDE, x1 = 0, y0 = SIDE, y1 = 0, count = 0;
        how.erase_noise = key % 2 == 1;
        cv_picture out = augmented(&how, &in, SIDE, key);
        for (size_t y = 0; y < SIDE; y++)
            for (size_t x = 0; x < SIDE; x++) {
                if (memcmp(pixel(&out, x, y), "\1\1\1", 3) == 0) continue;
                x0 = x < x0 ? x : x0;
                x1 = x >= x1 ? x + 1 : x1;
                y0 = y < y0 ? y : y0;
                y1 = y >= y1 ? y + 1 : y1;
                count++;
                if (!how.erase_noise) {
                    assert_memory_equal(pixel(&out, x, y), "\x7b\x74\x67", 3);
                } else {
                    const double v = pixel(&out, x, y)[1];
                    sum += v;
                    squares += v * v;
                    n += 1.0;
                }
            }
        const double area = (double)count / (SIDE * SIDE);
        if (!how.erase_noise) assert_int_equal(count, (x1 - x0) * (y1 - y0));
        assert_true(area > 0.015 && area < 0.35);
        mean_area += area / N;
        cv_picture_free(&out);
    }
    assert_true(fabs(mean_area - (0.02 + 1.0 / 3) / 2) < 0.02);
    const double mean = sum / n, deviation = sqrt(squares / n - mean * mean);
    assert_true(fabs(mean - MEAN[1]) < 1.0); /* truncated by half a value, clipped a little */
    assert_true(fabs(deviation - STD[1]) < 1.5);
    how.erase = 0.25;
    size_t n_erased = 0;
    for (uint64_t key = 0; key < 2000; key++) {
        cv_picture out = augmented(&how, &in, SIDE, key);
        n_erased += memcmp(out.pixels, in.pixels, 3 * SIDE * SIDE) != 0;
        cv_picture_free(&out);
    }
    assert_true(n_erased > 420 && n_erased < 580);
    cv_picture_free(&in);
}

/* ---- chance ---------------------------------------------------------------------------------- */

static void keys_differ(void **state)
{
    (void)state;
    static uint64_t of[1000];
    for (size_t i = 0; i < 1000; i++)
        of[i] = cv_augment_key(i % 10, i / 10 % 10, i / 100);
    for (size_t i = 0; i < 1000; i++)
        for (size_t k = 0; k < i; k++)
            assert_true(of[i] != of[k]);
}

static void gamma_and_beta(void **state)
{
    (void)state;
    static const double shapes[][2] = { { 0.8, 0.8 }, { 1.0, 1.0 }, { 0.2, 3.0 }, { 5.0, 2.5 } };
    enum { N = 40000 };
    cv_rng rng;
    cv_rng_seed(&rng, 11);
    for (size_t i = 0; i < 4; i++) {
        const double a = shapes[i][0], b = shapes[i][1], sum = a + b;
        double g = 0.0, g2 = 0.0, m = 0.0, m2 = 0.0, below = 0.0;
        for (size_t k = 0; k < N; k++) {
            const double x = cv_rng_gamma(&rng, a), y = cv_rng_beta(&rng, a, b);
            assert_true(x >= 0.0 && y >= 0.0 && y <= 1.0);
            g += x / N, g2 += x * x / N, m += y / N, m2 += y * y / N;
            below += y < 0.25;
        }
        const double mean = a / sum, variance = a * b / (sum * sum * (sum + 1.0));
        assert_true(fabs(g - a) < 5.0 * sqrt(a / N));
        assert_true(fabs(g2 - g * g - a) < 0.05 * a + 0.01);
        assert_true(fabs(m - mean) < 5.0 * sqrt(variance / N));
        assert_true(fabs(m2 - m * m - variance) < 0.05 * variance);
        if (i == 1) assert_true(fabs(below / N - 0.25) < 0.012); /* even */
    }
    for (size_t k = 0; k < 1000; k++) { /* so small that both gammas underflow */
        const double y = cv_rng_beta(&rng, 1e-4, 1e-4);
        assert_true(y >= 0.0 && y <= 1.0);
    }
}

/* ---- mixing ---------------------------------------------------------------------------------- */

static float value_at(size_t j, size_t i)
{
    return (float)(j * 1000 + i) * 0.37f;
}

static void mixed_values(void **state)
{
    (void)state;
    enum { SIDE = 6, SIZE = 3 * SIDE * SIDE };
    static const size_t counts[] = { 1, 2, 5, 8 };
    const cv_augment how = { .mixup = 0.5, .cutmix = 0.5, .mixup_alpha = 0.8, .cutmix_alpha = 1.0 };
    size_t n_up = 0;
    for (uint64_t key = 0; key < 2000; key++) {
        const size_t n = counts[key % 4];
        const cv_mixture mix = cv_mix_of(&how, SIDE, key);
        float values[8 * SIZE];
        for (size_t i = 0; i < n * SIZE; i++)
            values[i] = value_at(i / SIZE, i % SIZE);
        cv_mix_values(&mix, n, SIDE, values);
        n_up += mix.kind == CV_MIX_UP;
        assert_true(mix.kind != CV_MIX_NONE);
        for (size_t j = 0; j < n; j++) {
            size_t n_own = 0;
            for (size_t i = 0; i < SIZE; i++) {
                const float own = value_at(j, i), other = value_at(n - 1 - j, i);
                const float got = values[j * SIZE + i];
                const size_t x = i % SIDE, y = i / SIDE % SIDE;
                const bool cut = x >= mix.x0 && x < mix.x1 && y >= mix.y0 && y < mix.y1;
                n_own += got == own;
                if (mix.kind == CV_MIX_CUT)
                    assert_true(got == (cut ? other : own));
                else
                    assert_true(fabs((double)mix.share * (double)own +
                                     (1.0 - (double)mix.share) * (double)other - (double)got) <
                                1e-3);
            }
            /* the share is of the pixels that are left */
            if (mix.kind == CV_MIX_CUT && n - 1 - j != j)
                assert_true(fabs((double)n_own / SIZE - (double)mix.share) < 1e-6);
        }
    }
    assert_true(n_up > 900 && n_up < 1100);
}

static void shares_are_drawn(void **state)
{
    (void)state;
    const cv_augment up = { .mixup = 1.0, .mixup_alpha = 0.8 };
    const cv_augment cut = { .cutmix = 1.0, .cutmix_alpha = 1.0 };
    const cv_augment some = {
        .mixup = 0.2, .cutmix = 0.3, .mixup_alpha = 1.0, .cutmix_alpha = 1.0
    };
    size_t kinds[3] = { 0 };
    double mean = 0.0, squares = 0.0, left = 0.0;
    enum { N = 20000 };
    for (uint64_t key = 0; key < N; key++) {
        const double share = (double)cv_mix_of(&up, 224, key).share;
        const cv_mixture box = cv_mix_of(&cut, 224, key);
        mean += share / N;
        squares += share * share / N;
        left += (double)box.share / N;
        assert_true(box.x0 <= box.x1 && box.x1 <= 224 && box.y0 <= box.y1 && box.y1 <= 224);
        kinds[cv_mix_of(&some, 224, key).kind]++;
    }
    assert_true(fabs(mean - 0.5) < 0.01);
    assert_true(fabs(squares - mean * mean - 0.64 / (2.56 * 2.6)) < 0.003);
    assert_true(left > 0.55 && left < 0.75); /* half, and what clipping leaves */
    assert_true(labs((long)kinds[CV_MIX_UP] - N / 5) < 300);
    assert_true(labs((long)kinds[CV_MIX_CUT] - 3 * N / 10) < 330);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void recipes_work_on_any_picture(void **state)
{
    (void)state;
    static const size_t sizes[][2] = { { 1, 1 },   { 1, 40 },  { 40, 1 },   { 2, 3 },
                                       { 32, 32 }, { 33, 31 }, { 150, 90 }, { 28, 28 } };
    cv_augment recipes[3] = { cv_augment_imagenet(), cv_augment_small(), cv_augment_imagenet() };
    recipes[2].ops = 9;
    recipes[2].op = recipes[2].erase = 1.0;
    recipes[2].level_spread = 5.0;
    for (size_t s = 0; s < 8; s++) {
        cv_picture in = noise_picture(sizes[s][0], sizes[s][1], s);
        for (size_t r = 0; r < 3; r++)
            for (uint64_t key = 0; key < 60; key++) {
                const size_t side = 1 + (key * 7) % 35;
                cv_picture a = augmented(&recipes[r], &in, side, key),
                           b = augmented(&recipes[r], &in, side, key);
                assert_same(&a, &b);
                cv_picture_free(&a);
                cv_picture_free(&b);
            }
        cv_picture_free(&in);
    }
}

static void what_is_out_of_range_is_refused(void **state)
{
    (void)state;
    corvid_error err;
    cv_augment how[14];
    for (size_t i = 0; i < 14; i++)
        how[i] = cv_augment_imagenet();
    how[0].area[0] = 0.0;
    how[1].area[1] = 1.1;
    how[2].ratio[1] = 0.5;
    how[3].flip = 1.5;
    how[4].op = -0.1;
    how[5].level = 11.0;
    how[6].erase = (double)NAN;
    how[7].erase_area[1] = 2.0;
    how[8].erase_ratio[0] = 0.0;
    how[9].cutmix = 0.6;
    how[10].mixup_alpha = 0.0;
    how[11].cutmix_alpha = (double)INFINITY;
    how[12].ops = 1000;
    how[13].level_spread = -1.0;
    for (size_t i = 0; i < 14; i++) {
        err.text[0] = '\0';
        assert_int_equal(cv_augment_check(&how[i], &err), CORVID_E_ARGUMENT);
        assert_non_null(strstr(err.text, "expected"));
    }
    const cv_augment fine[] = { cv_augment_imagenet(), cv_augment_small(), { .flip = 1.0 } };
    for (size_t i = 0; i < 3; i++)
        ASSERT_OK(cv_augment_check(&fine[i], &err), &err);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    cv_picture in = noise_picture(40, 30, 8);
    cv_augment recipes[2] = { cv_augment_imagenet(), cv_augment_small() };
    for (size_t r = 0; r < 2; r++)
        for (size_t fail_at = 1;; fail_at++) {
            test_allocator a;
            cv_picture out;
            corvid_error err;
            test_allocator_init(&a);
            a.fail_at = fail_at;
            const corvid_status status =
                cv_augment_picture(&a.api, &recipes[r], &in, 20, MEAN, STD, 3, &out, &err);
            if (status == CORVID_OK) cv_picture_free(&out);
            assert_int_equal(a.live, 0);
            if (a.calls < fail_at) break;
            assert_int_equal(status, CORVID_E_MEMORY);
        }
    cv_picture_free(&in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixel_operations_are_pillows),
        cmocka_unit_test(equalize_by_counting),
        cmocka_unit_test(one_colour_stays),
        cmocka_unit_test(grey_by_its_definition),
        cmocka_unit_test(moving_is_the_direct_form),
        cmocka_unit_test(whole_steps_move_pixels),
        cmocka_unit_test(strengths_are_the_tables),
        cmocka_unit_test(operations_are_drawn_evenly),
        cmocka_unit_test(the_middle),
        cmocka_unit_test(padded_cuts_are_shifts),
        cmocka_unit_test(wide_reflections),
        cmocka_unit_test(resized_cuts_are_in_their_ranges),
        cmocka_unit_test(resized_cuts_of_all_and_of_none),
        cmocka_unit_test(flips),
        cmocka_unit_test(erasing),
        cmocka_unit_test(keys_differ),
        cmocka_unit_test(gamma_and_beta),
        cmocka_unit_test(mixed_values),
        cmocka_unit_test(shares_are_drawn),
        cmocka_unit_test(recipes_work_on_any_picture),
        cmocka_unit_test(what_is_out_of_range_is_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
