/* heads.c - recurrences, group norm and gate, head by head, and back; see heads.h. */
#include <math.h>
#include <string.h>

#include "kernels/arriving.h"
#include "ops/delta_rule.h"
#include "ops/heads.h"

/* ---- RWKV-4 ---------------------------------------------------------------------------------- */

typedef struct wkv4_record {
    size_t lo, hi, A, state_offset;
    const float *w, *u, *k, *v;
    float *y;
} wkv4_record;

static float *from(float *x, size_t at)
{
    return x ? x + at : NULL;
}

/* The gradient of the state before a sequence, from those of the sums that it stands for. */
static void start4(const wkv4_record *r, const cv_sequence *seq, const cv_wkv4_back *x)
{
    if (!seq->start_gradient) return;
    float *aa = seq->start_gradient + r->state_offset + r->lo, *bb = aa + r->A, *pp = bb + r->A;
    for (size_t c = 0; c < x->n; c++) {
        const float scale = expf(x->top[c] + x->pp[c]);
        aa[c] += scale * x->alpha[c];
        bb[c] += scale * x->beta[c];
        pp[c] += scale * (x->alpha[c] * x->aa[c] + x->beta[c] * x->bb[c]);
    }
}

static void wkv4_back(const cv_run *run, const void *record)
{
    const wkv4_record *r = record;
    const size_t n = r->hi - r->lo, lo = r->lo, A = r->A;
    float *own = run->tape->own;
    for (size_t i = 0; n && i < run->n_sequences; i++) {
        const cv_sequence *seq = &run->sequences[i];
        const float *past = seq->start + r->state_offset + lo;
        const size_t at = seq->begin * A + lo;
        const cv_wkv4_back x = { .T = seq->n,
                                 .n = n,
                                 .ld = A,
                                 .w = r->w + lo,
                                 .u = r->u + lo,
                                 .k = r->k + at,
                                 .v = r->v + at,
                                 .dy = cv_gradient(run, r->y) + at,
                                 .aa = past,
                                 .bb = past + A,
                                 .pp = past + 2 * A,
                                 .dw = from(cv_gradient(run, r->w), lo),
                                 .du = from(cv_gradient(run, r->u), lo),
                                 .dk = cv_gradient(run, r->k) + at,
                                 .dv = cv_gradient(run, r->v) + at,
                                 .alpha = own,
                                 .beta = own + n,
                                 .top = own + 2 * n,
                                 .scratch = own + 3 * n };
        for (size_t c = 0; c < n; c++) {
            x.alpha[c] = x.beta[c] = 0.0f;
            x.top[c] = -1e30f;
        }
        run->kernel->wkv4_back(&x);
        start4(r, seq, &x);
    }
}

void cv_wkv4_channels(const cv_run *run, size_t lo, size_t hi, size_t A, const float *w,
                      const float *u, const float *k, const float *v, float *y, size_t state_offset)
{
    wkv4_record *r = cv_record(run, wkv4_back, sizeof *r);
    if (r) *r = (wkv4_record){ lo, hi, A, state_offset, w, u, k, v, y };
    for (size_t i = 0; i < run->n_sequences; i++) {
        const cv_sequence *seq = &run->sequences[i];
        float *past = seq->state + state_offset + lo;
        const size_t at = seq->begin * A + lo;
        run->kernel->wkv4(seq->n, hi - lo, A, w + lo, u + lo, k + at, v + at, y + at, past,
                          past + A, past + 2 * A);
    }
}

size_t cv_wkv4_own_scratch(size_t T, size_t A)
{
    return 3 * A + cv_wkv4_back_scratch(T);
}

/* ---- RWKV-5 and 6 ---------------------------------------------------------------------------- */

typedef struct wkv5_record {
    size_t lo, hi, N, A, state_offset;
    bool per_token;
    const float *r, *w, *k, *v, *u;
    float *y;
} wkv5_record;

