/* lstm_pass.c - the recurrence of an LSTM, and back; see lstm_pass.h. */
#include <string.h>

#include "ops/lstm_pass.h"

enum { TOGETHER = 12 }; /* sequences in step: one tile of the widest kernel */

/* Sequences [lo, hi) of a run, at most TOGETHER. */
typedef struct group {
    const cv_lstm_pass *p;
    const cv_sequence *sequences;
    size_t n, longest;
} group;

static bool next_group(const cv_run *run, const cv_lstm_pass *p, size_t *at, size_t end, group *g)
{
    if (*at >= end) return false;
    *g = (group){ p, run->sequences + *at, end - *at < TOGETHER ? end - *at : TOGETHER, 0 };
    for (size_t s = 0; s < g->n; s++)
        if (g->sequences[s].n > g->longest) g->longest = g->sequences[s].n;
    *at += g->n;
    return true;
}

/* ---- Forward --------------------------------------------------------------------------------- */

/* One token of one sequence: z becomes the gates. */
static void step(const cv_kernels *kernel, size_t C, float *z, const float *before, float *c,
                 float *h)
{
    kernel->sigmoid(2 * C, z, z);
    kernel->tanh(C, z + 2 * C, z + 2 * C);
    kernel->sigmoid(C, z + 3 * C, z + 3 * C);
    kernel->mul(C, z + C, before, c);
    kernel->mul_add(C, z, z + 2 * C, c);
    kernel->tanh(C, c, h);
    kernel->mul(C, h, z + 3 * C, h);
}

/* Token t of all sequences of a group that have one.  The vectors h before it lie one behind the
 * other, and so do their products. */
static void group_step(const cv_run *run, const group *g, size_t t, float *scratch, float *memory)
{
    const cv_lstm_pass *p = g->p;
    const size_t C = p->C;
    float *previous = scratch, *products = scratch + TOGETHER * C;
    size_t n = 0;
    for (size_t s = 0; s < g->n; s++) {
        const cv_sequence *seq = &g->sequences[s];
        if (t >= seq->n) continue;
        const size_t row = (seq->begin + t) * C;
        const float *h = t ? p->h + row - C : seq->state + p->state_offset;
        memcpy(previous + n++ * C, h, C * sizeof *h);
        if (memory) memcpy(memory + row, h, C * sizeof *h);
    }
    run->kernel->matmul(p->U, 0, (4 * C + CV_PANEL - 1) / CV_PANEL, n, previous, C, products, 4 * C,
                        false, run->matmul);
    n = 0;
    for (size_t s = 0; s < g->n; s++) {
        const cv_sequence *seq = &g->sequences[s];
        if (t >= seq->n) continue;
        const size_t row = (seq->begin + t) * C;
        float *z = p->gates + 4 * row;
        const float *sum = products + 4 * C * n++;
        const float *before = t ? p->c + row - C : seq->state + p->state_offset + C;
        for (size_t i = 0; i < 4 * C; i++)
            z[i] += sum[i];
        step(run->kernel, C, z, before, p->c + row, p->h + row);
    }
}

static void keep(const group *g)
{
    const size_t C = g->p->C;
    for (size_t s = 0; s < g->n; s++) {
        const cv_sequence *seq = &g->sequences[s];
        const size_t last = (seq->begin + seq->n - 1) * C;
        float *state = seq->state + g->p->state_offset;
        memcpy(state, g->p->h + last, C * sizeof *state);
        memcpy(state + C, g->p->c + last, C * sizeof *state);
    }
}

static void back(const cv_run *run, const void *record);

void cv_lstm_sequences(const cv_run *run, const cv_lstm_pass *lstm)
{
    cv_lstm_pass *r = cv_record(run, back, sizeof *r);
    if (r) *r = *lstm;
    float *scratch = run->tape ? run->tape->own : lstm->scratch;
    float *memory = r ? cv_memory_of(run, lstm->h, lstm->C) : NULL;
    size_t lo, hi;
    cv_share(run->me, run->n_sequences, &lo, &hi);
    for (group g; next_group(run, lstm, &lo, hi, &g);) {
        for (size_t t = 0; t < g.longest; t++)
            group_step(run, &g, t, scratch, memory);
        keep(&g);
    }
}

size_t cv_lstm_scratch(size_t C)
{
    return TOGETHER * 5 * C;
}

/* ---- Back ------------------------------------------------------------------------------------ */

/* One token: dh and dc are those of h_t and c_t, dc becomes that of c_(t-1), and dz is written.
 *     do = dh tanh(c)     dc += dh o (1 - tanh^2 c)     di = dc g     dg = dc i     df = dc c_(t-1) */
