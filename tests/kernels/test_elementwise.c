/* test_elementwise.c - the vector functions of every table against double and against ref.
 *
 * The functions of one argument are swept over all floats in small steps; their largest error, in
 * units in the last place, is printed and held.  Sizes run over every tail; vectors end at a
 * fence, so that a load or store past the end faults. */
#include "kernel_check.h"

#include <float.h>

enum { MOST = 257 };

static fence in_fence, in2_fence, in3_fence, out_fence;

/* ---- functions of one argument -------------------------------------------------------------- */

typedef void map_fn(size_t n, const float *x, float *y);

/* e^x below this is nearly subnormal; the tables may give zero for it. */
#define LOWEST (-87.3)

static double exact_exp(double x)
{
    return exp(x);
}

static double exact_sigmoid(double x)
{
    return x < 0.0 ? exp(x) / (1.0 + exp(x)) : 1.0 / (1.0 + exp(-x));
}

static double exact_silu(double x)
{
    return x * exact_sigmoid(x);
}

static double exact_relu2(double x)
{
    return x > 0.0 ? x * x : 0.0;
}

static double exact_decay6(double x)
{
    return exp(-exp(x));
}

static double exact_decay7(double x)
{
    return exp(-0.60653065971263342 * exact_sigmoid(x));
}

static map_fn *map_of(const cv_kernels *table, size_t which)
{
    map_fn *const maps[] = { table->exp,   table->sigmoid, table->tanh,  table->silu,
                             table->relu2, table->decay6,  table->decay7 };
    return maps[which];
}

/* The units allowed; below `lo` the value is at most `beyond` from the exact one, which there is too
 * small for a float to hold well.  decay6 is measured in units of one: e^x multiplies the error of
 * its exponent, by at most 1/e altogether. */
static const struct {
    const char *name;
    double (*exact)(double x);
    double units;
    double lo, beyond;
    bool absolute;
} FUNCTIONS[] = {
    { "exp", exact_exp, 4.0, LOWEST, 1.22e-38, false },
    { "sigmoid", exact_sigmoid, 8.0, LOWEST, 1.22e-38, false },
    { "tanh", tanh, 4.0, -DBL_MAX, 0.0, false },
    { "silu", exact_silu, 8.0, LOWEST, 1.1e-36, false },
    { "relu2", exact_relu2, 0.5, -DBL_MAX, 0.0, false },
    { "decay6", exact_decay6, 2.0, -DBL_MAX, 0.0, true },
    { "decay7", exact_decay7, 8.0, -DBL_MAX, 0.0, false },
};
enum { N_FUNCTIONS = COUNT(FUNCTIONS), BLOCK = 1024 };

/* The distance between floats around a value; between subnormal ones below the normal. */
static double unit_at(double value)
{
    int e;
    frexp(value, &e);
    return ldexp(1.0, (e < -125 ? -125 : e > 128 ? 128 : e) - 24);
}

/* What is beyond the largest float counts as the next one there would be, infinity too. */
static double bounded(double value)
{
    return fmin(value, 0x1p128);
}

/* The errors of one function over n arguments; the largest goes to *worst. */
static void measure(size_t which, const cv_kernels *table, const float *x, const double *exact,
                    size_t n, double *worst, float *worst_at)
{
    float y[BLOCK];
    map_of(table, which)(n, x, y);
    for (size_t i = 0; i < n; i++) {
        const double value = (double)x[i], difference = fabs(bounded((double)y[i]) - exact[i]);
        if (value < FUNCTIONS[which].lo) {
            if (!(difference <= FUNCTIONS[which].beyond))
                fail_msg("%s: %s(%a) = %a, expected about %a", table_name(table),
                         FUNCTIONS[which].name, value, (double)y[i], exact[i]);
            continue;
        }
        const double units = difference / (FUNCTIONS[which].absolute ? 0x1p-24 : unit_at(exact[i]));
        if (!(units <= *worst)) {
            *worst = units;
            *worst_at = x[i];
        }
    }
}

/* Arguments to sweep: the bit patterns of both signs from `first` on, `step` apart. */
static size_t sweep_floats(uint32_t *bits, uint32_t last, uint32_t step, float *x)
{
    size_t n = 0;
    for (; n + 2 <= BLOCK && *bits <= last; *bits += step) {
        x[n++] = float_of(*bits);
        x[n++] = -float_of(*bits);
    }
    return n;
}

