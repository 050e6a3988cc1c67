/* test_bi_wkv_back.c - Bi-WKV walked back, of every table, against the sums over all pairs of tokens
 * that its gradients are, in double; what they may be off is measured by the same sums of absolute
 * values.  Every array ends at a fence, rows are further apart than they are long.  [bi.linear] */
#include "kernel_check.h"

enum { MOST_T = 1030, MOST_LD = CV_PANEL + 7, MOST_ROWS = MOST_T * MOST_LD };

/* Arrays of one call, each before a fence of its own. */
enum { K, V, DK, DV, DW, DU, SCRATCH, ARRAYS };
static fence fences[ARRAYS];

#define UNTOUCHED 12345.0f

/* Half of it was seen, in pictures of 1000 tokens.  ref keeps its sums in f32. */
#define OFF     (32.0 * ROUNDING)
#define OFF_REF (12.0 * ROUNDING)

/* A number that stands for itself and for the size of what it was summed from. */
typedef struct sum {
    double value, size;
} sum;

/* A picture of 16 channels, dense, and what is expected; calls take the first n channels. */
typedef struct picture {
    size_t T;
    double w[16];
    cv_bi_decay decay;
    float self[16];
    float k[MOST_T][16], v[MOST_T][16], dy[MOST_T][16];
    sum dk[MOST_T][16], dv[MOST_T][16], dw[16], du[16];
} picture;

static picture pic;

static void add(sum *s, double factor, double value, double size)
{
    s->value += factor * value;
    s->size += fabs(factor) * size;
}

/* ---- Expected values ------------------------------------------------------------------------- */

/* What a distance weighs, for one channel: [0] the token itself, [d] e^(-(d - 1) w). */
static double near[MOST_T], p[MOST_T];

/* Token t of channel c: its share of all gradients. */
static void expect_token(size_t t, size_t c)
{
    double N = 0.0, absolute = 0.0, D = 0.0;
    for (size_t i = 0; i < pic.T; i++) {
        const double weight = near[i < t ? t - i : i - t] * p[i], v = (double)pic.v[i][c];
        N += weight * v;
        absolute += weight * fabs(v);
        D += weight;
    }
    const double y = N / D, size = absolute / D, g = (double)pic.dy[t][c] / D;
    for (size_t i = 0; i < pic.T; i++) {
        const size_t d = i < t ? t - i : i - t;
        const double share = g * near[d] * p[i], v = (double)pic.v[i][c];
        add(&pic.dv[i][c], share, 1.0, 1.0);
        add(&pic.dk[i][c], share, v - y, fabs(v) + size);
        if (d == 0)
            add(&pic.du[c], share, v - y, fabs(v) + size);
        else
            add(&pic.dw[c], -(double)(d - 1) * share, v - y, fabs(v) + size);
    }
}

static void expect_channel(size_t c)
{
    float top = pic.k[0][c];
    for (size_t t = 1; t < pic.T; t++)
        top = fmaxf(top, pic.k[t][c]);
    near[0] = (double)pic.self[c];
    for (size_t t = 0; t < pic.T; t++) {
        p[t] =
            exp((double)(pic.k[t][c] - top)); /* as a kernel has it: the roundings of sums count */
        if (t > 0) near[t] = exp(-(double)(t - 1) * pic.w[c]);
    }
    for (size_t t = 0; t < pic.T; t++)
        expect_token(t, c);
}

/* W up to `most` either way. */
static void make_picture(cv_rng *rng, size_t T, float most, float keys)
{
    memset(&pic, 0, sizeof pic);
    pic.T = T;
    for (size_t c = 0; c < 16; c++) {
        const double w = (double)random_between(rng, -most, most) / (double)T;
        pic.w[c] = w;
        pic.self[c] = expf(random_between(rng, -3.0f, 3.0f));
        for (size_t j = 0; j <= CV_BI_BLOCK; j++)
            pic.decay.power[j][c] = (float)exp(-(double)j * w);
        pic.decay.rest[c] =
            (float)(exp(-(double)CV_BI_BLOCK * w) - (double)pic.decay.power[CV_BI_BLOCK][c]);
    }
    fill_normal(rng, pic.k[0], T * 16, 0.0f, keys);
    fill_normal(rng, pic.v[0], T * 16, 0.0f, 1.0f);
    fill_normal(rng, pic.dy[0], T * 16, 0.0f, 1.0f);
    for (size_t c = 0; c < 16; c++)
        expect_channel(c);
}

/* ---- Calls ----------------------------------------------------------------------------------- */

typedef struct layout {
    size_t n, ld;
} layout;

typedef struct gradients {
    float dk[MOST_T][16], dv[MOST_T][16], dw[16], du[16];
} gradients;

static size_t extent(layout at)
{
    return (pic.T - 1) * at.ld + at.n;
}

/* The first at.n channels of an array of the picture, or `all` everywhere. */
static float *spread(int array, layout at, const float (*from)[16], float all)
{
    float *x = fence_floats(&fences[array], extent(at));
    for (size_t i = 0; i < extent(at); i++)
        x[i] = i % at.ld >= at.n ? UNTOUCHED : from ? from[i / at.ld][i % at.ld] : all;
    return x;
}

static void collect(const cv_kernels *table, layout at, const float *x, float (*to)[16])
{
    for (size_t i = 0; i < extent(at); i++) {
        if (i % at.ld < at.n)
            to[i / at.ld][i % at.ld] = x[i];
        else if (x[i] != UNTOUCHED)
            fail_msg("%s: wrote between rows: T %zu, n %zu, ld %zu", table_name(table), pic.T, at.n,
                     at.ld);
    }
}

