/* delta_rule.h - what version 7 does around its recurrence, head by head, and the recurrence back.
 *
 * The recurrence itself stands with the others in heads.h (cv_wkv7_heads).  As there, each member
 * calls these for the heads [lo, hi) that it owns, for all rows; vectors are [T][A]. */
#ifndef CV_DELTA_RULE_H
#define CV_DELTA_RULE_H

#include "ops/tape.h"

/* [v7.kk]:  kk = k k_k / |k k_k|,  b = kk a,  key = k (1 + (a - 1) k_a).
 * k_k, k_a [A]; without a tape key may be k. */
typedef struct cv_keys7 {
    const float *k, *k_k, *k_a, *a;
    float *kk, *b, *key;
} cv_keys7;

void cv_keys7_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A,
                    const cv_keys7 *keys);

/* [v7.bonus]:  out = (n + (r k r_k summed) v) g.  r_k [A]; without a tape out may be n. */
typedef struct cv_bonus7 {
    const float *r, *k, *r_k, *v, *g, *n;
    float *out;
} cv_bonus7;

void cv_bonus7_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A,
                     const cv_bonus7 *bonus);

/* Notes a call of cv_wkv7_heads, with its arguments, in the tape. */
void cv_record_wkv7(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *r,
                    const float *w, const float *k, const float *v, const float *kk, const float *b,
                    const float *y, size_t state_offset);

/* Floats of a member's scratch that walking back through all of these takes. */
size_t cv_delta_own_scratch(size_t T, size_t N);

#endif
