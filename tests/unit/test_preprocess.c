/* test_preprocess.c - turning, resizing and framing of pictures, and the numbers made of them.
 *
 * Resizing is compared with a slow form of the definition, written without the tricks of the fast
 * one: weights in double for every pixel, sums of 64 bits, whole pictures between the passes. */
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "image/picture.h"

static cv_rng rng;

static size_t below(size_t n)
{
    return (size_t)(cv_rng_next(&rng) >> 33) % n;
}

/* Noise, mostly; now and then only black and white, where sums leave 0 .. 255 on both sides. */
static cv_picture noise(size_t width, size_t height)
{
    cv_picture p;
    corvid_error err;
    ASSERT_OK(cv_picture_new(&cv_libc_allocator, width, height, &p, &err), &err);
    const bool hard = below(3) == 0;
    for (size_t i = 0; i < 3 * width * height; i++) {
        const unsigned char v = (unsigned char)(cv_rng_next(&rng) >> 56);
        p.pixels[i] = hard ? (v & 1 ? 255 : 0) : v;
    }
    return p;
}

static void check_same(const cv_picture *got, const cv_picture *want)
{
    assert_int_equal(got->width, want->width);
    assert_int_equal(got->height, want->height);
    assert_memory_equal(got->pixels, want->pixels, 3 * want->width * want->height);
}

static cv_picture cut(const cv_picture *p, size_t x, size_t y, size_t width, size_t height)
{
    cv_picture out;
    corvid_error err;
    ASSERT_OK(cv_picture_new(&cv_libc_allocator, width, height, &out, &err), &err);
    for (size_t row = 0; row < height; row++)
        memcpy(out.pixels + 3 * row * width, p->pixels + 3 * ((y + row) * p->width + x), 3 * width);
    return out;
}

/* ---- turning --------------------------------------------------------------------------------- */

/* The letter F in the corner of a page, as a camera stores it and as it is looked at. */
static void turns_all_ways(void **state)
{
    (void)state;
    static const char STORED[] = "abc"
                                 "def";
    static const struct {
        size_t width;
        const char *upright;
    } WANT[9] = { { 3, "abcdef" }, { 3, "abcdef" }, { 3, "cbafed" },
                  { 3, "fedcba" }, { 3, "defabc" }, { 2, "adbecf" },
                  { 2, "daebfc" }, { 2, "fcebda" }, { 2, "cfbead" } };
    unsigned char pixels[18];
    for (size_t i = 0; i < 18; i++)
        pixels[i] = (unsigned char)(STORED[i / 3] + (int)(i % 3) * 50);
    for (int orientation = 0; orientation <= 9; orientation++) {
        cv_picture out;
        corvid_error err;
        const cv_picture in = {
            .width = 3, .height = 2, .pixels = pixels, .orientation = orientation
        };
        const int row = orientation > 8 ? 0 : orientation; /* an unknown one is taken as upright */
        ASSERT_OK(cv_picture_turn(&cv_libc_allocator, &in, &out, &err), &err);
        assert_int_equal(out.width, WANT[row].width);
        assert_int_equal(out.width * out.height, 6);
        assert_int_equal(out.orientation, 1);
        for (size_t i = 0; i < 18; i++)
            assert_int_equal(out.pixels[i], WANT[row].upright[i / 3] + (int)(i % 3) * 50);
        cv_picture_free(&out);
    }
}

/* Sizes around those in which turning is done: back and forth is where it began. */
static void turns_back(void **state)
{
    (void)state;
    static const int BACK[9] = { 1, 1, 2, 3, 4, 5, 8, 7, 6 };
    static const size_t SIDES[] = { 1, 2, 31, 32, 33, 65, 100 };
    enum { N = sizeof SIDES / sizeof *SIDES };
    corvid_error err;
    for (size_t i = 0; i < N * N; i++)
        for (int orientation = 1; orientation <= 8; orientation++) {
            cv_picture in = noise(SIDES[i / N], SIDES[i % N]), turned, back;
            in.orientation = orientation;
            ASSERT_OK(cv_picture_turn(&cv_libc_allocator, &in, &turned, &err), &err);
            turned.orientation = BACK[orientation];
            ASSERT_OK(cv_picture_turn(&cv_libc_allocator, &turned, &back, &err), &err);
            check_same(&back, &in);
            cv_picture_free(&in);
            cv_picture_free(&turned);
            cv_picture_free(&back);
        }
}

