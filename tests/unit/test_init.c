/* test_init.c - initial values: sizes against published counts, orthogonality in double, each
 * formula against a second transcription.  [train.init] [train.groups] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "support.h"
#include "train/groups.h"
#include "train/init.h"
#include "train/orthogonal.h"
#include "train/shape.h"

/* ---- Shapes ---------------------------------------------------------------------------------- */

static cv_source shape_of(cv_shape_wish wish)
{
    cv_source source;
    corvid_error err;
    ASSERT_OK(cv_shape_for(&wish, &source, &err), &err);
    return source;
}

static corvid_status count_view(void *ctx, const cv_view *view, corvid_error *err)
{
    (void)err;
    *(size_t *)ctx += view->rows * view->cols;
    return CORVID_OK;
}

static size_t parameters(cv_shape_wish wish)
{
    const cv_source source = shape_of(wish);
    size_t n = 0;
    corvid_error err;
    ASSERT_OK(cv_source_each(&source, count_view, &n, &err), &err);
    return n;
}

/* Numbers of parameters that the official modules have. */
static void published_vision_counts(void **state)
{
    (void)state;
    static const struct {
        cv_shape_wish wish;
        size_t parameters;
    } cases[] = {
        { { .arch = "vrwkv", .layers = 12, .width = 192 }, 6155176 },
        { { .arch = "vrwkv", .layers = 12, .width = 384 }, 23820136 },
        { { .arch = "vrwkv", .layers = 12, .width = 768 }, 93645544 },
        { { .arch = "vrwkv", .layers = 24, .width = 1024, .image = 192, .classes = 21841 },
          398926161 },
        { { .arch = "vrwkv", .layers = 24, .width = 1024, .image = 192 }, 334881768 },
        { { .arch = "vrwkv6", .layers = 12, .width = 192 }, 7641256 },
        { { .arch = "vrwkv6", .layers = 12, .width = 384 }, 27677032 },
        { { .arch = "vrwkv6", .layers = 12, .width = 768 }, 104898280 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(parameters(cases[i].wish), cases[i].parameters);
}

/* The README's count for version 7, less layer 0's value residual, which nothing reads. */
static void version_7_counts(void **state)
{
    (void)state;
    static const struct {
        size_t L, C, w, v, g;
    } cases[] = { { 12, 768, 64, 32, 128 }, { 24, 2048, 128, 64, 224 }, { 4, 128, 32, 32, 64 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t L = cases[i].L, C = cases[i].C, V = 65536;
        const size_t w = cases[i].w, v = cases[i].v, g = cases[i].g;
        const size_t layer = 19 * C + 12 * C * C + 2 * C * (2 * w + v + g);
        const cv_shape_wish wish = { .arch = "rwkv7", .layers = L, .width = C, .vocabulary = V };
        assert_int_equal(parameters(wish), 2 * V * C + 4 * C + L * layer - C - 2 * C * v);
    }
}

static void official_sizes(void **state)
{
    (void)state;
    cv_sizes s = shape_of((cv_shape_wish){
                              .arch = "rwkv6", .layers = 32, .width = 4096, .vocabulary = 65536 })
                     .sizes;
    assert_true(s.F == 14336 && s.D == 64 && s.M == 320 && s.E == 128 && s.H == 64 && s.N == 64);
    s = shape_of((cv_shape_wish){ .arch = "rwkv5.2", .layers = 12, .width = 768, .vocabulary = 9 })
            .sizes;
    assert_true(s.F == 2688 && s.A == 768 && s.H == 12 && s.V == 9);
    s = shape_of((cv_shape_wish){ .arch = "rwkv4", .layers = 1, .width = 100, .vocabulary = 2 })
            .sizes;
    assert_true(s.F == 400 && s.H == 100 && s.N == 1 && s.L == 1);
    const cv_source v = shape_of((cv_shape_wish){
        .arch = "vrwkv", .layers = 3, .width = 48, .image = 32, .patch = 8, .classes = 10 });
    assert_true(v.sizes.G == 16 && v.sizes.p == 8 && v.sizes.K == 10 && v.sizes.J == 0);
    assert_true(!v.traits.post_norm && !v.traits.mlp && v.traits.distance == 1);
    const cv_source turned = shape_of((cv_shape_wish){
        .arch = "vrwkv", .layers = 3, .width = 48, .post_norm = CV_YES, .mlp = CV_YES });
    assert_true(turned.traits.post_norm && turned.traits.mlp && !turned.traits.keyed);
}

static void refused_shapes(void **state)
{
    (void)state;
    static const cv_shape_wish wishes[] = {
        { .arch = "rwkv3", .layers = 1, .width = 64, .vocabulary = 2 },
        { .arch = NULL, .layers = 1, .width = 64, .vocabulary = 2 },
        { .arch = "rwkv7", .layers = 0, .width = 64, .vocabulary = 2 },
        { .arch = "rwkv7", .layers = 1, .width = 96, .vocabulary = 2 },
        { .arch = "rwkv7", .layers = 1, .width = 64 },
        { .arch = "rwkv7", .layers = 1, .width = SIZE_MAX, .vocabulary = 2 },
        { .arch = "vrwkv", .layers = 1, .width = 48, .image = 33, .patch = 8 },
        { .arch = "vrwkv", .layers = 1, .width = 48, .image = SIZE_MAX },
        { .arch = "rwkv4", .layers = 1, .width = 48, .vocabulary = 2, .inner = SIZE_MAX },
    };
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes; i++) {
        cv_source source = { .seed = 42 };
        corvid_error err;
        assert_int_equal(cv_shape_for(&wishes[i], &source, &err), CORVID_E_ARGUMENT);
        assert_true(err.text[0] && source.seed == 42 && !source.arch);
    }
}

/* ---- Orthogonality ----------------------------------------------------------------------------- */

static double product(size_t n, const double *x, const double *y)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

/* The rows become orthonormal, and row i lies in the span of the first i + 1 of the old ones, on the
 * side that the old one points to. */
static void check_rows(size_t n, size_t m)
{
    const size_t ld = (m + CV_ORTHOGONAL_PAD - 1) / CV_ORTHOGONAL_PAD * CV_ORTHOGONAL_PAD;
    const size_t rows = n + n % 2;
    double *G = cv_alloc_zero(&cv_libc_allocator, rows * ld, sizeof *G);
    double *Q = cv_alloc_zero(&cv_libc_allocator, rows * ld, sizeof *Q);
    double *dots = cv_alloc_zero(&cv_libc_allocator, CV_ORTHOGONAL_PANEL * n, sizeof *dots);
    cv_rng rng;
    cv_rng_seed(&rng, n * 10000 + m);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++)
            Q[i * ld + j] = G[i * ld + j] = (double)cv_rng_normal(&rng);
    cv_orthonormalise(n, ld, Q, dots);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            const double same = product(ld, Q + i * ld, Q + j * ld) - (i == j ? 1.0 : 0.0);
            const double r = product(ld, G + i * ld, Q + j * ld);
            if (!(fabs(same) <= 1e-13)) fail_msg("%zu x %zu: rows %zu, %zu: %g", n, m, i, j, same);
            if (!(j > i ? fabs(r) <= 1e-11 : j < i || r > 0.0))
                fail_msg("%zu x %zu: R[%zu][%zu] is %g", n, m, j, i, r);
        }
    cv_free(&cv_libc_allocator, G);
    cv_free(&cv_libc_allocator, Q);
    cv_free(&cv_libc_allocator, dots);
}