/* One head of one sequence; own begins with the gradient of its state. */
static void wkv5_head_back(const cv_run *run, const wkv5_record *r, const cv_sequence *seq,
                           size_t h)
{
    const size_t N = r->N, A = r->A, c = h * N, at = seq->begin * A + c;
    const size_t state = r->state_offset + h * N * N, w_at = r->per_token ? at : c;
    float *dS = run->tape->own;
    memset(dS, 0, N * N * sizeof *dS);
    const cv_wkv5_back x = { .T = seq->n,
                             .N = N,
                             .ld = A,
                             .ldw = r->per_token ? A : 0,
                             .r = r->r + at,
                             .k = r->k + at,
                             .v = r->v + at,
                             .dy = cv_gradient(run, r->y) + at,
                             .w = r->w + w_at,
                             .u = r->u + c,
                             .S = seq->start + state,
                             .dr = cv_gradient(run, r->r) + at,
                             .dk = cv_gradient(run, r->k) + at,
                             .dv = cv_gradient(run, r->v) + at,
                             .dw = from(cv_gradient(run, r->w), w_at),
                             .du = from(cv_gradient(run, r->u), c),
                             .dS = dS,
                             .scratch = dS + N * N };
    run->kernel->wkv5_back(&x);
    for (size_t i = 0; seq->start_gradient && i < N * N; i++)
        seq->start_gradient[state + i] += dS[i];
}

static void wkv5_back(const cv_run *run, const void *record)
{
    const wkv5_record *r = record;
    for (size_t i = 0; i < run->n_sequences; i++)
        for (size_t h = r->lo; h < r->hi; h++)
            wkv5_head_back(run, r, &run->sequences[i], h);
}

void cv_wkv5_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *r,
                   const float *w, bool per_token, const float *k, const float *v, const float *u,
                   float *y, size_t state_offset)
{
    wkv5_record *record = cv_record(run, wkv5_back, sizeof *record);
    if (record) *record = (wkv5_record){ lo, hi, N, A, state_offset, per_token, r, w, k, v, u, y };
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

size_t cv_wkv5_own_scratch(size_t T, size_t N)
{
    return N * N + cv_wkv5_back_scratch(T, N);
}

/* ---- VRWKV6 ---------------------------------------------------------------------------------- */

static const float no_bonus[CV_HEAD_MAX]; /* zero */

typedef struct both_record {
    size_t H, N;
    const float *r, *w, *k, *v, *u;
    float *y, *back;
} both_record;

/* This member's scratch: the state that every sweep begins with, which is zero, the gradient of the
 * state, and behind them what a sweep needs. */
static float *fresh_gradient(const cv_run *run, size_t N)
{
    float *S = run->tape->own, *dS = S + N * N;
    memset(S, 0, 2 * N * N * sizeof *S);
    return dS;
}

/* Of one head of one picture, the sweep from the first token to the last. */
static void forward_sweep_back(const cv_run *run, const both_record *r, const cv_grid *g, size_t h)
{
    const size_t N = r->N, A = r->H * N, c = h * N, at = g->begin * A + c;
    float *dS = fresh_gradient(run, N);
    run->kernel->wkv5_back(&(cv_wkv5_back){ .T = g->n,
                                            .N = N,
                                            .ld = A,
                                            .ldw = A,
                                            .r = r->r + at,
                                            .k = r->k + at,
                                            .v = r->v + at,
                                            .dy = cv_gradient(run, r->y) + at,
                                            .w = r->w + at,
                                            .u = r->u + c,
                                            .S = run->tape->own,
                                            .dr = cv_gradient(run, r->r) + at,
                                            .dk = cv_gradient(run, r->k) + at,
                                            .dv = cv_gradient(run, r->v) + at,
                                            .dw = cv_gradient(run, r->w) + at,
                                            .du = from(cv_gradient(run, r->u), c),
                                            .dS = dS,
                                            .scratch = dS + N * N });
}

/* A head's rows [n][A], the last one first and side by side. */
static void turn_over(size_t n, size_t N, size_t A, const float *x, float *turned)
{
    for (size_t t = 0; t < n; t++)
        memcpy(turned + t * N, x + (n - 1 - t) * A, N * sizeof *x);
}

static void add_turned(size_t n, size_t N, size_t A, const float *turned, float *x)
{
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < N; i++)
            x[(n - 1 - t) * A + i] += turned[t * N + i];
}