/* ---- the slow resize ------------------------------------------------------------------------- */

static double slow_cubic(double x)
{
    const double a = -0.5, d = x < 0 ? -x : x;
    if (d >= 2) return 0;
    if (d >= 1) return a * (((d - 5) * d + 8) * d - 4);
    return ((a + 2) * d - (a + 3)) * d * d + 1;
}

/* Value `x` of n_out made of `n` ones that lie `step` bytes apart. */
static unsigned char slow_value(const unsigned char *from, size_t step, size_t n, size_t n_out,
                                size_t x)
{
    const double scale = (double)n / (double)n_out, fs = scale > 1 ? scale : 1;
    const double c = ((double)x + 0.5) * scale;
    long first = (long)(c - 2 * fs + 0.5), end = (long)(c + 2 * fs + 0.5);
    if (first < 0) first = 0;
    if (end > (long)n) end = (long)n;
    double *w = calloc((size_t)(end - first), sizeof *w), sum = 0;
    assert_non_null(w);
    for (long i = 0; i < end - first; i++)
        sum += w[i] = slow_cubic(((double)(i + first) - c + 0.5) * (1 / fs));
    long long total = 1LL << 21;
    for (long i = 0; i < end - first; i++)
        total += (long long)round(w[i] / sum * 4194304.0) * from[(size_t)(first + i) * step];
    free(w);
    total >>= 22;
    return (unsigned char)(total < 0 ? 0 : total > 255 ? 255 : total);
}

static cv_picture slow_resize(const cv_picture *in, size_t width, size_t height)
{
    cv_picture between, out;
    corvid_error err;
    ASSERT_OK(cv_picture_new(&cv_libc_allocator, width, in->height, &between, &err), &err);
    ASSERT_OK(cv_picture_new(&cv_libc_allocator, width, height, &out, &err), &err);
    for (size_t i = 0; i < 3 * width * in->height; i++) {
        const size_t y = i / (3 * width), x = i / 3 % width;
        const unsigned char *row = in->pixels + 3 * y * in->width + i % 3;
        between.pixels[i] =
            width == in->width ? row[3 * x] : slow_value(row, 3, in->width, width, x);
    }
    for (size_t i = 0; i < 3 * width * height; i++) {
        const size_t y = i / (3 * width), at = i % (3 * width);
        const unsigned char *column = between.pixels + at;
        out.pixels[i] = height == in->height ? column[3 * width * y]
                                             : slow_value(column, 3 * width, in->height, height, y);
    }
    cv_picture_free(&between);
    return out;
}

static cv_picture resize(const cv_picture *in, const cv_resize *to)
{
    cv_picture out;
    corvid_error err;
    ASSERT_OK(cv_picture_resize(&cv_libc_allocator, in, to, &out, &err), &err);
    assert_int_equal(out.width, to->part_width);
    assert_int_equal(out.height, to->part_height);
    return out;
}

/* The whole is that of the slow form, and some parts are cut from it. */
static void check_resize(size_t in_width, size_t in_height, size_t width, size_t height)
{
    cv_picture in = noise(in_width, in_height), want = slow_resize(&in, width, height);
    const cv_resize whole = { width, height, 0, 0, width, height };
    cv_picture got = resize(&in, &whole);
    check_same(&got, &want);
    cv_picture_free(&got);
    for (int i = 0; i < 3; i++) {
        cv_resize to = { .width = width, .height = height, .x = below(width), .y = below(height) };
        to.part_width = 1 + below(width - to.x);
        to.part_height = 1 + below(height - to.y);
        cv_picture piece = cut(&want, to.x, to.y, to.part_width, to.part_height);
        got = resize(&in, &to);
        check_same(&got, &piece);
        cv_picture_free(&piece);
        cv_picture_free(&got);
    }
    cv_picture_free(&in);
    cv_picture_free(&want);
}

static void resizes_like_the_slow_form(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++)
        check_resize(1 + below(80), 1 + below(80), 1 + below(80), 1 + below(80));
    for (int i = 0; i < 20; i++) /* rows of several blocks, and their ends */
        check_resize(1 + below(20), 1 + below(20), 60 + below(140), 1 + below(20));
    for (size_t n = 1; n <= 4; n++) /* the smallest */
        for (size_t i = 0; i < 64; i++)
            check_resize(n, 1 + i % 4, 1 + i / 4 % 4, 1 + i / 16 % 4);
    for (int i = 0; i < 20; i++) { /* one side stays, so that a pass is left out */
        const size_t side = 1 + below(100);
        check_resize(side, 1 + below(60), side, 1 + below(60));
        check_resize(1 + below(60), side, 1 + below(60), side);
        check_resize(side, 7, side, 7);
    }
}

