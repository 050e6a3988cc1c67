/* support.h - what many tests need: the reference data, scratch files, a meddling allocator. */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "corvid_base.h"

/* Path of a file below the reference data folder ($CORVID_TEST_DATA, else ../shared/data beside the
 * source tree), in one of a few static buffers; NULL when it is not there. */
const char *test_data(const char *relative);

/* In a test: the path, or the test is skipped with a line that says which file is missing. */
#define NEED_DATA(variable, relative)                                                              \
    const char *variable = test_data(relative);                                                    \
    if (!(variable)) {                                                                             \
        print_message("SKIP: no %s in the reference data\n", relative);                            \
        skip();                                                                                    \
    }

/* A fresh path in a scratch folder of this process, removed at exit. */
const char *test_scratch(const char *name);

/* The whole file, malloc'ed and zero-terminated; fails the test when it cannot be read. */
char *test_read_file(const char *path, size_t *n);
void test_write_file(const char *path, const void *bytes, size_t n);

/* An allocator that counts, and fails the nth call (0: never). */
typedef struct test_allocator {
    corvid_allocator api;               /* pass &a.api */
    size_t calls, live, bytes, peak_bytes;
    size_t fail_at;
} test_allocator;
void test_allocator_init(test_allocator *a);

/* Asserts that call gives CORVID_OK, printing the error text when it does not. */
#define ASSERT_OK(call, err)                                                                       \
    do {                                                                                           \
        corvid_status test_status = (call);                                                        \
        if (test_status != CORVID_OK)                                                              \
            fail_msg("%s: status %d: %s", #call, (int)test_status, (err)->text);                   \
    } while (0)

#endif
