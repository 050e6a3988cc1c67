/* test_memory.c - where memory goes, when there is none, and when work is stopped.
 *
 * Feeding allocates nothing; every allocation may fail and is answered by CORVID_E_MEMORY without a
 * leak; the estimate is what is taken; a limit is said before the weights are there; a cancelled or
 * refused feed leaves a stream that can be used. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_files.h"
#include "support.h"

/* ---- Calls of malloc and its kin ------------------------------------------------------------- */

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

#if defined(__GLIBC__) && !defined(SANITIZED)
#define COUNTS_MALLOC 1
static atomic_size_t malloc_calls;

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t count, size_t n);
extern void *__libc_realloc(void *ptr, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

/* These stand in front of the C library's for the whole program, its shared libraries included. */
void *malloc(size_t n)
{
    atomic_fetch_add(&malloc_calls, 1);
    return __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    atomic_fetch_add(&malloc_calls, 1);
    return __libc_calloc(count, n);
}

void *realloc(void *ptr, size_t n)
{
    atomic_fetch_add(&malloc_calls, 1);
    return __libc_realloc(ptr, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    atomic_fetch_add(&malloc_calls, 1);
    return __libc_memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
    atomic_fetch_add(&malloc_calls, 1);
    *out = __libc_memalign(align, n);
    return *out ? 0 : 12; /* ENOMEM */
}
#endif

static size_t mallocs(void)
{
#ifdef COUNTS_MALLOC
    return atomic_load(&malloc_calls);
#else
    return 0;
#endif
}

/* ---- Models ---------------------------------------------------------------------------------- */

static corvid_model_options options_with(test_allocator *a, size_t n_threads)
{
    corvid_model_options o;
    corvid_model_defaults(&o);
    o.n_threads = n_threads;
    o.allocator = a ? &a->api : NULL;
    return o;
}

/* lm_v7 in the format of the extension; small, so that every allocation can fail in turn. */
static const char *small_model(const char *name, const char *extension)
{
    char relative[64], file[64];
    corvid_error err;
    snprintf(relative, sizeof relative, "rwkv-tiny/reference/%s.safetensors", name);
    const char *from = test_data(relative);
    if (!from) return NULL;
    snprintf(file, sizeof file, "%s.safetensors", name);
    const char *plain = test_scratch(file);
    model_copy how = { .format = CV_SAFETENSORS, .prefix = "param.", .as_f32 = true };
    model_copy_write(from, plain, &how);
    if (!strcmp(extension, "safetensors")) return plain;
    snprintf(file, sizeof file, "%s.%s", name, extension);
    const char *path = test_scratch(file);
    how = (model_copy){ .format = CV_PTH, .legacy = !strcmp(extension, "legacy.pth") };
    if (strstr(extension, "pth"))
        model_copy_write(plain, path, &how);
    else
        ASSERT_OK(corvid_convert(plain, path, NULL, &err), &err);
    return path;
}

/* ---- Feeding allocates nothing --------------------------------------------------------------- */

/* All ways of feeding, over and over. */
static void feed_all_ways(corvid_stream *s, corvid_stream *r, const int32_t *tokens, size_t n,
                          float *logits, double *scores)
{
    corvid_error err;
    corvid_batch_item items[2] = { { s, tokens, 5, logits }, { r, tokens + 1, 9, NULL } };
    ASSERT_OK(corvid_feed(s, tokens, 1, logits, &err), &err);
    ASSERT_OK(corvid_feed(s, tokens, n, NULL, &err), &err);
    ASSERT_OK(corvid_feed_all(s, tokens, n, logits, &err), &err);
    ASSERT_OK(corvid_score(r, tokens, n, NULL, scores, NULL, NULL, &err), &err);
    ASSERT_OK(corvid_feed_batch(items, 2, &err), &err);
    ASSERT_OK(corvid_stream_copy(r, s, &err), &err);
    corvid_stream_reset(s);
}

static void test_feeding_allocates_nothing(void **state)
{
    (void)state;
    enum { N = 150, ROUNDS = 100 };
    static const char *const shapes[] = { "rwkv7-tiny", "rwkv6-tiny" };
    static const char *const types[] = { "f32", "q8_0" };
    corvid_error err;
    int32_t tokens[N];
    model_tokens(1, N, 256, tokens);
    for (size_t i = 0; i < 4; i++) {
        test_allocator a;
        corvid_model *model;
        test_allocator_init(&a);
        const corvid_model_options o = options_with(&a, 2);
        ASSERT_OK(corvid_model_random(shapes[i / 2], types[i % 2], 1, &o, &model, &err), &err);
        corvid_stream *s = model_stream(model), *r = model_stream(model);
        float *logits = malloc(N * 256 * sizeof *logits);
        double scores[N];
        assert_non_null(logits);
        feed_all_ways(s, r, tokens, N, logits, scores); /* the C library may set up things once */
        const size_t calls = a.calls, bytes = a.bytes, before = mallocs();
        for (size_t round = 0; round < ROUNDS; round++)
            feed_all_ways(s, r, tokens, round % 3 ? 3 : N, logits, scores);
        const size_t after = mallocs();
        assert_int_equal(a.calls, calls);
        assert_int_equal(a.bytes, bytes);
        assert_int_equal(after, before);
#ifdef COUNTS_MALLOC
        assert_true(before > 0); /* the counter is in place */
#endif
        print_message("%s %s: %d rounds of feeding, 0 allocations of ours, %zu calls of malloc%s\n",
                      shapes[i / 2], types[i % 2], ROUNDS, after - before,
                      before ? "" : " (not counted in this build)");
        free(logits);
        corvid_stream_free(s);
        corvid_stream_free(r);
        corvid_model_close(model);
        assert_int_equal(a.live, 0);
    }
}

/* ---- Every allocation fails once ------------------------------------------------------------- */

/* Opens, feeds, saves, loads, closes; the first status that is not OK. */
static corvid_status live_once(const char *path, test_allocator *a, size_t n_threads,
                               corvid_error *err)
{
    static const int32_t tokens[9] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    const char *file = test_scratch("memory.state");
    const corvid_model_options o = options_with(a, n_threads);
    corvid_model *model = NULL;
    corvid_stream *stream = NULL;
    float logits[9 * 64];
    corvid_status status = corvid_model_open(path, &o, &model, err);
    if (status != CORVID_OK) {
        assert_null(model);
        return status;
    }
    status = corvid_stream_new(model, &stream, err);
    if (status != CORVID_OK) assert_null(stream);
    if (status == CORVID_OK) status = corvid_feed_all(stream, tokens, 9, logits, err);
    if (status == CORVID_OK) status = corvid_state_save(stream, file, err);
    if (status == CORVID_OK) {
        /* A save that fails leaves the last one whole; what is loaded here is always that. */
        corvid_stream_reset(stream);
        status = corvid_state_load(stream, file, err);
        assert_int_equal(corvid_stream_position(stream), status == CORVID_OK ? 9 : 0);
    }
    corvid_stream_free(stream);
    corvid_model_close(model);
    return status;
}

static void fail_each(const char *file, size_t n_threads)
{
    test_allocator a;
    corvid_error err;
    char path[1024]; /* scratch names are in a few buffers that go round */
    snprintf(path, sizeof path, "%s", file);
    test_allocator_init(&a);
    ASSERT_OK(live_once(path, &a, n_threads, &err), &err);
    assert_int_equal(a.live, 0);
    const size_t n = a.calls;
    size_t n_refused = 0;
    for (size_t i = 1; i <= n; i++) {
        test_allocator_init(&a);
        a.fail_at = i;
        memset(&err, 0, sizeof err);
        const corvid_status status = live_once(path, &a, n_threads, &err);
        if (a.live != 0) fail_msg("allocation %zu of %zu fails: %zu blocks leak", i, n, a.live);
        if (status != CORVID_OK && status != CORVID_E_MEMORY)
            fail_msg("allocation %zu of %zu fails: status %d, %s", i, n, (int)status, err.text);
        if (status == CORVID_E_MEMORY) {
            assert_int_equal(err.status, CORVID_E_MEMORY);
            assert_true(strlen(err.text) > 10);
            n_refused++;
        }
    }
    print_message("%s, %zu threads: each of %zu allocations failed once, %zu times it was said\n",
                  strrchr(path, '/') + 1, n_threads, n, n_refused);
    assert_int_equal(n_refused, n); /* none is passed over in silence */
}

static void test_each_allocation_fails(void **state)
{
    (void)state;
    static const char *const kinds[] = { "safetensors", "gguf", "pth", "legacy.pth" };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const char *path = small_model("lm_v7", kinds[i]);
        if (!path) skip();
        fail_each(path, 1);
    }
    fail_each(small_model("lm_v4", "safetensors"), 1);
    fail_each(small_model("lm_v5_1", "safetensors"), 2);
    fail_each(small_model("lm_v6", "gguf"), 3);
}

/* ---- Estimates and limits -------------------------------------------------------------------- */

/* How far the estimate is from what was taken, relative to that. */
static double check_estimate(const char *path, size_t n_threads, size_t chunk)
{
    corvid_error err;
    corvid_memory memory;
    corvid_model *model;
    test_allocator a;
    test_allocator_init(&a);
    corvid_model_options o = options_with(&a, n_threads);
    o.chunk = chunk;
    ASSERT_OK(corvid_memory_estimate(path, &o, &memory, &err), &err);
    assert_int_equal(a.live, 0);
    const size_t asking = a.peak_bytes;
    assert_true(memory.available > 0);
    ASSERT_OK(corvid_model_open(path, &o, &model, &err), &err);
    const size_t opened = a.bytes, peak = a.peak_bytes;
    corvid_stream *stream = model_stream(model);
    const size_t all = a.bytes;
    const double estimate = (double)(memory.weights + memory.workspace + memory.state);
    const double off = fabs(estimate - (double)all) / (double)all;
    print_message("%s, %zu threads, chunk %zu: estimated %.0f, taken %zu (%.1f %% off), at most "
                  "while opening %zu, for asking %zu\n",
                  strrchr(path, '/') + 1, n_threads, chunk, estimate, all, 100.0 * off, peak,
                  asking);
    model_report("  state of a stream, relative",
                 fabs((double)memory.state - (double)(all - opened)) / (double)(all - opened),
                 0.05);
    corvid_model_info info = { .struct_size = sizeof info };
    ASSERT_OK(corvid_model_get_info(model, &info, &err), &err);
    assert_int_equal(info.weight_bytes, memory.weights);
    assert_int_equal(info.workspace_bytes, memory.workspace);
    assert_int_equal(info.state_bytes, memory.state);
    corvid_stream_free(stream);
    corvid_model_close(model);
    assert_int_equal(a.live, 0);
    return off;
}

static void test_estimate(void **state)
{
    (void)state;
    static const char *const names[] = { "4v0-660K-FP32", "5v1-730K-FP16", "5v2-730K-Q5_0",
                                         "6v0-3m-Q5_1", "7v0-834K-FP32" };
    corvid_error err;
    const char *wide = test_scratch("wide.safetensors"), *small = test_scratch("wide.gguf");
    corvid_convert_options c;
    corvid_convert_defaults(&c);
    c.type = "q4";
    model_write_wide(wide);
    ASSERT_OK(corvid_convert(wide, small, &c, &err), &err);
    double worst = check_estimate(wide, 1, 0);
    worst = fmax(worst, check_estimate(wide, 3, 512));
    worst = fmax(worst, check_estimate(small, 2, 0));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char relative[96];
        snprintf(relative, sizeof relative, "rwkv-tiny/tiny-rwkv-%s.bin", names[i]);
        const char *path = test_data(relative);
        if (path) worst = fmax(worst, check_estimate(path, 2, 0));
    }
    model_report("estimate and what was taken, relative", worst, 0.05);
}

