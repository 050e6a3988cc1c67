/* normal.c - normalisation form C through utf8proc, only where a text needs it.
 *
 * Most of a text is characters that begin anew: they are starters, and nothing composes them with
 * what is before them.  Stretches of those are copied; only what holds another character goes
 * through decomposition and composition.  The canonical order is made here, by a counting sort:
 * utf8proc's own takes a time quadratic in the length of a run of marks. */
#include "text/words.h"

#include <string.h>
#include <utf8proc.h>

#include "base/checked.h"
#include "text/codepoint.h"

/* Characters in form C already that never join what is before them.  Not all of them: those of
 * the scripts most texts are in.  tests/unit/test_bpe.c compares each with the Unicode data. */
static bool begins_anew(uint32_t c)
{
    if (c < 0x300) return true;
    if (c >= 0x4E00 && c <= 0x9FFF) return true; /* Chinese characters */
    if (c >= 0xAC00 && c <= 0xD7A3) return true; /* Korean syllables */
    if (c >= 0x3041 && c <= 0x3096) return true; /* Hiragana */
    if (c >= 0x30A1 && c <= 0x30FA) return true; /* Katakana */
    if (c >= 0x0400 && c <= 0x0482) return true; /* Cyrillic */
    if (c >= 0x0391 && c <= 0x03CE) return true; /* Greek */
    if (c >= 0x2010 && c <= 0x2027) return true; /* dashes and quotes */
    if (c >= 0x3001 && c <= 0x3020) return true; /* Chinese punctuation */
    return c >= 0xFF01 && c <= 0xFF5E;           /* full-width forms */
}

typedef struct growing {
    const corvid_allocator *mem;
    char *bytes;
    size_t n, capacity;
} growing;

static corvid_status append(growing *text, const char *bytes, size_t n, corvid_error *err)
{
    if (n == 0) return CORVID_OK;
    if (text->capacity - text->n < n) {
        char *more = NULL;
        size_t wanted;
        if (!cv_add_size(text->n, n, &wanted) || !cv_add_size(wanted, wanted / 2, &wanted))
            return cv_fail(err, CORVID_E_MEMORY, "the text is too long to normalise");
        CV_TRY(cv_alloc_or_fail(text->mem, wanted, 1, "a normalised text", (void **)&more, err));
        if (text->n > 0) memcpy(more, text->bytes, text->n);
        cv_free(text->mem, text->bytes);
        text->bytes = more;
        text->capacity = wanted;
    }
    memcpy(text->bytes + text->n, bytes, n);
    text->n += n;
    return CORVID_OK;
}

static unsigned combining_class(utf8proc_int32_t c)
{
    return (unsigned)utf8proc_get_property(c)->combining_class;
}

/* Puts n marks in the order of their combining classes, equal ones as they were. */
static void order_marks(utf8proc_int32_t *mark, size_t n, utf8proc_int32_t *spare)
{
    size_t end[257] = { 0 };
    bool ordered = true;
    for (size_t i = 1; i < n; i++)
        if (combining_class(mark[i - 1]) > combining_class(mark[i])) ordered = false;
    if (ordered) return;
    for (size_t i = 0; i < n; i++)
        end[(combining_class(mark[i]) & 0xFFu) + 1]++;
    for (size_t c = 0; c < 256; c++)
        end[c + 1] += end[c];
    for (size_t i = 0; i < n; i++)
        spare[end[combining_class(mark[i]) & 0xFFu]++] = mark[i];
    memcpy(mark, spare, n * sizeof *mark);
}

static void order_all(utf8proc_int32_t *c, size_t n, utf8proc_int32_t *spare)
{
    for (size_t i = 0; i < n;) {
        size_t j = i;
        while (j < n && combining_class(c[j]) != 0)
            j++;
        if (j > i + 1) order_marks(c + i, j - i, spare);
        i = j == i ? i + 1 : j;
    }
}