enum {
    TURNED = 5,
    FOUND = 4
}; /* r, k, v, w and the gradient of the sum; those of the first four */

/* The sweep from the last token to the first: that of a forward one over copies in this order. */
static void backward_sweep_back(const cv_run *run, const both_record *r, const cv_grid *g, size_t h)
{
    const size_t N = r->N, A = r->H * N, at = g->begin * A + h * N, n = g->n * N;
    const float *x[TURNED] = { r->r, r->k, r->v, r->w, cv_gradient(run, r->back) };
    float *dS = fresh_gradient(run, N), *turned = dS + N * N, *found = turned + TURNED * n;
    for (size_t i = 0; i < TURNED; i++)
        turn_over(g->n, N, A, x[i] + at, turned + i * n);
    memset(found, 0, FOUND * n * sizeof *found);
    run->kernel->wkv5_back(&(cv_wkv5_back){ .T = g->n,
                                            .N = N,
                                            .ld = N,
                                            .ldw = N,
                                            .r = turned,
                                            .k = turned + n,
                                            .v = turned + 2 * n,
                                            .dy = turned + 4 * n,
                                            .w = turned + 3 * n,
                                            .u = no_bonus,
                                            .S = run->tape->own,
                                            .dr = found,
                                            .dk = found + n,
                                            .dv = found + 2 * n,
                                            .dw = found + 3 * n,
                                            .dS = dS,
                                            .scratch = found + FOUND * n });
    for (size_t i = 0; i < FOUND; i++)
        add_turned(g->n, N, A, found + i * n, cv_gradient(run, x[i]) + at);
}

/* A head's owner walks back through it in all pictures, so du is summed in their order. */
static void both_ways_back(const cv_run *run, const void *record)
{
    const both_record *r = record;
    size_t lo, hi;
    cv_own_heads(run, r->H, r->N, &lo, &hi);
    for (size_t i = 0; i < run->n_grids; i++)
        for (size_t h = lo; h < hi; h++) {
            forward_sweep_back(run, r, &run->grids[i], h);
            backward_sweep_back(run, r, &run->grids[i], h);
        }
}

