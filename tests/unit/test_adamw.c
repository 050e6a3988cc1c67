/* test_adamw.c - the optimiser against its formula in double, on any number of threads.
 * [train.adamw] */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/team.h"
#include "support.h"
#include "train/adamw.h"

enum { TENSORS = 6, MOST = 10000, STEPS = 5 };

static const size_t lengths[TENSORS] = { 1, 4095, 0, 4096, 4097, MOST };
static const double lr_scales[TENSORS] = { 1.0, 2.0, 1.0, 3.0, 1.0, 1.0 };
static const bool decaying[TENSORS] = { true, false, true, false, true, true };

/* ---- A problem ------------------------------------------------------------------------------- */

typedef struct problem {
    cv_adam_tensor tensors[TENSORS];
    float value[TENSORS][MOST], gradient[TENSORS][MOST], m[TENSORS][MOST], v[TENSORS][MOST];
    float average[TENSORS][MOST];
    double *sums;
} problem;

static void draw_gradients(problem *p, uint64_t step)
{
    cv_rng rng;
    cv_rng_seed(&rng, 100 + step);
    for (size_t t = 0; t < TENSORS; t++)
        for (size_t i = 0; i < MOST; i++)
            p->gradient[t][i] = 0.05f * cv_rng_normal(&rng);
}

static problem *new_problem(void)
{
    problem *p = calloc(1, sizeof *p);
    cv_rng rng;
    cv_rng_seed(&rng, 1);
    for (size_t t = 0; t < TENSORS; t++) {
        for (size_t i = 0; i < MOST; i++)
            p->average[t][i] = p->value[t][i] = cv_rng_normal(&rng);
        p->tensors[t] = (cv_adam_tensor){ .value = p->value[t],
                                          .gradient = p->gradient[t],
                                          .m = p->m[t],
                                          .v = p->v[t],
                                          .average = t % 2 ? p->average[t] : NULL,
                                          .n = lengths[t],
                                          .lr_scale = lr_scales[t],
                                          .decays = decaying[t] };
    }
    p->sums = calloc(cv_adam_chunks(p->tensors, TENSORS), sizeof *p->sums);
    return p;
}

static void free_problem(problem *p)
{
    free(p->sums);
    free(p);
}

static const cv_adam_settings ordinary = {
    .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-18, .weight_decay = 0.1, .clip = 1.0, .average = 0.999
};

typedef struct job {
    problem *p;
    const cv_adam_settings *settings;
    uint64_t k;
    double lr;
    cv_gradient_report reports[8];
} job;

static void work(const cv_member *me, void *arg)
{
    job *j = arg;
    j->reports[me->id] = cv_gradient_measure(me, j->settings, j->p->tensors, TENSORS, j->p->sums);
    cv_adam_step(me, j->settings, j->p->tensors, TENSORS, j->k, j->lr, j->reports[me->id].factor);
}

static void run(problem *p, size_t threads, const cv_adam_settings *settings, uint64_t steps)
{
    cv_team *team;
    corvid_error err;
    ASSERT_OK(cv_team_new(&cv_libc_allocator, threads, &team, &err), &err);
    for (uint64_t k = 1; k <= steps; k++) {
        job j = { .p = p, .settings = settings, .k = k, .lr = 1e-3 };
        draw_gradients(p, k);
        cv_team_run(team, work, &j);
        for (size_t i = 1; i < threads; i++)
            assert_memory_equal(&j.reports[0], &j.reports[i], sizeof *j.reports);
    }
    cv_team_free(team);
}

/* ---- Against the formula --------------------------------------------------------------------- */

/* One number through all steps as the formula has it. */
typedef struct number {
    double p, m, v, average;
} number;

static void formula(number *x, const cv_adam_settings *s, double g, double lr, bool decays,
                    uint64_t k)
{
    if (decays) x->p *= 1.0 - lr * s->weight_decay;
    x->m = s->beta1 * x->m + (1.0 - s->beta1) * g;
    x->v = s->beta2 * x->v + (1.0 - s->beta2) * g * g;
    const double m_hat = x->m / (1.0 - pow(s->beta1, (double)k));
    const double v_hat = x->v / (1.0 - pow(s->beta2, (double)k));
    x->p -= lr * m_hat / (sqrt(v_hat) + s->eps);
    x->average = s->average * x->average + (1.0 - s->average) * x->p;
}

