/* fuzz_bpe_encode.c - any bytes as text for a small byte-pair vocabulary.
 *
 * The pieces, put together, must be the normal form of the repaired text. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "../support/tiny_bpe.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) abort();
}

/* All bytes, and merges that compete with each other; kept for the life of the program. */
static const cv_tokenizer *tokenizer(void)
{
    static tiny_bpe tiny;
    static cv_tokenizer *tok;
    static const char *const merges[][2] = {
        { "h", "e" },       { "t", "he" },      { " ", "the" }, { "t", "h" },   { "a", "a" },
        { "aa", "aa" },     { "aa", "a" },      { "e", "r" },   { "i", "n" },   { "in", "g" },
        { "\xC3", "\xA9" }, { "\xE4", "\xB8" }, { " ", "a" },   { "\n", "\n" }, { "'", "s" },
    };
    if (tok) return tok;
    tiny_begin(&tiny);
    for (size_t i = 0; i < sizeof merges / sizeof merges[0]; i++)
        check(tiny_merge_texts(&tiny, merges[i][0], merges[i][1]));
    char *json = tiny_json(&tiny, false);
    check(cv_tokenizer_bpe(&cv_libc_allocator, json, strlen(json), "tiny", &tok, NULL) ==
          CORVID_OK);
    free(json);
    return tok;
}

static char *decode(const cv_tokenizer *tok, const int32_t *ids, size_t count, size_t *n)
{
    char *text = malloc(count * TINY_BYTES + 1);
    check(text != NULL);
    *n = 0;
    for (size_t i = 0; i < count; i++) {
        size_t length;
        const char *piece = cv_tokenizer_piece(tok, ids[i], &length);
        check(length > 0 && length <= TINY_BYTES);
        memcpy(text + *n, piece, length);
        *n += length;
    }
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 8192) return 0;
    const cv_tokenizer *tok = tokenizer();
    int32_t *ids;
    size_t count, n;
    check(cv_tokenizer_encode(tok, &cv_libc_allocator, (const char *)data, size, &ids, &count,
                              NULL) == CORVID_OK);
    char *back = decode(tok, ids, count, &n), *repaired = malloc(3 * size);
    check(repaired != NULL);
    const size_t m = cv_utf8_repair((const char *)data, size, repaired);
    utf8proc_uint8_t *normal = NULL;
    const utf8proc_ssize_t length =
        utf8proc_map((utf8proc_uint8_t *)repaired, (utf8proc_ssize_t)m, &normal,
                     (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    check(length >= 0);
    /* The special token is cut out before normalisation, so its '>' stays apart from a stroke. */
    if (!memmem(repaired, m, TINY_SPECIAL "\xCC", strlen(TINY_SPECIAL) + 1))
        check(n == (size_t)length && memcmp(back, normal, n) == 0);
    free(normal);
    free(back);
    free(repaired);
    cv_free(&cv_libc_allocator, ids);
    return 0;
}
