/* test_bi_wkv_error.c - how far Bi-WKV is from its definition, beside other ways to compute it.
 *
 * Expected values are the definition itself, a softmax over all tokens in double, at up to 64 tokens
 * of each picture.  Beside the op stand two forms in f32 of this file alone: two sweeps with running
 * maxima, and the recursion of the paper, which takes tokens out of the sum over the future.  Then
 * the modes of the GPU kernels against their weights pair by pair, and the bits of teams and
 * batches.  [bi.wkv] [bi.linear] [bi.cuda] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

#include "base/rng.h"
#include "ops/bi_wkv.h"

enum { C = 20, MOST_T = 16384, PLACES = 64, MOST_MEMBERS = 5, MOST_C = 40, MOST_PICTURES = 5 };

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* The tables of this build and machine; NULL past the end. */
static const cv_kernels *table_at(size_t i)
{
    static const cv_cpu_level LEVELS[] = { CV_CPU_REF, CV_CPU_AVX2, CV_CPU_AVX512,
                                           CV_CPU_AMX, CV_CPU_BF16, CV_CPU_NEON };
    for (size_t l = 0; l < COUNT(LEVELS); l++) {
        const cv_kernels *table = cv_kernels_for(LEVELS[l]);
        if (table && i-- == 0) return table;
    }
    return NULL;
}

/* ---- The op ---------------------------------------------------------------------------------- */

typedef struct call {
    const cv_kernels *table;
    cv_bi_mode mode;
    size_t channels, n_grids;
    cv_grid grids[MOST_PICTURES];
    const float *W, *U;
    float *k, *v; /* v: y on return */
    float *common, *own[MOST_MEMBERS];
} call;

static cv_bi_buffers take(const call *c, cv_run *run)
{
    cv_bi_buffers b;
    cv_run_grids(run, c->grids, c->n_grids);
    cv_bi_wkv_take(run, c->channels, &b);
    return b;
}

static void work(const cv_member *me, void *arg)
{
    const call *c = arg;
    cv_run run = { .kernel = c->table,
                   .me = me,
                   .common = { .base = c->common },
                   .own = { .base = c->own[me->id] } };
    const cv_bi_buffers b = take(c, &run);
    cv_bi_wkv(&run, c->mode, c->channels, c->W, c->U, c->k, c->v, &b);
    cv_meet(&run);
}

static float *floats(size_t n)
{
    float *x = aligned_alloc(64, (n * sizeof *x + 63) / 64 * 64 + 64);
    assert_non_null(x);
    return x;
}

static void run_op(call *c, size_t members)
{
    corvid_error err;
    const cv_member alone = { NULL, 0, 1 };
    cv_run measure = { .kernel = c->table, .me = &alone };
    test_allocator memory;
    cv_team *team;
    test_allocator_init(&memory);
    take(c, &measure);
    c->common = floats(measure.common.peak);
    for (size_t i = 0; i < members; i++)
        c->own[i] = floats(measure.own.peak);
    ASSERT_OK(cv_team_new(&memory.api, members, &team, &err), &err);
    cv_team_run(team, work, c);
    cv_team_free(team);
    for (size_t i = 0; i < members; i++)
        free(c->own[i]);
    free(c->common);
}

/* ---- Inputs ---------------------------------------------------------------------------------- */

/* What a row of the table is about. */
typedef struct kind {
    const char *keys, *weights; /* as they are printed */
    size_t T;
    float key_width;  /* of a normal distribution; negative: uniform to either side */
    float W_lo, W_hi; /* lo < 0: normal of width hi; else from lo to hi, of either sign */
    float U_width;    /* of U, normal; negative: of U / T, uniform to either side */
} kind;

static float W[MOST_C], U[MOST_C];
static float *k, *v, *y; /* [T][C] */

static float between(cv_rng *rng, float lo, float hi)
{
    return lo + (hi - lo) * (float)cv_rng_uniform(rng);
}

/* Normal of this width, or uniform over -width to width where width is negative. */
static float draw(cv_rng *rng, float width)
{
    return width < 0.0f ? between(rng, width, -width) : width * cv_rng_normal(rng);
}