static void check_sweep(size_t which, uint32_t first, uint32_t last, uint32_t step, double *worst,
                        float *worst_at)
{
    float x[BLOCK];
    double exact[BLOCK];
    for (uint32_t bits = first; bits <= last;) {
        const size_t n = sweep_floats(&bits, last, step, x);
        for (size_t i = 0; i < n; i++)
            exact[i] = bounded(FUNCTIONS[which].exact((double)x[i]));
        const cv_kernels *table;
        for (size_t t = 0; (table = table_at(t)); t++)
            measure(which, table, x, exact, n, &worst[t], &worst_at[t]);
    }
}

/* All finite floats in wide steps; in narrow ones those between 2^-12 and 128, where functions
 * change; and each of those beside the places where arguments are clamped. */
static void test_errors(void **state)
{
    (void)state;
    const float corners[] = { 87.3f, 88.3f, 88.72f, 30.0f, 15.0f, 0.34657f, 0.17329f, 4.47f };
    for (size_t which = 0; which < N_FUNCTIONS; which++) {
        double worst[4] = { 0.0 };
        float at[4] = { 0.0f };
        check_sweep(which, 0, 0x7f7fffff, 8191, worst, at);
        check_sweep(which, 0x7f7fff00, 0x7f7fffff, 1, worst, at);
        check_sweep(which, 0x39800000, 0x43000000, 509, worst, at);
        for (size_t i = 0; i < COUNT(corners); i++) {
            uint32_t bits;
            memcpy(&bits, &corners[i], sizeof bits);
            check_sweep(which, bits - 300, bits + 300, 1, worst, at);
        }
        const cv_kernels *table;
        for (size_t t = 0; (table = table_at(t)); t++) {
            print_message("%-7s %-7s at most %6.2f units %s off, at %.8g\n", FUNCTIONS[which].name,
                          table_name(table), worst[t],
                          FUNCTIONS[which].absolute ? "of 2^-24" : "in the last place",
                          (double)at[t]);
            if (!(worst[t] <= FUNCTIONS[which].units))
                fail_msg("%s: %s is %.2f units off at %a, more than %.1f", table_name(table),
                         FUNCTIONS[which].name, worst[t], (double)at[t], FUNCTIONS[which].units);
        }
    }
}

static void test_not_a_number(void **state)
{
    (void)state;
    const float special[] = { NAN, -NAN, float_of(0x7f800001), float_of(0xffffffff) };
    const cv_kernels *table;
    for (size_t t = 0; (table = table_at(t)); t++)
        for (size_t which = 0; which < N_FUNCTIONS; which++)
            for (size_t v = 0; v < COUNT(special); v++)
                for (size_t n = 1; n <= 33; n++) {
                    float x[33], y[33];
                    for (size_t i = 0; i < n; i++)
                        x[i] = 0.25f;
                    x[n / 2] = special[v];
                    map_of(table, which)(n, x, y);
                    for (size_t i = 0; i < n; i++)
                        assert_int_equal(isnan(y[i]) != 0, i == n / 2);
                }
}

/* Limits at the infinities; silu(-inf) is -inf times zero. */
static void test_infinities(void **state)
{
    (void)state;
    const float inf[] = { INFINITY, -INFINITY };
    float y[2];
    const cv_kernels *table;
    for (size_t t = 0; (table = table_at(t)); t++) {
        table->exp(2, inf, y);
        assert_true(y[0] == INFINITY && y[1] == 0.0f);
        table->sigmoid(2, inf, y);
        assert_true(y[0] == 1.0f && y[1] == 0.0f);
        table->tanh(2, inf, y);
        assert_true(y[0] == 1.0f && y[1] == -1.0f);
        table->silu(2, inf, y);
        assert_true(y[0] == INFINITY && isnan(y[1]));
        table->relu2(2, inf, y);
        assert_true(y[0] == INFINITY && y[1] == 0.0f);
        table->decay6(2, inf, y);
        assert_true(y[0] == 0.0f && y[1] == 1.0f);
        table->decay7(2, inf, y);
        assert_true(fabs((double)y[0] - exp(-0.60653065971263342)) < 1e-6 && y[1] == 1.0f);
    }
}

