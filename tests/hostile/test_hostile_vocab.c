/* test_hostile_vocab.c - damaged and malicious vocabularies: an error that says where, and soon.
 *
 * Then every allocation fails once, ours and Jansson's, while vocabularies are read and used. */
#include "support.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "tiny_bpe.h"

/* The promise is 100 ms; sanitizers make programs several times slower. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMIT_MS 1000.0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define LIMIT_MS 1000.0
#endif
#endif
#ifndef LIMIT_MS
#define LIMIT_MS 100.0
#endif

/* Processor time, so that other work on the machine does not count. */
static double milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

typedef corvid_status (*opener)(const corvid_allocator *, const char *, size_t, const char *,
                                cv_tokenizer **, corvid_error *);

/* Valgrind slows a program thirtyfold, and is known by what it loads in front. */
static double time_limit(void)
{
    const char *loaded = getenv("LD_PRELOAD");
    return loaded && strstr(loaded, "vgpreload") ? 30 * LIMIT_MS : LIMIT_MS;
}

/* The text is refused as malformed, says so, leaks nothing and takes no time. */
static void assert_refused(opener open, const char *what, const char *text, size_t n,
                           const char *says)
{
    test_allocator counting;
    test_allocator_init(&counting);
    cv_tokenizer *tok = NULL;
    corvid_error err = { 0 };
    char *exact = malloc(n > 0 ? n : 1); /* reading past the end is found */
    assert_non_null(exact);
    memcpy(exact, text, n);
    const double start = milliseconds();
    const corvid_status status = open(&counting.api, exact, n, "bad", &tok, &err);
    const double taken = milliseconds() - start;
    free(exact);
    if (status != CORVID_E_FORMAT) fail_msg("%s: status %d", what, (int)status);
    assert_int_equal(err.status, CORVID_E_FORMAT);
    if (!strstr(err.text, says)) fail_msg("%s: wanted \"%s\" in \"%s\"", what, says, err.text);
    if (strncmp(err.text, "bad: ", 5) != 0) fail_msg("%s: no file name in \"%s\"", what, err.text);
    assert_true(cv_utf8_valid(err.text, strlen(err.text)));
    if (taken > time_limit()) fail_msg("%s: refused only after %.0f ms", what, taken);
    assert_null(tok);
    assert_int_equal(counting.live, 0);
    assert_int_equal(open(&counting.api, text, n, "bad", &tok, NULL), CORVID_E_FORMAT);
    assert_int_equal(counting.live, 0);
}

typedef struct bad_file {
    const char *what, *text, *says;
} bad_file;

/* ---- vocabulary files ----------------------------------------------------------------------- */

static const bad_file bad_vocabularies[] = {
    { "empty", "", "line 1: the file is empty" },
    { "one line end", "\n", "line 1, column 1" },
    { "truncated in a literal", "1 'a' 1\n2 'b", "line 2, column 5: the line ends here" },
    { "truncated in a length", "1 'a' 1\n2 'bc' ", "line 2, column 8: the line ends here" },
    { "truncated in an escape", "1 '\\x", "line 1, column 6" },
    { "length too small", "1 'abc' 2\n", "line 1, column 9: the literal has 3 bytes" },
    { "length too large", "1 'abc' 4\n", "line 1, column 9: the literal has 3 bytes" },
    { "duplicate id", "1 'a' 1\n1 'b' 1\n", "line 2, column 1: id 1 after id 1" },
    { "falling ids", "2 'a' 1\n1 'b' 1\n", "line 2, column 1: id 1 after id 2" },
    { "duplicate token", "1 'a' 1\n2 'b' 1\n3 'a' 1\n", "line 3: token 3 has the same bytes" },
    { "id 0", "0 'a' 1\n", "line 1, column 1: found '0', expected an id from 1 on" },
    { "huge id", "1 'a' 1\n2147483648 'b' 1\n", "line 2, column 1: the id is too large" },
    { "id beyond 64 bits", "99999999999999999999999 'b' 1\n", "the id is too large" },
    { "negative id", "-1 'b' 1\n", "line 1, column 1: found '-'" },
    { "another format", "<s>\n</s>\n", "line 1, column 1: found '<'" },
    { "byte order mark",
      "\xEF\xBB\xBF"
      "1 'a' 1\n",
      "line 1, column 1: found byte 0xEF" },
    { "UTF-16",
      "\xFF\xFE"
      "1 ",
      "line 1, column 1: found byte 0xFF" },
    { "no literal", "1 1\n", "line 1, column 4" },
    { "HTML", "<!DOCTYPE html><html>", "line 1, column 1: found '<'" },
    { "a blank line", "1 'a' 1\n\n2 'b' 1\n", "line 2, column 1" },
    { "half a surrogate pair", "1 '\\ud83d' 3\n",
      "line 1, column 5: found 'u', expected a character" },
};

