/* vocabulary_run.h - making a vocabulary, from texts to a file. */
#ifndef CV_VOCABULARY_RUN_H
#define CV_VOCABULARY_RUN_H

#include "corvid_base.h"
#include "base/memory.h"

/* Of the text that is kept aside no more than this is. */
#define CV_HELD_OUT_BYTES ((size_t)8 << 20)

typedef struct cv_vocabulary_run {
    const char *const *data; /* files, folders, "-"; as cv_text_files_find takes them */
    size_t n_data;
    size_t size;     /* ids wanted */
    double held_out; /* the part of the text that is only measured, 0 to 0.9 */
    const char *out;
    corvid_progress_fn reading;   /* bytes; may be NULL */
    corvid_progress_fn searching; /* rounds; may be NULL */
    corvid_cancel_fn cancel;      /* may be NULL */
    void *ctx;                    /* of all three */
} cv_vocabulary_run;

typedef struct cv_vocabulary_result {
    size_t size;         /* ids that the file has */
    uint64_t text_bytes; /* it was made from */
    uint64_t held_out_bytes, held_out_tokens;
} cv_vocabulary_result;

/* Writes the file `out` whole or not at all.  A file that is there is replaced only when it is a
 * vocabulary of this form (CORVID_E_ARGUMENT).  Before the file is written its tokens have given
 * back every byte and the text kept aside; after that it is opened once more and is the same.
 * Same texts in the same order, same file, whether they come from files or standard input. */
corvid_status cv_train_vocabulary(const corvid_allocator *mem, const cv_vocabulary_run *run,
                                  cv_vocabulary_result *result, corvid_error *err);

#endif
