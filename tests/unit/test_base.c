/* test_base.c - status, memory, arenas, checked sizes, inputs, random numbers, the processor. */
#include "support.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cpu.h"
#include "base/input.h"
#include "base/memory.h"
#include "base/rng.h"

#define HAS(text, part) assert_non_null(strstr(text, part))

/* ---- status ---------------------------------------------------------------------------------- */

static void fail_fills_the_error(void **state)
{
    (void)state;
    corvid_error err = { 0 };
    assert_int_equal(cv_fail(&err, CORVID_E_FORMAT, "a %d %s", 7, "b"), CORVID_E_FORMAT);
    assert_int_equal(err.status, CORVID_E_FORMAT);
    assert_string_equal(err.text, "a 7 b");
    assert_int_equal(cv_fail(NULL, CORVID_E_FILE, "nobody listens"), CORVID_E_FILE);
}

static void prefix_goes_in_front(void **state)
{
    (void)state;
    corvid_error err = { 0 };
    cv_fail(&err, CORVID_E_FILE, "missing");
    cv_error_prefix(&err, "model.bin");
    assert_string_equal(err.text, "model.bin: missing");
    assert_int_equal(err.status, CORVID_E_FILE);
    cv_fail(&err, CORVID_E_MEMORY, "again: %s", err.text); /* its own text as an argument */
    assert_string_equal(err.text, "again: model.bin: missing");
    cv_error_prefix(NULL, "x");
}

