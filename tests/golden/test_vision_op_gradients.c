/* test_vision_op_gradients.c - the gradients of the operators of the vision models in f32, against
 * those of the official code in double: the recurrence of version 6 from both ends on every level
 * of kernels and with teams of one to three, and the table of positions.
 * [v6.bi] [vrwkv.position] [train.gradient] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_files.h"
#include "models/vision.h"
#include "ops/heads.h"
#include "support.h"
#include "vision_files.h"

/* Of the largest number of a tensor, as the reference's README suggests; 4e-7 was seen. */
#define TOLERANCE 5e-5

enum { MOST_MEMBERS = 3, MOST_PICTURES = 2, RECORDS = 1024, GUARD = 64 };

static float *need(const cv_checkpoint *ckpt, const char *name, const char *what, size_t n)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", name, what);
    return vision_need(ckpt, key, n);
}

static const cv_tensor *find(const cv_checkpoint *ckpt, const char *name, const char *what)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", name, what);
    const cv_tensor *t = cv_checkpoint_find(ckpt, key);
    if (!t) fail_msg("%s: not in %s", key, ckpt->in.path);
    return t;
}

static void open_vectors(const char *path, cv_checkpoint *ckpt)
{
    corvid_error err;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, ckpt, &err), &err);
}

static float *zeros(size_t n)
{
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    return x;
}

static void raise_to(double *most, double off)
{
    if (!(off <= *most)) *most = off;
}

/* ---- The recurrence of version 6 from both ends ---------------------------------------------- */

/* Values in one block, each [T][A]; their gradients lie as they do. */
enum { R, W, K, V, INPUTS, Y = INPUTS, BACK, ARRAYS };

typedef struct both_case {
    const char *name;
    size_t H, N, n; /* n numbers in each array */
    cv_grid grids[MOST_PICTURES];
    size_t n_grids;
    const cv_kernels *kernel;
    float *raw, *u, *dy; /* [n] raw decay, [H N] */
    float *x;            /* [ARRAYS][n] */

    /* What was found: */
    float *dx, *du; /* [ARRAYS][n], [H N] */
    size_t n_own;
    float *own[MOST_MEMBERS], *state[MOST_MEMBERS];
    bool full[MOST_MEMBERS];
} both_case;

static both_case read_case(const cv_checkpoint *ckpt, const char *name)
{
    static const char *const inputs[INPUTS] = { "r", "w", "k", "v" };
    const cv_tensor *r = find(ckpt, name, "r"), *u = find(ckpt, name, "u");
    both_case c = { .name = name, .H = u->dims[0], .N = u->dims[1], .n = r->count };
    c.n_grids = r->dims[0];
    assert_true(c.n_grids <= MOST_PICTURES && r->dims[2] == c.H * c.N);
    for (size_t i = 0; i < c.n_grids; i++)
        c.grids[i] = (cv_grid){ i * r->dims[1], r->dims[1], 1, r->dims[1] };
    c.x = zeros(ARRAYS * c.n);
    for (size_t i = 0; i < INPUTS; i++) {
        float *x = need(ckpt, name, inputs[i], c.n);
        memcpy(c.x + i * c.n, x, c.n * sizeof *x);
        free(x);
    }
    c.raw = need(ckpt, name, "w", c.n);
    c.u = need(ckpt, name, "u", c.H * c.N);
    c.dy = need(ckpt, name, "gy", c.n);
    c.n_own = cv_wkv6_both_ways_own_scratch(r->dims[1], c.N);
    return c;
}

static void free_case(both_case *c)
{
    free(c->raw);
    free(c->u);
    free(c->dy);
    free(c->x);
}

static void walk_both_ways(const cv_run *run, both_case *c)
{
    float *x = c->x;
    const size_t n = c->n;
    cv_wkv6_both_ways(run, c->H, c->N, x + R * n, x + W * n, x + K * n, x + V * n, c->u, x + Y * n,
                      x + BACK * n, c->state[run->me->id]);
    cv_meet(run);
}

