/* run.c - rows and buffers of a step. */
#include "ops/run.h"

#include "ops/tape.h"

void cv_run_rows(cv_run *run, size_t T)
{
    run->T = T;
    run->split = run->tape || (T > CV_ROWS_FOR_ALL && run->me->n > 1);
    run->lo = 0;
    run->hi = T;
    if (run->split) cv_share(run->me, T, &run->lo, &run->hi);
}

void cv_run_grids(cv_run *run, const cv_grid *grids, size_t n_grids)
{
    const cv_grid *last = &grids[n_grids - 1];
    run->grids = grids;
    run->n_grids = n_grids;
    run->T = last->begin + last->n;
    run->split = true;
    cv_share(run->me, run->T, &run->lo, &run->hi);
}

cv_tile cv_tile_begin(const cv_run *run)
{
    cv_tile tile = { .run = *run, .first = run->lo, .end = run->hi };
    tile.alone = (cv_member){ .team = run->me->team, .id = 0, .n = 1 };
    tile.run.T = 0;
    if (run->tape) {
        tile.first = 0;
        tile.end = run->T;
    }
    return tile;
}

bool cv_tile_next(cv_tile *tile)
{
    cv_run *run = &tile->run;
    tile->first += run->T;
    const size_t left = tile->end - tile->first;
    if (run->tape) {
        run->T = tile->end;
        return left > 0;
    }
    run->me = &tile->alone; /* here, because a tile may be copied when it begins */
    run->T = run->hi = left < CV_TILE ? left : CV_TILE;
    run->lo = 0;
    return left > 0;
}

/* 64-byte aligned; while measuring (no base) only the size is counted. */
static float *take(cv_buffers *buffers, size_t floats)
{
    float *at = buffers->base ? buffers->base + buffers->used : NULL;
    buffers->used += cv_apart(floats);
    if (buffers->used > buffers->peak) buffers->peak = buffers->used;
    return at;
}

/* One that all members see, and a tape. */
static float *take_common(cv_run *run, size_t floats)
{
    if (run->tape) cv_place(run->tape, run->common.used);
    return take(&run->common, floats);
}

float *cv_take_common(cv_run *run, size_t width)
{
    return take_common(run, run->T * width);
}

float *cv_take_own(cv_run *run, size_t width)
{
    if (run->tape) return cv_take_common(run, width); /* values stay, and have gradients */
    return take(&run->own, run->T * width);
}

float *cv_take_rowwise(cv_run *run, size_t width)
{
    return run->split ? cv_take_common(run, width) : cv_take_own(run, width);
}

float *cv_take_tile(cv_run *run, size_t width)
{
    return run->tape ? cv_take_common(run, width) : take(&run->own, CV_TILE * width);
}

float *cv_take_another(cv_run *run, size_t width, float *instead)
{
    return run->tape ? cv_take_common(run, width) : instead;
}

float *cv_take_scratch(cv_run *run, size_t n)
{
    if (!run->tape) return take(&run->own, n);
    float *all = take_common(run, run->me->n * cv_padded(n));
    return all ? all + run->me->id * cv_padded(n) : NULL;
}

float *cv_take_shared(cv_run *run, size_t n)
{
    return take_common(run, n);
}