static void rows_become_orthonormal(void **state)
{
    (void)state;
    static const size_t sizes[][2] = { { 1, 1 },     { 1, 9 },     { 2, 2 },    { 3, 3 },
                                       { 5, 5 },     { 31, 31 },   { 32, 32 },  { 33, 33 },
                                       { 64, 64 },   { 65, 700 },  { 96, 97 },  { 100, 128 },
                                       { 31, 1000 }, { 193, 193 }, { 160, 600 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        check_rows(sizes[i][0], sizes[i][1]);
}

/* Rows that are nearly the same are the hard case: what is left of them is rounding, and only going
 * through once more makes it orthogonal. */
static void nearly_dependent_rows(void **state)
{
    (void)state;
    enum { ROWS = 66, LD = 72 };
    _Alignas(64) static double Q[ROWS * LD], dots[CV_ORTHOGONAL_PANEL * ROWS];
    cv_rng rng;
    cv_rng_seed(&rng, 5);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < LD; j++)
            Q[i * LD + j] = 1.0 + (double)j + 1e-7 * (double)cv_rng_normal(&rng);
    cv_orthonormalise(ROWS, LD, Q, dots);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j <= i; j++)
            assert_true(fabs(product(LD, Q + i * LD, Q + j * LD) - (i == j)) <= 1e-12);
}

