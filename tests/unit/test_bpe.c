/* test_bpe.c - byte-pair encoding against slow forms of each stage.
 *
 * The oracles: PCRE2 with the pattern itself for words, utf8proc's whole-text normalisation for form
 * C, and a rescan of the whole word after each merge.  Texts are drawn from scripts that Unicode has
 * held unchanged for long, because the libraries carry different versions of its tables. */
#include "support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utf8proc.h>

#ifdef TEST_HAS_PCRE2
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#endif

#include "base/memory.h"
#include "base/rng.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "text/words.h"
#include "tiny_bpe.h"

static const corvid_allocator *const mem = &cv_libc_allocator;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- random text ---------------------------------------------------------------------------- */

typedef struct range {
    uint32_t first, last, weight;
} range;

static const range ranges[] = {
    { 0x20, 0x20, 12 },      { 0x61, 0x7A, 12 },      { 0x21, 0x7E, 8 },
    { 0x09, 0x0D, 4 },       { 0x30, 0x39, 4 },       { 0x27, 0x27, 5 },
    { 0x00, 0x1F, 1 },       { 0x80, 0xFF, 4 },       { 0x100, 0x24F, 3 },
    { 0x300, 0x345, 5 },     { 0x391, 0x3A1, 2 },     { 0x410, 0x44F, 2 },
    { 0x5D0, 0x5EA, 1 },     { 0x621, 0x64A, 1 },     { 0x660, 0x669, 1 },
    { 0x905, 0x939, 1 },     { 0x93C, 0x93C, 1 },     { 0x966, 0x96F, 1 },
    { 0x1100, 0x1112, 2 },   { 0x1161, 0x1175, 2 },   { 0x11A8, 0x11C2, 2 },
    { 0xAC00, 0xAC40, 2 },   { 0x1E00, 0x1EFF, 2 },   { 0x2000, 0x200A, 3 },
    { 0x2010, 0x2029, 2 },   { 0x202F, 0x205F, 1 },   { 0x2126, 0x212B, 2 },
    { 0x2160, 0x2182, 1 },   { 0x2460, 0x249B, 1 },   { 0x3000, 0x3002, 2 },
    { 0x3041, 0x3094, 3 },   { 0x3099, 0x309A, 2 },   { 0x30A1, 0x30FA, 2 },
    { 0x4E00, 0x9FA5, 4 },   { 0xF900, 0xFA2D, 1 },   { 0xFF01, 0xFF5E, 1 },
    { 0x1D400, 0x1D454, 1 }, { 0x1F600, 0x1F640, 2 }, { 0x1680, 0x1680, 1 },
    { 0x85, 0x85, 1 },       { 0xFFFD, 0xFFFD, 1 },   { 0x1D15E, 0x1D164, 1 },
    { 0x2F800, 0x2FA1D, 1 },
};

static uint32_t random_codepoint(cv_rng *rng)
{
    uint32_t total = 0;
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        total += ranges[i].weight;
    uint32_t at = (uint32_t)(cv_rng_next(rng) % total);
    size_t i = 0;
    for (; at >= ranges[i].weight; i++)
        at -= ranges[i].weight;
    const uint32_t n = ranges[i].last - ranges[i].first + 1;
    return ranges[i].first + (uint32_t)(cv_rng_next(rng) % n);
}

/* At most 4 * max bytes. */
static size_t random_text(cv_rng *rng, char *text, size_t max)
{
    static const char *const bits[] = { "'s",  "'ll", "'ve",  "'re", "  ",   "   ", " the",
                                        "the", "in",  "\n\n", "I'd", "'m's", "' s", TINY_SPECIAL };
    const size_t count = (size_t)(cv_rng_next(rng) % (max - 6));
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (cv_rng_next(rng) % 8 == 0) {
            const char *bit = bits[cv_rng_next(rng) % (sizeof bits / sizeof bits[0])];
            if (n + strlen(bit) + 4 > 4 * max) break;
            memcpy(text + n, bit, strlen(bit));
            n += strlen(bit);
        }
        if (n + 4 > 4 * max) break;
        n += (size_t)utf8proc_encode_char((utf8proc_int32_t)random_codepoint(rng),
                                          (utf8proc_uint8_t *)text + n);
    }
    return n;
}

/* ---- words ---------------------------------------------------------------------------------- */

#ifdef TEST_HAS_PCRE2
#define NEED_PATTERN() ((void)0)

static pcre2_code *pattern;
static pcre2_match_data *match;

