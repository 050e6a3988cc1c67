/* test_vocabulary_trainer.c - vocabularies made from texts load, round-trip and compress.
 *
 * What they are compared with is byte-pair merging, the usual way, written here as slowly and
 * plainly as possible and encoded by the same longest match. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "text/tokenizer.h"
#include "text/vocabulary_trainer.h"

static const corvid_allocator *const mem = &cv_libc_allocator;

/* ---- helpers -------------------------------------------------------------------------------- */

static cv_vocabulary_words count(const char *text, size_t n)
{
    cv_vocabulary_words words;
    corvid_error err;
    cv_vocabulary_words_init(&words, mem);
    ASSERT_OK(cv_vocabulary_words_add(&words, text, n, &err), &err);
    return words;
}

/* The file for a text; malloc'ed by mem. */
static char *train(const char *text, size_t n, size_t size, size_t *file_n, size_t *made)
{
    const cv_vocabulary_options options = { .size = size };
    cv_vocabulary_words words = count(text, n);
    corvid_error err;
    char *file = NULL;
    ASSERT_OK(cv_vocabulary_train(&words, &options, &file, file_n, made, &err), &err);
    cv_vocabulary_words_free(&words);
    return file;
}

static cv_tokenizer *parse(const char *file, size_t n)
{
    cv_tokenizer *tok = NULL;
    corvid_error err;
    ASSERT_OK(cv_tokenizer_parse(mem, file, n, "made", &tok, &err), &err);
    assert_int_equal(cv_tokenizer_kind_of(tok), CV_TOK_WORLD);
    return tok;
}

static size_t count_tokens(const cv_tokenizer *tok, const char *text, size_t n)
{
    int32_t *ids = NULL;
    size_t n_ids;
    corvid_error err;
    ASSERT_OK(cv_tokenizer_encode(tok, mem, text, n, &ids, &n_ids, &err), &err);
    cv_free(mem, ids);
    return n_ids;
}

static void assert_round_trip(const cv_tokenizer *tok, const char *text, size_t n)
{
    int32_t *ids = NULL;
    size_t n_ids, at = 0, length;
    corvid_error err;
    ASSERT_OK(cv_tokenizer_encode(tok, mem, text, n, &ids, &n_ids, &err), &err);
    for (size_t i = 0; i < n_ids; i++) {
        assert_in_range(ids[i], 1, cv_tokenizer_size(tok) - 1);
        const char *piece = cv_tokenizer_piece(tok, ids[i], &length);
        assert_true(length <= n - at && memcmp(text + at, piece, length) == 0);
        at += length;
    }
    assert_int_equal(at, n);
    cv_free(mem, ids);
}

/* Id 0 has no bytes, 1 to 256 are the bytes, the others come by length and then by bytes. */
static void assert_order(const cv_tokenizer *tok)
{
    size_t n, before_n = 1;
    const char *before = "";
    cv_tokenizer_piece(tok, 0, &n);
    assert_int_equal(n, 0);
    for (int32_t id = 1; id < (int32_t)cv_tokenizer_size(tok); id++) {
        const char *piece = cv_tokenizer_piece(tok, id, &n);
        if (id <= 256) {
            assert_int_equal(n, 1);
            assert_int_equal((unsigned char)piece[0], id - 1);
            continue;
        }
        assert_true(n > 1 && n >= before_n);
        if (n == before_n) assert_true(memcmp(before, piece, n) < 0);
        before = piece;
        before_n = n;
    }
}

static void fill_random(char *bytes, size_t n, uint64_t seed, unsigned kinds)
{
    cv_rng rng;
    cv_rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(unsigned char)((cv_rng_next(&rng) >> 40) % kinds * (256 / kinds));
}

/* ---- words ---------------------------------------------------------------------------------- */

static void words_are_cut_where_kinds_change(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "The| quick| don't|,| '|tis| it's|.\n|End",
        "x| =| y|+|1|2|3|;",
        "a|\n\n|b|   |c|\t\t|d|\r\n|e",
        "rock| '|n|'| roll|'",
        "\xC3\xA9t\xC3\xA9| na\xC3\xAFve|\xE2\x80\x94|so| \xE2\x80\x9C|quoted|\xE2\x80\x9D",
        "\xE5\xBA\x8A\xE5\x89\x8D|\xEF\xBC\x8C\n|\xE7\x96\x91|abc",
        "a|\xFF|\xFE|b|\x01|\x02",
        "| |1| |2| ",
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[128], found[256];
        size_t n = 0, m = 0;
        for (const char *c = cases[i]; *c; c++)
            if (*c != '|') text[n++] = *c;
        if (cases[i][0] == '|') found[m++] = '|';
        for (size_t at = 0; at < n;) {
            const size_t length = cv_vocabulary_word_length(text + at, n - at);
            memcpy(found + m, text + at, length);
            at += length;
            m += length;
            found[m++] = at < n ? '|' : '\0';
        }
        assert_string_equal(found, cases[i]);
    }
}