/* Every possible cut of a text of 2, 3 and 4 byte characters stays whole characters. */
static void long_text_is_cut_at_a_character(void **state)
{
    (void)state;
    static const char *const characters[] = { "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x90\xA6" };
    for (size_t c = 0; c < 3; c++)
        for (size_t shift = 0; shift < 4; shift++) {
            size_t width = strlen(characters[c]), n = 0;
            char text[2 * CORVID_ERROR_TEXT];
            for (; n < shift; n++)
                text[n] = 'x';
            for (; n + width < sizeof text; n += width)
                memcpy(text + n, characters[c], width);
            text[n] = '\0';
            corvid_error err;
            cv_fail(&err, CORVID_E_FILE, "%s", text);
            size_t kept = strlen(err.text);
            assert_true(kept < CORVID_ERROR_TEXT);
            assert_true(kept + width >= CORVID_ERROR_TEXT);
            assert_int_equal((kept - shift) % width, 0);
            assert_memory_equal(err.text, text, kept);
        }
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static void sizes_do_not_wrap(void **state)
{
    (void)state;
    size_t r = 5;
    assert_false(cv_mul_size(SIZE_MAX, 2, &r));
    assert_false(cv_mul_size((size_t)1 << 32, (size_t)1 << 32, &r));
    assert_false(cv_add_size(SIZE_MAX, 1, &r));
    assert_false(cv_round_up(SIZE_MAX, 64, &r));
    assert_int_equal(r, 5);
    assert_true(cv_mul_size((size_t)1 << 32, ((size_t)1 << 32) - 1, &r));
    assert_true(r == 0xFFFFFFFF00000000u);
    assert_true(cv_add_size(SIZE_MAX - 1, 1, &r));
    assert_true(r == SIZE_MAX);
    assert_true(cv_round_up(65, 64, &r));
    assert_int_equal(r, 128);
    assert_true(cv_round_up(128, 64, &r));
    assert_int_equal(r, 128);
    assert_true(cv_range_within(10, 0, 10));
    assert_true(cv_range_within(0, 10, 10));
    assert_false(cv_range_within(11, 0, 10));
    assert_false(cv_range_within(1, UINT64_MAX, 10));
    assert_false(cv_range_within(UINT64_MAX, 2, 10));
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void blocks_are_aligned_and_counted(void **state)
{
    (void)state;
    test_allocator a;
    test_allocator_init(&a);
    const corvid_allocator *from[] = { &a.api, &cv_libc_allocator };
    for (size_t i = 0; i < 2; i++) {
        unsigned char *p = cv_alloc_zero(from[i], 7, 13);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % CV_ALIGN, 0);
        for (size_t j = 0; j < 91; j++)
            assert_int_equal(p[j], 0);
        cv_free(from[i], p);
        p = cv_alloc(from[i], 0, 4); /* nothing asked for is still a block */
        assert_non_null(p);
        cv_free(from[i], p);
        assert_null(cv_alloc(from[i], SIZE_MAX, 2));
    }
    cv_free(&a.api, NULL);
    assert_int_equal(a.calls, 2);
    assert_int_equal(a.live, 0);
    assert_int_equal(a.bytes, 0);
    assert_int_equal(a.peak_bytes, 91);
}

static void shortage_is_told(void **state)
{
    (void)state;
    test_allocator a;
    test_allocator_init(&a);
    a.fail_at = 1;
    corvid_error err;
    void *p = &err;
    assert_int_equal(cv_alloc_or_fail(&a.api, 3, 5, "the weights", &p, &err), CORVID_E_MEMORY);
    assert_null(p);
    assert_string_equal(err.text, "out of memory: 15 bytes for the weights");
    assert_int_equal(cv_alloc_or_fail(&a.api, SIZE_MAX, 5, "x", &p, &err), CORVID_E_MEMORY);
    HAS(err.text, "times 5 bytes");
    ASSERT_OK(cv_alloc_or_fail(&a.api, 3, 5, "x", &p, &err), &err);
    cv_free(&a.api, p);
    assert_int_equal(a.live, 0);
}

static void huge_blocks(void **state)
{
    (void)state;
    test_allocator a;
    test_allocator_init(&a);
    const corvid_allocator *from[] = { &a.api, &cv_libc_allocator };
    for (size_t i = 0; i < 2; i++) {
        unsigned char *small = cv_alloc_huge(from[i], 100);
        unsigned char *big = cv_alloc_huge(from[i], CV_HUGE_PAGE + 1);
        assert_int_equal((uintptr_t)small % CV_ALIGN, 0);
        assert_int_equal((uintptr_t)big % CV_HUGE_PAGE, 0);
        big[0] = big[CV_HUGE_PAGE] = big[2 * CV_HUGE_PAGE - 1] = 1; /* rounded up to whole pages */
        cv_free(from[i], small);
        cv_free(from[i], big);
        assert_null(cv_alloc_huge(from[i], SIZE_MAX - 5));
    }
    assert_int_equal(a.live, 0);
}

static void arena_objects_do_not_overlap(void **state)
{
    (void)state;
    enum { N = 3000 };
    test_allocator a;
    test_allocator_init(&a);
    cv_arena arena;
    cv_arena_init(&arena, &a.api);
    static unsigned char *objects[N];
    static size_t sizes[N];
    cv_rng rng;
    cv_rng_seed(&rng, 1);
    for (size_t i = 0; i < N; i++) {
        uint64_t chance = cv_rng_next(&rng);
        sizes[i] = i == 0 ? 0 : (size_t)(chance % (i % 100 == 99 ? 300000 : 200));
        objects[i] = cv_arena_alloc(&arena, sizes[i], 1);
        assert_non_null(objects[i]);
        assert_int_equal((uintptr_t)objects[i] % 16, 0);
        for (size_t j = 0; j < sizes[i]; j++)
            assert_true(objects[i][j] == 0);
        memset(objects[i], (int)(i % 255) + 1, sizes[i]);
    }
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < sizes[i]; j++)
            assert_true(objects[i][j] == (i % 255) + 1);
    char *text = cv_arena_text(&arena, "nightjar", 5);
    assert_string_equal(text, "night");
    assert_null(cv_arena_alloc(&arena, SIZE_MAX, 2));
    assert_null(cv_arena_alloc(&arena, SIZE_MAX, 1));
    assert_int_equal(arena.total, a.bytes);
    cv_arena_free(&arena);
    assert_int_equal(a.live, 0);
    assert_int_equal(arena.total, 0);
    cv_arena_free(&arena); /* twice is harmless */
}