/* How far the shorter side of a matrix is from gain times orthonormal. */
static double distance(const float *x, size_t rows, size_t cols, double gain)
{
    const bool wide = rows < cols;
    const size_t n = wide ? rows : cols, m = wide ? cols : rows;
    double most = 0.0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            double sum = 0.0;
            for (size_t k = 0; k < m; k++)
                sum += wide ? (double)x[i * cols + k] * (double)x[j * cols + k]
                            : (double)x[k * cols + i] * (double)x[k * cols + j];
            most = fmax(most, fabs(sum / (gain * gain) - (i == j)));
        }
    return most;
}

/* ---- Filled models ----------------------------------------------------------------------------- */

typedef struct filled {
    cv_view view;
    float *x;
    size_t n;
} filled;

typedef struct model {
    cv_source source;
    uint64_t seed;
    const cv_init_settings *settings;
    filled tensors[512];
    size_t n;
} model;

static corvid_status fill_view(void *ctx, const cv_view *view, corvid_error *err)
{
    model *m = ctx;
    filled *t = &m->tensors[m->n++];
    *t = (filled){ .view = *view, .n = view->rows * view->cols };
    t->x = malloc(t->n * sizeof *t->x);
    return cv_init_fill(&m->source, m->seed, view, t->x, m->settings, &cv_libc_allocator, err);
}

static model *fill(cv_shape_wish wish, uint64_t seed, const cv_init_settings *settings)
{
    model *m = calloc(1, sizeof *m);
    corvid_error err;
    m->source = shape_of(wish);
    m->seed = seed;
    m->settings = settings;
    ASSERT_OK(cv_source_each(&m->source, fill_view, m, &err), &err);
    for (size_t i = 0; i < m->n; i++)
        for (size_t j = 0; j < m->tensors[i].n; j++)
            assert_true(isfinite(m->tensors[i].x[j]));
    return m;
}

static void drop(model *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->tensors[i].x);
    free(m);
}

