/* test_quant.c - quantized blocks: decoding against a decoder written here from the layouts, one
 * element at a time in double, and encoding against error bounds and a plain quantizer.
 * [quant.legacy] [quant.k] */
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "support.h"
#include "tensor/dtype.h"

#define MOST_BYTES 256

static const cv_dtype ALL[] = { CV_Q4_0, CV_Q4_1, CV_Q5_0, CV_Q5_1,
                                CV_Q8_0, CV_Q4_K, CV_Q5_K, CV_Q6_K };
#define N_ALL (sizeof ALL / sizeof *ALL)

/* ------------------------------------------------------------------------------------------------
 * The independent decoder: element i of a block. */

typedef struct element {
    int q;
    double scale, min;
} element;

static double half(const uint8_t *p)
{
    int h = p[0] + 256 * p[1], exponent = h / 1024 % 32, fraction = h % 1024;
    double v = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return h >= 32768 ? -v : v;
}

static int nibble(const uint8_t *p, int i, int distance)
{
    return i < distance ? p[i] % 16 : p[i - distance] / 16;
}

static int bit(const uint8_t *p, int i)
{
    return p[i / 8] >> i % 8 & 1;
}

static element legacy_element(cv_dtype type, const uint8_t *b, int i)
{
    switch (type) {
    case CV_Q4_0: return (element){ nibble(b + 2, i, 16) - 8, half(b), 0 };
    case CV_Q4_1: return (element){ nibble(b + 4, i, 16), half(b), half(b + 2) };
    case CV_Q5_0: return (element){ nibble(b + 6, i, 16) + 16 * bit(b + 2, i) - 16, half(b), 0 };
    case CV_Q5_1:
        return (element){ nibble(b + 8, i, 16) + 16 * bit(b + 4, i), half(b), half(b + 2) };
    default: return (element){ b[2 + i] < 128 ? b[2 + i] : b[2 + i] - 256, half(b), 0 };
    }
}

/* Scale and minimum number of group g, 0..7, from the twelve bytes. */
static int scale_number(const uint8_t *p, int g)
{
    return g < 4 ? p[g] % 64 : p[g + 4] % 16 + p[g - 4] / 64 * 16;
}

static int minimum_number(const uint8_t *p, int g)
{
    return g < 4 ? p[g + 4] % 64 : p[g + 4] / 16 + p[g] / 64 * 16;
}

static element super_element(cv_dtype type, const uint8_t *b, int i)
{
    if (type == CV_Q6_K) {
        int part = i / 128, quarter = i % 128 / 32, l = i % 32;
        int low = nibble(b + 64 * part, quarter * 32 + l, 64);
        int high = b[128 + 32 * part + l] >> 2 * quarter & 3;
        int number = b[192 + i / 16];
        if (number > 127) number -= 256;
        return (element){ low + 16 * high - 32, half(b + 208) * number, 0 };
    }
    int g = i / 32, q = nibble(b + (type == CV_Q4_K ? 16 : 48) + 32 * (g / 2), i % 64, 32);
    if (type == CV_Q5_K) q += 16 * (b[16 + i % 32] >> g & 1);
    return (element){ q, half(b) * scale_number(b + 4, g),
                      -half(b + 2) * minimum_number(b + 4, g) };
}

static element element_of(cv_dtype type, const uint8_t *b, int i)
{
    return type < CV_Q4_K ? legacy_element(type, b, i) : super_element(type, b, i);
}

/* ------------------------------------------------------------------------------------------------
 * Decoding. */

/* Random bytes, with halves that are finite: the exponent's lowest bit cleared where needed. */
static void random_block(cv_rng *rng, cv_dtype type, uint8_t *b)
{
    size_t bytes = cv_dtype_of(type)->block_bytes;
    for (size_t i = 0; i < bytes; i++)
        b[i] = (uint8_t)(cv_rng_next(rng) >> 40);
    size_t at[2] = { type == CV_Q6_K ? 208 : 0, cv_dtype_of(type)->has_min ? 2 : 0 };
    for (int k = 0; k < 2; k++)
        if (type != CV_Q6_K || k == 0)
            if ((b[at[k] + 1] & 0x7c) == 0x7c) b[at[k] + 1] &= (uint8_t)~0x04u;
}

