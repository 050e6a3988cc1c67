/* test_states.c - a stream's state as a value: saved, loaded, copied, set, tuned.
 *
 * Going on from a state gives the bits of never having stopped; a state file is whole and of this
 * model, or it is refused and the stream stays as it was. */
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "model_files.h"
#include "pth_fixture.h"
#include "reference.h"
#include "support.h"

enum { T = 60 };

/* ---- Models ---------------------------------------------------------------------------------- */

/* lm_NAME as a file that the library opens; NULL without the reference data. */
static const char *lm_file(const char *name)
{
    char relative[64], file[64];
    snprintf(relative, sizeof relative, "rwkv-tiny/reference/lm_%s.safetensors", name);
    snprintf(file, sizeof file, "lm_%s.safetensors", name);
    const char *from = test_data(relative);
    if (!from) {
        print_message("SKIP: no %s in the reference data\n", relative);
        return NULL;
    }
    const char *path = test_scratch(file);
    const model_copy how = { .format = CV_SAFETENSORS, .prefix = "param.", .as_f32 = true };
    model_copy_write(from, path, &how);
    return path;
}

static corvid_model *random_model(const char *shape, const char *type, uint64_t seed)
{
    corvid_error err;
    corvid_model *model;
    corvid_model_options options;
    corvid_model_defaults(&options);
    options.n_threads = 1;
    ASSERT_OK(corvid_model_random(shape, type, seed, &options, &model, &err), &err);
    return model;
}

/* What a stream is: state and position. */
typedef struct snapshot {
    size_t n;
    float *values;
    uint64_t position;
} snapshot;

static snapshot take_snapshot(corvid_model *model, const corvid_stream *stream)
{
    corvid_error err;
    snapshot s = { .n = corvid_state_floats(model), .position = corvid_stream_position(stream) };
    s.values = malloc(s.n * sizeof *s.values);
    assert_non_null(s.values);
    ASSERT_OK(corvid_state_get(stream, s.values, &err), &err);
    return s;
}

static void expect_snapshot(const char *what, const corvid_stream *stream, const snapshot *s)
{
    corvid_error err;
    float *values = malloc(s->n * sizeof *values);
    assert_non_null(values);
    ASSERT_OK(corvid_state_get(stream, values, &err), &err);
    model_same_bits(what, values, s->values, s->n * sizeof *values);
    assert_int_equal(corvid_stream_position(stream), s->position);
    free(values);
}

/* ---- Going on -------------------------------------------------------------------------------- */

/* Four ways to stop half way and go on, each against never having stopped. */
static void check_going_on(const char *name, corvid_model *model)
{
    corvid_error err;
    int32_t tokens[T];
    const size_t V = model_vocab(model), half = 23;
    const char *file = test_scratch("half.state");
    float *expected = malloc(T * V * sizeof *expected), *logits = malloc(T * V * sizeof *logits);
    assert_true(expected && logits);
    model_tokens(8, T, V, tokens);
    corvid_stream *stream = model_stream(model), *other = model_stream(model);
    ASSERT_OK(corvid_feed_all(stream, tokens, T, expected, &err), &err);
    const snapshot end = take_snapshot(model, stream);
    const float *second = expected + half * V;
    const size_t bytes = (T - half) * V * sizeof *logits;

    corvid_stream_reset(stream);
    ASSERT_OK(corvid_feed(stream, tokens, half, NULL, &err), &err);
    const snapshot middle = take_snapshot(model, stream);
    ASSERT_OK(corvid_state_save(stream, file, &err), &err);
    expect_snapshot("saving changes nothing", stream, &middle);

    ASSERT_OK(corvid_feed(other, tokens + 9, 11, NULL, &err), &err); /* something to replace */
    ASSERT_OK(corvid_state_load(other, file, &err), &err);
    expect_snapshot("loaded", other, &middle);
    ASSERT_OK(corvid_feed_all(other, tokens + half, T - half, logits, &err), &err);
    model_same_bits(name, logits, second, bytes);
    expect_snapshot("end after loading", other, &end);

    ASSERT_OK(corvid_stream_copy(other, stream, &err), &err);
    expect_snapshot("copied", other, &middle);
    ASSERT_OK(corvid_feed_all(other, tokens + half, T - half, logits, &err), &err);
    model_same_bits(name, logits, second, bytes);
    expect_snapshot("the source of a copy", stream, &middle);

    corvid_stream_reset(other);
    ASSERT_OK(corvid_state_set(other, middle.values, half, &err), &err);
    expect_snapshot("set", other, &middle);
    ASSERT_OK(corvid_feed_all(other, tokens + half, T - half, logits, &err), &err);
    model_same_bits(name, logits, second, bytes);
    expect_snapshot("end after setting", other, &end);

    corvid_stream_reset(other);
    assert_int_equal(corvid_stream_position(other), 0);
    ASSERT_OK(corvid_feed_all(other, tokens, T, logits, &err), &err);
    model_same_bits(name, logits, expected, T * V * sizeof *logits);
    print_message("%-28s save and load, copy, set, reset: the same bits\n", name);

    free(end.values);
    free(middle.values);
    free(expected);
    free(logits);
    corvid_stream_free(stream);
    corvid_stream_free(other);
}

