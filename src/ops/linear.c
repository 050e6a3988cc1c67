/* linear.c - products with weight matrices, and back; see linear.h. */
#include <math.h>
#include <string.h>

#include "base/smaller.h"
#include "base/wide.h"
#include "ops/linear.h"
#include "tensor/dtype.h"

static void activate(const cv_kernels *kernel, cv_act act, size_t n, float *y)
{
    switch (act) {
    case CV_ACT_NONE: break;
    case CV_ACT_TANH: kernel->tanh(n, y, y); break;
    case CV_ACT_SIGMOID: kernel->sigmoid(n, y, y); break;
    case CV_ACT_SILU: kernel->silu(n, y, y); break;
    case CV_ACT_GELU: kernel->gelu(n, y, y); break;
    case CV_ACT_RELU2: kernel->relu2(n, y, y); break;
    }
}

/* Does walking back need what went into the activation? */
static bool keeps_input(cv_act act)
{
    return act == CV_ACT_SILU || act == CV_ACT_GELU;
}

/* What a member does of a product: rows [first, last) of panels [lo, hi). */
typedef struct part {
    size_t first, last, lo, hi;
} part;

/* One product, and what follows on it. */
static void product(const cv_run *run, const cv_linear *job, const part *p)
{
    const cv_matrix *W = job->W;
    const size_t ldx = job->ldx ? job->ldx : W->cols;
    const size_t begin = p->lo * CV_PANEL, end = cv_smaller(p->hi * CV_PANEL, W->rows);
    for (size_t t = p->first; job->bias && t < p->last; t++)
        memcpy(job->y + t * W->rows + begin, job->bias + begin, (end - begin) * sizeof *job->bias);
    run->kernel->matmul(W, p->lo, p->hi, p->last - p->first, job->x + p->first * ldx, ldx,
                        job->y + p->first * W->rows, W->rows, job->add || job->bias, run->matmul);

    for (size_t t = p->first; t < p->last; t++) {
        float *y = job->y + t * W->rows;
        if (run->tape && keeps_input(job->act))
            memcpy(cv_memory_of(run, job->y, W->rows) + t * W->rows + begin, y + begin,
                   (end - begin) * sizeof *y);
        activate(run->kernel, job->act, end - begin, y + begin);
        const size_t at = t * W->rows + begin;
        if (job->sum) run->kernel->mul_add(end - begin, job->gate + at, y + begin, job->sum + at);
    }
}

static size_t panel_count(const cv_matrix *W)
{
    return (W->rows + CV_PANEL - 1) / CV_PANEL;
}

static void record_product(const cv_run *run, const cv_linear *job);

/* All panels of all products are one list, of which each member does its share. */
static void share_panels(const cv_run *run, const cv_linear *list, size_t n, size_t total)
{
    size_t lo, hi, first = 0; /* first: panels of the products before this one */
    cv_share(run->me, total, &lo, &hi);
    for (size_t i = 0; i < n; i++) {
        const size_t count = panel_count(list[i].W);
        const part p = { .first = 0,
                         .last = run->T,
                         .lo = lo > first ? lo - first : 0,
                         .hi = cv_smaller(hi > first ? hi - first : 0, count) };
        if (p.lo < p.hi) product(run, &list[i], &p);
        first += count;
    }
}

/* Each member does all products for its share of the rows. */
static void share_rows(const cv_run *run, const cv_linear *list, size_t n)
{
    part p = { .lo = 0 };
    cv_share(run->me, run->T, &p.first, &p.last);
    for (size_t i = 0; i < n && p.first < p.last; i++) {
        p.hi = panel_count(list[i].W);
        product(run, &list[i], &p);
    }
}

void cv_linear_all(const cv_run *run, const cv_linear *list, size_t n)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += panel_count(list[i].W);
    /* Members that share panels all read the inputs; those that share rows, the weights. */
    if (run->T > total * CV_PANEL)
        share_rows(run, list, n);
    else
        share_panels(run, list, n, total);
    for (size_t i = 0; run->tape && i < n; i++)
        record_product(run, &list[i]);
}

