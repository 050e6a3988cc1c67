/* attention.c - causal attention, head by head of each sequence, and back; see attention.h.
 *
 * All arithmetic is products of the kernels over panels made on the way: blocks of query rows against
 * the keys that they see, and on the way back blocks of keys against the queries that see them.  The
 * softmax is not kept but for the logarithm of its sum; computing it again costs one product in six
 * and spares a table of all pairs. */
#include <math.h>
#include <string.h>

#include "base/smaller.h"
#include "base/wide.h"
#include "ops/attention.h"
#include "ops/logit_row.h"

enum { ROWS = 48, LANES = 16 }; /* rows of a block: whole tiles of every kernel */

static size_t panels_for(size_t n)
{
    return (n + CV_PANEL - 1) / CV_PANEL;
}

static cv_matrix panels_at(size_t rows, size_t cols, size_t stride, const float *at)
{
    return (cv_matrix){ .rows = rows,
                        .cols = cols,
                        .layout = CV_LAYOUT_F32,
                        .panel_bytes = stride * CV_PANEL * sizeof(float),
                        .panels = (const unsigned char *)at };
}

/* ---- State ----------------------------------------------------------------------------------- */

/* The count, padded; keys [H][panels of tokens][N][16]; values [H][panels of channels][tokens][16]. */
typedef struct cache {
    float *keys, *values; /* of one head */
    size_t N, longest;    /* longest is whole panels */
} cache;

static size_t keys_size(size_t N, size_t longest)
{
    return cv_padded(longest) * N;
}

static size_t values_size(size_t N, size_t longest)
{
    return cv_padded(longest) * cv_padded(N);
}

size_t cv_attention_state(size_t H, size_t N, size_t longest)
{
    return cv_padded(1) + H * (keys_size(N, longest) + values_size(N, longest));
}

static cache cache_of(const cv_attention *a, float *state, size_t h)
{
    float *keys = state + cv_padded(1), *values = keys + a->H * keys_size(a->N, a->longest);
    return (cache){ keys + h * keys_size(a->N, a->longest),
                    values + h * values_size(a->N, a->longest), a->N, cv_padded(a->longest) };
}

static float *key_at(const cache *c, size_t i, size_t j)
{
    return c->keys + (i / CV_PANEL * c->N + j) * CV_PANEL + i % CV_PANEL;
}

static float *value_at(const cache *c, size_t i, size_t j)
{
    return c->values + (j / CV_PANEL * c->longest + i) * CV_PANEL + j % CV_PANEL;
}

/* ---- Softmax --------------------------------------------------------------------------------- */

/* The softmax of scale * x over n numbers in place, zeros behind them up to end, whole lanes;
 * returns the logarithm of its sum.  Sums run by lanes, so that they do not depend on end. */
