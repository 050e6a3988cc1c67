/* test_pictures.c - what a vision model gives does not depend on how it is shown pictures, and what
 * it takes is what it says.
 *
 * Any number of threads, alone or beside others, in one call or several, as pixels or as numbers:
 * the same bits, on every level of kernels.  Working memory is as promised; no allocation is passed
 * over in silence; wrong arguments change nothing. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_files.h"
#include "support.h"
#include "vision_files.h"

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

/* These stand in front of the C library's for the whole program. */
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

/* Small ones of every kind; 40 and 80 channels are no whole number of panels for some of their
 * matrices. */
typedef struct subject {
    const char *name;
    vision_small small;
    const char *type; /* NULL: f32 as written */
    const char *path;
} subject;

static subject subjects[] = {
    { "pre", { .like = "vrwkv-t", .C = 40, .L = 3, .p = 8, .G = 16, .K = 10 }, NULL, NULL },
    { "post", { .like = "vrwkv-s", .C = 48, .L = 2, .p = 4, .G = 9, .K = 7 }, NULL, NULL },
    { "L", { .like = "vrwkv-l", .C = 32, .L = 3, .p = 8, .G = 16, .K = 21, .J = 40 }, NULL, NULL },
    { "v6", { .like = "vrwkv6-t", .C = 64, .L = 2, .p = 8, .G = 16, .K = 10 }, NULL, NULL },
    { "v6 class token",
      { .like = "vrwkv6-s", .C = 64, .L = 2, .p = 8, .G = 16, .K = 10, .class_token = true },
      NULL,
      NULL },
    { "pre, f16", { .like = "vrwkv-t", .C = 64, .L = 2, .p = 8, .G = 16, .K = 33 }, "f16", NULL },
    { "pre, bf16", { .like = "vrwkv-t", .C = 64, .L = 2, .p = 8, .G = 16, .K = 33 }, "bf16", NULL },
    { "post, q8", { .like = "vrwkv-s", .C = 64, .L = 2, .p = 8, .G = 16, .K = 33 }, "q8", NULL },
};
#define N_SUBJECTS (sizeof subjects / sizeof *subjects)

static int set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SUBJECTS; i++) {
        char file[32];
        corvid_error err;
        corvid_convert_options options;
        snprintf(file, sizeof file, "subject-%zu.safetensors", i);
        char *path = strdup(test_scratch(file));
        vision_write(path, &subjects[i].small);
        if (subjects[i].type) {
            char *from = path;
            snprintf(file, sizeof file, "subject-%zu.gguf", i);
            path = strdup(test_scratch(file));
            corvid_convert_defaults(&options);
            options.type = subjects[i].type;
            ASSERT_OK(corvid_convert(from, path, &options, &err), &err);
            free(from);
        }
        subjects[i].path = path;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SUBJECTS; i++)
        free((void *)(uintptr_t)subjects[i].path);
    return 0;
}

/* ---- Showing --------------------------------------------------------------------------------- */

/* Sizes in pixels; the first is more than two pieces of 512 tokens with patches of 8. */
static const struct {
    size_t height, width;
} shapes[] = { { 256, 328 }, { 40, 56 }, { 8, 8 },   { 5, 3 },   { 40, 56 },
               { 33, 65 },   { 1, 200 }, { 32, 32 }, { 96, 24 }, { 200, 200 } };
#define N_SHAPES (sizeof shapes / sizeof *shapes)

/* A picture's numbers, and everything that a model gives for it. */
typedef struct shown {
    float *values;
    size_t height, width;
    float *out; /* logits, pooled, features, class tokens */
    size_t floats;
    corvid_view view;
} shown;

static shown show_at(const corvid_model_info *info, size_t which, size_t n_wanted)
{
    const size_t C = info->n_embd, K = info->n_classes, p = info->patch;
    shown s = { .height = shapes[which].height, .width = shapes[which].width };
    const size_t cells = (s.height + p - 1) / p * ((s.width + p - 1) / p);
    const size_t n_values = 3 * s.height * s.width, n_features = n_wanted * C * cells;
    char name[16];
    snprintf(name, sizeof name, "picture %zu", which);
    s.values = malloc(n_values * sizeof(float));
    s.floats = K + C + n_features + (info->class_token ? n_wanted * C : 0);
    s.out = malloc(s.floats * sizeof(float));
    assert_true(s.values && s.out);
    vision_generate(name, 0.0, 1.7, 0, n_values, s.values);
    memset(s.out, 0xFF, s.floats * sizeof(float)); /* what is not written is no number */
    s.view = (corvid_view){ .values = s.values,
                            .height = s.height,
                            .width = s.width,
                            .logits = s.out,
                            .pooled = s.out + K,
                            .features = s.out + K + C,
                            .class_tokens = info->class_token ? s.out + K + C + n_features : NULL };
    return s;
}