static void make_inputs(cv_rng *rng, const kind *of)
{
    for (size_t c = 0; c < C; c++) {
        W[c] = of->W_lo < 0.0f ? draw(rng, of->W_hi) : between(rng, of->W_lo, of->W_hi);
        if (of->W_lo >= 0.0f && c % 2) W[c] = -W[c];
        U[c] = draw(rng, of->U_width) * (of->U_width < 0.0f ? (float)of->T : 1.0f);
    }
    for (size_t i = 0; i < of->T * C; i++) {
        k[i] = draw(rng, of->key_width);
        v[i] = cv_rng_normal(rng);
    }
}

/* ---- The definition -------------------------------------------------------------------------- */

/* A channel of a picture; w and u are divided by T. */
typedef struct channel {
    size_t T, ld;
    double w, u;
    const float *k, *v;
} channel;

static channel channel_at(size_t T, size_t ld, size_t c)
{
    return (channel){ T, ld, (double)W[c] / (double)T, (double)U[c] / (double)T, k + c, v + c };
}

static double key(const channel *c, size_t i)
{
    return (double)c->k[i * c->ld];
}

static double value(const channel *c, size_t i)
{
    return (double)c->v[i * c->ld];
}

static double distance(size_t t, size_t i)
{
    return t > i ? (double)(t - i) : (double)(i - t);
}

static double exponent(const channel *c, size_t t, size_t i)
{
    return key(c, i) + (t == i ? c->u : -(distance(t, i) - 1.0) * c->w);
}

static double largest_exponent(const channel *c, size_t t)
{
    double top = -HUGE_VAL;
    for (size_t i = 0; i < c->T; i++)
        top = fmax(top, exponent(c, t, i));
    return top;
}

/* Every weight times e^-top, and epsilon among the denominators. */
static double direct(const channel *c, size_t t, double top, double epsilon)
{
    double N = 0.0, D = epsilon;
    for (size_t i = 0; i < c->T; i++) {
        const double p = exp(exponent(c, t, i) - top);
        N += p * value(c, i);
        D += p;
    }
    return N / D;
}

/* What the GPU kernels make of it when they cut the tokens into `blocks` [bi.cuda]. */
typedef struct cuda_token {
    const channel *of;
    size_t t, start; /* a token, and the first of its block */
} cuda_token;

static cuda_token cuda_at(const channel *c, size_t blocks, size_t t)
{
    const size_t length = (c->T + blocks - 1) / blocks;
    return (cuda_token){ c, t, t / length * length };
}

/* Weight of token i, times e^-top. */
static double cuda_weight(const cuda_token *at, size_t i, double top)
{
    const channel *c = at->of;
    const double d = distance(at->t, i);
    if (i < at->start || i > at->t) return exp(key(c, i) - d * c->w - top);
    const double near = exp(exponent(c, at->t, i) - top);
    return i == at->start ? near : near - expm1(c->w) * exp(key(c, i) + d * c->w - top);
}

/* The largest exponent that they meet: tokens already taken out of the future count as well. */
static double cuda_top(const cuda_token *at)
{
    const channel *c = at->of;
    double top = -HUGE_VAL;
    for (size_t i = 0; i < c->T; i++) {
        const double away = distance(at->t, i) * c->w;
        const bool outside = i < at->start || i > at->t;
        top = fmax(top, outside ? key(c, i) - away : exponent(c, at->t, i));
        if (i > at->start && i <= at->t) top = fmax(top, key(c, i) + away);
    }
    return top;
}

#define CUDA_EPSILON 1e-6

static double direct_cuda(const cuda_token *at, double top)
{
    double N = 0.0, D = CUDA_EPSILON;
    for (size_t i = 0; i < at->of->T; i++) {
        const double weight = cuda_weight(at, i, top);
        N += weight * value(at->of, i);
        D += weight;
    }
    return N / D;
}

/* ---- Other ways, in f32 ---------------------------------------------------------------------- */

/* N e^top and D e^top. */
typedef struct sum32 {
    float N, D, top;
} sum32;

static const sum32 NOTHING = { 0.0f, 0.0f, -INFINITY };

static sum32 further(sum32 s, float w)
{
    s.top -= w;
    return s;
}