static const filled *find(const model *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->tensors[i].view.name, name) == 0) return &m->tensors[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

#define LANGUAGE(name)                                               \
    {                                                                \
        .arch = (name), .layers = 3, .width = 128, .vocabulary = 300 \
    }

/* ---- Vectors of language models ----------------------------------------------------------------- */

/* What a number should be, written once more from the table of the specification: tensor, layer l of
 * L, channel n of A (or head). */
static double expected(const char *arch, const char *name, double l, double L, size_t n, double A,
                       double N)
{
    const double r01 = l / (L - 1.0), r10 = 1.0 - l / L, d = (double)n / A;
    const double lin = (double)n / (A - 1.0) - 0.5, up = (double)n / (A - 1.0);
    const double t = (fmod((double)n, N) - (N - 1.0) / 2.0) / ((N - 1.0) / 2.0), zz = t * fabs(t);
    const double z = (double)((n + 1) % 3) - 1.0;
    const bool v4 = !strcmp(arch, "rwkv4"), preview = !strcmp(arch, "rwkv5.0");
#define IF(tensor) \
    if (!strcmp(name, tensor)) return
    IF("att.time_mix_k") pow(d, r10);
    IF("att.time_mix_v") pow(d, r10) + 0.3 * r01;
    IF("att.time_mix_r") pow(d, 0.5 * r10);
    IF("att.time_mix_g") pow(d, 0.5 * r10);
    IF("ffn.time_mix_k") pow(d, r10);
    IF("ffn.time_mix_r") pow(d, r10);
    IF("att.time_maa_x") 1.0 - pow(d, r10);
    IF("att.time_maa_w") 1.0 - pow(d, r10);
    IF("att.time_maa_k") 1.0 - pow(d, r10);
    IF("att.time_maa_v") 1.0 - (pow(d, r10) + 0.3 * r01);
    IF("att.time_maa_r") 1.0 - pow(d, 0.5 * r10);
    IF("att.time_maa_g") 1.0 - pow(d, 0.5 * r10);
    IF("ffn.time_maa_k") 1.0 - pow(d, r10 * r10 * r10);
    IF("ffn.time_maa_r") 1.0 - pow(d, r10 * r10 * r10);
    IF("att.x_r") 1.0 - pow(d, 0.2 * r10);
    IF("att.x_w") 1.0 - pow(d, 0.9 * r10);
    IF("att.x_k") 1.0 - pow(d, 0.7 * r10);
    IF("att.x_v") 1.0 - pow(d, 0.7 * r10);
    IF("att.x_a") 1.0 - pow(d, 0.9 * r10);
    IF("att.x_g") 1.0 - pow(d, 0.2 * r10);
    IF("ffn.x_k") 1.0 - pow(d, pow(r10, 4.0));
    IF("att.time_decay")
    v4 ? -5.0 + 8.0 * pow(up, 0.7 + 1.3 * r01) : -6.0 + 5.0 * pow(up, 0.7 + 1.3 * r01);
    IF("att.time_first") log(0.3) + 0.5 * z;
    IF("att.time_faaaa") r01 *(1.0 - up) + (preview ? 0.0 : 0.1 * z);
    IF("att.ln_x.weight") pow((1.0 + l) / L, 0.7);
    IF("att.w0") - 6.0 + 6.0 * pow(up, 1.0 + pow(r01, 0.3)) + 0.5 + 2.5 * zz;
    IF("att.a0") - 0.19 + 0.3 * zz + 0.4 * lin;
    IF("att.v0") 0.73 - 0.4 * lin;
    IF("att.k_k") 0.71 - 0.1 * lin;
    IF("att.k_a") 1.02;
    IF("att.r_k") - 0.04;
    IF("ln0.weight") 1.0;
    IF("ln1.weight") 1.0;
    IF("ln2.weight") 1.0;
    IF("ln_out.weight") 1.0;
    if (strstr(name, ".bias")) return 0.0;
#undef IF
    fail_msg("%s: the test knows no %s", arch, name);
    return 0.0;
}

static const char *bare_name(const char *name)
{
    static const char blocks[] = "blocks.0.";
    return strncmp(name, "blocks.", 7) ? name : name + sizeof blocks - 1;
}

static void vectors_of_language_models(void **state)
{
    (void)state;
    static const char *const archs[] = { "rwkv4", "rwkv5.0", "rwkv5.2", "rwkv6", "rwkv7" };
    for (size_t a = 0; a < sizeof archs / sizeof *archs; a++) {
        model *m = fill((cv_shape_wish)LANGUAGE(archs[a]), 7, NULL);
        for (size_t i = 0; i < m->n; i++) {
            const filled *t = &m->tensors[i];
            if (t->view.field->kind != CV_VECTOR) continue;
            for (size_t j = 0; j < t->n; j++) {
                const double want = expected(archs[a], bare_name(t->view.name),
                                             (double)t->view.layer, 3.0, j, (double)t->n, 64.0);
                if (!(fabs((double)t->x[j] - want) <= 1e-6 * (1.0 + fabs(want))))
                    fail_msg("%s: %s[%zu] is %.9g, expected %.9g", archs[a], t->view.name, j,
                             (double)t->x[j], want);
            }
        }
        drop(m);
    }
}

/* Worked out by hand for layer 1 of 3 and 128 channels. */
static void landmarks(void **state)
{
    (void)state;
    model *m = fill((cv_shape_wish)LANGUAGE("rwkv7"), 7, NULL);
    assert_float_equal(find(m, "blocks.1.att.x_r")->x[64], 0.088281, 1e-5);
    assert_float_equal(find(m, "blocks.0.att.w0")->x[0], -8.0, 1e-5);
    assert_float_equal(find(m, "blocks.2.att.w0")->x[127], 3.0, 1e-5);
    assert_float_equal(find(m, "blocks.1.att.a0")->x[127], 0.31, 1e-5);
    assert_float_equal(find(m, "blocks.1.att.ln_x.weight")->x[5], 0.752894, 1e-5);
    drop(m);
    m = fill((cv_shape_wish)LANGUAGE("rwkv4"), 7, NULL);
    assert_float_equal(find(m, "blocks.0.att.time_decay")->x[127], 3.0, 1e-5);
    assert_float_equal(find(m, "blocks.0.att.time_first")->x[1], logf(0.3f) + 0.5f, 1e-5);
    assert_float_equal(find(m, "blocks.0.att.time_mix_k")->x[64], 0.5, 1e-6);
    drop(m);
}

/* A single layer divides by L - 1. */
static void one_layer(void **state)
{
    (void)state;
    static const char *const archs[] = { "rwkv4", "rwkv5.1", "rwkv6", "rwkv7", "vrwkv", "vrwkv6" };
    for (size_t a = 0; a < sizeof archs / sizeof *archs; a++) {
        const cv_shape_wish wish = {
            .arch = archs[a], .layers = 1, .width = 64, .vocabulary = 10, .classes = 3, .image = 16
        };
        drop(fill(wish, 1, NULL));
    }
}

/* ---- Matrices ---------------------------------------------------------------------------------- */

/* Gains of orthogonal matrices for C 128, V 300; 0: zeros; negative: uniform within -gain. */
static double gain_of(const char *arch, const char *name)
{
    const bool v4 = !strcmp(arch, "rwkv4");
    const double tall_head = 0.5 * sqrt(300.0 / 128.0);
    static const struct {
        const char *name;
        double v4, later;
    } rows[] = {
        { "emb.weight", -1e-4, -1e-4 },
        { "att.receptance.weight", 0.0, 1.0 },
        { "att.key.weight", 0.0, 0.1 },
        { "att.value.weight", 1.0, 1.0 },
        { "att.gate.weight", 0.1, 0.1 },
        { "att.output.weight", 0.0, 0.0 },
        { "ffn.key.weight", 2.0, 1.0 },
        { "ffn.receptance.weight", 0.0, 0.0 },
        { "ffn.value.weight", 0.0, 0.0 },
        { "att.time_maa_w1", 0.0, 0.0 },
        { "att.time_decay_w1", 0.0, 0.0 },
        { "att.time_maa_w2", -0.01, -0.01 },
        { "att.time_decay_w2", -0.01, -0.01 },
        { "att.w1", 0.0, 0.0 },
        { "att.a1", 0.0, 0.0 },
        { "att.v1", 0.0, 0.0 },
        { "att.g1", 0.0, 0.0 },
        { "att.w2", 0.1, 0.1 },
        { "att.a2", 0.1, 0.1 },
        { "att.v2", 0.1, 0.1 },
        { "att.g2", 0.1, 0.1 },
    };
    if (!strcmp(name, "head.weight")) return tall_head;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].name, name)) return v4 ? rows[i].v4 : rows[i].later;
    fail_msg("%s: the test knows no %s", arch, name);
    return 0.0;
}

