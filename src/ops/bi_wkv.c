/* bi_wkv.c - the WKV of pictures, shared out over the team; see bi_wkv.h.
 *
 * The fast way takes one maximum per channel and segment for all exponents [bi.linear], which is
 * safe in f32 while neither |W| nor |U / T| goes beyond LIMIT.  Channels where they do, which no
 * trained model was seen to have, and the two modes of the GPU kernels are summed in double by
 * bi_wkv_exact.c.
 *
 * On the way back a member has panels of 16 channels to itself, all pictures of them: the gradients
 * of W and U are sums over pictures, in their order. */
#include <math.h>
#include <string.h>

#include "ops/bi_wkv.h"
#include "ops/bi_wkv_exact.h"
#include "ops/tape.h"

#define LIMIT      60.0f /* e^60 times 2^24 tokens is still a float */
#define BACK_LIMIT 30.0f /* the same way back, where weights come twice: over D, and by distance */

/* What a segment leaves for the others: its ends, and its top. */
typedef struct segment {
    float ends[4][CV_PANEL];
    float top[CV_PANEL];
} segment;

/* A piece of work: 16 channels of a segment of a picture.  Pieces are numbered channels first, so
 * that a member's pieces share their decays; then pictures, then segments. */
typedef struct piece {
    size_t channel, width; /* first channel, and how many up to 16 */
    const cv_grid *grid;
    size_t segment, n_segments;
    size_t begin, n; /* rows of the run */
    size_t number;   /* of its segment struct */
} piece;

static size_t segments_of(const cv_grid *g)
{
    return (g->n + CV_BI_SEGMENT - 1) / CV_BI_SEGMENT;
}

static size_t all_segments(const cv_grid *grids, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += segments_of(&grids[i]);
    return sum;
}

static size_t panels_of(size_t C)
{
    return (C + CV_PANEL - 1) / CV_PANEL;
}

void cv_bi_wkv_take(cv_run *run, size_t C, cv_bi_buffers *b)
{
    const size_t pieces = all_segments(run->grids, run->n_grids) * panels_of(C);
    size_t longest = 0;
    for (size_t i = 0; i < run->n_grids; i++)
        if (run->grids[i].n > longest) longest = run->grids[i].n;
    b->segments = cv_take_shared(run, pieces * sizeof(segment) / sizeof(float));
    b->sums = cv_take_scratch(run, longest * sizeof(cv_wsum) / sizeof(float));
}

static piece piece_at(const cv_run *run, size_t C, size_t number)
{
    const size_t per_panel = all_segments(run->grids, run->n_grids);
    size_t left = number % per_panel;
    piece p = { .channel = number / per_panel * CV_PANEL, .number = number, .grid = run->grids };
    while (left >= segments_of(p.grid))
        left -= segments_of(p.grid++);
    p.width = C - p.channel < CV_PANEL ? C - p.channel : CV_PANEL;
    p.segment = left;
    p.n_segments = segments_of(p.grid);
    const size_t first = left * CV_BI_SEGMENT, rest = p.grid->n - first;
    p.begin = p.grid->begin + first;
    p.n = rest < CV_BI_SEGMENT ? rest : CV_BI_SEGMENT;
    return p;
}

/* Decay and self weight of 16 channels, in the picture's own T. */
typedef struct weights {
    size_t channel, T; /* what they are of; T 0: nothing yet */
    cv_bi_decay decay;
    float self[CV_PANEL];
    double far[CV_PANEL]; /* e^(-CV_BI_SEGMENT w) */
    bool safe;
} weights;

/* May the fast way take this piece's channels? */
static bool in_range(const piece *p, const float *W, const float *U, float limit)
{
    for (size_t c = p->channel; c < p->channel + p->width; c++)
        if (!(fabsf(W[c]) <= limit && fabs((double)U[c] / (double)p->grid->n) <= (double)limit))
            return false;
    return true;
}

static void prepare(weights *w, const piece *p, const float *W, const float *U, float limit)
{
    if (w->T == p->grid->n && w->channel == p->channel) return;
    w->T = p->grid->n;
    w->channel = p->channel;
    w->safe = in_range(p, W, U, limit);
    for (size_t c = 0; c < CV_PANEL; c++) {
        const bool real = c < p->width;
        const double step = real ? (double)W[p->channel + c] / (double)w->T : 0.0;
        const double self = real ? (double)U[p->channel + c] / (double)w->T : 0.0;
        const double lambda = exp(-step);
        double power = 1.0;
        for (size_t j = 0; j < CV_BI_BLOCK; j++, power *= lambda)
            w->decay.power[j][c] = (float)power;
        w->decay.power[CV_BI_BLOCK][c] = (float)power;
        w->decay.rest[c] = (float)(power - (double)w->decay.power[CV_BI_BLOCK][c]);
        w->self[c] = (float)exp(self);
        power *= power; /* 64, 128, 256, 512 tokens */
        power *= power;
        power *= power;
        w->far[c] = power * power;
    }
}

