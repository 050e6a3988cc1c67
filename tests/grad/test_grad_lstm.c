/* test_grad_lstm.c - the recurrence of an LSTM against its equations, and walked back against central
 * differences.  In double. */
#include "gradient.h"

#include "ops/lstm_pass.h"

enum { OFFSET = 3 }; /* where the layer's state stands */

/* The gates are worked on in place, so what goes into them is moved there. */
typedef struct lstm_call {
    cv_lstm_pass p;
    const float *z;
} lstm_call;

static void call(const cv_run *run, void *arg)
{
    const lstm_call *c = arg;
    cv_lstm_pass p = c->p;
    p.scratch = grad_floats(cv_lstm_scratch(p.C));
    cv_trained_lay_out(run->me, run->kernel, p.U);
    cv_move_rows(run, 4 * p.C, c->z, p.gates);
    cv_meet(run);
    cv_lstm_sequences(run, &p);
    cv_meet(run);
    free(p.scratch);
}

static double sigma(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

/* One token by the equations; h and c [C] in and out. */
static void by_equations(const lstm_call *call_of, size_t row, double *h, double *c)
{
    const size_t C = call_of->p.C;
    const float *U = call_of->p.U->trained->value, *z = call_of->z + 4 * row * C;
    double sums[4 * 64];
    for (size_t o = 0; o < 4 * C; o++) {
        sums[o] = z[o];
        for (size_t j = 0; j < C; j++)
            sums[o] += U[o * C + j] * h[j];
    }
    for (size_t j = 0; j < C; j++) {
        c[j] = sigma(sums[C + j]) * c[j] + sigma(sums[j]) * tanh(sums[2 * C + j]);
        h[j] = sigma(sums[3 * C + j]) * tanh(c[j]);
    }
}

static void check_values(const gradient *g, const lstm_call *c)
{
    const size_t C = c->p.C;
    for (size_t s = 0; s < g->n_sequences; s++) {
        const cv_sequence *seq = &g->sequences[s];
        double h[64], cell[64];
        memcpy(h, seq->start + OFFSET, C * sizeof *h);
        memcpy(cell, seq->start + OFFSET + C, C * sizeof *cell);
        for (size_t t = 0; t < seq->n; t++) {
            by_equations(c, seq->begin + t, h, cell);
            for (size_t j = 0; j < C; j++)
                assert_true(fabs(c->p.h[(seq->begin + t) * C + j] - h[j]) <= 1e-13);
        }
        for (size_t j = 0; j < C; j++) {
            assert_true(fabs(seq->state[OFFSET + j] - h[j]) <= 1e-13);
            assert_true(fabs(seq->state[OFFSET + C + j] - cell[j]) <= 1e-13);
        }
    }
}

static void check(uint64_t seed, const size_t *lengths, size_t n, size_t C, bool start)
{
    gradient g;
    char title[80];
    snprintf(title, sizeof title, "lstm, %zu sequences, width %zu", n, C);
    gradient_open(&g, title, seed, lengths, n, OFFSET + 2 * C);
    g.no_start_gradient = !start;
    const size_t out = (4 * C + 15) / 16 * 16, in = (C + 15) / 16 * 16;
    cv_trained trained = { .value = grad_weight(&g, "U", 4 * C * C, -0.5, 0.5) };
    trained.gradient = grad_of(&g, trained.value);
    trained.turned =
        (cv_matrix){ .rows = C, .cols = 4 * C, .panel_bytes = 4 * C * 16 * sizeof(float) };
    trained.turned.panels = (unsigned char *)grad_floats(in * 4 * C);
    cv_matrix U = { .rows = 4 * C, .cols = C, .panel_bytes = C * 16 * sizeof(float) };
    U.panels = (unsigned char *)grad_floats(out * C);
    U.trained = &trained;
    lstm_call c = { .p = { .C = C, .U = &U, .state_offset = OFFSET } };
    c.z = grad_value(&g, "z", GRAD_INPUT, g.T * 4 * C, -2.0, 2.0);
    c.p.gates = grad_value(&g, "gates", GRAD_BETWEEN, g.T * 4 * C, 0.0, 0.0);
    c.p.c = grad_value(&g, "c", GRAD_BETWEEN, g.T * C, 0.0, 0.0);
    c.p.h = grad_value(&g, "h", GRAD_OUTPUT, g.T * C, 0.0, 0.0);
    grad_value(&g, "memory of h", GRAD_MEMORY, g.T * C, 0.0, 0.0);
    assert_true(cv_lstm_own_scratch(C) <= GRAD_OWN);
    gradient_check(&g, call, &c);
    check_values(&g, &c);
    free((void *)U.panels);
    free((void *)trained.turned.panels);
    gradient_close(&g);
}

#define SIZES(...) ((const size_t[]){ __VA_ARGS__ })

static void test_lstm(void **state)
{
    (void)state;
    check(1, SIZES(1), 1, 5, true);
    check(2, SIZES(3, 1, 20), 3, 16, true);
    check(3, SIZES(1, 2, 3, 1, 2, 3, 5), 7, 11, true);
    check(4, SIZES(33, 8), 2, 20, false);
}

/* More sequences than are walked in step. */
static void test_many(void **state)
{
    (void)state;
    const size_t lengths[GRAD_SEQUENCES] = { 2, 3, 1, 4, 2, 2, 1, 3 };
    check(5, lengths, GRAD_SEQUENCES, 8, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lstm),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
