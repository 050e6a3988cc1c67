/* test_grad_both_ways.c - the recurrence of version 6 from both ends of a picture walked back,
 * against central differences.  In double.  [v6.bi] */
#include "gradient.h"

#include "ops/heads.h"
#include "ops/residual.h"

enum { MOST_STATE = 24 * 24 };

typedef struct both_call {
    size_t H, N;
    const float *r, *w, *k, *v, *u;
    float *y, *back;
    bool joined; /* y += back */
} both_call;

static void call(const cv_run *run, void *arg)
{
    const both_call *c = arg;
    float state[MOST_STATE];
    cv_wkv6_both_ways(run, c->H, c->N, c->r, c->w, c->k, c->v, c->u, c->y, c->back, state);
    cv_meet(run);
    if (c->joined) cv_add_rows(run, c->H * c->N, c->back, c->y);
}

/* The scratch of these tests is enough for the largest picture. */
static void check_scratch(const gradient *g, size_t N)
{
    size_t most = 0;
    for (size_t i = 0; i < g->n_grids; i++)
        if (g->grids[i].n > most) most = g->grids[i].n;
    assert_true(N * N <= MOST_STATE && cv_wkv6_both_ways_own_scratch(most, N) <= GRAD_OWN);
}

static void check(uint64_t seed, const size_t (*sides)[2], size_t n, bool class_token, size_t H,
                  size_t N, bool joined)
{
    gradient g;
    const size_t A = H * N;
    char title[80];
    snprintf(title, sizeof title, "both ways, %zu pictures, %zu heads of %zu%s", n, H, N,
             joined ? ", joined" : "");
    gradient_open_grids(&g, title, seed, sides, n, class_token);
    check_scratch(&g, N);
    both_call c = { .H = H, .N = N, .joined = joined };
    c.u = grad_weight(&g, "u", A, -1.0, 1.0);
    c.w = grad_value(&g, "w", GRAD_INPUT, g.T * A, 0.02, 0.999);
    c.r = grad_value(&g, "r", GRAD_INPUT, g.T * A, -1.0, 1.0);
    c.k = grad_value(&g, "k", GRAD_INPUT, g.T * A, -1.0, 1.0);
    c.v = grad_value(&g, "v", GRAD_INPUT, g.T * A, -1.0, 1.0);
    c.y = grad_value(&g, "y", GRAD_OUTPUT, g.T * A, 0.0, 0.0);
    c.back = grad_value(&g, "back", joined ? GRAD_BETWEEN : GRAD_OUTPUT, g.T * A, 0.0, 0.0);
    gradient_check(&g, call, &c);
    gradient_close(&g);
}

static const size_t ONE[][2] = { { 1, 1 } };
static const size_t SEVERAL[][2] = { { 2, 3 }, { 1, 1 }, { 5, 7 }, { 4, 4 } };

static void test_both_ways(void **state)
{
    (void)state;
    check(1, ONE, 1, false, 1, 5, false);
    check(2, SEVERAL, 3, false, 3, 16, false);
    check(3, SEVERAL, 4, true, 17, 3, false);
    check(4, SEVERAL + 2, 1, false, 2, 20, false);
}

static void test_joined(void **state)
{
    (void)state;
    check(10, SEVERAL, 4, false, 5, 8, true);
    check(11, SEVERAL + 1, 2, true, 2, 24, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_joined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