static void first_half(const cv_run *run, const piece *p, const weights *w, size_t C, float *k,
                       const float *v, segment *s)
{
    const size_t at = p->begin * C + p->channel;
    run->kernel->bi_keys(p->n, p->width, C, k + at, s->top);
    if (p->n_segments > 1)
        run->kernel->bi_ends(p->n, p->width, C, &w->decay, k + at, v + at, s->ends);
}

/* What reaches a segment from the others, under one top for the whole picture. */
typedef struct reach {
    float scale[CV_PANEL];
    float carry[4][CV_PANEL];
} reach;

/* One channel.  `all` are the segments of the picture. */
static void gather_channel(const piece *p, const weights *w, const segment *all, size_t c, reach *r)
{
    float top = all[0].top[c];
    for (size_t i = 1; i < p->n_segments; i++)
        top = all[i].top[c] > top ? all[i].top[c] : top;
    r->scale[c] = expf(all[p->segment].top[c] - top);
    double past[2] = { 0.0, 0.0 }, future[2] = { 0.0, 0.0 };
    for (size_t i = 0; i < p->segment; i++) { /* from the far end towards this segment */
        const double scale = (double)expf(all[i].top[c] - top);
        for (size_t e = 0; e < 2; e++)
            past[e] = past[e] * w->far[c] + scale * (double)all[i].ends[e][c];
    }
    for (size_t i = p->n_segments; i-- > p->segment + 1;) {
        const double scale = (double)expf(all[i].top[c] - top);
        for (size_t e = 0; e < 2; e++)
            future[e] = future[e] * w->far[c] + scale * (double)all[i].ends[2 + e][c];
    }
    for (size_t e = 0; e < 2; e++) {
        r->carry[e][c] = (float)past[e];
        r->carry[2 + e][c] = (float)future[e];
    }
}

static void second_half(const cv_run *run, const piece *p, const weights *w, size_t C,
                        const float *k, float *v, const segment *s)
{
    const size_t at = p->begin * C + p->channel;
    reach r = { { 0.0f }, { { 0.0f } } };
    for (size_t c = 0; c < CV_PANEL; c++) {
        if (p->n_segments > 1 && c < p->width)
            gather_channel(p, w, s - p->segment, c, &r);
        else
            r.scale[c] = 1.0f;
    }
    run->kernel->bi_wkv(p->n, p->width, C, &w->decay, w->self, r.scale, (const float(*)[16])r.carry,
                        k + at, v + at, v + at);
}

/* All tokens at once, by whoever has the first segment. */
static void exactly(const piece *p, cv_bi_mode mode, size_t C, const float *W, const float *U,
                    const float *k, float *v, cv_wsum *sums)
{
    for (size_t c = p->channel; p->segment == 0 && c < p->channel + p->width; c++) {
        const size_t at = p->grid->begin * C + c;
        cv_bi_wkv_exact(mode, p->grid->n, C, (double)W[c] / (double)p->grid->n,
                        (double)U[c] / (double)p->grid->n, k + at, v + at, sums);
    }
}

/* ---- Walking back ---------------------------------------------------------------------------- */

typedef struct bi_record {
    size_t C;
    const float *W, *U;
    float *k, *v; /* with what they were before behind them */
} bi_record;

/* Keys and values of a piece, before they are overwritten. */
static void remember(const cv_run *run, const piece *p, size_t C, float *k, float *v)
{
    float *old_k = cv_memory_of(run, k, C), *old_v = cv_memory_of(run, v, C);
    for (size_t t = p->begin; t < p->begin + p->n; t++) {
        const size_t at = t * C + p->channel;
        memcpy(old_k + at, k + at, p->width * sizeof *k);
        memcpy(old_v + at, v + at, p->width * sizeof *v);
    }
}

/* The fast way, all channels of a panel; x has the arrays of the picture. */
static void back_quickly(const cv_run *run, cv_bi_back *x, const weights *w)
{
    x->decay = &w->decay;
    x->self = w->self;
    x->scratch = run->tape->own;
    run->kernel->bi_wkv_back(x);
}

