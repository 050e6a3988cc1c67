/* test_tokenizer_cases.c - the real vocabularies: known cases, known ids, and whole books.
 *
 * The World cases come from the definition of the vocabulary and a published vector, the 20B cases
 * from another implementation.  [tok.world] [tok.bpe] */
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "base/rng.h"
#include "text/tokenizer.h"

#define WORLD "tokenizer/rwkv_vocab_v20230424.txt"
#define NEOX  "tokenizer/20B_tokenizer.json"

static const corvid_allocator *const mem = &cv_libc_allocator;

/* Skips the test when the data are not there, so a caller has a tokenizer. */
static cv_tokenizer *open_vocabulary(const char *relative)
{
    NEED_DATA(path, relative);
    size_t n;
    char *text = test_read_file(path, &n);
    cv_tokenizer *tok = NULL;
    corvid_error err;
    ASSERT_OK(cv_tokenizer_parse(mem, text, n, relative, &tok, &err), &err);
    free(text);
    return tok;
}

/* ---- pieces of a test ----------------------------------------------------------------------- */

static bool has_ids(const cv_tokenizer *tok, const char *text, size_t n, const int32_t *ids,
                    size_t count)
{
    int32_t *got;
    size_t got_count;
    corvid_error err;
    ASSERT_OK(cv_tokenizer_encode(tok, mem, text, n, &got, &got_count, &err), &err);
    const bool same = got_count == count && memcmp(got, ids, count * sizeof *ids) == 0;
    cv_free(mem, got);
    return same;
}

static char *decode(const cv_tokenizer *tok, const int32_t *ids, size_t count, size_t *n)
{
    size_t total = 0, length;
    for (size_t i = 0; i < count; i++) {
        (void)cv_tokenizer_piece(tok, ids[i], &length);
        total += length;
    }
    char *text = malloc(total + 1);
    assert_non_null(text);
    *n = 0;
    for (size_t i = 0; i < count; i++) {
        const char *piece = cv_tokenizer_piece(tok, ids[i], &length);
        memcpy(text + *n, piece, length);
        *n += length;
    }
    return text;
}

static bool decodes_to(const cv_tokenizer *tok, const int32_t *ids, size_t count, const char *text,
                       size_t n)
{
    size_t length;
    char *back = decode(tok, ids, count, &length);
    const bool same = length == n && memcmp(back, text, n) == 0;
    free(back);
    return same;
}

