/* vocabulary_words.c - cutting a text into words for a vocabulary, and counting them.
 *
 * The cuts lie where the kind of character changes, so that a token which is a part of a word is
 * rarely found across two of them by the longest match, which knows no words.  It does not decide
 * what becomes a token: vocabulary_trainer.c does. */
#include "text/vocabulary_words.h"

#include <string.h>
#include <xxhash.h>

#include "text/codepoint.h"

/* ---- kinds of characters -------------------------------------------------------------------- */

typedef enum kind { LETTER, IDEOGRAPH, MARK, DIGIT, SPACE, LINE_END, BLANK, LONE } kind;

static bool in(uint32_t c, uint32_t first, uint32_t last)
{
    return c >= first && c <= last;
}

static kind kind_of_ascii(uint32_t c)
{
    if (in(c | 0x20, 'a', 'z')) return LETTER;
    if (in(c, '0', '9')) return DIGIT;
    if (c == ' ') return SPACE;
    if (c == '\n' || c == '\r') return LINE_END;
    if (c == '\t') return BLANK;
    return c < 0x20 || c == 0x7F ? LONE : MARK;
}

/* Rough blocks of Unicode are enough: a wrong guess costs a little compression, nothing else. */
static kind kind_of(uint32_t c)
{
    if (c < 0x80) return kind_of_ascii(c);
    if (c < 0xA0) return LONE;
    if (c < 0xC0 || c == 0xD7 || c == 0xF7) return MARK;
    if (in(c, 0x2000, 0x2BFF) || in(c, 0x3000, 0x303F)) return MARK;
    if (in(c, 0xFF00, 0xFF0F) || in(c, 0xFF1A, 0xFF20) || in(c, 0xFE30, 0xFE4F)) return MARK;
    return c >= 0x2E80 ? IDEOGRAPH : LETTER;
}

typedef struct character {
    kind kind;
    uint32_t code;
    size_t length; /* in bytes; 0 behind the end */
} character;

static character look(const char *text, size_t n)
{
    character c = { .kind = LONE };
    if (n == 0) return c;
    c.length = cv_codepoint_read(text, n, &c.code);
    if (c.length > 0)
        c.kind = kind_of(c.code);
    else
        c.length = 1; /* a byte that is not UTF-8 */
    return c;
}

/* ---- words ---------------------------------------------------------------------------------- */

/* How far characters of one kind go from `at`, within the longest word. */
static size_t run_end(const char *text, size_t n, size_t at, kind of)
{
    if (n > CV_WORD_BYTES) n = CV_WORD_BYTES;
    for (;;) {
        const character c = look(text + at, n - at);
        if (c.length == 0 || c.kind != of) return at;
        at += c.length;
    }
}

static bool is_apostrophe(character c)
{
    return c.length > 0 && (c.code == '\'' || c.code == 0x2019);
}

/* Letters, with apostrophes between them: don't is one word. */
static size_t letters_end(const char *text, size_t n, size_t at)
{
    if (n > CV_WORD_BYTES) n = CV_WORD_BYTES;
    for (;;) {
        at = run_end(text, n, at, LETTER);
        const character c = look(text + at, n - at);
        if (!is_apostrophe(c)) return at;
        const size_t behind = at + c.length;
        const character next = look(text + behind, n - behind);
        if (next.length == 0 || next.kind != LETTER) return at;
        at = behind;
    }
}

/* What begins at `at`, where a leading space may already be in front of it. */
static size_t word_end(const char *text, size_t n, size_t at, character first)
{
    switch (first.kind) {
    case LETTER: return letters_end(text, n, at);
    case IDEOGRAPH: return run_end(text, n, at, IDEOGRAPH);
    case MARK: return run_end(text, n, run_end(text, n, at, MARK), LINE_END);
    case SPACE:
    case LINE_END:
    case BLANK: return run_end(text, n, at, first.kind);
    case DIGIT:
    case LONE: break;
    }
    return at + first.length;
}

size_t cv_vocabulary_word_length(const char *text, size_t n)
{
    const character first = look(text, n);
    if (first.kind == SPACE) {
        const character next = look(text + 1, n - 1);
        if (next.length > 0 && (next.kind == LETTER || next.kind == MARK))
            return word_end(text, n, 1, next);
    }
    return word_end(text, n, 0, first);
}

