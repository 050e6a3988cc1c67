/* count.h - how many tokens a sequence has had, for layers that have to know: the first number of
 * their state. */
#ifndef CV_COUNT_H
#define CV_COUNT_H

#include "ops/run.h"

static inline size_t cv_count_of(const float *state)
{
    return (size_t)(*state + 0.5f);
}

/* Counts the tokens of this step.  Only after a cv_meet that follows the last reader. */
static inline void cv_count_keep(const cv_run *run, size_t state_offset)
{
    for (size_t s = run->me->id; s < run->n_sequences; s += run->me->n)
        run->sequences[s].state[state_offset] += (float)run->sequences[s].n;
}

#endif