static void free_shown(shown *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(s[i].values);
        free(s[i].out);
    }
}

static const int wanted[] = { 0, -1 };
#define N_WANTED (sizeof wanted / sizeof *wanted)

static void show_all(corvid_model *model, shown *s)
{
    const corvid_model_info info = vision_info(model);
    for (size_t i = 0; i < N_SHAPES; i++)
        s[i] = show_at(&info, i, N_WANTED);
}

static void expect_same(const char *name, const char *level, const char *how, const shown *a,
                        const shown *b)
{
    char title[128];
    for (size_t i = 0; i < N_SHAPES; i++) {
        snprintf(title, sizeof title, "%s %s %s, %zu x %zu", name, level, how, a[i].height,
                 a[i].width);
        assert_int_equal(a[i].floats, b[i].floats);
        model_same_bits(title, a[i].out, b[i].out, a[i].floats * sizeof(float));
    }
}

/* In calls of `step` pictures, in the order of a stride through them. */
static void see_in_steps(corvid_model *model, shown *s, size_t step, size_t stride)
{
    corvid_error err;
    corvid_view views[N_SHAPES];
    for (size_t i = 0; i < N_SHAPES; i++)
        views[i] = s[(i * stride + 3) % N_SHAPES].view;
    for (size_t at = 0, n; at < N_SHAPES; at += n) {
        n = N_SHAPES - at < step ? N_SHAPES - at : step;
        ASSERT_OK(corvid_see(model, views + at, n, wanted, N_WANTED, &err), &err);
    }
}

static void check_finite(const char *name, const shown *s)
{
    for (size_t i = 0; i < N_SHAPES; i++)
        for (size_t j = 0; j < s[i].floats; j++)
            if (!isfinite(s[i].out[j]))
                fail_msg("%s: number %zu of picture %zu is %g", name, j, i, (double)s[i].out[j]);
}

/* ---- Ways of showing ------------------------------------------------------------------------- */

typedef struct way {
    size_t n_threads, step, stride; /* strides are prime to N_SHAPES */
} way;
static const way ways[] = { { 1, N_SHAPES, 1 }, { 2, 1, 1 }, { 2, N_SHAPES, 3 }, { 3, 4, 7 },
                            { 5, 1, 9 },        { 5, 3, 1 }, { 3, N_SHAPES, 9 } };

static void check_ways(const subject *s, const char *level, size_t n_ways)
{
    shown alone[N_SHAPES];
    corvid_model *model = vision_open(s->path, 1, level);
    show_all(model, alone);
    see_in_steps(model, alone, 1, 1);
    check_finite(s->name, alone);
    corvid_model_close(model);
    for (size_t i = 0; i < n_ways; i++) {
        char how[64];
        shown other[N_SHAPES];
        snprintf(how, sizeof how, "with %zu threads, %zu at a time", ways[i].n_threads,
                 ways[i].step);
        model = vision_open(s->path, ways[i].n_threads, level);
        show_all(model, other);
        see_in_steps(model, other, ways[i].step, ways[i].stride);
        expect_same(s->name, level, how, alone, other);
        free_shown(other, N_SHAPES);
        corvid_model_close(model);
    }
    free_shown(alone, N_SHAPES);
    print_message("%-16s %-7s %zu ways of showing %zu pictures, the same bits\n", s->name, level,
                  n_ways, N_SHAPES);
}

static void test_ways_of_showing(void **state)
{
    (void)state;
    const char *levels[5];
    const size_t n_levels = vision_levels(levels, true);
    for (size_t i = 0; i < N_SUBJECTS; i++)
        for (size_t level = 0; level < n_levels; level++)
            check_ways(&subjects[i], levels[level],
                       level + 2 >= n_levels ? sizeof ways / sizeof *ways : 3);
}

