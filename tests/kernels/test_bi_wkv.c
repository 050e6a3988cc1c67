/* test_bi_wkv.c - the three kernels of Bi-WKV, of every table, against the sums they stand for.
 *
 * Expected values are direct sums over all pairs of tokens in double, so that ref is judged as well;
 * then every table is compared with ref.  Arrays end at a fence, rows are further apart than they
 * are long.  [bi.linear] [bi.blocks] */
#include "kernel_check.h"

#include <float.h>

enum { MOST_T = CV_BI_SEGMENT, MOST_LD = CV_PANEL + 7, MOST_ROWS = MOST_T * MOST_LD };

static const size_t LENGTHS[] = { 1, 2, 3, 12, 31, 32, 33, 63, 64, 65, 197, 511, 512 };

/* Arrays of one call, each before a fence of its own. */
enum { K, V, Y, ARRAYS };
static fence fences[ARRAYS];

#define UNTOUCHED 12345.0f

/* What a block of 32 tokens may be off: 32 products with a power whose own rounding adds up, as many
 * additions, and the 16 blocks of a segment.  Half of it was seen; ref rounds little more than its
 * result. */
#define OFF     (24.0 * ROUNDING)
#define OFF_REF (4.0 * ROUNDING)

static double tolerance(const cv_kernels *table)
{
    return table->level == CV_CPU_REF ? OFF_REF : OFF;
}

/* A segment of 16 channels, dense; calls take the first n channels of it. */
typedef struct segment {
    size_t T;
    double w[16];
    cv_bi_decay decay;
    float self[16], scale[16], carry[4][16];
    float k[MOST_T][16], p[MOST_T][16], v[MOST_T][16];
    double power[MOST_T + 1][16]; /* e^(-j w) */
} segment;

static segment s;

static void fill_decay(void)
{
    for (size_t c = 0; c < 16; c++) {
        for (size_t j = 0; j <= MOST_T; j++)
            s.power[j][c] = exp(-(double)j * s.w[c]);
        for (size_t j = 0; j <= CV_BI_BLOCK; j++)
            s.decay.power[j][c] = (float)exp(-(double)j * s.w[c]);
        s.decay.rest[c] =
            (float)(exp(-(double)CV_BI_BLOCK * s.w[c]) - (double)s.decay.power[CV_BI_BLOCK][c]);
    }
}

/* A segment of a picture of `all` tokens; W up to `most` either way.  Others than a whole picture
 * have something before and behind them. */
static void make_segment(cv_rng *rng, size_t T, size_t all, float most, float keys)
{
    s.T = T;
    for (size_t c = 0; c < 16; c++) {
        s.w[c] = (double)random_between(rng, -most, most) / (double)all;
        s.self[c] = expf(random_between(rng, -3.0f, 3.0f));
        s.scale[c] = T == all ? 1.0f : random_between(rng, 0.01f, 1.0f);
    }
    fill_decay();
    for (size_t c = 0; c < 16; c++)
        for (size_t e = 0; e < 4; e++) {
            const float sum = T == all ? 0.0f : random_between(rng, 0.1f, 50.0f);
            s.carry[e][c] = e % 2 ? sum : sum * random_between(rng, -1.0f, 1.0f);
        }
    fill_normal(rng, s.k[0], T * 16, 0.0f, keys);
    fill_normal(rng, s.v[0], T * 16, 0.0f, 1.0f);
    for (size_t c = 0; c < 16; c++) {
        float top = s.k[0][c];
        for (size_t t = 1; t < T; t++)
            top = fmaxf(top, s.k[t][c]);
        for (size_t t = 0; t < T; t++)
            s.p[t][c] = (float)exp((double)s.k[t][c] - (double)top);
    }
}

/* ---- Calls ----------------------------------------------------------------------------------- */

/* How the channels of a call lie. */
typedef struct layout {
    size_t n, ld;
} layout;

static size_t extent(layout at)
{
    return (s.T - 1) * at.ld + at.n;
}

/* The first at.n channels of a segment's array, before a fence, with UNTOUCHED in the gaps. */
static float *spread(const fence *f, layout at, const float (*from)[16])
{
    float *x = fence_floats(f, extent(at));
    for (size_t i = 0; i < extent(at); i++)
        x[i] = i % at.ld < at.n ? from[i / at.ld][i % at.ld] : UNTOUCHED;
    return x;
}