static void test_going_on(void **state)
{
    (void)state;
    static const char *const lm[] = { "v4", "v5_0", "v5_1", "v5_2", "v6", "v7" };
    static const char *const shapes[] = { "rwkv7-tiny", "rwkv6-tiny" };
    for (size_t i = 0; i < sizeof lm / sizeof *lm; i++) {
        const char *path = lm_file(lm[i]);
        if (!path) continue;
        corvid_model *model = model_open(path, 1, 0);
        check_going_on(lm[i], model);
        corvid_model_close(model);
    }
    for (size_t i = 0; i < 2; i++) {
        corvid_model *model = random_model(shapes[i], i ? "q8_0" : "f32", 1);
        check_going_on(shapes[i], model);
        corvid_model_close(model);
    }
}

/* A state saved by one opening of a model is good for another: other threads, another chunk. */
static void test_other_opening(void **state)
{
    (void)state;
    const char *path = lm_file("v7");
    if (!path) skip();
    corvid_error err;
    int32_t tokens[T];
    corvid_model *first = model_open(path, 1, 0), *second = model_open(path, 2, 0);
    const size_t V = model_vocab(first);
    float a[64], b[64];
    assert_true(V <= 64);
    model_tokens(8, T, V, tokens);
    corvid_stream *s = model_stream(first), *r = model_stream(second);
    ASSERT_OK(corvid_feed(s, tokens, 30, NULL, &err), &err);
    ASSERT_OK(corvid_state_save(s, test_scratch("other.state"), &err), &err);
    ASSERT_OK(corvid_state_load(r, test_scratch("other.state"), &err), &err);
    ASSERT_OK(corvid_feed(s, tokens + 30, 30, a, &err), &err);
    ASSERT_OK(corvid_feed(r, tokens + 30, 30, b, &err), &err);
    model_same_bits("another opening", a, b, V * sizeof *a);
    assert_int_equal(corvid_stream_copy(r, s, &err), CORVID_E_MISMATCH);
    corvid_stream_free(s);
    corvid_stream_free(r);
    corvid_model_close(first);
    corvid_model_close(second);
}

/* ---- Refusals -------------------------------------------------------------------------------- */

/* Loading gives the status, a sentence, and the stream as it was. */
static void expect_refusal(corvid_stream *stream, const char *path, corvid_status expected,
                           const snapshot *before)
{
    corvid_error err = { 0 };
    const corvid_status status = corvid_state_load(stream, path, &err);
    if (status != expected)
        fail_msg("%s: status %d, expected %d: %s", path, (int)status, (int)expected, err.text);
    assert_int_equal(err.status, expected);
    assert_true(strlen(err.text) > 10);
    expect_snapshot("after a refusal", stream, before);
}

