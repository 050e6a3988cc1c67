/* run.c - rows and buffers of a step. */
#include "ops/run.h"

void cv_run_rows(cv_run *run, size_t T)
{
    run->T = T;
    run->split = T > CV_ROWS_FOR_ALL && run->me->n > 1;
    run->lo = 0;
    run->hi = T;
    if (run->split) cv_share(run->me, T, &run->lo, &run->hi);
}

/* 64-byte aligned; while measuring (no base) only the size is counted. */
static float *take(cv_buffers *buffers, size_t floats)
{
    float *at = buffers->base ? buffers->base + buffers->used : NULL;
    buffers->used += (floats + 15) / 16 * 16;
    if (buffers->used > buffers->peak) buffers->peak = buffers->used;
    return at;
}

float *cv_take_common(cv_run *run, size_t width)
{
    return take(&run->common, run->T * width);
}

float *cv_take_own(cv_run *run, size_t width)
{
    return take(&run->own, run->T * width);
}

float *cv_take_rowwise(cv_run *run, size_t width)
{
    return run->split ? cv_take_common(run, width) : cv_take_own(run, width);
}
