/* test_hostile_binidx.c - damaged and forged data sets of tokens: a sentence, never a wrong token.
 *
 * With --write FOLDER it writes the fuzzer's first inputs instead. */
#include "support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "binidx_bytes.h"
#include "train/binidx.h"

enum { N = 9, SEQUENCES = 4, DOCUMENTS = 3, VOCABULARY = 300 };
enum { OFFSETS = 34 + 4 * SEQUENCES, ENTRIES = OFFSETS + 8 * SEQUENCES };

static const int64_t ids[N] = { 5, 99, 0, 1, 2, 3, 127, 8, 0 };
static const int32_t lengths[SEQUENCES] = { 3, 0, 4, 2 };
static const int64_t first[DOCUMENTS] = { 0, 1, 2 };

static set_bytes good_set(int type)
{
    return set_make(type, ids, lengths, SEQUENCES, first, DOCUMENTS);
}

static corvid_status parse(cv_binidx *set, const set_bytes *s, corvid_error *err)
{
    return cv_binidx_parse(set, s->index, s->index_n, s->tokens, s->tokens_n, "hostile", err);
}

/* From exact copies, so that reading past their ends is found. */
static void assert_refused(const char *what, const unsigned char *index, size_t index_n,
                           const unsigned char *tokens, size_t tokens_n, const char *says)
{
    cv_binidx set;
    corvid_error err = { CORVID_OK, "" };
    set_bytes copy = { malloc(index_n + 1), malloc(tokens_n + 1), index_n, tokens_n };
    assert_true(copy.index && copy.tokens);
    copy.index = realloc(copy.index, index_n > 0 ? index_n : 1);
    copy.tokens = realloc(copy.tokens, tokens_n > 0 ? tokens_n : 1);
    memcpy(copy.index, index, index_n);
    memcpy(copy.tokens, tokens, tokens_n);
    const corvid_status status = parse(&set, &copy, &err);
    if (status != CORVID_E_FORMAT || err.status != status)
        fail_msg("%s: status %d: %s", what, (int)status, err.text);
    if (!strstr(err.text, says)) fail_msg("%s: wanted \"%s\" in \"%s\"", what, says, err.text);
    if (strncmp(err.text, "hostile: ", 9) != 0) fail_msg("%s: no file in \"%s\"", what, err.text);
    assert_int_equal(parse(&set, &copy, NULL), CORVID_E_FORMAT);
    cv_binidx_close(&set); /* nothing is left to close */
    set_free(&copy);
}

/* ---- what is right -------------------------------------------------------------------------- */

static void good_sets_are_read(void **state)
{
    (void)state;
    static const int types[] = { SET_UINT8, SET_INT8, SET_INT16, SET_INT32, SET_INT64, SET_UINT16 };
    static const uint64_t begins[DOCUMENTS] = { 0, 3, 3 }, counts[DOCUMENTS] = { 3, 0, 6 };
    for (size_t t = 0; t < 6; t++) {
        set_bytes s = good_set(types[t]);
        cv_binidx set;
        corvid_error err;
        int32_t have[N];
        uint64_t from, n;
        ASSERT_OK(parse(&set, &s, &err), &err);
        assert_int_equal(set.n_tokens, N);
        assert_int_equal(set.n_documents, DOCUMENTS);
        assert_int_equal(set.token_bytes, set_token_bytes(types[t]));
        for (uint64_t d = 0; d < DOCUMENTS; d++) {
            ASSERT_OK(cv_binidx_document(&set, d, &from, &n, &err), &err);
            assert_int_equal(from, begins[d]);
            assert_int_equal(n, counts[d]);
        }
        assert_int_equal(cv_binidx_document(&set, DOCUMENTS, &from, &n, &err), CORVID_E_ARGUMENT);
        assert_int_equal(cv_binidx_document(&set, UINT64_MAX, &from, &n, &err), CORVID_E_ARGUMENT);
        for (uint64_t at = 0; at <= N; at++) {
            ASSERT_OK(cv_binidx_read(&set, at, (size_t)(N - at), 128, have, &err), &err);
            for (uint64_t i = at; i < N; i++)
                assert_int_equal(have[i - at], ids[i]);
        }
        assert_int_equal(cv_binidx_read(&set, 4, N - 3, 128, have, &err), CORVID_E_ARGUMENT);
        assert_int_equal(cv_binidx_read(&set, UINT64_MAX, 1, 128, have, &err), CORVID_E_ARGUMENT);
        assert_int_equal(cv_binidx_read(&set, 0, N, 127, have, &err), CORVID_E_MISMATCH);
        assert_non_null(strstr(err.text, "token 6 "));
        cv_binidx_close(&set);
        cv_binidx_close(&set);
        set_free(&s);
    }
}