/* Shapes that need several strips: many rows between the passes, and more taps than a strip has. */
static void resizes_extreme_shapes(void **state)
{
    (void)state;
    check_resize(90, 20001, 80, 3);
    check_resize(1, 30000, 3, 2);
    check_resize(70001, 3, 5, 4);
    check_resize(40000, 1, 700, 1);
    check_resize(1, 1, 300, 200);
}

static void keeps_what_is_not_resized(void **state)
{
    (void)state;
    cv_picture in = noise(61, 43);
    in.orientation = 6;
    const cv_resize whole = { 61, 43, 0, 0, 61, 43 };
    cv_picture out = resize(&in, &whole);
    check_same(&out, &in);
    assert_int_equal(out.orientation, 6); /* as it was stored, still */
    cv_picture_free(&out);
    const cv_resize part = { 61, 43, 17, 9, 30, 34 };
    cv_picture piece = cut(&in, 17, 9, 30, 34);
    out = resize(&in, &part);
    check_same(&out, &piece);
    cv_picture_free(&out);
    cv_picture_free(&piece);
    cv_picture_free(&in);
}

/* ---- framing --------------------------------------------------------------------------------- */

/* Sizes and places worked out with Python's int and round. */
static const struct framed {
    size_t in_width, in_height;
    cv_framing framing;
    cv_resize to;
} FRAMED[] = {
    { 320,
      240,
      { .resize = 256, .crop_width = 224, .crop_height = 224 },
      { 341, 256, 58, 16, 224, 224 } },
    { 180,
      271,
      { .resize = 256, .crop_width = 224, .crop_height = 224 },
      { 256, 385, 16, 80, 224, 224 } },
    { 223,
      117,
      { .resize = 256, .crop_width = 224, .crop_height = 224 },
      { 487, 256, 132, 16, 224, 224 } },
    { 70, 20, { .resize = 20, .crop_width = 10, .crop_height = 10 }, { 70, 20, 30, 5, 10, 10 } },
    { 100, 100, { .resize = 33 }, { 33, 33, 0, 0, 33, 33 } },
    { 5, 7, { .crop_width = 4, .crop_height = 4 }, { 5, 7, 0, 2, 4, 4 } },
    { 7, 9, { .crop_width = 2, .crop_height = 2 }, { 7, 9, 2, 4, 2, 2 } },
    { 11, 13, { .crop_width = 2, .crop_height = 2 }, { 11, 13, 4, 6, 2, 2 } },
    { 5, 7, { .crop_width = 6 }, { 5, 7, 0, 0, 5, 7 } },
    { 5, 7, { .crop_height = 6 }, { 5, 7, 0, 0, 5, 6 } },
    { 5, 7, { 0 }, { 5, 7, 0, 0, 5, 7 } },
    { 30, 20, { .width = 12, .height = 18 }, { 12, 18, 0, 0, 12, 18 } },
    { 30, 20, { .width = 12 }, { 12, 20, 0, 0, 12, 20 } },
    { 30, 20, { .height = 40, .crop_height = 10 }, { 30, 40, 0, 15, 30, 10 } },
    { 30, 20, { .resize = 10, .width = 99, .height = 99 }, { 15, 10, 0, 0, 15, 10 } },
    { 1, 1000, { .resize = 8, .crop_width = 8, .crop_height = 8 }, { 8, 8000, 0, 3996, 8, 8 } },
};

static void frames(void **state)
{
    (void)state;
    corvid_error err;
    for (size_t i = 0; i < sizeof FRAMED / sizeof *FRAMED; i++) {
        const struct framed *f = &FRAMED[i];
        cv_picture in = noise(f->in_width, f->in_height), want = resize(&in, &f->to), got;
        ASSERT_OK(cv_picture_frame(&cv_libc_allocator, &in, &f->framing, 1 << 20, &got, &err),
                  &err);
        check_same(&got, &want);
        cv_picture_free(&in);
        cv_picture_free(&want);
        cv_picture_free(&got);
    }
}