static void bad_vocabularies_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_vocabularies / sizeof bad_vocabularies[0]; i++) {
        const bad_file *bad = &bad_vocabularies[i];
        assert_refused(cv_tokenizer_world, bad->what, bad->text, strlen(bad->text), bad->says);
    }
    static const char zeros[4096];
    assert_refused(cv_tokenizer_world, "zeros", zeros, sizeof zeros, "found byte 0x00");
    assert_refused(cv_tokenizer_world, "a pickle", "\x80\x02}q\x00", 5, "found byte 0x80");
}

/* Megabytes of one thing. */
static void large_bad_vocabularies_are_refused(void **state)
{
    (void)state;
    const size_t n = (size_t)4 << 20;
    char *text = malloc(n + 64);
    assert_non_null(text);
    memset(text, 'x', n);
    memcpy(text, "1 '", 3);
    assert_refused(cv_tokenizer_world, "endless literal", text, n, "line 1, column 4194305");
    memcpy(text + n - 10, "' 4194283\n", 10);
    assert_refused(cv_tokenizer_world, "huge token", text, n, "line 1, column");
    memset(text, '9', n);
    assert_refused(cv_tokenizer_world, "endless number", text, n, "the id is too large");
    memset(text, '\n', n);
    assert_refused(cv_tokenizer_world, "line ends", text, n, "line 1, column 1");
    memset(text, '\\', n);
    memcpy(text, "1 '", 3);
    assert_refused(cv_tokenizer_world, "backslashes", text, n, "line 1, column");
    free(text);
}

/* A token of 4096 bytes is the longest; one more is refused by name. */
static void token_length_has_a_bound(void **state)
{
    (void)state;
    char text[5000];
    for (int n = 4096; n <= 4097; n++) {
        const int length = snprintf(text, sizeof text, "1 '%0*d' %d\n", n, 0, n);
        cv_tokenizer *tok;
        corvid_error err;
        if (n == 4097) {
            assert_refused(cv_tokenizer_world, "long token", text, (size_t)length,
                           "line 1: the token has 4097 bytes, expected at most 4096");
            continue;
        }
        ASSERT_OK(cv_tokenizer_world(&cv_libc_allocator, text, (size_t)length, "t", &tok, &err),
                  &err);
        cv_tokenizer_free(tok);
    }
}

/* ---- tokenizer.json ------------------------------------------------------------------------- */

#define HEAD  "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},"
#define MODEL HEAD "\"model\":"

