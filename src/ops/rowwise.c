/* rowwise.c - norms and token shift; see rowwise.h. */
#include <string.h>

#include "ops/rowwise.h"

void cv_layer_norm(const cv_run *run, size_t n, const float *x, cv_norm norm, float *y)
{
    for (size_t t = run->lo; t < run->hi; t++)
        run->kernel->layer_norm(n, x + t * n, norm.w, norm.b, CV_LN_EPS, y + t * n);
}

/* Walks rows lo..hi knowing each row's predecessor. */
typedef struct walk {
    const cv_run *run;
    size_t sequence;
} walk;

static const float *previous(walk *w, size_t t, size_t n, const float *z, size_t state_offset)
{
    const cv_sequence *s = &w->run->sequences[w->sequence];
    while (t >= s->begin + s->n)
        s = &w->run->sequences[++w->sequence];
    return t == s->begin ? s->state + state_offset : z + (t - 1) * n;
}

void cv_shift_mix(const cv_run *run, size_t n, const float *z, size_t state_offset,
                  const cv_mix *mixes, size_t n_mixes)
{
    walk w = { run, 0 };
    for (size_t t = run->lo; t < run->hi; t++) {
        const float *prev = previous(&w, t, n, z, state_offset);
        for (size_t i = 0; i < n_mixes; i++)
            run->kernel->lerp(n, z + t * n, prev, mixes[i].mu, mixes[i].y + t * n);
    }
}

void cv_shift_delta(const cv_run *run, size_t n, const float *z, size_t state_offset, float *d)
{
    walk w = { run, 0 };
    for (size_t t = run->lo; t < run->hi; t++) {
        const float *prev = previous(&w, t, n, z, state_offset);
        for (size_t c = 0; c < n; c++)
            d[t * n + c] = prev[c] - z[t * n + c];
    }
}

void cv_shift_keep(const cv_run *run, size_t n, const float *z, size_t state_offset)
{
    for (size_t s = run->me->id; s < run->n_sequences; s += run->me->n) {
        const cv_sequence *seq = &run->sequences[s];
        memcpy(seq->state + state_offset, z + (seq->begin + seq->n - 1) * n, n * sizeof *z);
    }
}

void cv_own_heads(const cv_run *run, size_t H, size_t N, size_t *lo, size_t *hi)
{
    size_t unit = 1; /* heads whose channels fill whole panels */
    while (unit * N % CV_PANEL != 0)
        unit++;
    cv_share(run->me, (H + unit - 1) / unit, lo, hi);
    *lo *= unit;
    *hi = *hi * unit < H ? *hi * unit : H;
}
