/* rowwise.c - norms and token shift, and back; see rowwise.h. */
#include <string.h>

#include "base/wide.h"
#include "kernels/arriving.h"
#include "ops/rowwise.h"

/* ---- Norm ------------------------------------------------------------------------------------ */

typedef struct norm_record {
    size_t n;
    const float *x;
    cv_norm norm;
    float *y;
} norm_record;

CV_WIDE
void cv_norm_sums(size_t T, size_t n, size_t ld, const float *restrict dy, const float *restrict xh,
                  float *restrict dw, float *restrict db)
{
    const float *const rows[] = { dy, xh };
    for (size_t t = 0; t < T; t++) {
        cv_fetch_all(rows, 2, t * ld + CV_ROWS_AHEAD * ld, n);
        for (size_t c = 0; c < n; c++) {
            dw[c] += dy[t * ld + c] * xh[t * ld + c];
            db[c] += dy[t * ld + c];
        }
    }
}

static void norm_back(const cv_run *run, const void *record)
{
    const norm_record *r = record;
    const size_t n = r->n;
    const float *xh = cv_memory_of(run, r->y, n), *scale = xh + run->T * n;
    const float *dy = cv_gradient(run, r->y);
    float *dw = cv_gradient(run, r->norm.w), *db = cv_gradient(run, r->norm.b);
    bool add;
    float *dx = cv_gradient_into(run, r->x, run->T * n, &add);
    size_t lo, hi;
    cv_own_columns(run, n, &lo, &hi);
    cv_norm_sums(run->T, hi - lo, n, dy + lo, xh + lo, dw + lo, db + lo);
    cv_meet(run);
    for (size_t t = run->lo; dx && t < run->hi; t++)
        run->kernel->layer_norm_back(n, xh + t * n, scale[t], r->norm.w, dy + t * n,
                                     add && r->y != r->x, dx + t * n);
}

void cv_layer_norm(const cv_run *run, size_t n, const float *x, cv_norm norm, float *y)
{
    norm_record *r = cv_record(run, norm_back, sizeof *r);
    if (r) *r = (norm_record){ n, x, norm, y };
    float *xh = r ? cv_memory_of(run, y, n) : NULL; /* and the scale behind all rows */
    for (size_t t = run->lo; t < run->hi; t++) {
        const float scale = run->kernel->layer_norm(n, x + t * n, norm.w, norm.b, CV_LN_EPS,
                                                    xh ? xh + t * n : NULL, y + t * n);
        if (xh) xh[run->T * n + t] = scale;
    }
}

/* ---- Token shift ----------------------------------------------------------------------------- */

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

enum { MIXES = 6 }; /* of one shift */

typedef struct shift_record {
    size_t n, state_offset;
    const float *z;
    size_t n_mixes;
    cv_mix mixes[MIXES]; /* y alone: the difference */
} shift_record;

/* One row of one mix: dz is set, or added to;  dmu may be NULL.
 *   y = z + (prev - z) mu:  dz = g (1 - mu) + mu g of the next token;  dmu += g (prev - z) */
CV_WIDE
static void shift_row_back(size_t n, const float *restrict g, const float *restrict next,
                           const float *restrict mu, const float *restrict z,
                           const float *restrict prev, bool add, float *restrict dz,
                           float *restrict dmu)
{
    for (size_t c = 0; c < n; c++)
        cv_give(add, g[c] * (1.0f - mu[c]) + next[c] * mu[c], &dz[c]);
    for (size_t c = 0; dmu && c < n; c++)
        dmu[c] += g[c] * (prev[c] - z[c]);
}

/* The difference, prev - z:  dz = g of the next token - g. */
CV_WIDE
static void difference_row_back(size_t n, const float *restrict g, const float *restrict next,
                                bool add, float *restrict dz)
{
    for (size_t c = 0; c < n; c++)
        cv_give(add, next[c] - g[c], &dz[c]);
}

/* What there is of a sequence's shift, in this member's channels [lo, hi). */
typedef struct shift_back_work {
    const shift_record *r;
    size_t lo, hi;
    bool add;
    float *dz;
    const float *g[MIXES];
    float *dmu[MIXES];
    const float *none; /* zeros: the gradient of a token that is not there */
} shift_back_work;

static void shift_token_back(const shift_back_work *w, const cv_sequence *seq, size_t t)
{
    const shift_record *r = w->r;
    const size_t at = t * r->n + w->lo, n = w->hi - w->lo;
    const float *prev = t == seq->begin ? seq->start + r->state_offset + w->lo : r->z + at - r->n;
    cv_fetch_all(w->g, r->n_mixes, at + CV_ROWS_AHEAD * r->n, n);
    for (size_t i = r->n_mixes; i-- > 0;) {
        const float *g = w->g[i] + at, *mu = r->mixes[i].mu;
        const float *next = t + 1 < seq->begin + seq->n ? g + r->n : w->none;
        const bool add = w->add || i + 1 < r->n_mixes;
        if (mu)
            shift_row_back(n, g, next, mu + w->lo, r->z + at, prev, add, w->dz + at, w->dmu[i]);
        else
            difference_row_back(n, g, next, add, w->dz + at);
    }
}

/* By channels, for the sums over tokens; each token through all mixes. */
static void shift_back(const cv_run *run, const void *record)
{
    const shift_record *r = record;
    shift_back_work w = { .r = r, .none = run->tape->own };
    w.dz = cv_gradient_into(run, r->z, run->T * r->n, &w.add);
    cv_own_columns(run, r->n, &w.lo, &w.hi);
    for (size_t i = 0; i < r->n_mixes; i++) {
        w.g[i] = cv_gradient(run, r->mixes[i].y);
        w.dmu[i] = r->mixes[i].mu ? cv_gradient(run, r->mixes[i].mu) : NULL;
        if (w.dmu[i]) w.dmu[i] += w.lo;
    }
    memset(run->tape->own, 0, r->n * sizeof *run->tape->own);
    for (size_t s = 0; s < run->n_sequences; s++) {
        const cv_sequence *seq = &run->sequences[s];
        for (size_t t = seq->begin; t < seq->begin + seq->n; t++)
            shift_token_back(&w, seq, t);
    }
}

static void record_shift(const cv_run *run, size_t n, const float *z, size_t state_offset,
                         const cv_mix *mixes, size_t n_mixes)
{
    shift_record *r = cv_record(run, shift_back, sizeof *r);
    if (!r) return;
    *r = (shift_record){ .n = n, .state_offset = state_offset, .z = z, .n_mixes = n_mixes };
    memcpy(r->mixes, mixes, n_mixes * sizeof *mixes);
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
    record_shift(run, n, z, state_offset, mixes, n_mixes);
}

void cv_shift_delta(const cv_run *run, size_t n, const float *z, size_t state_offset, float *d)
{
    walk w = { run, 0 };
    for (size_t t = run->lo; t < run->hi; t++) {
        const float *prev = previous(&w, t, n, z, state_offset);
        for (size_t c = 0; c < n; c++)
            d[t * n + c] = prev[c] - z[t * n + c];
    }
    const cv_mix difference = { NULL, d };
    record_shift(run, n, z, state_offset, &difference, 1);
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