static void test_other_models(void **state)
{
    (void)state;
    corvid_error err;
    int32_t tokens[T];
    const char *file = test_scratch("mine.state");
    corvid_model *models[] = { random_model("rwkv7-tiny", "f32", 1),
                               random_model("rwkv7-tiny", "f32", 2),
                               random_model("rwkv7-tiny", "f16", 1),
                               random_model("rwkv6-tiny", "f32", 1),
                               NULL,
                               NULL };
    const char *v4 = lm_file("v4"), *v7 = lm_file("v7");
    if (v4) models[4] = model_open(v4, 1, 0);
    if (v7) models[5] = model_open(v7, 1, 0);
    model_tokens(1, T, 13, tokens);
    corvid_stream *mine = model_stream(models[0]);
    ASSERT_OK(corvid_feed(mine, tokens, T, NULL, &err), &err);
    ASSERT_OK(corvid_state_save(mine, file, &err), &err);
    for (size_t i = 1; i < sizeof models / sizeof *models; i++) {
        if (!models[i]) continue;
        corvid_stream *other = model_stream(models[i]);
        ASSERT_OK(corvid_feed(other, tokens, 5, NULL, &err), &err);
        const snapshot before = take_snapshot(models[i], other);
        expect_refusal(other, file, CORVID_E_MISMATCH, &before);
        corvid_stream_free(other);
        free(before.values);
    }
    /* A small state in a large model, too: the other way round. */
    if (models[5]) {
        corvid_stream *small = model_stream(models[5]);
        const snapshot before = take_snapshot(models[0], mine);
        ASSERT_OK(corvid_state_save(small, file, &err), &err);
        expect_refusal(mine, file, CORVID_E_MISMATCH, &before);
        corvid_stream_free(small);
        free(before.values);
    }
    corvid_stream_free(mine);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        corvid_model_close(models[i]);
}

/* A stream of lm_v4 or lm_v7 with a saved state, and what is to stay. */
typedef struct bench {
    corvid_model *model;
    corvid_stream *stream;
    snapshot before;
    char *bytes;
    size_t n;
} bench;

/* False without the reference data. */
static bool set_bench(bench *b, const char *name)
{
    corvid_error err;
    int32_t tokens[T];
    const char *path = lm_file(name), *file = test_scratch("bench.state");
    if (!path) return false;
    b->model = model_open(path, 1, 0);
    b->stream = model_stream(b->model);
    model_tokens(2, T, model_vocab(b->model), tokens);
    ASSERT_OK(corvid_feed(b->stream, tokens, T, NULL, &err), &err);
    ASSERT_OK(corvid_state_save(b->stream, file, &err), &err);
    b->bytes = test_read_file(file, &b->n);
    ASSERT_OK(corvid_feed(b->stream, tokens, 7, NULL, &err), &err);
    b->before = take_snapshot(b->model, b->stream);
    return true;
}

static void free_bench(bench *b)
{
    free(b->before.values);
    free(b->bytes);
    corvid_stream_free(b->stream);
    corvid_model_close(b->model);
}

/* Anything but OK, and the stream as it was. */
static void expect_damage_seen(bench *b, const void *bytes, size_t n, const char *what, size_t at)
{
    corvid_error err = { 0 };
    const char *file = test_scratch("damaged.state");
    test_write_file(file, bytes, n);
    const corvid_status status = corvid_state_load(b->stream, file, &err);
    if (status != CORVID_E_FORMAT && status != CORVID_E_MISMATCH)
        fail_msg("%s %zu: status %d", what, at, (int)status);
    assert_true(strlen(err.text) > 10);
    expect_snapshot(what, b->stream, &b->before);
}

/* Every length of the header and of what follows, up to the whole file less one byte. */
static void test_cut_short(void **state)
{
    (void)state;
    bench b;
    if (!set_bench(&b, "v4")) skip();
    for (size_t n = 0; n < b.n; n++)
        expect_damage_seen(&b, b.bytes, n, "cut to", n);
    char *longer = malloc(b.n + 9);
    assert_non_null(longer);
    memcpy(longer, b.bytes, b.n);
    memset(longer + b.n, 0, 9);
    expect_damage_seen(&b, longer, b.n + 1, "lengthened by", 1);
    expect_damage_seen(&b, longer, b.n + 9, "lengthened by", 9);
    corvid_error err = { 0 };
    assert_int_equal(corvid_state_load(b.stream, test_scratch("none.state"), &err), CORVID_E_FILE);
    expect_snapshot("no file", b.stream, &b.before);
    print_message("%zu lengths of a state file of %zu bytes refused\n", b.n, b.n);
    test_write_file(test_scratch("whole.state"), b.bytes, b.n);
    ASSERT_OK(corvid_state_load(b.stream, test_scratch("whole.state"), &err), &err);
    free(longer);
    free_bench(&b);
}