/* The released shapes have widths that fill every tile of every kernel. */
static void test_released_shapes(void **state)
{
    (void)state;
    static const char *const names[] = { "vrwkv-t", "vrwkv6-t" };
    static const char *const types[] = { "f32", "bf16", "q8_0" };
    for (size_t i = 0; i < 6; i++) {
        shown expected[N_SHAPES] = { { 0 } };
        const char *title = names[i % 2];
        for (size_t n_threads = 1; n_threads <= 5; n_threads += 2) {
            corvid_error err;
            corvid_model *model;
            corvid_model_options options;
            shown s[N_SHAPES];
            corvid_model_defaults(&options);
            options.n_threads = n_threads;
            ASSERT_OK(corvid_model_random(title, types[i / 2], 5, &options, &model, &err), &err);
            show_all(model, s);
            see_in_steps(model, s, n_threads == 1 ? 1 : N_SHAPES, n_threads == 5 ? 7 : n_threads);
            if (n_threads == 1) {
                memcpy(expected, s, sizeof s);
                check_finite(title, s);
            } else {
                expect_same(title, types[i / 2], "by threads", expected, s);
                free_shown(s, N_SHAPES);
            }
            corvid_model_close(model);
        }
        free_shown(expected, N_SHAPES);
    }
}

/* More pictures than a pass takes: 64, and 2048 tokens. */
static void test_many_pictures(void **state)
{
    (void)state;
    enum { MANY = 150 };
    corvid_error err;
    corvid_model *model = vision_open(subjects[0].path, 2, NULL);
    const corvid_model_info info = vision_info(model);
    shown *s = calloc(MANY, sizeof *s), *alone = calloc(MANY, sizeof *alone);
    corvid_view *views = calloc(MANY, sizeof *views);
    assert_true(s && alone && views);
    for (size_t i = 0; i < MANY; i++) {
        s[i] = show_at(&info, i < 100 ? 1 + i % 7 : i % N_SHAPES, N_WANTED);
        alone[i] = show_at(&info, i < 100 ? 1 + i % 7 : i % N_SHAPES, N_WANTED);
        views[i] = s[i].view;
        ASSERT_OK(corvid_see(model, &alone[i].view, 1, wanted, N_WANTED, &err), &err);
    }
    ASSERT_OK(corvid_see(model, views, MANY, wanted, N_WANTED, &err), &err);
    for (size_t i = 0; i < MANY; i++)
        model_same_bits("one of many pictures", s[i].out, alone[i].out,
                        s[i].floats * sizeof(float));
    free_shown(s, MANY);
    free_shown(alone, MANY);
    free(s);
    free(alone);
    free(views);
    corvid_model_close(model);
}

/* What is not asked for changes nothing in what is. */
static void test_parts(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SUBJECTS; i++) {
        corvid_error err;
        corvid_model *model = vision_open(subjects[i].path, 2, NULL);
        const corvid_model_info info = vision_info(model);
        const size_t C = info.n_embd, K = info.n_classes;
        shown all = show_at(&info, 5, N_WANTED), part = show_at(&info, 5, N_WANTED);
        const size_t map = (all.floats - K - C - (info.class_token ? N_WANTED * C : 0)) / N_WANTED;
        ASSERT_OK(corvid_see(model, &all.view, 1, wanted, N_WANTED, &err), &err);

        corvid_view view = { .values = part.values, .height = part.height, .width = part.width };
        ASSERT_OK(corvid_see(model, &view, 1, NULL, 0, &err), &err); /* nothing at all */
        view.logits = part.out;
        ASSERT_OK(corvid_see(model, &view, 1, NULL, 0, &err), &err);
        model_same_bits("only logits", part.out, all.out, K * sizeof(float));
        view.logits = NULL;
        view.pooled = part.out;
        ASSERT_OK(corvid_see(model, &view, 1, NULL, 0, &err), &err);
        model_same_bits("only the pooled vector", part.out, all.out + K, C * sizeof(float));
        view.pooled = NULL;
        view.features = part.out;
        ASSERT_OK(corvid_see(model, &view, 1, wanted, 1, &err), &err); /* only the first layer */
        model_same_bits("only features", part.out, all.out + K + C, map * sizeof(float));
        ASSERT_OK(corvid_see(model, &view, 1, wanted + 1, 1, &err), &err);
        model_same_bits("only the last layer", part.out, all.out + K + C + map,
                        map * sizeof(float));
        ASSERT_OK(corvid_see(model, NULL, 0, NULL, 0, &err), &err); /* no picture */
        free_shown(&all, 1);
        free_shown(&part, 1);
        corvid_model_close(model);
    }
}

