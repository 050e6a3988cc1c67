/* pool.c - the mean over a picture, and back; see pool.h. */
#include <string.h>

#include "ops/pool.h"

typedef struct pool_record {
    size_t C;
    bool class_token;
    const float *z;
    float *pooled;
} pool_record;

/* Of the rows of a picture, those that went into its vector: [*begin, *end). */
static void pooled_rows(const cv_grid *g, bool class_token, size_t *begin, size_t *end)
{
    const size_t cells = g->h * g->w;
    *begin = g->begin + (class_token ? cells : 0);
    *end = g->begin + cells + (class_token ? 1 : 0);
}

/* Each of those rows, where it is this member's:  dz = dpooled / their number. */
static void pool_back(const cv_run *run, const void *record)
{
    const pool_record *r = record;
    const size_t C = r->C;
    const float *d = cv_gradient(run, r->pooled);
    float *dz = cv_gradient(run, r->z);
    for (size_t i = 0; i < run->n_grids; i++, d += C) {
        size_t begin, end;
        pooled_rows(&run->grids[i], r->class_token, &begin, &end);
        const float share = 1.0f / (float)(end - begin);
        for (size_t t = begin > run->lo ? begin : run->lo; t < end && t < run->hi; t++)
            for (size_t c = 0; c < C; c++)
                dz[t * C + c] += d[c] * share;
    }
}

/* Channels [lo, hi) of the mean of rows [begin, end). */
static void mean(size_t begin, size_t end, size_t C, size_t lo, size_t hi, const float *z,
                 float *pooled)
{
    enum { WIDTH = 64 };
    for (size_t at = lo; at < hi; at += WIDTH) {
        const size_t n = hi - at < WIDTH ? hi - at : WIDTH;
        double sum[WIDTH] = { 0.0 };
        for (size_t t = begin; t < end; t++)
            for (size_t c = 0; c < n; c++)
                sum[c] += (double)z[t * C + at + c];
        for (size_t c = 0; c < n; c++)
            pooled[at + c] = (float)(sum[c] / (double)(end - begin));
    }
}

void cv_pool(const cv_run *run, size_t C, bool class_token, const float *z, float *pooled)
{
    pool_record *r = cv_record(run, pool_back, sizeof *r);
    if (r) *r = (pool_record){ C, class_token, z, pooled };
    size_t lo, hi;
    cv_share(run->me, C, &lo, &hi);
    for (size_t i = 0; i < run->n_grids; i++, pooled += C) {
        size_t begin, end;
        pooled_rows(&run->grids[i], class_token, &begin, &end);
        if (class_token)
            memcpy(pooled + lo, z + begin * C + lo, (hi - lo) * sizeof *pooled);
        else
            mean(begin, end, C, lo, hi, z, pooled);
    }
}
