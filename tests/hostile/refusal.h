/* refusal.h - what must hold when a hostile checkpoint is refused, checked for one file in memory.
 *
 * The status is right, the text says where, it takes less than 100 ms and at most 16 times the
 * file's size plus 16 MiB of memory, and nothing leaks, also when any one allocation fails.
 * Jansson's allocations are counted and made to fail like our own. */
#ifndef TEST_REFUSAL_H
#define TEST_REFUSAL_H

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support.h"

#include "formats/checkpoint.h"

#define REFUSAL_MS 100

/* ---- Jansson's memory ----------------------------------------------------------------------- */

typedef struct json_memory {
    size_t calls, fail_at, live, bytes, peak;
} json_memory;

static json_memory json_mem;

static void *json_counted_alloc(size_t n)
{
    if (++json_mem.calls == json_mem.fail_at) return NULL;
    size_t *block = malloc(16 + n);
    if (!block) return NULL;
    block[0] = n;
    json_mem.live++;
    json_mem.bytes += n;
    if (json_mem.bytes > json_mem.peak) json_mem.peak = json_mem.bytes;
    return block + 2;
}

static void json_counted_free(void *ptr)
{
    if (!ptr) return;
    size_t *block = (size_t *)ptr - 2;
    json_mem.live--;
    json_mem.bytes -= block[0];
    free(block);
}

/* ---- parsing under watch -------------------------------------------------------------------- */

typedef struct verdict {
    corvid_status status;
    corvid_error err;
    double ms;
    size_t peak, our_calls, json_calls;
} verdict;

/* Parses with the given allocation of each kind failing (0: none); nothing may stay allocated. */
static inline verdict parse_watched(const void *bytes, size_t n, size_t fail_ours, size_t fail_json)
{
    verdict v = { 0 };
    test_allocator a;
    test_allocator_init(&a);
    a.fail_at = fail_ours;
    json_mem = (json_memory){ .fail_at = fail_json };
    json_set_alloc_funcs(json_counted_alloc, json_counted_free);

    cv_input in;
    cv_checkpoint ckpt;
    struct timespec t0, t1;
    cv_input_memory(&in, bytes, n, "hostile");
    clock_gettime(CLOCK_MONOTONIC, &t0);
    v.status = cv_checkpoint_parse(&a.api, &in, &ckpt, &v.err);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    if (v.status != CORVID_OK) assert_int_equal(a.live, 0); /* closed before it returned */
    cv_checkpoint_close(&ckpt);
    cv_checkpoint_close(&ckpt); /* a second time does nothing */

    v.ms = 1e3 * (double)(t1.tv_sec - t0.tv_sec) + 1e-6 * (double)(t1.tv_nsec - t0.tv_nsec);
    v.peak = a.peak_bytes + json_mem.peak;
    v.our_calls = a.calls;
    v.json_calls = json_mem.calls;
    assert_int_equal(a.live, 0);
    assert_int_equal(json_mem.live, 0);
    return v;
}

static inline void check_memory(const char *name, size_t n, const verdict *v)
{
    if (v->peak > 16 * n + ((size_t)16 << 20))
        fail_msg("%s: %zu bytes of file took %zu bytes of memory", name, n, v->peak);
}

/* One allocation after the other fails: no crash and no leak (the asserts of parse_watched), and
 * ours end in CORVID_E_MEMORY, or, where memory was not needed to see it, in the usual refusal.
 * Jansson drops characters of a text when its buffer cannot grow, so for its own failures any
 * refusal is right, even success (the text may have been padding). */
static inline void check_each_allocation(const char *name, const void *bytes, size_t n,
                                         const verdict *usual)
{
    for (size_t i = 1; i <= usual->our_calls; i++) {
        verdict v = parse_watched(bytes, n, i, 0);
        if (v.status != CORVID_E_MEMORY)
            fail_msg("%s: allocation %zu failed, yet: %s", name, i, v.err.text);
    }
    for (size_t i = 1; i <= usual->json_calls && i <= 300; i++)
        (void)parse_watched(bytes, n, 0, i);
}

/* needle: what the text must say. */
static inline void check_refused(const char *name, const void *bytes, size_t n, const char *needle)
{
    /* An exact allocation: reading one byte past the end is found by AddressSanitizer. */
    void *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    if (n) memcpy(copy, bytes, n);

    verdict v = parse_watched(copy, n, 0, 0);
    if (v.status != CORVID_E_FORMAT || v.err.status != v.status)
        fail_msg("%s: status %d, expected %d: %s", name, (int)v.status, (int)CORVID_E_FORMAT,
                 v.err.text);
    if (!strstr(v.err.text, needle))
        fail_msg("%s: the text lacks \"%s\": %s", name, needle, v.err.text);
    if (!strstr(v.err.text, "offset ") && !strstr(v.err.text, "tensor \"") &&
        !strstr(v.err.text, "ends at byte"))
        fail_msg("%s: the text says neither offset nor tensor: %s", name, v.err.text);
    if (strncmp(v.err.text, "hostile: ", 9) != 0)
        fail_msg("%s: the text does not name the file: %s", name, v.err.text);
    if (v.ms >= REFUSAL_MS) fail_msg("%s: took %.0f ms", name, v.ms);
    check_memory(name, n, &v);
    check_each_allocation(name, copy, n, &v);
    free(copy);
}

/* A file that is allowed: the counterpart which shows that the rules are not too strict. */
static inline void check_accepted(const char *name, const void *bytes, size_t n, size_t n_tensors)
{
    cv_input in;
    cv_checkpoint ckpt;
    corvid_error err;
    verdict v = parse_watched(bytes, n, 0, 0);
    if (v.status != CORVID_OK) fail_msg("%s: refused: %s", name, v.err.text);
    check_memory(name, n, &v);
    check_each_allocation(name, bytes, n, &v);
    cv_input_memory(&in, bytes, n, name);
    ASSERT_OK(cv_checkpoint_parse(&cv_libc_allocator, &in, &ckpt, &err), &err);
    assert_int_equal(ckpt.n_tensors, n_tensors);
    cv_checkpoint_close(&ckpt);
}

/* For the fuzzer's corpus: FOLDER/NAME. */
static inline void write_case(const char *folder, const char *name, const void *bytes, size_t n)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || (n && fwrite(bytes, 1, n, file) != n) || fclose(file) != 0) {
        fprintf(stderr, "%s: cannot be written\n", path);
        exit(1);
    }
}

#endif