static void frames_upright(void **state)
{
    (void)state;
    corvid_error err;
    for (int orientation = 1; orientation <= 8; orientation++) {
        cv_picture in = noise(31, 20), turned, want, got;
        cv_framing framing = { .resize = 16, .crop_width = 12, .crop_height = 14 };
        in.orientation = orientation;
        ASSERT_OK(cv_picture_turn(&cv_libc_allocator, &in, &turned, &err), &err);
        ASSERT_OK(cv_picture_frame(&cv_libc_allocator, &turned, &framing, 999, &want, &err), &err);
        framing.orient = true;
        ASSERT_OK(cv_picture_frame(&cv_libc_allocator, &in, &framing, 999, &got, &err), &err);
        assert_int_equal(got.orientation, 1);
        check_same(&got, &want);
        cv_picture_free(&got);
        framing.orient = false; /* the stored picture, which still lies as it was stored */
        ASSERT_OK(cv_picture_frame(&cv_libc_allocator, &in, &framing, 999, &got, &err), &err);
        assert_int_equal(got.orientation, orientation);
        cv_picture_free(&in);
        cv_picture_free(&turned);
        cv_picture_free(&want);
        cv_picture_free(&got);
    }
}

/* A strip of 1 x 100000 resized to 256 x 25600000 is never whole in memory. */
static void takes_memory_for_the_part_only(void **state)
{
    (void)state;
    corvid_error err;
    const cv_framing framing = { .resize = 256, .crop_width = 224, .crop_height = 224 };
    for (int wide = 0; wide < 2; wide++) {
        test_allocator a;
        test_allocator_init(&a);
        cv_picture in = noise(wide ? 100000 : 1, wide ? 1 : 100000), out;
        ASSERT_OK(cv_picture_frame(&a.api, &in, &framing, 1 << 20, &out, &err), &err);
        assert_int_equal(out.width * out.height, 224 * 224);
        assert_true(a.peak_bytes < 1 << 20);
        cv_picture_free(&out);
        assert_int_equal(a.live, 0);
        cv_picture_free(&in);
    }
}

/* ---- what goes wrong ------------------------------------------------------------------------- */

static void survives_short_memory(void **state)
{
    (void)state;
    static const cv_framing FRAMINGS[] = {
        { .resize = 20, .crop_width = 16, .crop_height = 16, .orient = true },
        { .width = 10, .orient = true },
        { .height = 10 },
        { 0 },
    };
    corvid_error err;
    for (size_t i = 0; i < sizeof FRAMINGS / sizeof *FRAMINGS; i++) {
        cv_picture in = noise(40, 30);
        in.orientation = 6;
        corvid_status status = CORVID_E_MEMORY;
        size_t nth = 1;
        for (; status == CORVID_E_MEMORY; nth++) {
            test_allocator a;
            test_allocator_init(&a);
            a.fail_at = nth;
            cv_picture out;
            status = cv_picture_frame(&a.api, &in, &FRAMINGS[i], 1 << 20, &out, &err);
            if (status != CORVID_OK) {
                assert_int_equal(status, CORVID_E_MEMORY);
                assert_int_equal(err.status, CORVID_E_MEMORY);
                assert_null(out.pixels);
            }
            cv_picture_free(&out); /* fine after a failure, too */
            assert_int_equal(a.live, 0);
        }
        assert_int_equal(status, CORVID_OK);
        assert_true(nth > 2);
        cv_picture_free(&in);
    }
}

static void check_refused(corvid_status status, const cv_picture *out, corvid_error *err)
{
    assert_int_equal(status, CORVID_E_ARGUMENT);
    assert_int_equal(err->status, CORVID_E_ARGUMENT);
    assert_true(strlen(err->text) > 20);
    assert_null(out->pixels);
    *err = (corvid_error){ CORVID_OK, "" };
}