/* A byte too little is refused, before anything of the size of the weights was taken. */
static void test_limit(void **state)
{
    (void)state;
    corvid_error err = { 0 };
    corvid_memory memory;
    corvid_model *model;
    test_allocator a;
    const char *wide = test_scratch("wide.safetensors");
    model_write_wide(wide);
    test_allocator_init(&a);
    corvid_model_options o = options_with(&a, 1);
    ASSERT_OK(corvid_memory_estimate(wide, &o, &memory, &err), &err);
    const uint64_t need = memory.weights + memory.workspace + memory.state;

    test_allocator_init(&a);
    o.memory_limit = need - 1;
    assert_int_equal(corvid_model_open(wide, &o, &model, &err), CORVID_E_MEMORY);
    assert_null(model);
    assert_int_equal(a.live, 0);
    print_message("%s\n", err.text);
    print_message("refused after taking %zu bytes at most; the weights have %llu\n", a.peak_bytes,
                  (unsigned long long)memory.weights);
    assert_true(a.peak_bytes < memory.weights / 20);
    assert_non_null(strstr(err.text, "MiB"));

    o.memory_limit = need;
    ASSERT_OK(corvid_model_open(wide, &o, &model, &err), &err);
    corvid_model_close(model);
    assert_int_equal(a.live, 0);

    test_allocator_init(&a);
    o.memory_limit = 1;
    assert_int_equal(corvid_model_random("rwkv7-2.9b", "f32", 1, &o, &model, &err),
                     CORVID_E_MEMORY);
    assert_true(a.peak_bytes < 1 << 20);
    assert_int_equal(a.live, 0);
}

