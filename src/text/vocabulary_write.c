/* vocabulary_write.c - the text of a World vocabulary file, and the one of single characters.
 *
 * A line is  ID SPACE LITERAL SPACE LENGTH  as world.c reads it: a Python str literal where the
 * bytes are UTF-8, else a bytes literal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/codepoint.h"
#include "text/utf8.h"
#include "text/vocabulary_trainer.h"

/* ---- literals ------------------------------------------------------------------------------- */

/* The longest line: an id, a literal of 4 characters a byte, quotes, a length, spaces. */
#define LINE_BYTES (4 * CV_WORD_BYTES + 32)

/* Characters that do not show, or would make a line look like two. */
static bool is_hidden(uint32_t c)
{
    if (c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD) return true;
    if ((c >= 0x2000 && c <= 0x200F) || (c >= 0x2028 && c <= 0x202F)) return true;
    return (c >= 0x205F && c <= 0x206F) || c == 0x3000 || (c >= 0xE000 && c <= 0xF8FF) ||
           c == 0xFEFF || (c >= 0xFFF0 && c <= 0xFFFB);
}

/* \t \n \r \\ and the quote; 0 where the character has no short escape. */
static char short_escape(uint32_t c, char quote)
{
    switch (c) {
    case '\t': return 't';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\\': return '\\';
    default: return c == (unsigned char)quote ? quote : 0;
    }
}

static size_t put_hex(char *out, char letter, unsigned digits, uint32_t value)
{
    static const char hex[] = "0123456789abcdef";
    out[0] = '\\';
    out[1] = letter;
    for (unsigned i = 0; i < digits; i++)
        out[2 + i] = hex[value >> 4 * (digits - 1 - i) & 0xF];
    return 2 + digits;
}

/* One character of a str literal, or one byte of a bytes literal. */
static size_t put_character(char *out, uint32_t c, char quote, bool is_bytes)
{
    const char escape = short_escape(c, quote);
    if (escape) {
        out[0] = '\\';
        out[1] = escape;
        return 2;
    }
    if (c < 0x100 && (is_bytes ? c < 0x20 || c > 0x7E : is_hidden(c)))
        return put_hex(out, 'x', 2, c);
    if (is_hidden(c)) return put_hex(out, 'u', 4, c);
    return cv_codepoint_write(c, out);
}

static size_t put_literal(char *out, const char *bytes, size_t n)
{
    const bool is_bytes = !cv_utf8_valid(bytes, n);
    const char quote = memchr(bytes, '\'', n) && !memchr(bytes, '"', n) ? '"' : '\'';
    size_t length = 0;
    if (is_bytes) out[length++] = 'b';
    out[length++] = quote;
    for (size_t i = 0; i < n;) {
        uint32_t c = (unsigned char)bytes[i];
        i += is_bytes ? 1 : cv_codepoint_read(bytes + i, n - i, &c);
        length += put_character(out + length, c, quote, is_bytes);
    }
    out[length++] = quote;
    return length;
}

/* ---- the file ------------------------------------------------------------------------------- */

static size_t put_line(char *out, size_t id, const char *bytes, size_t n)
{
    size_t length = (size_t)sprintf(out, "%zu ", id);
    length += put_literal(out + length, bytes, n);
    return length + (size_t)sprintf(out + length, " %zu\n", n);
}

/* By length, then by bytes, as the published vocabulary is sorted. */
static int by_length(const void *left, const void *right)
{
    const cv_token_bytes *a = left, *b = right;
    if (a->n != b->n) return a->n < b->n ? -1 : 1;
    return memcmp(a->bytes, b->bytes, a->n);
}

static size_t room_for(const cv_token_bytes *tokens, size_t n)
{
    size_t room = 256 * (LINE_BYTES - 4 * (CV_WORD_BYTES - 1)) + 1;
    for (size_t i = 0; i < n; i++)
        room += LINE_BYTES - 4 * (CV_WORD_BYTES - tokens[i].n);
    return room;
}

corvid_status cv_vocabulary_write(const corvid_allocator *mem, cv_token_bytes *tokens,
                                  size_t n_tokens, char **file, size_t *n, corvid_error *err)
{
    char *text = NULL;
    size_t at = 0;
    *file = NULL;
    *n = 0;
    CV_TRY(cv_alloc_or_fail(mem, room_for(tokens, n_tokens), 1, "a vocabulary's text",
                            (void **)&text, err));
    if (n_tokens > 0) qsort(tokens, n_tokens, sizeof *tokens, by_length);
    for (size_t b = 0; b < 256; b++) {
        const char byte = (char)(unsigned char)b;
        at += put_line(text + at, b + 1, &byte, 1);
    }
    for (size_t i = 0; i < n_tokens; i++)
        at += put_line(text + at, CV_VOCABULARY_SMALLEST + i, tokens[i].bytes, tokens[i].n);
    *file = text;
    *n = at;
    return CORVID_OK;
}

/* ---- single characters ---------------------------------------------------------------------- */

/* Marks the code points of several bytes that the words have, and counts them. */
static size_t mark_characters(const cv_vocabulary_words *words, unsigned char *seen)
{
    size_t n = 0;
    for (size_t i = 0; i < words->n; i++) {
        const cv_counted_word *word = &words->words[i];
        for (size_t at = 0; at < word->length;) {
            const char *bytes = words->bytes + word->start + at;
            uint32_t c = 0;
            const size_t length = cv_codepoint_read(bytes, word->length - at, &c);
            if (length > 1 && !seen[c]) {
                seen[c] = 1;
                n++;
            }
            at += length > 0 ? length : 1;
        }
    }
    return n;
}

corvid_status cv_vocabulary_characters(const cv_vocabulary_words *words, char **file, size_t *n,
                                       size_t *size, corvid_error *err)
{
    enum { CODES = 0x110000 };
    const corvid_allocator *mem = words->mem;
    unsigned char *seen = cv_alloc_zero(mem, CODES, 1);
    cv_token_bytes *tokens = NULL;
    char(*bytes)[4] = NULL;
    size_t n_tokens = 0, count = 0;
    corvid_status status = CORVID_OK;
    *file = NULL;
    *n = 0;
    if (!seen) return cv_fail(err, CORVID_E_MEMORY, "out of memory: the characters of a text");
    count = mark_characters(words, seen);
    if (count > CV_VOCABULARY_LARGEST - CV_VOCABULARY_SMALLEST) {
        status = cv_fail(err, CORVID_E_ARGUMENT,
                         "the text has %zu different characters of several bytes, expected at most "
                         "%zu; is it text? Make a vocabulary of a chosen size instead",
                         count, CV_VOCABULARY_LARGEST - CV_VOCABULARY_SMALLEST);
        goto done;
    }
    status = cv_alloc_or_fail(mem, count + 1, sizeof *tokens, "characters", (void **)&tokens, err);
    if (status != CORVID_OK) goto done;
    status = cv_alloc_or_fail(mem, count + 1, sizeof *bytes, "characters", (void **)&bytes, err);
    if (status != CORVID_OK) goto done;
    for (uint32_t c = 0x80; c < CODES; c++)
        if (seen[c]) {
            tokens[n_tokens].bytes = bytes[n_tokens];
            tokens[n_tokens].n = cv_codepoint_write(c, bytes[n_tokens]);
            n_tokens++;
        }
    status = cv_vocabulary_write(mem, tokens, n_tokens, file, n, err);
    if (size) *size = CV_VOCABULARY_SMALLEST + n_tokens;
done:
    cv_free(mem, seen);
    cv_free(mem, tokens);
    cv_free(mem, bytes);
    return status;
}
