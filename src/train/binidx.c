/* binidx.c - reads the official trainers' data sets of tokens; see binidx.h.
 *
 * The index is read in pieces, never as a whole, and what is read of it again is checked again: a
 * file may change after it was opened.  It writes no such files. */
#include "train/binidx.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"

static const char MAGIC[9] = { 'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0 };

/* Offsets in the index. */
enum { VERSION_AT = 9, TYPE_AT = 17, SEQUENCES_AT = 18, ENTRIES_AT = 26, LENGTHS_AT = 34 };

/* Entries of the index that are looked at together. */
#define PIECE ((size_t)512)

/* ---- paths ---------------------------------------------------------------------------------- */

bool cv_binidx_is_named(const char *path)
{
    const size_t n = strlen(path);
    return n > 4 && (strcmp(path + n - 4, ".bin") == 0 || strcmp(path + n - 4, ".idx") == 0);
}

corvid_status cv_binidx_find(const char *path, cv_binidx_paths *pair, corvid_error *err)
{
    const size_t n = strlen(path);
    if (!cv_binidx_is_named(path) || n >= CV_BINIDX_PATH)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%.512s: not the name of a data set of tokens, which ends in .bin or .idx",
                       path);
    snprintf(pair->index, sizeof pair->index, "%.*s.idx", (int)(n - 4), path);
    snprintf(pair->tokens, sizeof pair->tokens, "%.*s.bin", (int)(n - 4), path);
    const char *missing = access(pair->index, F_OK) != 0    ? pair->index
                          : access(pair->tokens, F_OK) != 0 ? pair->tokens
                                                            : NULL;
    if (!missing) return CORVID_OK;
    return cv_fail(err, CORVID_E_FILE,
                   "%.400s: is not there (%s), and a data set of tokens is a .bin and a .idx file "
                   "of one name; a text named .bin can be piped in and given as -",
                   missing, strerror(errno));
}

/* ---- opening -------------------------------------------------------------------------------- */

/* Bytes of a token; 0 for types that are no whole numbers. */
static size_t bytes_of_type(int type)
{
    static const unsigned char bytes[] = { 0, 1, 1, 2, 4, 8, 0, 0, 2 };
    return type >= 0 && type < (int)sizeof bytes ? bytes[type] : 0;
}

static uint64_t offsets_at(const cv_binidx *s)
{
    return LENGTHS_AT + 4 * s->n_sequences;
}

static uint64_t entries_at(const cv_binidx *s)
{
    return LENGTHS_AT + 12 * s->n_sequences;
}

/* The counts must fit the size of the index exactly. */
static corvid_status check_counts(cv_binidx *s, uint64_t entries, corvid_error *err)
{
    size_t sequences, documents, end;
    const bool fits = s->n_sequences <= SIZE_MAX && entries <= SIZE_MAX && entries > 0 &&
                      cv_mul_size((size_t)s->n_sequences, 12, &sequences) &&
                      cv_mul_size((size_t)entries, 8, &documents) &&
                      cv_add_size(sequences, documents, &end) && cv_add_size(end, LENGTHS_AT, &end);
    if (!fits || end != s->index.size)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: %llu bytes do not fit the %llu sequences and %llu index entries it "
                       "counts at offset %d; it is cut short or damaged, make it again",
                       s->index.path, (unsigned long long)s->index.size,
                       (unsigned long long)s->n_sequences, (unsigned long long)entries,
                       SEQUENCES_AT);
    s->n_documents = entries - 1;
    return CORVID_OK;
}

static corvid_status check_header(cv_binidx *s, corvid_error *err)
{
    unsigned char h[LENGTHS_AT] = { 0 };
    uint64_t version, entries;
    if (s->index.size >= sizeof MAGIC) CV_TRY(cv_input_read(&s->index, 0, h, sizeof MAGIC, err));
    if (s->index.size < sizeof MAGIC || memcmp(h, MAGIC, sizeof MAGIC) != 0)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: not the index of a data set of tokens (no MMIDIDX at offset 0)",
                       s->index.path);
    CV_TRY(cv_input_read(&s->index, 0, h, sizeof h, err));
    memcpy(&version, h + VERSION_AT, 8);
    memcpy(&s->n_sequences, h + SEQUENCES_AT, 8);
    memcpy(&entries, h + ENTRIES_AT, 8);
    s->type = h[TYPE_AT];
    s->token_bytes = bytes_of_type(s->type);
    if (version != 1)
        return cv_fail(err, CORVID_E_FORMAT, "%s: version %llu at offset %d, expected 1",
                       s->index.path, (unsigned long long)version, VERSION_AT);
    if (s->token_bytes == 0)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: tokens of type %d at offset %d, expected whole numbers: 8 (uint16), or "
                       "1 to 5",
                       s->index.path, s->type, TYPE_AT);
    return check_counts(s, entries, err);
}