/* Pixels are normalised on the way to what corvid_picture_values gives. */
static void test_pixels(void **state)
{
    (void)state;
    enum { H = 37, W = 51 };
    unsigned char pixels[H * W * 3];
    uint64_t seed = 3;
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (unsigned char)model_random(&seed, 256);
    for (size_t i = 0; i < N_SUBJECTS; i++) {
        corvid_error err;
        corvid_picture *picture;
        float a[64], b[64], *values = malloc(sizeof pixels * sizeof *values);
        assert_non_null(values);
        corvid_model *model = vision_open(subjects[i].path, 3, NULL);
        const size_t K = vision_info(model).n_classes;
        ASSERT_OK(corvid_picture_new(pixels, W, H, 3, 0, &picture, &err), &err);
        corvid_picture_values(picture, model, values);
        const corvid_view views[] = { { .picture = picture, .logits = a },
                                      { .values = values, .height = H, .width = W, .logits = b } };
        ASSERT_OK(corvid_see(model, views, 2, NULL, 0, &err), &err);
        model_same_bits("pixels and their numbers", a, b, K * sizeof *a);
        corvid_picture_close(picture);
        free(values);
        corvid_model_close(model);
    }
}

/* A picture is seen to depend on its pixels, its place in the batch and its neighbours are not:
 * otherwise the tests above would compare nothing. */
static void test_pictures_differ(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SUBJECTS; i++) {
        corvid_error err;
        corvid_model *model = vision_open(subjects[i].path, 1, NULL);
        const corvid_model_info info = vision_info(model);
        shown a = show_at(&info, 1, N_WANTED), b = show_at(&info, 4, N_WANTED); /* one size */
        shown c = show_at(&info, 1, N_WANTED);
        c.values[3 * c.height * c.width - 1] += 1.0f; /* the last pixel */
        const corvid_view views[] = { a.view, b.view, c.view };
        ASSERT_OK(corvid_see(model, views, 3, wanted, N_WANTED, &err), &err);
        assert_true(model_difference(a.out, b.out, info.n_classes) > 1e-4);
        assert_true(model_difference(a.out, c.out, info.n_classes) > 1e-6);
        free_shown(&a, 1);
        free_shown(&b, 1);
        free_shown(&c, 1);
        corvid_model_close(model);
    }
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static corvid_model_options options_with(test_allocator *a, size_t n_threads)
{
    corvid_model_options o;
    corvid_model_defaults(&o);
    o.n_threads = n_threads;
    o.allocator = &a->api;
    return o;
}

/* Bytes that a call takes for itself: a list of pictures and one of layers, for each 128 bytes are
 * plenty. */
#define LIST_BYTES(n) (128 * ((n) + N_WANTED + 2))

static void check_promise(const subject *s, size_t n_threads, size_t which, size_t n)
{
    corvid_error err;
    corvid_model *model;
    test_allocator a;
    uint64_t promised;
    test_allocator_init(&a);
    const corvid_model_options o = options_with(&a, n_threads);
    ASSERT_OK(corvid_model_open(s->path, &o, &model, &err), &err);
    const corvid_model_info info = vision_info(model);
    shown p = show_at(&info, which, N_WANTED);
    corvid_view *views = calloc(n, sizeof *views);
    assert_non_null(views);
    for (size_t i = 0; i < n; i++) /* only one of them is answered: there is one place for it */
        views[i] =
            i ? (corvid_view){ .values = p.values, .height = p.height, .width = p.width } : p.view;
    ASSERT_OK(corvid_see_memory(model, p.height, p.width, n, &promised, &err), &err);
    const size_t before = a.bytes;
    a.peak_bytes = before;
    ASSERT_OK(corvid_see(model, views, n, wanted, N_WANTED, &err), &err);
    if (a.bytes - before != promised)
        fail_msg("%s: %zu pictures of %zu x %zu on %zu threads take %zu bytes, %llu were promised",
                 s->name, n, p.height, p.width, n_threads, a.bytes - before,
                 (unsigned long long)promised);
    assert_true(a.peak_bytes - before <= promised + LIST_BYTES(n));
    free(views);
    free_shown(&p, 1);
    corvid_model_close(model);
    assert_int_equal(a.live, 0);
}