/* And back, with a look at the gaps. */
static void collect(const cv_kernels *table, layout at, const float *x, float (*to)[16])
{
    for (size_t i = 0; i < extent(at); i++) {
        if (i % at.ld < at.n)
            to[i / at.ld][i % at.ld] = x[i];
        else if (x[i] != UNTOUCHED)
            fail_msg("%s: wrote between rows: T %zu, n %zu, ld %zu", table_name(table), s.T, at.n,
                     at.ld);
    }
}

/* tops [16]: only n of them are written. */
static void call_keys(const cv_kernels *table, layout at, float (*p)[16], float *tops)
{
    float *k = spread(&fences[K], at, (const float(*)[16])s.k);
    float *top = fence_floats(&fences[V], at.n);
    table->bi_keys(s.T, at.n, at.ld, k, top);
    collect(table, at, k, p);
    memcpy(tops, top, at.n * sizeof *top);
}

static void call_ends(const cv_kernels *table, layout at, float ends[4][16])
{
    const float *p = spread(&fences[K], at, (const float(*)[16])s.p);
    const float *v = spread(&fences[V], at, (const float(*)[16])s.v);
    table->bi_ends(s.T, at.n, at.ld, &s.decay, p, v, ends);
}

static void call_wkv(const cv_kernels *table, layout at, bool in_place, float (*y)[16])
{
    const float *p = spread(&fences[K], at, (const float(*)[16])s.p);
    float *v = spread(&fences[V], at, (const float(*)[16])s.v);
    float *out = in_place ? v : fence_floats(&fences[Y], extent(at));
    for (size_t i = 0; !in_place && i < extent(at); i++)
        out[i] = UNTOUCHED;
    table->bi_wkv(s.T, at.n, at.ld, &s.decay, s.self, s.scale, (const float(*)[16])s.carry, p, v,
                  out);
    collect(table, at, out, y);
}

/* ---- Expected values ------------------------------------------------------------------------- */

/* A sum, the same of absolute values (what roundings are measured by), and its weights. */
typedef struct weighed {
    double N, absolute, D;
} weighed;

static void add(weighed *sum, double weight, double value)
{
    sum->N += weight * value;
    sum->absolute += fabs(weight * value);
    sum->D += weight;
}

static weighed exact_end(size_t c, bool past)
{
    weighed sum = { 0.0, 0.0, 0.0 };
    for (size_t t = 0; t < s.T; t++)
        add(&sum, s.power[past ? s.T - 1 - t : t][c] * (double)s.p[t][c], (double)s.v[t][c]);
    return sum;
}

static void add_carry(weighed *sum, size_t c, size_t e, double power)
{
    sum->N += power * (double)s.carry[e][c];
    sum->absolute += power * fabs((double)s.carry[e][c]);
    sum->D += power * (double)s.carry[e + 1][c];
}

static weighed exact_y(size_t t, size_t c)
{
    const double scale = (double)s.scale[c];
    weighed sum = { 0.0, 0.0, 0.0 };
    add_carry(&sum, c, 0, s.power[t][c]);
    add_carry(&sum, c, 2, s.power[s.T - 1 - t][c]);
    for (size_t i = 0; i < s.T; i++) {
        const size_t distance = i < t ? t - i : i - t;
        const double weight = distance ? s.power[distance - 1][c] : (double)s.self[c];
        add(&sum, weight * scale * (double)s.p[i][c], (double)s.v[i][c]);
    }
    return sum;
}

/* ---- Comparisons ----------------------------------------------------------------------------- */

static void expect_near(const cv_kernels *table, const char *what, size_t t, size_t c, float got,
                        double exact, double off)
{
    if (!(fabs((double)got - exact) <= off))
        fail_msg("%s: %s, T %zu, w %g: [%zu][%zu] is %.9g, expected %.9g within %.2g",
                 table_name(table), what, s.T, s.w[c], t, c, (double)got, exact, off);
}

/* One exponential within 4 units in the last place; what is not a normal number may be 0. */
static void check_keys(const cv_kernels *table, layout at, float (*p)[16], const float *tops)
{
    for (size_t c = 0; c < at.n; c++) {
        float top = s.k[0][c];
        for (size_t t = 1; t < s.T; t++)
            top = fmaxf(top, s.k[t][c]);
        assert_true(tops[c] == top);
        for (size_t t = 0; t < s.T; t++) {
            const double exact = exp((double)(s.k[t][c] - top));
            expect_near(table, "bi_keys", t, c, p[t][c], exact,
                        8.0 * ROUNDING * exact + 2.0 * (double)FLT_MIN);
            if (s.k[t][c] == top) assert_true(p[t][c] == 1.0f);
        }
    }
}

