/* test_sequences.c - what a stream gives does not depend on how it is fed.
 *
 * Every version and every weight type: one call, calls cut anywhere, passes of any size, any number
 * of threads, alone or in a batch give the same bits; kernels of all levels, and double precision,
 * the same numbers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "model_files.h"
#include "reference.h"
#include "support.h"

enum {
    T_EXACT = 300, /* against double precision         */
    T = 140        /* where many ways are compared: more than a pass of 128 */
};

/* ---- The models under test ------------------------------------------------------------------- */

/* A file, or random weights of a shape and type. */
typedef struct subject {
    const char *name, *path;
    const char *shape, *type;
    double eps;
} subject;

static subject subjects[32]; /* f32, with a file: the reference reads them too */
static size_t n_subjects;
static subject typed[32]; /* the weight types */
static size_t n_typed;

static const char *keep(const char *text)
{
    char *copy = strdup(text);
    assert_non_null(copy);
    return copy;
}

static void add_data(const char *name, const char *relative, double eps)
{
    const char *path = test_data(relative);
    if (!path)
        print_message("SKIP: no %s in the reference data\n", relative);
    else
        subjects[n_subjects++] = (subject){ .name = name, .path = keep(path), .eps = eps };
}

static void add_lm(const char *name)
{
    char relative[64], file[64];
    snprintf(relative, sizeof relative, "rwkv-tiny/reference/%s.safetensors", name);
    snprintf(file, sizeof file, "%s.safetensors", name);
    const char *path = test_data(relative);
    if (!path) {
        print_message("SKIP: no %s in the reference data\n", relative);
        return;
    }
    const model_copy how = { .format = CV_SAFETENSORS, .prefix = "param.", .as_f32 = true };
    subjects[n_subjects] = (subject){ .name = name, .path = keep(test_scratch(file)) };
    model_copy_write(path, subjects[n_subjects++].path, &how);
}

/* Random weights as a file, so that the reference can read them. */
static void add_random(const char *name, const char *from)
{
    char file[64];
    corvid_error err;
    snprintf(file, sizeof file, "%s.safetensors", name);
    subjects[n_subjects] = (subject){ .name = name, .path = keep(test_scratch(file)) };
    ASSERT_OK(corvid_convert(from, subjects[n_subjects++].path, NULL, &err), &err);
}

static void add_typed(const char *shape)
{
    static const char *const types[] = { "f32", "f16", "bf16", "q8_0", "q5_1", "q4_k", "q6_k" };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s %s", shape, types[i]);
        typed[n_typed++] = (subject){ .name = keep(name), .shape = shape, .type = types[i] };
    }
}

/* Rows of 256 and more, which blocks of 256 fit: the tiny shapes have few. */
static void add_wide(const char *wide)
{
    static const char *const types[] = { "q4_0", "q4_1", "q5_0", "q4_k", "q5_k", "q6_k" };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char name[64];
        corvid_error err;
        corvid_convert_options options;
        corvid_convert_defaults(&options);
        options.type = types[i];
        snprintf(name, sizeof name, "wide-%s.gguf", types[i]);
        const char *path = keep(test_scratch(name));
        ASSERT_OK(corvid_convert(wide, path, &options, &err), &err);
        typed[n_typed++] = (subject){ .name = keep(name), .path = path };
    }
}

static int set_up(void **state)
{
    (void)state;
    add_data("4v0", "rwkv-tiny/tiny-rwkv-4v0-660K-FP32.bin", 0);
    add_data("5v1", "rwkv-tiny/tiny-rwkv-5v1-730K-FP32.bin", 1e-5);
    add_data("5v2", "rwkv-tiny/tiny-rwkv-5v2-730K-FP32.bin", 0);
    add_data("6v0 q5_1", "rwkv-tiny/tiny-rwkv-6v0-3m-Q5_1.bin", 0);
    add_data("7v0", "rwkv-tiny/tiny-rwkv-7v0-834K-FP32.bin", 0);
    add_lm("lm_v4");
    add_lm("lm_v5_0");
    add_lm("lm_v5_1");
    add_lm("lm_v5_2");
    add_lm("lm_v6");
    add_lm("lm_v7");
    add_random("random rwkv6-tiny", "random:rwkv6-tiny");
    add_random("random rwkv7-tiny", "random:rwkv7-tiny");
    const char *wide = keep(test_scratch("wide.safetensors"));
    model_write_wide(wide);
    subjects[n_subjects++] = (subject){ .name = "wide v7", .path = wide };
    add_typed("rwkv7-tiny");
    add_typed("rwkv6-tiny");
    add_wide(wide);
    return 0;
}