void cv_wkv6_both_ways(const cv_run *run, size_t H, size_t N, const float *r, const float *w,
                       const float *k, const float *v, const float *u, float *y, float *back,
                       float *state)
{
    const size_t A = H * N;
    const ptrdiff_t ld = (ptrdiff_t)A;
    both_record *record = cv_record(run, both_ways_back, sizeof *record);
    if (record) *record = (both_record){ H, N, r, w, k, v, u, y, back };
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

size_t cv_wkv6_both_ways_own_scratch(size_t T, size_t N)
{
    return 2 * N * N + (TURNED + FOUND) * T * N + cv_wkv5_back_scratch(T, N);
}

/* ---- RWKV-7 ---------------------------------------------------------------------------------- */

void cv_wkv7_heads(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *r,
                   const float *w, const float *k, const float *v, const float *kk, const float *b,
                   float *y, size_t state_offset)
{
    cv_record_wkv7(run, lo, hi, N, A, r, w, k, v, kk, b, y, state_offset);
    for (size_t i = 0; i < run->n_sequences; i++) {
        const cv_sequence *seq = &run->sequences[i];
        for (size_t h = lo; h < hi; h++) {
            const size_t at = seq->begin * A + h * N;
            run->kernel->wkv7(seq->n, N, A, r + at, w + at, k + at, v + at, kk + at, b + at, y + at,
                              cv_head_state(seq, state_offset, h, N));
        }
    }
}

/* ---- Norm and gate --------------------------------------------------------------------------- */

typedef struct group_record {
    size_t lo, hi, N, A;
    cv_norm norm;
    const float *y;
    float *n;
} group_record;

static void group_back(const cv_run *run, const void *record)
{
    const group_record *r = record;
    const size_t N = r->N, A = r->A;
    const float *xh = cv_memory_of(run, r->n, A), *scale = xh + run->T * A;
    const float *dn = cv_gradient(run, r->n);
    bool add;
    float *dy = cv_gradient_into(run, r->y, run->T * A, &add);
    float *dw = cv_gradient(run, r->norm.w), *db = cv_gradient(run, r->norm.b);
    const size_t lo = r->lo * N, hi = r->hi * N;
    if (dw && db) cv_norm_sums(run->T, hi - lo, A, dn + lo, xh + lo, dw + lo, db + lo);
    const float *const rows[] = { xh, dn };
    for (size_t t = 0; t < run->T; t++)
        for (size_t h = r->lo; h < r->hi; h++) {
            const size_t at = t * A + h * N;
            cv_fetch_all(rows, sizeof rows / sizeof *rows, at + CV_ROWS_AHEAD * A, N);
            run->kernel->layer_norm_back(N, xh + at, scale[t * (A / N) + h], r->norm.w + h * N,
                                         dn + at, add, dy + at);
        }
}

void cv_group_norm(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, cv_norm norm,
                   float eps, const float *y, float *n)
{
    group_record *r = cv_record(run, group_back, sizeof *r);
    if (r) *r = (group_record){ lo, hi, N, A, norm, y, n };
    float *xh = r ? cv_memory_of(run, n, A) : NULL;
    const float *const rows[] = { y };
    for (size_t t = 0; t < run->T; t++)
        for (size_t h = lo; h < hi; h++) {
            const size_t c = h * N, at = t * A + c;
            cv_fetch_all(rows, 1, at + CV_ROWS_AHEAD * A, N);
            const float scale = run->kernel->layer_norm(N, y + at, norm.w + c, norm.b + c, eps,
                                                        xh ? xh + at : NULL, n + at);
            if (xh) xh[run->T * A + t * (A / N) + h] = scale;
        }
}

typedef struct gate_record {
    size_t begin, end, A;
    const float *y, *g;
    float *out;
} gate_record;

/* to = a b, or with `add` to += a b. */
static void give_product(const cv_kernels *kernel, bool add, size_t n, const float *a,
                         const float *b, float *to)
{
    if (add)
        kernel->mul_add(n, a, b, to);
    else
        kernel->mul(n, a, b, to);
}

static void gate_back(const cv_run *run, const void *record)
{
    const gate_record *r = record;
    const float *d = cv_gradient(run, r->out);
    bool add_y, add_g;
    float *dy = cv_gradient_into(run, r->y, run->T * r->A, &add_y);
    float *dg = cv_gradient_into(run, r->g, run->T * r->A, &add_g);
    for (size_t t = 0; t < run->T; t++) {
        const size_t at = t * r->A + r->begin, n = r->end - r->begin;
        give_product(run->kernel, add_y, n, d + at, r->g + at, dy + at);
        give_product(run->kernel, add_g, n, d + at, r->y + at, dg + at);
    }
}

void cv_gate(const cv_run *run, size_t lo, size_t hi, size_t N, size_t A, const float *y,
             const float *g, float *out)
{
    const size_t begin = lo * N, end = hi * N;
    gate_record *r = cv_record(run, gate_back, sizeof *r);
    if (r) *r = (gate_record){ begin, end, A, y, g, out };
    for (size_t t = 0; t < run->T; t++) {
        const size_t at = t * A + begin;
        run->kernel->mul(end - begin, y + at, g + at, out + at);
    }
}
