/* test_hostile_tokens.c - damaged, foreign and forged token caches: a sentence, never a wrong id.
 *
 * With --write FOLDER it writes the fuzzer's first inputs instead. */
#include "support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "train/token_cache.h"

static const corvid_allocator *const mem = &cv_libc_allocator;

enum { HEADER = 64, TAIL = 32, IDS = 13, DOCUMENTS = 3 };

typedef struct image {
    char *bytes;
    size_t n;
} image;

static const cv_token_key narrow = { 300, 0x1234, 0x5678 }, large = { 70000, 0x1234, 0x5678 };

/* 5 + 1 + 3 + 1 + 3 ids in three documents. */
static image good_cache(const cv_token_key *key)
{
    static const int32_t ids[] = { 5, 299, 1, 2, 0, 7, 7, 7, 9, 10, 11 };
    static const size_t lengths[] = { 5, 3, 3 };
    cv_token_writer w;
    corvid_error err;
    image made;
    const int32_t *next = ids;
    ASSERT_OK(cv_token_writer_open(mem, NULL, key, &w, &err), &err);
    for (size_t d = 0; d < DOCUMENTS; next += lengths[d++]) {
        ASSERT_OK(cv_token_writer_document(&w, &err), &err);
        ASSERT_OK(cv_token_writer_ids(&w, next, lengths[d], &err), &err);
    }
    ASSERT_OK(cv_token_writer_finish(&w, 77, &made.bytes, &made.n, &err), &err);
    return made;
}

static void seal(image c)
{
    const uint64_t sum = XXH3_64bits(c.bytes, c.n - 8);
    memcpy(c.bytes + c.n - 8, &sum, 8);
}

static corvid_status parse(const corvid_allocator *from, const char *bytes, size_t n,
                           const cv_token_key *key, cv_token_cache *cache, corvid_error *err)
{
    return cv_token_cache_parse(from, bytes, n, "hostile", key, cache, err);
}

