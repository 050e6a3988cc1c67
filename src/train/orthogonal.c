/* orthogonal.c - QR of Gaussian matrices by Gram and Schmidt, a panel of rows at a time.
 *
 * The rows are numbers of a Gaussian, so they are never dependent, and where their span is not
 * nearly the whole space they are far from it.  Gram and Schmidt's diagonal of R is positive as it
 * comes, which is the sign that makes Q uniformly distributed.  A panel that lost much of its length
 * when the rows before were taken out of it is taken through once more ("twice is enough"), so the
 * result is orthonormal to the last digits also for square matrices.  Nearly all work is products of
 * a panel with the rows before it, in tiles of 2 x 4 dot products. */
#include "train/orthogonal.h"

#include <math.h>
#include <string.h>

enum {
    SLAB = 512
}; /* numbers of a row that are worked on together: a panel of them fits a cache */

/* Two numbers side by side, which every processor of today multiplies at once. */
typedef double pair __attribute__((vector_size(16), may_alias));

static const pair *pairs(const double *x)
{
    return (const pair *)(const void *)x;
}

static pair *pairs_of(double *x)
{
    return (pair *)(void *)x;
}

/* ---- One row ---------------------------------------------------------------------------------- */

static double dot(size_t n, const double *x, const double *y)
{
    pair s[4] = { { 0.0, 0.0 } };
    const pair *a = pairs(x), *b = pairs(y);
    for (size_t i = 0; i < n / 2; i += 4)
        for (size_t j = 0; j < 4; j++)
            s[j] += a[i + j] * b[i + j];
    const pair sum = (s[0] + s[1]) + (s[2] + s[3]);
    return sum[0] + sum[1];
}

/* y -= a x */
static void take_out(size_t n, double a, const double *x, double *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] -= a * x[i];
}

static void scale(size_t n, double a, double *x)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= a;
}

/* ---- A panel against the rows before it -------------------------------------------------------- */

/* dots[b][q] += <V_b, Q_q> over a slab, b in 0..1, q in 0..3.
 *   ld  numbers between rows;  n  between rows of dots */
static void tile_dots(size_t slab, size_t ld, const double *V, const double *Q, size_t n,
                      double *dots)
{
    pair s[2][4] = { { { 0.0, 0.0 } } };
    const pair *v[2] = { pairs(V), pairs(V + ld) };
    const pair *q[4] = { pairs(Q), pairs(Q + ld), pairs(Q + 2 * ld), pairs(Q + 3 * ld) };
    for (size_t i = 0; i < slab / 2; i++) {
        const pair v0 = v[0][i], v1 = v[1][i];
        const pair q0 = q[0][i], q1 = q[1][i], q2 = q[2][i], q3 = q[3][i];
        s[0][0] += v0 * q0;
        s[0][1] += v0 * q1;
        s[0][2] += v0 * q2;
        s[0][3] += v0 * q3;
        s[1][0] += v1 * q0;
        s[1][1] += v1 * q1;
        s[1][2] += v1 * q2;
        s[1][3] += v1 * q3;
    }
    for (size_t b = 0; b < 2; b++)
        for (size_t j = 0; j < 4; j++)
            dots[b * n + j] += s[b][j][0] + s[b][j][1];
}

/* V_b -= sum_q dots[b][q] Q_q over a slab. */
static void tile_take_out(size_t slab, size_t ld, double *V, const double *Q, size_t n,
                          const double *dots)
{
    pair d[2][4];
    pair *v[2] = { pairs_of(V), pairs_of(V + ld) };
    const pair *q[4] = { pairs(Q), pairs(Q + ld), pairs(Q + 2 * ld), pairs(Q + 3 * ld) };
    for (size_t b = 0; b < 2; b++)
        for (size_t j = 0; j < 4; j++)
            d[b][j] = (pair){ dots[b * n + j], dots[b * n + j] };
    for (size_t i = 0; i < slab / 2; i++) {
        const pair q0 = q[0][i], q1 = q[1][i], q2 = q[2][i], q3 = q[3][i];
        v[0][i] -= (d[0][0] * q0 + d[0][1] * q1) + (d[0][2] * q2 + d[0][3] * q3);
        v[1][i] -= (d[1][0] * q0 + d[1][1] * q1) + (d[1][2] * q2 + d[1][3] * q3);
    }
}