static double all_squares(const problem *p)
{
    double sum = 0.0;
    for (size_t t = 0; t < TENSORS; t++)
        for (size_t i = 0; i < lengths[t]; i++)
            sum += (double)p->gradient[t][i] * (double)p->gradient[t][i];
    return sum;
}

static void follows_the_formula(void **state)
{
    (void)state;
    problem *p = new_problem();
    number *numbers = calloc(TENSORS * MOST, sizeof *numbers);
    for (size_t t = 0; t < TENSORS; t++)
        for (size_t i = 0; i < MOST; i++)
            numbers[t * MOST + i] =
                (number){ .p = (double)p->value[t][i], .average = (double)p->value[t][i] };
    run(p, 2, &ordinary, STEPS);
    for (uint64_t k = 1; k <= STEPS; k++) {
        draw_gradients(p, k);
        const double norm = sqrt(all_squares(p));
        assert_true(norm > 2.0); /* it is clipped */
        for (size_t t = 0; t < TENSORS; t++)
            for (size_t i = 0; i < lengths[t]; i++)
                formula(&numbers[t * MOST + i], &ordinary,
                        (double)p->gradient[t][i] * fmin(1.0, 1.0 / (norm + 1e-6)),
                        1e-3 * lr_scales[t], decaying[t], k);
    }
    /* Five roundings of a value of up to 5, and of steps of some 1e-3. */
    for (size_t t = 0; t < TENSORS; t++)
        for (size_t i = 0; i < lengths[t]; i++) {
            const number *x = &numbers[t * MOST + i];
            const double most = 1e-8 + 4e-7 * fabs(x->p);
            assert_true(fabs((double)p->value[t][i] - x->p) <= most);
            assert_true(fabs((double)p->m[t][i] - x->m) <= 1e-6 * (fabs(x->m) + 1e-3));
            assert_true(fabs((double)p->v[t][i] - x->v) <= 2e-6 * x->v + 1e-12);
            if (p->tensors[t].average)
                assert_true(fabs((double)p->average[t][i] - x->average) <= most);
        }
    /* Beyond the ends of the tensors nothing has moved. */
    for (size_t t = 0; t < TENSORS; t++)
        for (size_t i = lengths[t]; i < MOST; i++)
            assert_true((double)p->value[t][i] == numbers[t * MOST + i].p);
    free(numbers);
    free_problem(p);
}

static void same_on_any_number_of_threads(void **state)
{
    (void)state;
    problem *one = new_problem();
    run(one, 1, &ordinary, 3);
    for (size_t threads = 2; threads <= 8; threads += threads == 3 ? 2 : 1) {
        problem *many = new_problem();
        run(many, threads, &ordinary, 3);
        assert_memory_equal(one->value, many->value, sizeof one->value);
        assert_memory_equal(one->m, many->m, sizeof one->m);
        assert_memory_equal(one->v, many->v, sizeof one->v);
        assert_memory_equal(one->average, many->average, sizeof one->average);
        free_problem(many);
    }
    free_problem(one);
}

/* ---- The norm -------------------------------------------------------------------------------- */

/* Measures without a step. */
static void measure_work(const cv_member *me, void *arg)
{
    job *j = arg;
    j->reports[me->id] = cv_gradient_measure(me, j->settings, j->p->tensors, TENSORS, j->p->sums);
}

static cv_gradient_report measure(problem *p, const cv_adam_settings *settings)
{
    cv_team *team;
    corvid_error err;
    job j = { .p = p, .settings = settings };
    ASSERT_OK(cv_team_new(&cv_libc_allocator, 3, &team, &err), &err);
    cv_team_run(team, measure_work, &j);
    cv_team_free(team);
    return j.reports[2];
}

static void norm_and_clipping(void **state)
{
    (void)state;
    problem *p = new_problem();
    draw_gradients(p, 1);
    cv_adam_settings s = ordinary;
    const double norm = sqrt(all_squares(p));
    cv_gradient_report r = measure(p, &s);
    assert_true(fabs(r.norm - norm) <= 1e-12 * norm);
    assert_true(fabs(r.factor - 1.0 / (norm + 1e-6)) <= 1e-12);
    assert_true(r.tensor == CV_ALL_FINITE);
    s.clip = 2.0 * norm;
    assert_true(measure(p, &s).factor == 1.0);
    s.clip = 0.0;
    assert_true(measure(p, &s).factor == 1.0);
    free_problem(p);
}