/* From an exact copy, so that reading past its end is found; a wrong file costs hardly memory. */
static void assert_refused(const char *what, const char *bytes, size_t n, const cv_token_key *key,
                           corvid_status status, const char *says)
{
    test_allocator a;
    cv_token_cache cache;
    corvid_error err = { CORVID_OK, "" };
    char *copy = malloc(n > 0 ? n : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    test_allocator_init(&a);
    const corvid_status got = parse(&a.api, copy, n, key, &cache, &err);
    if (got != status || err.status != status)
        fail_msg("%s: status %d, expected %d: %s", what, (int)got, (int)status, err.text);
    if (!strstr(err.text, says)) fail_msg("%s: wanted \"%s\" in \"%s\"", what, says, err.text);
    if (strncmp(err.text, "hostile: ", 9) != 0) fail_msg("%s: no file in \"%s\"", what, err.text);
    assert_int_equal(a.live, 0);
    assert_true(a.peak_bytes < 100000);
    cv_token_cache_close(&cache); /* nothing is left to close */
    assert_int_equal(parse(mem, copy, n, key, &cache, NULL), status);
    free(copy);
}

/* ---- what is right -------------------------------------------------------------------------- */

static void good_caches_are_read(void **state)
{
    (void)state;
    static const int32_t want[IDS] = { 5, 299, 1, 2, 0, 0, 7, 7, 7, 0, 9, 10, 11 };
    const cv_token_key *keys[] = { &narrow, &large };
    for (size_t i = 0; i < 2; i++) {
        const image c = good_cache(keys[i]);
        cv_token_cache cache;
        corvid_error err;
        int32_t ids[IDS];
        ASSERT_OK(parse(mem, c.bytes, c.n, keys[i], &cache, &err), &err);
        assert_int_equal(cache.token_bytes, i == 0 ? 2 : 4);
        assert_int_equal(cache.n_tokens, IDS);
        assert_int_equal(cache.n_documents, DOCUMENTS);
        assert_int_equal(cache.source_bytes, 77);
        assert_int_equal(cache.starts[1], 6);
        assert_int_equal(cache.starts[2], 10);
        for (size_t from = 0; from <= IDS; from++) {
            ASSERT_OK(cv_token_cache_read(&cache, from, IDS - from, ids, &err), &err);
            assert_memory_equal(ids, want + from, (IDS - from) * sizeof *ids);
        }
        assert_int_equal(cv_token_cache_read(&cache, 4, IDS - 3, ids, &err), CORVID_E_ARGUMENT);
        assert_int_equal(cv_token_cache_read(&cache, UINT64_MAX, 1, ids, &err), CORVID_E_ARGUMENT);
        cv_token_cache_close(&cache);
        cv_token_cache_close(&cache);
        cv_free(mem, c.bytes);
    }
}

/* ---- damage --------------------------------------------------------------------------------- */

static void every_cut_is_refused(void **state)
{
    (void)state;
    const image c = good_cache(&narrow);
    for (size_t n = 0; n < c.n; n++) {
        assert_refused("cut", c.bytes, n, NULL, CORVID_E_FORMAT,
                       n < 8         ? "no CRVTOKEN at offset 0"
                       : n < 64 + 32 ? "in its header"
                                     : "it is cut short or damaged");
    }
    char *longer = calloc(c.n + 8, 1);
    assert_non_null(longer);
    memcpy(longer, c.bytes, c.n);
    assert_refused("longer", longer, c.n + 8, NULL, CORVID_E_FORMAT, "cut short or damaged");
    free(longer);
    cv_free(mem, c.bytes);
}

static void every_flipped_bit_is_refused(void **state)
{
    (void)state;
    const image c = good_cache(&large);
    for (size_t bit = 0; bit < 8 * c.n; bit++) {
        corvid_error err = { CORVID_OK, "" };
        cv_token_cache cache;
        c.bytes[bit / 8] = (char)(c.bytes[bit / 8] ^ 1 << bit % 8);
        if (parse(mem, c.bytes, c.n, NULL, &cache, &err) != CORVID_E_FORMAT)
            fail_msg("bit %zu of byte %zu: %s", bit % 8, bit / 8, err.text);
        c.bytes[bit / 8] = (char)(c.bytes[bit / 8] ^ 1 << bit % 8);
    }
    cv_free(mem, c.bytes);
}

/* ---- forgery: the checksum is right --------------------------------------------------------- */

typedef struct forgery {
    const char *what;
    long at; /* from the end where negative */
    uint64_t value;
    size_t bytes;
    const char *says;
} forgery;

static void forgeries_are_refused(void **state)
{
    (void)state;
    static const forgery cases[] = {
        { "version", 8, 2, 4, "version 2, this program reads version 1" },
        { "no bytes for an id", 12, 0, 4, "offset 12" },
        { "other bytes for an id", 12, 4, 4, "offset 12" },
        { "huge bytes for an id", 12, UINT32_MAX, 4, "offset 12" },
        { "no vocabulary", 16, 0, 8, "offset 12" },
        { "huge vocabulary", 16, UINT64_MAX, 8, "offset 12" },
        { "smaller vocabulary", 16, 299, 8, "token 1 has the id 299, expected less than 299" },
        { "reserved", 40, 1, 8, "offset 12" },
        { "an id too large", HEADER + 8, 300, 2, "token 4 has the id 300" },
        { "the largest id", HEADER + 24, 65535, 2, "token 12 has the id 65535" },
        { "first start", -TAIL - 24, 1, 8, "document 0 starts at token 1" },
        { "twice the same start", -TAIL - 16, 0, 8, "document 1 starts at token 0" },
        { "falling starts", -TAIL - 8, 5, 8, "document 2 starts at token 5" },
        { "a start behind the end", -TAIL - 8, IDS, 8, "document 2 starts at token 13" },
        { "a start far behind", -TAIL - 8, UINT64_MAX, 8, "document 2 starts at token" },
        { "too many tokens", -TAIL, IDS + 4, 8, "do not fit" },
        { "as many tokens as wrap around", -TAIL, (UINT64_MAX / 2) + 1 + IDS, 8, "do not fit" },
        { "most tokens", -TAIL, UINT64_MAX, 8, "do not fit" },
        { "no documents", -TAIL + 8, 0, 8, "do not fit" },
        { "documents that wrap around", -TAIL + 8, (UINT64_MAX >> 3) + 1 + DOCUMENTS, 8,
          "do not fit" },
        { "most documents", -TAIL + 8, UINT64_MAX, 8, "do not fit" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const image c = good_cache(&narrow);
        const size_t at = cases[i].at < 0 ? c.n - (size_t)-cases[i].at : (size_t)cases[i].at;
        memcpy(c.bytes + at, &cases[i].value, cases[i].bytes);
        seal(c);
        assert_refused(cases[i].what, c.bytes, c.n, NULL, CORVID_E_FORMAT, cases[i].says);
        cv_free(mem, c.bytes);
    }
    char empty[HEADER + TAIL] = "";
    const image c = good_cache(&narrow), none = { empty, sizeof empty };
    memcpy(empty, c.bytes, HEADER);
    seal(none);
    assert_refused("no tokens", none.bytes, none.n, NULL, CORVID_E_FORMAT, "do not fit");
    cv_free(mem, c.bytes);
}

static void other_vocabularies_and_texts(void **state)
{
    (void)state;
    const cv_token_key size = { 301, 0x1234, 0x5678 }, hash = { 300, 0x1235, 0x5678 },
                       sources = { 300, 0x1234, 0x5679 };
    const image c = good_cache(&narrow);
    assert_refused("size", c.bytes, c.n, &size, CORVID_E_MISMATCH, "of another vocabulary (300");
    assert_refused("hash", c.bytes, c.n, &hash, CORVID_E_MISMATCH, "0000000000001234; expected");
    assert_refused("sources", c.bytes, c.n, &sources, CORVID_E_MISMATCH, "of other texts");
    cv_free(mem, c.bytes);
}

static cv_tokenizer *tokenizer_of(const char *vocabulary)
{
    cv_tokenizer *tok = NULL;
    corvid_error err;
    ASSERT_OK(cv_tokenizer_parse(mem, vocabulary, strlen(vocabulary), "v", &tok, &err), &err);
    return tok;
}

/* Vocabularies with the same bytes, cut differently or under other ids, have other hashes. */
static void vocabularies_are_told_apart(void **state)
{
    (void)state;
    static const char *const files[] = { "1 'a' 1\n2 'bc' 2", "1 'ab' 2\n2 'c' 1",
                                         "1 'bc' 2\n2 'a' 1", "1 'a' 1\n3 'bc' 2",
                                         "1 'a' 1\n2 'bc' 2\n3 'd' 1" };
    uint64_t hashes[5];
    for (size_t i = 0; i < 5; i++) {
        cv_tokenizer *tok = tokenizer_of(files[i]), *again = tokenizer_of(files[i]);
        hashes[i] = cv_vocabulary_hash(tok);
        assert_true(hashes[i] == cv_vocabulary_hash(again));
        for (size_t k = 0; k < i; k++)
            assert_true(hashes[k] != hashes[i]);
        cv_tokenizer_free(tok);
        cv_tokenizer_free(again);
    }
}

/* ---- files that change ---------------------------------------------------------------------- */

static void files_that_change_while_open(void **state)
{
    (void)state;
    const image c = good_cache(&narrow);
    const char *path = test_scratch("changing");
    int32_t ids[IDS];
    cv_token_cache cache;
    corvid_error err;
    test_write_file(path, c.bytes, c.n);
    ASSERT_OK(cv_token_cache_open(mem, path, &narrow, 1, &cache, &err), &err);
    assert_null(cache.ids);
    const int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "\xFF\xFF", 2, HEADER + 6), 2);
    ASSERT_OK(cv_token_cache_read(&cache, 0, 3, ids, &err), &err);
    assert_int_equal(cv_token_cache_read(&cache, 0, IDS, ids, &err), CORVID_E_FORMAT);
    assert_non_null(strstr(err.text, "token 3 has the id 65535"));
    assert_int_equal(ftruncate(fd, HEADER + 4), 0);
    assert_int_equal(cv_token_cache_read(&cache, 0, IDS, ids, &err), CORVID_E_FORMAT);
    assert_non_null(strstr(err.text, "ends at byte 68"));
    close(fd);
    cv_token_cache_close(&cache);
    cv_free(mem, c.bytes);
}

/* ---- the fuzzer's corpus -------------------------------------------------------------------- */

static int write_corpus(const char *folder)
{
    const image a = good_cache(&narrow), b = good_cache(&large);
    const image files[] = { a, b, a, { b.bytes, b.n - 8 }, { b.bytes, HEADER } };
    static const char *const names[] = { "narrow", "wide", "to-seal", "cut", "header" };
    for (size_t i = 0; i < 5; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        FILE *file = fopen(path, "wb");
        if (!file) return 1;
        fputc(i == 2 ? 1 : 0, file); /* 1: the target completes the checksum */
        fwrite(files[i].bytes, 1, files[i].n, file);
        if (fclose(file) != 0) return 1;
    }
    cv_free(mem, a.bytes);
    cv_free(mem, b.bytes);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_caches_are_read),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(forgeries_are_refused),
        cmocka_unit_test(other_vocabularies_and_texts),
        cmocka_unit_test(vocabularies_are_told_apart),
        cmocka_unit_test(files_that_change_while_open),
    };
    if (argc == 3 && strcmp(argv[1], "--write") == 0) return write_corpus(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