static const bad_file bad_json[] = {
    { "empty", "", "line 1, column 0" },
    { "not JSON", "1 'a' 1\n", "line 1" },
    { "truncated", "{\"model\":\n {\"vocab\":{\"a\":0,", "line 2, column" },
    { "truncated in a string", "{\"model\":{\"vo", "line 1, column" },
    { "an array", "[1,2]", "expected a JSON object" },
    { "no model", "{}", "no object \"model\"" },
    { "model is a number", "{\"model\":3}", "no object \"model\"" },
    { "a unigram model", MODEL "{\"type\":\"Unigram\",\"vocab\":[]}}",
      "model.type is \"Unigram\"" },
    { "byte fallback", MODEL "{\"byte_fallback\":true,\"vocab\":{\"a\":0},\"merges\":[]}}",
      "model.byte_fallback is set" },
    { "no pre-tokenizer", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
      "pre_tokenizer.type is \"?\", expected \"ByteLevel\"" },
    { "another pre-tokenizer", "{\"pre_tokenizer\":{\"type\":\"Metaspace\"},\"model\":{}}",
      "pre_tokenizer.type is \"Metaspace\"" },
    { "a prefix space",
      "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true},\"model\":{}}",
      "add_prefix_space" },
    { "another normalizer",
      "{\"normalizer\":{\"type\":\"NFKC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{}"
      "}",
      "normalizer.type is \"NFKC\"" },
    { "no vocabulary", MODEL "{\"merges\":[]}}", "model.vocab: expected an object" },
    { "an empty vocabulary", MODEL "{\"vocab\":{},\"merges\":[]}}",
      "model.vocab: expected an object" },
    { "no merges", MODEL "{\"vocab\":{\"a\":0}}}", "model.merges: expected an array" },
    { "merges is an object", MODEL "{\"vocab\":{\"a\":0},\"merges\":{}}}",
      "model.merges: expected" },
    { "an id that is text", MODEL "{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}",
      "model.vocab[\"a\"]: expected an integer id" },
    { "a fraction as id", MODEL "{\"vocab\":{\"a\":0.5},\"merges\":[]}}",
      "expected an integer id" },
    { "a negative id", MODEL "{\"vocab\":{\"a\":-1},\"merges\":[]}}", "model.vocab[\"a\"]: id -1" },
    { "a huge id", MODEL "{\"vocab\":{\"a\":4294967296},\"merges\":[]}}",
      "model.vocab[\"a\"]: id 4294967296, expected 0 to 1048575" },
    { "an id beyond 64 bits", MODEL "{\"vocab\":{\"a\":99999999999999999999},\"merges\":[]}}",
      "line 1" },
    { "duplicate ids", MODEL "{\"vocab\":{\"a\":3,\"b\":3},\"merges\":[]}}",
      "expected different ids" },
    { "duplicate keys", MODEL "{\"vocab\":{\"a\":1,\n\"a\":2},\"merges\":[]}}", "line 2" },
    { "an empty token", MODEL "{\"vocab\":{\"\":1},\"merges\":[]}}", "the token has 0 bytes" },
    { "an unknown left token", MODEL "{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"x a\"]}}",
      "model.merges[0]: no token \"x\"" },
    { "an unknown right token", MODEL "{\"vocab\":{\"a\":0,\"ab\":1},\"merges\":[[\"a\",\"b\"]]}}",
      "model.merges[0]: no token \"b\"" },
    { "an unknown result", MODEL "{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}",
      "model.merges[0]: no token \"ab\"" },
    { "a merge of one", MODEL "{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}",
      "model.merges[0]: expected" },
    { "a merge of three", MODEL "{\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}}",
      "model.merges[0]: expected" },
    { "a merge of numbers", MODEL "{\"vocab\":{\"a\":0},\"merges\":[[1,2]]}}",
      "model.merges[0]: expected two strings" },
    { "an empty half", MODEL "{\"vocab\":{\"a\":0},\"merges\":[\" a\"]}}",
      "model.merges[0]: no token" },
    { "the same merge twice", MODEL "{\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[\"a a\",\"a a\"]}}",
      "model.merges[1]: the same pair as model.merges[0]" },
    { "added tokens of no kind",
      HEAD "\"added_tokens\":7,\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
      "added_tokens: expected an array" },
    { "an added token without text",
      HEAD "\"added_tokens\":[{\"id\":1}],\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
      "added_tokens[0]: expected" },
    { "an added token of a taken id",
      HEAD
      "\"added_tokens\":[{\"id\":0,\"content\":\"x\"}],\"model\":{\"vocab\":{\"a\":0},\"merges\":"
      "[]}}",
      "added_tokens[0]: id 0 is that of \"a\" already" },
    { "an added token of another id",
      HEAD
      "\"added_tokens\":[{\"id\":1,\"content\":\"a\"}],\"model\":{\"vocab\":{\"a\":0},\"merges\":"
      "[]}}",
      "added_tokens[0]: \"a\" has id 1, but id 0" },
    { "an added token that strips",
      HEAD "\"added_tokens\":[{\"id\":1,\"content\":\"x\",\"lstrip\":true}],\"model\":{\"vocab\":"
           "{\"a\":0},\"merges\":[]}}",
      "added_tokens[0]: lstrip is set" },
    { "two added tokens of one text",
      HEAD "\"added_tokens\":[{\"id\":1,\"content\":\"x\"},{\"id\":2,\"content\":\"x\"}],"
           "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
      "has the same text as another" },
    { "a zero in a string", MODEL "{\"vocab\":{\"a\\u0000b\":0},\"merges\":[]}}", "line 1" },
    { "bytes that are not UTF-8", MODEL "{\"vocab\":{\"\xFF\":0},\"merges\":[]}}", "line 1" },
};

