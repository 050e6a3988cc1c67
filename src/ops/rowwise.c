/* rowwise.c - norms and token shift, and back; see rowwise.h. */
#include <math.h>
#include <string.h>

#include "base/wide.h"
#include "ops/rowwise.h"

/* ---- Norm ------------------------------------------------------------------------------------ */

typedef struct norm_record {
    size_t n;
    const float *x;
    cv_norm norm;
    float *y;
} norm_record;

CV_WIDE
float cv_norm_row(size_t n, const float *restrict x, float eps, float *restrict xh)
{
    float sums[CV_LANES] = { 0.0f }, squares[CV_LANES] = { 0.0f };
    const size_t whole = n / CV_LANES * CV_LANES;
    for (size_t c = 0; c < whole; c += CV_LANES)
        for (size_t i = 0; i < CV_LANES; i++)
            sums[i] += x[c + i];
    for (size_t c = whole; c < n; c++)
        sums[c - whole] += x[c];
    const float mean = cv_lanes_sum(sums) / (float)n;
    for (size_t c = 0; c < whole; c += CV_LANES)
        for (size_t i = 0; i < CV_LANES; i++)
            squares[i] += (x[c + i] - mean) * (x[c + i] - mean);
    for (size_t c = whole; c < n; c++)
        squares[c - whole] += (x[c] - mean) * (x[c] - mean);
    const float scale = 1.0f / sqrtf(cv_lanes_sum(squares) / (float)n + eps);
    for (size_t c = 0; c < n; c++)
        xh[c] = (x[c] - mean) * scale;
    return scale;
}

CV_WIDE
void cv_norm_row_back(size_t n, const float *xh, float scale, const float *w, const float *dy,
                      float keep, float *dx)
{
    float sums[CV_LANES] = { 0.0f }, along[CV_LANES] = { 0.0f };
    const size_t whole = n / CV_LANES * CV_LANES;
    for (size_t c = 0; c < whole; c += CV_LANES)
        for (size_t i = 0; i < CV_LANES; i++) {
            sums[i] += dy[c + i] * w[c + i];
            along[i] += dy[c + i] * w[c + i] * xh[c + i];
        }
    for (size_t c = whole; c < n; c++) {
        sums[c - whole] += dy[c] * w[c];
        along[c - whole] += dy[c] * w[c] * xh[c];
    }
    const float mean = cv_lanes_sum(sums) / (float)n, slope = cv_lanes_sum(along) / (float)n;
    for (size_t c = 0; c < n; c++)
        dx[c] = keep * dx[c] + scale * (dy[c] * w[c] - mean - xh[c] * slope);
}

CV_WIDE
void cv_norm_sums(size_t T, size_t n, size_t ld, const float *restrict dy, const float *restrict xh,
                  float *restrict dw, float *restrict db)
{
    for (size_t t = 0; t < T; t++)
        for (size_t c = 0; c < n; c++) {
            dw[c] += dy[t * ld + c] * xh[t * ld + c];
            db[c] += dy[t * ld + c];
        }
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
    cv_norm_sums(run->T, hi - lo, n, dy + lo, xh + lo, dw + lo, db + lo);
    cv_meet(run);
    for (size_t t = run->lo; dx && t < run->hi; t++)
        cv_norm_row_back(n, xh + t * n, scale[t], r->norm.w, dy + t * n, r->y == r->x ? 0.0f : 1.0f,
                         dx + t * n);
}

void cv_layer_norm(const cv_run *run, size_t n, const float *x, cv_norm norm, float *y)
{
    norm_record *r = cv_record(run, norm_back, sizeof *r);
    if (r) {
        *r = (norm_record){ n, x, norm, y };
        float *xh = cv_memory_of(run, y, n); /* and 1 / s behind all rows */
        for (size_t t = run->lo; t < run->hi; t++)
            xh[run->T * n + t] = cv_norm_row(n, x + t * n, CV_LN_EPS, xh + t * n);
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

/* A row of dz += g (1 - mu) + mu next; without mu (a difference) dz += next - g. */
CV_WIDE
static void shift_row_back(size_t n, const float *restrict g, const float *restrict next,
                           const float *restrict mu, float *restrict dz)
{
    for (size_t c = 0; mu && c < n; c++)
        dz[c] += g[c] * (1.0f - mu[c]) + next[c] * mu[c];
    for (size_t c = 0; !mu && c < n; c++)
        dz[c] += next[c] - g[c];
}

/* The same where there is no next token. */
CV_WIDE
static void shift_last_back(size_t n, const float *restrict g, const float *restrict mu,
                            float *restrict dz)
{
    for (size_t c = 0; mu && c < n; c++)
        dz[c] += g[c] * (1.0f - mu[c]);
    for (size_t c = 0; !mu && c < n; c++)
        dz[c] -= g[c];
}

/* dmu += g (prev - z) of a row. */
CV_WIDE
static void shift_mu_back(size_t n, const float *restrict g, const float *restrict prev,
                          const float *restrict z, float *restrict dmu)
{
    for (size_t c = 0; c < n; c++)
        dmu[c] += g[c] * (prev[c] - z[c]);
}

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
            if (t + 1 < seq->begin + seq->n)
                shift_row_back(n, g + t * n, g + (t + 1) * n, mu, dz + t * n);
            else
                shift_last_back(n, g + t * n, mu, dz + t * n);
        }
    }
    size_t lo, hi;
    cv_own_columns(run, n, &lo, &hi);
    for (size_t s = 0; dmu && s < run->n_sequences; s++) {
        const cv_sequence *seq = &run->sequences[s];
        for (size_t t = seq->begin; t < seq->begin + seq->n; t++) {
            const float *prev = t == seq->begin ? seq->start + r->state_offset : r->z + (t - 1) * n;
            shift_mu_back(hi - lo, g + t * n + lo, prev + lo, r->z + t * n + lo, dmu + lo);
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