/* All lengths, in place and not; each element must not depend on where it stands. */
static void check_lengths(const cv_kernels *table, size_t which, cv_rng *rng)
{
    for (size_t n = 0; n <= MOST; n++) {
        float one[MOST];
        float *x = fence_floats(&in_fence, n), *y = fence_floats(&out_fence, n + 3);
        fill_normal(rng, x, n, 0.0f, 4.0f);
        fill_normal(rng, y, n + 3, 0.0f, 1.0f);
        float after[3];
        memcpy(after, y + n, sizeof after);
        map_of(table, which)(n, x, y);
        assert_true(same_bits(after, y + n, 3));
        for (size_t i = 0; i < n; i++)
            map_of(table, which)(1, x + i, one + i);
        if (!same_bits(one, y, n))
            fail_msg("%s: %s of %zu values depends on the place", table_name(table),
                     FUNCTIONS[which].name, n);
        float *end = fence_floats(&out_fence, n);
        map_of(table, which)(n, x, end);
        assert_true(same_bits(one, end, n));
        map_of(table, which)(n, x, x);
        assert_true(same_bits(one, x, n));
    }
}

static void test_lengths(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 1);
    const cv_kernels *table;
    for (size_t t = 0; (table = table_at(t)); t++)
        for (size_t which = 0; which < N_FUNCTIONS; which++)
            check_lengths(table, which, &rng);
}

/* relu2 rounds once, so every table gives the same bits (but for the sign of zero). */
static void test_relu2_is_exact(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 2);
    float x[MOST], y[MOST];
    const cv_kernels *table;
    for (size_t t = 0; (table = table_at(t)); t++) {
        fill_normal(&rng, x, MOST, 0.0f, 1e3f);
        table->relu2(MOST, x, y);
        for (size_t i = 0; i < MOST; i++)
            assert_true(y[i] == (x[i] > 0.0f ? x[i] * x[i] : 0.0f));
    }
}

/* ---- rows ----------------------------------------------------------------------------------- */

static void check_layer_norm(const cv_kernels *table, cv_rng *rng, size_t n, float middle,
                             float eps)
{
    float *x = fence_floats(&in_fence, n), *w = fence_floats(&in2_fence, n);
    float *b = fence_floats(&in3_fence, n), *y = fence_floats(&out_fence, n);
    fill_normal(rng, x, n, middle, 1.0f);
    fill_normal(rng, w, n, 1.0f, 0.5f);
    fill_normal(rng, b, n, 0.0f, 0.5f);
    table->layer_norm(n, x, w, b, eps, NULL, y);

    double mean = 0.0, var = 0.0, largest = 0.0;
    for (size_t i = 0; i < n; i++) {
        mean += (double)x[i] / (double)n;
        largest = fmax(largest, fabs((double)x[i]));
    }
    for (size_t i = 0; i < n; i++)
        var += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
    const double s = 1.0 / sqrt(var + (double)eps);
    /* The mean of floats is off by a rounding per addition of a lane, of sums of size |x|. */
    const double mean_off = ROUNDING * largest * ((double)n / 4.0 + 4.0);
    for (size_t i = 0; i < n; i++) {
        const double h = ((double)x[i] - mean) * s;
        const double exact = h * (double)w[i] + (double)b[i];
        const double h_off = mean_off * s * (1.0 + fabs(h) * mean_off * s) +
                             ROUNDING * fabs(h) * ((double)n / 4.0 + 8.0);
        const double bound = fabs((double)w[i]) * h_off +
                             4.0 * ROUNDING * (fabs(h * (double)w[i]) + fabs((double)b[i]));
        if (!(fabs((double)y[i] - exact) <= bound))
            fail_msg("%s: layer_norm of %zu around %g: [%zu] is %.9g, expected %.9g within %.2g",
                     table_name(table), n, (double)middle, i, (double)y[i], exact, bound);
    }
    float copy[MOST], xh[MOST];
    memcpy(copy, y, n * sizeof *y);
    const float scale = table->layer_norm(n, x, w, b, eps, xh, x);
    assert_true(same_bits(copy, x, n));
    assert_true(fabs((double)scale - s) <=
                s * (1.0 + mean_off * s) * mean_off * s + ROUNDING * s * ((double)n / 4.0 + 8.0));
    for (size_t i = 0; i < n; i++)
        assert_true(fabs((double)(xh[i] * w[i] + b[i] - y[i])) <=
                    4.0 * ROUNDING * (fabs((double)(xh[i] * w[i])) + fabs((double)b[i])));
}