static void check_block(cv_dtype type, const uint8_t *b)
{
    const cv_dtype_info *info = cv_dtype_of(type);
    float y[257], scale[16], min[16];
    int8_t q[257];
    y[info->block] = 42.0f;
    q[info->block] = 42;
    cv_to_f32(type, b, y, info->block);
    cv_unpack(type, b, q, scale, min);
    assert_true(y[info->block] == 42.0f && q[info->block] == 42);
    for (size_t i = 0; i < info->block; i++) {
        element e = element_of(type, b, (int)i);
        assert_int_equal(q[i], e.q);
        assert_true((double)scale[i / info->group] == e.scale);
        assert_true((double)min[i / info->group] == e.min);
        /* q * scale is exact or nearly (24 bits), so two roundings at most, on the sum's terms. */
        double product = e.q * e.scale, exact = product + e.min;
        assert_true(fabs((double)y[i] - exact) <= 0x1p-23 * (fabs(product) + fabs(e.min)));
    }
}

static void test_decoding_random_bytes(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 1);
    for (size_t k = 0; k < N_ALL; k++)
        for (int n = 0; n < 3000; n++) {
            uint8_t b[MOST_BYTES];
            random_block(&rng, ALL[k], b);
            check_block(ALL[k], b);
        }
}

/* Each bit of each byte alone, others zero but the scales: it lands where the layout says. */
static void test_decoding_single_bytes(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_ALL; k++) {
        cv_dtype type = ALL[k];
        size_t bytes = cv_dtype_of(type)->block_bytes, d = type == CV_Q6_K ? 208 : 0;
        for (size_t at = 0; at < bytes; at++)
            for (int v = 1; v < 512; v *= 2) {
                uint8_t b[MOST_BYTES] = { 0 };
                b[d + 1] = 0x3c;                             /* d = 1 */
                if (cv_dtype_of(type)->has_min) b[3] = 0x38; /* m = 1/2 */
                if (type == CV_Q4_K || type == CV_Q5_K) memset(b + 4, 0xff, 12);
                if (type == CV_Q6_K) memset(b + 192, 3, 16);
                b[at] = (uint8_t)(v < 256 ? v : 255);
                bool scale_byte = at == d + 1 || (at == 3 && cv_dtype_of(type)->has_min);
                if (scale_byte && v == 256) continue; /* no finite half */
                check_block(type, b);
            }
    }
}

static void test_decoding_by_hand(void **state)
{
    (void)state;
    float y[256];
    uint8_t q4[18] = { 0x00, 0xc0, 0x80 }; /* d = -2 */
    cv_to_f32(CV_Q4_0, q4, y, 32);
    assert_true(y[0] == 16.0f && y[16] == 0.0f && signbit(y[16]) && y[1] == 16.0f);
    uint8_t q5[24] = { 0x00, 0x3c, 0x00, 0xbe, 0x01, 0, 0, 0x80, 0x2f }; /* d = 1, m = -1.5 */
    q5[23] = 0xf0;
    cv_to_f32(CV_Q5_1, q5, y, 32);
    assert_true(y[0] == 29.5f && y[16] == 0.5f && y[15] == -1.5f && y[31] == 29.5f);
    uint8_t k4[144] = { 0x00, 0x3c, 0x00, 0x40 }; /* d = 1, dmin = 2 */
    k4[4] = 0x40 | 3;                             /* S[0] = 3, S[4] = 16 + ... */
    k4[8] = 0x80 | 5;                             /* M[0] = 5, M[4] = 32 + ... */
    k4[12] = 0x97;                                /* S[4] = 23, M[4] = 41 */
    k4[16] = 0x0a;
    k4[16 + 64] = 0x0b;
    cv_to_f32(CV_Q4_K, k4, y, 256);
    assert_true(y[0] == 20.0f && y[1] == -10.0f && y[32] == 0.0f);
    assert_true(y[128] == 171.0f && y[129] == -82.0f);
    uint8_t k6[210] = { 0 };
    k6[209] = 0x3c; /* d = 1 */
    k6[192] = 0xfe; /* S[0] = -2 */
    k6[0] = 0x05;
    k6[128] = 0x02; /* q[0] = 5 + 32 - 32 */
    cv_to_f32(CV_Q6_K, k6, y, 256);
    assert_true(y[0] == -10.0f && y[1] == 64.0f && y[16] == 0.0f);
}

