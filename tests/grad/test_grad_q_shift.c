/* test_grad_q_shift.c - the shift on a grid, its mixes and its difference walked back, against
 * central differences.  In double.  [q.shift] [q.mix] */
#include "gradient.h"

#include "ops/q_shift.h"

/* Pictures without a neighbour on some side, of one column, of one row, and one that has all. */
static const size_t SIDES[][2] = { { 1, 1 }, { 3, 4 }, { 5, 1 }, { 1, 6 }, { 4, 3 } };

typedef struct shift_call {
    size_t C;
    cv_q_shift shift;
    const float *z;
    float *shifted, *delta;
    cv_mix mixes[3];
} shift_call;

static void call_shift(const cv_run *run, void *arg)
{
    const shift_call *c = arg;
    for (cv_tile t = cv_tile_begin(run); cv_tile_next(&t);)
        cv_q_shift_rows(&t, c->C, &c->shift, c->z, c->shifted + t.first * c->C);
}

/* What layers make of it. */
static void call_all(const cv_run *run, void *arg)
{
    const shift_call *c = arg;
    for (cv_tile t = cv_tile_begin(run); cv_tile_next(&t);) {
        const size_t at = t.first * c->C;
        cv_mix mixes[COUNT(c->mixes)];
        for (size_t i = 0; i < COUNT(mixes); i++)
            mixes[i] = (cv_mix){ c->mixes[i].mu, c->mixes[i].y + at };
        cv_q_shift_rows(&t, c->C, &c->shift, c->z, c->shifted + at);
        cv_q_mix(&t, c->C, c->z, c->shifted + at, mixes, COUNT(mixes));
        cv_q_delta(&t, c->C, c->z, c->shifted + at, c->delta + at);
    }
}

static void shift_of(gradient *g, shift_call *c, size_t C, cv_q_shift shift, grad_kind kind)
{
    *c = (shift_call){ .C = C, .shift = shift };
    c->z = grad_value(g, "z", GRAD_INPUT, g->T * C, -1.0, 1.0);
    c->shifted = grad_value(g, "shifted", kind, g->T * C, 0.0, 0.0);
}

static void check_shift(const char *title, uint64_t seed, size_t C, cv_q_shift shift,
                        bool class_token)
{
    gradient g;
    shift_call c;
    gradient_open_grids(&g, title, seed, SIDES, COUNT(SIDES), class_token);
    shift_of(&g, &c, C, shift, GRAD_OUTPUT);
    gradient_check(&g, call_shift, &c);
    gradient_close(&g);
}

static void test_shift(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 2; i++) {
        check_shift("shift, 8 channels", 1 + i, 8, cv_q_shift_whole(8, 0.25, 1), i);
        check_shift("shift, 19 channels", 3 + i, 19, cv_q_shift_whole(19, 0.25, 1), i);
        check_shift("shift, half of 20", 5 + i, 20, cv_q_shift_whole(20, 0.125, 1), i);
        check_shift("shift, 2 away", 7 + i, 10, cv_q_shift_whole(10, 0.25, 2), i);
        check_shift("shift, none", 9 + i, 8, cv_q_shift_whole(8, 0.25, 0), i);
        check_shift("shift, 3 heads of 9", 11 + i, 27, cv_q_shift_heads(9, 1), i);
        check_shift("shift, 2 heads of 8, 3 away", 13 + i, 16, cv_q_shift_heads(8, 3), i);
    }
}

static void check_all(const char *title, uint64_t seed, size_t C, cv_q_shift shift,
                      bool class_token, bool trained)
{
    gradient g;
    shift_call c;
    float fixed[64];
    assert_true(C <= COUNT(fixed));
    gradient_open_grids(&g, title, seed, SIDES, COUNT(SIDES), class_token);
    shift_of(&g, &c, C, shift, GRAD_BETWEEN);
    for (size_t i = 0; i < C; i++)
        fixed[i] = 0.1 * (double)(i % 7);
    c.mixes[0].mu = grad_weight(&g, "mu", C, 0.0, 1.0);
    c.mixes[1].mu = trained ? grad_weight(&g, "mu of the second", C, -0.5, 1.5) : fixed;
    for (size_t i = 0; i < COUNT(c.mixes); i++) /* the third is z */
        c.mixes[i].y = grad_value(&g, "y", GRAD_OUTPUT, g.T * C, 0.0, 0.0);
    c.delta = grad_value(&g, "delta", GRAD_OUTPUT, g.T * C, 0.0, 0.0);
    gradient_check(&g, call_all, &c);
    gradient_close(&g);
}

static void test_mix_and_delta(void **state)
{
    (void)state;
    check_all("shift, mixes, delta", 20, 12, cv_q_shift_whole(12, 0.25, 1), false, true);
    check_all("the same with class tokens", 21, 21, cv_q_shift_whole(21, 0.25, 1), true, true);
    check_all("the same with heads", 22, 40, cv_q_shift_heads(8, 1), true, true);
    check_all("the same, one mu not trained", 23, 33, cv_q_shift_heads(11, 1), false, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shift),
        cmocka_unit_test(test_mix_and_delta),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
