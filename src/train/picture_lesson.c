/* picture_lesson.c - batches of pictures; see picture_lesson.h. */
#include "train/picture_lesson.h"

#include "base/rng.h"

static void drop_lists(cv_learner *l)
{
    cv_free(l->mem, l->images);
    cv_free(l->mem, l->grids);
    cv_free(l->mem, l->keep);
    cv_free(l->mem, l->best);
    l->images = NULL;
    l->grids = NULL;
    l->keep = NULL;
    l->best = NULL;
}

/* Pictures side by side, all of one size. */
static void lay_out_grids(cv_learner *l, size_t n, size_t side)
{
    for (size_t i = 0, begin = 0; i < n; begin += l->grids[i++].n)
        l->grids[i] = cv_vision_grid(&l->model, side, side, begin);
}

corvid_status cv_learner_picture_room(cv_learner *l, size_t n, size_t side, corvid_error *err)
{
    const size_t members = cv_team_size(l->team);
    const cv_member one = { .team = l->team, .id = 0, .n = members };
    cv_lesson_memory memory;
    if (!l->model.arch->stack->vision || !l->model.head.rows)
        return cv_fail(err, CORVID_E_ARGUMENT, "%s: not a model that gives pictures a class",
                       l->model.arch->name);
    drop_lists(l);
    l->images = cv_alloc_zero(l->mem, n, sizeof *l->images);
    l->grids = cv_alloc(l->mem, n, sizeof *l->grids);
    l->keep = cv_alloc(l->mem, 2 * l->model.sizes.L * n, sizeof *l->keep);
    l->best = cv_alloc(l->mem, n, sizeof *l->best);
    if (!l->images || !l->grids || !l->keep || !l->best)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: a batch of %zu pictures", n);
    l->max_pictures = n;
    lay_out_grids(l, n, side);
    cv_vision_lesson_memory(&l->model, l->grids, n, l->options.again, &one, &memory);
    return cv_room_open(l->mem, members, &memory, n * l->grids[0].n, &l->room, err);
}

/* What is left of each branch of each picture [train.drop]. */
static const float *drop_paths(cv_learner *l, const cv_picture_batch *batch)
{
    const size_t L = l->model.sizes.L;
    cv_rng rng;
    if (!(batch->drop_path > 0.0)) return NULL;
    cv_rng_seed(&rng, batch->key);
    for (size_t branch = 0; branch < 2 * L; branch++) {
        const double depth = L > 1 ? (double)(branch / 2) / (double)(L - 1) : 0.0;
        const double rate = batch->drop_path * depth;
        for (size_t i = 0; i < batch->n; i++)
            l->keep[branch * batch->n + i] =
                cv_rng_uniform(&rng) < rate ? 0.0f : (float)(1.0 / (1.0 - rate));
    }
    return l->keep;
}

static corvid_status check_batch(const cv_learner *l, const cv_picture_batch *batch,
                                 corvid_error *err)
{
    const size_t K = l->model.sizes.K;
    if (batch->n == 0 || batch->n > l->max_pictures ||
        batch->n * cv_vision_grid(&l->model, batch->side, batch->side, 0).n > l->room.rows)
        return cv_fail(err, CORVID_E_ARGUMENT, "a batch of %zu pictures of %zu pixels has no room",
                       batch->n, batch->side);
    for (size_t i = 0; i < batch->n; i++) {
        const int32_t other = batch->others ? batch->others[i] : batch->targets[i];
        if (batch->targets[i] < 0 || (size_t)batch->targets[i] >= K || other < 0 ||
            (size_t)other >= K)
            return cv_fail(err, CORVID_E_ARGUMENT, "class %d of picture %zu is not one of 0 to %zu",
                           (int)batch->targets[i], i, K - 1);
    }
    return CORVID_OK;
}

typedef struct work {
    cv_learner *learner;
    cv_sight_lesson lesson;
    bool full;
} work;

static void walk(const cv_member *me, void *arg)
{
    work *w = arg;
    const cv_learner *l = w->learner;
    const cv_taped_weights weights = cv_learner_weights(l);
    cv_run run;
    cv_tape tape;
    cv_room_enter(&l->room, me, l->kernel, &weights, w->lesson.gradients, &run, &tape);
    cv_vision_learn(&run, &l->model, &w->lesson);
    if (me->id == 0) w->full = tape.full;
}

static corvid_status run_batch(cv_learner *l, const cv_picture_batch *batch, bool gradients,
                               double *loss, corvid_error *err)
{
    CV_TRY(check_batch(l, batch, err));
    lay_out_grids(l, batch->n, batch->side);
    for (size_t i = 0; i < batch->n; i++)
        l->images[i] = (cv_image){ .values = batch->values + i * 3 * batch->side * batch->side,
                                   .height = batch->side,
                                   .width = batch->side };
    work w = { .learner = l,
               .lesson = { .sight = { .images = l->images, .grids = l->grids, .n = batch->n },
                           .loss = { .targets = batch->targets,
                                     .others = batch->others,
                                     .share = batch->share,
                                     .weight = batch->weight,
                                     .smoothing = batch->smoothing,
                                     .best = l->best },
                           .keep = gradients ? drop_paths(l, batch) : NULL,
                           .gradients = gradients,
                           .rows = l->room.losses } };
    cv_team_run(l->team, walk, &w);
    if (w.full)
        return cv_fail(err, CORVID_E_INTERNAL, "the tape of a step is too short; please report it");
    double sum = 0.0;
    for (size_t i = 0; i < batch->n; i++)
        sum += (double)l->room.losses[i];
    *loss = sum / (double)batch->n;
    return CORVID_OK;
}

corvid_status cv_learner_pictures(cv_learner *l, const cv_picture_batch *batch, double *loss,
                                  corvid_error *err)
{
    return run_batch(l, batch, true, loss, err);
}

corvid_status cv_learner_look(cv_learner *l, const cv_picture_batch *batch, double *loss,
                              size_t *right, corvid_error *err)
{
    CV_TRY(run_batch(l, batch, false, loss, err));
    *right = 0;
    for (size_t i = 0; i < batch->n; i++)
        *right += l->best[i] == batch->targets[i];
    return CORVID_OK;
}
