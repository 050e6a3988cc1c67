/* test_adamw_golden.c - one optimiser step on whole models with reference gradients, and what their
 * parameters after three reference steps tell of groups.  [train.adamw] [train.groups]
 *
 * The reference's later gradients come from the model itself; test_learn_golden.c has them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/checkpoint.h"
#include "support.h"
#include "train/adamw.h"
#include "train/groups.h"

enum { TENSORS = 128 };

static const double LR = 1e-3, DECAY = 0.1;

static const struct {
    const char *file;
    cv_grouping grouping;
} models[] = {
    { "rwkv-tiny/reference/lm_v4.safetensors", CV_GROUPS_RWKV },
    { "rwkv-tiny/reference/lm_v5_0.safetensors", CV_GROUPS_RWKV },
    { "rwkv-tiny/reference/lm_v5_1.safetensors", CV_GROUPS_RWKV },
    { "rwkv-tiny/reference/lm_v5_2.safetensors", CV_GROUPS_RWKV },
    { "rwkv-tiny/reference/lm_v6.safetensors", CV_GROUPS_RWKV },
    { "rwkv-tiny/reference/lm_v7.safetensors", CV_GROUPS_RWKV7 },
};

/* ---- A model's parameters ---------------------------------------------------------------------- */

typedef struct parameter {
    const char *name;
    cv_group group;
    size_t n;
    double *param, *grad, *after3;
    float *value, *gradient, *m, *v;
} parameter;

typedef struct model {
    cv_checkpoint ckpt;
    parameter parameters[TENSORS];
    size_t n;
} model;

static double *read_tensor(const cv_checkpoint *ckpt, const char *prefix, const char *name,
                           size_t n)
{
    char full[128];
    corvid_error err;
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const cv_tensor *t = cv_checkpoint_find(ckpt, full);
    if (!t) fail_msg("%s: no %s", ckpt->in.path, full);
    assert_true(t->dtype == CV_F64 && t->count == n);
    double *x = malloc(n * sizeof *x);
    ASSERT_OK(cv_tensor_read(ckpt, t, 0, n, x, &err), &err);
    return x;
}

static float *narrowed(const double *x, size_t n)
{
    float *y = calloc(n, sizeof *y);
    for (size_t i = 0; x && i < n; i++)
        y[i] = (float)x[i];
    return y;
}

static model *open_model(const char *path, cv_grouping grouping)
{
    static const char prefix[] = "param.";
    model *m = calloc(1, sizeof *m);
    corvid_error err;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &m->ckpt, &err), &err);
    for (size_t i = 0; i < m->ckpt.n_tensors; i++) {
        const cv_tensor *t = &m->ckpt.tensors[i];
        if (strncmp(t->name, prefix, sizeof prefix - 1) != 0) continue;
        assert_true(m->n < TENSORS);
        parameter *p = &m->parameters[m->n++];
        p->name = t->name + sizeof prefix - 1;
        p->n = t->count;
        p->group = cv_group_by_name(grouping, p->name, t->dims, t->n_dims);
        p->param = read_tensor(&m->ckpt, "param.", p->name, p->n);
        p->grad = read_tensor(&m->ckpt, "grad.", p->name, p->n);
        p->after3 = read_tensor(&m->ckpt, "after3.", p->name, p->n);
        p->value = narrowed(p->param, p->n);
        p->gradient = narrowed(p->grad, p->n);
        p->m = narrowed(NULL, p->n);
        p->v = narrowed(NULL, p->n);
    }
    assert_true(m->n > 40);
    return m;
}

static void close_model(model *m)
{
    for (size_t i = 0; i < m->n; i++) {
        parameter *p = &m->parameters[i];
        void *blocks[] = { p->param, p->grad, p->after3, p->value, p->gradient, p->m, p->v };
        for (size_t j = 0; j < sizeof blocks / sizeof *blocks; j++)
            free(blocks[j]);
    }
    cv_checkpoint_close(&m->ckpt);
    free(m);
}

/* ---- One step ---------------------------------------------------------------------------------- */

typedef struct job {
    const cv_adam_settings *settings;
    const cv_adam_tensor *tensors;
    size_t n;
    double *sums;
    double norm;
} job;

static void work(const cv_member *me, void *arg)
{
    job *j = arg;
    const cv_gradient_report r = cv_gradient_measure(me, j->settings, j->tensors, j->n, j->sums);
    cv_adam_step(me, j->settings, j->tensors, j->n, 1, LR, r.factor);
    if (me->id == 0) j->norm = r.norm;
}

