/* delta_rule.c - keys, bonus and recurrence of version 7, and back; see delta_rule.h. */
#include <math.h>
#include <string.h>

#include "base/wide.h"
#include "ops/delta_rule.h"

/* What every op here is called for. */
typedef struct heads7 {
    size_t lo, hi, N, A;
} heads7;

/* ---- Keys ------------------------------------------------------------------------------------ */

#define SHORTEST 1e-12f /* a key that is shorter is divided by this */

typedef struct keys_record {
    heads7 heads;
    cv_keys7 op;
} keys_record;

/* From q, which kk is, to kk, b and the key. */
CV_WIDE
static void keys_rest(size_t n, const float *k, const float *restrict k_a, const float *restrict a,
                      float scale, float *restrict kk, float *restrict b, float *key)
{
    for (size_t j = 0; j < n; j++) {
        kk[j] *= scale;
        b[j] = kk[j] * a[j];
        key[j] = k[j] * (1.0f + (a[j] - 1.0f) * k_a[j]);
    }
}

/* kk, b and the final key of one head of one row; without a tape the key takes the place of k. */
static void keys_row(const cv_kernels *kernel, size_t N, const cv_keys7 *p, size_t c, size_t at)
{
    const float *k = p->k + at;
    float *kk = p->kk + at;
    kernel->mul(N, k, p->k_k + c, kk);
    const float scale = 1.0f / fmaxf(sqrtf(kernel->dot(N, kk, kk)), SHORTEST);
    keys_rest(N, k, p->k_a + c, p->a + at, scale, kk, p->b + at, p->key + at);
}

/* The rest of a row, from d = dkk + db a, its share along kk, and 1 / |q|; dk_k and dk_a may be
 * NULL. */
CV_WIDE
static void keys_rest_back(size_t n, const float *restrict k, const float *restrict k_k,
                           const float *restrict k_a, const float *restrict a,
                           const float *restrict kk, const float *restrict db,
                           const float *restrict dkey, const float *restrict d, float along,
                           float scale, float *restrict dk, float *restrict da,
                           float *restrict dk_k, float *restrict dk_a)
{
    for (size_t j = 0; j < n; j++) {
        const float dq = (d[j] - kk[j] * along) * scale;
        dk[j] += dq * k_k[j] + dkey[j] * (1.0f + (a[j] - 1.0f) * k_a[j]);
        da[j] += db[j] * kk[j] + dkey[j] * k[j] * k_a[j];
    }
    for (size_t j = 0; dk_k && j < n; j++)
        dk_k[j] += (d[j] - kk[j] * along) * scale * k[j];
    for (size_t j = 0; dk_a && j < n; j++)
        dk_a[j] += dkey[j] * k[j] * (a[j] - 1.0f);
}

/* q = k k_k of length |q|, kk = q / |q|:  dq = (dkk - kk (kk . dkk)) / |q|, where dkk has what b
 * hands on.  own: 2 N floats. */
static void keys_row_back(const cv_run *run, size_t N, const cv_keys7 *p, size_t c, size_t at)
{
    const float *k = p->k + at, *k_k = p->k_k + c, *k_a = p->k_a + c, *a = p->a + at;
    const float *kk = p->kk + at;
    const float *dkk = cv_gradient(run, p->kk) + at, *db = cv_gradient(run, p->b) + at;
    const float *dkey = cv_gradient(run, p->key) + at;
    float *dk = cv_gradient(run, p->k) + at, *da = cv_gradient(run, p->a) + at;
    float *dk_k = cv_gradient(run, p->k_k), *dk_a = cv_gradient(run, p->k_a);
    float *q = run->tape->own, *d = q + N;

    run->kernel->mul(N, k, k_k, q);
    const float length = sqrtf(run->kernel->dot(N, q, q));
    const float scale = 1.0f / fmaxf(length, SHORTEST);
    for (size_t j = 0; j < N; j++)
        d[j] = dkk[j] + db[j] * a[j];
    const float along = length < SHORTEST ? 0.0f : run->kernel->dot(N, d, kk);
    keys_rest_back(N, k, k_k, k_a, a, kk, db, dkey, d, along, scale, dk, da, dk_k ? dk_k + c : NULL,
                   dk_a ? dk_a + c : NULL);
}

static void keys_back(const cv_run *run, const void *record)
{
    const keys_record *r = record;
    const heads7 *h = &r->heads;
    for (size_t t = 0; t < run->T; t++)
        for (size_t c = h->lo * h->N; c < h->hi * h->N; c += h->N)
            keys_row_back(run, h->N, &r->op, c, t * h->A + c);
}

void cv_keys7_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A,
                    const cv_keys7 *keys)
{
    keys_record *r = cv_record(run, keys_back, sizeof *r);
    if (r) *r = (keys_record){ { lo, hi, N, A }, *keys };
    for (size_t t = 0; t < run->T; t++)
        for (size_t c = lo * N; c < hi * N; c += N)
            keys_row(run->kernel, N, keys, c, t * A + c);
}

/* ---- Bonus ----------------------------------------------------------------------------------- */

typedef struct bonus_record {
    heads7 heads;
    cv_bonus7 op;
} bonus_record;

enum { PIECE = 64 };

/* The sum of a b c, piece by piece. */
static float dot3(const cv_kernels *kernel, size_t N, const float *a, const float *b,
                  const float *c)
{
    float product[PIECE], sum = 0.0f;
    for (size_t j = 0; j < N; j += PIECE) {
        const size_t n = N - j < PIECE ? N - j : PIECE;
        kernel->mul(n, a + j, b + j, product);
        sum += kernel->dot(n, product, c + j);
    }
    return sum;
}