static void test_promise(void **state)
{
    (void)state;
    static const size_t counts[] = { 1, 2, 5, 64, 65, 200 };
    for (size_t i = 0; i < N_SUBJECTS; i++)
        for (size_t j = 0; j < sizeof counts / sizeof *counts; j++)
            for (size_t which = counts[j] > 5; which < 3; which++) /* the first one is large */
                check_promise(&subjects[i], 1 + j % 3, which, counts[j]);
}

/* The estimate before opening is of one picture of the model's own size. */
static void test_estimate(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SUBJECTS; i++) {
        corvid_error err;
        corvid_memory memory;
        corvid_model *model;
        test_allocator a;
        uint64_t promised;
        test_allocator_init(&a);
        const corvid_model_options o = options_with(&a, 2);
        ASSERT_OK(corvid_memory_estimate(subjects[i].path, &o, &memory, &err), &err);
        assert_int_equal(a.live, 0);
        ASSERT_OK(corvid_model_open(subjects[i].path, &o, &model, &err), &err);
        const corvid_model_info info = vision_info(model);
        ASSERT_OK(corvid_see_memory(model, info.native, info.native, 1, &promised, &err), &err);
        assert_int_equal(memory.weights, info.weight_bytes);
        assert_int_equal(memory.state, 0);
        assert_true(memory.workspace >= promised);
        assert_true((double)memory.workspace <= 1.1 * (double)promised);
        corvid_model_close(model);
    }
}

/* What was taken stays; showing the same again takes the two lists and nothing else, ever. */
static void test_showing_allocates_little(void **state)
{
    (void)state;
    enum { ROUNDS = 50 };
    for (size_t i = 0; i < N_SUBJECTS; i++) {
        corvid_error err;
        corvid_model *model;
        test_allocator a;
        corvid_view views[N_SHAPES];
        shown s[N_SHAPES];
        test_allocator_init(&a);
        const corvid_model_options o = options_with(&a, 2);
        ASSERT_OK(corvid_model_open(subjects[i].path, &o, &model, &err), &err);
        show_all(model, s);
        for (size_t j = 0; j < N_SHAPES; j++)
            views[j] = s[j].view;
        ASSERT_OK(corvid_see(model, views, N_SHAPES, wanted, N_WANTED, &err), &err);
        const size_t calls = a.calls, bytes = a.bytes, live = a.live, before = mallocs();
        for (size_t round = 0; round < ROUNDS; round++) /* the largest, all, and small ones */
            ASSERT_OK(corvid_see(model, views + (round % 3 ? round % 3 : 0),
                                 round % 3 ? 1 : N_SHAPES, wanted, N_WANTED, &err),
                      &err);
        const size_t after = mallocs();
        assert_int_equal(a.calls - calls, 2 * ROUNDS);
        assert_int_equal(a.bytes, bytes);
        assert_int_equal(a.live, live);
#ifdef COUNTS_MALLOC
        assert_true(before > 0);
        assert_int_equal(after - before, 2 * ROUNDS); /* those of the test's allocator */
#else
        (void)before;
        (void)after;
#endif
        free_shown(s, N_SHAPES);
        corvid_model_close(model);
        assert_int_equal(a.live, 0);
    }
}

/* Opens, shows a small picture and larger ones, closes; the first status that is not OK. */
static corvid_status live_once(const char *path, test_allocator *a, size_t n_threads,
                               corvid_error *err)
{
    static float values[3 * 200 * 200], out[200 * 1024];
    const corvid_model_options o = options_with(a, n_threads);
    corvid_model *model = NULL;
    corvid_status status = corvid_model_open(path, &o, &model, err);
    if (status != CORVID_OK) {
        assert_null(model);
        return status;
    }
    corvid_view views[2] = { { .values = values, .height = 16, .width = 16, .features = out },
                             { .values = values, .height = 200, .width = 200, .logits = out } };
    status = corvid_see(model, views, 1, wanted, 1, err);
    if (status == CORVID_OK) status = corvid_see(model, views, 2, wanted, N_WANTED, err);
    if (status == CORVID_E_MEMORY) { /* and it can go on */
        a->fail_at = 0;
        corvid_error other;
        ASSERT_OK(corvid_see(model, views, 2, wanted, N_WANTED, &other), &other);
    }
    corvid_model_close(model);
    return status;
}