/* One sequence behind the other, and no bytes before, between or behind them. */
static corvid_status check_sequences(cv_binidx *s, corvid_error *err)
{
    int32_t lengths[PIECE];
    int64_t offsets[PIECE];
    uint64_t end = 0; /* of what was looked at, in bytes */
    for (uint64_t i = 0; i < s->n_sequences; i += PIECE) {
        const size_t n = s->n_sequences - i < PIECE ? (size_t)(s->n_sequences - i) : PIECE;
        CV_TRY(cv_input_read(&s->index, LENGTHS_AT + 4 * i, lengths, 4 * n, err));
        CV_TRY(cv_input_read(&s->index, offsets_at(s) + 8 * i, offsets, 8 * n, err));
        for (size_t k = 0; k < n; k++) {
            if (lengths[k] < 0 || offsets[k] < 0 || (uint64_t)offsets[k] != end ||
                (s->tokens.size - end) / s->token_bytes < (uint64_t)lengths[k])
                return cv_fail(
                    err, CORVID_E_FORMAT,
                    "%s: sequence %llu has %d tokens from byte %lld on, expected byte %llu and no "
                    "more than the %llu bytes of %s; the files are damaged or no pair",
                    s->index.path, (unsigned long long)(i + k), lengths[k], (long long)offsets[k],
                    (unsigned long long)end, (unsigned long long)s->tokens.size, s->tokens.path);
            end += (uint64_t)lengths[k] * s->token_bytes;
        }
    }
    if (end != s->tokens.size)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: counts %llu bytes of tokens, but %s has %llu; the files are damaged or "
                       "no pair",
                       s->index.path, (unsigned long long)end, s->tokens.path,
                       (unsigned long long)s->tokens.size);
    s->n_tokens = end / s->token_bytes;
    return CORVID_OK;
}

/* Never falling, from the first sequence to behind the last. */
static corvid_status check_documents(const cv_binidx *s, corvid_error *err)
{
    uint64_t entries[PIECE], before = 0;
    const uint64_t count = s->n_documents + 1;
    for (uint64_t i = 0; i < count; i += PIECE) {
        const size_t n = count - i < PIECE ? (size_t)(count - i) : PIECE;
        CV_TRY(cv_input_read(&s->index, entries_at(s) + 8 * i, entries, 8 * n, err));
        for (size_t k = 0; k < n; k++) {
            const bool first = i + k == 0, last = i + k == s->n_documents;
            if (entries[k] < before || entries[k] > s->n_sequences || (first && entries[k] != 0) ||
                (last && entries[k] != s->n_sequences))
                return cv_fail(err, CORVID_E_FORMAT,
                               "%s: document %llu begins at sequence %llu (offset %llu), expected "
                               "0 first, then %llu to %llu; the index is damaged, make it again",
                               s->index.path, (unsigned long long)(i + k),
                               (unsigned long long)entries[k],
                               (unsigned long long)(entries_at(s) + 8 * (i + k)),
                               (unsigned long long)before, (unsigned long long)s->n_sequences);
            before = entries[k];
        }
    }
    return CORVID_OK;
}

/* Both inputs are open. */
static corvid_status check(cv_binidx *s, corvid_error *err)
{
    corvid_status status = check_header(s, err);
    if (status == CORVID_OK) status = check_sequences(s, err);
    if (status == CORVID_OK) status = check_documents(s, err);
    if (status != CORVID_OK) cv_binidx_close(s);
    return status;
}

corvid_status cv_binidx_open(cv_binidx *set, const char *path, corvid_error *err)
{
    cv_binidx_paths pair;
    *set = (cv_binidx){ .index.fd = -1, .tokens.fd = -1 };
    CV_TRY(cv_binidx_find(path, &pair, err));
    CV_TRY(cv_input_open(&set->index, pair.index, err));
    const corvid_status status = cv_input_open(&set->tokens, pair.tokens, err);
    if (status == CORVID_OK) return check(set, err);
    cv_binidx_close(set);
    return status;
}