static void first_number_that_is_not_finite(void **state)
{
    (void)state;
    static const struct {
        size_t tensor, element;
    } places[] = { { 0, 0 }, { 1, 4094 }, { 3, 4095 }, { 4, 4096 }, { 5, 0 }, { 5, MOST - 1 } };
    problem *p = new_problem();
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        draw_gradients(p, i);
        p->gradient[places[i].tensor][places[i].element] = i % 2 ? NAN : -INFINITY;
        p->gradient[5][MOST - 1] = NAN; /* a later one; the last of the places is this one */
        const cv_gradient_report r = measure(p, &ordinary);
        assert_int_equal(r.tensor, places[i].tensor);
        assert_int_equal(r.element, places[i].element);
    }
    draw_gradients(p, 9);
    p->gradient[5][7] = 3e38f; /* its square is finite in double */
    assert_true(measure(p, &ordinary).tensor == CV_ALL_FINITE);
    free_problem(p);
}

/* ---- Ends of the range ------------------------------------------------------------------------ */

/* One tensor of one number, k steps with the same gradient. */
static float walk_one(float value, float gradient, const cv_adam_settings *s, double lr,
                      bool decays, uint64_t steps)
{
    float m = 0.0f, v = 0.0f;
    const cv_member alone = { .id = 0, .n = 1 };
    const cv_adam_tensor t = { .value = &value,
                               .gradient = &gradient,
                               .m = &m,
                               .v = &v,
                               .n = 1,
                               .lr_scale = 1.0,
                               .decays = decays };
    for (uint64_t k = 1; k <= steps; k++)
        cv_adam_step(&alone, s, &t, 1, k, lr, 1.0);
    return value;
}

static void zero_gradients_move_nothing(void **state)
{
    (void)state;
    assert_true(walk_one(0.7f, 0.0f, &ordinary, 1e-3, false, 100) == 0.7f);
    const double decayed = 0.7 * pow(1.0 - 1e-4, 100.0);
    assert_true(fabs((double)walk_one(0.7f, 0.0f, &ordinary, 1e-3, true, 100) - decayed) < 5e-6);
}

/* With eps 1e-18 the smallest gradients of the reference vectors still make whole steps. */
static void small_gradients_make_whole_steps(void **state)
{
    (void)state;
    const double moved = (double)walk_one(0.0f, 3.7e-10f, &ordinary, 1e-3, false, 1);
    assert_true(fabs(moved + 1e-3) < 1e-9);
    cv_adam_settings s = ordinary;
    s.eps = 1e-8;
    const double damped = (double)walk_one(0.0f, 3.7e-10f, &s, 1e-3, false, 1);
    assert_true(fabs(damped + 1e-3 * 3.7e-10 / (3.7e-10 + 1e-8)) < 1e-9);
}

/* 1 - 1e-8 is 1 in single precision.  A decay as small as that must still add up over many steps
 * that move the number otherwise; lost, it would leave 1e-3 of it. */
static void small_decays_add_up(void **state)
{
    (void)state;
    enum { MANY = 100000 };
    const cv_adam_settings s = { .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-18, .weight_decay = 1e-4 };
    const cv_member alone = { .id = 0, .n = 1 };
    float value = 1.0f, gradient, m = 0.0f, v = 0.0f;
    number exact = { .p = 1.0 };
    const cv_adam_tensor t = { .value = &value,
                               .gradient = &gradient,
                               .m = &m,
                               .v = &v,
                               .n = 1,
                               .lr_scale = 1.0,
                               .decays = true };
    cv_rng rng;
    cv_rng_seed(&rng, 3);
    for (uint64_t k = 1; k <= MANY; k++) {
        gradient = cv_rng_normal(&rng);
        cv_adam_step(&alone, &s, &t, 1, k, 1e-4, 1.0);
        formula(&exact, &s, (double)gradient, 1e-4, true, k);
    }
    if (!(fabs((double)value - exact.p) < 1e-4))
        fail_msg("%.9g, expected %.9g", (double)value, exact.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_formula),
        cmocka_unit_test(same_on_any_number_of_threads),
        cmocka_unit_test(norm_and_clipping),
        cmocka_unit_test(first_number_that_is_not_finite),
        cmocka_unit_test(zero_gradients_move_nothing),
        cmocka_unit_test(small_gradients_make_whole_steps),
        cmocka_unit_test(small_decays_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