static void refuses_parts_outside(void **state)
{
    (void)state;
    static const cv_resize BAD[] = {
        { 0, 5, 0, 0, 1, 1 },
        { 5, 0, 0, 0, 1, 1 },
        { 5, 5, 0, 0, 0, 5 },
        { 5, 5, 0, 0, 5, 0 },
        { 5, 5, 1, 0, 5, 5 },
        { 5, 5, 0, 1, 5, 5 },
        { 5, 5, 5, 0, 1, 1 },
        { 5, 5, SIZE_MAX, 0, 2, 1 },
        { 5, 5, 2, 0, SIZE_MAX - 1, 1 },
        { ((size_t)1 << 30) + 1, 5, 0, 0, 1, 1 },
    };
    corvid_error err = { CORVID_OK, "" };
    cv_picture in = noise(4, 4), out;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        check_refused(cv_picture_resize(&cv_libc_allocator, &in, &BAD[i], &out, &err), &out, &err);
    const cv_picture empty = { .width = 0, .height = 4, .pixels = in.pixels, .orientation = 1 };
    const cv_resize to = { 5, 5, 0, 0, 5, 5 };
    check_refused(cv_picture_resize(&cv_libc_allocator, &empty, &to, &out, &err), &out, &err);
    check_refused(cv_picture_turn(&cv_libc_allocator, &empty, &out, &err), &out, &err);
    const cv_framing framing = { .resize = 4 };
    check_refused(cv_picture_frame(&cv_libc_allocator, &empty, &framing, 99, &out, &err), &out,
                  &err);
    cv_picture_free(&in);
}

static void refuses_sizes(void **state)
{
    (void)state;
    const size_t huge = ((size_t)1 << 30) + 1;
    const cv_framing bad[] = {
        { .resize = huge },
        { .width = huge },
        { .height = SIZE_MAX },
        { .crop_width = huge },
        { .crop_height = SIZE_MAX },
        { .resize = (size_t)1 << 29 },
        { .width = 11, .height = 10 }, /* 110 pixels, and 100 are allowed */
        { .resize = 20 },
    };
    corvid_error err = { CORVID_OK, "" };
    cv_picture in = noise(10, 3), out;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_refused(cv_picture_frame(&cv_libc_allocator, &in, &bad[i], 100, &out, &err), &out,
                      &err);
    const cv_framing most = {
        .width = (size_t)1 << 30, .height = (size_t)1 << 30, .crop_width = 10, .crop_height = 10
    };
    ASSERT_OK(cv_picture_frame(&cv_libc_allocator, &in, &most, 100, &out, &err), &err);
    assert_int_equal(out.width * out.height, 100);
    cv_picture_free(&out);
    cv_picture_free(&in);
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* Both ways say the same up to rounding, and that is what the definition says in double. */
static void normalises(void **state)
{
    (void)state;
    static const double MEAN[] = { 0.485, 0.456, 0.406 }, STD[] = { 0.229, 0.224, 0.225 };
    float byte[3][256], unit[3][256];
    cv_normalise_table(&cv_normalise_255, byte);
    cv_normalise_table(&cv_normalise_unit, unit);
    for (size_t c = 0; c < 3; c++)
        for (size_t v = 0; v < 256; v++) {
            const double want = ((double)v / 255 - MEAN[c]) / STD[c];
            assert_true(fabs((double)byte[c][v] - want) < 5e-7);
            assert_true(fabs((double)unit[c][v] - want) < 5e-7);
        }
    assert_false(cv_normalise_255.unit);
    assert_true(cv_normalise_unit.unit);
}

static void values_lie_in_planes(void **state)
{
    (void)state;
    float table[3][256], values[3][5][7];
    for (size_t i = 0; i < 3 * 256; i++)
        table[i / 256][i % 256] = (float)i;
    cv_picture p = noise(7, 5);
    cv_picture_values(&p, table, &values[0][0][0]);
    for (size_t c = 0; c < 3; c++)
        for (size_t i = 0; i < 35; i++)
            assert_true(values[c][i / 7][i % 7] == (float)(256 * c + p.pixels[3 * i + c]));
    cv_picture_free(&p);
}

int main(void)
{
    cv_rng_seed(&rng, 20240607);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns_all_ways),
        cmocka_unit_test(turns_back),
        cmocka_unit_test(resizes_like_the_slow_form),
        cmocka_unit_test(resizes_extreme_shapes),
        cmocka_unit_test(keeps_what_is_not_resized),
        cmocka_unit_test(frames),
        cmocka_unit_test(frames_upright),
        cmocka_unit_test(takes_memory_for_the_part_only),
        cmocka_unit_test(survives_short_memory),
        cmocka_unit_test(refuses_parts_outside),
        cmocka_unit_test(refuses_sizes),
        cmocka_unit_test(normalises),
        cmocka_unit_test(values_lie_in_planes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
