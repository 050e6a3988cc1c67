/* memory.c - allocation through the caller's allocator, arenas, and how much memory is left.
 *
 * Under AddressSanitizer an arena keeps poisoned gaps between its objects, so that running past
 * the end of one is found although they share a block. */
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_RED_ZONES 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_RED_ZONES 1
#endif
#endif
#ifdef ARENA_RED_ZONES
#include <sanitizer/asan_interface.h>
#define RED_ZONE 32
static void poison(const void *p, size_t n)
{
    __asan_poison_memory_region(p, n);
}
static void unpoison(const void *p, size_t n)
{
    __asan_unpoison_memory_region(p, n);
}
#else
#define RED_ZONE 0
static void poison(const void *p, size_t n)
{
    (void)p, (void)n;
}
static void unpoison(const void *p, size_t n)
{
    (void)p, (void)n;
}
#endif

/* ---- the C library's allocator -------------------------------------------------------------- */

static void *libc_alloc(void *ctx, size_t bytes, size_t align)
{
    (void)ctx;
    void *ptr = NULL;
    if (align < sizeof(void *)) align = sizeof(void *);
    if (posix_memalign(&ptr, align, bytes ? bytes : 1) != 0) return NULL;
    return ptr;
}

static void libc_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

const corvid_allocator cv_libc_allocator = { .ctx = NULL, .alloc = libc_alloc, .free = libc_free };

/* ---- single objects ------------------------------------------------------------------------- */

void *cv_alloc(const corvid_allocator *mem, size_t count, size_t size)
{
    size_t bytes;
    if (!cv_mul_size(count, size, &bytes)) return NULL;
    return mem->alloc(mem->ctx, bytes ? bytes : 1, CV_ALIGN);
}

void *cv_alloc_zero(const corvid_allocator *mem, size_t count, size_t size)
{
    void *ptr = cv_alloc(mem, count, size);
    if (ptr) memset(ptr, 0, count * size);
    return ptr;
}

void cv_free(const corvid_allocator *mem, void *ptr)
{
    if (ptr) mem->free(mem->ctx, ptr);
}

corvid_status cv_alloc_or_fail(const corvid_allocator *mem, size_t count, size_t size,
                               const char *what, void **out, corvid_error *err)
{
    *out = cv_alloc(mem, count, size);
    if (*out) return CORVID_OK;
    size_t bytes;
    if (!cv_mul_size(count, size, &bytes))
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu times %zu bytes for %s", count,
                       size, what);
    return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
}

void *cv_alloc_huge(const corvid_allocator *mem, size_t bytes)
{
    if (bytes < CV_HUGE_PAGE) return cv_alloc(mem, bytes, 1);
    size_t rounded;
    if (!cv_round_up(bytes, CV_HUGE_PAGE, &rounded)) return NULL;
    void *ptr = mem->alloc(mem->ctx, rounded, CV_HUGE_PAGE);
    /* Advice only: where it is refused the block works the same, with more address misses.  An
     * allocator that ignores the alignment is not advised, for the range would not be its own. */
    if (ptr && (uintptr_t)ptr % CV_HUGE_PAGE == 0) (void)madvise(ptr, rounded, MADV_HUGEPAGE);
    return ptr;
}

/* ---- arenas --------------------------------------------------------------------------------- */

#define ARENA_ALIGN       16
#define ARENA_FIRST_CHUNK ((size_t)4 << 10)
#define ARENA_LAST_CHUNK  ((size_t)1 << 20)

struct cv_arena_chunk {
    cv_arena_chunk *next;
    size_t capacity;
    _Alignas(ARENA_ALIGN) unsigned char bytes[];
};

void cv_arena_init(cv_arena *arena, const corvid_allocator *mem)
{
    *arena = (cv_arena){ .mem = mem };
}

/* A new chunk with room for `room` bytes, not yet linked; NULL when memory is short. */
static cv_arena_chunk *chunk_new(cv_arena *arena, size_t room)
{
    size_t bytes;
    if (!cv_add_size(room, sizeof(cv_arena_chunk), &bytes)) return NULL;
    cv_arena_chunk *chunk = cv_alloc(arena->mem, bytes, 1);
    if (!chunk) return NULL;
    chunk->next = NULL;
    chunk->capacity = room;
    arena->total += bytes;
    poison(chunk->bytes, room);
    return chunk;
}

