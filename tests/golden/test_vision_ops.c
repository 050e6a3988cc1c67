/* test_vision_ops.c - the operators of the vision models by themselves, on every level of kernels
 * and with teams of one to three: Bi-WKV and what the GPU kernels make of it, the recurrence of
 * version 6 from both ends, the shift on a grid, positions on other grids.
 * [bi.wkv] [bi.linear] [bi.cuda] [v6.bi] [q.shift] [vrwkv.position] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_files.h"
#include "models/vision.h"
#include "ops/bi_wkv_exact.h"
#include "ops/heads.h"
#include "support.h"
#include "vision_files.h"

/* Of the largest number of a tensor.  The sums of the fast way start anew every 32 tokens, so their
 * error does not grow with the picture: 5.6e-7 was seen.  The exact way was never off by a bit. */
#define BI_TOLERANCE    2e-6
#define EXACT_TOLERANCE 1e-7
/* The GPU kernels add 1e-6 to a denominator that they scale by another power than ours. */
#define GPU_TOLERANCE 5e-6
#define V6_TOLERANCE  2e-6
#define POS_TOLERANCE 1e-6

enum { MOST_GRIDS = 4, MOST_MEMBERS = 3 };

/* ---- A team at work on a few pictures -------------------------------------------------------- */

typedef struct job job;
struct job {
    void (*take)(cv_run *run, const job *j, void *buffers);
    void (*work)(const cv_run *run, const job *j, const void *buffers);
    cv_grid grids[MOST_GRIDS];
    size_t n_grids, C;
    const cv_kernels *kernel;
    float *common, *own[MOST_MEMBERS];

    /* Inputs and outputs of the operators. */
    cv_bi_mode mode;
    size_t H, N;
    const float *W, *U, *r, *w, *u;
    float *k, *v, *y, *back;
    cv_q_shift shift;
};

static void add_grid(job *j, size_t h, size_t w, bool class_token)
{
    assert_true(j->n_grids < MOST_GRIDS);
    const cv_grid *last = j->n_grids ? &j->grids[j->n_grids - 1] : NULL;
    j->grids[j->n_grids++] = (cv_grid){
        .begin = last ? last->begin + last->n : 0, .n = h * w + class_token, .h = h, .w = w
    };
}

static size_t rows_of(const job *j)
{
    return j->grids[j->n_grids - 1].begin + j->grids[j->n_grids - 1].n;
}

static void walk(const cv_member *me, void *arg)
{
    const job *j = arg;
    cv_bi_buffers buffers;
    cv_run run = { .kernel = j->kernel, .me = me };
    cv_run_grids(&run, j->grids, j->n_grids);
    run.common.base = j->common;
    run.own.base = j->own[me->id];
    if (j->take) j->take(&run, j, &buffers);
    j->work(&run, j, &buffers);
}

/* Room for what take() asks for, aligned as the engine's is. */
static void make_room(job *j, size_t n_members)
{
    const cv_member one = { .team = NULL, .id = 0, .n = n_members };
    cv_bi_buffers buffers;
    cv_run run = { .me = &one };
    cv_run_grids(&run, j->grids, j->n_grids);
    if (j->take) j->take(&run, j, &buffers);
    j->common = cv_alloc(&cv_libc_allocator, run.common.peak + 1, sizeof(float));
    assert_non_null(j->common);
    for (size_t i = 0; i < n_members; i++) {
        j->own[i] = cv_alloc(&cv_libc_allocator, run.own.peak + 1, sizeof(float));
        assert_non_null(j->own[i]);
    }
}

static void run_job(job *j, size_t n_members)
{
    corvid_error err;
    cv_team *team;
    make_room(j, n_members);
    ASSERT_OK(cv_team_new(&cv_libc_allocator, n_members, &team, &err), &err);
    cv_team_run(team, walk, j);
    cv_team_free(team);
    cv_free(&cv_libc_allocator, j->common);
    for (size_t i = 0; i < n_members; i++)
        cv_free(&cv_libc_allocator, j->own[i]);
}

/* ---- Helpers --------------------------------------------------------------------------------- */

