/* text_lesson.c - batches of sequences; see text_lesson.h. */
#include <string.h>

#include "train/text_lesson.h"

/* Where every sequence puts the gradient of its start, if that is wanted. */
static corvid_status room_for_starts(cv_learner *l, corvid_error *err)
{
    if (!l->start_gradient || l->start_gradients) return CORVID_OK;
    const size_t floats = l->max_sequences * l->state_size;
    l->start_gradients = cv_alloc_huge(l->mem, floats * sizeof(float) + 64);
    if (l->start_gradients) return CORVID_OK;
    return cv_fail(err, CORVID_E_MEMORY, "out of memory: the gradients of %zu states",
                   l->max_sequences);
}

corvid_status cv_learner_room(cv_learner *l, size_t n_sequences, size_t length, corvid_error *err)
{
    const size_t rows = n_sequences * length, members = cv_team_size(l->team);
    const cv_member one = { .team = l->team, .id = 0, .n = members };
    cv_lesson_memory memory;
    cv_free(l->mem, l->sequences);
    cv_free(l->mem, l->states);
    cv_free(l->mem, l->start_gradients);
    l->start_gradients = NULL;
    l->max_sequences = n_sequences;
    l->state_size = cv_state_size(&l->model);
    l->sequences = cv_alloc(l->mem, n_sequences, sizeof *l->sequences);
    l->states = cv_alloc_huge(l->mem, (1 + n_sequences) * l->state_size * sizeof(float) + 64);
    if (!l->sequences || !l->states)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: the states of %zu sequences",
                       n_sequences);
    CV_TRY(room_for_starts(l, err));
    cv_language_lesson_memory(&l->model, rows, l->options.again, &one, &memory);
    return cv_room_open(l->mem, members, &memory, rows, &l->room, err);
}

typedef struct work {
    cv_learner *learner;
    cv_lesson lesson;
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
    cv_language_learn(&run, &l->model, &w->lesson);
    if (me->id == 0) w->full = tape.full;
}

/* Every sequence from the learner's start, or the model's: one for all of them, that nobody writes.
 * Each has a state of its own that runs on and, where it is wanted, the gradient of the start. */
static void start_sequences(cv_learner *l, const cv_batch *batch)
{
    const size_t size = l->state_size;
    const float *start = l->start ? l->start : l->states;
    float *gradients = l->start_gradient ? l->start_gradients : NULL;
    if (!l->start) cv_state_start(&l->model, l->states);
    if (gradients) memset(gradients, 0, batch->n_sequences * size * sizeof *gradients);
    for (size_t i = 0; i < batch->n_sequences; i++) {
        float *state = l->states + (1 + i) * size;
        memcpy(state, start, size * sizeof *state);
        l->sequences[i] =
            (cv_sequence){ .begin = i * batch->length,
                           .n = batch->length,
                           .state = state,
                           .start = start,
                           .start_gradient = gradients ? gradients + i * size : NULL };
    }
}

/* In the order of the sequences, so that it does not depend on who walked them. */
static void gather_start(cv_learner *l, size_t n_sequences)
{
    for (size_t i = 0; i < n_sequences; i++)
        for (size_t j = 0; j < l->state_size; j++)
            l->start_gradient[j] += l->sequences[i].start_gradient[j];
}

static corvid_status check_batch(const cv_learner *l, const cv_batch *batch, corvid_error *err)
{
    const size_t rows = batch->n_sequences * batch->length;
    if (rows == 0 || rows > l->room.rows || batch->n_sequences > l->max_sequences)
        return cv_fail(err, CORVID_E_ARGUMENT, "a batch of %zu x %zu tokens has no room",
                       batch->n_sequences, batch->length);
    const cv_arch *arch = l->model.arch;
    if (arch->longest && batch->length > arch->longest(&l->model.sizes))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "sequences of %zu tokens, but this %s model has places for %zu",
                       batch->length, arch->name, arch->longest(&l->model.sizes));
    for (size_t i = 0; i < rows; i++)
        if (batch->tokens[i] < 0 || (size_t)batch->tokens[i] >= l->model.sizes.V ||
            batch->targets[i] >= (int32_t)l->model.sizes.V)
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "token %d at %zu is not in the vocabulary of 0 to %zu",
                           (int)batch->tokens[i], i, l->model.sizes.V - 1);
    return CORVID_OK;
}

static corvid_status run_batch(cv_learner *l, const cv_batch *batch, bool gradients, double *loss,
                               corvid_error *err)
{
    const size_t rows = batch->n_sequences * batch->length;
    CV_TRY(check_batch(l, batch, err));
    CV_TRY(room_for_starts(l, err));
    start_sequences(l, batch);
    work w = { .learner = l,
               .lesson = { .step = { .tokens = batch->tokens,
                                     .T = rows,
                                     .sequences = l->sequences,
                                     .n_sequences = batch->n_sequences },
                           .loss = { .targets = batch->targets,
                                     .weight = batch->weight,
                                     .l2_wrap = batch->l2_wrap },
                           .gradients = gradients,
                           .rows = l->room.losses } };
    cv_team_run(l->team, walk, &w);
    if (w.full)
        return cv_fail(err, CORVID_E_INTERNAL, "the tape of a step is too short; please report it");
    if (gradients && l->start_gradient) gather_start(l, batch->n_sequences);
    double sum = 0.0;
    size_t n = 0;
    for (size_t t = 0; t < rows; t++) {
        sum += (double)l->room.losses[t];
        n += batch->targets[t] >= 0;
    }
    *loss = n ? sum / (double)n : 0.0;
    return CORVID_OK;
}

corvid_status cv_learner_batch(cv_learner *l, const cv_batch *batch, double *loss,
                               corvid_error *err)
{
    return run_batch(l, batch, true, loss, err);
}

corvid_status cv_learner_score(cv_learner *l, const cv_batch *batch, double *loss,
                               corvid_error *err)
{
    return run_batch(l, batch, false, loss, err);
}
