/* rowwise.h - what is done to each row by itself: norms, token shift, gates. */
#ifndef CV_ROWWISE_H
#define CV_ROWWISE_H

#include "ops/tape.h"

#define CV_LN_EPS 1e-5f /* [ln] */

typedef struct cv_norm {
    const float *w, *b; /* [n] each */
} cv_norm;

/* y[t] = LN(x[t]) over n channels [ln], for this member's rows; follow with cv_settle before other
 * rows are read.  y may be x.  With a tape it wants T * (n + 1) floats of memory behind y. */
void cv_layer_norm(const cv_run *run, size_t n, const float *x, cv_norm norm, float *y);

/* Back to the weights of norms of any kind: dw += dy xh and db += dy, over T rows of n numbers, ld apart. */
void cv_norm_sums(size_t T, size_t n, size_t ld, const float *dy, const float *xh, float *dw,
                  float *db);

/* Token shift [shift.maa]: y = z + (prev - z) * mu, where prev is the row before, or for the first
 * row of a sequence its remembered vector at state + offset. */
typedef struct cv_mix {
    const float *mu; /* [n] */
    float *y;        /* [T][n] rowwise */
} cv_mix;

void cv_shift_mix(const cv_run *run, size_t n, const float *z, size_t state_offset,
                  const cv_mix *mixes, size_t n_mixes);

/* d[t] = prev - z, the shift itself. */
void cv_shift_delta(const cv_run *run, size_t n, const float *z, size_t state_offset, float *d);

/* Remembers the last row of each sequence for the tokens to come.  Only after a cv_meet that
 * follows the last reader of the old vector. */
void cv_shift_keep(const cv_run *run, size_t n, const float *z, size_t state_offset);

/* The part [*lo, *hi) of H heads of N channels that this member owns.  Borders fall on whole panels
 * (cv_linear_part), whatever N is. */
void cv_own_heads(const cv_run *run, size_t H, size_t N, size_t *lo, size_t *hi);

#endif
