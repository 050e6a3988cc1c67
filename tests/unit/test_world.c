/* test_world.c - the World vocabulary: literals, and longest match against a slow matcher. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "text/tokenizer.h"

#define MAX_TOKENS 600

static const corvid_allocator *const mem = &cv_libc_allocator;

static cv_tokenizer *parse(const char *text)
{
    cv_tokenizer *tok = NULL;
    corvid_error err;
    ASSERT_OK(cv_tokenizer_world(mem, text, strlen(text), "test", &tok, &err), &err);
    return tok;
}

static void assert_piece(const cv_tokenizer *tok, int32_t id, const char *bytes, size_t n)
{
    size_t length;
    const char *piece = cv_tokenizer_piece(tok, id, &length);
    assert_int_equal(length, n);
    assert_memory_equal(piece, bytes, n);
}

/* ---- literals ------------------------------------------------------------------------------- */

static void literals_decode(void **state)
{
    (void)state;
    cv_tokenizer *tok = parse("1 '\\x00' 1\n"
                              "2 '\\t\\n\\r\\\\\\'\\\"' 6\n"
                              "3 '\\x80\\xff' 4\n"
                              "4 b'\\x80\\xff' 2\n"
                              "7 '\\u4e2d\\u00e9' 5\n"
                              "8 ' a  b ' 6\n"
                              "9 \"it's\" 4\n"
                              "10 b\"\\\"'\" 2\n"
                              "11 '\xF0\x9F\x98\x80' 4\n"
                              "12 '\\x7f\\xA0' 3");
    assert_int_equal(cv_tokenizer_size(tok), 13);
    assert_int_equal(cv_tokenizer_kind_of(tok), CV_TOK_WORLD);
    assert_piece(tok, 0, "", 0);
    assert_piece(tok, 1, "\0", 1);
    assert_piece(tok, 2, "\t\n\r\\'\"", 6);
    assert_piece(tok, 3, "\xC2\x80\xC3\xBF", 4);
    assert_piece(tok, 4, "\x80\xFF", 2);
    assert_piece(tok, 5, "", 0);
    assert_piece(tok, 6, "", 0);
    assert_piece(tok, 7, "\xE4\xB8\xAD\xC3\xA9", 5);
    assert_piece(tok, 8, " a  b ", 6);
    assert_piece(tok, 9, "it's", 4);
    assert_piece(tok, 10, "\"'", 2);
    assert_piece(tok, 11, "\xF0\x9F\x98\x80", 4);
    assert_piece(tok, 12, "\x7F\xC2\xA0", 3);
    assert_piece(tok, 13, "", 0);
    assert_piece(tok, -1, "", 0);
    assert_piece(tok, INT32_MIN, "", 0);
    assert_piece(tok, INT32_MAX, "", 0);
    cv_tokenizer_free(tok);
}

static void line_ends_may_be_crlf(void **state)
{
    (void)state;
    cv_tokenizer *tok = parse("1 'a' 1\r\n2 '\\r' 1\r\n3 'b' 1\r");
    assert_int_equal(cv_tokenizer_size(tok), 4);
    assert_piece(tok, 2, "\r", 1);
    assert_piece(tok, 3, "b", 1);
    cv_tokenizer_free(tok);
}

typedef struct bad_line {
    const char *line, *says;
} bad_line;

