/* test_turn.c - panels of numbers of every table: each number in its place, zeros where there is no
 * row, nothing read or written beyond the ends. */
#include "kernel_check.h"

enum { MOST_COLUMNS = 70, MOST_LD = MOST_COLUMNS + 3 };

static fence from_fence, to_fence;

static void check(const cv_kernels *table, size_t n, size_t m, size_t ld)
{
    const float *from = fence_floats(&from_fence, (n - 1) * ld + m);
    float *to = fence_floats(&to_fence, m * CV_PANEL);
    memset(to, 0xff, m * CV_PANEL * sizeof *to);
    table->turn(n, m, from, ld, to);
    for (size_t j = 0; j < m; j++)
        for (size_t i = 0; i < CV_PANEL; i++) {
            const float expected = i < n ? from[i * ld + j] : 0.0f;
            if (!same_bits(&to[j * CV_PANEL + i], &expected, 1))
                fail_msg("%s: n %zu, m %zu, ld %zu, row %zu, column %zu: %g, expected %g",
                         table_name(table), n, m, ld, i, j, (double)to[j * CV_PANEL + i],
                         (double)expected);
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
                check(table, n, m, m);
                check(table, n, m, m + 3);
            }
}

static int make_fences(void **state)
{
    (void)state;
    fence_make(&from_fence, (size_t)CV_PANEL * MOST_LD * sizeof(float));
    fence_make(&to_fence, (size_t)MOST_COLUMNS * CV_PANEL * sizeof(float));
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