static void test_rows_of_blocks(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 2);
    for (size_t k = 0; k < N_ALL; k++) {
        const cv_dtype_info *info = cv_dtype_of(ALL[k]);
        uint8_t raw[1 + 3 * MOST_BYTES]; /* odd address on purpose */
        float row[768], one[256];
        for (size_t b = 0; b < 3; b++)
            random_block(&rng, ALL[k], raw + 1 + b * info->block_bytes);
        cv_to_f32(ALL[k], raw + 1, row, 3 * info->block);
        for (size_t b = 0; b < 3; b++) {
            cv_to_f32(ALL[k], raw + 1 + b * info->block_bytes, one, info->block);
            assert_memory_equal(one, row + b * info->block, info->block * sizeof *one);
        }
    }
}

/* ------------------------------------------------------------------------------------------------
 * Encoding. */

/* Quantize and back; y gets the result.  Returns the squared error. */
static double there_and_back(cv_dtype type, const float *x, float *y, size_t n)
{
    size_t bytes;
    assert_true(cv_dtype_bytes(type, n, &bytes));
    uint8_t *raw = malloc(bytes + 1);
    assert_non_null(raw);
    raw[bytes] = 0x5a;
    cv_from_f32(type, x, raw, n);
    assert_int_equal(raw[bytes], 0x5a);
    cv_to_f32(type, raw, y, n);
    free(raw);
    double error = 0;
    for (size_t i = 0; i < n; i++)
        error += ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
    return error;
}

enum { N_DATA = 256 * 64 };
typedef enum shape { GAUSSIAN, HEAVY, SHIFTED, SKEWED, SHAPES } shape;

static void fill(float *x, size_t n, shape of, uint64_t seed)
{
    cv_rng rng;
    cv_rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        float v = cv_rng_normal(&rng);
        if (of == HEAVY) v /= fabsf(cv_rng_normal(&rng)) + 0.05f;
        if (of == SHIFTED) v += 3.0f;
        if (of == SKEWED) v = -v * v;
        x[i] = 0.02f * v;
    }
}

/* Half a step of the block's own scale, plus what rounding d and m to halves moves the ends; the
 * types without a minimum lack the level +2^(bits-1), so their far end may be off by a step. */
static void test_legacy_error_bound(void **state)
{
    (void)state;
    static const double LEVELS[] = {
        [CV_Q4_0] = 16, [CV_Q4_1] = 15, [CV_Q5_0] = 32, [CV_Q5_1] = 31, [CV_Q8_0] = 127
    };
    float x[N_DATA], y[N_DATA];
    for (shape of = GAUSSIAN; of < SHAPES; of++) {
        fill(x, N_DATA, of, 3);
        for (cv_dtype type = CV_Q4_0; type <= CV_Q8_0; type++) {
            bool min = cv_dtype_of(type)->has_min;
            there_and_back(type, x, y, N_DATA);
            for (size_t b = 0; b < N_DATA; b += 32) {
                double lo = HUGE_VAL, hi = -HUGE_VAL, most = 0;
                for (size_t i = b; i < b + 32; i++) {
                    lo = fmin(lo, (double)x[i]);
                    hi = fmax(hi, (double)x[i]);
                    most = fmax(most, fabs((double)x[i]));
                }
                double d = (min ? hi - lo : type == CV_Q8_0 ? most : 2 * most) / LEVELS[type];
                double slack = most * 0x1p-10;
                for (size_t i = b; i < b + 32; i++) {
                    double end = d * (LEVELS[type] / 2 - 1);
                    bool far_end = !min && type != CV_Q8_0 && fabs((double)x[i]) > end;
                    double bound = (far_end ? 1.0 : 0.5) * d + slack;
                    assert_true(fabs((double)y[i] - (double)x[i]) <= bound);
                }
            }
        }
    }
}