static void step_back(size_t C, const float *gates, const float *before, const float *squashed,
                      const float *dh, float *dc, float *dz)
{
    const float *i = gates, *f = gates + C, *g = gates + 2 * C, *o = gates + 3 * C;
    for (size_t c = 0; c < C; c++) {
        const float y = squashed[c], d = dc[c] + dh[c] * o[c] * (1.0f - y * y);
        dz[c] = d * g[c] * i[c] * (1.0f - i[c]);
        dz[C + c] = d * before[c] * f[c] * (1.0f - f[c]);
        dz[2 * C + c] = d * i[c] * (1.0f - g[c] * g[c]);
        dz[3 * C + c] = dh[c] * y * o[c] * (1.0f - o[c]);
        dc[c] = d * f[c];
    }
}

/* dh of the token before, from U and what was behind it; both, and dc, [TOGETHER][C] by sequence. */
typedef struct later {
    float *dh, *dc, *squashed, *dz, *products;
} later;

static later later_at(float *scratch, size_t C)
{
    float *dz = scratch + 3 * TOGETHER * C;
    return (later){ scratch, scratch + TOGETHER * C, scratch + 2 * TOGETHER * C, dz,
                    dz + 4 * TOGETHER * C };
}

static void group_step_back(const cv_run *run, const group *g, size_t t, const later *l)
{
    const cv_lstm_pass *p = g->p;
    const size_t C = p->C;
    const float *dy = cv_gradient(run, p->h);
    float *dgates = cv_gradient(run, p->gates);
    size_t n = 0;
    for (size_t s = 0; s < g->n; s++) {
        const cv_sequence *seq = &g->sequences[s];
        if (t >= seq->n) continue;
        const size_t row = (seq->begin + t) * C;
        const float *before = t ? p->c + row - C : seq->start + p->state_offset + C;
        float *dh = l->dh + s * C, *dz = l->dz + 4 * C * n++;
        for (size_t c = 0; c < C; c++)
            dh[c] += dy[row + c];
        run->kernel->tanh(C, p->c + row, l->squashed);
        step_back(C, p->gates + 4 * row, before, l->squashed, dh, l->dc + s * C, dz);
        memcpy(dgates + 4 * row, dz, 4 * C * sizeof *dz);
    }
    const cv_matrix *turned = &p->U->trained->turned;
    run->kernel->matmul(turned, 0, (C + CV_PANEL - 1) / CV_PANEL, n, l->dz, 4 * C, l->products, C,
                        false, run->matmul);
    n = 0;
    for (size_t s = 0; s < g->n; s++)
        if (t < g->sequences[s].n) memcpy(l->dh + s * C, l->products + C * n++, C * sizeof *l->dh);
}

static void keep_start(const group *g, const later *l)
{
    const size_t C = g->p->C;
    for (size_t s = 0; s < g->n; s++) {
        float *start = g->sequences[s].start_gradient;
        if (!start) continue;
        start += g->p->state_offset;
        for (size_t c = 0; c < C; c++) {
            start[c] += l->dh[s * C + c];
            start[C + c] += l->dc[s * C + c];
        }
    }
}

/* First token by token to the gradients of z, then U's from all of them at once. */
static void back(const cv_run *run, const void *record)
{
    const cv_lstm_pass *p = record;
    const size_t C = p->C;
    const later l = later_at(run->tape->own, C);
    size_t lo, hi;
    cv_share(run->me, run->n_sequences, &lo, &hi);
    for (group g; next_group(run, p, &lo, hi, &g);) {
        memset(l.dh, 0, TOGETHER * C * sizeof *l.dh);
        memset(l.dc, 0, TOGETHER * C * sizeof *l.dc);
        for (size_t t = g.longest; t-- > 0;)
            group_step_back(run, &g, t, &l);
        keep_start(&g, &l);
    }
    cv_meet(run);
    cv_product_back(run, p->U, cv_memory_of(run, p->h, C), C, cv_gradient(run, p->gates), NULL,
                    false, NULL);
}

size_t cv_lstm_own_scratch(size_t C)
{
    return TOGETHER * 8 * C;
}

/* ---- Moving rows ----------------------------------------------------------------------------- */

typedef struct move_record {
    size_t C;
    const float *x, *y;
} move_record;

static void move_back(const cv_run *run, const void *record)
{
    const move_record *r = record;
    float *dx = cv_gradient(run, r->x), *dy = cv_gradient(run, r->y);
    size_t lo, hi;
    cv_share(run->me, run->T, &lo, &hi);
    for (size_t i = lo * r->C; i < hi * r->C; i++) {
        dx[i] += dy[i];
        dy[i] = 0.0f;
    }
}

void cv_move_rows(const cv_run *run, size_t C, const float *x, float *y)
{
    move_record *r = cv_record(run, move_back, sizeof *r);
    if (r) *r = (move_record){ C, x, y };
    size_t lo, hi;
    cv_share(run->me, run->T, &lo, &hi);
    memcpy(y + lo * C, x + lo * C, (hi - lo) * C * sizeof *y);
}
