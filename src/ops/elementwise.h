/* elementwise.h - what is done to each number by itself, with a parameter or another buffer.
 *
 * Products, norms and what sums over a head stand elsewhere (linear.h, rowwise.h, heads.h,
 * delta_rule.h).  Channels [begin, end) of rows of A are those of this member's heads. */
#ifndef CV_ELEMENTWISE_H
#define CV_ELEMENTWISE_H

#include "ops/tape.h"

typedef enum cv_curve {
    CV_CURVE_SIGMOID,
    CV_CURVE_DECAY6, /* exp(-exp(x))             [v6.decay] */
    CV_CURVE_DECAY7  /* exp(-e^-1/2 sigmoid(x))  [v7.decay] */
} cv_curve;

/* y = f(bias + y) for channels [begin, end) of all rows.  With a tape, the decays want T * A floats
 * of memory behind y. */
void cv_biased(const cv_run *run, cv_curve f, size_t begin, size_t end, size_t A, const float *bias,
               float *y);

/* x = z + d (mu + m) for this member's rows of n channels: a token shift whose share of the row
 * before, mu [n] + m, depends on the token [v6.ddlerp].  m is complete. */
void cv_mix_by_token(const cv_run *run, size_t n, const float *z, const float *d, const float *mu,
                     const float *m, float *x);

/* out = v + (first - v) share for channels [begin, end) of all rows [v7.vfirst]; without a tape out
 * may be v. */
void cv_blend(const cv_run *run, size_t begin, size_t end, size_t A, const float *v,
              const float *first, const float *share, float *out);

#endif