/* Uniform between -most and most: nothing beyond, ends nearly reached, mean and variance. */
static void check_uniform(const filled *t, double most)
{
    double sum = 0.0, squares = 0.0, largest = 0.0;
    for (size_t i = 0; i < t->n; i++) {
        sum += (double)t->x[i];
        squares += (double)t->x[i] * (double)t->x[i];
        largest = fmax(largest, fabs((double)t->x[i]));
    }
    const double n = (double)t->n, error = 6.0 / sqrt(n);
    if (!(largest <= most * (1.0 + 1e-6) && largest > most * (1.0 - error) &&
          fabs(sum / n) < error * most && fabs(squares / n * 3.0 / (most * most) - 1.0) < error))
        fail_msg("%s: not uniform within %g: largest %g, mean %g", t->view.name, most, largest,
                 sum / n);
}

static void matrices_of_language_models(void **state)
{
    (void)state;
    static const char *const archs[] = {
        "rwkv4", "rwkv5.0", "rwkv5.1", "rwkv5.2", "rwkv6", "rwkv7"
    };
    for (size_t a = 0; a < sizeof archs / sizeof *archs; a++) {
        model *m = fill((cv_shape_wish)LANGUAGE(archs[a]), 11, NULL);
        for (size_t i = 0; i < m->n; i++) {
            const filled *t = &m->tensors[i];
            if (t->view.field->kind == CV_VECTOR) continue;
            const double gain = gain_of(archs[a], bare_name(t->view.name));
            if (gain < 0.0) check_uniform(t, -gain);
            for (size_t j = 0; gain == 0.0 && j < t->n; j++)
                assert_true(t->x[j] == 0.0f);
            if (gain > 0.0 && !(distance(t->x, t->view.rows, t->view.cols, gain) < 1e-5))
                fail_msg("%s: %s is not orthogonal with gain %g", archs[a], t->view.name, gain);
        }
        drop(m);
    }
}