static void test_each_allocation_fails(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SUBJECTS; i++) {
        const char *path = subjects[i].path;
        const size_t n_threads = 1 + i % 3;
        test_allocator a;
        corvid_error err;
        test_allocator_init(&a);
        ASSERT_OK(live_once(path, &a, n_threads, &err), &err);
        assert_int_equal(a.live, 0);
        const size_t n = a.calls;
        for (size_t j = 1; j <= n; j++) {
            test_allocator_init(&a);
            a.fail_at = j;
            memset(&err, 0, sizeof err);
            const corvid_status status = live_once(path, &a, n_threads, &err);
            if (a.live != 0)
                fail_msg("%s: allocation %zu of %zu fails: %zu blocks leak", subjects[i].name, j, n,
                         a.live);
            if (status != CORVID_E_MEMORY || err.status != status || strlen(err.text) < 10)
                fail_msg("%s: allocation %zu of %zu fails: status %d, %s", subjects[i].name, j, n,
                         (int)status, err.text);
        }
        print_message("%-16s each of %zu allocations failed once and was said\n", subjects[i].name,
                      n);
    }
}

/* Refused by its size alone: of the picture only one number is there. */
static void test_limit(void **state)
{
    (void)state;
    const float one = 0.0f;
    float logits[64];
    for (size_t i = 0; i < N_SUBJECTS; i++) {
        corvid_error err = { 0 };
        corvid_memory memory;
        corvid_model *model;
        test_allocator a;
        uint64_t need;
        test_allocator_init(&a);
        corvid_model_options o = options_with(&a, 2);
        ASSERT_OK(corvid_memory_estimate(subjects[i].path, &o, &memory, &err), &err);
        o.memory_limit = memory.weights + memory.workspace + (1 << 20);
        ASSERT_OK(corvid_model_open(subjects[i].path, &o, &model, &err), &err);
        shown small = show_at(&(corvid_model_info){ .n_embd = subjects[i].small.C,
                                                    .n_classes = subjects[i].small.K,
                                                    .patch = subjects[i].small.p },
                              7, N_WANTED);
        const corvid_view huge = {
            .values = &one, .height = 8192, .width = 8192, .logits = logits
        };
        const corvid_view both[] = { small.view, huge };
        const float mark = small.out[0];
        const size_t bytes = a.bytes;
        a.peak_bytes = bytes;
        memcpy(logits, &mark, sizeof mark);
        ASSERT_OK(corvid_see_memory(model, 8192, 8192, 1, &need, &err), &err);
        assert_true(need > o.memory_limit);
        assert_int_equal(corvid_see(model, both, 2, wanted, N_WANTED, &err), CORVID_E_MEMORY);
        assert_non_null(strstr(err.text, "MiB"));
        assert_non_null(strstr(err.text, "allowed"));
        assert_int_equal(a.bytes, bytes);
        assert_true(a.peak_bytes - bytes < 4096);
        model_same_bits("logits of a refused picture", logits, &mark, sizeof mark);
        model_same_bits("those of the one beside it", small.out, &mark, sizeof mark);

        ASSERT_OK(corvid_see(model, both, 1, wanted, N_WANTED, &err), &err);
        assert_true(isfinite(small.out[0]));
        free_shown(&small, 1);
        corvid_model_close(model);
        assert_int_equal(a.live, 0);
    }
}

/* Without a limit, what the machine has. */
static void test_no_machine_is_large_enough(void **state)
{
    (void)state;
    const float one = 0.0f;
    corvid_error err = { 0 };
    float logits[64];
    uint64_t need;
    corvid_model *model = vision_open(subjects[1].path, 1, NULL); /* patches of 4 */
    const size_t side = (size_t)1 << 21; /* 2^42 pixels, the most that are counted */
    const corvid_view huge = { .values = &one, .height = side, .width = side, .logits = logits };
    ASSERT_OK(corvid_see_memory(model, side, side, 1, &need, &err), &err);
    assert_true(need > (uint64_t)1 << 44);
    assert_int_equal(corvid_see(model, &huge, 1, NULL, 0, &err), CORVID_E_MEMORY);
    assert_non_null(strstr(err.text, "available"));
    corvid_model_close(model);
}

/* ---- Stopping -------------------------------------------------------------------------------- */

typedef struct patience {
    int left, asked; /* times it is asked before it stops */
} patience;