/* The rules for one block worked out by hand. */
static void test_legacy_rules(void **state)
{
    (void)state;
    float x[32] = { 0 };
    uint8_t b[34];
    x[0] = -8.0f;
    x[1] = 7.4f;
    x[2] = 0.5f;
    x[17] = -0.51f;
    x[18] = 9.0f; /* extreme, so d = 9 / -8 */
    cv_from_f32(CV_Q4_0, x, b, 32);
    const uint8_t q4[18] = { 0x80, 0xbc, 0x8f, 0x81, 0x08 }; /* -1.125 */
    assert_memory_equal(b, q4, 4);
    assert_int_equal(b[4], 0x08); /* 0.5 / -1.125 + 8.5 = 8.05 */
    x[18] = 7.0f;
    for (int i = 3; i < 32; i++)
        if (i != 17 && i != 18) x[i] = -8.0f;
    cv_from_f32(CV_Q4_1, x, b, 32); /* d = 15.4 / 15, m = -8 */
    assert_int_equal(b[2], 0x00);
    assert_int_equal(b[3], 0xc8);
    assert_int_equal(b[4], 0x00); /* x[0], x[16]: level 0 */
    assert_int_equal(b[5], 0x7f); /* 7.4: 15;  -0.51: 7.8 cut */
    for (int i = 0; i < 32; i++)
        x[i] = 0.0f;
    x[3] = -1.0f;
    x[5] = 1.0f;
    cv_from_f32(CV_Q5_0, x, b, 32); /* the first of two extremes decides: d = 1 / 16 */
    assert_int_equal(b[1], 0x2c);
    assert_int_equal(b[6 + 3] & 15, 0);
    assert_int_equal(b[6 + 5] & 15, 15);
    x[3] = x[5] = 0.0f;
    x[0] = -127.0f;
    x[1] = 2.5f;
    x[2] = -2.5f;
    cv_from_f32(CV_Q8_0, x, b, 32); /* half away from zero */
    const uint8_t q8[5] = { 0x00, 0x3c, 0x81, 0x03, 0xfd };
    assert_memory_equal(b, q8, 5);
}

static double rmse(cv_dtype type, shape of)
{
    static float x[N_DATA], y[N_DATA];
    fill(x, N_DATA, of, 4);
    return sqrt(there_and_back(type, x, y, N_DATA) / N_DATA);
}

static void test_more_bits_are_better(void **state)
{
    (void)state;
    static const cv_dtype ORDERS[][5] = {
        { CV_Q4_0, CV_Q5_0, CV_Q8_0, CV_F16, CV_F32 },
        { CV_Q4_1, CV_Q5_1, CV_Q8_0, CV_F16, CV_F32 },
        { CV_Q4_0, CV_Q4_K, CV_Q5_K, CV_Q6_K, CV_Q8_0 },
        { CV_Q4_1, CV_Q4_K, CV_Q5_1, CV_Q5_K, CV_F16 },
    };
    for (shape of = GAUSSIAN; of < SHAPES; of++)
        for (size_t k = 0; k < sizeof ORDERS / sizeof *ORDERS; k++)
            for (int i = 0; i < 4; i++) {
                /* Q8_0 spends its bits on both signs, Q6_K has half its group: close on outliers. */
                if (of != GAUSSIAN && k == 3) continue;
                assert_true(rmse(ORDERS[k][i + 1], of) < rmse(ORDERS[k][i], of));
            }
}

/* A plain quantizer of the same block shapes: range of each group, scales rounded to their number
 * of bits against the largest, nothing searched.  In double.  Returns the squared error. */
