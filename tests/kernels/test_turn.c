/* test_turn.c - panels of numbers of every table: each number in its place, zeros where there is no
 * row, nothing read or written elsewhere. */
#include "kernel_check.h"

enum { MOST_COLUMNS = 70, MOST_LD = MOST_COLUMNS + 3, MOST_LDTO = 48 };

static fence from_fence, to_fence;

static void check(const cv_kernels *table, size_t n, size_t m, size_t ld, size_t ldto)
{
    const float *from = fence_floats(&from_fence, (n - 1) * ld + m), untouched = -7.0f;
    const size_t floats = (m - 1) * ldto + CV_PANEL;
    float *to = fence_floats(&to_fence, floats);
    for (size_t at = 0; at < floats; at++)
        to[at] = untouched;
    table->turn(n, m, from, ld, to, ldto);
    for (size_t at = 0; at < floats; at++) {
        const size_t j = at / ldto, i = at % ldto;
        const float expected = i < n ? from[i * ld + j] : i < CV_PANEL ? 0.0f : untouched;
        if (!same_bits(&to[at], &expected, 1))
            fail_msg("%s: n %zu, m %zu, ld %zu and %zu, row %zu, column %zu: %g, expected %g",
                     table_name(table), n, m, ld, ldto, i, j, (double)to[at], (double)expected);
    }
}

static void test_every_shape(void **state)
{
    const cv_kernels *table;
    cv_rng rng;
    (void)state;
    cv_rng_seed(&rng, 41);
    fill_normal(&rng, fence_floats(&from_fence, CV_PANEL * MOST_LD), CV_PANEL * MOST_LD, 0.0f,
                1.0f);
    for (size_t i = 0; (table = table_at(i)); i++)
        for (size_t n = 1; n <= CV_PANEL; n++)
            for (size_t m = 1; m <= MOST_COLUMNS; m++) {
                check(table, n, m, m, CV_PANEL);
                check(table, n, m, m + 3, MOST_LDTO);
            }
}

static int make_fences(void **state)
{
    (void)state;
    fence_make(&from_fence, (size_t)CV_PANEL * MOST_LD * sizeof(float));
    fence_make(&to_fence, (size_t)MOST_COLUMNS * MOST_LDTO * sizeof(float));
    return 0;
}

static int free_fences(void **state)
{
    (void)state;
    fence_free(&from_fence);
    fence_free(&to_fence);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_shape) };
    return cmocka_run_group_tests(tests, make_fences, free_fences);
}
