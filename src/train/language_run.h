/* language_run.h - a run of training of a language model, from texts to files: loop.h with what a
 * language model learns from. */
#ifndef CV_LANGUAGE_RUN_H
#define CV_LANGUAGE_RUN_H

#include "train/loop.h"

typedef struct cv_language_run {
    cv_recipe recipe;
    const char *arch;
    size_t layers, width;
    const char *vocab; /* NULL: bytes */
    const char *const *data;
    size_t n_data;
    size_t batch, context; /* sequences of a step, tokens of each */
    double l2_wrap;
    bool no_shift;   /* mixes stay where a token sees nothing of the one before it */
    double validation; /* the part kept aside; 0: none */
    uint64_t evaluate_tokens;
} cv_language_run;

corvid_status cv_train_language(const corvid_allocator *mem, const cv_language_run *run,
                                corvid_error *err);

#endif