static void words_are_counted(void **state)
{
    (void)state;
    cv_vocabulary_words words = count("to be or not to be", 18);
    assert_int_equal(words.n, 5); /* "to", " be", " or", " not", " to" */
    assert_int_equal(words.words[1].count, 2);
    assert_int_equal(words.n_bytes, 2 + 3 + 3 + 4 + 3);
    cv_vocabulary_words_free(&words);
    enum { LONG = 100000 };
    char *line = malloc(LONG);
    assert_non_null(line);
    memset(line, '-', LONG);
    words = count(line, LONG);
    assert_int_equal(words.n, 2); /* cut to the longest word, and the rest */
    assert_int_equal(words.words[0].count, LONG / CV_WORD_BYTES);
    assert_int_equal(words.words[1].length, LONG % CV_WORD_BYTES);
    cv_vocabulary_words_free(&words);
    free(line);
}

/* ---- the file ------------------------------------------------------------------------------- */

static void files_hold_any_token(void **state)
{
    (void)state;
    enum { N = 3000, LONGEST = 64 };
    static char bytes[N][LONGEST];
    static cv_token_bytes tokens[N];
    cv_rng rng;
    cv_rng_seed(&rng, 5);
    for (size_t i = 0; i < N; i++) { /* different: they begin with their number */
        const size_t n = 3 + (size_t)(cv_rng_next(&rng) % (LONGEST - 2));
        fill_random(bytes[i], n, i, i % 3 == 0 ? 256 : i % 3 == 1 ? 4 : 64);
        bytes[i][0] = (char)(unsigned char)(i % 256);
        bytes[i][1] = (char)(unsigned char)(i / 256);
        tokens[i] = (cv_token_bytes){ bytes[i], n };
    }
    static const char *odd[] = { "''",
                                 "\"\"",
                                 "'\"",
                                 "\\n",
                                 "\n\r\t\\",
                                 "\x7f\x80",
                                 "\xC2\x80",
                                 "\xC2\xA0",
                                 "\xEF\xBB\xBF",
                                 "\xE2\x80\xA8",
                                 "\xF0\x9F\x98\x80",
                                 " é ",
                                 "\xEE\x80\x80'\"",
                                 "\xED\xA0\x80" };
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++)
        tokens[i] = (cv_token_bytes){ odd[i], strlen(odd[i]) };
    char *file = NULL;
    size_t n;
    corvid_error err;
    ASSERT_OK(cv_vocabulary_write(mem, tokens, N, &file, &n, &err), &err);
    cv_tokenizer *tok = parse(file, n);
    assert_int_equal(cv_tokenizer_size(tok), 257 + N);
    assert_order(tok);
    for (size_t i = 0; i < N; i++) {
        size_t length; /* write has sorted them */
        const char *piece = cv_tokenizer_piece(tok, (int32_t)(257 + i), &length);
        assert_int_equal(length, tokens[i].n);
        assert_memory_equal(piece, tokens[i].bytes, length);
    }
    cv_tokenizer_free(tok);
    cv_free(mem, file);
}

/* Our literals are those of the published file, up to its choice of escapes for rare characters. */
static void literals_as_published(void **state)
{
    (void)state;
    NEED_DATA(path, "tokenizer/rwkv_vocab_v20230424.txt");
    size_t published_n, n, same = 0, lines = 0;
    char *published = test_read_file(path, &published_n), *file = NULL;
    cv_tokenizer *tok = parse(published, published_n);
    corvid_error err;
    const size_t n_tokens = cv_tokenizer_size(tok) - 257;
    cv_token_bytes *tokens = malloc(n_tokens * sizeof *tokens);
    assert_non_null(tokens);
    size_t kept = 0;
    for (size_t i = 0; i < n_tokens; i++) {
        size_t length;
        const char *piece = cv_tokenizer_piece(tok, (int32_t)(257 + i), &length);
        if (length <= CV_WORD_BYTES) tokens[kept++] = (cv_token_bytes){ piece, length };
    }
    ASSERT_OK(cv_vocabulary_write(mem, tokens, kept, &file, &n, &err), &err);
    char *a = published, *b = file;
    while (*a && *b) {
        const size_t la = strcspn(a, "\n"), lb = strcspn(b, "\n");
        same += la == lb && memcmp(a, b, la) == 0;
        lines++;
        a += la + (a[la] != '\0');
        b += lb + (b[lb] != '\0');
    }
    assert_true(lines > 65000);
    assert_true(lines - same < 700); /* those, and what follows the few longer tokens */
    cv_tokenizer_free(tok);
    cv_free(mem, file);
    free(tokens);
    free(published);
}

