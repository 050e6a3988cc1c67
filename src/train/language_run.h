/* language_run.h - a run of training of a language model, from data to files.
 *
 * Everything follows from the settings: sample, order and numbers of a step depend on the seed and
 * the step alone, so a run that is stopped and resumed ends with the same bits. */
#ifndef CV_LANGUAGE_RUN_H
#define CV_LANGUAGE_RUN_H

#include "corvid_base.h"
#include "train/learner.h"

typedef struct cv_run_report {
    uint64_t step, steps, tokens;
    double loss, validation, learning_rate, gradient_norm;
    size_t memory_bytes;
    bool saved;
} cv_run_report;

typedef struct cv_language_run {
    const char *arch;
    size_t layers, width;
    const char *vocab; /* NULL: bytes */
    const char *const *data;
    size_t n_data;
    const char *out; /* a folder */
    bool resume;
    uint64_t seed, steps;
    size_t batch, context;
    double learning_rate, final_learning_rate;
    uint64_t warmup;
    double beta1, beta2, eps, weight_decay, clip, l2_wrap;
    double validation;
    uint64_t evaluate_every, evaluate_tokens, save_every;
    const cv_kernels *kernel;
    cv_team *team;
    void (*report)(void *ctx, const cv_run_report *report);
    corvid_progress_fn progress;
    corvid_cancel_fn cancel;
    void *ctx;
} cv_language_run;

corvid_status cv_train_language(const corvid_allocator *mem, const cv_language_run *run,
                                corvid_error *err);

#endif
