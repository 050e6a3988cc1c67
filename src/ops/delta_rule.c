/* delta_rule.c - keys, bonus and recurrence of version 7, and back; see delta_rule.h. */
#include <math.h>
#include <string.h>

#include "base/wide.h"
#include "kernels/arriving.h"
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

/* The gradients that keys go back from and to. */
typedef struct keys_back_work {
    const float *dkk, *db, *dkey;
    float *dk, *da, *dk_k, *dk_a; /* of weights: may be NULL */
    bool add_k, add_a;
} keys_back_work;

/* The rest of a row, from d = dkk + db a, its share along kk, and 1 / |q|; its rows are at `at`, those
 * of weights at c. */
CV_WIDE
static void keys_rest_back(size_t n, const cv_keys7 *p, size_t c, size_t at,
                           const float *restrict d, float along, float scale,
                           const keys_back_work *w)
{
    const float *restrict k = p->k + at, *restrict k_k = p->k_k + c, *restrict k_a = p->k_a + c;
    const float *restrict a = p->a + at, *restrict kk = p->kk + at;
    const float *restrict db = w->db + at, *restrict dkey = w->dkey + at;
    float *restrict dk = w->dk + at, *restrict da = w->da + at;
    float *restrict dk_k = w->dk_k ? w->dk_k + c : NULL;
    float *restrict dk_a = w->dk_a ? w->dk_a + c : NULL;
    for (size_t j = 0; j < n; j++) {
        const float dq = (d[j] - kk[j] * along) * scale;
        cv_give(w->add_k, dq * k_k[j] + dkey[j] * (1.0f + (a[j] - 1.0f) * k_a[j]), &dk[j]);
    }
    for (size_t j = 0; j < n; j++)
        cv_give(w->add_a, db[j] * kk[j] + dkey[j] * k[j] * k_a[j], &da[j]);
    for (size_t j = 0; dk_k && j < n; j++)
        dk_k[j] += (d[j] - kk[j] * along) * scale * k[j];
    for (size_t j = 0; dk_a && j < n; j++)
        dk_a[j] += dkey[j] * k[j] * (a[j] - 1.0f);
}

/* q = k k_k of length |q|, kk = q / |q|:  dq = (dkk - kk (kk . dkk)) / |q|, where dkk has what b
 * hands on.  own: 2 N floats. */
static void keys_row_back(const cv_run *run, size_t N, const cv_keys7 *p, const keys_back_work *w,
                          size_t c, size_t at)
{
    const float *a = p->a + at, *kk = p->kk + at, *dkk = w->dkk + at, *db = w->db + at;
    float *q = run->tape->own, *d = q + N;

    run->kernel->mul(N, p->k + at, p->k_k + c, q);
    const float length = sqrtf(run->kernel->dot(N, q, q));
    const float scale = 1.0f / fmaxf(length, SHORTEST);
    for (size_t j = 0; j < N; j++)
        d[j] = dkk[j] + db[j] * a[j];
    const float along = length < SHORTEST ? 0.0f : run->kernel->dot(N, d, kk);
    keys_rest_back(N, p, c, at, d, along, scale, w);
}

static void keys_back(const cv_run *run, const void *record)
{
    const keys_record *r = record;
    const heads7 *h = &r->heads;
    const cv_keys7 *p = &r->op;
    keys_back_work w = { .dkk = cv_gradient(run, p->kk),
                         .db = cv_gradient(run, p->b),
                         .dkey = cv_gradient(run, p->key),
                         .dk_k = cv_gradient(run, p->k_k),
                         .dk_a = cv_gradient(run, p->k_a) };
    w.dk = cv_gradient_into(run, p->k, run->T * h->A, &w.add_k);
    w.da = cv_gradient_into(run, p->a, run->T * h->A, &w.add_a);
    const float *const rows[] = { p->k, p->a, p->kk, w.dkk, w.db, w.dkey };
    for (size_t t = 0; t < run->T; t++)
        for (size_t c = h->lo * h->N; c < h->hi * h->N; c += h->N) {
            cv_fetch_all(rows, sizeof rows / sizeof *rows, t * h->A + c + CV_ROWS_AHEAD * h->A,
                         h->N);
            keys_row_back(run, h->N, p, &w, c, t * h->A + c);
        }
}

