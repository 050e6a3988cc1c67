/* tuned_state.h - the memory that a model begins with, learnt: nothing else of it changes.
 *
 * The values are those of the official time_state tensors, [H][value][key] of each layer; the learner
 * begins its sequences in them (cv_learner.start) and gives back their gradient.  Shift vectors begin
 * at zero, as official. */
#ifndef CV_TUNED_STATE_H
#define CV_TUNED_STATE_H

#include "train/learner.h"

typedef struct cv_tuned_state {
    cv_learner *learner;
    cv_param *params; /* [L] */
    float *values, *gradients, *start, *start_gradient;
    size_t memory; /* floats of a layer */
} cv_tuned_state;

/* Begins with the file's state; path NULL: with the model's own, zeros in most.  learner's sequences
 * begin in it from then on.  CORVID_E_ARGUMENT: the architecture has no such state, as RWKV-4. */
corvid_status cv_tuned_state_open(cv_learner *learner, const char *path, cv_tuned_state *out,
                                  corvid_error *err);
void cv_tuned_state_close(cv_tuned_state *state); /* safe on a zeroed one; the learner is as before */

/* The values have changed. */
void cv_tuned_state_apply(cv_tuned_state *state);

/* Sets the gradient to zero; before the batches of a step. */
void cv_tuned_state_clear(cv_tuned_state *state);

/* The gradients of the values; behind the batches of a step. */
void cv_tuned_state_gather(cv_tuned_state *state);

/* What learns, as cv_adapters_learner. */
cv_learner cv_tuned_state_learner(cv_tuned_state *state);

/* A safetensors file of official names. */
corvid_status cv_tuned_state_save(const cv_tuned_state *state, const char *path, corvid_error *err);

#endif