static float *copy_of(const float *x, size_t n)
{
    float *copy = malloc(n * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, x, n * sizeof *copy);
    return copy;
}

static const cv_tensor *find(const cv_checkpoint *ckpt, const char *name, const char *what)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", name, what);
    return cv_checkpoint_find(ckpt, key);
}

static float *need(const cv_checkpoint *ckpt, const char *name, const char *what, size_t n)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", name, what);
    return vision_need(ckpt, key, n);
}

/* I32 values of a tensor. */
static void need_ints(const cv_checkpoint *ckpt, const char *name, const char *what, int32_t *out,
                      size_t n)
{
    corvid_error err;
    const cv_tensor *t = find(ckpt, name, what);
    if (!t) fail_msg("%s.%s: not in %s", name, what, ckpt->in.path);
    assert_int_equal(t->dtype, CV_I32);
    assert_int_equal(t->count, n);
    ASSERT_OK(cv_tensor_read(ckpt, t, 0, n, out, &err), &err);
}

static void report(const char *name, const char *how, double off, double most)
{
    char title[96];
    snprintf(title, sizeof title, "%s %s", name, how);
    model_report(title, off, most);
}

static void raise_to(double *most, double off)
{
    if (!(off <= *most)) *most = off;
}

static const cv_kernels *kernels_of(const char *level)
{
    cv_cpu_level l = CV_CPU_REF;
    cv_cpu_level_parse(level, &l);
    return cv_kernels_for(l);
}

static void open_vectors(const char *path, cv_checkpoint *ckpt)
{
    corvid_error err;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, ckpt, &err), &err);
}

/* ---- Bi-WKV ---------------------------------------------------------------------------------- */

static void bi_take(cv_run *run, const job *j, void *buffers)
{
    cv_bi_wkv_take(run, j->C, buffers);
}

static void bi_work(const cv_run *run, const job *j, const void *buffers)
{
    cv_bi_wkv(run, j->mode, j->C, j->W, j->U, j->k, j->v, buffers);
}

typedef struct bi_case {
    const char *name;
    size_t B, T, C;
    float *W, *U, *k, *v;
} bi_case;

static bi_case read_bi_case(const cv_checkpoint *ckpt, const char *name)
{
    const cv_tensor *k = find(ckpt, name, "k");
    if (!k) fail_msg("%s: not in %s", name, ckpt->in.path);
    bi_case c = { .name = name, .B = k->dims[0], .T = k->dims[1], .C = k->dims[2] };
    c.W = need(ckpt, name, "W", c.C);
    c.U = need(ckpt, name, "U", c.C);
    c.k = need(ckpt, name, "k", k->count);
    c.v = need(ckpt, name, "v", k->count);
    return c;
}

static void free_bi_case(bi_case *c)
{
    free(c->W);
    free(c->U);
    free(c->k);
    free(c->v);
}

/* y [B][T][C], to be freed. */
static float *bi_wkv(const bi_case *c, const cv_kernels *kernel, cv_bi_mode mode, size_t n_members)
{
    const size_t n = c->B * c->T * c->C;
    float *k = copy_of(c->k, n), *v = copy_of(c->v, n);
    job j = { .take = bi_take,
              .work = bi_work,
              .C = c->C,
              .kernel = kernel,
              .mode = mode,
              .W = c->W,
              .U = c->U,
              .k = k,
              .v = v };
    for (size_t b = 0; b < c->B; b++)
        add_grid(&j, 1, c->T, false);
    run_job(&j, n_members);
    free(k);
    return v;
}

/* On every level; the same bits with every team. */
static double bi_off(const bi_case *c, cv_bi_mode mode, const float *want)
{
    const char *levels[5];
    const size_t n_levels = vision_levels(levels, true), n = c->B * c->T * c->C;
    double most = 0.0;
    for (size_t i = 0; i < n_levels; i++) {
        float *one = bi_wkv(c, kernels_of(levels[i]), mode, 1);
        raise_to(&most, vision_off(one, want, n));
        for (size_t members = 2; members <= MOST_MEMBERS; members++) {
            float *y = bi_wkv(c, kernels_of(levels[i]), mode, members);
            model_same_bits(c->name, y, one, n * sizeof *y);
            free(y);
        }
        free(one);
    }
    return most;
}

