/* words.c - the pre-tokenizer of GPT-2 and GPT-NeoX: cuts a text where no merge may cross.
 *
 * The pattern, alternatives in order [tok.bpe]:
 *   's|'t|'re|'ve|'m|'ll|'d   a contraction's ending
 *    ?\p{L}+                  letters, with the space before them
 *    ?\p{N}+                  digits and other numbers, likewise
 *    ?[^\s\p{L}\p{N}]+        anything else that is not white, likewise
 *   \s+(?!\S)                 white space up to the last one before a word
 *   \s+                       white space
 * It covers every text, so the words of a text, put together, are the text. */
#include "text/words.h"

#include <utf8proc.h>

#include "text/codepoint.h"

typedef enum char_class { OTHER, LETTER, NUMBER, WHITE } char_class;

/* Unicode's White_Space property, which no general category equals. */
static bool is_white(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static char_class class_of_ascii(unsigned char c)
{
    if ((unsigned char)((c | 0x20) - 'a') < 26) return LETTER;
    if ((unsigned char)(c - '0') < 10) return NUMBER;
    return is_white(c) ? WHITE : OTHER;
}

static char_class class_of(uint32_t c)
{
    if (c >= 0x4E00 && c <= 0x9FFF) return LETTER;
    if (is_white(c)) return WHITE;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return NUMBER;
    default: return OTHER;
    }
}

/* The class of the character at the start of n > 0 bytes, and its length. */
static char_class next_class(const char *text, size_t n, size_t *length)
{
    const unsigned char lead = (unsigned char)text[0];
    if (lead < 0x80) {
        *length = 1;
        return class_of_ascii(lead);
    }
    uint32_t c;
    *length = cv_codepoint_read(text, n, &c);
    if (*length > 0) return class_of(c);
    *length = 1; /* not UTF-8: the caller broke its word; stay within the text */
    return OTHER;
}

/* How many bytes from `from` on are of one class; *last is where its last character begins. */
static size_t run_end(const char *text, size_t n, size_t from, char_class wanted, size_t *last)
{
    size_t i = from, length;
    *last = from;
    while (i < n && next_class(text + i, n - i, &length) == wanted) {
        *last = i;
        i += length;
    }
    return i;
}

static size_t contraction(const char *text, size_t n)
{
    if (n < 2 || text[0] != '\'') return 0;
    switch (text[1]) {
    case 's':
    case 't':
    case 'm':
    case 'd': return 2;
    case 'r':
    case 'v': return n > 2 && text[2] == 'e' ? 3 : 0;
    case 'l': return n > 2 && text[2] == 'l' ? 3 : 0;
    default: return 0;
    }
}

size_t cv_word_length(const char *text, size_t n)
{
    size_t length = contraction(text, n), last;
    if (length > 0) return length;

    const size_t space = text[0] == ' ' && n > 1;
    const char_class first = next_class(text + space, n - space, &length);
    if (first != WHITE) return run_end(text, n, space, first, &last);

    const size_t end = run_end(text, n, 0, WHITE, &last);
    return end == n || last == 0 ? end : last;
}
