/* team.h - a fixed team of threads that walk one text side by side.
 *
 * cv_team_run wakes every member with the same function (single program, multiple data); members
 * split matrices and heads by fixed ranges and meet at cv_barrier only where one needs another's
 * result.  The caller is member 0.  Members spin for a short while before they sleep, so a step
 * costs one wake-up and some tens of nanoseconds per barrier. */
#ifndef CV_TEAM_H
#define CV_TEAM_H

#include "memory.h"

#define CV_TEAM_MAX 64

typedef struct cv_team cv_team;

typedef struct cv_member {
    cv_team *team;
    size_t id, n; /* this member, and how many there are */
} cv_member;

corvid_status cv_team_new(const corvid_allocator *mem, size_t n_threads, cv_team **out,
                          corvid_error *err);
void cv_team_free(cv_team *team);
size_t cv_team_size(const cv_team *team);
void cv_team_run(cv_team *team, void (*work)(const cv_member *me, void *arg), void *arg);
void cv_barrier(const cv_member *me);

/* Member `me`'s part [*lo, *hi) of n things. */
static inline void cv_share(const cv_member *me, size_t n, size_t *lo, size_t *hi)
{
    *lo = n * me->id / me->n;
    *hi = n * (me->id + 1) / me->n;
}

#endif