/* a + sign b */
static sum32 join(sum32 a, sum32 b, float sign)
{
    const float top = fmaxf(a.top, b.top);
    if (isinf(top)) return a;
    const float ea = expf(a.top - top), eb = sign * expf(b.top - top);
    return (sum32){ ea * a.N + eb * b.N, ea * a.D + eb * b.D, top };
}

static sum32 token(const channel *c, size_t i)
{
    return (sum32){ c->v[i * c->ld], 1.0f, c->k[i * c->ld] };
}

static float mean(sum32 past, sum32 self, sum32 future)
{
    const sum32 all = join(join(past, future, 1.0f), self, 1.0f);
    return all.N / all.D;
}

/* Two sweeps that add; out [T]. */
static void two_sweeps(const channel *c, float *out)
{
    static sum32 future[MOST_T];
    const float w = (float)c->w, u = (float)c->u;
    sum32 sum = NOTHING;
    for (size_t t = c->T; t-- > 0;) {
        future[t] = sum;
        sum = join(further(sum, w), token(c, t), 1.0f);
    }
    sum = NOTHING;
    for (size_t t = 0; t < c->T; t++) {
        out[t] = mean(sum, further(token(c, t), -u), future[t]);
        sum = join(further(sum, w), token(c, t), 1.0f);
    }
}

/* The recursion of the paper: the future of the first token is summed, then each token is taken out
 * of it as it is reached, and the rest divided by the decay. */
static void published(const channel *c, float *out)
{
    const float w = (float)c->w, u = (float)c->u;
    sum32 past = NOTHING, future = NOTHING;
    for (size_t t = c->T; t-- > 1;)
        future = join(further(future, w), token(c, t), 1.0f);
    for (size_t t = 0; t < c->T; t++) {
        if (t > 0) future = further(join(future, token(c, t), -1.0f), -w);
        out[t] = mean(past, further(token(c, t), -u), future);
        past = join(further(past, w), token(c, t), 1.0f);
    }
}

/* ---- Errors ---------------------------------------------------------------------------------- */

/* Relative to the largest value of all, and of the worst channel to its own largest. */
typedef struct distances {
    double all, channel;
} distances;

static size_t places[PLACES], n_places;
static double exact[PLACES][C];

/* All tokens of a small picture; of others both ends, the borders of blocks, and any. */
static void choose_places(cv_rng *rng, size_t T)
{
    static const size_t BORDERS[] = { 0, 1, 31, 32, 33, 511, 512, 513 };
    n_places = 0;
    for (size_t t = 0; t < T && T <= PLACES; t++)
        places[n_places++] = t;
    for (size_t i = 0; i < COUNT(BORDERS) && T > PLACES; i++) {
        if (BORDERS[i] >= T) continue;
        places[n_places++] = BORDERS[i];
        places[n_places++] = T - 1 - BORDERS[i];
    }
    while (T > PLACES && n_places < PLACES)
        places[n_places++] = (size_t)(cv_rng_next(rng) % T);
}

static distances errors(const float *got)
{
    double worst = 0.0, largest = 0.0, channels = 0.0;
    for (size_t c = 0; c < C; c++) {
        double off = 0.0, size = 0.0;
        for (size_t i = 0; i < n_places; i++) {
            const double e = fabs((double)got[places[i] * C + c] - exact[i][c]);
            off = e <= off ? off : isnan(e) ? HUGE_VAL : e;
            size = fmax(size, fabs(exact[i][c]));
        }
        channels = fmax(channels, off / size);
        worst = fmax(worst, off);
        largest = fmax(largest, size);
    }
    return (distances){ worst / largest, channels };
}

/* The worst of all tables. */
static distances op_errors(size_t T)
{
    distances worst = { 0.0, 0.0 };
    const cv_kernels *table;
    float *keys = floats(T * C);
    for (size_t i = 0; (table = table_at(i)); i++) {
        call c = { .table = table, .channels = C, .n_grids = 1, .W = W, .U = U, .k = keys, .v = y };
        c.grids[0] = (cv_grid){ .begin = 0, .n = T, .h = 1, .w = T };
        memcpy(keys, k, T * C * sizeof *k);
        memcpy(y, v, T * C * sizeof *v);
        run_op(&c, 1);
        const distances off = errors(y);
        worst.all = fmax(worst.all, off.all);
        worst.channel = fmax(worst.channel, off.channel);
    }
    free(keys);
    return worst;
}

