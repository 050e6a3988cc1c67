/* test_dtype.c - element types: the table, and plain conversions against definitions in double.
 *
 * Halves are checked exhaustively; rounding is checked against a search in the sorted list of all
 * halves (or of both neighbours, for bfloat), which knows nothing of bit tricks. */
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "support.h"
#include "tensor/dtype.h"

static uint32_t bits(float f)
{
    uint32_t b;
    memcpy(&b, &f, sizeof b);
    return b;
}

static float value(uint32_t b)
{
    float f;
    memcpy(&f, &b, sizeof f);
    return f;
}

/* The definition: sign, five bits of exponent, ten of fraction.  Infinities by size, no NaN. */
static double half_defined(unsigned h)
{
    int exponent = (int)(h >> 10 & 31), fraction = (int)(h & 1023);
    double magnitude = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return h & 0x8000 ? -magnitude : magnitude;
}

static bool half_is_nan(unsigned h)
{
    return (h & 0x7fff) > 0x7c00;
}

static void test_every_half(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float f = cv_f16_to_f32((uint16_t)h);
        if (half_is_nan(h)) {
            assert_true(isnan(f));
            assert_int_equal(bits(f) >> 31, h >> 15);
            assert_int_equal(bits(f) >> 13 & 1023, (h & 511) | 512); /* payload, quiet */
            assert_int_equal(cv_f32_to_f16(f), h | 0x200);
            continue;
        }
        if ((h & 0x7fff) == 0x7c00)
            assert_true(isinf(f));
        else
            assert_true((double)f == half_defined(h));
        assert_int_equal(bits(f) >> 31, h >> 15); /* -0 too  */
        assert_int_equal(cv_f32_to_f16(f), h);
    }
}

/* Nearest half of a finite magnitude by bisection; 65536 stands for infinity; ties to even. */
static unsigned nearest_half(double magnitude)
{
    unsigned lo = 0, hi = 0x7c00;
    if (magnitude >= 65536.0) return 0x7c00;
    while (hi - lo > 1) {
        unsigned mid = (lo + hi) / 2;
        if (half_defined(mid) <= magnitude)
            lo = mid;
        else
            hi = mid;
    }
    double below = magnitude - half_defined(lo), above = half_defined(hi) - magnitude;
    if (below == above) return lo & 1 ? hi : lo;
    return below < above ? lo : hi;
}

static void check_half_rounding(float f)
{
    if (isnan(f)) {
        assert_true(half_is_nan(cv_f32_to_f16(f)));
        return;
    }
    unsigned expected = nearest_half(fabs((double)f)) | (signbit(f) ? 0x8000u : 0u);
    if (cv_f32_to_f16(f) != expected)
        fail_msg("%a: half %04x, expected %04x", (double)f, cv_f32_to_f16(f), expected);
}

static void test_half_rounding_at_boundaries(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x7c00; h++) {
        double middle = (half_defined(h) + half_defined(h + 1)) / 2; /* exact in f32 */
        for (int step = -1; step <= 1; step++) {
            float f = value(bits((float)middle) + (uint32_t)step);
            check_half_rounding(f);
            check_half_rounding(-f);
        }
    }
    assert_int_equal(cv_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(cv_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(cv_f32_to_f16(0x1p-25f), 0x0000); /* tie to even */
    assert_int_equal(cv_f32_to_f16(0x1.8p-25f), 0x0001);
    assert_int_equal(cv_f32_to_f16(value(1)), 0x0000);
    assert_int_equal(cv_f32_to_f16(-0.0f), 0x8000);
    assert_int_equal(cv_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(cv_f32_to_f16(-INFINITY), 0xfc00);
    assert_true(half_is_nan(cv_f32_to_f16(value(0x7f800001)))); /* payload below ten bits */
}

static void test_half_rounding_at_random(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 1);
    for (int i = 0; i < 400000; i++) {
        uint64_t r = cv_rng_next(&rng);
        check_half_rounding(value((uint32_t)r)); /* any bits          */
        check_half_rounding(value((uint32_t)(r >> 32) % 0x12000000u + 0x32000000u));
    }
}

static void check_bfloat_rounding(float f)
{
    uint16_t got = cv_f32_to_bf16(f);
    if (isnan(f)) {
        assert_true(isnan(cv_bf16_to_f32(got)));
        assert_int_equal(got >> 15, bits(f) >> 31);
        return;
    }
    uint32_t low = bits(f) & 0x7fff0000u;
    double magnitude = fabs((double)f), below = magnitude - (double)value(low);
    double next = low + 0x10000u == 0x7f800000u ? 0x1p128 : (double)value(low + 0x10000u);
    double above = next - magnitude;
    bool up = above < below || (above == below && (low >> 16 & 1));
    if (isinf(f)) up = false;
    unsigned expected = (low + (up ? 0x10000u : 0u)) >> 16 | (bits(f) >> 31) << 15;
    if (got != expected) fail_msg("%a: bfloat %04x, expected %04x", (double)f, got, expected);
}

static void test_bfloat(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        assert_int_equal(bits(cv_bf16_to_f32((uint16_t)h)), h << 16);
        if (!isnan(value(h << 16))) assert_int_equal(cv_f32_to_bf16(value(h << 16)), h);
        for (uint32_t low = 0x7fff; low <= 0x8001; low++)
            check_bfloat_rounding(value(h << 16 | low));
    }
    assert_int_equal(cv_f32_to_bf16(value(0x7f7fffff)), 0x7f80);
    assert_true(isnan(cv_bf16_to_f32(cv_f32_to_bf16(value(0x7f800001)))));
    cv_rng rng;
    cv_rng_seed(&rng, 2);
    for (int i = 0; i < 400000; i++)
        check_bfloat_rounding(value((uint32_t)cv_rng_next(&rng)));
}

