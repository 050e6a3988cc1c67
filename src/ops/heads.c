/* heads.c - recurrences and group norm, head by head; see heads.h. */
#include <string.h>

#include "ops/heads.h"

void cv_wkv5_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *r,
                   const float *w, bool per_token, const float *k, const float *v, const float *u,
                   float *y, size_t state_offset)
{
    for (size_t i = 0; i < run->n_sequences; i++) {
        const cv_sequence *seq = &run->sequences[i];
        for (size_t h = lo; h < hi; h++) {
            const size_t c = h * N, at = seq->begin * A + c;
            run->kernel->wkv5(seq->n, N, (ptrdiff_t)A, per_token ? (ptrdiff_t)A : 0, r + at,
                              w + (per_token ? at : c), k + at, v + at, u + c, y + at,
                              cv_head_state(seq, state_offset, h, N));
        }
    }
}

void cv_wkv6_both_ways(const cv_run *run, size_t H, size_t N, const float *r, const float *w,
                       const float *k, const float *v, const float *u, float *y, float *back,
                       float *state)
{
    static const float no_bonus[CV_HEAD_MAX]; /* zero */
    const size_t A = H * N;
    const ptrdiff_t ld = (ptrdiff_t)A;
    size_t lo, hi;
    cv_share(run->me, run->n_grids * H * 2, &lo, &hi);
    for (size_t i = lo; i < hi; i++) {
        const cv_grid *g = &run->grids[i / 2 / H];
        const size_t c = i / 2 % H * N, first = g->begin * A + c, last = first + (g->n - 1) * A;
        memset(state, 0, N * N * sizeof *state);
        if (i % 2 == 0)
            run->kernel->wkv5(g->n, N, ld, ld, r + first, w + first, k + first, v + first, u + c,
                              y + first, state);
        else
            run->kernel->wkv5(g->n, N, -ld, -ld, r + last, w + last, k + last, v + last, no_bonus,
                              back + last, state);
    }
}

void cv_wkv7_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *r,
                   const float *w, const float *k, const float *v, const float *kk, const float *b,
                   float *y, size_t state_offset)
{
    for (size_t i = 0; i < run->n_sequences; i++) {
        const cv_sequence *seq = &run->sequences[i];
        for (size_t h = lo; h < hi; h++) {
            const size_t at = seq->begin * A + h * N;
            run->kernel->wkv7(seq->n, N, A, r + at, w + at, k + at, v + at, kk + at, b + at, y + at,
                              cv_head_state(seq, state_offset, h, N));
        }
    }
}

void cv_group_norm(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, cv_norm norm,
                   float eps, float *y)
{
    for (size_t t = 0; t < run->T; t++)
        for (size_t c = lo * N; c < hi * N; c += N)
            run->kernel->layer_norm(N, y + t * A + c, norm.w + c, norm.b + c, eps, y + t * A + c);
}

void cv_gate(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *g, float *y)
{
    for (size_t t = 0; t < run->T; t++)
        for (size_t c = lo * N; c < hi * N; c++)
            y[t * A + c] *= g[t * A + c];
}
