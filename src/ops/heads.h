/* heads.h - what is done head by head: the recurrences and the norm behind them.
 *
 * Each member calls these for the heads [lo, hi) that it owns (cv_own_heads), for all rows; a head's
 * channels are touched by its owner alone, so no meeting is needed within a head's work.
 * Vectors are [T][A] with head h at channels [h N, (h + 1) N). */
#ifndef CV_HEADS_H
#define CV_HEADS_H

#include "ops/rowwise.h"

/* The matrix states of a layer: [H][j key][i value] at state + offset. */
static inline float *cv_head_state(const cv_sequence *seq, size_t offset, size_t h, size_t N)
{
    return seq->state + offset + h * N * N;
}

/* RWKV-5 and 6 [v5.wkv] [v6.wkv].  w: [T][A], or [A] for all rows where per_token is false. */
void cv_wkv5_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *r,
                   const float *w, bool per_token, const float *k, const float *v, const float *u,
                   float *y, size_t state_offset);

#define CV_HEAD_MAX 1024 /* channels of one head */

/* VRWKV6 [v6.bi]: the recurrence of version 6 over each picture from the first token to the last
 * into y, and from the last to the first without the bonus into back; both [T][H N] common.
 *   state  [N][N] of this member, scratch */
void cv_wkv6_both_ways(const cv_run *run, size_t H, size_t N, const float *r, const float *w,
                       const float *k, const float *v, const float *u, float *y, float *back,
                       float *state);

/* RWKV-7 [v7.wkv]; kk is what is removed, b = kk * a what takes its place. */
void cv_wkv7_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *r,
                   const float *w, const float *k, const float *v, const float *kk, const float *b,
                   float *y, size_t state_offset);

/* y = GN(y) over each head's N channels [gn]. */
void cv_group_norm(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, cv_norm norm,
                   float eps, float *y);

/* y *= g for these heads. */
void cv_gate(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *g, float *y);

#endif