static int stop_when_done(void *ctx)
{
    patience *p = ctx;
    p->asked++;
    return p->left-- <= 0;
}

static void test_cancelled(void **state)
{
    (void)state;
    enum { MANY = 200 };
    corvid_error err = { 0 };
    corvid_model *model;
    corvid_model_options options;
    patience p = { 1 << 30, 0 };
    static float logits[MANY][10], expected[10];
    corvid_view *views = calloc(MANY, sizeof *views);
    assert_non_null(views);
    corvid_model_defaults(&options);
    options.n_threads = 2;
    options.cancel = stop_when_done;
    options.callback_ctx = &p;
    ASSERT_OK(corvid_model_open(subjects[0].path, &options, &model, &err), &err);
    const corvid_model_info info = vision_info(model);
    shown s = show_at(&info, 1, 0);
    for (size_t i = 0; i < MANY; i++) {
        views[i] = (corvid_view){
            .values = s.values, .height = s.height, .width = s.width, .logits = logits[i]
        };
        memset(logits[i], 0xFF, sizeof logits[i]);
    }
    ASSERT_OK(corvid_see(model, views, 1, NULL, 0, &err), &err);
    memcpy(expected, logits[0], sizeof expected);
    p = (patience){ 1, 0 };
    assert_int_equal(corvid_see(model, views, MANY, NULL, 0, &err), CORVID_E_CANCELLED);
    assert_int_equal(err.status, CORVID_E_CANCELLED);
    assert_int_equal(p.asked, 2);
    size_t done = 0; /* whole pictures, from the first on */
    while (done < MANY && isfinite(logits[done][0]))
        model_same_bits("before the stop", logits[done++], expected, sizeof expected);
    assert_true(done > 0 && done < MANY);
    for (size_t i = done; i < MANY; i++)
        assert_true(isnan(logits[i][0]) && isnan(logits[i][9]));
    p = (patience){ 1 << 30, 0 };
    ASSERT_OK(corvid_see(model, views, MANY, NULL, 0, &err), &err);
    for (size_t i = 0; i < MANY; i++)
        model_same_bits("after the stop", logits[i], expected, sizeof expected);
    free_shown(&s, 1);
    free(views);
    corvid_model_close(model);
}

/* ---- Wrong arguments ------------------------------------------------------------------------- */

static void expect_refused(corvid_model *model, const char *what, corvid_view view,
                           const int *layers, size_t n_layers, const char *text)
{
    static const float values[3 * 16 * 16] = { 0 };
    float good[64];
    corvid_error err = { 0 };
    memset(good, 0xFF, sizeof good);
    corvid_view views[] = { { .values = values, .height = 16, .width = 16, .pooled = good }, view };
    if (corvid_see(model, views, 2, layers, n_layers, &err) != CORVID_E_ARGUMENT)
        fail_msg("%s: not refused", what);
    assert_int_equal(err.status, CORVID_E_ARGUMENT);
    if (!strstr(err.text, text)) fail_msg("%s: the text lacks \"%s\": %s", what, text, err.text);
    assert_true(isnan(good[0])); /* the good one beside it was not begun */
}

static void test_wrong_views(void **state)
{
    (void)state;
    static const float values[3 * 16 * 16] = { 0 };
    float out[4096];
    const int beyond[] = { 3 }, before[] = { -4 }, far[] = { INT32_MAX }, low[] = { INT32_MIN };
    corvid_model *model = vision_open(subjects[0].path, 1, NULL); /* three layers */
    corvid_view v = { .values = values, .height = 16, .width = 16, .features = out };
    expect_refused(model, "layer 3", v, beyond, 1, "layers 0 to 2");
    expect_refused(model, "layer -4", v, before, 1, "layers 0 to 2");
    expect_refused(model, "a far layer", v, far, 1, "layers 0 to 2");
    expect_refused(model, "a low layer", v, low, 1, "layers 0 to 2");
    expect_refused(model, "features of no layer", v, NULL, 0, "none is wanted");
    v.class_tokens = out;
    expect_refused(model, "class tokens", v, wanted, 1, "no class token");
    v = (corvid_view){ .height = 16, .width = 16, .pooled = out };
    expect_refused(model, "no picture", v, NULL, 0, "empty picture");
    v = (corvid_view){ .values = values, .height = 0, .width = 16, .pooled = out };
    expect_refused(model, "no rows", v, NULL, 0, "empty picture");
    v = (corvid_view){ .values = values, .height = 16, .width = 0, .pooled = out };
    expect_refused(model, "no columns", v, NULL, 0, "empty picture");
    v = (corvid_view){ .values = values, .height = SIZE_MAX, .width = 1, .pooled = out };
    expect_refused(model, "endless", v, NULL, 0, "2^24");
    corvid_model_close(model);
}

