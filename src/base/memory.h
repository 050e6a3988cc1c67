/* memory.h - where memory comes from: the caller's allocator, and arenas on top of it.
 *
 * Nothing below the engine calls malloc.  Whoever needs memory is handed a cv_memory (the caller's
 * corvid_allocator, or the C library's) or an arena that frees everything at once. */
#ifndef CV_MEMORY_H
#define CV_MEMORY_H

#include <stdbool.h>

#include "status.h"

#define CV_ALIGN     64 /* a cache line and a 512-bit vector */
#define CV_HUGE_PAGE ((size_t)2 << 20)

/* The C library's aligned allocation, used when the caller gives no allocator. */
extern const corvid_allocator cv_libc_allocator;

/* Uninitialised memory for count objects of size bytes, CV_ALIGN aligned; NULL when the product
 * overflows or memory is short.  cv_free(NULL) does nothing. */
void *cv_alloc(const corvid_allocator *mem, size_t count, size_t size);
void *cv_alloc_zero(const corvid_allocator *mem, size_t count, size_t size);
void cv_free(const corvid_allocator *mem, void *ptr);

/* Like cv_alloc, with the error filled: "out of memory: N bytes for WHAT". */
corvid_status cv_alloc_or_fail(const corvid_allocator *mem, size_t count, size_t size,
                               const char *what, void **out, corvid_error *err);

/* What cv_alloc_huge takes for so many bytes: whole huge pages, from one on. */
static inline size_t cv_huge_bytes(size_t bytes)
{
    const size_t rest = bytes % CV_HUGE_PAGE;
    return bytes < CV_HUGE_PAGE || rest == 0 ? bytes : bytes - rest + CV_HUGE_PAGE;
}

/* A big block for weights: CV_HUGE_PAGE aligned and advised to use huge pages. */
void *cv_alloc_huge(const corvid_allocator *mem, size_t bytes);

/* A growing arena: many small objects with one lifetime (names, tables of a parsed file). */
typedef struct cv_arena_chunk cv_arena_chunk;
typedef struct cv_arena {
    const corvid_allocator *mem;
    cv_arena_chunk *chunks; /* newest first */
    size_t used, capacity;  /* of the newest chunk */
    size_t total;           /* bytes taken from mem so far */
} cv_arena;

void cv_arena_init(cv_arena *arena, const corvid_allocator *mem);
void *cv_arena_alloc(cv_arena *arena, size_t count, size_t size);  /* 16-aligned, zeroed */
char *cv_arena_text(cv_arena *arena, const char *bytes, size_t n); /* terminated copy */
void cv_arena_free(cv_arena *arena);

/* Bytes of memory this process could still take without swapping (0 when unknown). */
uint64_t cv_memory_available(void);

#endif
