/* test_bi_wkv_gradients.c - Bi-WKV walked back, on every level of kernels and with teams of one to
 * three, and the exact way by itself, against gradients of the official formula in double.
 * [bi.wkv] [bi.linear] [bi.wsum] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_files.h"
#include "models/vision.h"
#include "ops/bi_wkv_exact.h"
#include "ops/tape.h"
#include "support.h"
#include "vision_files.h"

/* Of the largest number of a tensor.  The fast way was off by 2e-6 at most, the exact way never by
 * more than the roundings of its results. */
#define TOLERANCE       1e-5
#define EXACT_TOLERANCE 2e-7

enum { MOST_GRIDS = 4, MOST_MEMBERS = 3, RECORDS = 1024 };

/* One case of the file: inputs, and gradients of the sum of y gy. */
typedef struct bi_case {
    const char *name;
    size_t B, T, C, n; /* n = B T C */
    float *W, *U, *k, *v, *gy;
    float *gW, *gU, *gk, *gv;
} bi_case;

/* What was found. */
typedef struct found {
    float *y, *gW, *gU, *gk, *gv;
} found;

/* ---- A team that goes there and back --------------------------------------------------------- */

typedef struct job {
    const bi_case *c;
    const cv_kernels *kernel;
    cv_bi_mode mode;
    bool taped;
    cv_grid grids[MOST_GRIDS];
    size_t padded; /* from W to U */
    float *values, *gradients, *weights, *weight_gradients;
    size_t n_values;
    float *own[MOST_MEMBERS], *back[MOST_MEMBERS];
    unsigned char *records[MOST_MEMBERS];
    found *found;
} job;

typedef struct buffers {
    float *k, *v;
    cv_bi_buffers bi;
} buffers;

static void take(cv_run *run, size_t C, buffers *b)
{
    b->k = cv_take_common(run, C);
    cv_take_memory(run, run->T * C);
    b->v = cv_take_common(run, C);
    cv_take_memory(run, run->T * C);
    cv_bi_wkv_take(run, C, &b->bi);
}

static void keep(const job *j, const cv_run *run, const buffers *b)
{
    const size_t C = j->c->C, bytes = j->c->n * sizeof(float);
    memcpy(j->found->gk, cv_gradient(run, b->k), bytes);
    memcpy(j->found->gv, cv_gradient(run, b->v), bytes);
    memcpy(j->found->gW, j->weight_gradients, C * sizeof(float));
    memcpy(j->found->gU, j->weight_gradients + j->padded, C * sizeof(float));
}

static void walk(const cv_member *me, void *arg)
{
    const job *j = arg;
    const bi_case *c = j->c;
    buffers b;
    cv_tape tape = { .values = j->values,
                     .gradients = j->gradients,
                     .n_values = j->n_values,
                     .weights = j->weights,
                     .weight_gradients = j->weight_gradients,
                     .n_weights = 2 * j->padded,
                     .own = j->back[me->id],
                     .records = j->records[me->id],
                     .size = RECORDS };
    cv_run run = { .kernel = j->kernel, .me = me, .tape = j->taped ? &tape : NULL };
    cv_run_grids(&run, j->grids, c->B);
    run.common.base = j->values;
    run.own.base = j->own[me->id];
    take(&run, c->C, &b);
    if (me->id == 0) {
        memcpy(b.k, c->k, c->n * sizeof *b.k);
        memcpy(b.v, c->v, c->n * sizeof *b.v);
    }
    cv_meet(&run);
    cv_bi_wkv(&run, j->mode, c->C, j->weights, j->weights + j->padded, b.k, b.v, &b.bi);
    cv_meet(&run);
    if (me->id == 0) memcpy(j->found->y, b.v, c->n * sizeof *b.v);
    if (!j->taped) return;
    if (me->id == 0) memcpy(cv_gradient(&run, b.v), c->gy, c->n * sizeof *b.v);
    cv_meet(&run);
    cv_walk_back(&run);
    assert_false(tape.full);
    if (me->id == 0) keep(j, &run, &b);
}

static float *zeros(size_t n)
{
    float *x = calloc(n + 1, sizeof *x);
    assert_non_null(x);
    return x;
}