static distances form_errors(size_t T, void (*form)(const channel *c, float *out))
{
    static float out[MOST_T];
    for (size_t c = 0; c < C; c++) {
        const channel of = channel_at(T, C, c);
        form(&of, out);
        for (size_t t = 0; t < T; t++)
            y[t * C + c] = out[t];
    }
    return errors(y);
}

/* Twice what was seen, of the worst table.  What is asked for is 5e-6 with ordinary keys; a channel
 * whose mean is near 0 everywhere has fewer digits of its own. */
#define MOST_ALL     1.2e-6
#define MOST_CHANNEL 1.6e-5

static const kind KINDS[] = {
    { "N(0,1)", "N(0,3)", 197, 1.0f, -1.0f, 3.0f, 1.0f },
    { "N(0,1)", "N(0,3)", 1024, 1.0f, -1.0f, 3.0f, 1.0f },
    { "N(0,1)", "N(0,3)", 16384, 1.0f, -1.0f, 3.0f, 1.0f },
    { "N(0,1)", "N(0,6)", 197, 1.0f, -1.0f, 6.0f, 1.0f },
    { "N(0,1)", "N(0,6)", 1024, 1.0f, -1.0f, 6.0f, 1.0f },
    { "N(0,1)", "N(0,6)", 16384, 1.0f, -1.0f, 6.0f, 1.0f },
    { "N(0,3)", "N(0,6)", 197, 3.0f, -1.0f, 6.0f, 1.0f },
    { "N(0,3)", "N(0,6)", 16384, 3.0f, -1.0f, 6.0f, 1.0f },
    { "+-80", "N(0,6)", 197, -80.0f, -1.0f, 6.0f, 1.0f },
    { "+-80", "N(0,6)", 1024, -80.0f, -1.0f, 6.0f, 1.0f },
    { "+-80", "N(0,6)", 16384, -80.0f, -1.0f, 6.0f, 1.0f },
    { "N(0,1)", "+-30..59", 197, 1.0f, 30.0f, 59.0f, 1.0f },
    { "N(0,1)", "+-30..59", 1024, 1.0f, 30.0f, 59.0f, 1.0f },
    { "N(0,1)", "+-30..59", 16384, 1.0f, 30.0f, 59.0f, 1.0f },
    { "+-80", "+-30..59", 197, -80.0f, 30.0f, 59.0f, 1.0f },
    { "+-80", "+-30..59", 1024, -80.0f, 30.0f, 59.0f, 1.0f },
    { "+-80", "+-30..59", 16384, -80.0f, 30.0f, 59.0f, 1.0f },
    { "N(0,1)", "+-61..500", 197, 1.0f, 61.0f, 500.0f, 1.0f },
    { "+-80", "+-61..500", 1024, -80.0f, 61.0f, 500.0f, 1.0f },
    { "N(0,1)", "N(0,6), U/T +-59", 197, 1.0f, -1.0f, 6.0f, -59.0f },
    { "+-80", "N(0,6), U/T +-59", 1024, -80.0f, -1.0f, 6.0f, -59.0f },
    { "N(0,1)", "N(0,6), U/T +-200", 197, 1.0f, -1.0f, 6.0f, -200.0f },
    { "N(0,1)", "+-30..59", 1, 1.0f, 30.0f, 59.0f, 1.0f },
    { "N(0,1)", "+-30..59", 2, 1.0f, 30.0f, 59.0f, 1.0f },
    { "+-80", "+-30..59", 3, -80.0f, 30.0f, 59.0f, 1.0f },
    { "N(0,1)", "+-30..59", 12, 1.0f, 30.0f, 59.0f, 1.0f },
    { "N(0,1)", "N(0,6)", 33, 1.0f, -1.0f, 6.0f, 1.0f },
    { "N(0,1)", "N(0,6)", 513, 1.0f, -1.0f, 6.0f, 1.0f },
    { "N(0,1)", "N(0,6)", 1531, 1.0f, -1.0f, 6.0f, 1.0f },
};