static double plain_error(const float *x, int width, int bits, bool min)
{
    double step[16], low[16], step_most = 0, low_most = 0, error = 0;
    int groups = 256 / width, top = (1 << bits) - 1;
    for (int g = 0; g < groups; g++) {
        double lo = 0, hi = 0;
        for (int i = g * width; i < (g + 1) * width; i++) {
            lo = fmin(lo, (double)x[i]);
            hi = fmax(hi, (double)x[i]);
        }
        step[g] = min ? (hi - lo) / top : fmax(hi, -lo) / (top / 2);
        low[g] = -lo;
        step_most = fmax(step_most, step[g]);
        low_most = fmax(low_most, low[g]);
    }
    for (int i = 0; i < 256; i++) {
        int g = i / width, numbers = min ? 63 : 127;
        double s = rint(step[g] / step_most * numbers) * step_most / numbers;
        double m = low_most > 0 ? rint(low[g] / low_most * 63) * low_most / 63 : 0;
        double from = min ? 0 : -top / 2 - 1, to = min ? top : top / 2;
        if (!min) m = 0;
        double q = s > 0 ? fmax(from, fmin(to, rint(((double)x[i] + m) / s))) : 0;
        double y = s * q - m;
        error += (y - (double)x[i]) * (y - (double)x[i]);
    }
    return error;
}

/* Searching must pay: block by block never worse than plain, and clearly better in sum. */
static void test_search_beats_plain(void **state)
{
    (void)state;
    static float x[N_DATA], y[256];
    for (shape of = GAUSSIAN; of < SHAPES; of++) {
        fill(x, N_DATA, of, 5);
        double ours[3] = { 0 }, plain[3] = { 0 };
        for (size_t b = 0; b < N_DATA; b += 256)
            for (int k = 0; k < 3; k++) {
                double a = there_and_back((cv_dtype)(CV_Q4_K + k), x + b, y, 256);
                double p = plain_error(x + b, k == 2 ? 16 : 32, 4 + k, k < 2);
                assert_true(a <= p);
                ours[k] += a;
                plain[k] += p;
            }
        for (int k = 0; k < 3; k++)
            assert_true(ours[k] < 0.95 * plain[k]);
    }
}

/* What a block holds after one round trip, it holds after the second: to the byte for the legacy
 * types (the extreme entry is a level, so d comes back), nearly for the searched ones. */
static void test_second_trip(void **state)
{
    (void)state;
    static float x[N_DATA], y[N_DATA], z[N_DATA];
    fill(x, N_DATA, GAUSSIAN, 6);
    for (size_t k = 0; k < N_ALL; k++) {
        double first = there_and_back(ALL[k], x, y, N_DATA);
        double second = there_and_back(ALL[k], y, z, N_DATA);
        if (ALL[k] < CV_Q4_K && !cv_dtype_of(ALL[k])->has_min)
            assert_memory_equal(y, z, sizeof y);
        else
            assert_true(second < 0.02 * first);
    }
}

/* ------------------------------------------------------------------------------------------------
 * Edges. */

static void test_zeros(void **state)
{
    (void)state;
    float x[256], y[256];
    for (int sign = 0; sign < 2; sign++)
        for (size_t k = 0; k < N_ALL; k++) {
            for (int i = 0; i < 256; i++)
                x[i] = sign ? -0.0f : 0.0f;
            assert_true(there_and_back(ALL[k], x, y, 256) == 0);
        }
}

/* Constant blocks come back within the rounding of a half scale: relative, or, where that scale is
 * a subnormal half, its 2^-25 times the largest factor that the type puts on it. */
static void test_constants(void **state)
{
    (void)state;
    static const float VALUES[] = { 1.0f, -1.0f, 0.0123f, -0.0123f, 300.0f, -7e-4f };
    static const float FACTOR[CV_DTYPES] = {
        [CV_Q4_0] = 8,   [CV_Q4_1] = 15,      [CV_Q5_0] = 16,      [CV_Q5_1] = 31,
        [CV_Q8_0] = 127, [CV_Q4_K] = 15 * 63, [CV_Q5_K] = 31 * 63, [CV_Q6_K] = 32 * 128,
    };
    float x[256], y[256];
    for (size_t v = 0; v < sizeof VALUES / sizeof *VALUES; v++)
        for (size_t k = 0; k < N_ALL; k++) {
            for (int i = 0; i < 256; i++)
                x[i] = VALUES[v];
            there_and_back(ALL[k], x, y, 256);
            for (int i = 0; i < 256; i++)
                assert_true(fabsf(y[i] - x[i]) <=
                            0x1p-10f * fabsf(x[i]) + FACTOR[ALL[k]] * 0x1p-25f);
        }
}