/* ---- counting ------------------------------------------------------------------------------- */

void cv_vocabulary_words_init(cv_vocabulary_words *w, const corvid_allocator *mem)
{
    *w = (cv_vocabulary_words){ .mem = mem };
}

void cv_vocabulary_words_free(cv_vocabulary_words *w)
{
    cv_free(w->mem, w->bytes);
    cv_free(w->mem, w->words);
    cv_free(w->mem, w->slots);
    cv_vocabulary_words_init(w, w->mem);
}

/* A larger copy of an array of which n objects are used. */
static corvid_status grow(const corvid_allocator *mem, void **array, size_t n, size_t size,
                          size_t *capacity, corvid_error *err)
{
    const size_t wider = *capacity > 0 ? 2 * *capacity : 4096;
    void *more = NULL;
    CV_TRY(cv_alloc_or_fail(mem, wider, size, "the words of a text", &more, err));
    if (n > 0) memcpy(more, *array, n * size);
    cv_free(mem, *array);
    *array = more;
    *capacity = wider;
    return CORVID_OK;
}

/* The slot of these bytes: that of the word, or the free one where it belongs. */
static uint32_t *slot_of(const cv_vocabulary_words *w, const char *bytes, size_t n)
{
    size_t at = (size_t)XXH3_64bits(bytes, n) & (w->n_slots - 1);
    for (;; at = (at + 1) & (w->n_slots - 1)) {
        if (w->slots[at] == 0) return &w->slots[at];
        const cv_counted_word *word = &w->words[w->slots[at] - 1];
        if (word->length == n && memcmp(w->bytes + word->start, bytes, n) == 0)
            return &w->slots[at];
    }
}

/* At least twice as many slots as words, so that a search is short. */
static corvid_status more_slots(cv_vocabulary_words *w, corvid_error *err)
{
    const size_t n = w->n_slots > 0 ? 2 * w->n_slots : 8192;
    uint32_t *slots = NULL;
    CV_TRY(cv_alloc_or_fail(w->mem, n, sizeof *slots, "the words of a text", (void **)&slots, err));
    memset(slots, 0, n * sizeof *slots);
    cv_free(w->mem, w->slots);
    w->slots = slots;
    w->n_slots = n;
    for (size_t i = 0; i < w->n; i++)
        *slot_of(w, w->bytes + w->words[i].start, w->words[i].length) = (uint32_t)(i + 1);
    return CORVID_OK;
}

static corvid_status new_word(cv_vocabulary_words *w, uint32_t *slot, const char *bytes, size_t n,
                              corvid_error *err)
{
    if (w->n_bytes > ((size_t)1 << 30) - CV_WORD_BYTES)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "the text has more than 1 GiB of different words; give a part of it");
    if (w->n == w->capacity)
        CV_TRY(grow(w->mem, (void **)&w->words, w->n, sizeof *w->words, &w->capacity, err));
    if (n > w->bytes_capacity - w->n_bytes)
        CV_TRY(grow(w->mem, (void **)&w->bytes, w->n_bytes, 1, &w->bytes_capacity, err));
    memcpy(w->bytes + w->n_bytes, bytes, n);
    w->words[w->n++] = (cv_counted_word){ .start = w->n_bytes, .length = n, .count = 1 };
    w->n_bytes += n;
    *slot = (uint32_t)w->n;
    return CORVID_OK;
}

corvid_status cv_vocabulary_words_add(cv_vocabulary_words *w, const char *text, size_t n,
                                      corvid_error *err)
{
    for (size_t at = 0; at < n;) {
        if (2 * (w->n + 1) > w->n_slots) CV_TRY(more_slots(w, err));
        const size_t length = cv_vocabulary_word_length(text + at, n - at);
        uint32_t *slot = slot_of(w, text + at, length);
        if (*slot > 0)
            w->words[*slot - 1].count++;
        else
            CV_TRY(new_word(w, slot, text + at, length, err));
        at += length;
    }
    w->text_bytes += n;
    return CORVID_OK;
}