static void test_errors(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 81);
    bool good = true;
    print_message("error relative to the largest value of all (of the worst channel)\n");
    print_message("%-8s %-18s %6s  %-20s %-20s %-20s\n", "k", "W", "T", "cv_bi_wkv",
                  "running maxima, f32", "paper's form, f32");
    for (size_t i = 0; i < COUNT(KINDS); i++) {
        const kind *of = &KINDS[i];
        make_inputs(&rng, of);
        choose_places(&rng, of->T);
        for (size_t c = 0; c < C; c++) {
            const channel at = channel_at(of->T, C, c);
            for (size_t p = 0; p < n_places; p++)
                exact[p][c] = direct(&at, places[p], largest_exponent(&at, places[p]), 0.0);
        }
        const distances op = op_errors(of->T), sweeps = form_errors(of->T, two_sweeps),
                        paper = form_errors(of->T, published);
        const bool within = op.all <= MOST_ALL && op.channel <= MOST_CHANNEL;
        print_message("%-8s %-18s %6zu  %.1e (%.1e)    %.1e (%.1e)    %.1e (%.1e)%s\n", of->keys,
                      of->weights, of->T, op.all, op.channel, sweeps.all, sweeps.channel, paper.all,
                      paper.channel, within ? "" : "  beyond its bound");
        good = good && within;
    }
    assert_true(good);
}

/* ---- The modes of the GPU kernels ------------------------------------------------------------ */

/* Relative to the largest value.  The kernels add 1e-6 to a denominator whose unit is the largest
 * exponent they met, and which that is depends on the order of their sums: it moves the result by up
 * to 1e-6 e^w.  So w stays small here, as it is in any picture but the smallest. */
#define CUDA_OFF 2e-6

static void expect_close(const char *what, cv_bi_mode mode, size_t T, size_t t, size_t c,
                         double expected, double largest)
{
    const double got = (double)y[t * C + c];
    if (!(fabs(got - expected) <= CUDA_OFF * largest))
        fail_msg("%s, %d blocks, T %zu, W %g: y[%zu][%zu] is %.9g, expected %.9g", what, (int)mode,
                 T, (double)W[c], t, c, got, expected);
}

static void check_cuda(cv_bi_mode mode, size_t T, size_t c)
{
    const channel of = channel_at(T, C, c);
    /* When every token is its own block: the formula with |t - i| for |t - i| - 1. */
    const channel nearer = { T, C, of.w, of.u + of.w, of.k, of.v };
    double largest = 0.0;
    for (size_t t = 0; t < T; t++)
        largest = fmax(largest, fabs(value(&of, t)));
    for (size_t p = 0; p < n_places; p++) {
        const size_t t = places[p];
        const cuda_token at = cuda_at(&of, (size_t)mode, t);
        const double top = cuda_top(&at);
        expect_close("GPU weights", mode, T, t, c, direct_cuda(&at, top), largest);
        if (T <= (size_t)mode)
            expect_close("whole distances", mode, T, t, c,
                         direct(&nearer, t, top + of.w, CUDA_EPSILON), largest);
    }
}

static void test_cuda_modes(void **state)
{
    (void)state;
    static const size_t LENGTHS[] = { 1, 2, 7, 16, 17, 32, 33, 49, 100, 196, 197, 1024 };
    cv_rng rng;
    cv_rng_seed(&rng, 82);
    for (size_t i = 0; i < COUNT(LENGTHS); i++)
        for (int form = 0; form < 4; form++) {
            const cv_bi_mode mode = form % 2 ? CV_BI_CUDA16 : CV_BI_CUDA32;
            const size_t T = LENGTHS[i];
            const kind of = { .T = T,
                              .key_width = form / 2 ? 3.0f : 1.0f,
                              .W_hi = fminf(form / 2 ? 10.0f : 3.0f, 0.3f * (float)T),
                              .U_width = 1.0f };
            make_inputs(&rng, &of);
            choose_places(&rng, T);
            float *keys = floats(T * C);
            call c = { .table = cv_kernels_for(CV_CPU_REF),
                       .mode = mode,
                       .channels = C,
                       .n_grids = 1,
                       .grids = { { .n = T, .h = 1, .w = T } },
                       .W = W,
                       .U = U,
                       .k = keys,
                       .v = y };
            memcpy(keys, k, T * C * sizeof *k);
            memcpy(y, v, T * C * sizeof *v);
            run_op(&c, 1);
            free(keys);
            for (size_t j = 0; j < C; j++)
                check_cuda(mode, T, j);
        }
}