/* ---- Stopping -------------------------------------------------------------------------------- */

typedef struct patience {
    int left; /* times it is asked before it stops */
    int asked;
} patience;

static int stop_when_done(void *ctx)
{
    patience *p = ctx;
    p->asked++;
    return p->left-- <= 0;
}

/* Cancelled between chunks, a stream is where it says, and goes on from there. */
static void test_cancelled_feeding(void **state)
{
    (void)state;
    enum { N = 100, CHUNK = 16 };
    corvid_error err = { 0 };
    corvid_model *model;
    patience p = { 1 << 30, 0 };
    corvid_model_options o = options_with(NULL, 2);
    o.chunk = CHUNK;
    o.cancel = stop_when_done;
    o.callback_ctx = &p;
    ASSERT_OK(corvid_model_random("rwkv7-tiny", "f32", 1, &o, &model, &err), &err);
    int32_t tokens[N];
    float expected[256], logits[256];
    model_tokens(2, N, 256, tokens);
    corvid_stream *s = model_stream(model);
    ASSERT_OK(corvid_feed(s, tokens, N, expected, &err), &err);
    for (int left = 0; left < 6; left++) {
        corvid_stream_reset(s);
        p.left = left;
        assert_int_equal(corvid_feed(s, tokens, N, logits, &err), CORVID_E_CANCELLED);
        assert_int_equal(err.status, CORVID_E_CANCELLED);
        const size_t at = (size_t)corvid_stream_position(s);
        assert_int_equal(at, (size_t)(left + 1) * CHUNK);
        p.left = 1 << 30;
        ASSERT_OK(corvid_feed(s, tokens + at, N - at, logits, &err), &err);
        model_same_bits("after cancelling", logits, expected, sizeof logits);
    }
    /* Nothing is left to stop after the last chunk. */
    corvid_stream_reset(s);
    p.left = 6;
    ASSERT_OK(corvid_feed(s, tokens, N, logits, &err), &err);
    corvid_stream_free(s);
    corvid_model_close(model);
}