static int open_pattern(void **state)
{
    (void)state;
    static const char text[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
                               "\\s+(?!\\S)|\\s+";
    int problem;
    PCRE2_SIZE where;
    pattern = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                            &problem, &where, NULL);
    if (!pattern) return -1;
    match = pcre2_match_data_create_from_pattern(pattern, NULL);
    return match ? 0 : -1;
}

static int close_pattern(void **state)
{
    (void)state;
    pcre2_match_data_free(match);
    pcre2_code_free(pattern);
    return 0;
}

static size_t slow_word_length(const char *text, size_t n, size_t from)
{
    const int found = pcre2_match(pattern, (PCRE2_SPTR)text, n, from, PCRE2_ANCHORED, match, NULL);
    assert_true(found > 0);
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(match);
    assert_int_equal(ends[0], from);
    return ends[1] - ends[0];
}
#else
#define NEED_PATTERN()                                \
    do {                                              \
        print_message("SKIP: built without PCRE2\n"); \
        skip();                                       \
    } while (0)

/* Without the pattern our own words stand in, and only the merges are compared. */
static size_t slow_word_length(const char *text, size_t n, size_t from)
{
    return cv_word_length(text + from, n - from);
}

static int open_pattern(void **state)
{
    (void)state;
    return 0;
}

static int close_pattern(void **state)
{
    (void)state;
    return 0;
}
#endif

static void print_and_fail(const char *what, const char *text, size_t n)
{
    print_message("%s:", what);
    for (size_t i = 0; i < n; i++)
        print_message(" %02x", (unsigned)(unsigned char)text[i]);
    fail_msg("%s differs", what);
}

static void words_equal_the_pattern(void **state)
{
    (void)state;
    NEED_PATTERN();
    cv_rng rng;
    char text[400];
    cv_rng_seed(&rng, 11);
    for (int round = 0; round < 30000; round++) {
        const size_t n = random_text(&rng, text, sizeof text / 4);
        for (size_t i = 0; i < n;) {
            const size_t length = cv_word_length(text + i, n - i);
            if (length != slow_word_length(text, n, i)) print_and_fail("word", text + i, n - i);
            i += length;
        }
    }
}

/* Every short string over the characters that the pattern tells apart. */
static void all_short_texts_split_alike(void **state)
{
    (void)state;
    NEED_PATTERN();
    static const char *const letters[] = { " ", "\n", "'", "s",        "l",       "e",
                                           "r", "7",  "!", "\xC2\xA0", "\xC3\xA9" };
    const size_t kinds = sizeof letters / sizeof letters[0];
    for (size_t code = 0; code < kinds * kinds * kinds * kinds * kinds; code++) {
        char text[16];
        size_t n = 0;
        for (size_t k = 0, c = code; k < 5; k++, c /= kinds) {
            memcpy(text + n, letters[c % kinds], strlen(letters[c % kinds]));
            n += strlen(letters[c % kinds]);
        }
        for (size_t i = 0; i < n;) {
            const size_t length = cv_word_length(text + i, n - i);
            if (length != slow_word_length(text, n, i)) print_and_fail("word", text + i, n - i);
            i += length;
        }
    }
}

/* ---- normal form ---------------------------------------------------------------------------- */

