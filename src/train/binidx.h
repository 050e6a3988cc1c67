/* binidx.h - training data as the official trainers keep them: NAME.bin and NAME.idx.
 *
 * NAME.bin has the tokens back to back.  NAME.idx, little-endian: the magic "MMIDIDX\0\0", a
 * uint64 version 1, a uint8 for the type of a token, uint64 counts of sequences and of index
 * entries, the int32 lengths of the sequences, their int64 byte offsets in NAME.bin, and the int64
 * index: document d is the sequences from entry d up to entry d + 1.  Only sequences without gaps
 * between them are read, for the trainers take NAME.bin as one stream of tokens. */
#ifndef CV_BINIDX_H
#define CV_BINIDX_H

#include "base/input.h"

#define CV_BINIDX_PATH 4096

typedef struct cv_binidx_paths {
    char index[CV_BINIDX_PATH], tokens[CV_BINIDX_PATH];
} cv_binidx_paths;

typedef struct cv_binidx {
    cv_input index, tokens;
    int type;           /* of a token, as the file numbers them */
    size_t token_bytes; /* 1, 2, 4 or 8 */
    uint64_t n_sequences, n_documents, n_tokens;
} cv_binidx;

/* Does the path end in .bin or .idx? */
bool cv_binidx_is_named(const char *path);

/* Both paths, from either.  CORVID_E_FILE when the other file is not there. */
corvid_status cv_binidx_find(const char *path, cv_binidx_paths *pair, corvid_error *err);

/* Opens both and checks the index against the size of the tokens; these are checked as they are
 * read.  CORVID_E_FORMAT for damage and for types that are no whole numbers. */
corvid_status cv_binidx_open(cv_binidx *set, const char *path, corvid_error *err);

/* The same from memory, which must be there until it is closed. */
corvid_status cv_binidx_parse(cv_binidx *set, const void *index, size_t index_n, const void *tokens,
                              size_t tokens_n, const char *name, corvid_error *err);
void cv_binidx_close(cv_binidx *set);

/* Where document `number` < n_documents begins, and how many tokens it has (0 is possible). */
corvid_status cv_binidx_document(const cv_binidx *set, uint64_t number, uint64_t *from, uint64_t *n,
                                 corvid_error *err);

/* n ids from the one at `from` on.  CORVID_E_MISMATCH for one that is not less than
 * vocabulary_size.  Thread-safe. */
corvid_status cv_binidx_read(const cv_binidx *set, uint64_t from, size_t n,
                             uint64_t vocabulary_size, int32_t *ids, corvid_error *err);

#endif