/* ---- made vocabularies ---------------------------------------------------------------------- */

static void any_bytes_round_trip(void **state)
{
    (void)state;
    enum { N = 20000 };
    static const unsigned kinds[] = { 1, 2, 4, 256 };
    char *text = malloc(N), *other = malloc(N);
    assert_non_null(text);
    assert_non_null(other);
    for (size_t i = 0; i < 4; i++) {
        size_t file_n, made;
        fill_random(text, N, 20 + i, kinds[i]);
        fill_random(other, N, 30 + i, kinds[3 - i]);
        char *file = train(text, N, 600, &file_n, &made);
        cv_tokenizer *tok = parse(file, file_n);
        assert_int_equal(cv_tokenizer_size(tok), made);
        assert_in_range(made, 257, 600);
        assert_order(tok);
        assert_round_trip(tok, text, N);
        assert_round_trip(tok, other, N);
        cv_tokenizer_free(tok);
        cv_free(mem, file);
    }
    free(other);
    free(text);
}

static void small_texts(void **state)
{
    (void)state;
    static const char *const texts[] = { "", "a", "ab", "the the the the the", "\n\n\n\n" };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        for (size_t size = 257; size < 300; size += 6) {
            size_t file_n, made;
            char *file = train(texts[i], strlen(texts[i]), size, &file_n, &made);
            cv_tokenizer *tok = parse(file, file_n);
            assert_true(made <= size);
            assert_int_equal(cv_tokenizer_size(tok), made);
            assert_round_trip(tok, texts[i], strlen(texts[i]));
            if (i == 3 && size > 259) assert_int_equal(count_tokens(tok, " the the", 8), 2);
            cv_tokenizer_free(tok);
            cv_free(mem, file);
        }
}

/* With room for one token: not the most frequent part but the one that saves most. */
static void what_saves_most_is_taken(void **state)
{
    (void)state;
    char text[16 * 1000 + 1] = "";
    for (size_t i = 0; i < 1000; i++)
        memcpy(text + 16 * i, i % 10 == 0 ? "abc\nabc\nabc\nabc\n" : "abcdefg\nabcdefg\n", 16);
    size_t file_n, made;
    char *file = train(text, sizeof text - 1, 258, &file_n, &made);
    cv_tokenizer *tok = parse(file, file_n);
    assert_int_equal(count_tokens(tok, "abcdefg", 7), 1);
    cv_tokenizer_free(tok);
    cv_free(mem, file);
}

/* ---- against byte-pair merging -------------------------------------------------------------- */

typedef struct merging {
    int32_t *ids;         /* [n] the text so far */
    unsigned char *first; /* [n] 1: a word begins here, no merge reaches over it */
    size_t n;
    char bytes[2048][64]; /* of each id */
    size_t lengths[2048];
    size_t n_ids;
    uint32_t *pairs; /* [2048][2048] */
} merging;

static void merge_once(merging *m)
{
    size_t best = 0, left = 0;
    memset(m->pairs, 0, sizeof *m->pairs * 2048 * 2048);
    for (size_t i = 1; i < m->n; i++) {
        if (m->first[i]) continue;
        const size_t pair = (size_t)m->ids[i - 1] * 2048 + (size_t)m->ids[i];
        if (++m->pairs[pair] > m->pairs[best]) best = pair;
    }
    const int32_t a = (int32_t)(best / 2048), b = (int32_t)(best % 2048);
    memcpy(m->bytes[m->n_ids], m->bytes[a], m->lengths[a]);
    memcpy(m->bytes[m->n_ids] + m->lengths[a], m->bytes[b], m->lengths[b]);
    m->lengths[m->n_ids] = m->lengths[a] + m->lengths[b];
    for (size_t i = 0; i < m->n; left++) {
        const bool here = i + 1 < m->n && m->ids[i] == a && m->ids[i + 1] == b && !m->first[i + 1];
        m->first[left] = m->first[i];
        m->ids[left] = here ? (int32_t)m->n_ids : m->ids[i];
        i += here ? 2 : 1;
    }
    m->n = left;
    m->n_ids++;
}