static void test_cancelled_batch(void **state)
{
    (void)state;
    enum { N = 60, CHUNK = 16, STREAMS = 3 };
    corvid_error err = { 0 };
    corvid_model *model;
    patience p = { 1 << 30, 0 };
    corvid_model_options o = options_with(NULL, 1);
    o.chunk = CHUNK;
    o.cancel = stop_when_done;
    o.callback_ctx = &p;
    ASSERT_OK(corvid_model_random("rwkv6-tiny", "f32", 1, &o, &model, &err), &err);
    int32_t tokens[STREAMS][N];
    float expected[STREAMS][256], logits[STREAMS][256];
    corvid_stream *s[STREAMS];
    for (size_t i = 0; i < STREAMS; i++) {
        model_tokens(i, N, 256, tokens[i]);
        s[i] = model_stream(model);
        ASSERT_OK(corvid_feed(s[i], tokens[i], N, expected[i], &err), &err);
    }
    for (int left = 0; left < 11; left++) {
        corvid_batch_item items[STREAMS];
        for (size_t i = 0; i < STREAMS; i++) {
            corvid_stream_reset(s[i]);
            items[i] = (corvid_batch_item){ s[i], tokens[i], N, logits[i] };
        }
        p.left = left;
        assert_int_equal(corvid_feed_batch(items, STREAMS, &err), CORVID_E_CANCELLED);
        p.left = 1 << 30;
        size_t done = 0;
        for (size_t i = 0; i < STREAMS; i++) {
            const size_t at = (size_t)corvid_stream_position(s[i]);
            done += at;
            if (at < N) ASSERT_OK(corvid_feed(s[i], tokens[i] + at, N - at, logits[i], &err), &err);
            model_same_bits("after cancelling a batch", logits[i], expected[i], sizeof expected[i]);
        }
        assert_int_equal(done, (size_t)(left + 1) * CHUNK);
    }
    for (size_t i = 0; i < STREAMS; i++)
        corvid_stream_free(s[i]);
    corvid_model_close(model);
}

static void test_cancelled_opening(void **state)
{
    (void)state;
    corvid_error err = { 0 };
    corvid_model *model;
    test_allocator a;
    const char *wide = test_scratch("wide.safetensors");
    model_write_wide(wide);
    for (int left = 0; left < 5; left++) {
        patience p = { left, 0 };
        test_allocator_init(&a);
        corvid_model_options o = options_with(&a, 1);
        o.cancel = stop_when_done;
        o.callback_ctx = &p;
        assert_int_equal(corvid_model_open(wide, &o, &model, &err), CORVID_E_CANCELLED);
        assert_null(model);
        assert_int_equal(p.asked, left + 1);
        assert_int_equal(a.live, 0);
    }
}

