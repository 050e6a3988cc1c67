/* corvid_base.h - the words every part of the Corvid API shares: status, error, callbacks.
 *
 * Included by corvid.h; there is no need to include it alone, though it compiles alone (C11, C++17).
 */
#ifndef CORVID_BASE_H
#define CORVID_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Marks what the shared library exports; everything else is hidden. */
#if defined(__GNUC__)
#define CORVID_API __attribute__((visibility("default")))
#else
#define CORVID_API
#endif

/* What a call came to.  The numbers are the exit codes of the `corvid` command. */
typedef enum corvid_status {
    CORVID_OK = 0,
    CORVID_E_ARGUMENT = 2,  /* an argument is out of range; nothing was changed */
    CORVID_E_FILE = 3,      /* a file is missing or cannot be read */
    CORVID_E_FORMAT = 4,    /* a file is malformed, or of a kind that is not supported */
    CORVID_E_MEMORY = 5,    /* it does not fit in memory, or an allocation failed */
    CORVID_E_WRITE = 6,     /* writing failed; the old file, if any, is intact */
    CORVID_E_NETWORK = 7,   /* the network failed */
    CORVID_E_MISMATCH = 8,  /* a state, adapter or vocabulary of another model */
    CORVID_E_INTERNAL = 9,  /* our mistake; please report it */
    CORVID_E_CANCELLED = 10 /* the caller's cancel callback asked to stop */
} corvid_status;

#define CORVID_ERROR_TEXT 1024

/* Filled when a call fails: one sentence with what, where, what was expected and what to do.
 * UTF-8, always terminated.  Every function takes a pointer to one, which may be NULL. */
typedef struct corvid_error {
    corvid_status status;
    char text[CORVID_ERROR_TEXT];
} corvid_error;

/* The caller's memory.  alloc returns NULL when there is none; align is a power of two.
 * free gets back what alloc returned, never NULL.  Both are called from any thread. */
typedef struct corvid_allocator {
    void *ctx;
    void *(*alloc)(void *ctx, size_t bytes, size_t align);
    void (*free)(void *ctx, void *ptr);
} corvid_allocator;

typedef enum corvid_log_level {
    CORVID_LOG_DEBUG = 0,
    CORVID_LOG_INFO = 1,
    CORVID_LOG_WARNING = 2
} corvid_log_level;

/* A line for the caller's log; text has no newline. */
typedef void (*corvid_log_fn)(void *ctx, corvid_log_level level, const char *text);

/* Progress of long work: done of total units (bytes or tokens).  Called from one thread. */
typedef void (*corvid_progress_fn)(void *ctx, uint64_t done, uint64_t total);

/* Asked between chunks of long work; return non-zero to stop with CORVID_E_CANCELLED. */
typedef int (*corvid_cancel_fn)(void *ctx);

#ifdef __cplusplus
}
#endif
#endif