CV_WIDE
static float softmax(const cv_kernels *kernel, size_t n, size_t end, float scale, float *x)
{
    const float most = cv_largest(n, x);
    float sum[LANES] = { 0 };
    size_t i;
    for (i = 0; i < end; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            x[i + l] = (x[i + l] - most) * scale;
    kernel->exp(n, x, x);
    for (i = n; i < end; i++)
        x[i] = 0.0f;
    for (i = 0; i < end; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            sum[l] += x[i + l];
    for (size_t l = 1; l < LANES; l++)
        sum[0] += sum[l];
    const float share = 1.0f / sum[0];
    for (i = 0; i < end; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            x[i + l] *= share;
    return most * scale + logf(sum[0]);
}

/* ---- Forward --------------------------------------------------------------------------------- */

/* One head of one sequence. */
typedef struct unit {
    const cv_attention *a;
    const cv_sequence *seq;
    size_t h, past; /* tokens before the step */
    float scale;
} unit;

static unit unit_of(const cv_attention *a, const cv_sequence *seq, size_t h, const float *state)
{
    return (unit){ a, seq, h, cv_count_of(state + a->state_offset), 1.0f / sqrtf((float)a->N) };
}

/* Where row t of the sequence stands in buffers of [T][H N]. */
static size_t place(const unit *u, size_t t)
{
    return (u->seq->begin + t) * u->a->H * u->a->N + u->h * u->a->N;
}

/* Keys of the step go to their places one by one, or as a whole panel. */
static void store_keys(const cv_kernels *kernel, const unit *u, const cache *c)
{
    for (size_t t = 0; t < u->seq->n;) {
        const float *k = u->a->k + place(u, t);
        const size_t at = u->past + t;
        if (at % CV_PANEL == 0 && t + CV_PANEL <= u->seq->n) {
            kernel->turn(CV_PANEL, c->N, k, u->a->H * c->N, key_at(c, at, 0), CV_PANEL);
            t += CV_PANEL;
            continue;
        }
        for (size_t j = 0; j < c->N; j++)
            *key_at(c, at, j) = k[j];
        t++;
    }
}

static void store_values(const unit *u, const cache *c)
{
    for (size_t j = 0; j < c->N; j += CV_PANEL)
        for (size_t t = 0; t < u->seq->n; t++)
            memcpy(value_at(c, u->past + t, j), u->a->v + place(u, t) + j,
                   cv_smaller(CV_PANEL, c->N - j) * sizeof(float));
}

/* y = the weights p [n][ld] of tokens [0, end) times their values, CV_FOLD of them at a time. */
static void weigh(const cv_run *run, const cache *c, size_t n, size_t end, const float *p,
                  size_t ld, float *y, size_t ldy)
{
    for (size_t i = 0; i < end; i += CV_FOLD) {
        const cv_matrix V =
            panels_at(c->N, cv_smaller(CV_FOLD, end - i), c->longest, c->values + i * CV_PANEL);
        run->kernel->matmul(&V, 0, panels_for(c->N), n, p + i, ld, y, ldy, i > 0, run->matmul);
    }
}

static void attend_unit(const cv_run *run, const unit *u, float *scratch, float *log_sums)
{
    const cv_attention *a = u->a;
    const size_t A = a->H * a->N, ld = cv_padded(a->longest);
    const cache c = cache_of(a, u->seq->state + a->state_offset, u->h);
    store_keys(run->kernel, u, &c);
    store_values(u, &c);
    for (size_t t = 0; t < u->seq->n; t += ROWS) {
        const size_t n = cv_smaller(ROWS, u->seq->n - t), seen = u->past + t;
        const size_t keys = cv_padded(seen + n);
        const cv_matrix K = panels_at(keys, a->N, a->N, c.keys);
        run->kernel->matmul(&K, 0, panels_for(keys), n, a->q + place(u, t), A, scratch, ld, false,
                            run->matmul);
        for (size_t r = 0; r < n; r++) {
            const float log_sum =
                softmax(run->kernel, seen + r + 1, keys, u->scale, scratch + r * ld);
            if (log_sums) log_sums[t + r] = log_sum;
        }
        weigh(run, &c, n, seen + n, scratch, ld, a->y + place(u, t), A);
    }
}

static void back(const cv_run *run, const void *record);

void cv_attend(const cv_run *run, const cv_attention *a)
{
    cv_attention *r = cv_record(run, back, sizeof *r);
    if (r) *r = *a;
    float *scratch = run->tape ? run->tape->own : a->scratch;
    float *memory = r ? cv_memory_of(run, a->y, a->H * a->N) : NULL; /* [H][T] */
    size_t lo, hi;
    cv_share(run->me, run->n_sequences * a->H, &lo, &hi);
    for (size_t i = lo; i < hi; i++) {
        const cv_sequence *seq = &run->sequences[i / a->H];
        const size_t h = i % a->H;
        const unit u = unit_of(a, seq, h, seq->state);
        attend_unit(run, &u, scratch, memory ? memory + h * run->T + seq->begin : NULL);
    }
}

size_t cv_attention_scratch(size_t T, size_t longest)
{
    return cv_smaller(ROWS, T) * cv_padded(longest);
}

/* ---- Back ------------------------------------------------------------------------------------ */

/* Rows of x [n][ld] as panels in which they are outputs, [rows / 16][N][16]: for products over the
 * channels. */
static void rows_out(const cv_kernels *kernel, size_t n, size_t N, size_t ld, const float *x,
                     float *to)
{
    for (size_t t = 0; t < n; t += CV_PANEL)
        kernel->turn(cv_smaller(CV_PANEL, n - t), N, x + t * ld, ld, to + t * N, CV_PANEL);
}

/* And as panels in which they are inputs, [N / 16][rows][16]: for products over the rows. */
static void rows_in(size_t n, size_t stride, size_t N, size_t ld, const float *x, float *to)
{
    for (size_t c = 0; c < N; c += CV_PANEL, to += stride * CV_PANEL)
        for (size_t t = 0; t < n; t++) {
            const size_t there = cv_smaller(CV_PANEL, N - c);
            memcpy(to + t * CV_PANEL, x + t * ld + c, there * sizeof *to);
            memset(to + t * CV_PANEL + there, 0, (CV_PANEL - there) * sizeof *to);
        }
}

/* What one head of one sequence makes of its queries, and room for a block of keys. */
typedef struct way_back {
    const unit *u;
    size_t n, ld;                                      /* queries; up to whole panels */
    float *q_out, *q_in, *dy_out, *dy_in;              /* panels of the queries and of dy */
    float *along, *log_sums;                           /* [ld] dy_t y_t, and of the softmax */
    float *p, *ds, *turned;                            /* [ROWS][ld], [ROWS][ld], [ld][ROWS] */
    float *k_in, *past_k, *past_v, *past_dk, *past_dv; /* [ROWS][N], padded */
    float *dq;                                         /* of the first row; rows are A apart */
} way_back;

static float *cut(float **room, size_t n)
{
    float *at = *room;
    *room += cv_padded(n);
    return at;
}

static way_back lay_out(const unit *u, float *room)
{
    const size_t n = u->seq->n, ld = cv_padded(n), N = u->a->N;
    way_back w = { .u = u, .n = n, .ld = ld };
    w.q_out = cut(&room, ld * N);
    w.dy_out = cut(&room, ld * N);
    w.q_in = cut(&room, ld * cv_padded(N));
    w.dy_in = cut(&room, ld * cv_padded(N));
    w.along = cut(&room, ld);
    w.log_sums = cut(&room, ld);
    w.p = cut(&room, ROWS * ld);
    w.ds = cut(&room, ROWS * ld);
    w.turned = cut(&room, ROWS * ld);
    w.k_in = cut(&room, ROWS * cv_padded(N));
    w.past_k = cut(&room, ROWS * N);
    w.past_v = cut(&room, ROWS * N);
    w.past_dk = cut(&room, ROWS * N);
    w.past_dv = cut(&room, ROWS * N);
    return w;
}

size_t cv_attention_own_scratch(size_t T, size_t N, size_t longest)
{
    const size_t ld = cv_padded(cv_smaller(T, longest)), wide = cv_padded(N);
    const size_t back_floats = ld * (4 * wide + 2 + 3 * ROWS) + ROWS * 5 * wide;
    const size_t forward = cv_attention_scratch(T, longest);
    return forward > back_floats ? forward : back_floats;
}

/* Keys [first, first + n) of the sequence, their values and gradients, rows ld apart. */
typedef struct block {
    size_t first, n, ld;
    const float *k, *v;
    float *dk, *dv;
} block;

/* Logarithms of weights from what queries and keys gave. */
CV_WIDE
static void log_weights(size_t n, float scale, const float *restrict log_sums, float *restrict p)
{
    for (size_t i = 0; i < n; i++)
        p[i] = p[i] * scale - log_sums[i];
}

/* Gradients by the scores, from weights and their gradients. */
CV_WIDE
static void scores_back(size_t n, float scale, const float *restrict p, const float *restrict along,
                        float *restrict ds)
{
    for (size_t i = 0; i < n; i++)
        ds[i] = p[i] * (ds[i] - along[i]) * scale;
}

/* The weights of a block, and their gradients by the scores, both [keys][queries], for queries
 * [t, ld): those before a key has been seen are zero. */
static void weights_back(const cv_run *run, const way_back *w, const block *b, size_t t)
{
    const size_t N = w->u->a->N, lo = t / CV_PANEL, hi = w->ld / CV_PANEL;
    const float scale = w->u->scale;
    const cv_matrix Q = panels_at(w->ld, N, N, w->q_out), dY = panels_at(w->ld, N, N, w->dy_out);
    run->kernel->matmul(&Q, lo, hi, b->n, b->k, b->ld, w->p, w->ld, false, run->matmul);
    run->kernel->matmul(&dY, lo, hi, b->n, b->v, b->ld, w->ds, w->ld, false, run->matmul);
    for (size_t r = 0; r < b->n; r++) {
        float *p = w->p + r * w->ld, *ds = w->ds + r * w->ld;
        const size_t key = b->first + r;
        const size_t seen = key > w->u->past ? key - w->u->past : 0; /* first query that sees it */
        log_weights(w->ld - t, scale, w->log_sums + t, p + t);
        run->kernel->exp(w->ld - t, p + t, p + t);
        scores_back(w->ld - t, scale, p + t, w->along + t, ds + t);
        for (size_t i = t; i < seen; i++)
            p[i] = ds[i] = 0.0f;
        for (size_t i = w->n; i < w->ld; i++)
            p[i] = ds[i] = 0.0f;
    }
}

/* out [keys] += x [keys][queries] times rows of queries as inputs, from query t on. */
static void gather(const cv_run *run, const way_back *w, const block *b, size_t t, const float *x,
                   const float *panels, float *out)
{
    const size_t N = w->u->a->N;
    for (size_t i = t; i < w->n; i += CV_FOLD) {
        const cv_matrix W =
            panels_at(N, cv_smaller(CV_FOLD, w->n - i), w->ld, panels + i * CV_PANEL);
        run->kernel->matmul(&W, 0, panels_for(N), b->n, x + i, w->ld, out, b->ld, true,
                            run->matmul);
    }
}

static void block_back(const cv_run *run, const way_back *w, const block *b)
{
    const size_t N = w->u->a->N, A = w->u->a->H * N, past = w->u->past;
    const size_t seen = b->first > past ? b->first - past : 0;
    const size_t t = seen / CV_PANEL * CV_PANEL;
    weights_back(run, w, b, t);
    if (b->dv) gather(run, w, b, t, w->p, w->dy_in, b->dv);
    if (b->dk) gather(run, w, b, t, w->ds, w->q_in, b->dk);

    for (size_t r = 0; r < b->n; r += CV_PANEL)
        run->kernel->turn(cv_smaller(CV_PANEL, b->n - r), w->n - seen, w->ds + r * w->ld + seen,
                          w->ld, w->turned + r, ROWS);
    rows_in(b->n, b->n, N, b->ld, b->k, w->k_in);
    const cv_matrix K = panels_at(N, b->n, b->n, w->k_in);
    run->kernel->matmul(&K, 0, panels_for(N), w->n - seen, w->turned, ROWS, w->dq + seen * A, A,
                        true, run->matmul);
}

/* Keys of the state that the sequence began in. */
static void past_back(const cv_run *run, const way_back *w)
{
    const unit *u = w->u;
    const size_t N = u->a->N, offset = u->a->state_offset;
    const cache c = cache_of(u->a, (float *)(size_t)(const void *)(u->seq->start + offset), u->h);
    for (size_t i = 0; i < u->past; i += ROWS) {
        const size_t n = cv_smaller(ROWS, u->past - i);
        block b = { i, n, N, w->past_k, w->past_v, NULL, NULL };
        for (size_t r = 0; r < n; r++)
            for (size_t j = 0; j < N; j++) {
                w->past_k[r * N + j] = *key_at(&c, i + r, j);
                w->past_v[r * N + j] = *value_at(&c, i + r, j);
            }
        if (u->seq->start_gradient) {
            b.dk = memset(w->past_dk, 0, n * N * sizeof(float));
            b.dv = memset(w->past_dv, 0, n * N * sizeof(float));
        }
        block_back(run, w, &b);
        if (!u->seq->start_gradient) continue;
        const cache d = cache_of(u->a, u->seq->start_gradient + offset, u->h);
        for (size_t r = 0; r < n; r++)
            for (size_t j = 0; j < N; j++) {
                *key_at(&d, i + r, j) += w->past_dk[r * N + j];
                *value_at(&d, i + r, j) += w->past_dv[r * N + j];
            }
    }
}

static void unit_back(const cv_run *run, const unit *u)
{
    const cv_attention *a = u->a;
    const size_t N = a->N, A = a->H * N, at = place(u, 0), n = u->seq->n;
    const float *dy = cv_gradient(run, a->y) + at;
    way_back w = lay_out(u, run->tape->own);
    const float *log_sums = cv_memory_of(run, a->y, A) + u->h * run->T + u->seq->begin;
    w.dq = cv_gradient(run, a->q) + at;
    rows_out(run->kernel, n, N, A, a->q + at, w.q_out);
    rows_out(run->kernel, n, N, A, dy, w.dy_out);
    rows_in(n, w.ld, N, A, a->q + at, w.q_in);
    rows_in(n, w.ld, N, A, dy, w.dy_in);
    for (size_t t = 0; t < w.ld; t++) {
        w.along[t] = t < n ? run->kernel->dot(N, dy + t * A, a->y + at + t * A) : 0.0f;
        w.log_sums[t] = t < n ? log_sums[t] : 0.0f;
    }
    past_back(run, &w);
    float *dk = cv_gradient(run, a->k) + at, *dv = cv_gradient(run, a->v) + at;
    for (size_t t = 0; t < n; t += ROWS) {
        const block b = { u->past + t,       cv_smaller(ROWS, n - t), A,
                          a->k + at + t * A, a->v + at + t * A,       dk + t * A,
                          dv + t * A };
        block_back(run, &w, &b);
    }
}

static void back(const cv_run *run, const void *record)
{
    const cv_attention *a = record;
    size_t lo, hi;
    cv_share(run->me, run->n_sequences * a->H, &lo, &hi);
    for (size_t i = lo; i < hi; i++) {
        const cv_sequence *seq = &run->sequences[i / a->H];
        const unit u = unit_of(a, seq, i % a->H, seq->start);
        unit_back(run, &u);
    }
}