/* How a model is run. */
typedef struct setting {
    size_t n_threads, chunk;
    const char *cpu;
} setting;

static corvid_model *open_subject(const subject *s, setting how)
{
    corvid_error err;
    corvid_model *model;
    corvid_model_options options;
    corvid_model_defaults(&options);
    options.n_threads = how.n_threads;
    options.chunk = how.chunk;
    options.cpu = how.cpu;
    options.group_norm_eps = (float)s->eps;
    if (s->path)
        ASSERT_OK(corvid_model_open(s->path, &options, &model, &err), &err);
    else
        ASSERT_OK(corvid_model_random(s->shape, s->type, 1, &options, &model, &err), &err);
    return model;
}

/* The levels this machine and build have. */
static size_t known_levels(const char *names[4])
{
    size_t n = 0;
    for (int level = CV_CPU_REF; level <= CV_CPU_NEON; level++)
        if (cv_kernels_for((cv_cpu_level)level))
            names[n++] = cv_cpu_level_name((cv_cpu_level)level);
    return n;
}

/* ---- What a run gives ------------------------------------------------------------------------ */

typedef struct run {
    size_t n, V, floats;
    float *logits; /* [n][V]   */
    float *state;  /* [floats] */
} run;

static run new_run(const corvid_model *model, size_t n)
{
    run r = { .n = n, .V = model_vocab(model), .floats = corvid_state_floats(model) };
    r.logits = malloc(n * r.V * sizeof *r.logits);
    r.state = malloc(r.floats * sizeof *r.state);
    assert_true(r.logits && r.state);
    return r;
}

static void free_run(run *r)
{
    free(r->logits);
    free(r->state);
}

static void keep_state(run *r, const corvid_stream *stream)
{
    corvid_error err;
    assert_int_equal(corvid_stream_position(stream), r->n);
    ASSERT_OK(corvid_state_get(stream, r->state, &err), &err);
}

static void same(const char *name, const char *way, const void *a, const void *b, size_t bytes)
{
    char what[128];
    snprintf(what, sizeof what, "%s, %s", name, way);
    model_same_bits(what, a, b, bytes);
}

/* All tokens in one call. */
static run run_whole(corvid_model *model, const int32_t *tokens, size_t n)
{
    corvid_error err;
    run r = new_run(model, n);
    corvid_stream *stream = model_stream(model);
    ASSERT_OK(corvid_feed_all(stream, tokens, n, r.logits, &err), &err);
    keep_state(&r, stream);
    corvid_stream_free(stream);
    return r;
}

static void expect_same(const char *name, setting how, const char *way, const run *a, const run *b)
{
    char what[160];
    snprintf(what, sizeof what, "%s, %s, %zu threads, chunk %zu, %s", name,
             how.cpu ? how.cpu : "best", how.n_threads, how.chunk, way);
    model_same_bits(what, a->logits, b->logits, T * a->V * sizeof *a->logits);
    model_same_bits(what, a->state, b->state, a->floats * sizeof *a->state);
}

/* ---- Ways of feeding ------------------------------------------------------------------------- */

/* feed_all in pieces of random length, now and then an empty one. */
static run run_cut(corvid_model *model, const int32_t *tokens, uint64_t seed)
{
    corvid_error err;
    run r = new_run(model, T);
    corvid_stream *stream = model_stream(model);
    for (size_t at = 0; at < T;) {
        size_t n = model_random(&seed, 3) ? model_random(&seed, 12) : model_random(&seed, 160);
        if (n > T - at) n = T - at;
        ASSERT_OK(corvid_feed_all(stream, tokens + at, n, r.logits + at * r.V, &err), &err);
        at += n;
    }
    keep_state(&r, stream);
    corvid_stream_free(stream);
    return r;
}

/* corvid_feed, token by token; the rest, if any, at once. */
static run run_steps(corvid_model *model, const int32_t *tokens, size_t n_steps)
{
    corvid_error err;
    run r = new_run(model, T);
    corvid_stream *stream = model_stream(model);
    for (size_t t = 0; t < n_steps; t++)
        ASSERT_OK(corvid_feed(stream, tokens + t, 1, r.logits + t * r.V, &err), &err);
    ASSERT_OK(
        corvid_feed_all(stream, tokens + n_steps, T - n_steps, r.logits + n_steps * r.V, &err),
        &err);
    keep_state(&r, stream);
    corvid_stream_free(stream);
    return r;
}

