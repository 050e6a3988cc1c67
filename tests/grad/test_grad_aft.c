/* test_grad_aft.c - the means of attention-free transformers against a direct sum, against RWKV-4
 * without decay and bonus, and walked back against central differences.  In double. */
#include "gradient.h"

#include "ops/aft_mean.h"
#include "ops/heads.h"

enum {
    OFFSET = 3,
    LONGEST = 70,
    NEAR = 19
}; /* where the layer's state stands, its room; distances */

typedef struct aft_call {
    cv_aft p;
    const float *table, *distance; /* NULL: the biases are an input */
} aft_call;

static void call(const cv_run *run, void *arg)
{
    const aft_call *c = arg;
    cv_aft p = c->p;
    p.scratch = grad_floats(cv_aft_scratch(p.longest));
    if (c->table) {
        cv_placed_rows(run, p.longest, c->table, p.state_offset, (float *)p.w);
        cv_meet(run);
        cv_add_by_distance(run, NEAR, c->distance, p.longest, p.state_offset, (float *)p.w);
        cv_meet(run);
    }
    cv_aft_mean(run, &p);
    cv_meet(run);
    cv_count_keep(run, p.state_offset);
    free(p.scratch);
}

/* Key or value of token i of a sequence, from its start or this step. */
static double number_of(const cv_aft *p, const cv_sequence *seq, size_t i, size_t c, bool value)
{
    const size_t past = cv_count_of(seq->start + OFFSET);
    if (i >= past) return (value ? p->v : p->k)[(seq->begin + i - past) * p->A + c];
    return seq->start[OFFSET + 16 + (value ? p->longest * p->A : 0) + i * p->A + c];
}

static double direct(const cv_aft *p, const cv_sequence *seq, size_t t, size_t c)
{
    const size_t own = cv_count_of(seq->start + OFFSET) + t, row = seq->begin + t;
    double above = 0.0, below = 0.0;
    for (size_t i = 0; i <= own; i++) {
        const bool biased = !p->window || own - i < p->window;
        const double w = biased ? p->w[row * p->longest + i] : 0.0;
        const double e = exp(number_of(p, seq, i, c, false) + w);
        above += e * number_of(p, seq, i, c, true);
        below += e;
    }
    return above / below;
}

static void check_values(const gradient *g, const cv_aft *p)
{
    for (size_t s = 0; s < g->n_sequences; s++) {
        const cv_sequence *seq = &g->sequences[s];
        for (size_t t = 0; t < seq->n; t++)
            for (size_t c = 0; c < p->A; c++)
                assert_true(fabs(p->y[(seq->begin + t) * p->A + c] - direct(p, seq, t, c)) <=
                            1e-12);
    }
}

/* A sequence of channels; keys are within size. */
static aft_call open_call(gradient *g, const char *title, uint64_t seed, const size_t *lengths,
                          const size_t *past, size_t n, size_t A, size_t window, double size)
{
    gradient_open(g, title, seed, lengths, n, OFFSET + cv_aft_state(A, LONGEST));
    for (size_t s = 0; s < n; s++)
        g->start[s * g->state_size + OFFSET] = (float)past[s];
    aft_call c = { .p = { .A = A, .longest = LONGEST, .window = window, .state_offset = OFFSET } };
    c.p.k = grad_value(g, "k", GRAD_INPUT, g->T * A, -size, size);
    c.p.v = grad_value(g, "v", GRAD_INPUT, g->T * A, -1.0, 1.0);
    c.p.y = grad_value(g, "y", GRAD_OUTPUT, g->T * A, 0.0, 0.0);
    grad_value(g, "memory of y", GRAD_MEMORY, g->T * A, 0.0, 0.0);
    assert_true(cv_aft_own_scratch(A, LONGEST) <= GRAD_OWN);
    return c;
}

static void check(uint64_t seed, const size_t *lengths, const size_t *past, size_t n, size_t A,
                  size_t window, double size, bool placed)
{
    gradient g;
    char title[80];
    snprintf(title, sizeof title, "aft, %zu sequences, %zu channels, window %zu%s", n, A, window,
             placed ? ", by place" : "");
    aft_call c = open_call(&g, title, seed, lengths, past, n, A, window, size);
    g.no_start_gradient = seed % 2 == 0;
    c.p.w = grad_value(&g, "w", placed ? GRAD_BETWEEN : GRAD_INPUT, g.T * LONGEST, -1.5, 1.5);
    if (placed) c.table = grad_weight(&g, "table", LONGEST * LONGEST, -1.5, 1.5);
    if (placed) c.distance = grad_weight(&g, "distance", NEAR, -1.5, 1.5);
    gradient_check(&g, call, &c);
    check_values(&g, &c.p);
    gradient_close(&g);
}

#define SIZES(...) ((const size_t[]){ __VA_ARGS__ })

static void test_full(void **state)
{
    (void)state;
    check(1, SIZES(1), SIZES(0), 1, 5, 0, 1.0, false);
    check(2, SIZES(3, 1, 50), SIZES(0, 0, 0), 3, 19, 0, 1.0, false);
    check(3, SIZES(60), SIZES(0), 1, 40, 0, 20.0, false);
    check(5, SIZES(4, 2), SIZES(3, 60), 2, 16, 0, 1.0, false);
    check(7, SIZES(9, 20), SIZES(50, 0), 2, 7, 0, 1.0, true);
}

static void test_window(void **state)
{
    (void)state;
    check(11, SIZES(1), SIZES(0), 1, 5, 4, 1.0, false);
    check(12, SIZES(3, 1, 55), SIZES(0, 0, 0), 3, 19, 7, 1.0, false);
    check(13, SIZES(60), SIZES(0), 1, 24, 1, 20.0, false);
    check(15, SIZES(4, 2), SIZES(3, 60), 2, 16, 5, 1.0, false);
    check(17, SIZES(9, 20), SIZES(50, 2), 2, 7, 12, 1.0, true);
}

/* Without biases both are the same mean, here of keys far apart. */
static void call_simple(const cv_run *run, void *arg)
{
    const aft_call *c = arg;
    size_t lo, hi;
    cv_own_heads(run, c->p.A, 1, &lo, &hi);
    cv_wkv4_channels(run, lo, hi, c->p.A, c->p.w, c->p.w, c->p.k, c->p.v, c->p.y, OFFSET);
}

static void test_simple(void **state)
{
    (void)state;
    enum { A = 21 };
    const size_t lengths[] = { 37, 1, 20 }, past[] = { 0, 0, 0 };
    gradient g;
    aft_call c = open_call(&g, "aft without biases", 21, lengths, past, 3, A, 0, 40.0);
    float *zero = grad_floats(g.T * LONGEST), *y = grad_floats(g.T * A);
    c.p.w = zero;
    g.no_start_gradient = true;
    gradient_check(&g, call, &c);
    check_values(&g, &c.p);
    memcpy(y, c.p.y, g.T * A * sizeof *y);

    for (size_t s = 0; s < 3; s++) /* nothing seen yet */
        for (size_t i = 0; i < 3 * A; i++)
            g.start[s * g.state_size + OFFSET + i] = i < 2 * A ? 0.0 : -1e30;
    g.title = "the same by RWKV-4";
    gradient_check(&g, call_simple, &c);
    for (size_t i = 0; i < g.T * A; i++)
        assert_true(fabs(c.p.y[i] - y[i]) <= 1e-12);
    free(zero);
    free(y);
    gradient_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_simple),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
