/* lesson.c - how layers are walked when they are learnt from; see model.h.
 *
 * With a tape each layer takes buffers of its own, so that the way back finds all values there; their
 * gradients have one place for all layers but the first, where each finds nothing of the one walked
 * back before it.  Or, with tape->kept, only what went into each layer is kept: all layers but the first share
 * the buffers of one, too, and each is computed once more before it is walked back.  The first has its
 * own, because later layers may read what it computed [v7.vfirst]. */
#include <string.h>

#include "models/model.h"

/* This member's rows of x. */
static void copy_rows(const cv_run *run, size_t C, const float *from, float *to)
{
    memcpy(to + run->lo * C, from + run->lo * C, (run->hi - run->lo) * C * sizeof *to);
}

static float *kept_of(const cv_run *run, const cv_model *model, size_t layer)
{
    return run->tape->kept + layer * run->T * model->sizes.C;
}

/* The gradients that layers share are another layer's now. */
static void next_layer(const cv_run *run, const void *record)
{
    (void)record;
    if (run->me->id == 0) cv_forget_layer(run->tape);
}

void cv_learn_layers(cv_run *run, const cv_model *model, float *x, void *buffers,
                     cv_layers_mark *mark)
{
    cv_tape *tape = run->tape;
    const size_t L = model->sizes.L;
    tape->layers = run->common.used;
    for (size_t l = 0; l < L; l++) {
        if (l == 1) *mark = (cv_layers_mark){ tape->used, tape->last, run->common.used };
        if (l > 0 && tape->kept) {
            cv_meet(run); /* x is complete */
            copy_rows(run, model->sizes.C, x, kept_of(run, model, l));
            tape->used = mark->used;
            tape->last = mark->last;
            run->common.used = mark->floats;
        }
        if (l > 1 && !tape->kept) cv_record(run, next_layer, 0); /* when l was walked back */
        if (l > 0) model->arch->take(run, model, buffers);
        if (l == 1) tape->layer = run->common.used - tape->layers;
        model->arch->layer(run, model, l, x, buffers);
    }
    tape->behind = run->common.used;
}

/* Layer l once more, from what went into it. */
static void compute_again(cv_run *run, const cv_model *model, size_t l, float *x, void *buffers,
                          const cv_layers_mark *mark)
{
    run->common.used = mark->floats;
    model->arch->take(run, model, buffers);
    next_layer(run, NULL);
    copy_rows(run, model->sizes.C, kept_of(run, model, l), x);
    for (size_t i = run->me->id; i < run->n_sequences; i += run->me->n) {
        const size_t size = model->arch->state_size(&model->sizes);
        const cv_sequence *s = &run->sequences[i];
        memcpy(s->state + l * size, s->start + l * size, size * sizeof *s->state);
    }
    cv_meet(run);
    model->arch->layer(run, model, l, x, buffers);
    cv_meet(run);
}

void cv_learn_back(cv_run *run, const cv_model *model, float *x, void *buffers,
                   const cv_layers_mark *mark)
{
    const size_t L = model->sizes.L;
    if (run->tape->kept && L > 2) {
        cv_walk_back_to(run, mark->used); /* with the last layer, which is still there */
        for (size_t l = L - 2; l > 0; l--) {
            compute_again(run, model, l, x, buffers, mark);
            cv_walk_back_to(run, mark->used);
        }
    }
    cv_walk_back(run);
}

void cv_learn_take(cv_run *run, const cv_model *model, bool again, void *buffers)
{
    const size_t L = model->sizes.L;
    cv_tape *tape = run->tape;
    tape->layers = run->common.used;
    for (size_t l = 1; l < (again && L > 2 ? 2 : L); l++) {
        model->arch->take(run, model, buffers);
        if (l == 1) tape->layer = run->common.used - tape->layers;
    }
    tape->behind = run->common.used;
}

void cv_learn_measure_back(const cv_run *run, const cv_model *model, bool again,
                           cv_lesson_memory *m)
{
    const cv_sizes *s = &model->sizes;
    const cv_tape *tape = run->tape;
    const size_t T = run->T;
    m->values = run->common.peak;
    m->gradients = m->values - (tape->behind - tape->layers) + tape->layer;
    m->kept = again ? s->L * T * s->C : 0;
    m->own = cv_linear_own_scratch();
    const size_t heads = model->arch->back_scratch ? model->arch->back_scratch(s, T) : 0;
    if (heads > m->own) m->own = heads;
    m->matmul = cv_matmul_scratch(T > 64 ? T : 64);
    m->records = (size_t)64 * 1024 + s->L * 16384;
}