/* A vocabulary of `size` ids by merging, in the same words. */
static cv_tokenizer *merge_vocabulary(const char *text, size_t n, size_t size)
{
    static const char *pieces[2048];
    cv_tokenizer *tok = NULL;
    corvid_error err;
    merging *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->ids = malloc(n * sizeof *m->ids);
    m->first = calloc(n, 1);
    m->pairs = malloc(sizeof *m->pairs * 2048 * 2048);
    assert_true(m->ids && m->first && m->pairs);
    for (size_t at = 0; at < n; at += cv_vocabulary_word_length(text + at, n - at))
        m->first[at] = 1;
    for (size_t i = 0; i < n; i++)
        m->ids[i] = (unsigned char)text[i] + 1;
    m->n = n;
    m->n_ids = 257;
    for (size_t b = 0; b < 256; b++) {
        m->bytes[b + 1][0] = (char)(unsigned char)b;
        m->lengths[b + 1] = 1;
    }
    while (m->n_ids < size)
        merge_once(m);
    for (size_t i = 0; i < size; i++)
        pieces[i] = m->bytes[i];
    ASSERT_OK(cv_tokenizer_pieces(mem, pieces, m->lengths, size, &tok, &err), &err);
    free(m->ids);
    free(m->first);
    free(m->pairs);
    free(m);
    return tok;
}

static void shorter_than_merging(void **state)
{
    (void)state;
    NEED_DATA(book, "text/gutenberg/valid/great-expectations.txt");
    NEED_DATA(poems, "text/chinese/tang-valid.txt");
    const char *const paths[] = { book, poems };
    static const size_t sizes[] = { 400, 700 };
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < 2; k++) {
            size_t n, file_n, made;
            char *text = test_read_file(paths[i], &n);
            if (n > 200000) n = 200000;
            char *file = train(text, n, sizes[k], &file_n, &made);
            cv_tokenizer *ours = parse(file, file_n);
            cv_tokenizer *merged = merge_vocabulary(text, n, sizes[k]);
            assert_int_equal(made, sizes[k]);
            const size_t a = count_tokens(ours, text, n), b = count_tokens(merged, text, n);
            print_message(
                "%zu bytes, %zu ids: %zu tokens, merging %zu (%.3f and %.3f bytes each)\n", n,
                sizes[k], a, b, (double)n / (double)a, (double)n / (double)b);
            assert_true(a < b);
            assert_round_trip(ours, text, n);
            cv_tokenizer_free(ours);
            cv_tokenizer_free(merged);
            cv_free(mem, file);
            free(text);
        }
}

/* A book that it has not seen: more than twice as few tokens as bytes from 512 ids on. */
static void works_on_other_texts(void **state)
{
    (void)state;
    NEED_DATA(book, "text/gutenberg/train/pride-and-prejudice.txt");
    NEED_DATA(other, "text/gutenberg/valid/great-expectations.txt");
    static const size_t sizes[] = { 512, 1024, 4096 };
    static const double least[] = { 2.1, 2.5, 3.2 };
    size_t n, other_n, file_n, again_n, made;
    char *text = test_read_file(book, &n), *unseen = test_read_file(other, &other_n);
    for (size_t i = 0; i < 3; i++) {
        char *file = train(text, n, sizes[i], &file_n, &made);
        cv_tokenizer *tok = parse(file, file_n);
        const double each = (double)other_n / (double)count_tokens(tok, unseen, other_n);
        print_message("%zu ids: %.3f bytes per token of another book\n", made, each);
        assert_int_equal(made, sizes[i]);
        assert_true(each > least[i]);
        assert_round_trip(tok, unseen, other_n);
        char *again = train(text, n, sizes[i], &again_n, &made); /* the same again */
        assert_int_equal(again_n, file_n);
        assert_memory_equal(again, file, file_n);
        cv_free(mem, again);
        cv_tokenizer_free(tok);
        cv_free(mem, file);
    }
    free(unseen);
    free(text);
}

/* ---- characters ----------------------------------------------------------------------------- */