/* Each stands on line 2 of a file whose line 1 is good. */
static const bad_line bad_lines[] = {
    { "", "column 1: the line ends here, expected a token id" },
    { "x 'a' 1", "column 1: found 'x', expected a token id" },
    { "-3 'a' 1", "column 1: found '-'" },
    { "0 'a' 1", "expected an id from 1 on" },
    { "5 'a' 1", "id 5 after id 5, expected increasing ids" },
    { "4 'a' 1", "id 4 after id 5" },
    { "99999999999999999999999999 'a' 1", "the id is too large" },
    { "1048576 'a' 1", "the id is too large" },
    { "6", "column 2: the line ends here, expected a space after the id" },
    { "6\t'a' 1", "column 2: found byte 0x09, expected a space after the id" },
    { "6 'a'", "a literal, a space and the length" },
    { "6 'a' ", "column 7: the line ends here, expected the token's length" },
    { "6 'a' x", "column 7: found 'x', expected the token's length" },
    { "6 'a' 1x", "column 8: found 'x', expected the end of the line" },
    { "6 'a' 1 ", "column 9: the line ends here, expected the token's length" },
    { "6 'a' 2", "column 7: the literal has 1 bytes" },
    { "6 'a' 99999999999999999999", "the literal has 1 bytes" },
    { "6 '' 0", "a token of at least one byte" },
    { "6 a 1", "column 3: found 'a', expected a quoted literal" },
    { "6 b 1", "expected a quoted literal" },
    { "6 u'a' 1", "column 3: found 'u'" },
    { "6 B'a' 1", "column 3: found 'B'" },
    { "6 'a 1", "the literal's closing quote" },
    { "6 'a\" 1", "the literal's closing quote" },
    { "6 ' 1", "the literal's closing quote" },
    { "6 'a'b 2", "column 6: found 'b', expected a space and the length" },
    { "6 'a''b' 2", "column 6: found ''', expected a space and the length" },
    { "6 '\\' 1", "the literal's closing quote" },
    { "6 'a\\ 1", "expected an escape" },
    { "6 '\\q' 1", "column 5: found 'q', expected an escape" },
    { "6 '\\0' 1", "column 5: found '0', expected an escape" },
    { "6 '\\a' 1", "column 5: found 'a'" },
    { "6 '\\x1' 1", "column 7: found ''', expected two hexadecimal digits" },
    { "6 '\\x' 1", "two hexadecimal digits" },
    { "6 '\\xg0' 1", "column 6: found 'g', expected two hexadecimal digits" },
    { "6 '\\u12' 1", "four hexadecimal digits" },
    { "6 '\\ud800' 3", "half of a surrogate pair" },
    { "6 '\\udfff' 3", "half of a surrogate pair" },
    { "6 '\\U0001f600' 4", "found 'U', expected an escape" },
    { "6 '\\N{BULLET}' 3", "found 'N', expected an escape" },
    { "6 b'\\u0041' 1", "found 'u', expected an escape of a bytes literal" },
    { "6 b'\xC3\xA9' 2", "found byte 0xC3, expected printable ASCII" },
    { "6 '\xFF' 1", "column 4: found byte 0xFF, expected UTF-8" },
    { "6 '\xED\xA0\x80' 3", "expected UTF-8" },
    { "6 'a\tb' 3", "found byte 0x09, expected an escape such as" },
    { "6 'a\rb' 3", "found byte 0x0D" },
    { "6 'z' 1", "token 6 has the same bytes as token 5 on line 1" },
};

static void bad_lines_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_lines / sizeof bad_lines[0]; i++) {
        char text[256];
        corvid_error err;
        cv_tokenizer *tok = NULL;
        snprintf(text, sizeof text, "5 'z' 1\n%s\n7 'y' 1\n", bad_lines[i].line);
        const corvid_status status =
            cv_tokenizer_world(mem, text, strlen(text), "bad.txt", &tok, &err);
        if (status != CORVID_E_FORMAT) fail_msg("accepted: %s", bad_lines[i].line);
        assert_null(tok);
        if (!strstr(err.text, bad_lines[i].says) || !strstr(err.text, "bad.txt: line 2"))
            fail_msg("%s: wanted \"%s\", got \"%s\"", bad_lines[i].line, bad_lines[i].says,
                     err.text);
    }
}

/* ---- longest match -------------------------------------------------------------------------- */

typedef struct slow_vocabulary {
    char token[MAX_TOKENS][16];
    size_t length[MAX_TOKENS];
    size_t n; /* ids 1 .. n - 1 */
} slow_vocabulary;

static int32_t slow_longest(const slow_vocabulary *v, const char *text, size_t n)
{
    int32_t best = 0;
    size_t best_length = 0;
    for (size_t id = 1; id < v->n; id++)
        if (v->length[id] > best_length && v->length[id] <= n &&
            memcmp(v->token[id], text, v->length[id]) == 0) {
            best = (int32_t)id;
            best_length = v->length[id];
        }
    return best;
}

static bool knows(const slow_vocabulary *v, const char *bytes, size_t n)
{
    for (size_t id = 1; id < v->n; id++)
        if (v->length[id] == n && memcmp(v->token[id], bytes, n) == 0) return true;
    return false;
}

static void random_text(cv_rng *rng, char *text, size_t n, unsigned letters)
{
    const unsigned first = letters == 256 ? 0 : 'a';
    for (size_t i = 0; i < n; i++)
        text[i] = (char)(unsigned char)(first + cv_rng_next(rng) % letters);
}

/* All single letters, then random strings, in no order. */
static void random_vocabulary(cv_rng *rng, slow_vocabulary *v, unsigned letters, size_t n)
{
    v->n = 1;
    for (unsigned i = 0; i < letters; i++) {
        v->token[v->n][0] = (char)(unsigned char)((letters == 256 ? 0 : 'a') + i);
        v->length[v->n++] = 1;
    }
    while (v->n < n) {
        char bytes[16];
        const size_t length = 2 + (size_t)(cv_rng_next(rng) % 9);
        random_text(rng, bytes, length, letters);
        if (letters == 256 && cv_rng_next(rng) % 2) memset(bytes, bytes[0], length - 1);
        if (knows(v, bytes, length)) continue;
        memcpy(v->token[v->n], bytes, length);
        v->length[v->n++] = length;
    }
}