/* Every single bit of a small file; of a larger one 10,000. */
static void check_flips(const char *name)
{
    bench b;
    if (!set_bench(&b, name)) return;
    const size_t bits = 8 * b.n, n = bits < 10000 ? bits : 10000;
    uint64_t seed = 1;
    for (size_t i = 0; i < n; i++) {
        const size_t bit = bits == n ? i : (size_t)model_random(&seed, bits);
        b.bytes[bit / 8] = (char)(b.bytes[bit / 8] ^ 1 << bit % 8);
        expect_damage_seen(&b, b.bytes, b.n, "bit", bit);
        b.bytes[bit / 8] = (char)(b.bytes[bit / 8] ^ 1 << bit % 8);
    }
    print_message("%-10s %zu of %zu bits flipped one at a time, all noticed\n", name, n, bits);
    free_bench(&b);
}

static void test_flipped_bits(void **state)
{
    (void)state;
    check_flips("v4");
    check_flips("v7");
}

/* ---- Killed while saving --------------------------------------------------------------------- */

/* Saves the two streams in turns until it is killed. */
static void save_for_ever(const corvid_stream *a, const corvid_stream *b, const char *path,
                          int ready)
{
    char byte = 1;
    corvid_error err;
    if (write(ready, &byte, 1) != 1) _exit(2);
    for (;;) {
        if (corvid_state_save(b, path, &err) != CORVID_OK) _exit(3);
        if (corvid_state_save(a, path, &err) != CORVID_OK) _exit(4);
    }
}

/* Removes what a killed save leaves beside its target; returns how many files. */
static size_t remove_leftovers(const char *folder, const char *target)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char path[1600];
        if (entry->d_name[0] == '.' && strlen(entry->d_name) < 3) continue;
        if (!strcmp(entry->d_name, target)) continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        assert_int_equal(unlink(path), 0);
        n++;
    }
    closedir(dir);
    return n;
}

static void kill_one_save(const corvid_stream *a, const corvid_stream *b, const char *path,
                          useconds_t after)
{
    int ready[2], status;
    char byte;
    assert_int_equal(pipe(ready), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) save_for_ever(a, b, path, ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    usleep(after);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status)) fail_msg("saving failed in the child: %d", WEXITSTATUS(status));
    close(ready[0]);
    close(ready[1]);
}

/* Microseconds that a save takes here and now. */
static uint64_t time_saves(const corvid_stream *stream, const char *path)
{
    enum { SAVES = 10 };
    corvid_error err;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < SAVES; i++)
        ASSERT_OK(corvid_state_save(stream, path, &err), &err);
    clock_gettime(CLOCK_MONOTONIC, &end);
    const int64_t ns =
        (int64_t)(end.tv_sec - begin.tv_sec) * 1000000000 + (int64_t)(end.tv_nsec - begin.tv_nsec);
    return (uint64_t)ns / 1000 / SAVES + 1;
}

/* A save is killed 200 times at random moments: the file is always one of the two states. */
static void test_killed_while_saving(void **state)
{
    (void)state;
    enum { KILLS = 200 };
    corvid_error err;
    int32_t tokens[T];
    char folder[1024], path[1100];
    corvid_model *model = random_model("rwkv7-tiny", "f32", 1);
    corvid_stream *a = model_stream(model), *b = model_stream(model), *c = model_stream(model);
    model_tokens(3, T, 256, tokens);
    ASSERT_OK(corvid_feed(a, tokens, 20, NULL, &err), &err);
    ASSERT_OK(corvid_feed(b, tokens, 40, NULL, &err), &err);
    const snapshot first = take_snapshot(model, a), second = take_snapshot(model, b);
    snprintf(folder, sizeof folder, "%s", test_scratch("kills.XXXXXX"));
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/victim.state", folder);
    const uint64_t save_us = time_saves(a, path);

    size_t n_first = 0, n_left = 0;
    uint64_t seed = (uint64_t)getpid();
    for (int i = 0; i < KILLS; i++) {
        kill_one_save(a, b, path, (useconds_t)model_random(&seed, 8 * save_us));
        ASSERT_OK(corvid_state_load(c, path, &err), &err);
        const bool is_first = corvid_stream_position(c) == first.position;
        expect_snapshot("after a kill", c, is_first ? &first : &second);
        n_first += is_first;
        n_left += remove_leftovers(folder, "victim.state");
    }
    print_message("%d kills while saving: the file was whole each time (%zu the one state, %zu the "
                  "other; %zu temporary files were left)\n",
                  KILLS, n_first, KILLS - n_first, n_left);
    free(first.values);
    free(second.values);
    corvid_stream_free(a);
    corvid_stream_free(b);
    corvid_stream_free(c);
    corvid_model_close(model);
}