static void characters_of_a_text(void **state)
{
    (void)state;
    /* Bytes that are no UTF-8 stand beside each other as words and must not become a character. */
    static const char text[] = "b\xC3\xA9\xC3\xA9 \xE5\xBA\x8A\xF0\x9F\x98\x80 a\xE5\xBA \xC3";
    static const char *const characters[] = { "\xC3\xA9", "\xE5\xBA\x8A", "\xF0\x9F\x98\x80" };
    cv_vocabulary_words words = count(text, sizeof text - 1);
    char *file = NULL;
    size_t n, size, length;
    corvid_error err;
    ASSERT_OK(cv_vocabulary_characters(&words, &file, &n, &size, &err), &err);
    cv_tokenizer *tok = parse(file, n);
    assert_int_equal(size, 260);
    assert_int_equal(cv_tokenizer_size(tok), 260);
    assert_order(tok);
    for (int32_t i = 0; i < 3; i++) {
        const char *piece = cv_tokenizer_piece(tok, 257 + i, &length);
        assert_int_equal(length, strlen(characters[i]));
        assert_memory_equal(piece, characters[i], length);
    }
    assert_int_equal(count_tokens(tok, text, sizeof text - 1), 12);
    assert_round_trip(tok, text, sizeof text - 1);
    cv_tokenizer_free(tok);
    cv_free(mem, file);
    cv_vocabulary_words_free(&words);
}

/* ---- refusals ------------------------------------------------------------------------------- */

static int cancel_third(void *ctx)
{
    return ++*(size_t *)ctx == 3;
}

static void refusals(void **state)
{
    (void)state;
    static const size_t sizes[] = { 0, 256, 65537, SIZE_MAX };
    cv_vocabulary_words words = count("some words, and some more words", 31);
    char *file = NULL;
    size_t n, calls = 0;
    corvid_error err;
    for (size_t i = 0; i < 4; i++) {
        const cv_vocabulary_options options = { .size = sizes[i] };
        assert_int_equal(cv_vocabulary_train(&words, &options, &file, &n, NULL, &err),
                         CORVID_E_ARGUMENT);
        assert_non_null(strstr(err.text, "expected 257"));
        assert_null(file);
    }
    const cv_vocabulary_options stop = { .size = 300, .cancel = cancel_third, .ctx = &calls };
    assert_int_equal(cv_vocabulary_train(&words, &stop, &file, &n, NULL, &err), CORVID_E_CANCELLED);
    assert_null(file);
    cv_vocabulary_words_free(&words);
}

static corvid_status make(const corvid_allocator *from, const char *text, size_t n)
{
    const cv_vocabulary_options options = { .size = 280 };
    cv_vocabulary_words words;
    char *file = NULL, *characters = NULL;
    size_t file_n;
    corvid_error err;
    cv_vocabulary_words_init(&words, from);
    corvid_status status = cv_vocabulary_words_add(&words, text, n, &err);
    if (status == CORVID_OK)
        status = cv_vocabulary_train(&words, &options, &file, &file_n, NULL, &err);
    if (status == CORVID_OK)
        status = cv_vocabulary_characters(&words, &characters, &file_n, NULL, &err);
    cv_free(from, file);
    cv_free(from, characters);
    cv_vocabulary_words_free(&words);
    return status;
}

static void every_allocation_fails_once(void **state)
{
    (void)state;
    enum { N = 20000 };
    char *text = malloc(N);
    assert_non_null(text);
    for (size_t i = 0; i < N; i++)
        text[i] = (char)(i * i % 97 < 70 ? 'a' + (int)(i * i % 7) : ' ');
    for (size_t nth = 1;; nth++) {
        test_allocator a;
        test_allocator_init(&a);
        a.fail_at = nth;
        const corvid_status status = make(&a.api, text, N);
        assert_int_equal(a.live, 0);
        if (status == CORVID_OK) {
            assert_true(nth > a.calls && nth > 15);
            break;
        }
        assert_int_equal(status, CORVID_E_MEMORY);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_cut_where_kinds_change),
        cmocka_unit_test(words_are_counted),
        cmocka_unit_test(files_hold_any_token),
        cmocka_unit_test(literals_as_published),
        cmocka_unit_test(any_bytes_round_trip),
        cmocka_unit_test(small_texts),
        cmocka_unit_test(what_saves_most_is_taken),
        cmocka_unit_test(shorter_than_merging),
        cmocka_unit_test(works_on_other_texts),
        cmocka_unit_test(characters_of_a_text),
        cmocka_unit_test(refusals),
        cmocka_unit_test(every_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