/* One channel after the other in double. */
static double exact_off(const bi_case *c, const float *want)
{
    const size_t n = c->B * c->T * c->C;
    const double T = (double)c->T;
    float *y = copy_of(c->v, n);
    cv_wsum *sums = malloc(c->T * sizeof *sums);
    assert_non_null(sums);
    for (size_t b = 0; b < c->B; b++)
        for (size_t i = 0; i < c->C; i++) {
            const size_t at = b * c->T * c->C + i;
            cv_bi_wkv_exact(CV_BI_FORMULA, c->T, c->C, (double)c->W[i] / T, (double)c->U[i] / T,
                            c->k + at, y + at, sums);
        }
    const double off = vision_off(y, want, n);
    free(sums);
    free(y);
    return off;
}

static void check_bi_mode(const cv_checkpoint *ckpt, const bi_case *c, cv_bi_mode mode,
                          const char *what)
{
    if (!find(ckpt, c->name, what)) return;
    float *want = need(ckpt, c->name, what, c->B * c->T * c->C);
    report(c->name, what, bi_off(c, mode, want), GPU_TOLERANCE);
    free(want);
}

static void test_bi_wkv(void **state)
{
    (void)state;
    static const char *const cases[] = { "t1",  "t2",   "t16",       "t16_wpos",    "t16_wneg",
                                         "t33", "t196", "t196_bigw", "t96_extreme", "t1024" };
    NEED_DATA(path, "vrwkv-golden/ops/biwkv.safetensors");
    cv_checkpoint ckpt;
    open_vectors(path, &ckpt);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bi_case c = read_bi_case(&ckpt, cases[i]);
        float *want = need(&ckpt, c.name, "y", c.B * c.T * c.C);
        report(c.name, "formula", bi_off(&c, CV_BI_FORMULA, want), BI_TOLERANCE);
        report(c.name, "formula, the exact way", exact_off(&c, want), EXACT_TOLERANCE);
        free(want);
        check_bi_mode(&ckpt, &c, CV_BI_CUDA32, "y_cuda32");
        check_bi_mode(&ckpt, &c, CV_BI_CUDA32, "y_split32_noeps");
        check_bi_mode(&ckpt, &c, CV_BI_CUDA16, "y_split16_noeps");
        free_bi_case(&c);
    }
    cv_checkpoint_close(&ckpt);
}

/* ---- Bi-WKV as it is written: a sum over all pairs, for pictures of several segments --------- */

/* y of one channel, T^2 terms. */
static void sum_all_pairs(size_t T, size_t ld, double w, double u, const float *k, const float *v,
                          float *y)
{
    double top = -HUGE_VAL;
    for (size_t i = 0; i < T; i++)
        top = fmax(top, (double)k[i * ld]);
    for (size_t t = 0; t < T; t++) {
        double N = 0.0, D = 0.0;
        for (size_t i = 0; i < T; i++) {
            const double d = fabs((double)t - (double)i) - 1.0;
            const double e = exp((i == t ? u : -d * w) + (double)k[i * ld] - top);
            N += e * (double)v[i * ld];
            D += e;
        }
        y[t * ld] = (float)(N / D);
    }
}

/* Decays of either sign up to where the fast way ends, and some beyond it; 19 channels are a whole
 * panel and part of one. */
static bi_case long_case(size_t T)
{
    bi_case c = { .name = "pairs", .B = 1, .T = T, .C = 19 };
    c.W = malloc(c.C * sizeof *c.W);
    c.U = malloc(c.C * sizeof *c.U);
    c.k = malloc(T * c.C * sizeof *c.k);
    c.v = malloc(T * c.C * sizeof *c.v);
    assert_true(c.W && c.U && c.k && c.v);
    vision_generate("pairs.W", 0.0, 59.0, 0, c.C, c.W);
    vision_generate("pairs.U", 0.0, 10.0, 0, c.C, c.U);
    vision_generate("pairs.k", 0.0, 4.0, 0, T * c.C, c.k);
    vision_generate("pairs.v", 0.0, 1.0, 0, T * c.C, c.v);
    c.W[0] = 59.0f;
    c.W[1] = -59.0f;
    c.W[17] = 200.0f; /* the last panel goes the exact way */
    c.W[18] = -200.0f;
    return c;
}

