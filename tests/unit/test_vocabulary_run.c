/* test_vocabulary_run.c - texts become the file of a vocabulary, whole and tried, or nothing. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/vocabulary.h"
#include "piped_input.h"
#include "train/vocabulary_run.h"

static const corvid_allocator *const mem = &cv_libc_allocator;

/* ---- helpers -------------------------------------------------------------------------------- */

/* Lines of some words that come again and again, in no order. */
static char *some_text(size_t n)
{
    static const char *const words[] = { "raven", "counts", "the",     "begins", "again",
                                         "crow",  "quill",  "feather", "naïve",  "床前" };
    char *text = malloc(n + 32);
    assert_non_null(text);
    size_t at = 0;
    for (uint32_t chance = 1; at < n;) {
        chance = chance * 1664525u + 1013904223u;
        const char *word = words[(chance >> 16) % 10];
        memcpy(text + at, word, strlen(word));
        at += strlen(word);
        text[at++] = chance >> 28 == 0 ? '\n' : ' ';
    }
    text[n] = '\0';
    return text;
}

typedef struct calls {
    uint64_t reading, searching, total;
    size_t asked, stop_at;
} calls;

static void see_reading(void *ctx, uint64_t done, uint64_t total)
{
    calls *c = ctx;
    assert_true(done > c->reading);
    c->reading = done;
    c->total = total;
}

static void see_searching(void *ctx, uint64_t done, uint64_t total)
{
    calls *c = ctx;
    assert_true(done <= total);
    c->searching++;
}

static int maybe_stop(void *ctx)
{
    calls *c = ctx;
    return ++c->asked == c->stop_at;
}

static corvid_status make(const char *data, const char *out, size_t size, double held_out,
                          cv_vocabulary_result *result, corvid_error *err)
{
    const cv_vocabulary_run run = {
        .data = &data, .n_data = 1, .size = size, .held_out = held_out, .out = out
    };
    return cv_train_vocabulary(mem, &run, result, err);
}

static size_t count_tokens(const char *vocabulary, const char *text, size_t n)
{
    cv_tokenizer *tok = NULL;
    int32_t *ids = NULL;
    size_t count, at = 0, length;
    corvid_error err;
    ASSERT_OK(cv_vocabulary_open(mem, vocabulary, &tok, &err), &err);
    ASSERT_OK(cv_tokenizer_encode(tok, mem, text, n, &ids, &count, &err), &err);
    for (size_t i = 0; i < count; i++, at += length) {
        const char *piece = cv_tokenizer_piece(tok, ids[i], &length);
        assert_true(at + length <= n);
        assert_memory_equal(piece, text + at, length);
    }
    assert_int_equal(at, n);
    cv_free(mem, ids);
    cv_tokenizer_free(tok);
    return count;
}

static void assert_same_files(const char *a, const char *b)
{
    size_t a_n, b_n;
    char *left = test_read_file(a, &a_n), *right = test_read_file(b, &b_n);
    assert_int_equal(a_n, b_n);
    assert_memory_equal(left, right, a_n);
    free(left);
    free(right);
}

/* ---- what is made --------------------------------------------------------------------------- */

