/* test_outer.c - the sum of outer products of every table against a sum in double: shapes about the
 * ends of tiles and blocks, gaps between rows, what lay in W before, and cuts between members. */
#include "kernel_check.h"

enum { MOST_TOKENS = 1100, MOST_WIDTH = 1100 };

typedef struct problem {
    size_t T, n, m, lda, ldb, ldw;
    float *a, *b, *before, *W;
} problem;

static fence a_fence, b_fence, w_fence, scratch_fence;

static void make(problem *p, cv_rng *rng, size_t T, size_t n, size_t m)
{
    *p = (problem){ .T = T, .n = n, .m = m, .lda = n + 3, .ldb = m + 5, .ldw = m + 2 };
    const size_t last = (n - 1) * p->ldw + m;
    p->a = fence_floats(&a_fence, (T - 1) * p->lda + n);
    p->b = fence_floats(&b_fence, (T - 1) * p->ldb + m);
    p->W = fence_floats(&w_fence, last);
    p->before = malloc(last * sizeof *p->before);
    assert_non_null(p->before);
    fill_normal(rng, p->a, (T - 1) * p->lda + n, 0.0f, 1.0f);
    fill_normal(rng, p->b, (T - 1) * p->ldb + m, 0.0f, 1.0f);
    fill_normal(rng, p->before, last, 0.0f, 3.0f);
    memcpy(p->W, p->before, last * sizeof *p->W);
}

/* Rows [lo, hi) of W alone. */
static void run_rows(const cv_kernels *table, const problem *p, size_t lo, size_t hi, bool rounded)
{
    float *scratch = fence_aligned(&scratch_fence, CV_OUTER_SCRATCH * sizeof(float));
    table->outer(p->T, hi - lo, p->m, p->a + lo, p->lda, p->b, p->ldb, p->W + lo * p->ldw, p->ldw,
                 rounded, scratch);
}

static bool rounds(const cv_kernels *table)
{
    return table->level == CV_CPU_AMX || table->level == CV_CPU_BF16;
}

/* One rounding for each token and each product; what is rounded to bf16 loses 2^-8 of each. */
static void check(const cv_kernels *table, const problem *p, bool rounded)
{
    for (size_t o = 0; o < p->n; o++)
        for (size_t i = 0; i < p->ldw && o * p->ldw + i < (p->n - 1) * p->ldw + p->m; i++) {
            const size_t at = o * p->ldw + i;
            if (i >= p->m) {
                assert_true(same_bits(&p->W[at], &p->before[at], 1));
                continue;
            }
            double sum = (double)p->before[at], size = fabs(sum);
            for (size_t t = 0; t < p->T; t++) {
                const double x = (double)p->a[t * p->lda + o] * (double)p->b[t * p->ldb + i];
                sum += x;
                size += fabs(x);
            }
            const double loss = rounded && rounds(table) ? 0x1p-7 : 0x1p-23;
            const double bound = (((double)p->T + 8.0) * ROUNDING + loss) * size;
            if (!(fabs((double)p->W[at] - sum) <= bound))
                fail_msg("%s: T %zu, n %zu, m %zu, at %zu, %zu: %g, expected %g", table_name(table),
                         p->T, p->n, p->m, o, i, (double)p->W[at], sum);
        }
}

static void test_sums(void **state)
{
    static const size_t shapes[][3] = { { 1, 1, 1 },      { 2, 17, 33 },    { 31, 16, 16 },
                                        { 33, 12, 32 },   { 256, 13, 31 },  { 257, 193, 48 },
                                        { 513, 33, 321 }, { 600, 40, 353 }, { 64, 32, 1056 },
                                        { 1100, 5, 7 },   { 300, 280, 270 } };
    const cv_kernels *table;
    cv_rng rng;
    (void)state;
    cv_rng_seed(&rng, 31);
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (size_t i = 0; (table = product_table(i)); i++)
            for (int rounded = 0; rounded < 2; rounded++) {
                problem p;
                make(&p, &rng, shapes[s][0], shapes[s][1], shapes[s][2]);
                run_rows(table, &p, 0, p.n, rounded);
                check(table, &p, rounded);
                free(p.before);
            }
}

/* Members own whole panels of rows: the bits do not depend on where they are cut. */
static void test_cuts(void **state)
{
    const cv_kernels *table;
    cv_rng rng;
    (void)state;
    cv_rng_seed(&rng, 32);
    for (size_t i = 0; (table = product_table(i)); i++)
        for (int rounded = 0; rounded < 2; rounded++) {
            problem p;
            make(&p, &rng, 300, 70, 50);
            const size_t last = (p.n - 1) * p.ldw + p.m;
            float *whole = malloc(last * sizeof *whole);
            assert_non_null(whole);
            run_rows(table, &p, 0, p.n, rounded);
            memcpy(whole, p.W, last * sizeof *whole);
            memcpy(p.W, p.before, last * sizeof *whole);
            run_rows(table, &p, 0, 16, rounded);
            run_rows(table, &p, 16, 48, rounded);
            run_rows(table, &p, 48, p.n, rounded);
            assert_true(same_bits(whole, p.W, last));
            free(whole);
            free(p.before);
        }
}

static int make_fences(void **state)
{
    (void)state;
    fence_make(&a_fence, (size_t)MOST_TOKENS * 200 * sizeof(float));
    fence_make(&b_fence, (size_t)MOST_TOKENS * 400 * sizeof(float));
    fence_make(&w_fence, (size_t)MOST_WIDTH * 200 * sizeof(float));
    fence_make(&scratch_fence, CV_OUTER_SCRATCH * sizeof(float));
    return 0;
}

static int free_fences(void **state)
{
    (void)state;
    fence_free(&a_fence);
    fence_free(&b_fence);
    fence_free(&w_fence);
    fence_free(&scratch_fence);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_cuts),
    };
    return cmocka_run_group_tests(tests, make_fences, free_fences);
}
