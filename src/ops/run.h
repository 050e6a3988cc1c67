/* run.h - one member's view of one step: which rows, whose buffers, when to meet.
 *
 * Every member of the team walks the same model text with its own cv_run.  Matrices and heads are
 * cut by fixed ranges.  Row-wise work (norms, token shift, mixing) comes in two forms that the text
 * does not see: for a few rows everyone computes all of them into a buffer of its own, which costs
 * less than handing them over; for many rows they are shared out into a common buffer.  cv_settle
 * waits only in the second case, cv_meet always.
 *
 * Buffers are taken in the same order by every member, so common ones have the same address.
 *
 * A picture's rows are many and none of them waits for another outside its WKV, so they are handed
 * out whole: each member takes its rows in tiles of at most CV_TILE, and a tile is a run of its own
 * with this member alone, in which every op works as ever.  With a tape, which keeps all rows of
 * everything, there is one tile: the run itself.  Then cv_tile_meet, which is nothing for a lone
 * member, stands between what ops write in columns and others read in rows. */
#ifndef CV_RUN_H
#define CV_RUN_H

#include <stdbool.h>

#include "base/team.h"
#include "kernels/kernels.h"

/* n tokens of one sequence, and the state before them (out: after them). */
typedef struct cv_sequence {
    size_t begin, n; /* rows [begin, begin + n) */
    float *state;    /* all layers; see cv_model.state_size */

    /* With a tape: the state as it was before the step, and where its gradient goes, or NULL. */
    const float *start;
    float *start_gradient;
} cv_sequence;

/* The tokens of one picture: h x w of them row by row, and perhaps a class token behind. */
typedef struct cv_grid {
    size_t begin, n; /* rows [begin, begin + n) */
    size_t h, w;
} cv_grid;

typedef struct cv_buffers {
    float *base;       /* NULL while measuring */
    size_t used, peak; /* floats */
} cv_buffers;

typedef struct cv_run {
    const cv_kernels *kernel;
    const cv_member *me;
    size_t T;                     /* rows */
    const cv_sequence *sequences; /* of a language model: cover the rows in order */
    size_t n_sequences;
    const cv_grid *grids; /* of a vision model: the same */
    size_t n_grids;
    bool split;    /* row-wise work is shared out */
    size_t lo, hi; /* the rows this member computes in row-wise work */
    cv_buffers common, own;
    float *matmul; /* scratch of cv_matmul_scratch(T) */
    const float *keep; /* [2 L][n_grids] what dropping paths leaves of each branch of a picture; NULL:
                          all of it */
    struct cv_tape *tape; /* NULL: nothing is recorded (tape.h) */
} cv_run;

/* Steps of at most this many rows are computed by everyone. */
#define CV_ROWS_FOR_ALL ((size_t)4)

/* Floats of a buffer, up to a whole cache line: what taking one of n floats uses up. */
static inline size_t cv_padded(size_t n)
{
    return (n + 15) / 16 * 16;
}

/* The same for what is read side by side with others of its size: rows of the same number then do not
 * meet in the same few sets of the first cache.  Lines come in pairs. */
static inline size_t cv_apart(size_t n)
{
    enum { MANY = 4096, FLOATS = 96 }; /* six lines */
    return cv_padded(n) + (n < MANY ? 0 : FLOATS);
}

/* Fills T, split, lo, hi; leaves the rest. */
void cv_run_rows(cv_run *run, size_t T);

/* The same for pictures: rows are shared out however few they are. */
void cv_run_grids(cv_run *run, const cv_grid *grids, size_t n_grids);

/* Rows [first, first + run.T) of a run as a run of one member: rows 0 to T.  Its products, norms and
 * buffers are this member's. */
typedef struct cv_tile {
    cv_run run;
    cv_member alone;
    size_t first;
    size_t end; /* of this member's rows, or of all */
} cv_tile;

#define CV_TILE ((size_t)192) /* whole tiles of products; its buffers stay in the second cache */

/* Walks this member's rows:  for (cv_tile t = cv_tile_begin(run); cv_tile_next(&t);) */
cv_tile cv_tile_begin(const cv_run *run);
bool cv_tile_next(cv_tile *tile);

/* n floats per row of a tile, this member's. */
float *cv_take_tile(cv_run *run, size_t width);

/* Where an op puts what it could have left in place: with a tape, which still needs what was there,
 * n floats for each row; else `instead`. */
float *cv_take_another(cv_run *run, size_t width, float *instead);

/* n floats in all: this member's, or everybody's. */
float *cv_take_scratch(cv_run *run, size_t n);
float *cv_take_shared(cv_run *run, size_t n);

/* n floats per row: written by all members in parts / by this member alone / by row-wise work. */
float *cv_take_common(cv_run *run, size_t width);
float *cv_take_own(cv_run *run, size_t width);
float *cv_take_rowwise(cv_run *run, size_t width);

static inline void cv_meet(const cv_run *run)
{
    cv_barrier(run->me);
}

static inline void cv_tile_meet(const cv_tile *tile)
{
    if (tile->run.tape) cv_barrier(tile->run.me);
}

static inline void cv_settle(const cv_run *run)
{
    if (run->split) cv_barrier(run->me);
}

#endif
