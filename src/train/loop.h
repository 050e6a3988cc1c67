/* loop.h - what all runs of training share: steps, evaluations, saving, stopping and going on.
 *
 * A kind of run (language_run.c, picture_run.c) opens its data and a learner, and says what a part of
 * a step is and how the part of the data that was kept aside is scored.  The rest is here: the
 * optimiser, the learning rate, the running mean of the weights, the files, the end.  What a step
 * learns from depends on its number alone, so a run that is stopped and resumed ends with the same
 * bits. */
#ifndef CV_LOOP_H
#define CV_LOOP_H

#include "corvid_base.h"
#include "train/adamw.h"
#include "train/groups.h"
#include "train/init.h"
#include "train/learner.h"
#include "train/schedule.h"

#define CV_RUN_PATH 4096

/* What a step came to. */
typedef struct cv_run_report {
    uint64_t step, steps;
    uint64_t rows;               /* tokens or pictures so far, before a resumption too */
    double loss;                 /* of this step */
    double validation, accuracy; /* of the part kept aside; NAN: not measured */
    double learning_rate, gradient_norm;
    size_t memory_bytes;
    bool saved;
} cv_run_report;

/* What is chosen alike for every kind of run. */
typedef struct cv_recipe {
    const char *out; /* folder that gets model.safetensors, resume.bin and, maybe, best.safetensors */
    bool resume;     /* go on from resume.bin, where there is one */
    uint64_t seed, steps;
    size_t accumulate; /* parts that a step is cut into; they share the memory of one */
    cv_rate_curve curve;
    double learning_rate, final_learning_rate;
    uint64_t warmup;
    double beta1, beta2, eps, weight_decay, clip;
    double average; /* share that the running mean of the weights keeps each step; 0: there is none */
    uint64_t evaluate_every, save_every; /* 0: at the end */
    bool keep_best;     /* the model with the best validation loss stays as best.safetensors */
    double max_seconds; /* of this run: then it is saved and ends; 0: none */
    bool bf16;          /* products of matrices in bfloat16 */
    bool recompute;     /* layers are computed anew on the way back: slower, less memory */
    const cv_kernels *kernel;
    cv_team *team;
    void (*report)(void *ctx, const cv_run_report *report); /* after each step; these may be NULL */
    corvid_progress_fn progress;                            /* of reading data before the first */
    corvid_cancel_fn cancel;                                /* asked after each step */
    void *ctx;                                              /* of all three */
} cv_recipe;

/* What was learned from what was kept aside; accuracy is NAN where there is no such thing. */
typedef struct cv_run_score {
    double loss, accuracy;
} cv_run_score;

/* What a kind of run brings. */
typedef struct cv_task {
    cv_learner *learner; /* its parameters are what learns */
    cv_schedule schedule;
    uint64_t steps;     /* of the whole run */
    uint64_t step_rows; /* tokens or pictures of a step */
    uint64_t settings;  /* hash of all that decides the numbers, beside the recipe's seed */
    size_t memory_bytes; /* that all of it takes, with two moments, for the reports */
    const char *vocab, *classes; /* files that go into the model; NULL: none */
    void *ctx;                   /* of the functions */
    /* Adds the gradient of part `part` of step `step`, both from 0, in which every row of the step
     * weighs the same; *loss becomes its share of the mean loss of the step. */
    corvid_status (*batch)(void *ctx, uint64_t step, size_t part, double *loss, corvid_error *err);
    /* NULL: nothing was kept aside. */
    corvid_status (*score)(void *ctx, cv_run_score *score, corvid_error *err);

    /* Where something beside a model's own parameters learns (adapter.h, tuned_state.h): what stands
     * for the three of learner.h, for the groups by name, and for a model at `path`.  Each may be
     * NULL. */
    void (*clear)(void *ctx);
    void (*gather)(void *ctx);
    void (*publish)(void *ctx);
    cv_group (*group)(void *ctx, const cv_param *param);
    corvid_status (*save)(void *ctx, const char *path, corvid_error *err);
} cv_task;

/* Runs to the last step, or to the limit of time, which is no error.  With a running mean of the
 * weights it is that which is scored and saved as the model; resume.bin has both.
 * CORVID_E_CANCELLED: stopped after a step, and saved.  CORVID_E_INTERNAL names the step and the
 * tensor that is not finite, and nothing is saved.  CORVID_E_WRITE names the file; the one before it
 * stays. */
corvid_status cv_loop_run(const corvid_allocator *mem, const cv_recipe *recipe, const cv_task *task,
                          corvid_error *err);

/* Opens a learner of a shape as the recipe wants it, with the official initial values of its seed.
 *   init  may be NULL */
corvid_status cv_loop_learner(const corvid_allocator *mem, const cv_recipe *recipe,
                              const cv_source *shape, const cv_init_settings *init,
                              cv_learner *out, corvid_error *err);

/* The folder of a run, made where it is not there. */
corvid_status cv_loop_folder(const cv_recipe *recipe, corvid_error *err);
void cv_loop_path(const cv_recipe *recipe, const char *name, char path[CV_RUN_PATH]);

/* Continues the hash of a kind's own settings with those of the recipe. */
uint64_t cv_loop_settings(const cv_recipe *recipe, uint64_t hash);

/* Rows [*lo, *hi) of a step's n are those of part `part` of the recipe's; at most cv_loop_most. */
void cv_loop_part(const cv_recipe *recipe, size_t n, size_t part, size_t *lo, size_t *hi);
size_t cv_loop_most(const cv_recipe *recipe, size_t n);

#endif