static void test_no_head(void **state)
{
    (void)state;
    float values[3 * 16 * 16] = { 0 }, logits[16], pooled[64];
    const char *path = test_scratch("headless.safetensors");
    const vision_small small = {
        .like = "vrwkv-t", .C = 32, .L = 1, .p = 8, .G = 4, .K = 3, .headless = true
    };
    corvid_error err = { 0 };
    vision_write(path, &small);
    corvid_model *model = vision_open(path, 1, NULL);
    assert_int_equal(vision_info(model).n_classes, 0);
    corvid_view v = { .values = values, .height = 16, .width = 16, .logits = logits };
    expect_refused(model, "logits without a head", v, NULL, 0, "no head");
    v.logits = NULL;
    v.pooled = pooled;
    ASSERT_OK(corvid_see(model, &v, 1, NULL, 0, &err), &err);
    for (size_t i = 0; i < 32; i++)
        assert_true(isfinite(pooled[i]));
    corvid_model_close(model);
}

/* Either kind says what it is when it is taken for the other. */
static void test_wrong_kind(void **state)
{
    (void)state;
    float values[3 * 16 * 16] = { 0 }, out[512];
    corvid_error err = { 0 };
    corvid_model *language;
    corvid_stream *stream = NULL;
    uint64_t bytes = 0;
    const corvid_view v = { .values = values, .height = 16, .width = 16, .pooled = out };
    ASSERT_OK(corvid_model_random("rwkv7-tiny", "f32", 1, NULL, &language, &err), &err);
    assert_int_equal(corvid_see(language, &v, 1, NULL, 0, &err), CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "language model"));
    assert_int_equal(corvid_see_memory(language, 16, 16, 1, &bytes, &err), CORVID_E_ARGUMENT);
    assert_null(corvid_class_name(language, 0));
    corvid_model_close(language);

    corvid_model *model = vision_open(subjects[0].path, 1, NULL);
    assert_int_equal(corvid_stream_new(model, &stream, &err), CORVID_E_ARGUMENT);
    assert_null(stream);
    assert_true(strlen(err.text) > 10);
    assert_int_equal(corvid_see_memory(model, 0, 16, 1, &bytes, &err), CORVID_E_ARGUMENT);
    assert_int_equal(corvid_see_memory(model, 16, SIZE_MAX, 1, &bytes, &err), CORVID_E_ARGUMENT);
    assert_null(corvid_class_name(model, 0));
    corvid_model_close(model);
}

static void test_wrong_options(void **state)
{
    (void)state;
    static const struct {
        const char *bi_wkv, *norm, *cpu, *text;
    } cases[] = { { "cuda64", NULL, NULL, "formula, cuda32 or cuda16" },
                  { "", NULL, NULL, "formula, cuda32 or cuda16" },
                  { NULL, "both", NULL, "auto, pre or post" },
                  { NULL, NULL, "mmx", "no such instruction set" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_allocator a;
        corvid_error err = { 0 };
        corvid_model *model;
        test_allocator_init(&a);
        corvid_model_options o = options_with(&a, 1);
        o.bi_wkv = cases[i].bi_wkv;
        o.norm = cases[i].norm;
        o.cpu = cases[i].cpu;
        assert_int_equal(corvid_model_open(subjects[0].path, &o, &model, &err), CORVID_E_ARGUMENT);
        assert_null(model);
        assert_non_null(strstr(err.text, cases[i].text));
        assert_int_equal(a.live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ways_of_showing),
        cmocka_unit_test(test_released_shapes),
        cmocka_unit_test(test_many_pictures),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_pixels),
        cmocka_unit_test(test_pictures_differ),
        cmocka_unit_test(test_promise),
        cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_showing_allocates_little),
        cmocka_unit_test(test_each_allocation_fails),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_no_machine_is_large_enough),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_wrong_views),
        cmocka_unit_test(test_no_head),
        cmocka_unit_test(test_wrong_kind),
        cmocka_unit_test(test_wrong_options),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