static void assert_normalised(const char *text, size_t n)
{
    char copy[2048], *owned;
    const char *out;
    size_t out_n;
    corvid_error err;
    assert_true(n < sizeof copy);
    memcpy(copy, text, n);
    copy[n] = '\0';
    utf8proc_uint8_t *expected = NULL;
    const utf8proc_ssize_t length =
        utf8proc_map((utf8proc_uint8_t *)copy, (utf8proc_ssize_t)n, &expected,
                     (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    assert_true(length >= 0);
    ASSERT_OK(cv_nfc(mem, copy, n, &out, &out_n, &owned, &err), &err);
    if (out_n != (size_t)length || memcmp(out, expected, out_n) != 0)
        print_and_fail("normal form", text, n);
    assert_true(owned ? out == owned : out == copy);
    cv_free(mem, owned);
    free(expected);
}

/* Each character alone, between a letter and a mark, and between parts of Korean syllables. */
static void every_character_normalises_alike(void **state)
{
    (void)state;
    static const uint32_t before[] = { 0, 'a', 0x1100, 0x3042 },
                          after[] = { 0, 0x301, 0x11A8, 0x3099 };
    for (uint32_t c = 1; c < 0x30000; c++) {
        if (c >= 0xD800 && c <= 0xDFFF) continue;
        if (c == 0x20000) c = 0x2F800; /* between them are characters that nothing changes */
        for (size_t k = 0; k < 4; k++) {
            char text[16];
            size_t n = 0;
            utf8proc_uint8_t *at = (utf8proc_uint8_t *)text;
            if (before[k]) n += (size_t)utf8proc_encode_char((utf8proc_int32_t)before[k], at);
            n += (size_t)utf8proc_encode_char((utf8proc_int32_t)c, at + n);
            if (after[k]) n += (size_t)utf8proc_encode_char((utf8proc_int32_t)after[k], at + n);
            assert_normalised(text, n);
        }
        if (c > 0x2FA20) break;
    }
}

static void random_texts_normalise_alike(void **state)
{
    (void)state;
    cv_rng rng;
    char text[1600];
    cv_rng_seed(&rng, 12);
    for (int round = 0; round < 20000; round++)
        assert_normalised(text, random_text(&rng, text, round % 100 == 0 ? 400 : 60));
}

/* ---- the whole encoding --------------------------------------------------------------------- */

typedef struct id_list {
    int32_t at[4096];
    size_t n;
} id_list;

/* Merges the pair of lowest rank, leftmost first, until none is left. */
static void slow_word(const tiny_bpe *t, const char *word, size_t n, id_list *out)
{
    int id[2048];
    assert_true(n <= 2048);
    for (size_t i = 0; i < n; i++)
        id[i] = 1 + (unsigned char)word[i];
    for (;;) {
        size_t best = n;
        int best_result = (int)t->n;
        for (size_t i = 0; i + 1 < n; i++)
            for (int r = 257; r < best_result; r++)
                if (t->left[r] == id[i] && t->right[r] == id[i + 1]) {
                    best = i;
                    best_result = r;
                }
        if (best == n) break;
        id[best] = best_result;
        memmove(id + best + 1, id + best + 2, (n - best - 2) * sizeof *id);
        n--;
    }
    for (size_t i = 0; i < n; i++)
        out->at[out->n++] = id[i];
}

static void slow_words(const tiny_bpe *t, const char *text, size_t n, id_list *out)
{
    char copy[2048];
    memcpy(copy, text, n); /* the pattern must not see what follows */
    for (size_t i = 0; i < n;) {
        const size_t length = slow_word_length(copy, n, i);
        slow_word(t, copy + i, length, out);
        i += length;
    }
}

/* Splits at runs of three or two spaces, longest first. */
static void slow_normal(const tiny_bpe *t, const char *text, size_t n, id_list *out)
{
    utf8proc_uint8_t *normal = NULL;
    if (n == 0) return;
    const utf8proc_ssize_t length =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &normal,
                     (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    const char *b = (const char *)normal;
    size_t from = 0, end = (size_t)length;
    for (size_t i = 0; i + 1 < end; i++) {
        if (b[i] != ' ' || b[i + 1] != ' ') continue;
        const size_t spaces = i + 2 < end && b[i + 2] == ' ' ? 3 : 2;
        slow_words(t, b + from, i - from, out);
        out->at[out->n++] = (int32_t)(t->n + spaces - 2);
        from = i + spaces;
        i = from - 1;
    }
    slow_words(t, b + from, end - from, out);
    free(normal);
}

static void slow_encode(const tiny_bpe *t, const char *text, size_t n, id_list *out)
{
    char copy[2048];
    memcpy(copy, text, n);
    copy[n] = '\0';
    out->n = 0;
    for (size_t from = 0;;) {
        const char *special = memmem(copy + from, n - from, TINY_SPECIAL, strlen(TINY_SPECIAL));
        const size_t end = special ? (size_t)(special - copy) : n;
        slow_normal(t, copy + from, end - from, out);
        if (!special) return;
        out->at[out->n++] = 0;
        from = end + strlen(TINY_SPECIAL);
    }
}

static cv_tokenizer *open_tiny(const tiny_bpe *t, bool pairs)
{
    cv_tokenizer *tok = NULL;
    corvid_error err;
    char *json = tiny_json(t, pairs);
    ASSERT_OK(cv_tokenizer_parse(mem, json, strlen(json), "tiny", &tok, &err), &err);
    free(json);
    assert_int_equal(cv_tokenizer_kind_of(tok), CV_TOK_BPE);
    assert_int_equal(cv_tokenizer_size(tok), t->n + 2);
    return tok;
}

static void assert_encodes_alike(const cv_tokenizer *tok, const tiny_bpe *t, const char *text,
                                 size_t n)
{
    static id_list expected;
    corvid_error err;
    int32_t *ids;
    size_t count;
    slow_encode(t, text, n, &expected);
    ASSERT_OK(cv_tokenizer_encode(tok, mem, text, n, &ids, &count, &err), &err);
    if (count != expected.n || memcmp(ids, expected.at, count * sizeof *ids) != 0)
        print_and_fail("encoding", text, n);
    cv_free(mem, ids);
}

/* Merges that texts have use for, then chance. */
static void fill_tiny(tiny_bpe *t, uint64_t seed, const char *letters)
{
    cv_rng rng;
    cv_rng_seed(&rng, seed);
    tiny_begin(t);
    assert_true(tiny_merge_texts(t, "h", "e"));
    assert_true(tiny_merge_texts(t, "t", "he"));
    assert_true(tiny_merge_texts(t, " ", "the"));
    assert_true(tiny_merge_texts(t, "\xC3", "\xA9"));
    assert_true(tiny_merge_texts(t, "t", "h"));
    for (int tries = 0; t->n < TINY_TOKENS && tries < 100000; tries++) {
        const size_t n_letters = strlen(letters);
        const size_t pool = n_letters + t->n - 257;
        int pair[2];
        for (int k = 0; k < 2; k++) {
            const size_t pick = (size_t)(cv_rng_next(&rng) % pool);
            pair[k] =
                pick < n_letters ? 1 + (unsigned char)letters[pick] : (int)(257 + pick - n_letters);
        }
        tiny_merge(t, pair[0], pair[1]);
    }
}

static tiny_bpe tiny;

static void random_texts_encode_alike(void **state)
{
    (void)state;
    cv_rng rng;
    char text[400];
    fill_tiny(&tiny, 21, "etaoin \xCC\x81\xE4\xB8");
    cv_tokenizer *tok = open_tiny(&tiny, false);
    cv_rng_seed(&rng, 22);
    for (int round = 0; round < 6000; round++)
        assert_encodes_alike(tok, &tiny, text, random_text(&rng, text, sizeof text / 4));
    cv_tokenizer_free(tok);
}

/* Few letters, so that merges compete; words longer than the scratch on the stack among them. */
static void competing_merges_keep_their_order(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        cv_rng rng;
        char text[600];
        cv_rng_seed(&rng, 100 + seed);
        fill_tiny(&tiny, seed, seed % 3 == 0 ? "a" : seed % 3 == 1 ? "ab" : "abc");
        cv_tokenizer *tok = open_tiny(&tiny, seed % 2 == 0);
        for (int round = 0; round < 60; round++) {
            const size_t n = (size_t)(cv_rng_next(&rng) % (round % 10 == 0 ? sizeof text : 40));
            for (size_t i = 0; i < n; i++)
                text[i] = (char)(unsigned char)('a' + cv_rng_next(&rng) % (1 + seed % 3));
            assert_encodes_alike(tok, &tiny, text, n);
        }
        cv_tokenizer_free(tok);
    }
}

/* Pieces give back the normal form, invalid bytes as U+FFFD. */
static void pieces_give_the_normal_form_back(void **state)
{
    (void)state;
    cv_rng rng;
    fill_tiny(&tiny, 21, "etaoin \xCC\x81\xE4\xB8");
    cv_tokenizer *tok = open_tiny(&tiny, true);
    cv_rng_seed(&rng, 23);
    for (int round = 0; round < 4000; round++) {
        char text[400], repaired[1201], back[2400];
        size_t n = random_text(&rng, text, sizeof text / 4), count, at = 0;
        for (int k = 0; k < 3 && n > 0; k++)
            text[cv_rng_next(&rng) % n] = (char)(unsigned char)(cv_rng_next(&rng) >> 9);
        int32_t *ids;
        corvid_error err;
        ASSERT_OK(cv_tokenizer_encode(tok, mem, text, n, &ids, &count, &err), &err);
        for (size_t i = 0; i < count; i++) {
            size_t length;
            const char *piece = cv_tokenizer_piece(tok, ids[i], &length);
            memcpy(back + at, piece, length);
            at += length;
        }
        n = cv_utf8_repair(text, n, repaired);
        utf8proc_uint8_t *normal = NULL;
        const utf8proc_ssize_t length =
            utf8proc_map((utf8proc_uint8_t *)repaired, (utf8proc_ssize_t)n, &normal,
                         (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
        /* A special token in the middle keeps its neighbours from composing with it; none of its
         * characters composes with anything behind it but '>' with U+0338. */
        if (!memmem(repaired, n, ">\xCC\xB8", 3)) {
            assert_int_equal(at, (size_t)length);
            assert_memory_equal(back, normal, at);
        }
        free(normal);
        cv_free(mem, ids);
    }
    cv_tokenizer_free(tok);
}

static void added_tokens_are_found_where_they_should(void **state)
{
    (void)state;
    fill_tiny(&tiny, 21, "e");
    cv_tokenizer *tok = open_tiny(&tiny, false);
    const int32_t two = (int32_t)tiny.n, three = two + 1;
    const int32_t expected[] = { 0, 0, three, three, two, 1 + 'x', 1 + ' ' };
    const char *text = TINY_SPECIAL TINY_SPECIAL "        x ";
    int32_t *ids;
    size_t count, length;
    corvid_error err;
    ASSERT_OK(cv_tokenizer_encode(tok, mem, text, strlen(text), &ids, &count, &err), &err);
    assert_int_equal(count, 7);
    assert_memory_equal(ids, expected, sizeof expected);
    assert_memory_equal(cv_tokenizer_piece(tok, three, &length), "   ", 3);
    assert_int_equal(length, 3);
    assert_memory_equal(cv_tokenizer_piece(tok, 0, &length), TINY_SPECIAL, strlen(TINY_SPECIAL));
    assert_int_equal(length, strlen(TINY_SPECIAL));
    cv_free(mem, ids);
    cv_tokenizer_free(tok);
}

/* Long words and long runs of marks in falling order: nothing is quadratic. */
static void long_words_take_no_quadratic_time(void **state)
{
    (void)state;
    const size_t n = 400000;
    char *text = malloc(n);
    assert_non_null(text);
    fill_tiny(&tiny, 3, "ab");
    cv_tokenizer *tok = open_tiny(&tiny, false);
    for (int kind = 0; kind < 4; kind++) {
        static const char *const marks[] = { "\xCD\x82", "\xCC\xA7" }; /* classes 230 and 202 */
        for (size_t i = 0; i < n; i += 2)
            memcpy(text + i,
                   kind == 0   ? "ab"
                   : kind == 1 ? "  "
                   : kind == 2 ? marks[i / 2 % 2]
                               : "!!",
                   2);
        int32_t *ids;
        size_t count;
        corvid_error err;
        const double start = seconds();
        ASSERT_OK(cv_tokenizer_encode(tok, mem, text, n, &ids, &count, &err), &err);
        const double taken = seconds() - start;
        if (taken > 5.0) fail_msg("kind %d: %zu bytes took %.1f s", kind, n, taken);
        cv_free(mem, ids);
    }
    cv_tokenizer_free(tok);
    free(text);
}

typedef struct shared_work {
    const cv_tokenizer *tok;
    const char *text;
    size_t n, count, wrong;
    const int32_t *ids;
} shared_work;

static void *encode_again(void *arg)
{
    shared_work *w = arg;
    for (int round = 0; round < 50; round++) {
        int32_t *ids;
        size_t count;
        if (cv_tokenizer_encode(w->tok, mem, w->text, w->n, &ids, &count, NULL) != CORVID_OK ||
            count != w->count || memcmp(ids, w->ids, count * sizeof *ids) != 0)
            w->wrong++;
        cv_free(mem, ids);
    }
    return NULL;
}

/* Its use is under ThreadSanitizer. */
static void threads_share_a_tokenizer(void **state)
{
    (void)state;
    cv_rng rng;
    char text[4000];
    pthread_t threads[4];
    shared_work work[4];
    int32_t *ids;
    size_t count;
    corvid_error err;
    fill_tiny(&tiny, 21, "etaoin \xCC\x81\xE4\xB8");
    cv_tokenizer *tok = open_tiny(&tiny, false);
    cv_rng_seed(&rng, 24);
    const size_t n = random_text(&rng, text, sizeof text / 4);
    ASSERT_OK(cv_tokenizer_encode(tok, mem, text, n, &ids, &count, &err), &err);
    for (size_t i = 0; i < 4; i++) {
        work[i] = (shared_work){ .tok = tok, .text = text, .n = n, .ids = ids, .count = count };
        assert_int_equal(pthread_create(&threads[i], NULL, encode_again, &work[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(work[i].wrong, 0);
    }
    cv_free(mem, ids);
    cv_tokenizer_free(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_equal_the_pattern),
        cmocka_unit_test(all_short_texts_split_alike),
        cmocka_unit_test(every_character_normalises_alike),
        cmocka_unit_test(random_texts_normalise_alike),
        cmocka_unit_test(random_texts_encode_alike),
        cmocka_unit_test(competing_merges_keep_their_order),
        cmocka_unit_test(pieces_give_the_normal_form_back),
        cmocka_unit_test(added_tokens_are_found_where_they_should),
        cmocka_unit_test(long_words_take_no_quadratic_time),
        cmocka_unit_test(threads_share_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, open_pattern, close_pattern);
}
