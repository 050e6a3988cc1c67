/* kinds.h - what the three kinds of tokenizer are made of; private to this folder. */
#ifndef CV_KINDS_H
#define CV_KINDS_H

#include "text/pieces.h"
#include "text/tokenizer.h"
#include "text/trie.h"

/* The World vocabulary: greedy longest match.  [tok.world] */
typedef struct cv_world {
    cv_trie trie;
} cv_world;

typedef struct cv_merge {
    int32_t left, right, result;
} cv_merge;

/* Byte-pair encoding after GPT-2's pre-tokenizer.  [tok.bpe] */
typedef struct cv_bpe {
    cv_trie tokens;       /* the vocabulary by bytes */
    cv_trie raw_added;    /* added tokens found in the text as it came */
    cv_trie normal_added; /* added tokens found after normalisation */
    unsigned char *whole; /* [ids] 1 where merging a token's bytes ends in the token itself */
    int32_t byte_id[256]; /* token of a single byte, or -1 */
    size_t n_merges;
    cv_merge *merges; /* [n_merges] by rank */
    uint32_t *first;  /* [ids + 1] where the merges of a left id begin in right and rank */
    int32_t *right;   /* [n_merges] right ids, increasing under each left id */
    uint32_t *rank;   /* [n_merges] */
    bool nfc;
} cv_bpe;

struct cv_tokenizer {
    cv_tokenizer_kind kind;
    cv_arena arena; /* everything below lies here */
    cv_pieces pieces;
    union {
        cv_world world;
        cv_bpe bpe;
    } as;
};

/* Fill the pieces and the kind's own part of a tokenizer whose arena is open. */
corvid_status cv_bytes_fill(cv_tokenizer *tok, corvid_error *err);
corvid_status cv_world_fill(cv_tokenizer *tok, const char *text, size_t n, const char *name,
                            corvid_error *err);
corvid_status cv_world_fill_pieces(cv_tokenizer *tok, const char *const *bytes,
                                   const size_t *lengths, size_t n, corvid_error *err);
corvid_status cv_bpe_fill(cv_tokenizer *tok, const char *json, size_t n, const char *name,
                          corvid_error *err);

/* Append the ids of a text. */
corvid_status cv_world_encode(const cv_world *world, const char *text, size_t n, cv_ids *ids,
                              corvid_error *err);
corvid_status cv_bpe_encode(const cv_tokenizer *tok, const char *text, size_t n, cv_ids *ids,
                            corvid_error *err);

/* Merges alone: sorts bpe->merges into first, right, rank, and fills whole. */
corvid_status cv_bpe_index(cv_tokenizer *tok, corvid_error *err);

#endif