/* ---- Wrong tokens ---------------------------------------------------------------------------- */

static void expect_unchanged(corvid_model *model, corvid_stream *s, const float *before,
                             uint64_t position)
{
    corvid_error err;
    const size_t n = corvid_state_floats(model);
    float *now = malloc(n * sizeof *now);
    assert_non_null(now);
    ASSERT_OK(corvid_state_get(s, now, &err), &err);
    model_same_bits("the state after a refusal", now, before, n * sizeof *now);
    assert_int_equal(corvid_stream_position(s), position);
    free(now);
}

static void test_wrong_tokens(void **state)
{
    (void)state;
    enum { N = 200 };
    static const int32_t wrong[] = { -1, 256, 257, INT32_MAX, INT32_MIN };
    static const size_t places[] = { 0, 1, 127, 128, 199 };
    corvid_error err = { 0 };
    corvid_model *model;
    const corvid_model_options o = options_with(NULL, 1);
    ASSERT_OK(corvid_model_random("rwkv7-tiny", "f32", 1, &o, &model, &err), &err);
    const size_t floats = corvid_state_floats(model);
    int32_t tokens[N];
    double scores[N];
    float *before = malloc(floats * sizeof *before), *logits = malloc(N * 256 * sizeof *logits);
    assert_true(before && logits);
    corvid_stream *s = model_stream(model), *r = model_stream(model);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        for (size_t j = 0; j < sizeof places / sizeof *places; j++) {
            model_tokens(i, N, 256, tokens);
            ASSERT_OK(corvid_feed(s, tokens, 3, NULL, &err), &err);
            ASSERT_OK(corvid_stream_copy(r, s, &err), &err);
            ASSERT_OK(corvid_state_get(s, before, &err), &err);
            const uint64_t position = corvid_stream_position(s);
            tokens[places[j]] = wrong[i];
            const corvid_batch_item items[2] = { { r, (const int32_t[]){ 1, 2 }, 2, NULL },
                                                 { s, tokens, N, logits } };
            assert_int_equal(corvid_feed(s, tokens, N, logits, &err), CORVID_E_ARGUMENT);
            assert_int_equal(corvid_feed_all(s, tokens, N, logits, &err), CORVID_E_ARGUMENT);
            assert_int_equal(corvid_score(s, tokens, N, NULL, scores, NULL, NULL, &err),
                             CORVID_E_ARGUMENT);
            assert_int_equal(corvid_feed_batch(items, 2, &err), CORVID_E_ARGUMENT);
            expect_unchanged(model, s, before, position);
            expect_unchanged(model, r, before, position);
            assert_true(strlen(err.text) > 10);
        }
    /* The same stream twice in a batch, and two models in one. */
    corvid_model *other;
    ASSERT_OK(corvid_model_random("rwkv7-tiny", "f32", 1, &o, &other, &err), &err);
    corvid_stream *foreign = model_stream(other);
    const corvid_batch_item twice[2] = { { s, (const int32_t[]){ 1 }, 1, NULL },
                                         { s, (const int32_t[]){ 2 }, 1, NULL } };
    const corvid_batch_item mixed[2] = { { s, (const int32_t[]){ 1 }, 1, NULL },
                                         { foreign, (const int32_t[]){ 2 }, 1, NULL } };
    const uint64_t position = corvid_stream_position(s);
    assert_int_equal(corvid_feed_batch(twice, 2, &err), CORVID_E_ARGUMENT);
    assert_int_equal(corvid_feed_batch(mixed, 2, &err), CORVID_E_MISMATCH);
    expect_unchanged(model, s, before, position);
    /* No tokens: nothing happens, and no logits are written. */
    logits[0] = 12345.0f;
    ASSERT_OK(corvid_feed(s, NULL, 0, logits, &err), &err);
    ASSERT_OK(corvid_feed_batch(NULL, 0, &err), &err);
    assert_true(logits[0] == 12345.0f);
    expect_unchanged(model, s, before, position);
    free(before);
    free(logits);
    corvid_stream_free(s);
    corvid_stream_free(r);
    corvid_stream_free(foreign);
    corvid_model_close(model);
    corvid_model_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_feeding_allocates_nothing),
        cmocka_unit_test(test_each_allocation_fails),
        cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_cancelled_feeding),
        cmocka_unit_test(test_cancelled_batch),
        cmocka_unit_test(test_cancelled_opening),
        cmocka_unit_test(test_wrong_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