static char *normal_form(const char *text, size_t n, size_t *out_n)
{
    utf8proc_uint8_t *out = NULL;
    const utf8proc_ssize_t length =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &out,
                     (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    assert_true(length >= 0);
    *out_n = (size_t)length;
    return (char *)out;
}

/* ---- case files ----------------------------------------------------------------------------- */

typedef struct case_line {
    char *text;
    size_t n;
    int32_t *ids;
    size_t count;
} case_line;

/* "<hex> TAB <ids>", terminated by zero. */
static case_line read_case(const char *line)
{
    const size_t room = strlen(line) + 1;
    case_line c = { .text = calloc(room, 1), .ids = calloc(room, sizeof *c.ids) };
    assert_true(c.text && c.ids);
    const char *at = line;
    for (; *at != '\t'; at += 2) {
        const char digits[3] = { at[0], at[1], 0 };
        char *end;
        c.text[c.n++] = (char)(unsigned char)strtoul(digits, &end, 16);
        if (end != digits + 2) fail_msg("not a case: %.60s", line);
    }
    at++;
    for (char *end; *at; at = *end == ' ' ? end + 1 : end) {
        c.ids[c.count++] = (int32_t)strtol(at, &end, 10);
        if (end == at) fail_msg("not a case: %.60s", line);
    }
    return c;
}

/* Counts the cases of a file that hold in both directions; decoding gives the bytes (or their
 * normal form). */
static void run_cases(const char *vocabulary, const char *cases, bool normal, size_t expected)
{
    NEED_DATA(path, cases);
    cv_tokenizer *tok = open_vocabulary(vocabulary);
    size_t n, line_count = 0, encoded = 0, decoded = 0;
    char *file = test_read_file(path, &n);
    for (char *line = file, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        line_count++;
        case_line c = read_case(line);
        if (has_ids(tok, c.text, c.n, c.ids, c.count))
            encoded++;
        else
            print_message("%s line %zu: other ids\n", cases, line_count);
        size_t want_n = c.n;
        char *want = normal ? normal_form(c.text, c.n, &want_n) : NULL;
        if (decodes_to(tok, c.ids, c.count, want ? want : c.text, want_n))
            decoded++;
        else
            print_message("%s line %zu: decodes to another text\n", cases, line_count);
        free(want);
        free(c.text);
        free(c.ids);
    }
    print_message("%s: %zu cases, %zu encode and %zu decode as they should\n", cases, line_count,
                  encoded, decoded);
    assert_int_equal(line_count, expected);
    assert_int_equal(encoded, expected);
    assert_int_equal(decoded, expected);
    free(file);
    cv_tokenizer_free(tok);
}

static void world_cases_hold(void **state)
{
    (void)state;
    run_cases(WORLD, "tokenizer/world_cases.tsv", false, 635);
}

static void neox_cases_hold(void **state)
{
    (void)state;
    run_cases(NEOX, "tokenizer/20b_cases.tsv", true, 430);
}

/* ---- facts ---------------------------------------------------------------------------------- */

typedef struct known {
    const char *text;
    int32_t ids[12]; /* up to the first 0 */
} known;

static const known world_known[] = {
    { "\n", { 11 } },
    { "\n\n", { 261 } },
    { "\n\n\n", { 3328 } },
    { " ", { 33 } },
    { "\r\n", { 263 } },
    { "User", { 24281 } },
    { ":", { 59 } },
    { "Assistant", { 5585, 41693 } },
    { " <think>", { 295, 35762, 63 } },
    { "<think>", { 61, 35762, 63 } },
    { "</think>", { 754, 35762, 63 } },
    { " A", { 300 } },
    { " B", { 301 } },
    { " C", { 302 } },
    { " D", { 303 } },
    { "The Eiffel tower is in the city of",
      { 6699, 304, 25740, 109, 39990, 4600, 4596, 22590, 30449, 4706 } },
    { "\xF0\x9F\x98\x80", { 3319, 153, 129 } },
};

static void world_ids_are_the_known_ones(void **state)
{
    (void)state;
    cv_tokenizer *tok = open_vocabulary(WORLD);
    for (size_t i = 0; i < sizeof world_known / sizeof world_known[0]; i++) {
        const known *k = &world_known[i];
        size_t count = 0;
        while (count < 12 && k->ids[count] != 0)
            count++;
        if (!has_ids(tok, k->text, strlen(k->text), k->ids, count)) fail_msg("\"%s\"", k->text);
    }
    cv_tokenizer_free(tok);
}

/* 65,529 tokens of ids 1 .. 65529, byte b has id b + 1, the longest is 128 spaces, 486 are not
 * UTF-8, one holds a zero byte, and each alone encodes to itself. */
static void world_vocabulary_is_as_described(void **state)
{
    (void)state;
    cv_tokenizer *tok = open_vocabulary(WORLD);
    size_t length, longest = 0, not_utf8 = 0, with_zero = 0;
    assert_int_equal(cv_tokenizer_size(tok), 65530);
    (void)cv_tokenizer_piece(tok, 0, &length);
    assert_int_equal(length, 0);
    (void)cv_tokenizer_piece(tok, 65530, &length);
    assert_int_equal(length, 0);
    for (int32_t id = 1; id <= 65529; id++) {
        const char *piece = cv_tokenizer_piece(tok, id, &length);
        assert_true(length > 0);
        if (length > longest) longest = length;
        if (memchr(piece, 0, length)) with_zero++;
        if (id <= 256) assert_int_equal((unsigned char)piece[0], id - 1);
        assert_int_equal(length == 1, id <= 256);
        assert_true(has_ids(tok, piece, length, &id, 1));
        for (size_t i = 0; i < length;) {
            utf8proc_int32_t c;
            const utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)piece + i,
                                                           (utf8proc_ssize_t)(length - i), &c);
            if (step <= 0) {
                not_utf8++;
                break;
            }
            i += (size_t)step;
        }
    }
    assert_int_equal(longest, 128);
    assert_int_equal(not_utf8, 486);
    assert_int_equal(with_zero, 1);
    char spaces[128];
    memset(spaces, ' ', sizeof spaces);
    assert_true(has_ids(tok, spaces, sizeof spaces, &(int32_t){ 65529 }, 1));
    cv_tokenizer_free(tok);
}

static void round_trip(const cv_tokenizer *tok, const char *text, size_t n, bool normal)
{
    int32_t *ids;
    size_t count, want_n = n;
    corvid_error err;
    ASSERT_OK(cv_tokenizer_encode(tok, mem, text, n, &ids, &count, &err), &err);
    char *want = normal ? normal_form(text, n, &want_n) : NULL;
    assert_true(decodes_to(tok, ids, count, want ? want : text, want_n));
    for (size_t i = 0; i < count; i++)
        assert_true(ids[i] > 0 || normal);
    free(want);
    cv_free(mem, ids);
}

