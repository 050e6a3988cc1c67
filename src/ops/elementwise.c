/* elementwise.c - number by number, and back; see elementwise.h. */
#include "base/wide.h"
#include "kernels/arriving.h"
#include "ops/elementwise.h"

/* ---- Biased curves --------------------------------------------------------------------------- */

typedef struct biased_record {
    cv_curve f;
    size_t begin, end, A;
    const float *bias;
    float *y;
} biased_record;

#define DECAY7_RATE ((float)0.60653065971263342) /* e^-1/2 */

/* Turns dy into the gradient of bias + y, for one row.  The decays remember the exponential or
 * sigmoid inside: near 1 they themselves have lost its digits. */
CV_WIDE
static void curve_back(cv_curve f, size_t n, const float *restrict y, const float *restrict inner,
                       float *restrict dy)
{
    switch (f) {
    case CV_CURVE_SIGMOID:
        for (size_t c = 0; c < n; c++)
            dy[c] *= y[c] * (1.0f - y[c]);
        break;
    case CV_CURVE_DECAY6:
        for (size_t c = 0; c < n; c++)
            dy[c] *= -y[c] * inner[c];
        break;
    case CV_CURVE_DECAY7:
        for (size_t c = 0; c < n; c++)
            dy[c] *= -DECAY7_RATE * y[c] * inner[c] * (1.0f - inner[c]);
        break;
    }
}

CV_WIDE
static void add_row(size_t n, const float *restrict row, float *restrict sum)
{
    for (size_t c = 0; c < n; c++)
        sum[c] += row[c];
}

static void biased_back(const cv_run *run, const void *record)
{
    const biased_record *r = record;
    const float *inner = cv_memory_of(run, r->y, r->A);
    float *dy = cv_gradient(run, r->y), *db = cv_gradient(run, r->bias);
    const float *const rows[] = { r->y, inner, dy };
    for (size_t t = 0; t < run->T; t++) {
        const size_t at = t * r->A + r->begin, n = r->end - r->begin;
        cv_fetch_all(rows, sizeof rows / sizeof *rows, at + CV_ROWS_AHEAD * r->A, n);
        curve_back(r->f, n, r->y + at, inner + at, dy + at);
        if (db) add_row(n, dy + at, db + r->begin);
    }
}

/* Above this the decay is 0, and infinity times 0 would be no number. */
#define LARGEST_EXPONENTIAL 1e30f

static void remember(const cv_kernels *kernel, cv_curve f, size_t n, const float *x, float *inner)
{
    if (f == CV_CURVE_DECAY7) kernel->sigmoid(n, x, inner);
    if (f != CV_CURVE_DECAY6) return;
    kernel->exp(n, x, inner);
    for (size_t c = 0; c < n; c++)
        if (inner[c] > LARGEST_EXPONENTIAL) inner[c] = LARGEST_EXPONENTIAL;
}

static void curve(const cv_kernels *kernel, cv_curve f, size_t n, float *y)
{
    switch (f) {
    case CV_CURVE_SIGMOID: kernel->sigmoid(n, y, y); break;
    case CV_CURVE_DECAY6: kernel->decay6(n, y, y); break;
    case CV_CURVE_DECAY7: kernel->decay7(n, y, y); break;
    }
}

void cv_biased(const cv_run *run, cv_curve f, size_t begin, size_t end, size_t A, const float *bias,
               float *y)
{
    biased_record *r = cv_record(run, biased_back, sizeof *r);
    if (r) *r = (biased_record){ f, begin, end, A, bias, y };
    float *inner = r ? cv_memory_of(run, y, A) : NULL;
    const float *const rows[] = { y };
    for (size_t t = 0; t < run->T; t++) {
        float *row = y + t * A;
        cv_fetch_all(rows, 1, t * A + begin + CV_ROWS_AHEAD * A, end - begin);
        add_row(end - begin, bias + begin, row + begin);
        if (r) remember(run->kernel, f, end - begin, row + begin, inner + t * A + begin);
        curve(run->kernel, f, end - begin, row + begin);
    }
}

/* ---- Shift decided by the token -------------------------------------------------------------- */

typedef struct mix_record {
    size_t n;
    const float *z, *d, *mu, *m, *x;
} mix_record;

/* dmu may be NULL. */
CV_WIDE
static void mix_row_back(size_t n, const float *restrict dx, const float *restrict d,
                         const float *restrict mu, const float *restrict m, float *restrict dz,
                         float *restrict dd, bool add_m, float *restrict dm, float *restrict dmu)
{
    for (size_t c = 0; c < n; c++) {
        dz[c] += dx[c];
        dd[c] += dx[c] * (mu[c] + m[c]);
        cv_give(add_m, dx[c] * d[c], &dm[c]);
    }
    for (size_t c = 0; dmu && c < n; c++)
        dmu[c] += dx[c] * d[c];
}