void cv_linear_part(const cv_run *run, const cv_matrix *W, size_t lo, size_t hi, const float *x,
                    float *y)
{
    if (lo >= hi && !run->tape) return;
    cv_linear job = { .W = W, .x = x, .y = y };
    if (run->tape) record_product(run, &job);
    const part p = { 0, run->T, lo / CV_PANEL, (hi + CV_PANEL - 1) / CV_PANEL };
    product(run, &job, &p);
}

/* ---- Back ------------------------------------------------------------------------------------ */

/* f'(z) dy for the activations, from what they gave, for n numbers in place; those that need z have
 * functions of their own. */
CV_WIDE
static void turn_back(cv_act act, size_t n, const float *restrict y, float *restrict dy)
{
    switch (act) {
    case CV_ACT_NONE:
    case CV_ACT_SILU:
    case CV_ACT_GELU: break;
    case CV_ACT_TANH:
        for (size_t i = 0; i < n; i++)
            dy[i] *= 1.0f - y[i] * y[i];
        break;
    case CV_ACT_SIGMOID:
        for (size_t i = 0; i < n; i++)
            dy[i] *= y[i] * (1.0f - y[i]);
        break;
    case CV_ACT_RELU2:
        for (size_t i = 0; i < n; i++)
            dy[i] *= 2.0f * sqrtf(y[i]);
        break;
    }
}

/* From z and s = sigma(z). */
CV_WIDE
static void silu_rest_back(size_t n, const float *restrict z, const float *restrict s,
                           float *restrict dy)
{
    for (size_t i = 0; i < n; i++)
        dy[i] *= s[i] * (1.0f + z[i] * (1.0f - s[i]));
}

static void silu_back(const cv_kernels *kernel, size_t n, const float *z, float *dy)
{
    enum { PIECE = 512 };
    float s[PIECE];
    for (size_t i = 0; i < n; i += PIECE) {
        const size_t m = cv_smaller(PIECE, n - i);
        kernel->sigmoid(m, z + i, s);
        silu_rest_back(m, z + i, s, dy + i);
    }
}

/* y gate was added to the sum:  dgate += dsum y,  dy = dsum gate. */
CV_WIDE
static void gate_back(size_t n, const float *restrict dsum, const float *restrict y,
                      const float *restrict gate, float *restrict dgate, float *restrict dy)
{
    for (size_t i = 0; i < n; i++) {
        dgate[i] += dsum[i] * y[i];
        dy[i] = dsum[i] * gate[i];
    }
}

/* sum += all rows. */
CV_WIDE
static void add_rows(size_t T, size_t n, const float *restrict rows, size_t ld, float *restrict sum)
{
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < n; i++)
            sum[i] += rows[t * ld + i];
}

/* The gradient of W x for this member's rows, where that of y stands; with `add` it is that of y
 * itself, which others still need. */
static const float *product_gradient(const cv_run *run, const cv_linear *job)
{
    const size_t n = job->W->rows, at = run->lo * n, count = (run->hi - run->lo) * n;
    float *dy = cv_gradient(run, job->y);
    if (job->add) return dy;
    const float *y = job->y + at;
    if (job->sum) {
        const float *dsum = cv_gradient(run, job->sum) + at, *gate = job->gate + at;
        gate_back(count, dsum, y, gate, cv_gradient(run, job->gate) + at, dy + at);
    }
    const float *z = keeps_input(job->act) ? cv_memory_of(run, job->y, n) + at : y;
    if (job->act == CV_ACT_GELU)
        run->kernel->gelu_back(count, z, dy + at);
    else if (job->act == CV_ACT_SILU)
        silu_back(run->kernel, count, z, dy + at);
    else
        turn_back(job->act, count, y, dy + at);
    return dy;
}

void cv_product_back(const cv_run *run, const cv_matrix *W, const float *x, size_t ldx,
                     const float *dy, float *dx, bool add, float *db)
{
    const cv_matrix *turned = &W->trained->turned;
    const size_t n = run->hi - run->lo;
    size_t lo, hi;
    if (dx && n)
        run->kernel->matmul(turned, 0, panel_count(turned), n, dy + run->lo * W->rows, W->rows,
                            dx + run->lo * ldx, ldx, add, run->matmul);
    if (db) {
        cv_own_columns(run, W->rows, &lo, &hi);
        add_rows(run->T, hi - lo, dy + lo, W->rows, db + lo);
    }
    /* All members read the shorter side of the gradient. */
    const bool by_rows = W->rows >= W->cols;
    cv_own_columns(run, by_rows ? W->rows : W->cols, &lo, &hi);
    if (lo >= hi) return;
    float *dW = W->trained->gradient;
    if (by_rows)
        run->kernel->outer(run->T, hi - lo, W->cols, dy + lo, W->rows, x, ldx, dW + lo * W->cols,
                           W->cols, W->rounded, run->tape->own);
    else
        run->kernel->outer(run->T, W->rows, hi - lo, dy, W->rows, x + lo, ldx, dW + lo, W->cols,
                           W->rounded, run->tape->own);
}