static void look(const cv_member *me, void *arg)
{
    both_case *c = arg;
    cv_run run = { .kernel = c->kernel, .me = me };
    cv_run_grids(&run, c->grids, c->n_grids);
    walk_both_ways(&run, c);
}

static void learn(const cv_member *me, void *arg)
{
    both_case *c = arg;
    static _Alignas(16) unsigned char records[MOST_MEMBERS][RECORDS];
    cv_tape tape = { .values = c->x,
                     .gradients = c->dx,
                     .n_values = ARRAYS * c->n,
                     .weights = c->u,
                     .weight_gradients = c->du,
                     .n_weights = c->H * c->N,
                     .own = c->own[me->id],
                     .records = records[me->id],
                     .size = RECORDS };
    cv_run run = { .kernel = c->kernel, .me = me, .tape = &tape };
    cv_run_grids(&run, c->grids, c->n_grids);
    walk_both_ways(&run, c);
    cv_walk_back(&run);
    c->full[me->id] = tape.full;
}

/* Forward without a tape, then with one and back; what comes forward is the same.  The decay in x
 * is what this level makes of the raw one. */
static void run_both_ways(both_case *c, size_t n_members)
{
    corvid_error err;
    cv_team *team;
    const size_t n = c->n;
    float *plain = zeros(2 * n);
    c->kernel->decay6(n, c->raw, c->x + W * n);
    c->dx = zeros(ARRAYS * n);
    c->du = zeros(c->H * c->N);
    memcpy(c->dx + Y * n, c->dy, n * sizeof *c->dy);
    memcpy(c->dx + BACK * n, c->dy, n * sizeof *c->dy);
    for (size_t i = 0; i < n_members; i++) {
        c->own[i] = zeros(c->n_own + GUARD);
        c->state[i] = zeros(c->N * c->N);
        memset(c->own[i], 0xFF, (c->n_own + GUARD) * sizeof(float)); /* no numbers */
    }
    ASSERT_OK(cv_team_new(&cv_libc_allocator, n_members, &team, &err), &err);
    cv_team_run(team, look, c);
    memcpy(plain, c->x + Y * n, 2 * n * sizeof *plain);
    cv_team_run(team, learn, c);
    cv_team_free(team);
    model_same_bits("with a tape", c->x + Y * n, plain, 2 * n * sizeof *plain);
    for (size_t i = 0; i < n_members; i++) {
        assert_false(c->full[i]);
        for (size_t g = 0; g < GUARD; g++)
            if (!isnan(c->own[i][c->n_own + g])) fail_msg("%s: scratch is too small", c->name);
        free(c->own[i]);
        free(c->state[i]);
    }
    free(plain);
}

/* From the gradient of the decay to that of what it was made from: w = exp(-exp(raw)). */
static void to_raw_decay(both_case *c)
{
    for (size_t i = 0; i < c->n; i++) {
        const double e = exp((double)c->raw[i]);
        c->dx[W * c->n + i] *= (float)(-e * exp(-e));
    }
}

static double both_ways_off(const cv_checkpoint *ckpt, both_case *c)
{
    static const char *const names[INPUTS] = { "gr", "gw", "gk", "gv" };
    double most = 0.0;
    to_raw_decay(c);
    for (size_t i = 0; i < INPUTS; i++) {
        float *want = need(ckpt, c->name, names[i], c->n);
        raise_to(&most, vision_off(c->dx + i * c->n, want, c->n));
        free(want);
    }
    float *want = need(ckpt, c->name, "gu", c->H * c->N);
    raise_to(&most, vision_off(c->du, want, c->H * c->N));
    free(want);
    return most;
}

/* One level: every team finds the same bits. */
static double level_off(const cv_checkpoint *ckpt, both_case *c)
{
    double most = 0.0;
    run_both_ways(c, 1);
    float *dx = c->dx, *du = c->du;
    for (size_t members = 2; members <= MOST_MEMBERS; members++) {
        run_both_ways(c, members);
        model_same_bits(c->name, c->dx, dx, ARRAYS * c->n * sizeof *dx);
        model_same_bits(c->name, c->du, du, c->H * c->N * sizeof *du);
        free(c->dx);
        free(c->du);
    }
    c->dx = dx;
    c->du = du;
    raise_to(&most, both_ways_off(ckpt, c));
    free(dx);
    free(du);
    return most;
}

