/* tape.h - what was computed, so that it can be walked back: gradients of one step. [train.gradient]
 *
 * A model text that is given a tape records itself: every op notes what it was called with, and its
 * backward function, which stands beside it, is called in the reverse order.  Without a tape
 * (run->tape NULL) nothing is noted and nothing is taken.
 *
 * Gradients lie as their values do: one block for the common buffers of the step, one for the
 * weights, each beside its gradients at the same distances; but layers, which are walked back one
 * after another, have one place for the gradients of them all.  A backward function adds to the
 * gradients of what its op read, from those of what it wrote.  With a tape every buffer is common,
 * and each layer takes its own, so that all values of the step are still there when it goes back.
 * An op that works in place turns the gradient in place too. */
#ifndef CV_TAPE_H
#define CV_TAPE_H

#include "ops/run.h"

typedef void (*cv_backward_fn)(const cv_run *run, const void *record);

/* One member's: what is shared is the same in all of them. */
typedef struct cv_tape {
    /* Shared: values and their gradients. */
    const float *values;
    float *gradients;
    size_t n_values;
    size_t layers, layer, behind; /* where the values of layers begin that share the place of their
                                     gradients, how many each has, and where what is behind begins */
    const float *weights;
    float *weight_gradients;
    size_t n_weights;
    float *kept;    /* [L][T][C]: what went into each layer, where layers are computed again on the
                       way back; NULL where everything is still there */

    float *own;             /* this member's scratch, cv_tape_own() floats */
    unsigned char *records; /* this member's */
    size_t size, used, last;
    bool full; /* a record did not fit: the step is void */
} cv_tape;

/* A record of so many bytes, to be filled; its place in the tape is that of the call.  NULL when
 * there is no tape, or no room. */
void *cv_record(const cv_run *run, cv_backward_fn backward, size_t bytes);

/* Walks the tape from its end to its beginning, or to where it stood (tape->used) when it was marked,
 * and forgets what it walked.  The gradients of what was computed are set; all members call it, and
 * meet after each record. */
void cv_walk_back(const cv_run *run);
void cv_walk_back_to(const cv_run *run, size_t mark);

/* Where the gradient of a value stands; NULL for one that has none (an input). */
float *cv_gradient(const cv_run *run, const float *value);

/* n floats that an op remembers, behind the buffer of [T][width] that was taken just before; nothing
 * without a tape. */
void cv_take_memory(cv_run *run, size_t n);
float *cv_memory_of(const cv_run *run, float *buffer, size_t width);

/* This member's part of n columns: whole panels. */
void cv_own_columns(const cv_run *run, size_t n, size_t *lo, size_t *hi);

#endif