/* ---- Tuned states ---------------------------------------------------------------------------- */

enum { MAX_LAYERS = 4, MAX_MEMORY = 512 };

/* Random time_state tensors for a model of L layers, H heads of N: not symmetric, so that an
 * exchange of rows and columns shows. */
typedef struct tuned {
    size_t n;
    cv_tensor tensors[MAX_LAYERS];
    char names[MAX_LAYERS][64];
    float values[MAX_LAYERS][MAX_MEMORY];
    uint16_t halves[MAX_LAYERS][MAX_MEMORY]; /* the same in bf16 */
    const void *data[MAX_LAYERS];
} tuned;

static void make_tuned(tuned *t, size_t L, size_t H, size_t N, cv_dtype type)
{
    uint64_t seed = 77;
    assert_true(L <= MAX_LAYERS && H * N * N <= MAX_MEMORY);
    t->n = L;
    for (size_t l = 0; l < L; l++) {
        snprintf(t->names[l], sizeof t->names[l], "blocks.%zu.att.time_state", l);
        t->tensors[l] = (cv_tensor){ .name = t->names[l],
                                     .dtype = type,
                                     .n_dims = 3,
                                     .dims = { H, N, N },
                                     .count = H * N * N,
                                     .contiguous = true };
        for (size_t i = 0; i < H * N * N; i++) {
            const float x = (float)((double)model_random(&seed, 2001) / 1000.0 - 1.0);
            t->halves[l][i] = cv_f32_to_bf16(x);
            t->values[l][i] = cv_bf16_to_f32(t->halves[l][i]);
        }
        t->data[l] = type == CV_F32 ? (const void *)t->values[l] : (const void *)t->halves[l];
    }
}

/* The library against double precision, from the tuned state on. */
static void check_tuned_model(const char *name, const char *path, const tuned *t)
{
    corvid_error err;
    int32_t tokens[T];
    char title[96];
    ref_model *ref = ref_open(path, 0);
    corvid_model *model = model_open(path, 1, 0);
    corvid_stream *stream = model_stream(model);
    const size_t C = ref->C, V = ref->V, size = ref->layer_floats;
    snapshot start = take_snapshot(model, stream);
    for (size_t l = 0; l < ref->L; l++) {
        for (size_t i = 0; i < 2 * C; i++)
            assert_true(start.values[l * size + i] == 0.0f);
        model_same_bits("state [head][value][key]", start.values + l * size + 2 * C, t->values[l],
                        t->tensors[l].count * sizeof(float));
    }
    double *exact = malloc(T * V * sizeof *exact);
    float *logits = malloc(T * V * sizeof *logits);
    assert_true(exact && logits);
    model_tokens(6, T, V, tokens);
    ref_feed(ref, tokens, T, exact);
    ASSERT_OK(corvid_feed_all(stream, tokens, T, logits, &err), &err);
    snprintf(title, sizeof title, "lm_%s with time_state, logits", name);
    model_report(title, model_difference_to(logits, exact, T * V), 1e-4);
    snapshot end = take_snapshot(model, stream);
    snprintf(title, sizeof title, "lm_%s with time_state, state", name);
    model_report(title, model_difference_to(end.values, ref->state, end.n), 1e-4);
    corvid_stream_reset(stream);
    expect_snapshot("reset to the tuned state", stream, &start);
    free(start.values);
    free(end.values);
    free(exact);
    free(logits);
    ref_close(ref);
    corvid_stream_free(stream);
    corvid_model_close(model);
}