static void test_all_pairs(void **state)
{
    (void)state;
    static const size_t lengths[] = { 31, 513, 1300 }; /* one, two and three segments */
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char title[32];
        bi_case c = long_case(lengths[i]);
        const double T = (double)c.T;
        float *want = malloc(c.T * c.C * sizeof *want);
        assert_non_null(want);
        for (size_t ch = 0; ch < c.C; ch++)
            sum_all_pairs(c.T, c.C, (double)c.W[ch] / T, (double)c.U[ch] / T, c.k + ch, c.v + ch,
                          want + ch);
        snprintf(title, sizeof title, "all pairs of %zu", lengths[i]);
        report(title, "formula", bi_off(&c, CV_BI_FORMULA, want), BI_TOLERANCE);
        report(title, "formula, the exact way", exact_off(&c, want), EXACT_TOLERANCE);
        free(want);
        free_bi_case(&c);
    }
}

/* Four pictures of different sizes in one run, each with its own number of tokens: every one as it
 * is alone. */
static void test_pictures_side_by_side(void **state)
{
    (void)state;
    static const size_t lengths[MOST_GRIDS] = { 700, 3, 513, 1 };
    const char *levels[5];
    const size_t n_levels = vision_levels(levels, true);
    bi_case all = long_case(700 + 3 + 513 + 1);
    for (size_t i = 0; i < n_levels; i++) {
        const cv_kernels *kernel = kernels_of(levels[i]);
        float *k = copy_of(all.k, all.T * all.C), *v = copy_of(all.v, all.T * all.C);
        job j = { .take = bi_take,
                  .work = bi_work,
                  .C = all.C,
                  .kernel = kernel,
                  .W = all.W,
                  .U = all.U,
                  .k = k,
                  .v = v };
        for (size_t g = 0; g < MOST_GRIDS; g++)
            add_grid(&j, lengths[g], 1, false);
        run_job(&j, 3);
        for (size_t g = 0; g < MOST_GRIDS; g++) {
            const size_t at = j.grids[g].begin * all.C;
            const bi_case one = { "alone", 1,     lengths[g], all.C,
                                  all.W,   all.U, all.k + at, all.v + at };
            float *y = bi_wkv(&one, kernel, CV_BI_FORMULA, 1);
            model_same_bits("side by side", v + at, y, lengths[g] * all.C * sizeof *y);
            free(y);
        }
        free(k);
        free(v);
    }
    free_bi_case(&all);
}

/* ---- The recurrence of version 6 from both ends ---------------------------------------------- */

static void v6_take(cv_run *run, const job *j, void *buffers)
{
    ((cv_bi_buffers *)buffers)->sums = cv_take_scratch(run, j->N * j->N);
}

static void v6_work(const cv_run *run, const job *j, const void *buffers)
{
    cv_wkv6_both_ways(run, j->H, j->N, j->r, j->w, j->k, j->v, j->u, j->y, j->back,
                      ((const cv_bi_buffers *)buffers)->sums);
}

static double v6_off(const cv_checkpoint *ckpt, const char *name, const cv_kernels *kernel,
                     size_t n_members)
{
    const cv_tensor *t = find(ckpt, name, "r"), *bonus = find(ckpt, name, "u");
    assert_true(t && bonus);
    const size_t B = t->dims[0], T = t->dims[1], A = t->dims[2], n = t->count;
    float *r = need(ckpt, name, "r", n), *w = need(ckpt, name, "w", n);
    float *k = need(ckpt, name, "k", n), *v = need(ckpt, name, "v", n);
    float *u = need(ckpt, name, "u", A), *want = need(ckpt, name, "y", n);
    float *y = malloc(n * sizeof *y), *back = malloc(n * sizeof *back);
    assert_true(y && back);
    kernel->decay6(n, w, w);
    job j = { .take = v6_take,
              .work = v6_work,
              .C = A,
              .kernel = kernel,
              .H = bonus->dims[0],
              .N = bonus->dims[1],
              .r = r,
              .w = w,
              .u = u,
              .k = k,
              .v = v,
              .y = y,
              .back = back };
    for (size_t b = 0; b < B; b++)
        add_grid(&j, 1, T, false);
    run_job(&j, n_members);
    for (size_t i = 0; i < n; i++)
        y[i] += back[i];
    const double off = vision_off(y, want, n);
    float *const all[] = { r, w, k, v, u, want, y, back };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    return off;
}

