/* test_grad_residual.c - what is added to the residual stream, rows copied and added, and pooling
 * walked back, against central differences.  In double.  [vrwkv.layer] [vrwkv.pool] */
#include "gradient.h"

#include "ops/pool.h"
#include "ops/residual.h"

static const size_t SIDES[][2] = { { 1, 1 }, { 3, 4 }, { 5, 1 }, { 2, 6 } };

/* A path that is dropped, one as it is, and those that make up for the dropped ones. */
static const float KEEP[COUNT(SIDES)] = { 1.25, 0.0, 1.0, 2.0 };

typedef struct rows_call {
    size_t C;
    const float *gamma, *keep, *first, *y, *a;
    float *x, *z, *pooled;
    bool class_token;
} rows_call;

/* ---- The residual stream --------------------------------------------------------------------- */

/* x from elsewhere, something is added to it, and it is handed on: x is worked on in place. */
static void call_residual(const cv_run *run, void *arg)
{
    const rows_call *c = arg;
    cv_copy_rows(run, c->C, c->first, c->x);
    cv_scale_add(run, c->C, c->gamma, c->keep, c->y, c->x);
    cv_add_rows(run, c->C, c->a, c->x);
    cv_copy_rows(run, c->C, c->x, c->z);
}

static void check_residual(const char *title, uint64_t seed, size_t C, bool gamma, bool keep)
{
    gradient g;
    gradient_open_grids(&g, title, seed, SIDES, COUNT(SIDES), seed % 2 == 0);
    rows_call c = { .C = C, .keep = keep ? KEEP : NULL };
    if (gamma) c.gamma = grad_weight(&g, "gamma", C, -1.0, 1.0);
    c.first = grad_value(&g, "what x was", GRAD_INPUT, g.T * C, -1.0, 1.0);
    c.y = grad_value(&g, "y", GRAD_INPUT, g.T * C, -1.0, 1.0);
    c.a = grad_value(&g, "a", GRAD_INPUT, g.T * C, -1.0, 1.0);
    c.x = grad_value(&g, "x", GRAD_BETWEEN, g.T * C, 0.0, 0.0);
    c.z = grad_value(&g, "z", GRAD_OUTPUT, g.T * C, 0.0, 0.0);
    gradient_check(&g, call_residual, &c);
    gradient_close(&g);
}

static void test_residual(void **state)
{
    (void)state;
    check_residual("residual", 1, 5, false, false);
    check_residual("residual, scaled", 2, 35, true, false);
    check_residual("residual, dropped", 3, 16, false, true);
    check_residual("residual, scaled and dropped", 4, 19, true, true);
}

/* gamma belongs to no block of weights: it is not trained. */
static void test_fixed_scale(void **state)
{
    (void)state;
    static const float gamma[3] = { 0.5, -2.0, 1.0 };
    gradient g;
    gradient_open_grids(&g, "residual, scale not trained", 5, SIDES, COUNT(SIDES), false);
    rows_call c = { .C = COUNT(gamma), .gamma = gamma, .keep = KEEP };
    c.first = grad_value(&g, "what x was", GRAD_INPUT, g.T * c.C, -1.0, 1.0);
    c.y = grad_value(&g, "y", GRAD_INPUT, g.T * c.C, -1.0, 1.0);
    c.a = grad_value(&g, "a", GRAD_INPUT, g.T * c.C, -1.0, 1.0);
    c.x = grad_value(&g, "x", GRAD_BETWEEN, g.T * c.C, 0.0, 0.0);
    c.z = grad_value(&g, "z", GRAD_OUTPUT, g.T * c.C, 0.0, 0.0);
    gradient_check(&g, call_residual, &c);
    gradient_close(&g);
}

/* ---- Pooling --------------------------------------------------------------------------------- */

static void call_pool(const cv_run *run, void *arg)
{
    const rows_call *c = arg;
    cv_pool(run, c->C, c->class_token, c->y, c->pooled);
}

static void test_pool(void **state)
{
    (void)state;
    static const size_t WIDTHS[] = { 1, 16, 130 };
    for (uint64_t i = 0; i < 2 * COUNT(WIDTHS); i++) {
        const size_t C = WIDTHS[i / 2];
        gradient g;
        rows_call c = { .C = C, .class_token = i % 2 };
        gradient_open_grids(&g, i % 2 ? "class token" : "pool", 10 + i, SIDES, COUNT(SIDES), i % 2);
        c.y = grad_value(&g, "z", GRAD_INPUT, g.T * C, -1.0, 1.0);
        c.pooled = grad_value(&g, "pooled", GRAD_OUTPUT, g.n_grids * C, 0.0, 0.0);
        gradient_check(&g, call_pool, &c);
        gradient_close(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_residual),
        cmocka_unit_test(test_fixed_scale),
        cmocka_unit_test(test_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