/* The canonical decomposition of n bytes; returns how many code points, or -1. */
static utf8proc_ssize_t decompose(const char *text, size_t n, utf8proc_int32_t *out, size_t room)
{
    size_t written = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        int boundary = UTF8PROC_BOUNDCLASS_START;
        const size_t length = cv_codepoint_read(text + i, n - i, &c);
        if (length == 0) return -1;
        const utf8proc_ssize_t added = utf8proc_decompose_char(
            (utf8proc_int32_t)c, out + written, (utf8proc_ssize_t)(room - written),
            UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &boundary);
        if (added < 0 || (size_t)added > room - written) return -1;
        written += (size_t)added;
        i += length;
    }
    return (utf8proc_ssize_t)written;
}

static corvid_status append_codepoints(growing *out, const utf8proc_int32_t *c, size_t n,
                                       corvid_error *err)
{
    for (size_t i = 0; i < n; i++) {
        char bytes[4];
        CV_TRY(append(out, bytes, cv_codepoint_write((uint32_t)c[i], bytes), err));
    }
    return CORVID_OK;
}

/* A stretch from one boundary to the next.  Four code points are the most that one character
 * decomposes into canonically; every character is two bytes or longer where it decomposes. */
static corvid_status append_normalised(growing *out, const char *text, size_t n, corvid_error *err)
{
    utf8proc_int32_t few[256], *c = few, *owned = NULL;
    size_t room = sizeof few / sizeof few[0] / 2;
    if (n > room / 4) {
        if (!cv_mul_size(n, 4, &room))
            return cv_fail(err, CORVID_E_MEMORY, "the text is too long to normalise");
        CV_TRY(cv_alloc_or_fail(out->mem, room, 2 * sizeof *c, "a text's characters",
                                (void **)&owned, err));
        c = owned;
    }
    corvid_status status;
    utf8proc_ssize_t count = decompose(text, n, c, room);
    if (count >= 0) {
        order_all(c, (size_t)count, c + room);
        count = utf8proc_normalize_utf32(c, count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    }
    if (count < 0)
        status = cv_fail(err, CORVID_E_INTERNAL, "normalising a text of %zu bytes failed", n);
    else
        status = append_codepoints(out, c, (size_t)count, err);
    cv_free(out->mem, owned);
    return status;
}

/* Where the stretch of characters that begin anew ends, from `from` on.  *last is where its last
 * character begins: a mark may follow, so that one belongs to what must be normalised. */
static size_t calm_end(const char *text, size_t n, size_t from, size_t *last)
{
    size_t i = from;
    *last = from;
    while (i < n) {
        uint32_t c;
        const size_t length = cv_codepoint_read(text + i, n - i, &c);
        if (length == 0 || !begins_anew(c)) break;
        *last = i;
        i += length;
    }
    return i;
}

static size_t next_boundary(const char *text, size_t n, size_t from)
{
    size_t i = from;
    while (i < n) {
        uint32_t c;
        const size_t length = cv_codepoint_read(text + i, n - i, &c);
        if (length > 0 && begins_anew(c)) break;
        i += length > 0 ? length : 1;
    }
    return i;
}

corvid_status cv_nfc(const corvid_allocator *mem, const char *text, size_t n, const char **out,
                     size_t *out_n, char **owned, corvid_error *err)
{
    size_t last;
    *owned = NULL;
    *out = text;
    *out_n = n;
    if (calm_end(text, n, 0, &last) == n) return CORVID_OK;

    growing result = { .mem = mem };
    corvid_status status = CORVID_OK;
    for (size_t i = 0; i < n && status == CORVID_OK;) {
        const size_t calm = calm_end(text, n, i, &last);
        const size_t copied = calm == n ? n : last;
        status = append(&result, text + i, copied - i, err);
        if (status != CORVID_OK || calm == n) break;
        const size_t end = next_boundary(text, n, calm);
        status = append_normalised(&result, text + copied, end - copied, err);
        i = end;
    }
    if (status != CORVID_OK) {
        cv_free(mem, result.bytes);
        return status;
    }
    *owned = result.bytes;
    *out = result.bytes;
    *out_n = result.n;
    return CORVID_OK;
}