static void make_room(job *j, size_t n_members)
{
    const bi_case *c = j->c;
    const cv_member one = { .team = NULL, .id = 0, .n = n_members };
    buffers b;
    cv_tape tape = { .records = NULL };
    cv_run run = { .me = &one, .tape = j->taped ? &tape : NULL };
    for (size_t i = 0; i < c->B; i++)
        j->grids[i] = (cv_grid){ .begin = i * c->T, .n = c->T, .h = 1, .w = c->T };
    cv_run_grids(&run, j->grids, c->B);
    take(&run, c->C, &b);
    j->n_values = run.common.peak;
    j->values = zeros(j->n_values);
    j->gradients = zeros(j->n_values);
    j->padded = cv_padded(c->C);
    j->weights = zeros(2 * j->padded);
    j->weight_gradients = zeros(2 * j->padded);
    memcpy(j->weights, c->W, c->C * sizeof *c->W);
    memcpy(j->weights + j->padded, c->U, c->C * sizeof *c->U);
    for (size_t m = 0; m < n_members; m++) {
        j->own[m] = zeros(run.own.peak);
        j->back[m] = zeros(cv_bi_wkv_own_scratch(c->T));
        j->records[m] = calloc(RECORDS, 1);
        assert_non_null(j->records[m]);
    }
}

static found new_found(const bi_case *c)
{
    return (found){ zeros(c->n), zeros(c->C), zeros(c->C), zeros(c->n), zeros(c->n) };
}

static void free_found(found *f)
{
    float *const all[] = { f->y, f->gW, f->gU, f->gk, f->gv };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static found there_and_back(const bi_case *c, const cv_kernels *kernel, cv_bi_mode mode, bool taped,
                            size_t n_members)
{
    corvid_error err;
    cv_team *team;
    found f = new_found(c);
    job j = { .c = c, .kernel = kernel, .mode = mode, .taped = taped, .found = &f };
    assert_true(c->B <= MOST_GRIDS);
    make_room(&j, n_members);
    ASSERT_OK(cv_team_new(&cv_libc_allocator, n_members, &team, &err), &err);
    cv_team_run(team, walk, &j);
    cv_team_free(team);
    float *const all[] = { j.values, j.gradients, j.weights, j.weight_gradients };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    for (size_t m = 0; m < n_members; m++) {
        free(j.own[m]);
        free(j.back[m]);
        free(j.records[m]);
    }
    return f;
}

/* One channel after the other in double. */
static found exactly(const bi_case *c)
{
    found f = new_found(c);
    cv_wsum *sums = malloc(CV_BI_EXACT_SUMS * c->T * sizeof *sums);
    assert_non_null(sums);
    memcpy(f.gv, c->gy, c->n * sizeof *f.gv);
    for (size_t b = 0; b < c->B; b++)
        for (size_t i = 0; i < c->C; i++) {
            const size_t at = b * c->T * c->C + i;
            const double T = (double)c->T;
            cv_bi_exact_back x = { .T = c->T, .ld = c->C, .k = c->k + at, .v = c->v + at };
            x.w = (double)c->W[i] / T;
            x.u = (double)c->U[i] / T;
            x.dk = f.gk + at;
            x.dv = f.gv + at;
            x.sums = sums;
            cv_bi_wkv_exact_back(&x);
            f.gW[i] += (float)(x.dw / T);
            f.gU[i] += (float)(x.du / T);
        }
    free(sums);
    return f;
}

/* ---- The cases of the file ------------------------------------------------------------------- */

static float *need(const cv_checkpoint *ckpt, const char *name, const char *what, size_t n)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", name, what);
    return vision_need(ckpt, key, n);
}

static bi_case read_case(const cv_checkpoint *ckpt, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "%s.k", name);
    const cv_tensor *k = cv_checkpoint_find(ckpt, key);
    if (!k) fail_msg("%s: not in %s", name, ckpt->in.path);
    bi_case c = { .name = name, .B = k->dims[0], .T = k->dims[1], .C = k->dims[2], .n = k->count };
    c.W = need(ckpt, name, "W", c.C);
    c.U = need(ckpt, name, "U", c.C);
    c.k = need(ckpt, name, "k", c.n);
    c.v = need(ckpt, name, "v", c.n);
    c.gy = need(ckpt, name, "gy", c.n);
    c.gW = need(ckpt, name, "gW", c.C);
    c.gU = need(ckpt, name, "gU", c.C);
    c.gk = need(ckpt, name, "gk", c.n);
    c.gv = need(ckpt, name, "gv", c.n);
    return c;
}