/* More of everything than is looked at together. */
static void large_sets(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    static int32_t some[MANY];
    static int64_t begins[MANY], tokens[MANY * 3];
    size_t n = 0;
    for (size_t i = 0; i < MANY; i++) {
        some[i] = (int32_t)(i * i % 4);
        begins[i] = (int64_t)i;
        n += (size_t)some[i];
    }
    for (size_t i = 0; i < n; i++)
        tokens[i] = (int64_t)(i * 7919 % 60000);
    set_bytes s = set_make(SET_UINT16, tokens, some, MANY, begins, MANY);
    cv_binidx set;
    corvid_error err;
    ASSERT_OK(parse(&set, &s, &err), &err);
    int32_t *have = malloc((n + 1) * sizeof *have);
    assert_non_null(have);
    ASSERT_OK(cv_binidx_read(&set, 0, n, 60000, have, &err), &err);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(have[i], tokens[i]);
    uint64_t at = 0, from, count;
    for (size_t i = 0; i < MANY; i++) {
        ASSERT_OK(cv_binidx_document(&set, i, &from, &count, &err), &err);
        assert_int_equal(from, at);
        assert_int_equal(count, some[i]);
        at += count;
    }
    free(have);
    cv_binidx_close(&set);
    for (size_t i = 600; i < MANY; i += 700) { /* damage behind the first piece is found too */
        int64_t offset = INT64_MAX;
        unsigned char *there = s.index + 34 + 4 * MANY + 8 * i;
        memcpy(&offset, there, 8);
        offset++;
        memcpy(there, &offset, 8);
        assert_refused("far offset", s.index, s.index_n, s.tokens, s.tokens_n, "sequence");
        offset--;
        memcpy(there, &offset, 8);
        there += 8 * MANY;
        offset = INT64_MAX;
        memcpy(there, &offset, 8);
        assert_refused("far entry", s.index, s.index_n, s.tokens, s.tokens_n, "document");
        offset = (int64_t)i;
        memcpy(there, &offset, 8);
    }
    set_free(&s);
}

/* ---- damage --------------------------------------------------------------------------------- */

static void every_cut_is_refused(void **state)
{
    (void)state;
    set_bytes s = good_set(SET_UINT16);
    for (size_t n = 0; n < s.index_n; n++)
        assert_refused("cut index", s.index, n, s.tokens, s.tokens_n,
                       n < 9    ? "no MMIDIDX at offset 0"
                       : n < 34 ? "ends at byte"
                                : "do not fit");
    for (size_t n = 0; n < s.tokens_n; n++)
        assert_refused("cut tokens", s.index, s.index_n, s.tokens, n, "sequence");
    unsigned char *longer = calloc(s.index_n + 8, 1);
    assert_non_null(longer);
    memcpy(longer, s.index, s.index_n);
    assert_refused("longer index", longer, s.index_n + 8, s.tokens, s.tokens_n, "do not fit");
    memcpy(longer, s.tokens, s.tokens_n);
    assert_refused("longer tokens", s.index, s.index_n, longer, s.tokens_n + 1, "counts 18 bytes");
    free(longer);
    set_free(&s);
}

/* All of the index but the type and the documents is determined by the rest: a bit that is wrong
 * there is found.  Wherever it is, nothing outside the tokens is read. */
static void every_flipped_bit(void **state)
{
    (void)state;
    set_bytes s = good_set(SET_UINT16);
    for (size_t bit = 0; bit < 8 * s.index_n; bit++) {
        const size_t byte = bit / 8;
        cv_binidx set;
        corvid_error err = { CORVID_OK, "" };
        s.index[byte] = (unsigned char)(s.index[byte] ^ 1 << bit % 8);
        const corvid_status status = parse(&set, &s, &err);
        if (status != CORVID_E_FORMAT && byte != 17 && byte < ENTRIES)
            fail_msg("bit %zu of byte %zu: status %d: %s", bit % 8, byte, (int)status, err.text);
        for (uint64_t d = 0; status == CORVID_OK && d < set.n_documents; d++) {
            int32_t have[2 * N];
            uint64_t from, n;
            ASSERT_OK(cv_binidx_document(&set, d, &from, &n, &err), &err);
            assert_true(from <= set.n_tokens && n <= set.n_tokens - from);
            (void)cv_binidx_read(&set, from, (size_t)n, VOCABULARY, have, &err);
        }
        if (status == CORVID_OK) cv_binidx_close(&set);
        s.index[byte] = (unsigned char)(s.index[byte] ^ 1 << bit % 8);
    }
    set_free(&s);
}

/* ---- forgery -------------------------------------------------------------------------------- */

