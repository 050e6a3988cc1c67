/* attention.h - causal softmax attention of H heads of N channels, and back.
 *
 *     y_t = sum over i <= t of softmax_i(q_t k_i / sqrt(N)) v_i      in each head
 *
 * The state of a layer counts the tokens so far and keeps their keys and values, laid out as the
 * panels of the two products that read them, so that a step of one token is two products with what
 * is there.  Sequences are no longer than the state has room for; the op does not check that. */
#ifndef CV_ATTENTION_H
#define CV_ATTENTION_H

#include "ops/count.h"
#include "ops/tape.h"

typedef struct cv_attention {
    size_t H, N, longest;   /* tokens a sequence can have */
    const float *q, *k, *v; /* [T][H N] complete */
    float *y;               /* [T][H N] common, complete after the next cv_meet */
    size_t state_offset;
    float *scratch; /* without a tape: cv_attention_scratch floats of this member */
} cv_attention;

/* All members share the heads of all sequences.  Follow with cv_meet, then cv_count_keep.  With a
 * tape it wants T * H floats of memory behind y, and cv_attention_own_scratch. */
void cv_attend(const cv_run *run, const cv_attention *attention);

/* Floats of the state, which is zero at the start and begins with the count. */
size_t cv_attention_state(size_t H, size_t N, size_t longest);

/* Floats of this member's scratch, for steps of T rows. */
size_t cv_attention_scratch(size_t T, size_t longest);
size_t cv_attention_own_scratch(size_t T, size_t N, size_t longest);

#endif