/* Small objects share: 10000 of 16 bytes take far fewer blocks, and at most twice their bytes. */
static void arena_chunks_double(void **state)
{
    (void)state;
    test_allocator a;
    test_allocator_init(&a);
    cv_arena arena;
    cv_arena_init(&arena, &a.api);
    for (int i = 0; i < 10000; i++)
        assert_non_null(cv_arena_alloc(&arena, 1, 16));
    assert_in_range(a.calls, 2, 12);
    assert_in_range(arena.total, 160000, 4 * 160000);
    a.fail_at = a.calls + 1;
    assert_null(cv_arena_alloc(&arena, 1, (size_t)2 << 20)); /* shortage leaves it usable */
    assert_non_null(cv_arena_alloc(&arena, 1, 16));
    cv_arena_free(&arena);
    assert_int_equal(a.live, 0);
}

static void available_memory_is_plausible(void **state)
{
    (void)state;
    uint64_t n = cv_memory_available();
    assert_true(n > (uint64_t)1 << 20);
    assert_true(n < (uint64_t)1 << 50);
}

/* ---- inputs ---------------------------------------------------------------------------------- */

static void input_reads_files_and_memory(void **state)
{
    (void)state;
    const char *path = test_scratch("ten");
    corvid_error err;
    test_write_file(path, "0123456789", 10);
    for (int memory = 0; memory < 2; memory++) {
        cv_input in;
        if (memory)
            cv_input_memory(&in, "0123456789", 10, "digits");
        else
            ASSERT_OK(cv_input_open(&in, path, &err), &err);
        assert_int_equal(in.size, 10);
        assert_string_equal(in.path, memory ? "digits" : path);
        char buffer[11] = "";
        ASSERT_OK(cv_input_read(&in, 3, buffer, 4, &err), &err);
        assert_string_equal(buffer, "3456");
        ASSERT_OK(cv_input_read(&in, 10, buffer, 0, &err), &err);
        ASSERT_OK(cv_input_read(&in, 0, buffer, 10, &err), &err);
        assert_int_equal(cv_input_read(&in, 8, buffer, 3, &err), CORVID_E_FORMAT);
        HAS(err.text, "ends at byte 10, wanted 3 bytes at 8");
        assert_int_equal(cv_input_read(&in, UINT64_MAX, buffer, 3, &err), CORVID_E_FORMAT);

        test_allocator a;
        test_allocator_init(&a);
        char *all;
        size_t n;
        ASSERT_OK(cv_input_read_all(&in, &a.api, 10, &all, &n, &err), &err);
        assert_int_equal(n, 10);
        assert_string_equal(all, "0123456789");
        cv_free(&a.api, all);
        assert_int_equal(cv_input_read_all(&in, &a.api, 9, &all, &n, &err), CORVID_E_FORMAT);
        HAS(err.text, "expected at most 9");
        a.fail_at = a.calls + 1;
        assert_int_equal(cv_input_read_all(&in, &a.api, 10, &all, &n, &err), CORVID_E_MEMORY);
        assert_null(all);
        assert_int_equal(a.live, 0);
        cv_input_close(&in);
        cv_input_close(&in);
    }
}

/* A file cut while it is open gives an error that says where it ends now. */
static void input_survives_a_shrinking_file(void **state)
{
    (void)state;
    const char *path = test_scratch("shrinks");
    static char bytes[100000], back[100000];
    test_write_file(path, bytes, sizeof bytes);
    cv_input in;
    corvid_error err;
    ASSERT_OK(cv_input_open(&in, path, &err), &err);
    assert_int_equal(truncate(path, 1234), 0);
    assert_int_equal(cv_input_read(&in, 0, back, sizeof back, &err), CORVID_E_FORMAT);
    HAS(err.text, "ends at byte 1234, wanted 100000 bytes at 0");
    test_allocator a;
    test_allocator_init(&a);
    char *all;
    size_t n;
    assert_int_equal(cv_input_read_all(&in, &a.api, 1 << 20, &all, &n, &err), CORVID_E_FORMAT);
    assert_int_equal(a.live, 0);
    ASSERT_OK(cv_input_read(&in, 1000, back, 234, &err), &err);
    cv_input_close(&in);
}