static void check_ends(const cv_kernels *table, float ends[4][16])
{
    const double off = tolerance(table);
    for (size_t c = 0; c < 16; c++)
        for (size_t e = 0; e < 4; e += 2) {
            const weighed sum = exact_end(c, e == 0);
            expect_near(table, "bi_ends", e, c, ends[e][c], sum.N, off * sum.absolute);
            expect_near(table, "bi_ends", e + 1, c, ends[e + 1][c], sum.D, off * sum.D);
        }
}

/* y is a mean: what it may be off is measured by the same mean of absolute values. */
static void check_wkv(const cv_kernels *table, float (*y)[16], float (*ref)[16])
{
    const double off = tolerance(table);
    for (size_t t = 0; t < s.T; t++)
        for (size_t c = 0; c < 16; c++) {
            const weighed sum = exact_y(t, c);
            const double size = sum.absolute / sum.D;
            expect_near(table, "bi_wkv", t, c, y[t][c], sum.N / sum.D, off * size);
            expect_near(table, "bi_wkv beside ref", t, c, y[t][c], (double)ref[t][c],
                        (off + OFF_REF) * size);
        }
}

/* Whole segments: all 16 channels, side by side. */
static void check_values(const cv_kernels *table)
{
    const layout dense = { 16, 16 };
    static float p[MOST_T][16], y[MOST_T][16], ref[MOST_T][16];
    float tops[16], ends[4][16];
    call_keys(table, dense, p, tops);
    check_keys(table, dense, p, tops);
    call_ends(table, dense, ends);
    check_ends(table, ends);
    call_wkv(&cv_kernels_ref, dense, false, ref);
    call_wkv(table, dense, false, y);
    check_wkv(table, y, ref);
}

static void check_all_tables(void)
{
    const cv_kernels *table;
    for (size_t i = 0; (table = table_at(i)); i++)
        check_values(table);
}

/* Pictures of one segment, up to the largest weights that the fast way is used for. */
static void test_whole_pictures(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 70);
    for (size_t i = 0; i < COUNT(LENGTHS); i++)
        for (int kind = 0; kind < 4; kind++) {
            make_segment(&rng, LENGTHS[i], LENGTHS[i], kind % 2 ? 60.0f : 6.0f,
                         kind / 2 ? 20.0f : 1.0f);
            check_all_tables();
        }
}

/* Segments of long pictures, with sums from both sides. */
static void test_segments(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 71);
    for (size_t i = 0; i < COUNT(LENGTHS); i++)
        for (int kind = 0; kind < 4; kind++) {
            make_segment(&rng, LENGTHS[i], kind % 2 ? 1000 : 16384, kind / 2 ? 60.0f : 6.0f, 1.0f);
            check_all_tables();
        }
}

/* Keys of any size: the largest weighs one, and what is far below it nothing. */
static void test_extreme_keys(void **state)
{
    (void)state;
    static const float KEYS[] = { 3e38f, -3e38f, 88.0f, -104.0f, 0.0f, 1e-40f };
    cv_rng rng;
    cv_rng_seed(&rng, 72);
    const cv_kernels *table;
    make_segment(&rng, 65, 65, 1.0f, 80.0f);
    for (size_t c = 0; c < COUNT(KEYS); c++)
        s.k[c * 11][c] = KEYS[c];
    for (size_t i = 0; (table = table_at(i)); i++) {
        static float p[MOST_T][16];
        float tops[16];
        call_keys(table, (layout){ 16, 16 }, p, tops);
        check_keys(table, (layout){ 16, 16 }, p, tops);
    }
}

/* ---- Bits: what a channel becomes depends neither on where it lies nor on its neighbours ------ */

static void check_places(const cv_kernels *table, layout at)
{
    static float p[2][MOST_T][16], y[2][MOST_T][16];
    float tops[2][16], ends[2][4][16];
    for (size_t i = 0; i < 2; i++) {
        const layout place = i ? at : (layout){ 16, 16 };
        call_keys(table, place, p[i], tops[i]);
        call_ends(table, place, ends[i]);
        call_wkv(table, place, false, y[i]);
    }
    bool same = same_bits(tops[0], tops[1], at.n);
    for (size_t e = 0; e < 4; e++)
        same = same && same_bits(ends[0][e], ends[1][e], at.n);
    for (size_t t = 0; t < s.T; t++)
        same = same && same_bits(p[0][t], p[1][t], at.n) && same_bits(y[0][t], y[1][t], at.n);
    call_wkv(table, at, true, y[0]);
    for (size_t t = 0; t < s.T; t++)
        same = same && same_bits(y[0][t], y[1][t], at.n);
    if (!same)
        fail_msg("%s: T %zu, n %zu, ld %zu: not the bits of 16 channels side by side",
                 table_name(table), s.T, at.n, at.ld);
}