static void test_wkv6_both_ways(void **state)
{
    (void)state;
    static const char *const cases[] = { "t1", "t5", "t24" };
    const char *levels[5];
    const size_t n_levels = vision_levels(levels, true);
    NEED_DATA(path, "vrwkv-golden/ops/biwkv6.safetensors");
    cv_checkpoint ckpt;
    open_vectors(path, &ckpt);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double most = 0.0;
        for (size_t level = 0; level < n_levels; level++)
            for (size_t members = 1; members <= MOST_MEMBERS; members++)
                raise_to(&most, v6_off(&ckpt, cases[i], kernels_of(levels[level]), members));
        report(cases[i], "from both ends", most, V6_TOLERANCE);
    }
    cv_checkpoint_close(&ckpt);
}

/* ---- The shift ------------------------------------------------------------------------------- */

static void shift_work(const cv_run *run, const job *j, const void *buffers)
{
    (void)buffers;
    for (cv_tile t = cv_tile_begin(run); cv_tile_next(&t);)
        cv_q_shift_rows(&t, j->C, &j->shift, j->v, j->y + t.first * j->C);
}

typedef struct shift_case {
    const char *name;
    size_t head; /* 0: the shift of VRWKV */
    double share;
    size_t distance;
    bool class_token;
} shift_case;

static void check_shift(const cv_checkpoint *ckpt, const shift_case *c, size_t n_members)
{
    int32_t grid[2];
    const cv_tensor *t = find(ckpt, c->name, "x");
    if (!t) fail_msg("%s: not in %s", c->name, ckpt->in.path);
    const size_t n = t->count, C = t->dims[2];
    float *x = need(ckpt, c->name, "x", n), *want = need(ckpt, c->name, "y", n);
    float *y = malloc(n * sizeof *y);
    assert_non_null(y);
    memset(y, 0xFF, n * sizeof *y); /* what is not written is no number */
    need_ints(ckpt, c->name, "res", grid, 2);
    job j = { .work = shift_work, .C = C, .kernel = kernels_of("ref"), .v = x, .y = y };
    j.shift = c->head ? cv_q_shift_heads(c->head, c->distance)
                      : cv_q_shift_whole(C, c->share, c->distance);
    for (size_t b = 0; b < t->dims[0]; b++)
        add_grid(&j, (size_t)grid[0], (size_t)grid[1], c->class_token);
    assert_int_equal(rows_of(&j) * C, n);
    run_job(&j, n_members);
    for (size_t i = 0; i < n; i++)
        if (!(y[i] == want[i]))
            fail_msg("%s: row %zu, channel %zu is %g, expected %g", c->name, i / C, i % C,
                     (double)y[i], (double)want[i]);
    free(x);
    free(want);
    free(y);
}

static void test_q_shift(void **state)
{
    (void)state;
    static const shift_case cases[] = {
        { "v4_3x4_c8", 0, 0.25, 1, false },      { "v4_1x5_c8", 0, 0.25, 1, false },
        { "v4_5x1_c8", 0, 0.25, 1, false },      { "v4_4x4_c10", 0, 0.25, 1, false },
        { "v4_4x5_px2_c8", 0, 0.25, 2, false },  { "v4_4x4_g8_c20", 0, 0.125, 1, false },
        { "v6_3x4_h2_d8", 8, 0.25, 1, false },   { "v6_3x4_h2_d8_cls", 8, 0.25, 1, true },
        { "v6_2x3_h2_d64", 64, 0.25, 1, false },
    };
    NEED_DATA(path, "vrwkv-golden/ops/qshift.safetensors");
    cv_checkpoint ckpt;
    open_vectors(path, &ckpt);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t members = 1; members <= MOST_MEMBERS; members++)
            check_shift(&ckpt, &cases[i], members);
    print_message("%zu shifts, no number differs\n", sizeof cases / sizeof *cases);
    print_message("mae_single, mae_double: shifts of the pre-training code, not of these models\n");
    cv_checkpoint_close(&ckpt);
}