static void a_file_that_fits_the_text(void **state)
{
    (void)state;
    enum { N = 400000 };
    char *text = some_text(N);
    char data[512], out[512], again[512];
    snprintf(data, sizeof data, "%s", test_scratch("some.txt"));
    snprintf(out, sizeof out, "%s", test_scratch("some.vocab"));
    snprintf(again, sizeof again, "%s", test_scratch("again.vocab"));
    test_write_file(data, text, N);
    cv_vocabulary_result result, second;
    corvid_error err;
    ASSERT_OK(make(data, out, 280, 0.1, &result, &err), &err);
    assert_int_equal(result.size, 280);
    assert_int_equal(result.text_bytes + result.held_out_bytes, N);
    assert_in_range(result.held_out_bytes, N / 10 - 3 * 4096, N / 10);
    const double each = (double)result.held_out_bytes / (double)result.held_out_tokens;
    const double all = (double)N / (double)count_tokens(out, text, N);
    assert_true(all > 3.0); /* some 6 bytes a word, and a word is a token or two */
    assert_true(each > 0.98 * all && each < 1.02 * all);
    ASSERT_OK(make(data, again, 280, 0.1, &second, &err), &err);
    assert_memory_equal(&second, &result, sizeof result);
    assert_same_files(out, again);

    ASSERT_OK(make(data, again, 280, 0.0, &second, &err), &err); /* a vocabulary may be replaced */
    assert_int_equal(second.text_bytes, N);
    assert_int_equal(second.held_out_bytes, 0);
    assert_int_equal(second.held_out_tokens, 0);

    /* The same text from standard input: the same file. */
    const pid_t writer = begin_input(text, N);
    ASSERT_OK(make("-", again, 280, 0.1, &second, &err), &err);
    assert_int_equal(end_input(writer), 0);
    assert_memory_equal(&second, &result, sizeof result);
    assert_same_files(out, again);
    free(text);
}

/* Small documents are kept aside whole: here every fourth. */
static void lines_of_json(void **state)
{
    (void)state;
    char *lines = malloc(1000 * 40);
    size_t n = 0;
    assert_non_null(lines);
    for (int i = 0; i < 1000; i++)
        n += (size_t)sprintf(lines + n, "{\"text\":\"line %03d\"}\n", i);
    char data[512];
    snprintf(data, sizeof data, "%s", test_scratch("lines.jsonl"));
    test_write_file(data, lines, n);
    cv_vocabulary_result result;
    corvid_error err;
    ASSERT_OK(make(data, test_scratch("lines.vocab"), 300, 0.25, &result, &err), &err);
    assert_int_equal(result.held_out_bytes, 250 * 8);
    assert_int_equal(result.text_bytes, 750 * 8);
    assert_true(result.size > 257 && result.size < 300); /* there is no more to find */
    free(lines);
}

static void limit_of_what_is_kept_aside(void **state)
{
    (void)state;
    const size_t n = (size_t)20 << 20;
    char *text = some_text(n), data[512];
    snprintf(data, sizeof data, "%s", test_scratch("large.txt"));
    test_write_file(data, text, n);
    cv_vocabulary_result result;
    corvid_error err;
    ASSERT_OK(make(data, test_scratch("large.vocab"), 260, 0.9, &result, &err), &err);
    assert_in_range(result.held_out_bytes, CV_HELD_OUT_BYTES - 4 * 4096, CV_HELD_OUT_BYTES);
    assert_int_equal(result.text_bytes + result.held_out_bytes, n);
    unlink(data);
    free(text);
}

/* ---- what is refused ------------------------------------------------------------------------ */

static void other_files_are_not_replaced(void **state)
{
    (void)state;
    static const char book[] = "once upon a time there was a crow";
    char data[512], folder[512];
    snprintf(data, sizeof data, "%s", test_scratch("book.txt"));
    snprintf(folder, sizeof folder, "%s", test_scratch("folder"));
    assert_int_equal(mkdir(folder, 0700), 0);
    test_write_file(data, book, sizeof book - 1);
    cv_vocabulary_result result;
    corvid_error err;
    assert_int_equal(make(data, data, 300, 0.1, &result, &err), CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "book.txt: is there and is not a vocabulary"));
    assert_int_equal(make(data, folder, 300, 0.1, &result, &err), CORVID_E_ARGUMENT);
    assert_int_equal(make(data, "bytes", 300, 0.1, &result, &err), CORVID_E_ARGUMENT);
    size_t n;
    char *now = test_read_file(data, &n);
    assert_string_equal(now, book);
    free(now);
}

