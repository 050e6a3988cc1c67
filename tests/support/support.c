/* support.c - reference data, scratch files and a meddling allocator, for the tests.
 *
 * Runs in test programs only, so it may print, fail the test and read the environment. */
#include "support.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef CORVID_SOURCE_DIR
#define CORVID_SOURCE_DIR "."
#endif

#define N_BUFFERS 8

/* ---- reference data ------------------------------------------------------------------------- */

const char *test_data(const char *relative)
{
    static char buffers[N_BUFFERS][1024];
    static unsigned next;
    char *path = buffers[next++ % N_BUFFERS];
    const char *folder = getenv("CORVID_TEST_DATA");
    if (folder && folder[0])
        snprintf(path, sizeof buffers[0], "%s/%s", folder, relative);
    else
        snprintf(path, sizeof buffers[0], "%s/../shared/data/%s", CORVID_SOURCE_DIR, relative);
    return access(path, R_OK) == 0 ? path : NULL;
}

/* ---- scratch files -------------------------------------------------------------------------- */

static char scratch_folder[256];
static pid_t scratch_owner;

/* Removes the folder and what tests left in it, subfolders included. */
static void remove_tree(const char *folder)
{
    DIR *dir = opendir(folder);
    if (!dir) return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char path[1024];
        struct stat info;
        if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path)
            continue;
        if (lstat(path, &info) == 0 && S_ISDIR(info.st_mode))
            remove_tree(path);
        else
            unlink(path);
    }
    closedir(dir);
    rmdir(folder);
}

static void remove_scratch(void)
{
    /* A forked child that exits must not take its parent's files away. */
    if (scratch_folder[0] && getpid() == scratch_owner) remove_tree(scratch_folder);
}

const char *test_scratch(const char *name)
{
    static char buffers[N_BUFFERS][1024];
    static unsigned next;
    if (!scratch_folder[0]) {
        const char *tmp = getenv("TMPDIR");
        snprintf(scratch_folder, sizeof scratch_folder, "%.200s/corvid-test.XXXXXX",
                 tmp && tmp[0] ? tmp : "/tmp");
        if (!mkdtemp(scratch_folder)) {
            scratch_folder[0] = '\0';
            fail_msg("no scratch folder can be made in %s", tmp ? tmp : "/tmp");
        }
        scratch_owner = getpid();
        atexit(remove_scratch);
    }
    char *path = buffers[next++ % N_BUFFERS];
    snprintf(path, sizeof buffers[0], "%s/%s", scratch_folder, name);
    return path;
}

/* ---- whole files ---------------------------------------------------------------------------- */

char *test_read_file(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("%s: cannot be opened", path);
    char *bytes = NULL;
    size_t used = 0, room = 0;
    for (;;) {
        if (room - used < 2) {
            room = room ? 2 * room : 4096;
            bytes = realloc(bytes, room);
            if (!bytes) fail_msg("%s: out of memory", path);
        }
        size_t got = fread(bytes + used, 1, room - used - 1, file);
        used += got;
        if (got == 0) break;
    }
    if (ferror(file)) fail_msg("%s: cannot be read", path);
    fclose(file);
    bytes[used] = '\0';
    if (n) *n = used;
    return bytes;
}

void test_write_file(const char *path, const void *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    if (!file) fail_msg("%s: cannot be created", path);
    if (n > 0 && fwrite(bytes, 1, n, file) != n) fail_msg("%s: cannot be written", path);
    if (fclose(file) != 0) fail_msg("%s: cannot be written", path);
}

/* ---- the meddling allocator ------------------------------------------------------------------ */

/* Lies before each block; the block itself starts `offset` bytes after the malloc'ed start. */
typedef struct block_head {
    size_t bytes, offset;
} block_head;

/* The counters are read by one thread but may be moved by several. */
#define COUNT_ADD(field, n) __atomic_add_fetch(&(field), (n), __ATOMIC_SEQ_CST)
#define COUNT_SUB(field, n) __atomic_sub_fetch(&(field), (n), __ATOMIC_SEQ_CST)

static void raise_peak(test_allocator *a, size_t now)
{
    size_t peak = __atomic_load_n(&a->peak_bytes, __ATOMIC_SEQ_CST);
    while (now > peak && !__atomic_compare_exchange_n(&a->peak_bytes, &peak, now, 0,
                                                      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
}

static void *counted_alloc(void *ctx, size_t bytes, size_t align)
{
    test_allocator *a = ctx;
    size_t call = COUNT_ADD(a->calls, 1);
    if (a->fail_at != 0 && call == a->fail_at) return NULL;

    if (align < sizeof(block_head)) align = sizeof(block_head);
    if (bytes > SIZE_MAX - 2 * align - sizeof(block_head)) return NULL;
    unsigned char *start = malloc(bytes + align + sizeof(block_head));
    if (!start) return NULL;
    uintptr_t at = (uintptr_t)start + sizeof(block_head);
    size_t offset = sizeof(block_head) + (align - at % align) % align;
    unsigned char *ptr = start + offset;
    memcpy(ptr - sizeof(block_head), &(block_head){ bytes, offset }, sizeof(block_head));
    if (bytes <= (size_t)1 << 24) memset(ptr, 0xA5, bytes); /* nobody may count on zeros */

    COUNT_ADD(a->live, 1);
    raise_peak(a, COUNT_ADD(a->bytes, bytes));
    return ptr;
}

static void counted_free(void *ctx, void *ptr)
{
    test_allocator *a = ctx;
    block_head head;
    memcpy(&head, (unsigned char *)ptr - sizeof head, sizeof head);
    COUNT_SUB(a->live, 1);
    COUNT_SUB(a->bytes, head.bytes);
    free((unsigned char *)ptr - head.offset);
}

void test_allocator_init(test_allocator *a)
{
    *a = (test_allocator){ .api = { .ctx = a, .alloc = counted_alloc, .free = counted_free } };
}