/* The logits of corvid_feed over pieces: those of the last row of each. */
static void check_feed_pieces(const char *name, corvid_model *model, const int32_t *tokens,
                              const run *whole)
{
    corvid_error err;
    uint64_t seed = 5;
    corvid_stream *stream = model_stream(model);
    float *logits = malloc(whole->V * sizeof *logits);
    assert_non_null(logits);
    for (size_t at = 0; at < T;) {
        size_t n = 1 + model_random(&seed, 140);
        if (n > T - at) n = T - at;
        const bool wanted = model_random(&seed, 4) > 0;
        ASSERT_OK(corvid_feed(stream, tokens + at, n, wanted ? logits : NULL, &err), &err);
        at += n;
        if (wanted)
            same(name, "feeding pieces", logits, whole->logits + (at - 1) * whole->V,
                 whole->V * sizeof *logits);
    }
    free(logits);
    corvid_stream_free(stream);
}

/* ---- Batches --------------------------------------------------------------------------------- */

enum { BATCH = 8 };

/* Eight streams that begin at different places of the tokens and take parts of different lengths;
 * each has to end as it does alone. */
static void check_batch(const char *name, corvid_model *model, const int32_t *tokens)
{
    static const size_t lengths[3][BATCH] = { { 1, 1, 1, 1, 1, 1, 1, 1 },
                                              { 57, 1, 0, 33, 70, 2, 17, 20 },
                                              { 3, 60, 9, 1, 1, 40, 0, 31 } };
    corvid_error err;
    const size_t V = model_vocab(model), floats = corvid_state_floats(model);
    corvid_stream *alone[BATCH], *together[BATCH];
    size_t at[BATCH];
    float *a = malloc(V * sizeof *a), *b = malloc(BATCH * V * sizeof *b);
    float *sa = malloc(floats * sizeof *sa), *sb = malloc(floats * sizeof *sb);
    assert_true(a && b && sa && sb);
    for (size_t i = 0; i < BATCH; i++) {
        alone[i] = model_stream(model);
        together[i] = model_stream(model);
        at[i] = 11 * i;
    }
    for (size_t round = 0; round < 3; round++) {
        corvid_batch_item items[BATCH];
        for (size_t i = 0; i < BATCH; i++)
            items[i] = (corvid_batch_item){ together[i], tokens + at[i], lengths[round][i],
                                            i % 3 == 2 ? NULL : b + i * V };
        ASSERT_OK(corvid_feed_batch(items, BATCH, &err), &err);
        for (size_t i = 0; i < BATCH; i++) {
            ASSERT_OK(corvid_feed(alone[i], tokens + at[i], lengths[round][i], a, &err), &err);
            at[i] += lengths[round][i];
            if (items[i].logits && lengths[round][i])
                same(name, "logits in a batch", a, items[i].logits, V * sizeof *a);
            ASSERT_OK(corvid_state_get(alone[i], sa, &err), &err);
            ASSERT_OK(corvid_state_get(together[i], sb, &err), &err);
            same(name, "states in a batch", sa, sb, floats * sizeof *sa);
            assert_int_equal(corvid_stream_position(alone[i]), corvid_stream_position(together[i]));
        }
    }
    for (size_t i = 0; i < BATCH; i++) {
        corvid_stream_free(alone[i]);
        corvid_stream_free(together[i]);
    }
    free(a);
    free(b);
    free(sa);
    free(sb);
}

/* More streams than the engine takes at a time, and more rows of logits than it keeps. */
static void check_large_batch(const char *name, corvid_model *model, const int32_t *tokens)
{
    enum { MANY = 150 };
    corvid_error err;
    const size_t V = model_vocab(model);
    static corvid_stream *streams[MANY];
    static corvid_batch_item items[MANY];
    float *logits = malloc(MANY * V * sizeof *logits), *one = malloc(V * sizeof *one);
    assert_true(logits && one);
    for (size_t i = 0; i < MANY; i++) {
        streams[i] = model_stream(model);
        items[i] = (corvid_batch_item){ streams[i], tokens + i % 100, 1 + i % 5, logits + i * V };
    }
    ASSERT_OK(corvid_feed_batch(items, MANY, &err), &err);
    corvid_stream *stream = model_stream(model);
    for (size_t i = 0; i < MANY; i++) {
        corvid_stream_reset(stream);
        ASSERT_OK(corvid_feed(stream, tokens + i % 100, 1 + i % 5, one, &err), &err);
        same(name, "logits in a large batch", one, logits + i * V, V * sizeof *one);
        corvid_stream_free(streams[i]);
    }
    corvid_stream_free(stream);
    free(logits);
    free(one);
}

/* ---- Scores ---------------------------------------------------------------------------------- */

