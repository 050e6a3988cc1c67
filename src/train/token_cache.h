/* token_cache.h - a text as token ids in a file, so that it is encoded once.
 *
 * Little-endian: a header of 64 bytes (magic, version, bytes of an id, the vocabulary's size and
 * hash, the hash of the sources), the ids as uint16 where the vocabulary has at most 65536 and else
 * as uint32, zeros up to a multiple of 8, where each document starts (uint64), the counts, and the
 * XXH3-64 of everything before.  Between documents stands token 0, as the last of the document in
 * front of it. */
#ifndef CV_TOKEN_CACHE_H
#define CV_TOKEN_CACHE_H

#include "base/input.h"
#include "base/output.h"
#include "text/tokenizer.h"

#define CV_TOKEN_SEPARATOR 0

/* What a cache belongs to. */
typedef struct cv_token_key {
    uint64_t vocabulary_size;
    uint64_t vocabulary_hash;
    uint64_t sources_hash;
} cv_token_key;

/* A hash of the vocabulary: its kind and all its pieces. */
uint64_t cv_vocabulary_hash(const cv_tokenizer *tok);

typedef struct cv_token_cache {
    const corvid_allocator *mem;
    cv_input in;
    char *image; /* what `in` reads when there is no file; owned */
    cv_token_key key;
    size_t token_bytes; /* 2 or 4 */
    uint64_t n_tokens, n_documents;
    uint64_t source_bytes; /* of the text */
    uint64_t *starts;      /* [n_documents] first token of each, increasing */
    void *ids;             /* all of them, or NULL: they are read as needed */
} cv_token_cache;

/* Opens a file and checks all of it.  The ids stay in memory when they take at most memory_limit
 * bytes.
 * CORVID_E_FORMAT    not a cache, or a damaged one
 * CORVID_E_MISMATCH  of another vocabulary or other sources than *key (NULL: of any) */
corvid_status cv_token_cache_open(const corvid_allocator *mem, const char *path,
                                  const cv_token_key *key, size_t memory_limit,
                                  cv_token_cache *out, corvid_error *err);

/* The same for n bytes in memory, which must be there until the cache is closed. */
corvid_status cv_token_cache_parse(const corvid_allocator *mem, const void *bytes, size_t n,
                                   const char *name, const cv_token_key *key, cv_token_cache *out,
                                   corvid_error *err);
void cv_token_cache_close(cv_token_cache *cache); /* safe on a zeroed one, and twice */

/* Does the file at path begin as a cache does? */
bool cv_token_cache_is_one(const char *path);

/* n ids from the one at `from` on.  Thread-safe. */
corvid_status cv_token_cache_read(const cv_token_cache *cache, uint64_t from, size_t n,
                                  int32_t *ids, corvid_error *err);

/* ---- writing -------------------------------------------------------------------------------- */

typedef struct cv_token_writer {
    const corvid_allocator *mem;
    cv_output *out; /* NULL: to memory */
    char *image;
    size_t image_n, image_capacity;
    size_t token_bytes;
    uint64_t n_tokens;
    uint64_t *starts;
    size_t n_documents, starts_capacity;
} cv_token_writer;

/* To the file at path, which is replaced when all is written; NULL: to memory. */
corvid_status cv_token_writer_open(const corvid_allocator *mem, const char *path,
                                   const cv_token_key *key, cv_token_writer *out,
                                   corvid_error *err);

/* A document begins here: writes the separator where there is one before it. */
corvid_status cv_token_writer_document(cv_token_writer *w, corvid_error *err);
corvid_status cv_token_writer_ids(cv_token_writer *w, const int32_t *ids, size_t n,
                                  corvid_error *err);

/* Ends the file.  Written to memory it is *image (of mem, for cv_free) with *n bytes; both may be
 * NULL otherwise. */
corvid_status cv_token_writer_finish(cv_token_writer *w, uint64_t source_bytes, char **image,
                                     size_t *n, corvid_error *err);
void cv_token_writer_discard(cv_token_writer *w); /* safe after finish, and on a zeroed one */

#endif
