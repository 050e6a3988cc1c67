/* world.c - the World vocabulary: its file, and greedy longest match.  [tok.world]
 *
 * A line of the file is  ID SPACE LITERAL SPACE LENGTH  with a Python string or bytes literal, which
 * may hold spaces itself.  Ids increase; gaps and missing single bytes are allowed, so that small
 * vocabularies of the same form work.  Id 0 has no text and is never found in one. */
#include <string.h>

#include "text/codepoint.h"
#include "text/kinds.h"

typedef struct entry {
    int32_t id;
    uint32_t start; /* of its bytes */
    uint32_t line;
} entry;

typedef struct parser {
    const char *name;
    const char *text, *end; /* the file */
    const char *line;       /* where the current line begins */
    const char *line_end;   /* without CR and LF */
    uint32_t line_number;   /* from 1 */
    char *bytes;            /* decoded so far, never more than read */
    size_t n_bytes;
    entry *entries;
    size_t n_entries;
    corvid_error *err;
} parser;

/* ---- messages ------------------------------------------------------------------------------- */

/* Column `at` of the current line is not what it should be. */
static corvid_status wrong(parser *p, const char *at, const char *expected)
{
    const unsigned line = p->line_number, column = (unsigned)(at - p->line) + 1;
    if (at >= p->line_end)
        return cv_fail(p->err, CORVID_E_FORMAT,
                       "%.512s: line %u, column %u: the line ends here, expected %s", p->name, line,
                       column, expected);
    const unsigned char found = (unsigned char)*at;
    if (found > 0x20 && found < 0x7F)
        return cv_fail(p->err, CORVID_E_FORMAT,
                       "%.512s: line %u, column %u: found '%c', expected %s", p->name, line, column,
                       found, expected);
    return cv_fail(p->err, CORVID_E_FORMAT,
                   "%.512s: line %u, column %u: found byte 0x%02X, expected %s", p->name, line,
                   column, found, expected);
}

/* ---- numbers -------------------------------------------------------------------------------- */