/* One call and cut ones give the same scores; they are those of the logits. */
static void check_scores(const char *name, corvid_model *model, const int32_t *tokens,
                         const run *whole)
{
    corvid_error err;
    double scores[T], cut[T];
    unsigned char greedy[T], cut_greedy[T];
    const size_t V = whole->V;
    float *last = malloc(V * sizeof *last), *before = malloc(V * sizeof *before);
    assert_true(last && before);
    corvid_stream *stream = model_stream(model);
    ASSERT_OK(corvid_score(stream, tokens, T, NULL, scores, greedy, NULL, &err), &err);
    corvid_stream_reset(stream);
    uint64_t seed = 9;
    memset(last, 0, V * sizeof *last);
    for (size_t at = 0, n; at < T; at += n) {
        n = 1 + model_random(&seed, 70);
        if (n > T - at) n = T - at;
        memcpy(before, last, V * sizeof *last);
        ASSERT_OK(corvid_score(stream, tokens + at, n, at ? before : NULL, cut + at,
                               cut_greedy + at, last, &err),
                  &err);
    }
    same(name, "scores", scores, cut, sizeof cut);
    same(name, "greedy marks", greedy, cut_greedy, sizeof greedy);
    same(name, "logits after scoring", last, whole->logits + (T - 1) * V, V * sizeof *last);
    double most = 0.0;
    for (size_t t = 1; t < T; t++) {
        const float *row = whole->logits + (t - 1) * V;
        double sum = 0.0, top = (double)row[tokens[t]];
        size_t above = 0;
        for (size_t i = 0; i < V; i++) {
            sum += exp((double)row[i] - (double)row[tokens[t]]);
            if ((double)row[i] > top) above++;
        }
        most = fmax(most, fabs(scores[t] + log(sum)));
        if (greedy[t])
            assert_int_equal(above, 0);
        else
            assert_true(above > 0 || tokens[t] > 0);
    }
    if (!(most < 1e-5)) fail_msg("%s: scores are off by %g", name, most);
    free(last);
    free(before);
    corvid_stream_free(stream);
}

/* ---- The tests ------------------------------------------------------------------------------- */

static void tokens_of(corvid_model *model, int32_t tokens[T])
{
    model_tokens(4, T, model_vocab(model), tokens);
}

/* [lm.skeleton] [v4.wkv] [v5.wkv] [v6.ddlerp] [v6.decay] [v7.wkv] */
static void test_double_precision(void **state)
{
    (void)state;
    const char *levels[4];
    const size_t n_levels = known_levels(levels);
    for (size_t i = 0; i < n_subjects; i++) {
        const subject *s = &subjects[i];
        int32_t tokens[T_EXACT];
        ref_model *ref = ref_open(s->path, s->eps);
        double *exact = malloc(T_EXACT * ref->V * sizeof *exact);
        assert_non_null(exact);
        model_tokens(4, T_EXACT, ref->V, tokens);
        ref_feed(ref, tokens, T_EXACT, exact);
        for (size_t level = 0; level < n_levels; level++) {
            char title[96];
            corvid_model *model = open_subject(s, (setting){ 2, 0, levels[level] });
            run whole = run_whole(model, tokens, T_EXACT);
            assert_int_equal(whole.floats, ref->L * ref->layer_floats);
            snprintf(title, sizeof title, "%s %s logits, 300 tokens", s->name, levels[level]);
            model_report(title, model_difference_to(whole.logits, exact, T_EXACT * whole.V), 1e-4);
            double top = 1.0;
            for (size_t j = 0; j < whole.floats; j++)
                top = fmax(top, fabs(ref->state[j]));
            snprintf(title, sizeof title, "%s %s state, of its largest", s->name, levels[level]);
            model_report(title, model_difference_to(whole.state, ref->state, whole.floats) / top,
                         1e-4);
            free_run(&whole);
            corvid_model_close(model);
        }
        free(exact);
        ref_close(ref);
    }
}

/* Settings that must not matter; the expected bits come from one thread and whole passes. */
static const setting settings[] = { { 2, 7, NULL }, { 1, 0, NULL },   { 3, 64, NULL },
                                    { 1, 1, NULL }, { 2, 128, NULL }, { 1, 512, NULL } };

