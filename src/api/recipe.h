/* recipe.h - what the calls that train have in common: options from outside are checked and become the
 * recipe of a run, and what the run reports goes to the caller's functions. */
#ifndef CV_API_RECIPE_H
#define CV_API_RECIPE_H

#include <time.h>

#include "api/handles.h"
#include "train/loop.h"

/* Copies the caller's options, which may be of an older version, over the defaults in out, of `most`
 * bytes.  `defaults` is the name of the function that fills them. */
corvid_status cv_take_options(const void *given, size_t size, void *out, size_t most,
                              const char *defaults, corvid_error *err);

/* Is a number in [low, high)?  NAN is not. */
bool cv_within(double x, double low, double high);

/* The members that all options of training have, under the same names. */
#define CV_RECIPE_OF(o)                                            \
    ((cv_recipe){ .out = (o)->out,                                 \
                  .resume = (o)->resume != 0,                      \
                  .seed = (o)->seed,                               \
                  .steps = (o)->steps,                             \
                  .accumulate = (o)->accumulate,                   \
                  .learning_rate = (o)->learning_rate,             \
                  .final_learning_rate = (o)->final_learning_rate, \
                  .warmup = (o)->warmup,                           \
                  .beta1 = (o)->beta1,                             \
                  .beta2 = (o)->beta2,                             \
                  .eps = (o)->eps,                                 \
                  .weight_decay = (o)->weight_decay,               \
                  .clip = (o)->clip,                               \
                  .average = (o)->average,                         \
                  .evaluate_every = (o)->evaluate_every,           \
                  .save_every = (o)->save_every,                   \
                  .keep_best = (o)->keep_best != 0,                \
                  .max_seconds = (o)->max_seconds,                 \
                  .recompute = (o)->recompute != 0 })

/* What of a recipe is given by name; cpu NULL: the widest kernels of this machine. */
corvid_status cv_recipe_named(cv_recipe *recipe, const char *schedule, const char *type,
                              const char *cpu, corvid_error *err);

/* The numbers of a recipe, for steps of `batch` sequences or pictures. */
corvid_status cv_recipe_check(const cv_recipe *recipe, size_t batch, double validation,
                              corvid_error *err);

/* What is asked of every run that learns from texts. */
corvid_status cv_recipe_check_texts(uint64_t steps, size_t batch, size_t context, double l2_wrap,
                                    corvid_error *err);

/* The caller's functions, each of which may be NULL, and what they are told. */
typedef struct cv_bridge {
    void (*report)(void *ctx, const corvid_training_report *report);
    corvid_progress_fn progress;
    corvid_cancel_fn cancel;
    void *ctx;
    bool pictures; /* what the run counts; else tokens */
    struct timespec started;
} cv_bridge;

#define CV_BRIDGE_OF(o)                      \
    ((cv_bridge){ .report = (o)->report,     \
                  .progress = (o)->progress, \
                  .cancel = (o)->cancel,     \
                  .ctx = (o)->callback_ctx })

/* Gives the recipe a team of n_threads (0: one for each core) and the functions of the bridge, which
 * has to last as long as the run; the caller frees the team. */
corvid_status cv_recipe_equip(cv_recipe *recipe, cv_bridge *bridge, size_t n_threads,
                              const corvid_allocator *mem, corvid_error *err);

#endif