/* Twice the newest chunk, within the bounds above. */
static size_t next_chunk_room(const cv_arena *arena)
{
    size_t room =
        arena->capacity ? 2 * (arena->capacity + sizeof(cv_arena_chunk)) : ARENA_FIRST_CHUNK;
    if (room > ARENA_LAST_CHUNK) room = ARENA_LAST_CHUNK;
    return room - sizeof(cv_arena_chunk);
}

/* An object too big to share a chunk gets its own, linked behind the newest, which stays open. */
static void *alloc_alone(cv_arena *arena, size_t room)
{
    cv_arena_chunk *chunk = chunk_new(arena, room);
    if (!chunk) return NULL;
    if (arena->chunks) {
        chunk->next = arena->chunks->next;
        arena->chunks->next = chunk;
    } else {
        arena->chunks = chunk;
        arena->used = arena->capacity = 0; /* full: the next object opens a chunk */
    }
    return chunk->bytes;
}

void *cv_arena_alloc(cv_arena *arena, size_t count, size_t size)
{
    size_t bytes, room;
    if (!cv_mul_size(count, size, &bytes)) return NULL;
    if (!cv_add_size(bytes ? bytes : 1, RED_ZONE, &room)) return NULL;
    if (!cv_round_up(room, ARENA_ALIGN, &room)) return NULL;

    unsigned char *ptr;
    if (room <= arena->capacity - arena->used) {
        ptr = arena->chunks->bytes + arena->used;
        arena->used += room;
    } else if (room > next_chunk_room(arena) / 2) {
        ptr = alloc_alone(arena, room);
    } else {
        cv_arena_chunk *chunk = chunk_new(arena, next_chunk_room(arena));
        if (!chunk) return NULL;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
        arena->capacity = chunk->capacity;
        arena->used = room;
        ptr = chunk->bytes;
    }
    if (!ptr) return NULL;
    unpoison(ptr, bytes);
    memset(ptr, 0, bytes);
    return ptr;
}

char *cv_arena_text(cv_arena *arena, const char *bytes, size_t n)
{
    size_t room;
    if (!cv_add_size(n, 1, &room)) return NULL;
    char *text = cv_arena_alloc(arena, room, 1);
    if (text && n) memcpy(text, bytes, n);
    return text;
}

void cv_arena_free(cv_arena *arena)
{
    cv_arena_chunk *chunk = arena->chunks;
    while (chunk) {
        cv_arena_chunk *next = chunk->next;
        unpoison(chunk->bytes, chunk->capacity); /* the allocator may hand the block out again */
        cv_free(arena->mem, chunk);
        chunk = next;
    }
    cv_arena_init(arena, arena->mem);
}

/* ---- how much is left ----------------------------------------------------------------------- */

/* The decimal number that a one-line file holds; false for "max" and for what cannot be read. */
static bool read_number(const char *path, uint64_t *out)
{
    FILE *file = fopen(path, "re");
    if (!file) return false;
    unsigned long long value;
    bool found = fscanf(file, "%llu", &value) == 1;
    fclose(file);
    if (found) *out = value;
    return found;
}

static uint64_t machine_available(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    if (!file) return 0;
    char line[256];
    unsigned long long kib = 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1) break;
    fclose(file);
    return (uint64_t)kib * 1024;
}

uint64_t cv_memory_available(void)
{
    static const char *const files[2][2] = {
        { "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current" },
        { "/sys/fs/cgroup/memory/memory.limit_in_bytes",
          "/sys/fs/cgroup/memory/memory.usage_in_bytes" },
    };
    uint64_t available = machine_available();
    for (size_t i = 0; i < 2; i++) {
        uint64_t limit, used;
        if (!read_number(files[i][0], &limit) || !read_number(files[i][1], &used)) continue;
        uint64_t left = limit > used ? limit - used : 1; /* 1: none left, and that is known */
        if (available == 0 || left < available) available = left;
    }
    return available;
}