void cv_keys7_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A,
                    const cv_keys7 *keys)
{
    keys_record *r = cv_record(run, keys_back, sizeof *r);
    if (r) *r = (keys_record){ { lo, hi, N, A }, *keys };
    const float *const rows[] = { keys->k, keys->a };
    for (size_t t = 0; t < run->T; t++)
        for (size_t c = lo * N; c < hi * N; c += N) {
            cv_fetch_all(rows, sizeof rows / sizeof *rows, t * A + c + CV_ROWS_AHEAD * A, N);
            keys_row(run->kernel, N, keys, c, t * A + c);
        }
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

/* The gradients that the bonus goes back from and to. */
typedef struct bonus_back_work {
    const float *d;
    float *dr, *dk, *dv, *dg, *dn, *dr_k; /* dr_k may be NULL */
    bool add_r, add_k, add_v, add_g, add_n;
} bonus_back_work;

/* The rest of a row, from the weight and its gradient; its rows are at `at`, those of weights at
 * c. */
CV_WIDE
static void bonus_rest_back(size_t n, const cv_bonus7 *p, size_t c, size_t at, float weight,
                            float dweight, const bonus_back_work *w)
{
    const float *restrict r = p->r + at, *restrict k = p->k + at, *restrict v = p->v + at;
    const float *restrict g = p->g + at, *restrict y = p->n + at, *restrict r_k = p->r_k + c;
    const float *restrict d = w->d + at;
    float *restrict dr = w->dr + at, *restrict dk = w->dk + at, *restrict dv = w->dv + at;
    float *restrict dg = w->dg + at, *restrict dn = w->dn + at;
    for (size_t i = 0; i < n; i++)
        cv_give(w->add_n, d[i] * g[i], &dn[i]);
    for (size_t i = 0; i < n; i++)
        cv_give(w->add_g, d[i] * (y[i] + weight * v[i]), &dg[i]);
    for (size_t i = 0; i < n; i++)
        cv_give(w->add_v, d[i] * g[i] * weight, &dv[i]);
    for (size_t i = 0; i < n; i++)
        cv_give(w->add_r, dweight * k[i] * r_k[i], &dr[i]);
    for (size_t i = 0; i < n; i++)
        cv_give(w->add_k, dweight * r[i] * r_k[i], &dk[i]);
    float *restrict dr_k = w->dr_k ? w->dr_k + c : NULL;
    for (size_t i = 0; dr_k && i < n; i++)
        dr_k[i] += dweight * r[i] * k[i];
}

static void bonus_back(const cv_run *run, const void *record)
{
    const bonus_record *r = record;
    const size_t N = r->heads.N, A = r->heads.A, all = run->T * A;
    const cv_bonus7 *p = &r->op;
    bonus_back_work w = { .d = cv_gradient(run, p->out), .dr_k = cv_gradient(run, p->r_k) };
    w.dr = cv_gradient_into(run, p->r, all, &w.add_r);
    w.dk = cv_gradient_into(run, p->k, all, &w.add_k);
    w.dv = cv_gradient_into(run, p->v, all, &w.add_v);
    w.dg = cv_gradient_into(run, p->g, all, &w.add_g);
    w.dn = cv_gradient_into(run, p->n, all, &w.add_n);
    const float *const rows[] = { p->r, p->k, p->v, p->g, p->n, w.d };
    for (size_t t = 0; t < run->T; t++)
        for (size_t c = r->heads.lo * N; c < r->heads.hi * N; c += N) {
            const size_t at = t * A + c;
            cv_fetch_all(rows, sizeof rows / sizeof *rows, at + CV_ROWS_AHEAD * A, N);
            const float weight = dot3(run->kernel, N, p->r + at, p->k + at, p->r_k + c);
            const float dweight = dot3(run->kernel, N, w.d + at, p->g + at, p->v + at);
            bonus_rest_back(N, p, c, at, weight, dweight, &w);
        }
}

void cv_bonus7_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A,
                     const cv_bonus7 *bonus)
{
    bonus_record *r = cv_record(run, bonus_back, sizeof *r);
    if (r) *r = (bonus_record){ { lo, hi, N, A }, *bonus };
    const float *const rows[] = { bonus->r, bonus->k, bonus->v, bonus->g, bonus->n };
    for (size_t t = 0; t < run->T; t++)
        for (size_t c = lo * N; c < hi * N; c += N) {
            cv_fetch_all(rows, sizeof rows / sizeof *rows, t * A + c + CV_ROWS_AHEAD * A, N);
            bonus_row(run->kernel, N, bonus, c, t * A + c);
        }
}

/* ---- Recurrence ------------------------------------------------------------------------------ */

typedef struct wkv7_record {
    heads7 heads;
    size_t state_offset;
    const float *r, *w, *k, *v, *kk, *b, *y;
} wkv7_record;

/* Where a head's gradient of a value goes, and whether it is set there. */
static float *head_gradient(const cv_run *run, const wkv7_record *r, const float *value, size_t at,
                            bool *set)
{
    bool add;
    float *gradient = cv_gradient_into(run, value, run->T * r->heads.A, &add);
    *set = !add;
    return gradient + at;
}

/* One head of one sequence; own begins with the gradient of its state. */
static void wkv7_head_back(const cv_run *run, const wkv7_record *r, const cv_sequence *seq,
                           size_t h)
{
    const size_t N = r->heads.N, A = r->heads.A, at = seq->begin * A + h * N;
    const size_t state = r->state_offset + h * N * N;
    float *dS = run->tape->own;
    memset(dS, 0, N * N * sizeof *dS);
    cv_wkv7_back x = { .T = seq->n,
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
                       .dS = dS,
                       .scratch = dS + N * N };
    x.dr = head_gradient(run, r, r->r, at, &x.set_r);
    x.dw = head_gradient(run, r, r->w, at, &x.set_w);
    x.dk = head_gradient(run, r, r->k, at, &x.set_k);
    x.dv = head_gradient(run, r, r->v, at, &x.set_v);
    x.dkk = head_gradient(run, r, r->kk, at, &x.set_kk);
    x.db = head_gradient(run, r, r->b, at, &x.set_b);
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