static double step_once(model *m, const cv_adam_settings *settings)
{
    cv_adam_tensor tensors[TENSORS];
    cv_team *team;
    corvid_error err;
    for (size_t i = 0; i < m->n; i++) {
        const parameter *p = &m->parameters[i];
        tensors[i] = (cv_adam_tensor){ .value = p->value,
                                       .gradient = p->gradient,
                                       .m = p->m,
                                       .v = p->v,
                                       .n = p->n,
                                       .lr_scale = p->group.lr_scale,
                                       .decays = p->group.decays };
    }
    job j = { .settings = settings, .tensors = tensors, .n = m->n };
    j.sums = calloc(cv_adam_chunks(tensors, m->n), sizeof *j.sums);
    ASSERT_OK(cv_team_new(&cv_libc_allocator, 2, &team, &err), &err);
    cv_team_run(team, work, &j);
    cv_team_free(team);
    free(j.sums);
    return j.norm;
}

/* The first step in double: m / (1 - beta1) is g, and v / (1 - beta2) its square. */
static void check_step(const model *m, const cv_adam_settings *s, double measured)
{
    double sum = 0.0;
    for (size_t i = 0; i < m->n; i++)
        for (size_t j = 0; j < m->parameters[i].n; j++)
            sum += m->parameters[i].grad[j] * m->parameters[i].grad[j];
    const double norm = sqrt(sum), factor = fmin(1.0, s->clip / (norm + 1e-6));
    assert_true(fabs(measured - norm) <= 1e-6 * norm);
    for (size_t i = 0; i < m->n; i++) {
        const parameter *p = &m->parameters[i];
        const double lr = LR * p->group.lr_scale;
        for (size_t j = 0; j < p->n; j++) {
            const double g = p->grad[j] * factor, decay = p->group.decays ? lr * DECAY : 0.0;
            const double want = p->param[j] * (1.0 - decay) - lr * g / (fabs(g) + s->eps);
            /* Two roundings of the parameter to single precision. */
            if (!(fabs((double)p->value[j] - want) <= 1.3e-7 * fabs(want) + 1e-9))
                fail_msg("%s: %s[%zu] is %.9g after a step, expected %.9g", m->ckpt.in.path,
                         p->name, j, (double)p->value[j], want);
        }
    }
}

static void one_step(void **state)
{
    (void)state;
    const cv_adam_settings settings = {
        .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-18, .weight_decay = DECAY, .clip = 1.0
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        NEED_DATA(path, models[i].file);
        model *m = open_model(path, models[i].grouping);
        check_step(m, &settings, step_once(m, &settings));
        close_model(m);
    }
}

/* ---- Groups ------------------------------------------------------------------------------------ */

/* Steps of Adam with much the same gradient are all of the size of the learning rate: the number
 * that moved farthest in three steps tells it. */
static double learning_rate_seen(const parameter *p)
{
    double most = 0.0;
    for (size_t i = 0; i < p->n; i++) {
        const double decay = p->group.decays ? LR * DECAY * fabs(p->param[i]) * 3.0 : 0.0;
        most = fmax(most, fabs(p->after3[i] - p->param[i]) - decay);
    }
    return most / 3.0;
}

/* Numbers without a gradient move by decay alone.  Counts them. */
static size_t check_decay(const model *m, const parameter *p)
{
    const double kept = p->group.decays ? pow(1.0 - LR * DECAY, 3.0) : 1.0;
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->grad[i] != 0.0 || p->param[i] == 0.0) continue;
        if (!(fabs(p->after3[i] / p->param[i] - kept) < 1e-12)) {
            /* A gradient that was zero in the first step only: it moved by a whole step. */
            if (fabs(p->after3[i] - p->param[i] * kept) > 0.5 * LR) continue;
            fail_msg("%s: %s[%zu] decays by %.9g, expected %.9g", m->ckpt.in.path, p->name, i,
                     p->after3[i] / p->param[i], kept);
        }
        n++;
    }
    return n;
}

static void groups(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        NEED_DATA(path, models[i].file);
        model *m = open_model(path, models[i].grouping);
        size_t still = 0;
        for (size_t j = 0; j < m->n; j++) {
            const parameter *p = &m->parameters[j];
            const double scale = learning_rate_seen(p) / LR;
            if (!(fabs(scale - p->group.lr_scale) < 0.4)) /* the groups are 1, 2 and 3 */
                fail_msg("%s: %s moves at %.3f learning rates, expected %.0f", m->ckpt.in.path,
                         p->name, scale, p->group.lr_scale);
            still += check_decay(m, p);
        }
        assert_true(still > 0);
        close_model(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(one_step), cmocka_unit_test(groups) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