/* Rows agree with single conversions at every length and alignment, and end where they should. */
static void check_rows(cv_dtype type)
{
    enum { MOST = 77 };
    float x[MOST + 1], y[MOST + 1];
    unsigned char raw[2 * MOST + 3];
    cv_rng rng;
    cv_rng_seed(&rng, 3);
    for (size_t n = 0; n <= MOST; n++) {
        for (size_t i = 0; i < n; i++) {
            x[i] = value((uint32_t)cv_rng_next(&rng));
            if (isnan(x[i])) x[i] = 0.0f;
        }
        memset(raw, 0xa5, sizeof raw);
        cv_from_f32(type, x, raw + 1, n);
        assert_int_equal(raw[0], 0xa5);
        assert_int_equal(raw[1 + 2 * n], 0xa5);
        y[n] = 42.0f;
        cv_to_f32(type, raw + 1, y, n);
        assert_true(y[n] == 42.0f);
        for (size_t i = 0; i < n; i++) {
            uint16_t h = type == CV_F16 ? cv_f32_to_f16(x[i]) : cv_f32_to_bf16(x[i]);
            assert_memory_equal(raw + 1 + 2 * i, &h, 2);
            float back = type == CV_F16 ? cv_f16_to_f32(h) : cv_bf16_to_f32(h);
            assert_int_equal(bits(y[i]), bits(back));
        }
    }
}

static void test_rows(void **state)
{
    (void)state;
    check_rows(CV_F16);
    check_rows(CV_BF16);
}

static void test_every_half_as_row(void **state)
{
    (void)state;
    static uint16_t h[65536], back[65536];
    static float f[65536];
    for (size_t i = 0; i < 65536; i++)
        h[i] = (uint16_t)i;
    cv_to_f32(CV_F16, h, f, 65536);
    cv_from_f32(CV_F16, f, back, 65536);
    for (size_t i = 0; i < 65536; i++) {
        assert_int_equal(bits(f[i]), bits(cv_f16_to_f32((uint16_t)i)));
        assert_int_equal(back[i], half_is_nan((unsigned)i) ? i | 0x200 : i);
    }
}

static void test_wide_floats(void **state)
{
    (void)state;
    const double in[] = { 0.1, -1e300, 1 + 0x1p-24, 1 + 0x1p-23, 1e-50, -0.0 };
    const float expected[] = { 0.1f, -INFINITY, 1.0f, 1 + 0x1p-23f, 0.0f, -0.0f };
    float out[6];
    double back[6];
    cv_to_f32(CV_F64, in, out, 6);
    assert_memory_equal(out, expected, sizeof out);
    cv_from_f32(CV_F64, out, back, 6);
    for (int i = 0; i < 6; i++)
        assert_true(back[i] == (double)expected[i]);
    float same[6];
    cv_to_f32(CV_F32, out, same, 6);
    assert_memory_equal(same, out, sizeof out);
    cv_from_f32(CV_F32, expected, same, 6);
    assert_memory_equal(same, out, sizeof out);
    cv_to_f32(CV_F32, NULL, NULL, 0); /* nothing is nothing */
    cv_from_f32(CV_Q4_K, NULL, NULL, 0);
}

static void check_integers(cv_dtype type, size_t bytes, double lo, double hi)
{
    const float in[] = { 0.0f, 2.5f, 3.5f, -2.5f, 1e30f, -1e30f, NAN, 100.0f };
    const double want[] = { 0, 2, 4, -2, 1e30, -1e30, 0, 100 };
    unsigned char raw[64];
    float out[8];
    cv_from_f32(type, in, raw, 8);
    cv_to_f32(type, raw, out, 8);
    for (int i = 0; i < 8; i++) {
        double expected = want[i] < lo ? lo : want[i] > hi ? hi : want[i];
        assert_true(out[i] == (float)expected);
    }
    size_t size;
    assert_true(cv_dtype_bytes(type, 8, &size));
    assert_int_equal(size, 8 * bytes);
}