/* out = (y + weight v) g, where out may be y. */
CV_WIDE
static void bonus_rest(size_t n, const float *y, float weight, const float *restrict v,
                       const float *restrict g, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (y[i] + weight * v[i]) * g[i];
}

static void bonus_row(const cv_kernels *kernel, size_t N, const cv_bonus7 *p, size_t c, size_t at)
{
    const float weight = dot3(kernel, N, p->r + at, p->k + at, p->r_k + c);
    bonus_rest(N, p->n + at, weight, p->v + at, p->g + at, p->out + at);
}

/* The rest of a row, from the weight and its gradient; dr_k may be NULL. */
CV_WIDE
static void bonus_rest_back(size_t n, const cv_bonus7 *at, const float *restrict r_k, float weight,
                            float dweight, const float *restrict d, float *restrict dr,
                            float *restrict dk, float *restrict dv, float *restrict dg,
                            float *restrict dn, float *restrict dr_k)
{
    const float *restrict r = at->r, *restrict k = at->k, *restrict v = at->v;
    const float *restrict g = at->g, *restrict y = at->n;
    for (size_t i = 0; i < n; i++) {
        dn[i] += d[i] * g[i];
        dg[i] += d[i] * (y[i] + weight * v[i]);
        dv[i] += d[i] * g[i] * weight;
    }
    for (size_t i = 0; i < n; i++) {
        dr[i] += dweight * k[i] * r_k[i];
        dk[i] += dweight * r[i] * r_k[i];
    }
    for (size_t i = 0; dr_k && i < n; i++)
        dr_k[i] += dweight * r[i] * k[i];
}

static void bonus_row_back(const cv_run *run, size_t N, const cv_bonus7 *p, size_t c, size_t at)
{
    const float *r = p->r + at, *k = p->k + at, *r_k = p->r_k + c, *v = p->v + at, *g = p->g + at;
    const float *d = cv_gradient(run, p->out) + at;
    float *dr = cv_gradient(run, p->r) + at, *dk = cv_gradient(run, p->k) + at;
    float *dv = cv_gradient(run, p->v) + at, *dg = cv_gradient(run, p->g) + at;
    float *dn = cv_gradient(run, p->n) + at, *dr_k = cv_gradient(run, p->r_k);

    const float weight = dot3(run->kernel, N, r, k, r_k), dweight = dot3(run->kernel, N, d, g, v);
    const cv_bonus7 row = { .r = r, .k = k, .v = v, .g = g, .n = p->n + at };
    bonus_rest_back(N, &row, r_k, weight, dweight, d, dr, dk, dv, dg, dn, dr_k ? dr_k + c : NULL);
}

static void bonus_back(const cv_run *run, const void *record)
{
    const bonus_record *r = record;
    const heads7 *h = &r->heads;
    for (size_t t = 0; t < run->T; t++)
        for (size_t c = h->lo * h->N; c < h->hi * h->N; c += h->N)
            bonus_row_back(run, h->N, &r->op, c, t * h->A + c);
}

void cv_bonus7_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A,
                     const cv_bonus7 *bonus)
{
    bonus_record *r = cv_record(run, bonus_back, sizeof *r);
    if (r) *r = (bonus_record){ { lo, hi, N, A }, *bonus };
    for (size_t t = 0; t < run->T; t++)
        for (size_t c = lo * N; c < hi * N; c += N)
            bonus_row(run->kernel, N, bonus, c, t * A + c);
}

/* ---- Recurrence ------------------------------------------------------------------------------ */

typedef struct wkv7_record {
    heads7 heads;
    size_t state_offset;
    const float *r, *w, *k, *v, *kk, *b, *y;
} wkv7_record;

/* One head of one sequence; own begins with the gradient of its state. */
static void wkv7_head_back(const cv_run *run, const wkv7_record *r, const cv_sequence *seq,
                           size_t h)
{
    const size_t N = r->heads.N, A = r->heads.A, at = seq->begin * A + h * N;
    const size_t state = r->state_offset + h * N * N;
    float *dS = run->tape->own;
    memset(dS, 0, N * N * sizeof *dS);
    const cv_wkv7_back x = { .T = seq->n,
                             .N = N,
                             .ld = A,
                             .r = r->r + at,
                             .w = r->w + at,
                             .k = r->k + at,
                             .v = r->v + at,
                             .kk = r->kk + at,
                             .b = r->b + at,
                             .dy = cv_gradient(run, r->y) + at,
                             .S = seq->start + state,
                             .dr = cv_gradient(run, r->r) + at,
                             .dw = cv_gradient(run, r->w) + at,
                             .dk = cv_gradient(run, r->k) + at,
                             .dv = cv_gradient(run, r->v) + at,
                             .dkk = cv_gradient(run, r->kk) + at,
                             .db = cv_gradient(run, r->b) + at,
                             .dS = dS,
                             .scratch = dS + N * N };
    run->kernel->wkv7_back(&x);
    for (size_t i = 0; seq->start_gradient && i < N * N; i++)
        seq->start_gradient[state + i] += dS[i];
}

static void wkv7_back(const cv_run *run, const void *record)
{
    const wkv7_record *r = record;
    for (size_t i = 0; i < run->n_sequences; i++)
        for (size_t h = r->heads.lo; h < r->heads.hi; h++)
            wkv7_head_back(run, r, &run->sequences[i], h);
}

void cv_record_wkv7(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *r,
                    const float *w, const float *k, const float *v, const float *kk, const float *b,
                    const float *y, size_t state_offset)
{
    wkv7_record *x = cv_record(run, wkv7_back, sizeof *x);
    if (x) *x = (wkv7_record){ { lo, hi, N, A }, state_offset, r, w, k, v, kk, b, y };
}

size_t cv_delta_own_scratch(size_t T, size_t N)
{
    return N * N + cv_wkv7_back_scratch(T, N);
}