static void free_case(bi_case *c)
{
    float *const all[] = { c->W, c->U, c->k, c->v, c->gy, c->gW, c->gU, c->gk, c->gv };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* Of the largest; where all is 0 (one token is its own mean), of the largest gradient going in. */
static double off_of(const float *got, const float *want, size_t n, const bi_case *c)
{
    double largest = 0.0, most = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double off = fabs((double)got[i] - (double)want[i]);
        if (!(off <= most)) most = off;
        if (fabs((double)want[i]) > largest) largest = fabs((double)want[i]);
    }
    for (size_t i = 0; largest == 0.0 && i < c->n; i++)
        if (fabs((double)c->gy[i]) > largest) largest = fabs((double)c->gy[i]);
    return most / largest;
}

enum { GRADIENTS = 4 };
static const char *const NAMES[GRADIENTS] = { "gW", "gU", "gk", "gv" };

static void raise_offs(const bi_case *c, const found *f, double offs[GRADIENTS])
{
    const float *const got[] = { f->gW, f->gU, f->gk, f->gv };
    const float *const want[] = { c->gW, c->gU, c->gk, c->gv };
    const size_t n[] = { c->C, c->C, c->n, c->n };
    for (size_t i = 0; i < GRADIENTS; i++) {
        const double off = off_of(got[i], want[i], n[i], c);
        if (!(off <= offs[i])) offs[i] = off;
    }
}

static void report(const char *name, const char *how, const double offs[GRADIENTS],
                   double tolerance)
{
    for (size_t i = 0; i < GRADIENTS; i++) {
        char title[96];
        snprintf(title, sizeof title, "%s %s%s", name, NAMES[i], how);
        model_report(title, offs[i], tolerance);
    }
}

static void same_gradients(const bi_case *c, const found *a, const found *b)
{
    model_same_bits(c->name, a->gW, b->gW, c->C * sizeof *a->gW);
    model_same_bits(c->name, a->gU, b->gU, c->C * sizeof *a->gU);
    model_same_bits(c->name, a->gk, b->gk, c->n * sizeof *a->gk);
    model_same_bits(c->name, a->gv, b->gv, c->n * sizeof *a->gv);
}

static const cv_kernels *kernels_of(const char *level)
{
    cv_cpu_level l = CV_CPU_REF;
    cv_cpu_level_parse(level, &l);
    return cv_kernels_for(l);
}

/* The same bits with every team; y as it is without a tape; the gradient of the formula also where
 * forward is what the GPU kernels make of it. */
static void check_level(const bi_case *c, const cv_kernels *kernel, double offs[GRADIENTS])
{
    found one = there_and_back(c, kernel, CV_BI_FORMULA, true, 1);
    raise_offs(c, &one, offs);
    for (size_t members = 2; members <= MOST_MEMBERS; members++) {
        found f = there_and_back(c, kernel, CV_BI_FORMULA, true, members);
        same_gradients(c, &f, &one);
        model_same_bits(c->name, f.y, one.y, c->n * sizeof *f.y);
        free_found(&f);
    }
    found untaped = there_and_back(c, kernel, CV_BI_FORMULA, false, 2);
    model_same_bits(c->name, untaped.y, one.y, c->n * sizeof *one.y);
    found gpu = there_and_back(c, kernel, CV_BI_CUDA32, true, 2);
    same_gradients(c, &gpu, &one);
    free_found(&untaped);
    free_found(&gpu);
    free_found(&one);
}

static void test_gradients(void **state)
{
    (void)state;
    static const char *const cases[] = { "t1",  "t2",   "t16",       "t16_wpos",    "t16_wneg",
                                         "t33", "t196", "t196_bigw", "t96_extreme", "t1024" };
    const char *levels[5];
    const size_t n_levels = vision_levels(levels, true);
    NEED_DATA(path, "vrwkv-golden/ops/biwkv.safetensors");
    corvid_error err;
    cv_checkpoint ckpt;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bi_case c = read_case(&ckpt, cases[i]);
        double offs[GRADIENTS] = { 0.0 }, exact_offs[GRADIENTS] = { 0.0 };
        for (size_t l = 0; l < n_levels; l++)
            check_level(&c, kernels_of(levels[l]), offs);
        report(c.name, "", offs, TOLERANCE);
        found f = exactly(&c);
        raise_offs(&c, &f, exact_offs);
        report(c.name, ", the exact way", exact_offs, EXACT_TOLERANCE);
        free_found(&f);
        free_case(&c);
    }
    cv_checkpoint_close(&ckpt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