/* The same state as a file of its own, loaded into the model without it. */
static void check_tuned_file(const char *name, const char *plain, const char *merged,
                             const char *file)
{
    corvid_error err;
    int32_t tokens[T];
    corvid_model *a = model_open(plain, 1, 0), *b = model_open(merged, 1, 0);
    corvid_stream *s = model_stream(a), *r = model_stream(b);
    const size_t V = model_vocab(a);
    float *x = malloc(T * V * sizeof *x), *y = malloc(T * V * sizeof *y), *z = malloc(T * V * 4);
    assert_true(x && y && z);
    model_tokens(6, T, V, tokens);
    ASSERT_OK(corvid_feed_all(s, tokens, T, z, &err), &err);
    ASSERT_OK(corvid_state_load(s, file, &err), &err);
    assert_int_equal(corvid_stream_position(s), 0);
    ASSERT_OK(corvid_feed_all(s, tokens, T, x, &err), &err);
    ASSERT_OK(corvid_feed_all(r, tokens, T, y, &err), &err);
    model_same_bits(name, x, y, T * V * sizeof *x);
    assert_true(model_difference(x, z, T * V) > 1e-3); /* it does something */
    free(x);
    free(y);
    free(z);
    corvid_stream_free(s);
    corvid_stream_free(r);
    corvid_model_close(a);
    corvid_model_close(b);
}

/* [state.order]: time_state is [head][value][key] in every version. */
static void test_tuned(void **state)
{
    (void)state;
    static const char *const lm[] = { "v5_0", "v5_1", "v5_2", "v6", "v7" };
    static tuned t;
    for (size_t i = 0; i < sizeof lm / sizeof *lm; i++) {
        const char *plain = lm_file(lm[i]);
        if (!plain) continue;
        const char *merged = test_scratch("merged.safetensors"), *file = test_scratch("tuned.pth");
        for (int form = 0; form < 3; form++) { /* f32 zip, bf16 zip, f32 legacy */
            make_tuned(&t, 3, 2, 8, form == 1 ? CV_BF16 : CV_F32);
            const model_copy how = {
                .format = CV_SAFETENSORS, .extra = t.tensors, .extra_data = t.data, .n_extra = t.n
            };
            model_copy_write(plain, merged, &how);
            if (form == 0) check_tuned_model(lm[i], merged, &t);
            pth_fixture_write(file, t.tensors, t.n, t.data, form == 2);
            check_tuned_file(lm[i], plain, merged, file);
        }
    }
}

/* Of another shape, incomplete, for v4, or no state at all. */
static void test_tuned_refused(void **state)
{
    (void)state;
    static tuned t;
    corvid_error err;
    bench b, four;
    if (!set_bench(&b, "v7") || !set_bench(&four, "v4")) skip();
    const char *file = test_scratch("wrong.pth");
    make_tuned(&t, 3, 2, 8, CV_F32);
    pth_fixture_write(file, t.tensors, t.n, t.data, false);
    expect_refusal(four.stream, file, CORVID_E_MISMATCH, &four.before);
    ASSERT_OK(corvid_state_load(b.stream, file, &err), &err);
    free(b.before.values);
    b.before = take_snapshot(b.model, b.stream);
    pth_fixture_write(file, t.tensors, 2, t.data, false); /* a layer is missing */
    expect_refusal(b.stream, file, CORVID_E_MISMATCH, &b.before);
    make_tuned(&t, 3, 2, 4, CV_F32); /* heads of 4 */
    pth_fixture_write(file, t.tensors, t.n, t.data, false);
    expect_refusal(b.stream, file, CORVID_E_MISMATCH, &b.before);
    test_write_file(file, "PK\3\4 nothing of the kind", 25);
    expect_refusal(b.stream, file, CORVID_E_FORMAT, &b.before);
    test_write_file(file, "nothing of the kind", 19);
    expect_refusal(b.stream, file, CORVID_E_FORMAT, &b.before);
    free_bench(&b);
    free_bench(&four);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_going_on),     cmocka_unit_test(test_other_opening),
        cmocka_unit_test(test_other_models), cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_flipped_bits), cmocka_unit_test(test_killed_while_saving),
        cmocka_unit_test(test_tuned),        cmocka_unit_test(test_tuned_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
