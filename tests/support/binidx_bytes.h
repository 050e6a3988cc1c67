/* binidx_bytes.h - writes data sets of tokens (NAME.bin and NAME.idx) for tests, in memory. */
#ifndef TEST_BINIDX_BYTES_H
#define TEST_BINIDX_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct set_bytes {
    unsigned char *index, *tokens;
    size_t index_n, tokens_n;
} set_bytes;

enum { SET_UINT8 = 1, SET_INT8, SET_INT16, SET_INT32, SET_INT64, SET_UINT16 = 8 };

static inline size_t set_token_bytes(int type)
{
    static const size_t bytes[] = { 0, 1, 1, 2, 4, 8, 0, 0, 2 };
    return bytes[type];
}

/* Sequences of these lengths, of the tokens one behind the other; document d begins at sequence
 * first[d].  Free both parts. */
static inline set_bytes set_make(int type, const int64_t *tokens, const int32_t *lengths,
                                 size_t n_sequences, const int64_t *first, size_t n_documents)
{
    const size_t w = set_token_bytes(type);
    const uint64_t version = 1, counts[2] = { n_sequences, n_documents + 1 };
    const int64_t end = (int64_t)n_sequences;
    size_t n = 0;
    for (size_t i = 0; i < n_sequences; i++)
        n += (size_t)lengths[i];
    set_bytes s = { .index_n = 34 + 12 * n_sequences + 8 * (n_documents + 1), .tokens_n = n * w };
    s.index = calloc(s.index_n, 1);
    s.tokens = calloc(s.tokens_n + 1, 1);
    if (!s.index || !s.tokens) abort();
    memcpy(s.index, "MMIDIDX\0\0", 9);
    memcpy(s.index + 9, &version, 8);
    s.index[17] = (unsigned char)type;
    memcpy(s.index + 18, counts, 16);
    unsigned char *offsets = s.index + 34 + 4 * n_sequences, *at = offsets + 8 * n_sequences;
    int64_t offset = 0;
    for (size_t i = 0; i < n_sequences; i++) {
        memcpy(s.index + 34 + 4 * i, &lengths[i], 4);
        memcpy(offsets + 8 * i, &offset, 8);
        offset += lengths[i] * (int64_t)w;
    }
    if (n_documents > 0) memcpy(at, first, 8 * n_documents);
    memcpy(at + 8 * n_documents, &end, 8);
    for (size_t i = 0; i < n; i++) /* little-endian: the low bytes are the narrower number */
        memcpy(s.tokens + i * w, &tokens[i], w);
    return s;
}

static inline void set_free(set_bytes *s)
{
    free(s->index);
    free(s->tokens);
}

#endif