/* The file of the vocabulary; bytes literals throughout. */
static char *vocabulary_file(const slow_vocabulary *v)
{
    char *text = malloc(v->n * 128), *at = text;
    assert_non_null(text);
    for (size_t id = 1; id < v->n; id++) {
        at += sprintf(at, "%zu b'", id);
        for (size_t i = 0; i < v->length[id]; i++)
            at += sprintf(at, "\\x%02x", (unsigned)(unsigned char)v->token[id][i]);
        at += sprintf(at, "' %zu\n", v->length[id]);
    }
    return text;
}

static void assert_matches(const cv_tokenizer *tok, const slow_vocabulary *v, const char *text,
                           size_t n)
{
    corvid_error err;
    int32_t *ids;
    size_t count, at = 0;
    ASSERT_OK(cv_tokenizer_encode(tok, mem, text, n, &ids, &count, &err), &err);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(ids[i], slow_longest(v, text + at, n - at));
        at += v->length[ids[i]];
    }
    assert_int_equal(at, n);
    cv_free(mem, ids);
}

static void compare_with_slow(unsigned letters, size_t n_tokens, uint64_t seed)
{
    cv_rng rng;
    slow_vocabulary *v = calloc(1, sizeof *v);
    assert_non_null(v);
    cv_rng_seed(&rng, seed);
    random_vocabulary(&rng, v, letters, n_tokens);
    char *file = vocabulary_file(v);
    cv_tokenizer *tok = parse(file);
    assert_int_equal(cv_tokenizer_size(tok), v->n);
    for (int round = 0; round < 400; round++) {
        char text[200];
        const size_t n = (size_t)(cv_rng_next(&rng) % sizeof text);
        random_text(&rng, text, n, letters);
        for (size_t i = 0; i + 16 < n; i += 16) /* real tokens, sometimes cut, among the noise */
            memcpy(text + i, v->token[1 + cv_rng_next(&rng) % (v->n - 1)], 8);
        if (letters < 256) /* the rest of a short token's row may be anything */
            for (size_t i = 0; i < n; i++)
                if (text[i] < 'a' || text[i] >= 'a' + (int)letters) text[i] = 'a';
        assert_matches(tok, v, text, n);
    }
    cv_tokenizer_free(tok);
    free(file);
    free(v);
}

static void longest_match_equals_the_slow_one(void **state)
{
    (void)state;
    compare_with_slow(2, 120, 1);
    compare_with_slow(3, 400, 2);
    compare_with_slow(26, 500, 3);
    compare_with_slow(256, 600, 4);
}

/* Enough tokens for the table of first two bytes; every pair of bytes and some longer ones. */
static void large_vocabularies_match_too(void **state)
{
    (void)state;
    const size_t n = 1 + 256 + 65536 / 2;
    const char **bytes = calloc(n, sizeof *bytes);
    size_t *lengths = calloc(n, sizeof *lengths);
    char(*room)[3] = calloc(n, sizeof *room);
    assert_true(bytes && lengths && room);
    for (size_t id = 1; id < n; id++) {
        const size_t pair = (id - 257) * 2 + 1; /* only odd pairs */
        bytes[id] = room[id];
        lengths[id] = id <= 256 ? 1 : id % 7 == 0 ? 3 : 2;
        room[id][0] = (char)(unsigned char)(id <= 256 ? id - 1 : pair >> 8);
        room[id][1] = (char)(unsigned char)(pair & 255);
        room[id][2] = 'x';
    }
    corvid_error err;
    cv_tokenizer *tok;
    ASSERT_OK(cv_tokenizer_pieces(mem, bytes, lengths, n, &tok, &err), &err);
    for (size_t pair = 0; pair < 65536; pair++) {
        for (int ending = 'x'; ending <= 'y'; ending++) { /* 'y' after a pair ends no token */
            const char text[3] = { (char)(unsigned char)(pair >> 8),
                                   (char)(unsigned char)(pair & 255), (char)ending };
            const size_t id = 257 + pair / 2;
            const bool fits = pair % 2 == 1 && (lengths[id] == 2 || ending == 'x');
            int32_t *ids;
            size_t count;
            ASSERT_OK(cv_tokenizer_encode(tok, mem, text, 3, &ids, &count, &err), &err);
            assert_int_equal(ids[0], fits ? (int32_t)id : (int32_t)(pair >> 8) + 1);
            if (fits) assert_int_equal(count, 4 - lengths[id]);
            cv_free(mem, ids);
        }
    }
    cv_tokenizer_free(tok);
    free(bytes);
    free(lengths);
    free(room);
}