/* One channel after the other. */
static void back_exactly(const cv_run *run, const cv_bi_back *x, const float *W, const float *U)
{
    const double T = (double)x->T;
    for (size_t c = 0; c < x->n; c++) {
        cv_bi_exact_back one = { .T = x->T, .ld = x->ld, .k = x->k + c, .v = x->v + c };
        one.w = (double)W[c] / T;
        one.u = (double)U[c] / T;
        one.dk = x->dk + c;
        one.dv = x->dv + c;
        one.sums = (cv_wsum *)(void *)run->tape->own;
        cv_bi_wkv_exact_back(&one);
        x->dw[c] += (float)one.dw;
        x->du[c] += (float)one.du;
    }
}

/* A panel of a picture; W and U go through the number of its tokens, and so do their gradients. */
static void picture_back(const cv_run *run, const bi_record *r, const piece *p, weights *w)
{
    const size_t at = p->begin * r->C + p->channel;
    float dw[CV_PANEL] = { 0.0f }, du[CV_PANEL] = { 0.0f };
    float *dW = cv_gradient(run, r->W), *dU = cv_gradient(run, r->U);
    cv_bi_back x = { .T = p->n, .n = p->width, .ld = r->C, .dw = dw, .du = du };
    x.k = cv_memory_of(run, r->k, r->C) + at;
    x.v = cv_memory_of(run, r->v, r->C) + at;
    x.dk = cv_gradient(run, r->k) + at;
    x.dv = cv_gradient(run, r->v) + at;
    prepare(w, p, r->W, r->U, BACK_LIMIT);
    if (w->safe)
        back_quickly(run, &x, w);
    else
        back_exactly(run, &x, r->W + p->channel, r->U + p->channel);
    for (size_t c = 0; c < p->width; c++) {
        if (dW) dW[p->channel + c] += dw[c] / (float)p->n;
        if (dU) dU[p->channel + c] += du[c] / (float)p->n;
    }
}

static void bi_wkv_back(const cv_run *run, const void *record)
{
    const bi_record *r = record;
    weights w = { .T = 0 };
    size_t lo, hi;
    cv_share(run->me, panels_of(r->C), &lo, &hi);
    for (size_t panel = lo; panel < hi; panel++)
        for (size_t i = 0; i < run->n_grids; i++) {
            piece p = { .channel = panel * CV_PANEL, .grid = &run->grids[i] };
            p.width = r->C - p.channel < CV_PANEL ? r->C - p.channel : CV_PANEL;
            p.begin = p.grid->begin;
            p.n = p.grid->n;
            picture_back(run, r, &p, &w);
        }
}

size_t cv_bi_wkv_own_scratch(size_t longest)
{
    const size_t exact = CV_BI_EXACT_SUMS * longest * sizeof(cv_wsum) / sizeof(float);
    const size_t fast = cv_bi_back_scratch(longest);
    return fast > exact ? fast : exact;
}

/* ---- The op ---------------------------------------------------------------------------------- */

void cv_bi_wkv(const cv_run *run, cv_bi_mode mode, size_t C, const float *W, const float *U,
               float *k, float *v, const cv_bi_buffers *b)
{
    segment *segments = (segment *)(void *)b->segments;
    bi_record *record = cv_record(run, bi_wkv_back, sizeof *record);
    weights w = { .T = 0 };
    size_t lo, hi;
    if (record) *record = (bi_record){ .C = C, .W = W, .U = U, .k = k, .v = v };
    cv_share(run->me, all_segments(run->grids, run->n_grids) * panels_of(C), &lo, &hi);
    for (size_t i = lo; i < hi; i++) {
        const piece p = piece_at(run, C, i);
        prepare(&w, &p, W, U, LIMIT);
        if (run->tape) remember(run, &p, C, k, v);
        if (mode != CV_BI_FORMULA || !w.safe) continue;
        first_half(run, &p, &w, C, k, v, &segments[i]);
        if (p.n_segments == 1) second_half(run, &p, &w, C, k, v, &segments[i]);
    }
    cv_meet(run); /* the ends of all segments are there; pictures of one are done already */
    for (size_t i = lo; i < hi; i++) {
        const piece p = piece_at(run, C, i);
        if (mode == CV_BI_FORMULA && p.n_segments == 1 && in_range(&p, W, U, LIMIT)) continue;
        prepare(&w, &p, W, U, LIMIT);
        if (mode == CV_BI_FORMULA && w.safe)
            second_half(run, &p, &w, C, k, v, &segments[i]);
        else
            exactly(&p, mode, C, W, U, k, v, (cv_wsum *)(void *)b->sums);
    }
}
