/* heads.h - what is done head by head: the recurrences, the norm and the gate behind them.
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

/* RWKV-4 [v4.wkv] for channels [lo, hi) of A: the state is aa, bb, pp [A] each at state_offset.
 * w [A] = -exp(time_decay) < 0. */
void cv_wkv4_channels(const cv_run *run, size_t lo, size_t hi, size_t A, const float *w,
                      const float *u, const float *k, const float *v, float *y,
                      size_t state_offset);

/* RWKV-5 and 6 [v5.wkv] [v6.wkv].  w: [T][A], or [A] for all rows where per_token is false. */
void cv_wkv5_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *r,
                   const float *w, bool per_token, const float *k, const float *v, const float *u,
                   float *y, size_t state_offset);

#define CV_HEAD_MAX 1024 /* channels of one head */

/* VRWKV6 [v6.bi]: the recurrence of version 6 over each picture from the first token to the last
 * into y, and from the last to the first without the bonus into back; both [T][H N] common.  w is
 * the decay of each token, in (0, 1).
 *   state  [N][N] of this member, scratch
 * Not head by head: members share all sweeps, so meet before and behind it. */
void cv_wkv6_both_ways(const cv_run *run, size_t H, size_t N, const float *r, const float *w,
                       const float *k, const float *v, const float *u, float *y, float *back,
                       float *state);

/* RWKV-7 [v7.wkv]; kk is what is removed, b = kk * a what takes its place. */
void cv_wkv7_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *r,
                   const float *w, const float *k, const float *v, const float *kk, const float *b,
                   float *y, size_t state_offset);

/* n = GN(y) over each head's N channels [gn]; without a tape n may be y.  With a tape it wants
 * T * (A + A / N) floats of memory behind n. */
void cv_group_norm(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, cv_norm norm,
                   float eps, const float *y, float *n);

/* out = y g for these heads; without a tape out may be y. */
void cv_gate(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *y,
             const float *g, float *out);

/* Floats of this member's scratch that walking back through the recurrences of versions 4, and 5 and
 * 6, takes. */
size_t cv_wkv4_own_scratch(size_t T, size_t A);
size_t cv_wkv5_own_scratch(size_t T, size_t N);

/* The same through both ways of VRWKV6; T: tokens of the largest picture. */
size_t cv_wkv6_both_ways_own_scratch(size_t T, size_t N);

#endif
