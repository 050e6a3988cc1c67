/* pieces.h - the byte strings of a vocabulary, and a growing list of ids. */
#ifndef CV_PIECES_H
#define CV_PIECES_H

#include "base/memory.h"

/* What any vocabulary may hold: far above every published one, and small enough that a hostile
 * file of a few bytes cannot ask for much memory or make the longest match slow. */
#define CV_TOKEN_IDS        ((size_t)1 << 20)
#define CV_TOKEN_BYTES      ((size_t)4096)
#define CV_VOCABULARY_BYTES ((size_t)256 << 20)

/* Token i is bytes[start[i]] .. bytes[start[i + 1] - 1]; empty when the id has no text. */
typedef struct cv_pieces {
    size_t n;
    char *bytes;
    uint32_t *start; /* [n + 1] */
} cv_pieces;

static inline const char *cv_piece(const cv_pieces *pieces, int32_t id, size_t *n)
{
    *n = pieces->start[id + 1] - pieces->start[id];
    return pieces->bytes + pieces->start[id];
}

typedef struct cv_ids {
    const corvid_allocator *mem;
    int32_t *at;
    size_t n, capacity;
} cv_ids;

/* Room for twice as many ids as there are; for cv_ids_push. */
corvid_status cv_ids_grow(cv_ids *ids, corvid_error *err);

static inline corvid_status cv_ids_push(cv_ids *ids, int32_t id, corvid_error *err)
{
    if (ids->n == ids->capacity) CV_TRY(cv_ids_grow(ids, err));
    ids->at[ids->n++] = id;
    return CORVID_OK;
}

/* n objects of `size` bytes from the arena, or CORVID_E_MEMORY naming `what`. */
corvid_status cv_arena_need(cv_arena *arena, size_t n, size_t size, const char *what, void **out,
                            corvid_error *err);

#endif