static void test_layer_norm(void **state)
{
    (void)state;
    const float middles[] = { 0.0f, 10.0f, -1000.0f, 1e4f };
    cv_rng rng;
    cv_rng_seed(&rng, 3);
    const cv_kernels *table;
    for (size_t t = 0; (table = table_at(t)); t++)
        for (size_t n = 1; n <= MOST; n++)
            for (size_t m = 0; m < COUNT(middles); m++)
                check_layer_norm(table, &rng, n, middles[m], m % 2 ? 1e-5f : 64e-5f);
}

/* Back through the norm of a row, set, added, and in the place of dy. */
static void check_layer_norm_back(const cv_kernels *table, cv_rng *rng, size_t n)
{
    float *xh = fence_floats(&in_fence, n), *w = fence_floats(&in2_fence, n);
    float *dy = fence_floats(&in3_fence, n), *dx = fence_floats(&out_fence, n);
    float before[MOST];
    const float scale = 0.37f;
    fill_normal(rng, xh, n, 0.0f, 1.0f);
    fill_normal(rng, w, n, 1.0f, 0.5f);
    fill_normal(rng, dy, n, 0.0f, 2.0f);
    fill_normal(rng, before, n, 0.0f, 1.0f);

    double mean = 0.0, slope = 0.0, sizes = 0.0, slopes = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double h = (double)dy[i] * (double)w[i];
        mean += h / (double)n;
        slope += h * (double)xh[i] / (double)n;
        sizes += fabs(h) / (double)n;
        slopes += fabs(h * (double)xh[i]) / (double)n;
    }
    for (size_t pass = 0; pass < 3; pass++) {
        const bool add = pass == 1;
        float *to = pass == 2 ? dy : dx;
        if (pass < 2) memcpy(dx, before, n * sizeof *dx);
        double exact[MOST], bound[MOST];
        for (size_t i = 0; i < n; i++) {
            const double h = (double)dy[i] * (double)w[i], x = (double)xh[i];
            const double size = fabs(h) + sizes + fabs(x) * slopes;
            exact[i] = (h - mean - x * slope) * (double)scale + (add ? (double)before[i] : 0.0);
            bound[i] = ROUNDING * (size * (double)scale * ((double)n / 4.0 + 8.0) +
                                   2.0 * fabs((double)before[i]));
        }
        table->layer_norm_back(n, xh, scale, w, dy, add, to);
        for (size_t i = 0; i < n; i++)
            if (!(fabs((double)to[i] - exact[i]) <= bound[i]))
                fail_msg("%s: layer_norm_back of %zu, pass %zu: [%zu] is %.9g, expected %.9g",
                         table_name(table), n, pass, i, (double)to[i], exact[i]);
    }
}

static void test_layer_norm_back(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 4);
    const cv_kernels *table;
    for (size_t t = 0; (table = table_at(t)); t++)
        for (size_t n = 1; n <= MOST; n++)
            check_layer_norm_back(table, &rng, n);
}

/* Equal values have no variance: only the bias is left.  NaN makes everything NaN. */
static void test_layer_norm_degenerate(void **state)
{
    (void)state;
    float x[MOST], w[MOST], b[MOST], y[MOST];
    const cv_kernels *table;
    for (size_t t = 0; (table = table_at(t)); t++)
        for (size_t n = 1; n <= MOST; n++) {
            for (size_t i = 0; i < n; i++) {
                x[i] = 3.0f;
                w[i] = 2.0f;
                b[i] = (float)i;
            }
            table->layer_norm(n, x, w, b, 1e-5f, NULL, y);
            for (size_t i = 0; i < n; i++)
                assert_true(fabsf(y[i] - b[i]) <= 1e-3f);
            x[n / 2] = NAN;
            table->layer_norm(n, x, w, b, 1e-5f, NULL, y);
            for (size_t i = 0; i < n; i++)
                assert_true(isnan(y[i]));
        }
}