static void input_refuses_what_is_no_file(void **state)
{
    (void)state;
    cv_input in;
    corvid_error err;
    const char *missing = test_scratch("missing"), *pipe_path = test_scratch("pipe");
    assert_int_equal(cv_input_open(&in, missing, &err), CORVID_E_FILE);
    HAS(err.text, "No such file");
    assert_int_equal(cv_input_open(&in, "/", &err), CORVID_E_FILE);
    HAS(err.text, "a folder");
    assert_int_equal(cv_input_open(&in, "/dev/zero", &err), CORVID_E_FILE);
    HAS(err.text, "a device");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_int_equal(cv_input_open(&in, pipe_path, &err), CORVID_E_FILE); /* and does not wait */
    HAS(err.text, "a pipe");
    cv_input_close(&in);
}

static void input_shortens_long_names(void **state)
{
    (void)state;
    char name[2000];
    for (size_t i = 0; i + 2 < sizeof name; i += 2)
        memcpy(name + i, "\xC3\xA4", 2);
    memcpy(name + sizeof name - 6, ".bin", 5);
    cv_input in;
    cv_input_memory(&in, "", 0, name);
    assert_memory_equal(in.path, "...\xC3\xA4", 5);
    assert_in_range(strlen(in.path), sizeof in.path - 3, sizeof in.path - 1);
    assert_string_equal(in.path + strlen(in.path) - 4, ".bin");

    /* A real file below a path too long for the field is opened all the same. */
    char path[900];
    size_t n = (size_t)snprintf(path, sizeof path, "%s", test_scratch("deep"));
    for (int level = 0; level < 3; level++) {
        memset(path + n, '/', 1);
        memset(path + n + 1, 'd', 200);
        path[n += 201] = '\0';
        if (level == 0) {
            char top[900];
            snprintf(top, sizeof top, "%s", test_scratch("deep"));
            assert_int_equal(mkdir(top, 0700), 0);
        }
        assert_int_equal(mkdir(path, 0700), 0);
    }
    snprintf(path + n, sizeof path - n, "/file");
    test_write_file(path, "abc", 3);
    corvid_error err;
    ASSERT_OK(cv_input_open(&in, path, &err), &err);
    assert_int_equal(in.size, 3);
    assert_memory_equal(in.path, "...", 3);
    cv_input_close(&in);
}

/* ---- random numbers -------------------------------------------------------------------------- */

/* The first outputs from the state 1, 2, 3, 4, worked out from the authors' definition with
 * integers of unbounded size. */
static void rng_matches_the_definition(void **state)
{
    (void)state;
    static const uint64_t expected[] = { 11520u,
                                         0u,
                                         1509978240u,
                                         1215971899390074240u,
                                         1216172134540287360u,
                                         607988272756665600u,
                                         16172922978634559625u,
                                         8476171486693032832u,
                                         10595114339597558777u,
                                         2904607092377533576u };
    cv_rng rng = { { 1, 2, 3, 4 } };
    for (size_t i = 0; i < 10; i++)
        assert_true(cv_rng_next(&rng) == expected[i]);
}

/* The seed goes through splitmix64, whose outputs for 1234567 are widely published. */
static void rng_seed_is_splitmix(void **state)
{
    (void)state;
    static const uint64_t expected[] = { 6457827717110365317u, 3203168211198807973u,
                                         9817491932198370423u, 4593380528125082431u };
    cv_rng rng;
    cv_rng_seed(&rng, 1234567);
    assert_memory_equal(rng.s, expected, sizeof expected);
}

