/* test_gelu.c - GELU and its slope, of every table, against double: over floats of every size, every
 * tail, and what is no number. */
#include "kernel_check.h"

enum { BLOCK = 256 };

static double exact(double x)
{
    return 0.5 * x * erfc(-x * 0.70710678118654752);
}

static double exact_slope(double x)
{
    return 0.5 * erfc(-x * 0.70710678118654752) + x * 0.39894228040143268 * exp(-0.5 * x * x);
}

/* The distance between floats around a value. */
static double unit_at(double value)
{
    int exponent;
    frexp(value, &exponent);
    return ldexp(1.0, exponent < -125 ? -149 : exponent - 24);
}

/* Floats of both signs in small steps; beyond 16 there is nothing new. */
static size_t next_block(float *x, uint32_t *bits)
{
    size_t n = 0;
    for (; n + 2 <= BLOCK && *bits < 0x41900000u; *bits += 1009, n += 2) {
        memcpy(&x[n], bits, sizeof *x);
        x[n + 1] = -x[n];
    }
    return n;
}

static void test_values(void **state)
{
    (void)state;
    const cv_kernels *table;
    for (size_t i = 0; (table = table_at(i)); i++) {
        double worst = 0.0, worst_slope = 0.0;
        uint32_t bits = 0x2f000000u;
        float x[BLOCK], y[BLOCK], dy[BLOCK];
        for (size_t n; (n = next_block(x, &bits)) > 0;) {
            table->gelu(n, x, y);
            for (size_t c = 0; c < n; c++)
                dy[c] = 1.0f;
            table->gelu_back(n, x, dy);
            for (size_t c = 0; c < n; c++) {
                const double want = exact((double)x[c]), error = fabs((double)y[c] - want);
                const double slope = fabs((double)dy[c] - exact_slope((double)x[c]));
                if (fabs(want) > 1e-36)
                    worst = fmax(worst, error / unit_at(want));
                else
                    assert_true(error <= 1e-36); /* below e^-87 the tables may give zero */
                worst_slope = fmax(worst_slope, slope);
            }
        }
        print_message("%-7s gelu within %.2f units, its slope within %.1e\n", table_name(table),
                      worst, worst_slope);
        assert_true(worst <= 8.0 && worst_slope <= 0x1p-22);
    }
}

static void test_tails(void **state)
{
    (void)state;
    const cv_kernels *table;
    fence in, out;
    fence_make(&in, 4096);
    fence_make(&out, 4096);
    for (size_t i = 0; (table = table_at(i)); i++)
        for (size_t n = 0; n <= 70; n++) {
            float *x = fence_floats(&in, n), *y = fence_floats(&out, n);
            for (size_t c = 0; c < n; c++) {
                x[c] = (float)c * 0.125f - 4.0f;
                y[c] = 3.0f;
            }
            table->gelu_back(n, x, y);
            for (size_t c = 0; c < n; c++)
                assert_true(fabs((double)y[c] - 3.0 * exact_slope((double)x[c])) <= 1e-6);
            table->gelu(n, x, y);
            for (size_t c = 0; c < n; c++)
                assert_true(fabs((double)y[c] - exact((double)x[c])) <= 1e-6);
            table->gelu(n, x, x);
            assert_memory_equal(x, y, n * sizeof *x);
        }
    fence_free(&in);
    fence_free(&out);
}

static void test_ends(void **state)
{
    (void)state;
    const cv_kernels *table;
    for (size_t i = 0; (table = table_at(i)); i++) {
        float x[] = { 0.0f, -0.0f, INFINITY, NAN, 3e38f, -3e38f }, y[6];
        float dy[] = { 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f };
        table->gelu(6, x, y);
        table->gelu_back(6, x, dy);
        assert_true(y[0] == 0.0f && y[1] == 0.0f && isinf(y[2]) && y[2] > 0.0f && isnan(y[3]));
        assert_true(y[4] == 3e38f && fabsf(y[5]) < 1e-30f);
        assert_true(dy[0] == 0.5f && dy[1] == 0.5f && isnan(dy[3]));
        assert_true(dy[4] == 1.0f && fabsf(dy[5]) < 1e-30f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_tails),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