/* What is added to begins with `before`. */
static void call(const cv_kernels *table, layout at, float before, gradients *got)
{
    cv_bi_back x = { .T = pic.T, .n = at.n, .ld = at.ld, .decay = &pic.decay, .self = pic.self };
    x.k = spread(K, at, (const float(*)[16])pic.k, 0.0f);
    x.v = spread(V, at, (const float(*)[16])pic.v, 0.0f);
    x.dk = spread(DK, at, NULL, before);
    x.dv = spread(DV, at, (const float(*)[16])pic.dy, 0.0f);
    x.dw = fence_floats(&fences[DW], at.n);
    x.du = fence_floats(&fences[DU], at.n);
    for (size_t c = 0; c < at.n; c++)
        x.dw[c] = x.du[c] = before;
    const size_t room = cv_bi_back_scratch(pic.T);
    x.scratch = fence_floats(&fences[SCRATCH], room);
    memset(x.scratch, 0xFF, room * sizeof *x.scratch); /* what is not written is no number */
    table->bi_wkv_back(&x);
    collect(table, at, x.dk, got->dk);
    collect(table, at, x.dv, got->dv);
    memcpy(got->dw, x.dw, at.n * sizeof *x.dw);
    memcpy(got->du, x.du, at.n * sizeof *x.du);
}

/* ---- Comparisons ----------------------------------------------------------------------------- */

static double worst; /* error by what is allowed */

static void expect_near(const cv_kernels *table, const char *what, size_t t, size_t c, float got,
                        sum want, double before)
{
    const double off = table->level == CV_CPU_REF ? OFF_REF : OFF;
    const double allowed = off * want.size + 2.0 * ROUNDING * fabs(before) + 1e-30;
    const double error = fabs((double)got - before - want.value);
    if (!(error <= allowed))
        fail_msg("%s: %s, T %zu, w %g: [%zu][%zu] is %.9g, expected %.9g within %.2g",
                 table_name(table), what, pic.T, pic.w[c], t, c, (double)got - before, want.value,
                 allowed);
    worst = fmax(worst, error / allowed);
}

static void check_values(const cv_kernels *table, layout at, float before)
{
    static gradients got;
    call(table, at, before, &got);
    for (size_t c = 0; c < at.n; c++) {
        for (size_t t = 0; t < pic.T; t++) {
            expect_near(table, "dv", t, c, got.dv[t][c], pic.dv[t][c], 0.0);
            expect_near(table, "dk", t, c, got.dk[t][c], pic.dk[t][c], (double)before);
        }
        expect_near(table, "dw", 0, c, got.dw[c], pic.dw[c], (double)before);
        expect_near(table, "du", 0, c, got.du[c], pic.du[c], (double)before);
    }
}

static const size_t LENGTHS[] = { 1, 2, 3, 12, 31, 32, 33, 63, 64, 65, 197, 512, MOST_T };

/* Weights as trained models have them, and up to the largest that are walked back this way. */
static void test_values(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 80);
    const cv_kernels *table;
    for (size_t i = 0; i < COUNT(LENGTHS); i++)
        for (int kind = 0; kind < 4; kind++) {
            make_picture(&rng, LENGTHS[i], kind % 2 ? 30.0f : 6.0f, kind / 2 ? 10.0f : 1.0f);
            for (size_t t = 0; (table = table_at(t)); t++) {
                check_values(table, (layout){ 16, 16 }, 0.0f);
                check_values(table, (layout){ 16, 23 }, -1.5f);
            }
        }
    print_message("largest error, by what is allowed: %.2f\n", worst);
}

static void test_fewer_channels(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 81);
    const cv_kernels *table;
    for (size_t T = 1; T <= 67; T += 33) {
        make_picture(&rng, T, 6.0f, 2.0f);
        for (size_t n = 1; n < 16; n++)
            for (size_t t = 0; (table = table_at(t)); t++)
                check_values(table, (layout){ n, n + n % 4 }, 0.5f);
    }
}

/* The same bits however far apart rows are. */
static void test_places(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 82);
    const cv_kernels *table;
    for (size_t T = 1; T <= 70; T += 23) {
        make_picture(&rng, T, 6.0f, 2.0f);
        for (size_t i = 0; (table = table_at(i)); i++) {
            static gradients near_by, apart;
            memset(&near_by, 0, sizeof near_by);
            memset(&apart, 0, sizeof apart);
            call(table, (layout){ 16, 16 }, 0.0f, &near_by);
            call(table, (layout){ 16, 21 }, 0.0f, &apart);
            assert_memory_equal(&near_by, &apart, sizeof near_by);
        }
    }
}

/* A NaN spreads over its channel, and to no other. */
static void test_not_a_number(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 83);
    const cv_kernels *table;
    make_picture(&rng, 65, 3.0f, 1.0f);
    pic.k[40][1] = NAN;
    pic.v[3][4] = NAN;
    pic.dy[64][9] = NAN;
    for (size_t i = 0; (table = table_at(i)); i++) {
        static gradients got;
        call(table, (layout){ 16, 16 }, 0.0f, &got);
        for (size_t c = 0; c < 16; c++) {
            const bool bad = c == 1 || c == 4 || c == 9;
            assert_int_equal(isnan(got.dw[c]) != 0, bad);
            assert_int_equal(isnan(got.du[c]) != 0, bad);
            for (size_t t = 0; t < pic.T; t++)
                assert_int_equal(isnan(got.dk[t][c]) != 0, bad);
        }
    }
}

static int make_fences(void **state)
{
    (void)state;
    for (int i = 0; i < ARRAYS; i++)
        fence_make(&fences[i], i == SCRATCH ? cv_bi_back_scratch(MOST_T) * sizeof(float)
                                            : MOST_ROWS * sizeof(float));
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
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_fewer_channels),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_not_a_number),
    };
    return cmocka_run_group_tests(tests, make_fences, free_fences);
}