static void back(const cv_run *run, const void *record)
{
    const cv_linear *job = record;
    const size_t ldx = job->ldx ? job->ldx : job->W->cols;
    const float *dy = product_gradient(run, job);
    if (job->sum || job->act != CV_ACT_NONE) cv_meet(run); /* dy was turned, by rows */
    bool add;
    float *dx = cv_gradient_into(run, job->x, run->T * job->W->cols, &add);
    cv_product_back(run, job->W, job->x, ldx, dy, dx, add,
                    job->bias ? cv_gradient(run, job->bias) : NULL);
}

static void record_product(const cv_run *run, const cv_linear *job)
{
    cv_linear *record = cv_record(run, back, sizeof *record);
    if (record) *record = *job;
}

size_t cv_linear_own_scratch(void)
{
    return CV_OUTER_SCRATCH;
}

/* ---- Layouts --------------------------------------------------------------------------------- */

enum { LAID = 64 }; /* inputs that are laid out together: long rows are converted faster */

/* n inputs of a panel, as they are stored. */
static void store_inputs(const cv_matrix *W, const float *numbers, size_t p, size_t j, size_t n)
{
    unsigned char *to =
        (unsigned char *)(size_t)(W->panels + p * W->panel_bytes) + j * (W->panel_bytes / W->cols);
    if (W->layout == CV_LAYOUT_BF16)
        cv_from_f32(CV_BF16, numbers, to, n * CV_PANEL);
    else
        memcpy(to, numbers, n * CV_PANEL * sizeof *numbers);
}

/* Panels [lo, hi) of W. */
static void lay_out(const cv_kernels *kernel, const cv_matrix *W, size_t lo, size_t hi,
                    const float *value)
{
    float numbers[LAID * CV_PANEL];
    for (size_t p = lo; p < hi; p++)
        for (size_t j = 0; j < W->cols; j += LAID) {
            const size_t n = cv_smaller(LAID, W->cols - j);
            kernel->turn(cv_smaller(CV_PANEL, W->rows - p * CV_PANEL), n,
                         value + p * CV_PANEL * W->cols + j, W->cols, numbers, CV_PANEL);
            store_inputs(W, numbers, p, j, n);
        }
}

/* Panels [lo, hi) of its transpose, whose inputs are rows of value: a few rows at a time, so that
 * they are read from end to end. */
static void lay_out_turned(const cv_matrix *turned, size_t lo, size_t hi, const float *value)
{
    enum { FEW = 16 };
    for (size_t j = 0; j < turned->cols; j += FEW)
        for (size_t p = lo; p < hi; p++) {
            const size_t n = cv_smaller(FEW, turned->cols - j), first = p * CV_PANEL;
            const size_t there = cv_smaller(CV_PANEL, turned->rows - first);
            const float *from = value + j * turned->rows + first;
            float numbers[FEW][CV_PANEL];
            for (size_t i = 0; i < n; i++, from += turned->rows)
                if (there == CV_PANEL)
                    memcpy(numbers[i], from, sizeof numbers[i]);
                else
                    for (size_t k = 0; k < CV_PANEL; k++)
                        numbers[i][k] = k < there ? from[k] : 0.0f;
            store_inputs(turned, numbers[0], p, j, n);
        }
}

void cv_trained_lay_out(const cv_member *me, const cv_kernels *kernel, const cv_matrix *W)
{
    const cv_trained *t = W->trained;
    size_t lo, hi;
    cv_share(me, panel_count(W), &lo, &hi);
    lay_out(kernel, W, lo, hi, t->value);
    cv_share(me, panel_count(&t->turned), &lo, &hi);
    lay_out_turned(&t->turned, lo, hi, t->value);
}