static void rng_moments(void **state)
{
    (void)state;
    enum { N = 200000 };
    cv_rng rng;
    cv_rng_seed(&rng, 0);
    double sum = 0, squares = 0, cubes = 0, uniform = 0;
    for (int i = 0; i < N; i++) {
        double u = cv_rng_uniform(&rng), x = (double)cv_rng_normal(&rng);
        assert_true(u >= 0 && u < 1);
        assert_true(isfinite(x));
        uniform += u;
        sum += x;
        squares += x * x;
        cubes += x * x * x;
    }
    /* Five standard deviations of each estimate. */
    assert_true(fabs(uniform / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
    assert_true(fabs(sum / N) < 5 * sqrt(1.0 / N));
    assert_true(fabs(squares / N - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(cubes / N) < 5 * sqrt(15.0 / N));
}

/* ---- the processor --------------------------------------------------------------------------- */

static void cpu_names_go_both_ways(void **state)
{
    (void)state;
    for (int i = 0; i <= CV_CPU_BF16; i++) {
        cv_cpu_level level = CV_CPU_REF;
        assert_int_equal(cv_cpu_level_parse(cv_cpu_level_name((cv_cpu_level)i), &level), 1);
        assert_int_equal(level, i);
    }
    cv_cpu_level level = CV_CPU_AVX2;
    assert_int_equal(cv_cpu_level_parse("avx3", &level), 0);
    assert_int_equal(level, CV_CPU_AVX2);
    assert_string_equal(cv_cpu_level_name((cv_cpu_level)99), "unknown");
    assert_in_range(cv_cpu_count(), 1, 100000);
}

/* What cpuid says against what the system's own list of flags says. */
static void cpu_level_agrees_with_the_system(void **state)
{
    (void)state;
    size_t n;
    char *text = test_read_file("/proc/cpuinfo", &n);
    char *flags = strstr(text, "\nflags"), *end = flags ? strchr(flags + 1, '\n') : NULL;
    bool listed = end != NULL, avx2 = false, avx512 = false, bf16 = false;
    if (end) {
        memcpy(end, " ", 2); /* the last flag has a space behind it too */
        avx2 = strstr(flags, " avx2 ") && strstr(flags, " fma ") && strstr(flags, " f16c ");
        avx512 = strstr(flags, " avx512f ") && strstr(flags, " avx512bw ") &&
                 strstr(flags, " avx512dq ") && strstr(flags, " avx512vl ");
        bf16 = avx512 && strstr(flags, " avx512_bf16 ");
    }
    free(text);
    if (!listed) {
        print_message("SKIP: /proc/cpuinfo lists no flags on this machine\n");
        skip();
    }
    assert_int_equal(cv_cpu_best(), !avx2 ? CV_CPU_REF : avx512 ? CV_CPU_AVX512 : CV_CPU_AVX2);
    assert_int_equal(cv_cpu_has_bf16(), bf16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_fills_the_error),
        cmocka_unit_test(prefix_goes_in_front),
        cmocka_unit_test(long_text_is_cut_at_a_character),
        cmocka_unit_test(sizes_do_not_wrap),
        cmocka_unit_test(blocks_are_aligned_and_counted),
        cmocka_unit_test(shortage_is_told),
        cmocka_unit_test(huge_blocks),
        cmocka_unit_test(arena_objects_do_not_overlap),
        cmocka_unit_test(arena_chunks_double),
        cmocka_unit_test(available_memory_is_plausible),
        cmocka_unit_test(input_reads_files_and_memory),
        cmocka_unit_test(input_survives_a_shrinking_file),
        cmocka_unit_test(input_refuses_what_is_no_file),
        cmocka_unit_test(input_shortens_long_names),
        cmocka_unit_test(rng_matches_the_definition),
        cmocka_unit_test(rng_seed_is_splitmix),
        cmocka_unit_test(rng_moments),
        cmocka_unit_test(cpu_names_go_both_ways),
        cmocka_unit_test(cpu_level_agrees_with_the_system),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