static void nothing_is_left_of_a_failure(void **state)
{
    (void)state;
    char out[512], path[512];
    cv_vocabulary_result result;
    corvid_error err;
    snprintf(out, sizeof out, "%s", test_scratch("failed.vocab"));
    assert_int_equal(make("/no-such/text.txt", out, 300, 0.1, &result, &err), CORVID_E_FILE);
    snprintf(path, sizeof path, "%s", test_scratch("empty.txt"));
    test_write_file(path, "", 0);
    assert_int_equal(make(path, out, 300, 0.1, &result, &err), CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "empty.txt: there is no text in it"));
    test_write_file(path, "text", 4);
    assert_int_equal(make(path, "/no-such/folder/v", 300, 0.1, &result, &err), CORVID_E_WRITE);
    snprintf(path, sizeof path, "%s", test_scratch("tokens.bin"));
    test_write_file(path, "text", 4);
    path[strlen(path) - 3] = '\0';
    strcat(path, "idx");
    test_write_file(path, "index", 5);
    assert_int_equal(make(path, out, 300, 0.1, &result, &err), CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "holds tokens"));
    assert_int_equal(access(out, F_OK), -1);
}

static void progress_and_cancel(void **state)
{
    (void)state;
    enum { N = 3 << 20 };
    char *text = some_text(N);
    char path[512], out[512];
    snprintf(path, sizeof path, "%s", test_scratch("watched.txt"));
    snprintf(out, sizeof out, "%s", test_scratch("watched.vocab"));
    test_write_file(path, text, N);
    const char *data = path;
    calls c = { .stop_at = 0 };
    const cv_vocabulary_run run = { .data = &data,
                                    .n_data = 1,
                                    .size = 270,
                                    .held_out = 0.1,
                                    .out = out,
                                    .reading = see_reading,
                                    .searching = see_searching,
                                    .cancel = maybe_stop,
                                    .ctx = &c };
    cv_vocabulary_result result;
    corvid_error err;
    static const size_t stops[] = { 2, 6 }; /* while reading, while searching */
    for (size_t i = 0; i < 2; i++) {
        c = (calls){ .stop_at = stops[i] };
        assert_int_equal(cv_train_vocabulary(mem, &run, &result, &err), CORVID_E_CANCELLED);
        assert_int_equal(c.searching > 0, i == 1);
        assert_int_equal(access(out, F_OK), -1);
    }
    c = (calls){ .stop_at = 0 };
    ASSERT_OK(cv_train_vocabulary(mem, &run, &result, &err), &err);
    assert_int_equal(c.reading, N);
    assert_int_equal(c.total, N);
    assert_true(c.searching > 1);
    free(text);
}

static void every_allocation_fails_once(void **state)
{
    (void)state;
    enum { N = 60000 };
    char *text = some_text(N);
    char path[512], out[512];
    snprintf(path, sizeof path, "%s", test_scratch("failing.txt"));
    snprintf(out, sizeof out, "%s", test_scratch("failing.vocab"));
    test_write_file(path, text, N);
    const char *data = path;
    const cv_vocabulary_run run = {
        .data = &data, .n_data = 1, .size = 270, .held_out = 0.1, .out = out
    };
    for (size_t kind = 0; kind < 2; kind++) /* a new file, then one that is there */
        for (size_t nth = 1;; nth++) {
            test_allocator a;
            cv_vocabulary_result result;
            corvid_error err;
            test_allocator_init(&a);
            a.fail_at = nth;
            if (kind == 0) unlink(out);
            const corvid_status status = cv_train_vocabulary(&a.api, &run, &result, &err);
            assert_int_equal(a.live, 0);
            if (status == CORVID_OK) {
                assert_true(nth > a.calls && nth > 20);
                break;
            }
            if (status != CORVID_E_MEMORY) fail_msg("allocation %zu: %s", nth, err.text);
        }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_fits_the_text),
        cmocka_unit_test(lines_of_json),
        cmocka_unit_test(limit_of_what_is_kept_aside),
        cmocka_unit_test(other_files_are_not_replaced),
        cmocka_unit_test(nothing_is_left_of_a_failure),
        cmocka_unit_test(progress_and_cancel),
        cmocka_unit_test(every_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