/* A side shorter than the distance: there is no such neighbour. */
static void test_far_shift(void **state)
{
    (void)state;
    enum { C = 8, H = 2, W = 3 };
    float x[H * W * C], y[H * W * C];
    for (size_t i = 0; i < H * W * C; i++)
        x[i] = (float)(i + 1);
    for (size_t distance = 2; distance <= 9; distance++) {
        job j = { .work = shift_work, .C = C, .kernel = kernels_of("ref"), .v = x, .y = y };
        j.shift = cv_q_shift_whole(C, 0.25, distance);
        add_grid(&j, H, W, false);
        run_job(&j, 2);
        for (size_t t = 0; t < H * W; t++)
            for (size_t c = 0; c < C; c++) {
                float want = 0.0f; /* two columns away there is a neighbour, two rows away none */
                if (distance == 2 && c < 2 && t % W == 2) want = x[(t - 2) * C + c];
                if (distance == 2 && (c == 2 || c == 3) && t % W == 0) want = x[(t + 2) * C + c];
                assert_true(y[t * C + c] == want);
            }
    }
}

/* ---- Positions ------------------------------------------------------------------------------- */

static void test_positions(void **state)
{
    (void)state;
    static const char *const cases[] = { "4x4_to_5x8",     "4x4_to_4x6",     "4x4_to_2x3",
                                         "14x14_to_24x24", "14x14_to_10x20", "12x12_to_24x24",
                                         "14x14_to_7x7",   "4x4_to_1x1" };
    NEED_DATA(path, "vrwkv-golden/ops/posembed.safetensors");
    cv_checkpoint ckpt;
    open_vectors(path, &ckpt);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t size[4];
        need_ints(&ckpt, cases[i], "src_dst", size, 4);
        const size_t side = (size_t)size[0], h = (size_t)size[2], w = (size_t)size[3];
        const size_t C = find(&ckpt, cases[i], "pos")->dims[2];
        assert_int_equal(size[0], size[1]);
        float *pos = need(&ckpt, cases[i], "pos", side * side * C);
        float *want = need(&ckpt, cases[i], "out", h * w * C);
        float *out = calloc(h * w * C, sizeof *out);
        assert_non_null(out);
        for (size_t t = 0; t < h * w; t++)
            cv_position_add(pos, side, C, h, w, t / w, t % w, out + t * C);
        report(cases[i], "positions", vision_off(out, want, h * w * C), POS_TOLERANCE);
        free(pos);
        free(want);
        free(out);
    }
    cv_checkpoint_close(&ckpt);
}

/* On the grid that they were made for they are added as they are. */
static void test_positions_at_home(void **state)
{
    (void)state;
    enum { SIDE = 5, C = 3 };
    float pos[SIDE * SIDE * C];
    vision_generate("pos", 0.0, 1.0, 0, SIDE * SIDE * C, pos);
    for (size_t t = 0; t < SIDE * SIDE; t++) {
        float y[C] = { 1.0f, 2.0f, 4.0f };
        cv_position_add(pos, SIDE, C, SIDE, SIDE, t / SIDE, t % SIDE, y);
        for (size_t c = 0; c < C; c++)
            assert_true(y[c] == (float)(1 << c) + pos[t * C + c]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bi_wkv),
        cmocka_unit_test(test_all_pairs),
        cmocka_unit_test(test_pictures_side_by_side),
        cmocka_unit_test(test_wkv6_both_ways),
        cmocka_unit_test(test_q_shift),
        cmocka_unit_test(test_far_shift),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_positions_at_home),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