/* By columns, because of the sum over rows. */
static void mix_back(const cv_run *run, const void *record)
{
    const mix_record *r = record;
    const float *dx = cv_gradient(run, r->x);
    float *dz = cv_gradient(run, r->z), *dd = cv_gradient(run, r->d);
    bool add_m;
    float *dm = cv_gradient_into(run, r->m, run->T * r->n, &add_m);
    float *dmu = cv_gradient(run, r->mu);
    size_t lo, hi;
    cv_own_columns(run, r->n, &lo, &hi);
    for (size_t t = 0; t < run->T; t++) {
        const size_t at = t * r->n + lo;
        mix_row_back(hi - lo, dx + at, r->d + at, r->mu + lo, r->m + at, dz + at, dd + at, add_m,
                     dm + at, dmu ? dmu + lo : NULL);
    }
}

CV_WIDE
static void mix_row(size_t n, const float *restrict z, const float *restrict d,
                    const float *restrict mu, const float *restrict m, float *restrict x)
{
    for (size_t c = 0; c < n; c++)
        x[c] = z[c] + d[c] * (mu[c] + m[c]);
}

void cv_mix_by_token(const cv_run *run, size_t n, const float *z, const float *d, const float *mu,
                     const float *m, float *x)
{
    mix_record *r = cv_record(run, mix_back, sizeof *r);
    if (r) *r = (mix_record){ n, z, d, mu, m, x };
    for (size_t t = run->lo; t < run->hi; t++)
        mix_row(n, z + t * n, d + t * n, mu, m + t * n, x + t * n);
}

/* ---- Blend ----------------------------------------------------------------------------------- */

typedef struct blend_record {
    size_t begin, end, A;
    const float *v, *first, *share, *out;
} blend_record;

CV_WIDE
static void blend_row_back(size_t n, const float *restrict d, const float *restrict v,
                           const float *restrict first, const float *restrict share, bool add_v,
                           bool add_first, bool add_share, float *restrict dv,
                           float *restrict dfirst, float *restrict dshare)
{
    for (size_t c = 0; c < n; c++)
        cv_give(add_v, d[c] * (1.0f - share[c]), &dv[c]);
    for (size_t c = 0; c < n; c++)
        cv_give(add_first, d[c] * share[c], &dfirst[c]);
    for (size_t c = 0; c < n; c++)
        cv_give(add_share, d[c] * (first[c] - v[c]), &dshare[c]);
}

/* out may be v. */
CV_WIDE
static void blend_row(size_t n, const float *v, const float *restrict first,
                      const float *restrict share, float *out)
{
    for (size_t c = 0; c < n; c++)
        out[c] = v[c] + (first[c] - v[c]) * share[c];
}

/* The gradient of `first` gathers over all layers that blend it in. */
static void blend_back(const cv_run *run, const void *record)
{
    const blend_record *r = record;
    const float *d = cv_gradient(run, r->out);
    const size_t all = run->T * r->A;
    bool add_v, add_first, add_share;
    float *dv = cv_gradient_into(run, r->v, all, &add_v);
    float *dfirst = cv_gradient_into(run, r->first, all, &add_first);
    float *dshare = cv_gradient_into(run, r->share, all, &add_share);
    const float *const rows[] = { d, r->v, r->first, r->share, dfirst };
    for (size_t t = 0; t < run->T; t++) {
        const size_t at = t * r->A + r->begin;
        cv_fetch_all(rows, sizeof rows / sizeof *rows, at + CV_ROWS_AHEAD * r->A,
                     r->end - r->begin);
        blend_row_back(r->end - r->begin, d + at, r->v + at, r->first + at, r->share + at, add_v,
                       add_first, add_share, dv + at, dfirst + at, dshare + at);
    }
}

void cv_blend(const cv_run *run, size_t begin, size_t end, size_t A, const float *v,
              const float *first, const float *share, float *out)
{
    blend_record *r = cv_record(run, blend_back, sizeof *r);
    if (r) *r = (blend_record){ begin, end, A, v, first, share, out };
    const float *const rows[] = { v, first, share };
    for (size_t t = 0; t < run->T; t++) {
        const size_t at = t * A + begin;
        cv_fetch_all(rows, sizeof rows / sizeof *rows, at + CV_ROWS_AHEAD * A, end - begin);
        blend_row(end - begin, v + at, first + at, share + at, out + at);
    }
}
