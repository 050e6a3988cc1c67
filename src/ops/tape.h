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
 * An op that works in place turns the gradient in place too.
 *
 * Gradients of buffers are not cleared before a step: they are more than the caches hold.  Whoever
 * comes to one first, on the way back, finds nothing there.  An op that gives all of a buffer's
 * gradient sets it then (cv_gradient_into); for any other it is cleared as it comes (cv_gradient). */
#ifndef CV_TAPE_H
#define CV_TAPE_H

#include <stdatomic.h>

#include "base/wide.h"
#include "ops/run.h"

typedef void (*cv_backward_fn)(const cv_run *run, const void *record);

/* Buffers of a step whose gradients have places of their own: a few of the stack, those of the first
 * layer and of one other. */
#define CV_PLACES ((size_t)256)

/* Who came to each of them first: the number of an op, counted as they are walked back. */
typedef struct cv_first_come {
    _Atomic uint32_t first[CV_PLACES];
} cv_first_come;

/* One member's: what is shared is the same in all of them. */
typedef struct cv_tape {
    /* Shared: values and their gradients. */
    const float *values;
    float *gradients;
    size_t n_values, n_gradients;
    size_t layers, layer, behind; /* where the values of layers begin that share the place of their
                                     gradients, how many each has, and where what is behind begins */
    const float *weights;
    float *weight_gradients;
    size_t n_weights;
    float *kept; /* [L][T][C]: what went into each layer, where layers are computed again on the way
                    back; NULL where everything is still there */
    cv_first_come *first_come; /* NULL: gradients of buffers are there already, and are added to */

    size_t begins[CV_PLACES], n_places; /* where each of them begins; in order */
    uint32_t op;                        /* walked back now, or last */
    float *own;                         /* this member's scratch */
    unsigned char *records;             /* this member's */
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

/* Where the gradient of a value stands; NULL for one that has none (an input).  Zero where nobody has
 * come yet. */
float *cv_gradient(const cv_run *run, const float *value);

/* The same for an op that gives the gradient of all n floats of a buffer, if every member its part:
 * with *add it adds to what is there, else nothing is and it sets them. */
float *cv_gradient_into(const cv_run *run, const float *value, size_t n, bool *add);

/* Then, for each number: to = x, or with `add` to += x. */
CV_WIDE_PART void cv_give(bool add, float x, float *to)
{
    *to = add ? *to + x : x;
}

/* Notes that a buffer was taken, at so many floats. */
void cv_place(cv_tape *tape, size_t at);

/* Nobody has come to the gradients of all buffers, or of those that layers share.  One member calls
 * it, and all meet. */
void cv_forget_gradients(const cv_tape *tape);
void cv_forget_layer(const cv_tape *tape);

/* n floats that an op remembers, behind the buffer of [T][width] that was taken just before; nothing
 * without a tape. */
void cv_take_memory(cv_run *run, size_t n);
float *cv_memory_of(const cv_run *run, float *buffer, size_t width);

/* This member's part of n columns: whole panels. */
void cv_own_columns(const cv_run *run, size_t n, size_t *lo, size_t *hi);

#endif