static void test_both_ways(void **state)
{
    (void)state;
    static const char *const cases[] = { "t1", "t5", "t24" };
    const char *levels[5];
    const size_t n_levels = vision_levels(levels, true);
    NEED_DATA(path, "vrwkv-golden/ops/biwkv6.safetensors");
    cv_checkpoint ckpt;
    open_vectors(path, &ckpt);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t l = 0; l < n_levels; l++) {
            char title[64];
            cv_cpu_level level = CV_CPU_REF;
            both_case c = read_case(&ckpt, cases[i]);
            cv_cpu_level_parse(levels[l], &level);
            c.kernel = cv_kernels_for(level);
            snprintf(title, sizeof title, "%s gradients (%s)", c.name, levels[l]);
            model_report(title, level_off(&ckpt, &c), TOLERANCE);
            free_case(&c);
        }
    cv_checkpoint_close(&ckpt);
}

/* ---- Positions ------------------------------------------------------------------------------- */

/* dpos [side side][C] from all cells of dy [h][w][C], channels cut at `cut`. */
static void positions_back(size_t side, size_t C, size_t h, size_t w, size_t cut, const float *dy,
                           float *dpos)
{
    for (size_t t = 0; t < h * w; t++) {
        cv_position_back(dpos, side, C, h, w, t / w, t % w, 0, cut, dy + t * C);
        cv_position_back(dpos, side, C, h, w, t / w, t % w, cut, C, dy + t * C);
    }
}

static void check_positions(const cv_checkpoint *ckpt, const char *name)
{
    corvid_error err;
    int32_t size[4];
    const cv_tensor *sizes = find(ckpt, name, "src_dst");
    assert_true(sizes->dtype == CV_I32 && sizes->count == 4);
    ASSERT_OK(cv_tensor_read(ckpt, sizes, 0, 4, size, &err), &err);
    assert_int_equal(size[0], size[1]);
    const size_t side = (size_t)size[0], h = (size_t)size[2], w = (size_t)size[3];
    const size_t C = find(ckpt, name, "pos")->dims[2], n = side * side * C;
    float *dy = need(ckpt, name, "gout", h * w * C), *want = need(ckpt, name, "gpos", n);
    float *whole = zeros(n), *parts = zeros(n);
    char title[64];
    positions_back(side, C, h, w, C, dy, whole);
    positions_back(side, C, h, w, 1, dy, parts);
    model_same_bits(name, parts, whole, n * sizeof *whole);
    snprintf(title, sizeof title, "%s positions", name);
    model_report(title, vision_off(whole, want, n), TOLERANCE);
    float *const all[] = { dy, want, whole, parts };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void test_positions(void **state)
{
    (void)state;
    static const char *const cases[] = { "4x4_to_5x8",     "4x4_to_4x6",     "4x4_to_2x3",
                                         "14x14_to_24x24", "14x14_to_10x20", "12x12_to_24x24",
                                         "14x14_to_7x7",   "4x4_to_1x1" };
    NEED_DATA(path, "vrwkv-golden/ops/posembed.safetensors");
    cv_checkpoint ckpt;
    open_vectors(path, &ckpt);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_positions(&ckpt, cases[i]);
    cv_checkpoint_close(&ckpt);
}

/* On the grid that they were made for every place gets what its own token has. */
static void test_positions_at_home(void **state)
{
    (void)state;
    enum { SIDE = 5, C = 3, ALL = SIDE * SIDE * C };
    float dy[ALL], dpos[ALL];
    vision_generate("dy", 0.0, 1.0, 0, ALL, dy);
    for (size_t i = 0; i < ALL; i++)
        dpos[i] = (float)(i % 4);
    positions_back(SIDE, C, SIDE, SIDE, 2, dy, dpos);
    for (size_t i = 0; i < ALL; i++)
        assert_true(dpos[i] == (float)(i % 4) + dy[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_positions_at_home),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