/* More ranks than channels: official rows are those of the files, [in, out]. */
static void tall_low_ranks(void **state)
{
    (void)state;
    const cv_shape_wish wish = {
        .arch = "rwkv7", .layers = 1, .width = 16, .head_size = 8, .vocabulary = 10
    };
    model *m = fill(wish, 1, NULL);
    const filled *t = find(m, "blocks.0.att.g2");
    assert_true(t->view.rows == 16 && t->view.cols == 32);
    assert_true(distance(t->x, 16, 32, 0.1 * sqrt(2.0)) < 1e-5);
    /* A head with fewer tokens than channels has no factor. */
    assert_true(distance(find(m, "head.weight")->x, 10, 16, 0.5) < 1e-5);
    drop(m);
}

/* ---- Vision models ----------------------------------------------------------------------------- */

static void check_normal(const filled *t, double sigma)
{
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < t->n; i++) {
        sum += (double)t->x[i];
        squares += (double)t->x[i] * (double)t->x[i];
    }
    const double n = (double)t->n, error = 6.0 / sqrt(n);
    assert_true(fabs(sum / n) < error * sigma);
    assert_true(fabs(squares / n / (sigma * sigma) - 1.0) < 2.0 * error);
}

static void check_constant(const model *m, const char *name, double value)
{
    const filled *t = find(m, name);
    for (size_t i = 0; i < t->n; i++)
        assert_true((double)t->x[i] == (double)(float)value);
}

static void vision_models(void **state)
{
    (void)state;
    model *m =
        fill((cv_shape_wish){ .arch = "vrwkv", .layers = 2, .width = 96, .classes = 50 }, 1, NULL);
    check_uniform(find(m, "backbone.patch_embed.projection.weight"), 1.0 / sqrt(768.0));
    check_uniform(find(m, "backbone.patch_embed.projection.bias"), 1.0 / sqrt(768.0));
    check_constant(m, "backbone.pos_embed", 0.0);
    check_normal(find(m, "backbone.layers.1.att.output.weight"), 0.02);
    check_normal(find(m, "backbone.layers.0.ffn.value.weight"), 0.02);
    check_normal(find(m, "head.fc.weight"), 0.02);
    check_constant(m, "head.fc.bias", 0.0);
    check_constant(m, "backbone.ln1.weight", 1.0);
    check_constant(m, "backbone.layers.0.ln0.bias", 0.0);
    drop(m);
    m = fill(
        (cv_shape_wish){
            .arch = "vrwkv", .layers = 13, .width = 32, .classes = 50, .post_norm = CV_YES },
        1, NULL);
    check_uniform(find(m, "backbone.layers.1.att.output.weight"), 1.0 / sqrt(32.0));
    check_uniform(find(m, "backbone.layers.1.ffn.value.weight"), 1.0 / sqrt(128.0));
    check_uniform(find(m, "head.0.bias"), 1.0 / sqrt(32.0));
    check_uniform(find(m, "head.2.weight"), 1.0 / sqrt(96.0));
    check_constant(m, "backbone.layers.3.att.key_norm.weight", 1.0);
    check_constant(m, "backbone.layers.3.gamma2", 1.0);
    drop(m);
    m = fill(
        (cv_shape_wish){
            .arch = "vrwkv6", .layers = 2, .width = 128, .classes = 5, .post_norm = CV_YES },
        1, NULL);
    check_uniform(find(m, "backbone.layers.0.att.time_maa_w1"), 1e-4);
    check_uniform(find(m, "backbone.layers.1.att.time_decay_w2"), 1e-4);
    check_constant(m, "backbone.layers.0.gamma1", 1e-5);
    check_constant(m, "backbone.layers.0.att.ln_x.weight", 1.0);
    drop(m);
}

static void settings_and_modes(void **state)
{
    (void)state;
    const cv_shape_wish vision = {
        .arch = "vrwkv", .layers = 2, .width = 32, .classes = 5, .post_norm = CV_YES
    };
    const cv_init_settings local = { .mode = CV_INIT_LOCAL, .layer_scale = 0.25 };
    const cv_init_settings global = { .mode = CV_INIT_GLOBAL };
    model *m = fill(vision, 1, &local);
    check_constant(m, "backbone.layers.1.att.spatial_decay", 1.0);
    check_constant(m, "backbone.layers.1.ffn.spatial_mix_r", 1.0);
    check_constant(m, "backbone.layers.1.gamma1", 0.25);
    drop(m);
    m = fill(vision, 1, &global);
    check_constant(m, "backbone.layers.1.att.spatial_first", 0.0);
    check_constant(m, "backbone.layers.1.att.spatial_mix_v", 0.5);
    drop(m);
    const cv_init_settings wide = { .embedding = 6e-4 };
    m = fill((cv_shape_wish)LANGUAGE("rwkv4"), 1, &wide);
    check_uniform(find(m, "emb.weight"), 6e-4);
    const filled *t = find(m, "emb.weight");
    corvid_error err;
    assert_int_equal(cv_init_fill(&m->source, 1, &t->view, t->x, &local, &cv_libc_allocator, &err),
                     CORVID_E_ARGUMENT);
    drop(m);
}