/* Decimal digits from *at on; a number too large for anything here comes out as another such. */
static corvid_status read_number(parser *p, const char **at, const char *end, const char *expected,
                                 size_t *out)
{
    size_t value = 0;
    const char *c = *at;
    if (c == end || *c < '0' || *c > '9') return wrong(p, c, expected);
    for (; c < end && *c >= '0' && *c <= '9'; c++)
        if (value <= CV_VOCABULARY_BYTES) value = value * 10 + (size_t)(*c - '0');
    *at = c;
    *out = value;
    return CORVID_OK;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static corvid_status read_hex(parser *p, const char **at, const char *end, size_t digits,
                              uint32_t *out)
{
    uint32_t value = 0;
    for (size_t i = 0; i < digits; i++) {
        const int digit = *at < end ? hex_digit(**at) : -1;
        if (digit < 0)
            return wrong(p, *at,
                         digits == 2 ? "two hexadecimal digits after \\x"
                                     : "four hexadecimal digits after \\u");
        value = value << 4 | (uint32_t)digit;
        (*at)++;
    }
    *out = value;
    return CORVID_OK;
}

/* ---- literals ------------------------------------------------------------------------------- */

static void put_byte(parser *p, uint32_t byte)
{
    p->bytes[p->n_bytes++] = (char)byte;
}

static void put_codepoint(parser *p, uint32_t c)
{
    p->n_bytes += cv_codepoint_write(c, p->bytes + p->n_bytes);
}

/* *at is behind a backslash.  In a str literal \xNN is a code point, in a bytes literal a byte. */
static corvid_status read_escape(parser *p, const char **at, const char *end, bool is_bytes)
{
    static const char from[] = "tnr\\'\"", to[] = "\t\n\r\\'\"";
    const char *start = *at;
    uint32_t value = 0;
    if (start == end)
        return wrong(p, start, "an escape: \\t \\n \\r \\\\ \\' \\\" \\xNN or \\uNNNN");
    const char *simple = *start != '\0' ? strchr(from, *start) : NULL;
    (*at)++;
    if (simple) {
        put_byte(p, (unsigned char)to[simple - from]);
        return CORVID_OK;
    }
    if (*start == 'x') {
        CV_TRY(read_hex(p, at, end, 2, &value));
        if (is_bytes)
            put_byte(p, value);
        else
            put_codepoint(p, value);
        return CORVID_OK;
    }
    if (*start == 'u' && !is_bytes) {
        CV_TRY(read_hex(p, at, end, 4, &value));
        if (value >= 0xD800 && value <= 0xDFFF)
            return wrong(p, start, "a character, not half of a surrogate pair");
        put_codepoint(p, value);
        return CORVID_OK;
    }
    return wrong(p, start,
                 is_bytes ? "an escape of a bytes literal: \\t \\n \\r \\\\ \\' \\\" or \\xNN"
                          : "an escape: \\t \\n \\r \\\\ \\' \\\" \\xNN or \\uNNNN");
}

static corvid_status read_plain(parser *p, const char **at, const char *end, bool is_bytes)
{
    uint32_t c;
    const size_t length = cv_codepoint_read(*at, (size_t)(end - *at), &c);
    if (length == 0) return wrong(p, *at, "UTF-8");
    if (is_bytes && (c < 0x20 || c > 0x7E))
        return wrong(p, *at, "printable ASCII or an escape in a bytes literal");
    if (c < 0x20) return wrong(p, *at, "an escape such as \\x0b for a control character");
    put_codepoint(p, c);
    *at += length;
    return CORVID_OK;
}

/* The literal that fills [at, end), quotes included. */
static corvid_status read_literal(parser *p, const char *at, const char *end)
{
    const bool is_bytes = at < end && *at == 'b';
    if (is_bytes) at++;
    if (at == end || (*at != '\'' && *at != '"'))
        return wrong(p, at, "a quoted literal ('...', \"...\" or b'...')");
    const char quote = *at++;
    while (at < end && *at != quote) {
        if (*at == '\\') {
            at++;
            CV_TRY(read_escape(p, &at, end, is_bytes));
        } else {
            CV_TRY(read_plain(p, &at, end, is_bytes));
        }
    }
    if (at == end) return wrong(p, at, "the literal's closing quote");
    if (at + 1 != end) return wrong(p, at + 1, "a space and the length after the closing quote");
    return CORVID_OK;
}

/* ---- lines ---------------------------------------------------------------------------------- */

static corvid_status check_id(parser *p, size_t id)
{
    if (id == 0) return wrong(p, p->line, "an id from 1 on (0 is the end of a text)");
    if (id >= CV_TOKEN_IDS)
        return cv_fail(p->err, CORVID_E_FORMAT,
                       "%.512s: line %u, column 1: the id is too large, expected less than %zu",
                       p->name, p->line_number, CV_TOKEN_IDS);
    if (p->n_entries > 0 && (size_t)p->entries[p->n_entries - 1].id >= id)
        return cv_fail(p->err, CORVID_E_FORMAT,
                       "%.512s: line %u, column 1: id %zu after id %d, expected increasing ids",
                       p->name, p->line_number, id, (int)p->entries[p->n_entries - 1].id);
    return CORVID_OK;
}

static corvid_status check_token(parser *p, const char *at, size_t length, size_t promised)
{
    const unsigned column = (unsigned)(at - p->line) + 1;
    if (length != promised)
        return cv_fail(p->err, CORVID_E_FORMAT,
                       "%.512s: line %u, column %u: the literal has %zu bytes, expected the length "
                       "that the line states; is the file damaged?",
                       p->name, p->line_number, column, length);
    if (length == 0) return wrong(p, at, "a token of at least one byte");
    if (length > CV_TOKEN_BYTES)
        return cv_fail(p->err, CORVID_E_FORMAT,
                       "%.512s: line %u: the token has %zu bytes, expected at most %zu", p->name,
                       p->line_number, length, CV_TOKEN_BYTES);
    return CORVID_OK;
}

static corvid_status read_line(parser *p)
{
    const char *at = p->line, *last = p->line_end;
    size_t id, promised;
    CV_TRY(read_number(p, &at, p->line_end, "a token id in decimal digits", &id));
    CV_TRY(check_id(p, id));
    if (at == p->line_end || *at != ' ') return wrong(p, at, "a space after the id");
    at++;
    while (last > at && last[-1] != ' ')
        last--;
    if (last == at) return wrong(p, p->line_end, "a literal, a space and the length in bytes");
    const char *length_at = last;
    CV_TRY(read_number(p, &last, p->line_end, "the token's length in decimal digits", &promised));
    if (last != p->line_end) return wrong(p, last, "the end of the line after the length");

    const size_t start = p->n_bytes;
    CV_TRY(read_literal(p, at, length_at - 1));
    CV_TRY(check_token(p, length_at, p->n_bytes - start, promised));
    p->entries[p->n_entries++] =
        (entry){ .id = (int32_t)id, .start = (uint32_t)start, .line = p->line_number };
    return CORVID_OK;
}

static corvid_status read_lines(parser *p)
{
    const char *next = p->text;
    while (next < p->end) {
        const char *newline = memchr(next, '\n', (size_t)(p->end - next));
        p->line = next;
        p->line_end = newline ? newline : p->end;
        p->line_number++;
        next = newline ? newline + 1 : p->end;
        if (p->line_end > p->line && p->line_end[-1] == '\r') p->line_end--;
        CV_TRY(read_line(p));
    }
    if (p->n_entries > 0) return CORVID_OK;
    return cv_fail(p->err, CORVID_E_FORMAT,
                   "%.512s: line 1: the file is empty, expected lines of a token id, a literal and "
                   "a length",
                   p->name);
}

/* At least as many as there can be tokens: ids increase and are bounded. */
static size_t count_lines(const char *text, size_t n)
{
    size_t lines = 1;
    const char *end = text + n;
    for (const char *c = text; c < end && lines < CV_TOKEN_IDS; lines++) {
        c = memchr(c, '\n', (size_t)(end - c));
        if (!c) break;
        c++;
    }
    return lines;
}

/* ---- the tokenizer -------------------------------------------------------------------------- */

/* Moves the entries into the tokenizer's pieces; ids that no line has become empty. */
static corvid_status lay_out(cv_tokenizer *tok, const parser *p)
{
    cv_pieces *pieces = &tok->pieces;
    const size_t size = (size_t)p->entries[p->n_entries - 1].id + 1;
    const char *what = "a vocabulary";
    CV_TRY(cv_arena_need(&tok->arena, p->n_bytes, 1, what, (void **)&pieces->bytes, p->err));
    CV_TRY(cv_arena_need(&tok->arena, size + 1, sizeof *pieces->start, what,
                         (void **)&pieces->start, p->err));
    memcpy(pieces->bytes, p->bytes, p->n_bytes);
    size_t id = 0;
    for (size_t i = 0; i < p->n_entries; i++)
        while (id <= (size_t)p->entries[i].id)
            pieces->start[id++] = p->entries[i].start;
    pieces->start[size] = (uint32_t)p->n_bytes;
    pieces->n = size;
    return CORVID_OK;
}

static corvid_status build_trie(cv_tokenizer *tok, int32_t *twin, corvid_error *err)
{
    const cv_pieces *pieces = &tok->pieces;
    int32_t *ids = NULL;
    size_t n = 0, length;
    CV_TRY(cv_alloc_or_fail(tok->arena.mem, pieces->n, sizeof *ids, "a vocabulary's ids",
                            (void **)&ids, err));
    for (size_t id = 0; id < pieces->n; id++) {
        cv_piece(pieces, (int32_t)id, &length);
        if (length > 0) ids[n++] = (int32_t)id;
    }
    const corvid_status status =
        cv_trie_build(&tok->as.world.trie, &tok->arena, pieces, ids, n, twin, err);
    cv_free(tok->arena.mem, ids);
    return status;
}

static uint32_t line_of(const parser *p, int32_t id)
{
    for (size_t i = 0; i < p->n_entries; i++)
        if (p->entries[i].id == id) return p->entries[i].line;
    return 0;
}

static corvid_status fail_for_twins(const cv_tokenizer *tok, const parser *p, int32_t twin)
{
    size_t length;
    const char *bytes = cv_piece(&tok->pieces, twin, &length);
    const int32_t other = cv_trie_find(&tok->as.world.trie, bytes, length);
    return cv_fail(p->err, CORVID_E_FORMAT,
                   "%.512s: line %u: token %d has the same bytes as token %d on line %u, expected "
                   "different ones",
                   p->name, line_of(p, twin), (int)twin, (int)other, line_of(p, other));
}

corvid_status cv_world_fill(cv_tokenizer *tok, const char *text, size_t n, const char *name,
                            corvid_error *err)
{
    const corvid_allocator *mem = tok->arena.mem;
    const char *what = "a vocabulary file";
    parser p = { .name = name, .text = text, .end = text + n, .err = err };
    int32_t twin = -1;
    corvid_status status = cv_alloc_or_fail(mem, n + 1, 1, what, (void **)&p.bytes, err);
    if (status != CORVID_OK) goto done;
    status = cv_alloc_or_fail(mem, count_lines(text, n), sizeof *p.entries, what,
                              (void **)&p.entries, err);
    if (status == CORVID_OK) status = read_lines(&p);
    if (status == CORVID_OK) status = lay_out(tok, &p);
    if (status == CORVID_OK) status = build_trie(tok, &twin, err);
    if (status == CORVID_OK && twin >= 0) status = fail_for_twins(tok, &p, twin);
done:
    cv_free(mem, p.bytes);
    cv_free(mem, p.entries);
    return status;
}

/* The sum of the lengths, or a failure that names the token that is too long. */
static corvid_status total_length(const size_t *lengths, size_t n, size_t *out, corvid_error *err)
{
    size_t total = 0;
    if (n > CV_TOKEN_IDS)
        return cv_fail(err, CORVID_E_FORMAT, "the vocabulary has %zu tokens, expected at most %zu",
                       n, CV_TOKEN_IDS);
    for (size_t i = 0; i < n; i++) {
        if (lengths[i] > CV_TOKEN_BYTES)
            return cv_fail(err, CORVID_E_FORMAT, "token %zu has %zu bytes, expected at most %zu", i,
                           lengths[i], CV_TOKEN_BYTES);
        total += lengths[i];
    }
    if (total == 0 || total > CV_VOCABULARY_BYTES)
        return cv_fail(err, CORVID_E_FORMAT,
                       "the vocabulary's %zu tokens have %zu bytes together, expected 1 to %zu", n,
                       total, CV_VOCABULARY_BYTES);
    *out = total;
    return CORVID_OK;
}

/* Of equal pieces the smallest id is found in texts; the others still decode. */
corvid_status cv_world_fill_pieces(cv_tokenizer *tok, const char *const *bytes,
                                   const size_t *lengths, size_t n, corvid_error *err)
{
    cv_pieces *pieces = &tok->pieces;
    const char *what = "a vocabulary";
    size_t total = 0, at = 0;
    CV_TRY(total_length(lengths, n, &total, err));
    CV_TRY(cv_arena_need(&tok->arena, total, 1, what, (void **)&pieces->bytes, err));
    CV_TRY(cv_arena_need(&tok->arena, n + 1, sizeof *pieces->start, what, (void **)&pieces->start,
                         err));
    for (size_t i = 0; i < n; i++) {
        pieces->start[i] = (uint32_t)at;
        if (lengths[i] > 0) memcpy(pieces->bytes + at, bytes[i], lengths[i]);
        at += lengths[i];
    }
    pieces->start[n] = (uint32_t)at;
    pieces->n = n;
    return build_trie(tok, NULL, err);
}

corvid_status cv_world_encode(const cv_world *world, const char *text, size_t n, cv_ids *ids,
                              corvid_error *err)
{
    for (size_t i = 0; i < n;) {
        int32_t id;
        const size_t length = cv_trie_longest(&world->trie, text + i, n - i, &id);
        if (length == 0)
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "byte 0x%02X at offset %zu of the text has no token in this vocabulary",
                           (unsigned char)text[i], i);
        CV_TRY(cv_ids_push(ids, id, err));
        i += length;
    }
    return CORVID_OK;
}