/* ---- the other ways in ---------------------------------------------------------------------- */

static void a_byte_without_token_is_named(void **state)
{
    (void)state;
    cv_tokenizer *tok = parse("1 'a' 1\n2 'ab' 2\n");
    corvid_error err;
    int32_t *ids;
    size_t count;
    assert_int_equal(cv_tokenizer_encode(tok, mem, "aabc", 4, &ids, &count, &err),
                     CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "byte 0x63 at offset 3"));
    assert_null(ids);
    assert_int_equal(count, 0);
    assert_int_equal(cv_tokenizer_encode(tok, mem, "ba", 2, &ids, &count, NULL), CORVID_E_ARGUMENT);
    cv_tokenizer_free(tok);
}

static void pieces_may_be_empty_or_equal(void **state)
{
    (void)state;
    static const char *const bytes[] = { "<s>", "a", "b", "a", "pad" };
    static const size_t lengths[] = { 0, 1, 1, 1, 0 };
    corvid_error err;
    cv_tokenizer *tok;
    int32_t *ids;
    size_t count;
    ASSERT_OK(cv_tokenizer_pieces(mem, bytes, lengths, 5, &tok, &err), &err);
    assert_int_equal(cv_tokenizer_size(tok), 5);
    assert_piece(tok, 3, "a", 1);
    assert_piece(tok, 0, "", 0);
    ASSERT_OK(cv_tokenizer_encode(tok, mem, "aba", 3, &ids, &count, &err), &err);
    assert_int_equal(count, 3);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[1], 2);
    assert_int_equal(ids[2], 1);
    cv_free(mem, ids);
    assert_int_equal(cv_tokenizer_encode(tok, mem, "<s>", 3, &ids, &count, &err),
                     CORVID_E_ARGUMENT);
    ASSERT_OK(cv_tokenizer_encode(tok, mem, "", 0, &ids, &count, &err), &err);
    assert_int_equal(count, 0);
    cv_free(mem, ids);
    cv_tokenizer_free(tok);

    static const size_t too_long[] = { 0, 5000 };
    assert_int_equal(cv_tokenizer_pieces(mem, bytes, too_long, 2, &tok, &err), CORVID_E_FORMAT);
    assert_non_null(strstr(err.text, "token 1 has 5000 bytes"));
    assert_int_equal(cv_tokenizer_pieces(mem, bytes, lengths, 1, &tok, &err), CORVID_E_FORMAT);
    assert_int_equal(cv_tokenizer_pieces(mem, NULL, NULL, 0, &tok, &err), CORVID_E_FORMAT);
    assert_null(tok);
}

static void bytes_are_their_own_ids(void **state)
{
    (void)state;
    corvid_error err;
    cv_tokenizer *tok;
    unsigned char text[256];
    int32_t *ids;
    size_t count;
    for (size_t i = 0; i < 256; i++)
        text[i] = (unsigned char)i;
    ASSERT_OK(cv_tokenizer_bytes(mem, &tok, &err), &err);
    assert_int_equal(cv_tokenizer_size(tok), 256);
    assert_int_equal(cv_tokenizer_kind_of(tok), CV_TOK_BYTES);
    ASSERT_OK(cv_tokenizer_encode(tok, mem, (char *)text, 256, &ids, &count, &err), &err);
    assert_int_equal(count, 256);
    for (int32_t i = 0; i < 256; i++) {
        assert_int_equal(ids[i], i);
        assert_piece(tok, i, (char *)text + i, 1);
    }
    cv_free(mem, ids);
    cv_tokenizer_free(tok);
}

static void parse_looks_at_the_text(void **state)
{
    (void)state;
    corvid_error err;
    cv_tokenizer *tok;
    const char *world = "1 '{' 1\n", *json = " \n{ \"model\": 3 }";
    ASSERT_OK(cv_tokenizer_parse(mem, world, strlen(world), NULL, &tok, &err), &err);
    assert_int_equal(cv_tokenizer_kind_of(tok), CV_TOK_WORLD);
    cv_tokenizer_free(tok);
    assert_int_equal(cv_tokenizer_parse(mem, json, strlen(json), NULL, &tok, &err),
                     CORVID_E_FORMAT);
    assert_non_null(strstr(err.text, "tokenizer.json: no object \"model\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(literals_decode),
        cmocka_unit_test(line_ends_may_be_crlf),
        cmocka_unit_test(bad_lines_are_named),
        cmocka_unit_test(longest_match_equals_the_slow_one),
        cmocka_unit_test(large_vocabularies_match_too),
        cmocka_unit_test(a_byte_without_token_is_named),
        cmocka_unit_test(pieces_may_be_empty_or_equal),
        cmocka_unit_test(bytes_are_their_own_ids),
        cmocka_unit_test(parse_looks_at_the_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