/* Takes the first n_q rows of Q, a multiple of the panel, out of n rows behind them. */
static void project(size_t n, size_t ld, double *V, size_t n_q, const double *Q, double *dots)
{
    memset(dots, 0, CV_ORTHOGONAL_PANEL * n_q * sizeof *dots);
    for (size_t at = 0; at < ld; at += SLAB) {
        const size_t slab = ld - at < SLAB ? ld - at : SLAB;
        for (size_t q = 0; q < n_q; q += 4)
            for (size_t b = 0; b < n; b += 2)
                tile_dots(slab, ld, V + b * ld + at, Q + q * ld + at, n_q, dots + b * n_q + q);
    }
    for (size_t at = 0; at < ld; at += SLAB) {
        const size_t slab = ld - at < SLAB ? ld - at : SLAB;
        for (size_t q = 0; q < n_q; q += 4)
            for (size_t b = 0; b < n; b += 2)
                tile_take_out(slab, ld, V + b * ld + at, Q + q * ld + at, n_q, dots + b * n_q + q);
    }
}

/* The rows of a panel among themselves.  Gives the smallest share of its length that a row had left.
 *   before  [n]  squares of the lengths they came with */
static double orthonormalise_panel(size_t n, size_t ld, double *V, const double *before)
{
    double least = 1.0;
    for (size_t i = 0; i < n; i++) {
        double *row = V + i * ld;
        for (size_t j = 0; j < i; j++)
            take_out(ld, dot(ld, row, V + j * ld), V + j * ld, row);
        const double left = dot(ld, row, row);
        scale(ld, left > 0.0 ? 1.0 / sqrt(left) : 0.0, row);
        least = fmin(least, sqrt(left / before[i]));
    }
    return least;
}

void cv_orthonormalise(size_t n, size_t ld, double *V, double *dots)
{
    enum { PASSES = 4 }; /* two are enough; more would mean rows that depend on each other */
    double before[CV_ORTHOGONAL_PANEL];
    for (size_t first = 0; first < n; first += CV_ORTHOGONAL_PANEL) {
        const size_t rows = n - first < CV_ORTHOGONAL_PANEL ? n - first : CV_ORTHOGONAL_PANEL;
        double *panel = V + first * ld, least = 0.0;
        for (size_t pass = 0; pass < PASSES && least < 0.5; pass++) {
            for (size_t i = 0; i < rows; i++)
                before[i] = dot(ld, panel + i * ld, panel + i * ld);
            project(rows, ld, panel, first, V, dots);
            least = orthonormalise_panel(rows, ld, panel, before);
        }
    }
}

/* ---- A matrix ---------------------------------------------------------------------------------- */

static void fill_gaussian(cv_rng *rng, size_t n, size_t m, size_t ld, double *V)
{
    memset(V, 0, (n + n % 2) * ld * sizeof *V);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++)
            V[i * ld + j] = (double)cv_rng_normal(rng);
}

/* out = gain V, or its transpose: columns 16 at a time, so that both sides are read in runs. */
static void give(const double *V, size_t ld, size_t rows, size_t cols, double gain, float *out)
{
    enum { RUN = 16 };
    if (rows < cols) {
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < cols; j++)
                out[i * cols + j] = (float)(gain * V[i * ld + j]);
        return;
    }
    for (size_t j = 0; j < cols; j += RUN)
        for (size_t i = 0; i < rows; i++)
            for (size_t r = j; r < cols && r < j + RUN; r++)
                out[i * cols + r] = (float)(gain * V[r * ld + i]);
}

corvid_status cv_orthogonal(const corvid_allocator *mem, cv_rng *rng, size_t rows, size_t cols,
                            double gain, float *out, corvid_error *err)
{
    const size_t n = rows < cols ? rows : cols, m = rows < cols ? cols : rows;
    const size_t ld = (m + CV_ORTHOGONAL_PAD - 1) / CV_ORTHOGONAL_PAD * CV_ORTHOGONAL_PAD;
    double *V = NULL, *dots = NULL;
    void *block;
    corvid_status status =
        cv_alloc_or_fail(mem, n + n % 2, ld * sizeof *V, "an orthogonal matrix", &block, err);
    if (status != CORVID_OK) return status;
    V = block;
    status = cv_alloc_or_fail(mem, CV_ORTHOGONAL_PANEL * n, sizeof *dots,
                              "the dot products of an orthogonal matrix", &block, err);
    if (status == CORVID_OK) {
        dots = block;
        fill_gaussian(rng, n, m, ld, V);
        cv_orthonormalise(n, ld, V, dots);
        give(V, ld, rows, cols, gain, out);
    }
    cv_free(mem, dots);
    cv_free(mem, V);
    return status;
}