static void random_bytes_round_trip(void **state)
{
    (void)state;
    cv_tokenizer *tok = open_vocabulary(WORLD);
    cv_rng rng;
    cv_rng_seed(&rng, 2023);
    for (int round = 0; round < 3000; round++) {
        char text[300];
        const size_t n = (size_t)(cv_rng_next(&rng) % (sizeof text + 1));
        for (size_t i = 0; i < n; i++)
            text[i] = (char)(unsigned char)(cv_rng_next(&rng) >> 13);
        round_trip(tok, text, n, false);
    }
    cv_tokenizer_free(tok);
}

/* The copy of the vocabulary with other line ends gives the same tokens. */
static void crlf_changes_nothing(void **state)
{
    (void)state;
    NEED_DATA(path, WORLD);
    size_t n, m = 0, a_n, b_n;
    char *text = test_read_file(path, &n), *crlf = malloc(2 * n);
    assert_non_null(crlf);
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n') crlf[m++] = '\r';
        crlf[m++] = text[i];
    }
    cv_tokenizer *a, *b;
    corvid_error err;
    ASSERT_OK(cv_tokenizer_world(mem, text, n, "lf", &a, &err), &err);
    ASSERT_OK(cv_tokenizer_world(mem, crlf, m, "crlf", &b, &err), &err);
    assert_int_equal(cv_tokenizer_size(a), cv_tokenizer_size(b));
    for (int32_t id = 0; id < 65530; id++) {
        const char *p = cv_tokenizer_piece(a, id, &a_n), *q = cv_tokenizer_piece(b, id, &b_n);
        assert_int_equal(a_n, b_n);
        assert_memory_equal(p, q, a_n);
    }
    cv_tokenizer_free(a);
    cv_tokenizer_free(b);
    free(text);
    free(crlf);
}

static void neox_vocabulary_is_as_described(void **state)
{
    (void)state;
    cv_tokenizer *tok = open_vocabulary(NEOX);
    assert_int_equal(cv_tokenizer_size(tok), 50277);
    assert_true(has_ids(tok, "\n", 1, &(int32_t){ 187 }, 1));
    assert_true(has_ids(tok, "\n\n", 2, &(int32_t){ 535 }, 1));
    assert_true(has_ids(tok, "!", 1, &(int32_t){ 2 }, 1));
    assert_true(has_ids(tok, "<|endoftext|>", 13, &(int32_t){ 0 }, 1));
    assert_true(has_ids(tok, "<|padding|>", 11, &(int32_t){ 1 }, 1));
    char spaces[24];
    memset(spaces, ' ', sizeof spaces);
    for (size_t n = 2; n <= 24; n++)
        assert_true(has_ids(tok, spaces, n, &(int32_t){ (int32_t)(50278 - n) }, 1));
    cv_tokenizer_free(tok);
}

/* ---- books ---------------------------------------------------------------------------------- */

static const char *const books[] = {
    "text/tinyshakespeare/input.txt",
    "text/wikitext2/wiki.test.raw",
    "text/lambada/lambada_test.jsonl",
    "text/chinese/analects.txt",
    "text/chinese/song-ci-300.txt",
    "text/chinese/tang-valid.txt",
    "text/chinese/tang-train.txt",
    "text/gutenberg/test/moby-dick.txt",
    "text/gutenberg/train/war-and-peace.txt",
};

static void round_trip_books(const char *vocabulary, bool normal)
{
    cv_tokenizer *tok = open_vocabulary(vocabulary);
    size_t read = 0;
    for (size_t i = 0; i < sizeof books / sizeof books[0]; i++) {
        const char *path = test_data(books[i]);
        if (!path) {
            print_message("SKIP: no %s in the reference data\n", books[i]);
            continue;
        }
        size_t n;
        char *text = test_read_file(path, &n);
        round_trip(tok, text, n, normal);
        free(text);
        read++;
    }
    print_message("%s: %zu of %zu texts come back\n", vocabulary, read,
                  sizeof books / sizeof books[0]);
    assert_true(read > 0);
    cv_tokenizer_free(tok);
}

static void world_gives_books_back(void **state)
{
    (void)state;
    round_trip_books(WORLD, false);
}

static void neox_gives_books_back(void **state)
{
    (void)state;
    round_trip_books(NEOX, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(world_cases_hold),
        cmocka_unit_test(neox_cases_hold),
        cmocka_unit_test(world_ids_are_the_known_ones),
        cmocka_unit_test(world_vocabulary_is_as_described),
        cmocka_unit_test(random_bytes_round_trip),
        cmocka_unit_test(crlf_changes_nothing),
        cmocka_unit_test(neox_vocabulary_is_as_described),
        cmocka_unit_test(world_gives_books_back),
        cmocka_unit_test(neox_gives_books_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