static void bad_json_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_json / sizeof bad_json[0]; i++) {
        const bad_file *bad = &bad_json[i];
        assert_refused(cv_tokenizer_bpe, bad->what, bad->text, strlen(bad->text), bad->says);
    }
    static const char zeros[4096];
    assert_refused(cv_tokenizer_bpe, "zeros", zeros, sizeof zeros, "line 1");
}

static void large_bad_json_is_refused(void **state)
{
    (void)state;
    const size_t n = (size_t)1 << 20;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, '[', n);
    assert_refused(cv_tokenizer_bpe, "deep arrays", text, n, "line 1");
    for (size_t i = 0; i + 5 <= n; i += 5)
        memcpy(text + i, "{\"a\":", 5);
    assert_refused(cv_tokenizer_bpe, "deep objects", text, n, "line 1");
    memset(text, 'a', n);
    text[0] = '"';
    assert_refused(cv_tokenizer_bpe, "endless string", text, n, "line 1");
    const char *head = MODEL "{\"vocab\":{\"", *tail = "\":0},\"merges\":[]}}";
    memcpy(text, head, strlen(head));
    memset(text + strlen(head), 'a', n - strlen(head) - strlen(tail));
    memcpy(text + n - strlen(tail), tail, strlen(tail));
    assert_refused(cv_tokenizer_bpe, "huge token", text, n, "expected 1 to 4096");
    free(text);
}

/* A message that had to shorten the file's own words is still UTF-8. */
static void messages_stay_utf8(void **state)
{
    (void)state;
    for (size_t shift = 0; shift < 4; shift++) {
        char text[2048];
        size_t n =
            (size_t)snprintf(text, sizeof text, MODEL "{\"vocab\":{\"%.*s", (int)shift, "aaa");
        for (int i = 0; i < 200; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "\xE4\xB8\xAD");
        n += (size_t)snprintf(text + n, sizeof text - n, "\":-5},\"merges\":[]}}");
        assert_refused(cv_tokenizer_bpe, "long words", text, n, "id -5");
    }
}

/* Any part of a good file is refused or, without its last line end, read; never worse. */
static void truncated_files_do_no_harm(void **state)
{
    (void)state;
    static tiny_bpe tiny;
    tiny_begin(&tiny);
    tiny_merge_texts(&tiny, "t", "h");
    char *json = tiny_json(&tiny, true);
    const size_t n = strlen(json);
    for (size_t cut = 0; cut + 1 < n; cut += 1 + cut / 64) {
        cv_tokenizer *tok;
        corvid_error err;
        assert_int_equal(cv_tokenizer_bpe(&cv_libc_allocator, json, cut, "cut", &tok, &err),
                         CORVID_E_FORMAT);
    }
    free(json);
}

/* ---- no memory ------------------------------------------------------------------------------ */

/* Opens and encodes; the first status that is not CORVID_OK. */
static corvid_status open_and_use(const corvid_allocator *mem, const char *vocabulary,
                                  const char *text, corvid_error *err)
{
    cv_tokenizer *tok = NULL;
    int32_t *ids = NULL;
    size_t count;
    corvid_status status =
        cv_tokenizer_parse(mem, vocabulary, strlen(vocabulary), "small", &tok, err);
    if (status != CORVID_OK) {
        assert_null(tok);
        return status;
    }
    status = cv_tokenizer_encode(tok, mem, text, strlen(text), &ids, &count, err);
    if (status != CORVID_OK) assert_null(ids);
    cv_free(mem, ids);
    cv_tokenizer_free(tok);
    return status;
}

