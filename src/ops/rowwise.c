/* rowwise.c - norms and token shift, and back; see rowwise.h. */
#include <math.h>
#include <string.h>

#include "ops/rowwise.h"

/* ---- Norm ------------------------------------------------------------------------------------ */

typedef struct norm_record {
    size_t n;
    const float *x;
    cv_norm norm;
    float *y;
} norm_record;

/* Remembers (x - mean) / s of each row, and 1 / s behind all of them. */
static void remember(const cv_run *run, size_t n, const float *x, float *memory)
{
    float *scale = memory + run->T * n;
    for (size_t t = run->lo; t < run->hi; t++) {
        float mean = 0.0f, var = 0.0f;
        for (size_t c = 0; c < n; c++)
            mean += x[t * n + c];
        mean /= (float)n;
        for (size_t c = 0; c < n; c++)
            var += (x[t * n + c] - mean) * (x[t * n + c] - mean);
        scale[t] = 1.0f / sqrtf(var / (float)n + CV_LN_EPS);
        for (size_t c = 0; c < n; c++)
            memory[t * n + c] = (x[t * n + c] - mean) * scale[t];
    }
}

/* One row: h = dy w;  dx = s (h - mean(h) - xh mean(h xh)). */
static void norm_row_back(size_t n, const float *xh, float s, const float *w, const float *dy,
                          bool in_place, float *dx)
{
    float mean = 0.0f, along = 0.0f;
    for (size_t c = 0; c < n; c++) {
        mean += dy[c] * w[c];
        along += dy[c] * w[c] * xh[c];
    }
    mean /= (float)n;
    along /= (float)n;
    for (size_t c = 0; c < n; c++)
        dx[c] = (in_place ? 0.0f : dx[c]) + s * (dy[c] * w[c] - mean - xh[c] * along);
}

static void norm_back(const cv_run *run, const void *record)
{
    const norm_record *r = record;
    const size_t n = r->n;
    const float *xh = cv_memory_of(run, r->y, n), *scale = xh + run->T * n;
    const float *dy = cv_gradient(run, r->y);
    float *dx = cv_gradient(run, r->x), *dw = cv_gradient(run, r->norm.w);
    float *db = cv_gradient(run, r->norm.b);
    size_t lo, hi;
    cv_own_columns(run, n, &lo, &hi);
    for (size_t t = 0; t < run->T; t++)
        for (size_t c = lo; c < hi; c++) {
            dw[c] += dy[t * n + c] * xh[t * n + c];
            db[c] += dy[t * n + c];
        }
    cv_meet(run);
    for (size_t t = run->lo; dx && t < run->hi; t++)
        norm_row_back(n, xh + t * n, scale[t], r->norm.w, dy + t * n, r->y == r->x, dx + t * n);
}

void cv_layer_norm(const cv_run *run, size_t n, const float *x, cv_norm norm, float *y)
{
    norm_record *r = cv_record(run, norm_back, sizeof *r);
    if (r) {
        *r = (norm_record){ n, x, norm, y };
        remember(run, n, x, cv_memory_of(run, y, n));
    }
    for (size_t t = run->lo; t < run->hi; t++)
        run->kernel->layer_norm(n, x + t * n, norm.w, norm.b, CV_LN_EPS, y + t * n);
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

typedef struct shift_record {
    size_t n, state_offset;
    const float *z;
    cv_mix mix; /* y alone: the difference */
} shift_record;

/* y = z + (prev - z) mu:  dz = g (1 - mu) + mu g of the next token;  dmu = sum g (prev - z).  For
 * the difference prev - z the same with mu = 1, less dz = g. */
static void shift_back(const cv_run *run, const void *record)
{
    const shift_record *r = record;
    const size_t n = r->n;
    const float *g = cv_gradient(run, r->mix.y), *mu = r->mix.mu;
    float *dz = cv_gradient(run, r->z), *dmu = mu ? cv_gradient(run, mu) : NULL;
    for (size_t s = 0; s < run->n_sequences; s++) {
        const cv_sequence *seq = &run->sequences[s];
        for (size_t t = seq->begin; t < seq->begin + seq->n; t++) {
            if (t < run->lo || t >= run->hi) continue;
            const bool last = t + 1 == seq->begin + seq->n;
            for (size_t c = 0; c < n; c++) {
                const float m = mu ? mu[c] : 1.0f, stays = mu ? 1.0f - mu[c] : -1.0f;
                const float next = last ? 0.0f : g[(t + 1) * n + c];
                dz[t * n + c] += g[t * n + c] * stays + next * m;
            }
        }
    }
    size_t lo, hi;
    cv_own_columns(run, n, &lo, &hi);
    for (size_t s = 0; dmu && s < run->n_sequences; s++) {
        const cv_sequence *seq = &run->sequences[s];
        for (size_t t = seq->begin; t < seq->begin + seq->n; t++) {
            const float *prev = t == seq->begin ? seq->start + r->state_offset : r->z + (t - 1) * n;
            for (size_t c = lo; c < hi; c++)
                dmu[c] += g[t * n + c] * (prev[c] - r->z[t * n + c]);
        }
    }
}

static void record_shift(const cv_run *run, size_t n, const float *z, size_t state_offset,
                         cv_mix mix)
{
    shift_record *r = cv_record(run, shift_back, sizeof *r);
    if (r) *r = (shift_record){ n, state_offset, z, mix };
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
    for (size_t i = 0; i < n_mixes; i++)
        record_shift(run, n, z, state_offset, mixes[i]);
}

void cv_shift_delta(const cv_run *run, size_t n, const float *z, size_t state_offset, float *d)
{
    walk w = { run, 0 };
    for (size_t t = run->lo; t < run->hi; t++) {
        const float *prev = previous(&w, t, n, z, state_offset);
        for (size_t c = 0; c < n; c++)
            d[t * n + c] = prev[c] - z[t * n + c];
    }
    record_shift(run, n, z, state_offset, (cv_mix){ NULL, d });
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