static void check_setting(const subject *s, setting how, bool batches, const int32_t *tokens,
                          const run *expected)
{
    corvid_model *model = open_subject(s, how);
    run r = run_whole(model, tokens, T);
    expect_same(s->name, how, "at once", &r, expected);
    free_run(&r);
    r = run_cut(model, tokens, how.n_threads + 10 * how.chunk);
    expect_same(s->name, how, "cut", &r, expected);
    free_run(&r);
    r = run_steps(model, tokens, how.n_threads == 1 ? T : 30);
    expect_same(s->name, how, "by token", &r, expected);
    free_run(&r);
    check_feed_pieces(s->name, model, tokens, expected);
    if (batches) check_batch(s->name, model, tokens);
    if (batches) check_scores(s->name, model, tokens, expected);
    corvid_model_close(model);
}

/* Everything on one level of kernels; n settings. */
static void check_invariance(const subject *s, const char *cpu, size_t n)
{
    int32_t tokens[T];
    corvid_model *model = open_subject(s, (setting){ 1, 0, cpu });
    tokens_of(model, tokens);
    run expected = run_whole(model, tokens, T);
    for (size_t i = 0; i < T * expected.V; i++)
        assert_true(isfinite(expected.logits[i]));
    check_large_batch(s->name, model, tokens);
    corvid_model_close(model);
    for (size_t i = 0; i < n; i++)
        check_setting(s, (setting){ settings[i].n_threads, settings[i].chunk, cpu }, i % 2 == 0,
                      tokens, &expected);
    free_run(&expected);
    print_message("%-28s %-6s %zu settings, the same bits\n", s->name, cpu ? cpu : "best", n);
}

static void test_ways_of_feeding(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_subjects; i++)
        check_invariance(&subjects[i], NULL, sizeof settings / sizeof *settings);
}

static void test_weight_types(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_typed; i++)
        check_invariance(&typed[i], NULL, 3);
}

/* The other levels promise the same; small models, because the plain C of "ref" is slow. */
static void test_ways_on_every_level(void **state)
{
    (void)state;
    const char *levels[4];
    const size_t n_levels = known_levels(levels);
    for (size_t level = 0; level < n_levels; level++) {
        if (!strcmp(levels[level], cv_cpu_level_name(cv_cpu_best()))) continue;
        for (size_t i = 0; i < n_subjects; i++)
            if (!strncmp(subjects[i].name, "lm_", 3))
                check_invariance(&subjects[i], levels[level], 3);
        for (size_t i = 0; i < n_typed; i++)
            if (typed[i].path ? levels[level][0] != 'r' : !strcmp(typed[i].shape, "rwkv7-tiny"))
                check_invariance(&typed[i], levels[level], 1);
    }
}

static void check_levels(const subject *s, const char *const *levels, size_t n_levels)
{
    int32_t tokens[T];
    run first = { 0 };
    for (size_t level = 0; level < n_levels; level++) {
        corvid_model *model = open_subject(s, (setting){ 2, 0, levels[level] });
        corvid_error err;
        corvid_model_info info = { .struct_size = sizeof info };
        ASSERT_OK(corvid_model_get_info(model, &info, &err), &err);
        assert_string_equal(info.cpu, levels[level]);
        tokens_of(model, tokens);
        run r = run_whole(model, tokens, T);
        if (level == 0) {
            first = r;
        } else {
            char title[96];
            snprintf(title, sizeof title, "%s %s and %s", s->name, levels[level], levels[0]);
            model_report(title, model_difference(r.logits, first.logits, T * r.V), 1e-4);
            free_run(&r);
        }
        corvid_model_close(model);
    }
    free_run(&first);
}

static void test_levels_agree(void **state)
{
    (void)state;
    const char *levels[4];
    const size_t n_levels = known_levels(levels);
    assert_string_equal(levels[0], "ref");
    for (size_t i = 0; i < n_subjects; i++)
        check_levels(&subjects[i], levels, n_levels);
    for (size_t i = 0; i < n_typed; i++)
        check_levels(&typed[i], levels, n_levels);
}

/* Different types of the same random weights are different models, and random ones depend on the
 * seed: otherwise the tests above would compare one model with itself. */
static void test_subjects_differ(void **state)
{
    (void)state;
    int32_t tokens[T];
    run before = { 0 };
    for (size_t i = 0; i < 7; i++) {
        corvid_model *model = open_subject(&typed[i], (setting){ 1, 0, NULL });
        tokens_of(model, tokens);
        run r = run_whole(model, tokens, T);
        if (i > 0) assert_true(model_difference(r.logits, before.logits, T * r.V) > 1e-6);
        free_run(&before);
        before = r;
        corvid_model_close(model);
    }
    free_run(&before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_double_precision), cmocka_unit_test(test_subjects_differ),
        cmocka_unit_test(test_ways_of_feeding),  cmocka_unit_test(test_weight_types),
        cmocka_unit_test(test_levels_agree),     cmocka_unit_test(test_ways_on_every_level),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
