/* teach.c - optimiser steps on a learner; see teach.h. */
#include "teach.h"

#include <math.h>
#include <stdlib.h>

#include "support.h"

void teacher_open(teacher *t, cv_learner *learner, cv_grouping grouping,
                  const cv_adam_settings *settings)
{
    size_t n = 0;
    *t = (teacher){ .learner = learner, .settings = *settings };
    for (size_t i = 0; i < learner->n_params; i++)
        n += learner->params[i].n;
    t->tensors = calloc(learner->n_params, sizeof *t->tensors);
    t->moments = calloc(2 * n, sizeof *t->moments);
    assert_true(t->tensors && t->moments);
    float *at = t->moments;
    for (size_t i = 0; i < learner->n_params; i++) {
        const cv_param *p = &learner->params[i];
        const cv_group group = cv_group_of(grouping, &learner->source, &p->view);
        t->tensors[i] = (cv_adam_tensor){ .value = p->value,
                                          .gradient = p->gradient,
                                          .m = at,
                                          .v = at + p->n,
                                          .n = p->n,
                                          .lr_scale = group.lr_scale,
                                          .decays = group.decays };
        at += 2 * p->n;
    }
    t->sums = malloc(cv_adam_chunks(t->tensors, learner->n_params) * sizeof *t->sums);
    assert_non_null(t->sums);
}

void teacher_close(teacher *t)
{
    free(t->tensors);
    free(t->moments);
    free(t->sums);
}

typedef struct update {
    teacher *t;
    double lr;
    cv_gradient_report report;
} update;

static void work(const cv_member *me, void *arg)
{
    update *u = arg;
    teacher *t = u->t;
    const size_t n = t->learner->n_params;
    const cv_gradient_report g = cv_gradient_measure(me, &t->settings, t->tensors, n, t->sums);
    if (me->id == 0) u->report = g;
    cv_adam_step(me, &t->settings, t->tensors, n, t->step, u->lr, g.factor);
}

double teacher_step(teacher *t, double lr)
{
    update u = { .t = t, .lr = lr };
    t->step++;
    cv_team_run(t->learner->team, work, &u);
    cv_learner_publish(t->learner);
    return u.report.norm;
}

void teacher_spoil(cv_room *room)
{
    for (size_t i = 0; i < room->memory.gradients; i++)
        room->gradients[i] = NAN;
}
