/* train.h - the options of `corvid train`, and what it trains. */
#ifndef CLI_TRAIN_H
#define CLI_TRAIN_H

#include "options.h"

/* Where a number is text it may be "auto", and where a count or a choice was not given it is 0 or
 * NULL: what that comes to depends on what is trained. */
typedef struct train_options {
    general_options general;
    option_list data;
    const char *out, *arch, *vocab, *augment, *norm, *schedule, *type, *cpu, *token_shift;
    uint64_t layers, dim, seed, steps, batch, context, eval_every, eval_tokens, eval_pictures,
        save_every, threads, tokens, size, patch, accumulate;
    const char *lr_final, *warmup, *weight_decay, *clip, *flip, *mixup, *cutmix;
    double lr, beta1, beta2, eps, validation, ema, minutes, epochs, smoothing, drop_path;
    bool resume, json, recompute, keep_best;
} train_options;

/* Takes a number over unless it is "auto"; 0, or 2 after a message. */
int train_number(const char *name, const char *text, double low, double high, double *value);

int train_lm(const train_options *options);
int train_vision(const train_options *options);

#endif