static void test_places(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 73);
    const cv_kernels *table;
    for (size_t i = 0; i < COUNT(LENGTHS); i++) {
        make_segment(&rng, LENGTHS[i], LENGTHS[i] + i % 2, 6.0f, 3.0f);
        for (size_t n = 1; n <= 16; n++)
            for (size_t gap = 0; gap <= 7; gap += gap ? 4 + n % 3 : 1)
                for (size_t t = 0; (table = table_at(t)); t++)
                    check_places(table, (layout){ n, n + gap });
    }
}

/* ---- NaN and infinity ------------------------------------------------------------------------ */

/* Channel c of every table is NaN throughout where `bad`, and a number elsewhere. */
static void check_nan(const bool bad[16], layout at)
{
    static float p[MOST_T][16], y[MOST_T][16];
    const cv_kernels *table;
    for (size_t i = 0; (table = table_at(i)); i++) {
        float tops[16], ends[4][16];
        static float keep[MOST_T][16];
        memcpy(keep, s.p, sizeof keep);
        call_keys(table, at, p, tops);
        memcpy(s.p, p, sizeof keep);
        call_ends(table, at, ends);
        call_wkv(table, at, false, y);
        memcpy(s.p, keep, sizeof keep);
        for (size_t c = 0; c < at.n; c++) {
            if ((isnan(ends[0][c]) != 0) != bad[c] || (isnan(ends[2][c]) != 0) != bad[c])
                fail_msg("%s: bi_ends, T %zu, n %zu, channel %zu", table_name(table), s.T, at.n, c);
            for (size_t t = 0; t < s.T; t++)
                if ((isnan(y[t][c]) != 0) != bad[c])
                    fail_msg("%s: bi_wkv, T %zu, n %zu: y[%zu][%zu] is %g", table_name(table), s.T,
                             at.n, t, c, (double)y[t][c]);
        }
    }
}

/* Every token sees all others: a NaN fills its channel, and stays in it. */
static void test_not_a_number(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 74);
    for (size_t i = 0; i < COUNT(LENGTHS); i++)
        for (size_t n = 5; n <= 16; n += 11) {
            const size_t T = LENGTHS[i];
            bool bad[16] = { [0] = true, [2] = true, [3] = true };
            make_segment(&rng, T, T, 3.0f, 1.0f);
            s.k[random_below(&rng, T)][0] = NAN;
            s.v[random_below(&rng, T)][2] = NAN;
            s.k[random_below(&rng, T)][3] = INFINITY;  /* inf - inf */
            s.k[random_below(&rng, T)][4] = -INFINITY; /* weighs nothing ... */
            bad[4] = T == 1;                           /* ... unless there is nothing else */
            check_nan(bad, (layout){ n, n + 3 });
        }
}

/* A key of -inf is a token that is not there: its value does not matter. */
static void test_absent_token(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 75);
    const cv_kernels *table;
    const layout dense = { 16, 16 };
    make_segment(&rng, 65, 65, 3.0f, 1.0f);
    for (size_t c = 0; c < 16; c++)
        s.k[40][c] = -INFINITY;
    for (size_t i = 0; (table = table_at(i)); i++) {
        static float p[MOST_T][16], y[2][MOST_T][16];
        float tops[16];
        call_keys(table, dense, p, tops);
        memcpy(s.p, p, s.T * sizeof p[0]);
        for (size_t round = 0; round < 2; round++) {
            for (size_t c = 0; c < 16; c++)
                s.v[40][c] = round ? 1e6f : -3.0f;
            call_wkv(table, dense, false, y[round]);
        }
        assert_true(same_bits(y[0][0], y[1][0], s.T * 16));
    }
}

static int make_fences(void **state)
{
    (void)state;
    for (int i = 0; i < ARRAYS; i++)
        fence_make(&fences[i], MOST_ROWS * sizeof(float));
    return 0;
}

static int free_fences(void **state)
{
    (void)state;
    for (int i = 0; i < ARRAYS; i++)
        fence_free(&fences[i]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_pictures), cmocka_unit_test(test_segments),
        cmocka_unit_test(test_extreme_keys),   cmocka_unit_test(test_places),
        cmocka_unit_test(test_not_a_number),   cmocka_unit_test(test_absent_token),
    };
    return cmocka_run_group_tests(tests, make_fences, free_fences);
}
