/* output.h - files that are either the old one or the new one, never half of each.
 *
 * cv_output writes a temporary file in the target's folder; commit flushes it to disk, renames it
 * over the target and flushes the folder.  Anything else leaves the old file as it was. */
#ifndef CV_OUTPUT_H
#define CV_OUTPUT_H

#include "memory.h"

#define CV_OUTPUT_PATH 4096

typedef struct cv_output {
    char path[CV_OUTPUT_PATH];           /* links resolved */
    char temporary[CV_OUTPUT_PATH + 32]; /* empty when there is none to remove */
    char name[256];                      /* for messages (shortened in front when longer) */
    int fd;
    uint64_t written;
    void *checksum; /* XXH3 state over all bytes written so far */
    size_t pending;
    unsigned char buffer[1 << 16];
} cv_output;

corvid_status cv_output_create(cv_output *out, const char *path, corvid_error *err);
corvid_status cv_output_write(cv_output *out, const void *bytes, size_t n, corvid_error *err);
uint64_t cv_output_checksum(const cv_output *out);                 /* XXH3-64 of what was written */
corvid_status cv_output_commit(cv_output *out, corvid_error *err); /* frees out's resources */
void cv_output_discard(cv_output *out); /* safe after commit, and on a zeroed one */

#ifdef CV_TESTING
/* Tests make the Nth system call of a save fail (0: none); counted from 1, on this thread.
 * Returns how many calls there were since the last setting.  Not in the shipped library. */
int cv_output_fail_at(int nth_call);
#endif

#endif