/* One huge entry: it survives, and groups other than its own keep what their scales can hold. */
static void test_single_outlier(void **state)
{
    (void)state;
    float x[256], y[256];
    for (int where = 0; where < 256; where += 85)
        for (int sign = -1; sign <= 1; sign += 2)
            for (size_t k = 0; k < N_ALL; k++) {
                fill(x, 256, GAUSSIAN, 7);
                x[where] = 5.0f * (float)sign;
                there_and_back(ALL[k], x, y, 256);
                assert_true(fabsf(y[where] - x[where]) < 0.02f * 5.0f);
                for (int i = 0; i < 256; i++)
                    assert_true(fabsf(y[i] - x[i]) < 0.75f * 5.0f / 7.0f);
            }
}

/* Entries so small that the scale is a subnormal half, or below any half: no blow-up, and the
 * searched types use what a subnormal scale can still say. */
static void test_tiny_scales(void **state)
{
    (void)state;
    float x[256], y[256];
    for (int exponent = -14; exponent > -150; exponent--)
        for (size_t k = 0; k < N_ALL; k++) {
            fill(x, 256, GAUSSIAN, 8);
            double energy = 0;
            for (int i = 0; i < 256; i++) {
                x[i] = ldexpf(x[i], exponent);
                energy += (double)x[i] * (double)x[i];
            }
            double error = there_and_back(ALL[k], x, y, 256);
            for (int i = 0; i < 256; i++)
                assert_true(isfinite(y[i]) && fabsf(y[i]) < 0x1p-15f);
            if (ALL[k] >= CV_Q4_K) assert_true(error <= energy);
        }
    fill(x, 256, GAUSSIAN, 8);
    double energy = 0;
    for (int i = 0; i < 256; i++) {
        x[i] = ldexpf(x[i], -12); /* about 5e-6 */
        energy += (double)x[i] * (double)x[i];
    }
    assert_true(there_and_back(CV_Q4_K, x, y, 256) < 0.02 * energy);
    assert_true(there_and_back(CV_Q6_K, x, y, 256) < 0.02 * energy);
}

/* Values beyond what a half scale reaches saturate; what is not finite must only do no harm. */
static void test_wild_values(void **state)
{
    (void)state;
    static const float WILD[] = { 3e38f, -3e38f, INFINITY, -INFINITY, NAN, 1e-45f, 65504.0f, 1e9f };
    float x[256], y[256];
    cv_rng rng;
    cv_rng_seed(&rng, 9);
    for (int trial = 0; trial < 200; trial++) {
        fill(x, 256, GAUSSIAN, (uint64_t)trial);
        for (int i = 0; i < 1 + trial % 40; i++)
            x[cv_rng_next(&rng) % 256] = WILD[cv_rng_next(&rng) % 8];
        for (size_t k = 0; k < N_ALL; k++)
            there_and_back(ALL[k], x, y, 256);
    }
    for (size_t v = 0; v < 8; v++)
        for (size_t k = 0; k < N_ALL; k++) {
            for (int i = 0; i < 256; i++)
                x[i] = WILD[v];
            there_and_back(ALL[k], x, y, 256);
            if (ALL[k] >= CV_Q4_K)
                for (int i = 0; i < 256; i++)
                    assert_true(isfinite(y[i]));
        }
    for (int i = 0; i < 256; i++)
        x[i] = i % 2 ? 1e9f : -1e9f;
    there_and_back(CV_Q6_K, x, y, 256);
    assert_true(y[0] < -1e8f && y[1] > 1e8f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoding_random_bytes),
        cmocka_unit_test(test_decoding_single_bytes),
        cmocka_unit_test(test_decoding_by_hand),
        cmocka_unit_test(test_rows_of_blocks),
        cmocka_unit_test(test_legacy_error_bound),
        cmocka_unit_test(test_legacy_rules),
        cmocka_unit_test(test_more_bits_are_better),
        cmocka_unit_test(test_search_beats_plain),
        cmocka_unit_test(test_second_trip),
        cmocka_unit_test(test_zeros),
        cmocka_unit_test(test_constants),
        cmocka_unit_test(test_single_outlier),
        cmocka_unit_test(test_tiny_scales),
        cmocka_unit_test(test_wild_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