static void test_lerp(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 4);
    const cv_kernels *table;
    for (size_t t = 0; (table = table_at(t)); t++)
        for (size_t n = 0; n <= MOST; n++) {
            float *z = fence_floats(&in_fence, n), *prev = fence_floats(&in2_fence, n);
            float *mu = fence_floats(&in3_fence, n), *y = fence_floats(&out_fence, n);
            fill_normal(&rng, z, n, 1.0f, 2.0f);
            fill_normal(&rng, prev, n, 0.0f, 2.0f);
            fill_between(&rng, mu, n, 0.0f, 1.0f);
            table->lerp(n, z, prev, mu, y);
            for (size_t i = 0; i < n; i++) {
                const double d = ((double)prev[i] - (double)z[i]) * (double)mu[i];
                const double bound = ROUNDING * (2.0 * fabs((double)z[i]) + 3.0 * fabs(d));
                assert_true(fabs((double)y[i] - ((double)z[i] + d)) <= bound);
            }
            if (n == 0) continue;
            z[n - 1] = NAN;
            table->lerp(n, z, prev, mu, y);
            assert_true(isnan(y[n - 1]));
            for (size_t i = 0; i + 1 < n; i++)
                assert_true(isfinite(y[i]));
        }
}

static void test_mul(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 11);
    const cv_kernels *table;
    for (size_t t = 0; (table = table_at(t)); t++)
        for (size_t n = 0; n <= MOST; n++) {
            float *a = fence_floats(&in_fence, n), *b = fence_floats(&in2_fence, n);
            float *start = fence_floats(&in3_fence, n), *y = fence_floats(&out_fence, n);
            fill_normal(&rng, a, n, 0.0f, 2.0f);
            fill_normal(&rng, b, n, 0.5f, 1.0f);
            fill_normal(&rng, start, n, 0.0f, 1.0f);
            if (n) b[n - 1] = NAN;
            memcpy(y, start, n * sizeof *y);
            table->mul_add(n, a, b, y);
            for (size_t i = 0; i + 1 < n; i++) {
                const double product = (double)a[i] * (double)b[i];
                const double bound = ROUNDING * (fabs((double)start[i]) + 2.0 * fabs(product));
                assert_true(fabs((double)y[i] - ((double)start[i] + product)) <= 2.0 * bound);
            }
            if (n) assert_true(isnan(y[n - 1]));
            table->mul(n, a, b, y);
            for (size_t i = 0; i + 1 < n; i++)
                assert_true(y[i] == a[i] * b[i]);
            if (n) assert_true(isnan(y[n - 1]));
            memcpy(y, a, n * sizeof *y);
            table->mul(n, y, b, y); /* in place */
            for (size_t i = 0; i + 1 < n; i++)
                assert_true(y[i] == a[i] * b[i]);
        }
}

static void test_dot(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 5);
    const cv_kernels *table;
    for (size_t t = 0; (table = table_at(t)); t++)
        for (size_t n = 0; n <= MOST; n++) {
            float *a = fence_floats(&in_fence, n), *b = fence_floats(&in2_fence, n);
            fill_normal(&rng, a, n, 0.0f, 1.0f);
            fill_normal(&rng, b, n, 0.5f, 1.0f);
            double sum = 0.0, size = 0.0;
            for (size_t i = 0; i < n; i++) {
                sum += (double)a[i] * (double)b[i];
                size += fabs((double)a[i] * (double)b[i]);
            }
            const float got = table->dot(n, a, b);
            assert_true(fabs((double)got - sum) <= ROUNDING * (double)(n + 1) * size);
            for (size_t i = 0; i < n; i++) { /* no value is left out */
                const float keep = a[i];
                a[i] = NAN;
                assert_true(isnan(table->dot(n, a, b)));
                a[i] = keep;
            }
        }
}

static int make_fences(void **state)
{
    (void)state;
    fence_make(&in_fence, (MOST + 3) * sizeof(float));
    fence_make(&in2_fence, MOST * sizeof(float));
    fence_make(&in3_fence, MOST * sizeof(float));
    fence_make(&out_fence, (MOST + 3) * sizeof(float));
    return 0;
}

static int free_fences(void **state)
{
    (void)state;
    fence_free(&in_fence);
    fence_free(&in2_fence);
    fence_free(&in3_fence);
    fence_free(&out_fence);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_infinities),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_relu2_is_exact),
        cmocka_unit_test(test_layer_norm),
        cmocka_unit_test(test_layer_norm_back),
        cmocka_unit_test(test_layer_norm_degenerate),
        cmocka_unit_test(test_lerp),
        cmocka_unit_test(test_mul),
        cmocka_unit_test(test_dot),
    };
    return cmocka_run_group_tests(tests, make_fences, free_fences);
}
