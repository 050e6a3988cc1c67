/* residual.c - sums and copies of rows, and back; see residual.h. */
#include <string.h>

#include "base/wide.h"
#include "ops/residual.h"

CV_WIDE
static void add_numbers(size_t n, const float *restrict from, float *restrict to)
{
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
}

static void add(const cv_run *run, size_t C, const float *from, float *to)
{
    add_numbers((run->hi - run->lo) * C, from + run->lo * C, to + run->lo * C);
}

static void copy(const cv_run *run, size_t C, const float *from, float *to)
{
    memcpy(to + run->lo * C, from + run->lo * C, (run->hi - run->lo) * C * sizeof *to);
}

/* ---- Scaled ---------------------------------------------------------------------------------- */

typedef struct scale_record {
    size_t C;
    const float *gamma, *keep, *y;
    float *x;
} scale_record;

/* What row t's picture takes; *picture walks along with the rows. */
static float share_of(const cv_run *run, const float *keep, size_t t, size_t *picture)
{
    if (!keep) return 1.0f;
    while (t >= run->grids[*picture].begin + run->grids[*picture].n)
        ++*picture;
    return keep[*picture];
}

/* One row, share gamma from, set or added. */
CV_WIDE
static void give_scaled(size_t C, const float *restrict gamma, float share, bool add,
                        const float *restrict from, float *restrict to)
{
    for (size_t c = 0; gamma && c < C; c++)
        cv_give(add, share * gamma[c] * from[c], &to[c]);
    for (size_t c = 0; !gamma && c < C; c++)
        cv_give(add, share * from[c], &to[c]);
}

static void scale_row(const cv_run *run, size_t C, const float *gamma, float share, bool add,
                      const float *from, float *to)
{
    if (add && share == 0.0f) return;
    if (add && gamma && share == 1.0f)
        run->kernel->mul_add(C, gamma, from, to);
    else
        give_scaled(C, gamma, share, add, from, to);
}

/* dgamma += share dx y of a row. */
CV_WIDE
static void gamma_back(size_t n, float share, const float *restrict dx, const float *restrict y,
                       float *restrict dgamma)
{
    for (size_t c = 0; c < n; c++)
        dgamma[c] += share * dx[c] * y[c];
}

/* dy = keep gamma dx, in which x and y have changed places;  dgamma = sum keep dx y for this
 * member's channels. */
static void scale_back(const cv_run *run, const void *record)
{
    const scale_record *r = record;
    const size_t C = r->C;
    const float *dx = cv_gradient(run, r->x);
    float *dgamma = r->gamma ? cv_gradient(run, r->gamma) : NULL;
    bool add;
    float *dy = cv_gradient_into(run, r->y, run->T * C, &add);
    size_t picture = 0, lo, hi;
    for (size_t t = run->lo; t < run->hi; t++) {
        const float share = share_of(run, r->keep, t, &picture);
        scale_row(run, C, r->gamma, share, add, dx + t * C, dy + t * C);
    }
    picture = 0;
    cv_own_columns(run, C, &lo, &hi);
    for (size_t t = 0; dgamma && t < run->T; t++) {
        const float share = share_of(run, r->keep, t, &picture);
        const size_t at = t * C + lo;
        if (share != 0.0f) gamma_back(hi - lo, share, dx + at, r->y + at, dgamma + lo);
    }
}

void cv_scale_add(const cv_run *run, size_t C, const float *gamma, const float *keep,
                  const float *y, float *x)
{
    scale_record *r = cv_record(run, scale_back, sizeof *r);
    if (r) *r = (scale_record){ C, gamma, keep, y, x };
    size_t picture = 0;
    for (size_t t = run->lo; t < run->hi; t++)
        scale_row(run, C, gamma, share_of(run, keep, t, &picture), true, y + t * C, x + t * C);
}

/* ---- As they are ----------------------------------------------------------------------------- */

typedef struct rows_record {
    size_t C;
    const float *from;
    float *to;
} rows_record;

/* Copied or added, a row gives back what it gets. */
static void rows_back(const cv_run *run, const void *record)
{
    const rows_record *r = record;
    const float *dto = cv_gradient(run, r->to);
    bool adds;
    float *dfrom = cv_gradient_into(run, r->from, run->T * r->C, &adds);
    if (adds)
        add(run, r->C, dto, dfrom);
    else
        copy(run, r->C, dto, dfrom);
}

static void record_rows(const cv_run *run, size_t C, const float *from, float *to)
{
    rows_record *r = cv_record(run, rows_back, sizeof *r);
    if (r) *r = (rows_record){ C, from, to };
}

void cv_copy_rows(const cv_run *run, size_t C, const float *x, float *z)
{
    record_rows(run, C, x, z);
    copy(run, C, x, z);
}

void cv_add_rows(const cv_run *run, size_t C, const float *a, float *y)
{
    record_rows(run, C, a, y);
    add(run, C, a, y);
}
