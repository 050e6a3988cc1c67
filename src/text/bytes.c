/* bytes.c - the byte tokenizer (id = byte), and the small things the kinds share. */
#include <string.h>

#include "text/kinds.h"

corvid_status cv_ids_grow(cv_ids *ids, corvid_error *err)
{
    const size_t capacity = ids->capacity > 0 ? ids->capacity * 2 : 64;
    int32_t *more = NULL;
    CV_TRY(cv_alloc_or_fail(ids->mem, capacity, sizeof *more, "token ids", (void **)&more, err));
    if (ids->n > 0) memcpy(more, ids->at, ids->n * sizeof *more);
    cv_free(ids->mem, ids->at);
    ids->at = more;
    ids->capacity = capacity;
    return CORVID_OK;
}

corvid_status cv_arena_need(cv_arena *arena, size_t n, size_t size, const char *what, void **out,
                            corvid_error *err)
{
    *out = cv_arena_alloc(arena, n > 0 ? n : 1, size);
    if (*out) return CORVID_OK;
    return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu times %zu bytes for %s", n, size,
                   what);
}

corvid_status cv_bytes_fill(cv_tokenizer *tok, corvid_error *err)
{
    cv_pieces *p = &tok->pieces;
    const char *what = "the byte tokenizer";
    CV_TRY(cv_arena_need(&tok->arena, 256, 1, what, (void **)&p->bytes, err));
    CV_TRY(cv_arena_need(&tok->arena, 257, sizeof *p->start, what, (void **)&p->start, err));
    p->n = 256;
    for (uint32_t b = 0; b < 256; b++) {
        p->bytes[b] = (char)b;
        p->start[b] = b;
    }
    p->start[256] = 256;
    return CORVID_OK;
}