typedef struct forgery {
    const char *what;
    size_t at;
    int64_t value;
    size_t bytes;
    const char *says;
} forgery;

static void forgeries_are_refused(void **state)
{
    (void)state;
    static const forgery cases[] = {
        { "version", 9, 2, 8, "version 2 at offset 9" },
        { "no type", 17, 0, 1, "type 0 at offset 17" },
        { "float", 17, 6, 1, "type 6 at offset 17" },
        { "double", 17, 7, 1, "type 7 at offset 17" },
        { "type behind the last", 17, 9, 1, "type 9 at offset 17" },
        { "largest type", 17, 255, 1, "type 255 at offset 17" },
        { "a wider type", 17, SET_INT32, 1, "from byte 6 on, expected byte 12" },
        { "a narrower type", 17, SET_UINT8, 1, "sequence 1 has 0 tokens from byte 6" },
        { "no sequences", 18, 0, 8, "do not fit" },
        { "more sequences", 18, SEQUENCES + 1, 8, "do not fit" },
        { "most sequences", 18, -1, 8, "do not fit" },
        { "sequences that wrap around", 18, ((int64_t)1 << 62) + SEQUENCES, 8, "do not fit" },
        { "no entries", 26, 0, 8, "do not fit" },
        { "most entries", 26, -1, 8, "do not fit" },
        { "entries that wrap around", 26, ((int64_t)1 << 61) + DOCUMENTS + 1, 8, "do not fit" },
        { "a negative length", 34, -3, 4, "sequence 0 has -3 tokens" },
        { "a length too large", 34 + 12, 3, 4, "sequence 3 has 3 tokens" },
        { "the largest length", 34, INT32_MAX, 4, "sequence 0 has 2147483647 tokens" },
        { "a length too small", 34 + 12, 1, 4, "counts 16 bytes" },
        { "a gap", OFFSETS + 8, 8, 8, "sequence 1 has 0 tokens from byte 8 on, expected byte 6" },
        { "an overlap", OFFSETS + 16, 4, 8, "sequence 2 has 4 tokens from byte 4" },
        { "a negative offset", OFFSETS, -2, 8, "from byte -2" },
        { "an offset behind the end", OFFSETS + 24, INT64_MAX, 8, "sequence 3" },
        { "documents from the second", ENTRIES, 1, 8, "document 0 begins at sequence 1" },
        { "falling documents", ENTRIES + 16, 0, 8, "document 2 begins at sequence 0" },
        { "a document behind the end", ENTRIES + 16, 5, 8, "document 2 begins at sequence 5" },
        { "a negative document", ENTRIES + 8, -1, 8, "document 1 begins at sequence 1844" },
        { "documents that end early", ENTRIES + 24, 3, 8, "document 3 begins at sequence 3" },
        { "documents that end late", ENTRIES + 24, 5, 8, "document 3 begins at sequence 5" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        set_bytes s = good_set(SET_UINT16);
        memcpy(s.index + cases[i].at, &cases[i].value, cases[i].bytes);
        assert_refused(cases[i].what, s.index, s.index_n, s.tokens, s.tokens_n, cases[i].says);
        set_free(&s);
    }
}

static void foreign_ids_are_refused(void **state)
{
    (void)state;
    static const struct {
        int type;
        int64_t id;
        const char *says;
    } cases[] = { { SET_UINT8, 255, "255" },         { SET_INT8, -1, "-1" },
                  { SET_INT16, -32768, "-32768" },   { SET_UINT16, 65535, "65535" },
                  { SET_INT32, -5, "-5" },           { SET_INT32, INT32_MAX, "2147483647" },
                  { SET_INT64, INT64_MAX, "92233" }, { SET_INT64, (int64_t)1 << 32, "4294967296" },
                  { SET_INT64, INT64_MIN, "-92233" } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const size_t w = set_token_bytes(cases[i].type);
        set_bytes s = good_set(cases[i].type);
        cv_binidx set;
        corvid_error err;
        int32_t have[N];
        memcpy(s.tokens + 4 * w, &cases[i].id, w);
        ASSERT_OK(parse(&set, &s, &err), &err);
        assert_int_equal(cv_binidx_read(&set, 0, N, 128, have, &err), CORVID_E_MISMATCH);
        assert_non_null(strstr(err.text, "token 4 "));
        assert_non_null(strstr(err.text, cases[i].says));
        ASSERT_OK(cv_binidx_read(&set, 0, 4, 128, have, &err), &err);
        set_free(&s);
    }
}

/* ---- files ---------------------------------------------------------------------------------- */

static void put(const char *stem, const char *end, const void *bytes, size_t n, char path[2048])
{
    snprintf(path, 2048, "%s%s", stem, end);
    test_write_file(path, bytes, n);
}

static void files_that_change_while_open(void **state)
{
    (void)state;
    char index[2048], tokens[2048], stem[1024];
    cv_binidx set;
    corvid_error err;
    int32_t have[N];
    uint64_t from, n;
    set_bytes s = good_set(SET_UINT16);
    snprintf(stem, sizeof stem, "%s", test_scratch("changing"));
    put(stem, ".idx", s.index, s.index_n, index);
    put(stem, ".bin", s.tokens, s.tokens_n, tokens);
    ASSERT_OK(cv_binidx_open(&set, index, &err), &err);
    static const int64_t wrong = INT64_MAX;
    const int a = open(index, O_WRONLY), b = open(tokens, O_WRONLY);
    assert_true(a >= 0 && b >= 0);
    assert_int_equal(pwrite(a, &wrong, 8, OFFSETS + 16), 8);
    assert_int_equal(cv_binidx_document(&set, 2, &from, &n, &err), CORVID_E_FORMAT);
    assert_non_null(strstr(err.text, "document 2 is no longer where it was"));
    assert_int_equal(ftruncate(a, 60), 0);
    assert_int_equal(cv_binidx_document(&set, 2, &from, &n, &err), CORVID_E_FORMAT);
    assert_int_equal(ftruncate(b, 5), 0);
    assert_int_equal(cv_binidx_read(&set, 0, N, VOCABULARY, have, &err), CORVID_E_FORMAT);
    assert_non_null(strstr(err.text, "ends at byte 5"));
    close(a);
    close(b);
    cv_binidx_close(&set);
    set_free(&s);
}

static void names_of_files(void **state)
{
    (void)state;
    char path[2048], stem[1024];
    cv_binidx set;
    corvid_error err;
    set_bytes s = good_set(SET_UINT16);
    assert_true(cv_binidx_is_named("a.bin") && cv_binidx_is_named("a/b.idx"));
    assert_false(cv_binidx_is_named(".bin") || cv_binidx_is_named("a.bin.txt") ||
                 cv_binidx_is_named(""));
    snprintf(stem, sizeof stem, "%s", test_scratch("names"));
    put(stem, ".idx", s.index, s.index_n, path);
    assert_int_equal(cv_binidx_open(&set, path, &err), CORVID_E_FILE); /* no .bin */
    assert_non_null(strstr(err.text, "names.bin: is not there"));
    snprintf(path, sizeof path, "%s.bin", stem);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(cv_binidx_open(&set, path, &err), CORVID_E_FILE); /* and it does not wait */
    unlink(path);
    put(stem, ".bin", s.tokens, s.tokens_n, path);
    ASSERT_OK(cv_binidx_open(&set, path, &err), &err);
    cv_binidx_close(&set);
    assert_int_equal(cv_binidx_open(&set, "no-such.txt", &err), CORVID_E_ARGUMENT);
    char *endless = malloc(8000);
    assert_non_null(endless);
    memset(endless, 'x', 8000);
    memcpy(endless + 7995, ".bin", 5);
    assert_int_equal(cv_binidx_open(&set, endless, &err), CORVID_E_ARGUMENT);
    free(endless);
    set_free(&s);
}

/* ---- the fuzzer's corpus -------------------------------------------------------------------- */

/* An input is the length of the index in two bytes, the index, and the tokens. */
static int write_input(const char *folder, const char *name, const set_bytes *s, size_t index_n)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file) return 1;
    fputc((int)(index_n & 255), file);
    fputc((int)(index_n >> 8), file);
    fwrite(s->index, 1, index_n, file);
    fwrite(s->tokens, 1, s->tokens_n, file);
    return fclose(file) != 0;
}

static int write_corpus(const char *folder)
{
    static const int types[] = { SET_UINT16, SET_INT32, SET_INT64, SET_UINT8 };
    static const char *const names[] = { "uint16", "int32", "int64", "uint8" };
    int bad = 0;
    for (size_t i = 0; i < 4; i++) {
        set_bytes s = good_set(types[i]);
        bad |= write_input(folder, names[i], &s, s.index_n);
        if (i == 0) bad |= write_input(folder, "cut", &s, s.index_n - 8);
        if (i == 0) bad |= write_input(folder, "header", &s, 34);
        set_free(&s);
    }
    return bad;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_sets_are_read),           cmocka_unit_test(large_sets),
        cmocka_unit_test(every_cut_is_refused),         cmocka_unit_test(every_flipped_bit),
        cmocka_unit_test(forgeries_are_refused),        cmocka_unit_test(foreign_ids_are_refused),
        cmocka_unit_test(files_that_change_while_open), cmocka_unit_test(names_of_files),
    };
    if (argc == 3 && strcmp(argv[1], "--write") == 0) return write_corpus(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
