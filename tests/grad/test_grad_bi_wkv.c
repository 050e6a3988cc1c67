/* test_grad_bi_wkv.c - the WKV of pictures walked back, against central differences.  In double.
 * [bi.wkv] [bi.linear] [bi.wsum] */
#include "gradient.h"

#include "ops/bi_wkv.h"

enum { MOST_C = 40 };

typedef struct bi_call {
    size_t C;
    const float *W, *U, *values;
    float *k, *v, *y;
    float *segments, *sums[GRAD_MEMBERS];
} bi_call;

/* ---- to and from a buffer that is worked on in place ------------------------------------------ */

typedef struct copy_record {
    size_t n;
    const float *from;
    float *to;
} copy_record;

static void copy_back(const cv_run *run, const void *record)
{
    const copy_record *r = record;
    size_t lo, hi;
    cv_share(run->me, r->n, &lo, &hi);
    const float *dy = cv_gradient(run, r->to);
    float *dx = cv_gradient(run, r->from);
    for (size_t i = lo; i < hi; i++)
        dx[i] += dy[i];
}

static void copy(const cv_run *run, size_t n, const float *from, float *to)
{
    size_t lo, hi;
    cv_share(run->me, n, &lo, &hi);
    memcpy(to + lo, from + lo, (hi - lo) * sizeof *to);
    copy_record *r = cv_record(run, copy_back, sizeof *r);
    if (r) *r = (copy_record){ n, from, to };
}

static void call(const cv_run *run, void *arg)
{
    const bi_call *c = arg;
    const cv_bi_buffers buffers = { c->segments, c->sums[run->me->id] };
    copy(run, run->T * c->C, c->values, c->v);
    cv_meet(run);
    cv_bi_wkv(run, CV_BI_FORMULA, c->C, c->W, c->U, c->k, c->v, &buffers);
    cv_meet(run);
    copy(run, run->T * c->C, c->v, c->y);
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void lay_out(gradient *g, bi_call *c, double keys)
{
    const size_t n = g->T * c->C;
    c->values = grad_value(g, "v", GRAD_INPUT, n, -1.0, 1.0);
    c->k = grad_value(g, "k", GRAD_INPUT, n, -keys, keys);
    grad_value(g, "memory of k", GRAD_MEMORY, n, 0.0, 0.0);
    c->v = grad_value(g, "v, then y", GRAD_BETWEEN, n, 0.0, 0.0);
    grad_value(g, "memory of v", GRAD_MEMORY, n, 0.0, 0.0);
    c->y = grad_value(g, "y", GRAD_OUTPUT, n, 0.0, 0.0);
}

static void take_buffers(const gradient *g, bi_call *c)
{
    const cv_member one = { .team = NULL, .id = 0, .n = 1 };
    cv_bi_buffers buffers;
    cv_run run = { .me = &one };
    cv_run_grids(&run, g->grids, g->n_grids);
    cv_bi_wkv_take(&run, c->C, &buffers);
    c->segments = grad_floats(run.common.peak);
    for (size_t m = 0; m < GRAD_MEMBERS; m++)
        c->sums[m] = grad_floats(run.own.peak);
    assert_true(cv_bi_wkv_own_scratch(g->T) <= GRAD_OWN);
}

static void check(gradient *g, bi_call *c, double keys)
{
    lay_out(g, c, keys);
    take_buffers(g, c);
    gradient_check(g, call, c);
    free(c->segments);
    for (size_t m = 0; m < GRAD_MEMBERS; m++)
        free(c->sums[m]);
    gradient_close(g);
}

static const size_t ONE[][2] = { { 1, 1 } };
static const size_t SIDES[][2] = { { 1, 1 }, { 1, 2 }, { 7, 1 }, { 3, 11 }, { 7, 10 } };

/* Decays of both signs and up to `most`. */
static void check_case(uint64_t seed, const size_t (*sides)[2], size_t n, size_t C, double most,
                       double keys)
{
    gradient g;
    bi_call c = { .C = C };
    char title[80];
    snprintf(title, sizeof title, "Bi-WKV, %zu pictures, C %zu, |W| to %g, keys %g", n, C, most,
             keys);
    gradient_open_grids(&g, title, seed, sides, n, false);
    c.W = grad_weight(&g, "W", C, -most, most);
    c.U = grad_weight(&g, "U", C, -5.0, 5.0);
    check(&g, &c, keys);
}

static void test_fast_way(void **state)
{
    (void)state;
    check_case(1, ONE, 1, 5, 6.0, 2.0);
    check_case(2, SIDES, 5, 5, 6.0, 2.0);
    check_case(3, SIDES, 5, 16, 6.0, 2.0);
    check_case(4, SIDES, 5, 21, 6.0, 2.0);
    check_case(5, SIDES + 4, 1, 21, 29.0, 6.0);
    check_case(6, SIDES + 1, 3, MOST_C, 3.0, 40.0);
}

/* Beyond the range of the fast way, some in both directions, some in the way back alone: the first
 * and the last panel; the one between them stays on the fast way. */
static void test_exact_way(void **state)
{
    (void)state;
    gradient g;
    bi_call c = { .C = MOST_C };
    gradient_open_grids(&g, "Bi-WKV, weights beyond the fast way", 10, SIDES, 5, false);
    float *W = grad_weight(&g, "W", c.C, -6.0, 6.0), *U = grad_weight(&g, "U", c.C, -5.0, 5.0);
    W[0] = 200.0;
    W[3] = -200.0;
    W[5] = 45.0;
    U[2] = -300.0;
    W[33] = -45.0;
    U[35] = 170.0;
    c.W = W;
    c.U = U;
    check(&g, &c, 8.0);
}

/* W and U are no trained weights. */
static void test_unwanted(void **state)
{
    (void)state;
    gradient g;
    bi_call c = { .C = 21 };
    float W[21], U[21];
    gradient_open_grids(&g, "Bi-WKV, W and U not trained", 11, SIDES, 4, false);
    for (size_t i = 0; i < c.C; i++) {
        W[i] = grad_uniform(&g.seed, -6.0, 6.0);
        U[i] = grad_uniform(&g.seed, -5.0, 5.0);
    }
    c.W = W;
    c.U = U;
    check(&g, &c, 2.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_way),
        cmocka_unit_test(test_exact_way),
        cmocka_unit_test(test_unwanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
