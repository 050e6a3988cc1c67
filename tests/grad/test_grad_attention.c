/* test_grad_attention.c - causal attention against a direct sum, and walked back against central
 * differences; the slope of GELU.  In double. */
#include "gradient.h"

#include "ops/attention.h"

enum { OFFSET = 3, LONGEST = 120 }; /* where the layer's state stands, and its room */

typedef struct attention_call {
    cv_attention a;
} attention_call;

static void call(const cv_run *run, void *arg)
{
    cv_attention a = ((const attention_call *)arg)->a;
    float *scratch = grad_floats(cv_attention_scratch(run->T, a.longest));
    a.scratch = scratch;
    cv_attend(run, &a);
    cv_meet(run);
    cv_count_keep(run, a.state_offset);
    free(scratch);
}

/* Keys and values of token i of a sequence, from its start or this step. */
static float key_of(const gradient *g, const cv_attention *a, const cv_sequence *seq, size_t i,
                    size_t h, size_t j, bool value)
{
    const size_t A = a->H * a->N, past = cv_count_of(seq->start + OFFSET);
    (void)g;
    if (i >= past) return (value ? a->v : a->k)[(seq->begin + i - past) * A + h * a->N + j];
    const size_t tokens = cv_padded(a->longest);
    const float *keys = seq->start + OFFSET + 16, *values = keys + a->H * tokens * a->N;
    keys += h * tokens * a->N;
    values += h * tokens * cv_padded(a->N);
    return value ? values[(j / 16 * tokens + i) * 16 + j % 16]
                 : keys[(i / 16 * a->N + j) * 16 + i % 16];
}

/* y of one row of one head by its formula. */
static void direct(const gradient *g, const cv_attention *a, const cv_sequence *seq, size_t t,
                   size_t h, float *y)
{
    const size_t A = a->H * a->N, seen = cv_count_of(seq->start + OFFSET) + t + 1;
    double sum = 0.0;
    for (size_t j = 0; j < a->N; j++)
        y[j] = 0.0;
    for (size_t i = 0; i < seen; i++) {
        double score = 0.0;
        for (size_t j = 0; j < a->N; j++)
            score += a->q[(seq->begin + t) * A + h * a->N + j] * key_of(g, a, seq, i, h, j, false);
        const double weight = exp(score / sqrt((double)a->N));
        sum += weight;
        for (size_t j = 0; j < a->N; j++)
            y[j] += weight * key_of(g, a, seq, i, h, j, true);
    }
    for (size_t j = 0; j < a->N; j++)
        y[j] /= sum;
}

/* What the last pass wrote. */
static void check_values(const gradient *g, const cv_attention *a)
{
    for (size_t s = 0; s < g->n_sequences; s++)
        for (size_t t = 0; t < g->sequences[s].n; t++)
            for (size_t h = 0; h < a->H; h++) {
                float want[64];
                const cv_sequence *seq = &g->sequences[s];
                direct(g, a, seq, t, h, want);
                const float *got = a->y + (seq->begin + t) * a->H * a->N + h * a->N;
                for (size_t j = 0; j < a->N; j++)
                    assert_true(fabs(got[j] - want[j]) <= 1e-12);
            }
}

static void check(uint64_t seed, const size_t *lengths, const size_t *past, size_t n, size_t H,
                  size_t N, double size, bool start)
{
    gradient g;
    char title[80];
    snprintf(title, sizeof title, "attention, %zu sequences, %zu heads of %zu%s", n, H, N,
             start ? "" : ", start fixed");
    gradient_open(&g, title, seed, lengths, n, OFFSET + cv_attention_state(H, N, LONGEST));
    for (size_t s = 0; s < n; s++)
        g.start[s * g.state_size + OFFSET] = (float)past[s];
    g.no_start_gradient = !start;
    attention_call c = { { .H = H, .N = N, .longest = LONGEST, .state_offset = OFFSET } };
    c.a.q = grad_value(&g, "q", GRAD_INPUT, g.T * H * N, -size, size);
    c.a.k = grad_value(&g, "k", GRAD_INPUT, g.T * H * N, -size, size);
    c.a.v = grad_value(&g, "v", GRAD_INPUT, g.T * H * N, -1.0, 1.0);
    c.a.y = grad_value(&g, "y", GRAD_OUTPUT, g.T * H * N, 0.0, 0.0);
    grad_value(&g, "memory of y", GRAD_MEMORY, g.T * H, 0.0, 0.0);
    assert_true(cv_attention_own_scratch(g.T, N, LONGEST) <= GRAD_OWN);
    gradient_check(&g, call, &c);
    check_values(&g, &c.a);
    for (size_t s = 0; s < n; s++)
        assert_int_equal(cv_count_of(g.sequences[s].state + OFFSET), past[s] + lengths[s]);
    gradient_close(&g);
}

#define SIZES(...) ((const size_t[]){ __VA_ARGS__ })

static void test_from_nothing(void **state)
{
    (void)state;
    check(1, SIZES(1), SIZES(0), 1, 1, 5, 1.0, true);
    check(2, SIZES(3, 1, 50), SIZES(0, 0, 0), 3, 3, 16, 1.5, true);
    check(3, SIZES(97), SIZES(0), 1, 2, 24, 1.0, false);
    check(4, SIZES(17, 16, 15), SIZES(0, 0, 0), 3, 1, 32, 8.0, true);
}

static void test_from_a_past(void **state)
{
    (void)state;
    check(5, SIZES(1), SIZES(1), 1, 1, 5, 1.0, true);
    check(6, SIZES(4, 33), SIZES(16, 61), 2, 2, 16, 1.5, true);
    check(7, SIZES(20, 2, 9), SIZES(0, 118, 50), 3, 2, 20, 1.0, true);
    check(8, SIZES(5, 6), SIZES(49, 3), 2, 3, 8, 2.0, false);
}

static void test_gelu(void **state)
{
    (void)state;
    for (double x = -12.0; x <= 12.0; x += 0.0625) {
        float at[] = { x, x + 1e-5, x - 1e-5 }, y[3], slope = 1.0;
        cv_kernels_ref.gelu(3, at, y);
        cv_kernels_ref.gelu_back(1, at, &slope);
        assert_true(fabs(slope - (y[1] - y[2]) / 2e-5) <= 1e-9);
        assert_true(fabs(y[0] - x * 0.5 * (1.0 + erf(x / sqrt(2.0)))) <= 1e-15 * (1.0 + fabs(x)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_from_nothing),
        cmocka_unit_test(test_from_a_past),
        cmocka_unit_test(test_gelu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
