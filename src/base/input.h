/* input.h - random access to a file or to memory; every format reader reads through it.
 *
 * Files are read with pread, never mapped: a file that shrinks while it is read gives an error
 * instead of a signal, and several threads may read one input at once. */
#ifndef CV_INPUT_H
#define CV_INPUT_H

#include "memory.h"

typedef struct cv_input {
    char path[512];             /* for messages (shortened in front when longer) */
    uint64_t size;              /* bytes, when it was opened */
    int fd;                     /* -1 for memory */
    const unsigned char *bytes; /* memory inputs only; borrowed */
} cv_input;

/* CORVID_E_FILE with the reason (and a hint) when it cannot be opened or is not a plain file. */
corvid_status cv_input_open(cv_input *in, const char *path, corvid_error *err);
void cv_input_memory(cv_input *in, const void *bytes, size_t n, const char *name);
void cv_input_close(cv_input *in);

/* Exactly n bytes from offset; CORVID_E_FORMAT "NAME: ends at byte X, wanted Y bytes at Z" when
 * they are not there.  Thread-safe. */
corvid_status cv_input_read(const cv_input *in, uint64_t offset, void *dst, size_t n,
                            corvid_error *err);

/* The whole input as one allocation with a terminating zero; limit bounds what is accepted. */
corvid_status cv_input_read_all(const cv_input *in, const corvid_allocator *mem, size_t limit,
                                char **out, size_t *n, corvid_error *err);

#endif