static void test_integers(void **state)
{
    (void)state;
    check_integers(CV_I8, 1, -128, 127);
    check_integers(CV_U8, 1, 0, 255);
    check_integers(CV_I16, 2, -32768, 32767);
    check_integers(CV_I32, 4, -0x1p31, 0x1p31 - 1);
    check_integers(CV_I64, 8, -0x1p63, 0x1p63);
    const unsigned char truth[] = { 0, 1, 7 };
    float out[3];
    cv_to_f32(CV_BOOL, truth, out, 3);
    assert_true(out[0] == 0.0f && out[1] == 1.0f && out[2] == 1.0f);
}

/* ------------------------------------------------------------------------------------------------
 * The table. */

static const struct expectation {
    cv_dtype type;
    const char *name;
    size_t block, bytes, group;
    bool real, min;
} EXPECTED[] = {
    { CV_F32, "f32", 1, 4, 0, true, false },       { CV_F16, "f16", 1, 2, 0, true, false },
    { CV_BF16, "bf16", 1, 2, 0, true, false },     { CV_F64, "f64", 1, 8, 0, true, false },
    { CV_I8, "i8", 1, 1, 0, false, false },        { CV_I16, "i16", 1, 2, 0, false, false },
    { CV_I32, "i32", 1, 4, 0, false, false },      { CV_I64, "i64", 1, 8, 0, false, false },
    { CV_U8, "u8", 1, 1, 0, false, false },        { CV_BOOL, "bool", 1, 1, 0, false, false },
    { CV_Q4_0, "q4_0", 32, 18, 32, true, false },  { CV_Q4_1, "q4_1", 32, 20, 32, true, true },
    { CV_Q5_0, "q5_0", 32, 22, 32, true, false },  { CV_Q5_1, "q5_1", 32, 24, 32, true, true },
    { CV_Q8_0, "q8_0", 32, 34, 32, true, false },  { CV_Q4_K, "q4_k", 256, 144, 32, true, true },
    { CV_Q5_K, "q5_k", 256, 176, 32, true, true }, { CV_Q6_K, "q6_k", 256, 210, 16, true, false },
};

static void test_table(void **state)
{
    (void)state;
    assert_int_equal(sizeof EXPECTED / sizeof *EXPECTED, CV_DTYPES);
    for (int i = 0; i < CV_DTYPES; i++) {
        const struct expectation *e = &EXPECTED[i];
        const cv_dtype_info *info = cv_dtype_of(e->type);
        assert_string_equal(info->name, e->name);
        assert_int_equal(info->block, e->block);
        assert_int_equal(info->block_bytes, e->bytes);
        assert_int_equal(info->group, e->group);
        assert_int_equal(info->real, e->real);
        assert_int_equal(info->quantized, e->group > 0);
        assert_int_equal(info->has_min, e->min);
    }
    assert_null(cv_dtype_of(CV_DTYPES));
}

static void test_names(void **state)
{
    (void)state;
    cv_dtype type = CV_I8;
    for (int i = 0; i < CV_DTYPES; i++) {
        assert_true(cv_dtype_parse(EXPECTED[i].name, &type));
        assert_int_equal(type, EXPECTED[i].type);
    }
    assert_true(cv_dtype_parse("Q4_K", &type));
    assert_int_equal(type, CV_Q4_K);
    assert_true(cv_dtype_parse("BF16", &type));
    assert_int_equal(type, CV_BF16);
    const char *const bad[] = { "", "f", "f3", "f321", "q4", "q4_K_M", " f32", "f32 ", "q4 0" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(cv_dtype_parse(bad[i], &type));
    assert_false(cv_dtype_parse(NULL, &type));
    assert_int_equal(type, CV_BF16);
}

static void test_bytes(void **state)
{
    (void)state;
    size_t n = 7;
    assert_true(cv_dtype_bytes(CV_Q5_1, 0, &n));
    assert_int_equal(n, 0);
    for (int i = 0; i < CV_DTYPES; i++) {
        assert_true(cv_dtype_bytes((cv_dtype)i, 3 * EXPECTED[i].block, &n));
        assert_int_equal(n, 3 * EXPECTED[i].bytes);
        if (EXPECTED[i].block == 1) continue;
        n = 7;
        assert_false(cv_dtype_bytes((cv_dtype)i, EXPECTED[i].block + 1, &n));
        assert_false(cv_dtype_bytes((cv_dtype)i, EXPECTED[i].block / 2, &n));
        assert_int_equal(n, 7);
    }
    n = 7;
    assert_false(cv_dtype_bytes(CV_F32, SIZE_MAX / 4 + 1, &n));
    assert_false(cv_dtype_bytes(CV_Q8_0, SIZE_MAX - 31, &n));
    assert_false(cv_dtype_bytes(CV_DTYPES, 1, &n));
    assert_int_equal(n, 7);
    assert_true(cv_dtype_bytes(CV_F32, SIZE_MAX / 4, &n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_half),
        cmocka_unit_test(test_half_rounding_at_boundaries),
        cmocka_unit_test(test_half_rounding_at_random),
        cmocka_unit_test(test_bfloat),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_every_half_as_row),
        cmocka_unit_test(test_wide_floats),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
