/* schedule.h - the learning rate of a step.  Pure functions of the step's number, which counts from
 * 0; nothing is remembered.  [train.cosine] [train.warmup]
 *
 * A schedule is a curve from `first` to `last` over the progress p in [0, 1], and a warm-up, in three
 * forms that differ in what the curve does meanwhile.  The official ones are made by the functions
 * below; any other is written down field by field. */
#ifndef CV_SCHEDULE_H
#define CV_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum cv_rate_curve {
    CV_RATE_CONSTANT,    /* first */
    CV_RATE_LINEAR,      /* first + (last - first) p */
    CV_RATE_COSINE,      /* last + (first - last) (1 + cos(pi p)) / 2 */
    CV_RATE_EXPONENTIAL, /* first (last / first)^p; linear where one of them is 0 */
    CV_RATE_MEAN         /* the mean of the last two */
} cv_rate_curve;

/* In all of them the rate rises linearly from `warm_from` of its height. */
typedef enum cv_warmup {
    CV_WARMUP_BEFORE, /* the curve begins where the warm-up ends */
    CV_WARMUP_OVER,   /* it begins at step 0 and is multiplied by the warm-up */
    CV_WARMUP_INSTEAD /* it begins at step 0, unseen until the warm-up ends, which rises to `first` */
} cv_warmup;

typedef struct cv_schedule {
    cv_rate_curve curve;
    double first, last;
    double end; /* steps at p = 1; tokens of a budget / tokens of a step, so not always whole */
    cv_warmup warmup;
    uint64_t warm_steps; /* 0: none */
    double warm_from;    /* in [0, 1] */
} cv_schedule;

/* Where the RWKV trainers' warm-up begins: the current one of version 7, and the older ones. */
#define CV_WARM_FROM_V7 0.01
#define CV_WARM_FROM_V4 0.2

/* RWKV: over so many tokens.  tokens < 0: over |tokens| by the mean of cosine and exponential;
 * 0: constant. */
cv_schedule cv_schedule_rwkv(double first, double last, int64_t tokens, uint64_t tokens_per_step,
                             uint64_t warm_steps, double warm_from);

/* VRWKV-T, S, B and VRWKV6: a cosine to 1 % over all steps, multiplied by a warm-up from 0.1 %. */
cv_schedule cv_schedule_vrwkv(double first, uint64_t steps, uint64_t warm_steps);

/* VRWKV-L: a warm-up from the rate warm_first, then what is left of a cosine to last. */
cv_schedule cv_schedule_vrwkv_l(double first, double last, double warm_first, uint64_t steps,
                                uint64_t warm_steps);

/* The progress p of the curve at a step. */
double cv_schedule_progress(const cv_schedule *schedule, uint64_t step);

/* The learning rate at a step; behind the end that of the end. */
double cv_schedule_at(const cv_schedule *schedule, uint64_t step);

/* Is the schedule through, and no step `step` due?  Never, when it has no end. */
bool cv_schedule_over(const cv_schedule *schedule, uint64_t step);

#endif