static void fail_each_allocation(const char *vocabulary, const char *text)
{
    test_allocator meddling;
    test_allocator_init(&meddling);
    corvid_error err;
    ASSERT_OK(open_and_use(&meddling.api, vocabulary, text, &err), &err);
    const size_t calls = meddling.calls;
    assert_int_equal(meddling.live, 0);
    assert_true(calls > 5);
    for (size_t nth = 1; nth <= calls; nth++) {
        test_allocator_init(&meddling);
        meddling.fail_at = nth;
        if (open_and_use(&meddling.api, vocabulary, text, &err) != CORVID_E_MEMORY)
            fail_msg("allocation %zu of %zu: %s", nth, calls, err.text);
        assert_non_null(strstr(err.text, "memory"));
        assert_int_equal(meddling.live, 0);
    }
}

/* Longer than the first guess of the ids, words longer than the scratch, marks, a bad byte. */
static char *demanding_text(void)
{
    char *text = calloc(4096, 1);
    assert_non_null(text);
    for (int i = 0; i < 100; i++)
        strcat(text, "ab!a\xCC\x81");
    for (int i = 0; i < 200; i++)
        strcat(text, "ba");
    strcat(text, "\xFF\xCC\x81");
    return text;
}

static void world_survives_each_failed_allocation(void **state)
{
    (void)state;
    char *text = demanding_text();
    tiny_text file = { 0 };
    for (unsigned b = 1; b < 256; b++)
        tiny_print(&file, "%u b'\\x%02x' 1\n", b, b);
    fail_each_allocation(file.at, text);
    free(file.at);
    free(text);
}

static void bpe_survives_each_failed_allocation(void **state)
{
    (void)state;
    static tiny_bpe tiny;
    tiny_begin(&tiny);
    assert_true(tiny_merge_texts(&tiny, "t", "h"));
    char *text = demanding_text(), *json = tiny_json(&tiny, false);
    fail_each_allocation(json, text);
    free(json);
    free(text);
}

/* Jansson takes its memory from the C library: there, too, each call fails once. */
static size_t jansson_calls, jansson_fails_at;

static void *jansson_alloc(size_t n)
{
    return ++jansson_calls == jansson_fails_at ? NULL : malloc(n);
}

static void jansson_survives_each_failed_allocation(void **state)
{
    (void)state;
    const char *json =
        MODEL "{\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[[\"a\",\"a\"]]},"
              "\"added_tokens\":[{\"id\":2,\"content\":\"<|end|>\",\"special\":true}]}";
    corvid_error err;
    json_set_alloc_funcs(jansson_alloc, free);
    jansson_calls = jansson_fails_at = 0;
    ASSERT_OK(open_and_use(&cv_libc_allocator, json, "aaaa<|end|>", &err), &err);
    const size_t calls = jansson_calls;
    for (size_t nth = 1; nth <= calls; nth++) {
        jansson_calls = 0;
        jansson_fails_at = nth;
        const corvid_status status = open_and_use(&cv_libc_allocator, json, "aaaa<|end|>", &err);
        if (status != CORVID_E_MEMORY && status != CORVID_E_FORMAT)
            fail_msg("allocation %zu of %zu: status %d", nth, calls, (int)status);
    }
    json_set_alloc_funcs(malloc, free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_vocabularies_are_refused),
        cmocka_unit_test(large_bad_vocabularies_are_refused),
        cmocka_unit_test(token_length_has_a_bound),
        cmocka_unit_test(bad_json_is_refused),
        cmocka_unit_test(large_bad_json_is_refused),
        cmocka_unit_test(messages_stay_utf8),
        cmocka_unit_test(truncated_files_do_no_harm),
        cmocka_unit_test(world_survives_each_failed_allocation),
        cmocka_unit_test(bpe_survives_each_failed_allocation),
        cmocka_unit_test(jansson_survives_each_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