/* Without token shift: every mix is that of the token alone, and all else is as ever. */
static void without_shift(void **state)
{
    (void)state;
    const cv_init_settings alone = { .no_shift = true };
    static const struct {
        cv_shape_wish wish;
        const char *mix;
        double value;
    } cases[] = { { LANGUAGE("rwkv4"), "blocks.1.att.time_mix_k", 1.0 },
                  { LANGUAGE("rwkv4"), "blocks.0.ffn.time_mix_r", 1.0 },
                  { LANGUAGE("rwkv5.2"), "blocks.1.att.time_mix_g", 1.0 },
                  { LANGUAGE("rwkv7"), "blocks.1.att.x_w", 0.0 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model *m = fill(cases[i].wish, 1, &alone), *other = fill(cases[i].wish, 1, NULL);
        check_constant(m, cases[i].mix, cases[i].value);
        for (size_t k = 0; k < m->n; k++) {
            const filled *a = &m->tensors[k], *b = &other->tensors[k];
            const bool same = memcmp(a->x, b->x, a->n * sizeof *a->x) == 0;
            assert_true(same != cv_init_is_mix(a->view.field));
        }
        drop(m);
        drop(other);
    }
    model *m = fill((cv_shape_wish)LANGUAGE("rwkv6"), 1, NULL);
    const filled *t = find(m, "emb.weight");
    corvid_error err;
    assert_int_equal(cv_init_fill(&m->source, 1, &t->view, t->x, &alone, &cv_libc_allocator, &err),
                     CORVID_E_ARGUMENT);
    drop(m);
}

/* ---- Chance ------------------------------------------------------------------------------------ */

static void by_seed_and_name_alone(void **state)
{
    (void)state;
    const cv_shape_wish wish = LANGUAGE("rwkv6");
    model *m = fill(wish, 5, NULL), *other = fill(wish, 6, NULL);
    corvid_error err;
    for (size_t i = m->n; i-- > 0;) { /* the other way round */
        const filled *t = &m->tensors[i];
        float *again = malloc(t->n * sizeof *again);
        ASSERT_OK(cv_init_fill(&m->source, 5, &t->view, again, NULL, &cv_libc_allocator, &err),
                  &err);
        assert_memory_equal(again, t->x, t->n * sizeof *again);
        free(again);
    }
    const filled *a = find(m, "blocks.0.att.value.weight");
    const filled *b = find(m, "blocks.1.att.value.weight");
    const filled *c = find(other, "blocks.0.att.value.weight");
    assert_true(memcmp(a->x, b->x, a->n * sizeof *a->x) != 0);
    assert_true(memcmp(a->x, c->x, a->n * sizeof *a->x) != 0);
    /* The five parts of one tensor are different numbers too. */
    const filled *part = find(m, "blocks.0.att.time_maa_w2");
    assert_string_equal(part[1].view.name, part[0].view.name);
    assert_true(memcmp(part[0].x, part[1].x, part->n * sizeof *part->x) != 0);
    drop(m);
    drop(other);
}

static void short_of_memory(void **state)
{
    (void)state;
    float out[64];
    for (size_t fail_at = 1; fail_at <= 3; fail_at++) {
        test_allocator a;
        test_allocator_init(&a);
        a.fail_at = fail_at;
        cv_rng rng;
        corvid_error err;
        cv_rng_seed(&rng, 1);
        const corvid_status status = cv_orthogonal(&a.api, &rng, 8, 8, 1.0, out, &err);
        assert_int_equal(status, fail_at < 3 ? CORVID_E_MEMORY : CORVID_OK);
        assert_int_equal(a.live, 0);
    }
}

/* ---- Groups ------------------------------------------------------------------------------------ */

static void check_group(const char *arch, const char *name, double lr_scale, bool decays)
{
    const cv_shape_wish wish = { .arch = arch,
                                 .layers = arch[0] == 'l' ? 13 : 2,
                                 .width = 128,
                                 .vocabulary = 20,
                                 .classes = 5,
                                 .post_norm = CV_YES };
    cv_shape_wish real = wish;
    if (arch[0] == 'l') real.arch = "vrwkv";
    model *m = fill(real, 1, NULL);
    const cv_grouping rule = cv_grouping_of(&m->source);
    const cv_group group = cv_group_of(rule, &m->source, &find(m, name)->view);
    if (group.lr_scale != lr_scale || group.decays != decays)
        fail_msg("%s: %s is in the group %g, %d", arch, name, group.lr_scale, group.decays);
    drop(m);
}

static void groups_by_name(void **state)
{
    (void)state;
    check_group("rwkv4", "emb.weight", 1.0, true);
    check_group("rwkv4", "blocks.1.att.time_decay", 2.0, false);
    check_group("rwkv4", "blocks.1.att.time_first", 3.0, false);
    check_group("rwkv4", "blocks.1.att.time_mix_k", 1.0, false);
    check_group("rwkv4", "blocks.1.ffn.value.weight", 1.0, true);
    check_group("rwkv4", "blocks.1.ln1.weight", 1.0, false);
    check_group("rwkv5.2", "blocks.0.att.time_faaaa", 1.0, false);
    check_group("rwkv5.2", "blocks.0.att.ln_x.weight", 1.0, false);
    check_group("rwkv6", "blocks.0.att.time_decay", 2.0, false);
    check_group("rwkv6", "blocks.0.att.time_decay_w1", 1.0, false);
    check_group("rwkv6", "blocks.0.att.time_maa_w2", 1.0, false);
    check_group("rwkv6", "blocks.0.att.gate.weight", 1.0, true);
    check_group("rwkv7", "blocks.1.att.w0", 2.0, false);
    check_group("rwkv7", "blocks.1.att.w1", 1.0, false);
    check_group("rwkv7", "blocks.1.att.r_k", 1.0, false);
    check_group("rwkv7", "head.weight", 1.0, true);
    check_group("vrwkv", "backbone.pos_embed", 1.0, true);
    check_group("vrwkv", "backbone.layers.0.ln0.weight", 1.0, false);
    check_group("vrwkv", "backbone.ln1.weight", 1.0, false);
    check_group("vrwkv", "backbone.layers.1.gamma1", 1.0, true);
    check_group("vrwkv", "backbone.layers.1.att.spatial_decay", 1.0, true);
    check_group("vrwkv", "backbone.patch_embed.projection.bias", 1.0, false);
    check_group("vrwkv6", "backbone.layers.1.att.ln_x.weight", 1.0, false);
    check_group("vrwkv6", "backbone.layers.1.att.time_maa_w1", 1.0, true);
    check_group("l", "backbone.layers.1.gamma1", 1.0, false);
    check_group("l", "backbone.layers.1.att.spatial_first", 1.0, true);
    check_group("l", "backbone.layers.1.att.spatial_mix_k", 1.0, true);
    check_group("l", "backbone.pos_embed", 1.0, true);
    check_group("l", "head.2.bias", 1.0, false);
    check_group("l", "backbone.layers.1.att.key_norm.weight", 1.0, false);
    const size_t dims[] = { 2, 64, 64 };
    assert_true(cv_group_by_name(CV_GROUPS_RWKV, "blocks.0.att.time_state", dims, 3).decays);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vision_counts),
        cmocka_unit_test(version_7_counts),
        cmocka_unit_test(official_sizes),
        cmocka_unit_test(refused_shapes),
        cmocka_unit_test(rows_become_orthonormal),
        cmocka_unit_test(nearly_dependent_rows),
        cmocka_unit_test(vectors_of_language_models),
        cmocka_unit_test(landmarks),
        cmocka_unit_test(one_layer),
        cmocka_unit_test(matrices_of_language_models),
        cmocka_unit_test(tall_low_ranks),
        cmocka_unit_test(vision_models),
        cmocka_unit_test(settings_and_modes),
        cmocka_unit_test(without_shift),
        cmocka_unit_test(by_seed_and_name_alone),
        cmocka_unit_test(short_of_memory),
        cmocka_unit_test(groups_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