/* ---- Teams and batches: the same bits -------------------------------------------------------- */

static const size_t PICTURES[MOST_PICTURES] = { 197, 1, 513, 64, 1030 };
enum { ROWS = 197 + 1 + 513 + 64 + 1030 };

/* out = the op over the given pictures of the batch; all share k and v. */
static void run_pictures(const cv_kernels *table, cv_bi_mode mode, size_t first, size_t n,
                         size_t members, float *out)
{
    size_t before = 0, rows = 0;
    call c = { .table = table, .mode = mode, .channels = MOST_C, .n_grids = n, .W = W, .U = U };
    for (size_t i = 0; i < first; i++)
        before += PICTURES[i];
    for (size_t i = 0; i < n; i++) {
        c.grids[i] = (cv_grid){ rows, PICTURES[first + i], 1, PICTURES[first + i] };
        rows += PICTURES[first + i];
    }
    c.k = floats(rows * MOST_C);
    c.v = out;
    memcpy(c.k, k + before * MOST_C, rows * MOST_C * sizeof *k);
    memcpy(out, v + before * MOST_C, rows * MOST_C * sizeof *v);
    run_op(&c, members);
    free(c.k);
}

static void expect_same(const char *what, const cv_kernels *table, cv_bi_mode mode, size_t number,
                        const float *a, const float *b, size_t rows)
{
    if (memcmp(a, b, rows * MOST_C * sizeof *a) != 0)
        fail_msg("%s, mode %d: not the same bits: %s %zu", cv_cpu_level_name(table->level),
                 (int)mode, what, number);
}

static void check_bits(const cv_kernels *table, cv_bi_mode mode, float *other)
{
    static const size_t MEMBERS[] = { 2, 3, 5 };
    run_pictures(table, mode, 0, MOST_PICTURES, 1, y);
    for (size_t i = 0; i < COUNT(MEMBERS); i++) {
        run_pictures(table, mode, 0, MOST_PICTURES, MEMBERS[i], other);
        expect_same("members", table, mode, MEMBERS[i], y, other, ROWS);
    }
    for (size_t i = 0, before = 0; i < MOST_PICTURES; before += PICTURES[i++]) {
        run_pictures(table, mode, i, 1, 2, other);
        expect_same("picture alone", table, mode, i, y + before * MOST_C, other, PICTURES[i]);
    }
}

/* The middle one of three panels has a weight beyond the range of the fast way. */
static void test_same_bits(void **state)
{
    (void)state;
    static const cv_bi_mode MODES[] = { CV_BI_FORMULA, CV_BI_CUDA16, CV_BI_CUDA32 };
    cv_rng rng;
    cv_rng_seed(&rng, 83);
    for (size_t c = 0; c < MOST_C; c++) {
        W[c] = draw(&rng, 6.0f);
        U[c] = draw(&rng, 1.0f);
    }
    W[20] = -70.0f;
    for (size_t i = 0; i < ROWS * MOST_C; i++) {
        k[i] = draw(&rng, 2.0f);
        v[i] = draw(&rng, 1.0f);
    }
    float *other = floats(ROWS * MOST_C);
    const cv_kernels *table;
    for (size_t i = 0; (table = table_at(i)); i++)
        for (size_t m = 0; m < COUNT(MODES); m++)
            check_bits(table, MODES[m], other);
    free(other);
}

static int make_arrays(void **state)
{
    (void)state;
    k = floats(MOST_T * C);
    v = floats(MOST_T * C);
    y = floats(MOST_T * C);
    return 0;
}

static int free_arrays(void **state)
{
    (void)state;
    free(k);
    free(v);
    free(y);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_cuda_modes),
        cmocka_unit_test(test_same_bits),
    };
    return cmocka_run_group_tests(tests, make_arrays, free_arrays);
}