corvid_status cv_binidx_parse(cv_binidx *set, const void *index, size_t index_n, const void *tokens,
                              size_t tokens_n, const char *name, corvid_error *err)
{
    *set = (cv_binidx){ .n_tokens = 0 };
    cv_input_memory(&set->index, index, index_n, name);
    cv_input_memory(&set->tokens, tokens, tokens_n, name);
    return check(set, err);
}

void cv_binidx_close(cv_binidx *set)
{
    cv_input_close(&set->index);
    cv_input_close(&set->tokens);
    set->n_documents = set->n_sequences = set->n_tokens = 0;
}

/* ---- reading -------------------------------------------------------------------------------- */

/* The first token of a sequence, or behind the last one. */
static corvid_status sequence_begin(const cv_binidx *s, uint64_t number, uint64_t *token,
                                    corvid_error *err)
{
    uint64_t offset;
    *token = s->n_tokens;
    if (number >= s->n_sequences) return CORVID_OK;
    CV_TRY(cv_input_read(&s->index, offsets_at(s) + 8 * number, &offset, 8, err));
    *token = offset / s->token_bytes;
    return CORVID_OK;
}

corvid_status cv_binidx_document(const cv_binidx *set, uint64_t number, uint64_t *from, uint64_t *n,
                                 corvid_error *err)
{
    uint64_t sequences[2], end = 0;
    *from = *n = 0;
    if (number >= set->n_documents)
        return cv_fail(err, CORVID_E_ARGUMENT, "%s: document %llu of %llu", set->index.path,
                       (unsigned long long)number, (unsigned long long)set->n_documents);
    CV_TRY(cv_input_read(&set->index, entries_at(set) + 8 * number, sequences, 16, err));
    CV_TRY(sequence_begin(set, sequences[0], from, err));
    CV_TRY(sequence_begin(set, sequences[1], &end, err));
    if (*from > end || end > set->n_tokens)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: document %llu is no longer where it was; the file was changed while it "
                       "was read, start again",
                       set->index.path, (unsigned long long)number);
    *n = end - *from;
    return CORVID_OK;
}

static int64_t value_at(const unsigned char *at, int type)
{
    enum { UINT8 = 1, INT8 = 2, INT16 = 3, INT32 = 4, INT64 = 5 };
    int64_t wide;
    int32_t middle;
    int16_t narrow;
    uint16_t plain;
    switch (type) {
    case UINT8: return at[0];
    case INT8: return (int8_t)at[0];
    case INT16: memcpy(&narrow, at, sizeof narrow); return narrow;
    case INT32: memcpy(&middle, at, sizeof middle); return middle;
    case INT64: memcpy(&wide, at, sizeof wide); return wide;
    default: memcpy(&plain, at, sizeof plain); return plain;
    }
}

corvid_status cv_binidx_read(const cv_binidx *set, uint64_t from, size_t n,
                             uint64_t vocabulary_size, int32_t *ids, corvid_error *err)
{
    unsigned char packed[8 * PIECE];
    const size_t w = set->token_bytes;
    if (!cv_range_within(from, n, set->n_tokens))
        return cv_fail(err, CORVID_E_ARGUMENT, "%s: %zu tokens from %llu on, it has %llu",
                       set->tokens.path, n, (unsigned long long)from,
                       (unsigned long long)set->n_tokens);
    for (size_t done = 0; done < n;) {
        const size_t part = n - done < PIECE ? n - done : PIECE;
        CV_TRY(cv_input_read(&set->tokens, (from + done) * w, packed, part * w, err));
        for (size_t i = 0; i < part; i++) {
            const int64_t id = value_at(packed + i * w, set->type);
            if (id < 0 || id > INT32_MAX || (uint64_t)id >= vocabulary_size)
                return cv_fail(err, CORVID_E_MISMATCH,
                               "%s: token %llu (offset %llu) has the id %lld, expected less than "
                               "%llu; give the vocabulary it was made with",
                               set->tokens.path, (unsigned long long)(from + done + i),
                               (unsigned long long)((from + done + i) * w), (long long)id,
                               (unsigned long long)vocabulary_size);
            ids[done + i] = (int32_t)id;
        }
        done += part;
    }
    return CORVID_OK;
}
