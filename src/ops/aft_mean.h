/* aft_mean.h - the mixing of attention-free transformers, and back.
 *
 *     y_t = sum over i <= t of e^(k_i + w_ti) v_i / sum of e^(k_i + w_ti)       in each channel
 *
 * The biases w depend on where two tokens stand, not on what they are, and are the same for all
 * channels.  Without them the sums are those of RWKV-4 without decay and bonus (heads.h). */
#ifndef CV_AFT_MEAN_H
#define CV_AFT_MEAN_H

#include "ops/count.h"
#include "ops/tape.h"

typedef struct cv_aft {
    size_t A, longest;  /* channels; tokens a sequence can have */
    const float *k, *v; /* [T][A] complete */
    const float *w;     /* [T][longest]: a column for each token that can be seen */
    size_t window;      /* not 0: only so many of the last tokens have biases, and 0 the others */
    float *y;           /* [T][A] common, complete after the next cv_meet */
    size_t state_offset;
    float *scratch; /* without a tape: cv_aft_scratch floats of this member */
} cv_aft;

/* All members share sequences and channels.  Follow with cv_meet, then cv_count_keep.  With a tape it
 * wants T * A floats of memory behind y, and cv_aft_own_scratch. */
void cv_aft_mean(const cv_run *run, const cv_aft *aft);

/* Floats of the state, which is zero at the start: the count, then keys and values of all tokens so
 * far, [longest][A] each. */
size_t cv_aft_state(size_t A, size_t longest);

size_t cv_aft_scratch(size_t longest);
size_t cv_aft_own_scratch(size_t A, size_t longest);

/* y[t] = row `place of t` of a table [longest][n], for this member's rows; places are counted from the
 * state at state_offset. */
void cv_placed_rows(const cv_run *run, size_t n, const float *table, size_t state_offset, float *y);

/* w[t][i] += b[distance from t to i] for all rows, shared out, and distances up to n: places are
 * counted as above, w is [T][longest], b [n]. */
void cv_add_by_distance(const cv_run *run, size_t n, const float *b, size_t longest,
                        size_t state_offset, float *w);

#endif
