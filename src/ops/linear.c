/* linear.c - products with weight matrices, and back; see linear.h. */
#include <math.h>
#include <string.h>

#include "ops/linear.h"

static void activate(const cv_kernels *kernel, cv_act act, size_t n, float *y)
{
    switch (act) {
    case CV_ACT_NONE: break;
    case CV_ACT_TANH: kernel->tanh(n, y, y); break;
    case CV_ACT_SIGMOID: kernel->sigmoid(n, y, y); break;
    case CV_ACT_SILU: kernel->silu(n, y, y); break;
    case CV_ACT_RELU2: kernel->relu2(n, y, y); break;
    }
}

/* Panels [lo, hi) of one product, and what follows on them. */
static void panels(const cv_run *run, const cv_linear *job, size_t lo, size_t hi)
{
    const cv_matrix *W = job->W;
    const size_t ldx = job->ldx ? job->ldx : W->cols;
    const size_t begin = lo * CV_PANEL, end = hi * CV_PANEL < W->rows ? hi * CV_PANEL : W->rows;
    for (size_t t = 0; job->bias && t < run->T; t++)
        memcpy(job->y + t * W->rows + begin, job->bias + begin, (end - begin) * sizeof *job->bias);
    run->kernel->matmul(W, lo, hi, run->T, job->x, ldx, job->y, W->rows, job->add || job->bias,
                        run->matmul);

    for (size_t t = 0; t < run->T; t++) {
        float *y = job->y + t * W->rows;
        if (run->tape && job->act == CV_ACT_SILU)
            memcpy(cv_memory_of(run, job->y, W->rows) + t * W->rows + begin, y + begin,
                   (end - begin) * sizeof *y);
        activate(run->kernel, job->act, end - begin, y + begin);
        if (!job->sum) continue;
        for (size_t i = begin; i < end; i++)
            job->sum[t * W->rows + i] += job->gate[t * W->rows + i] * y[i];
    }
}

static size_t panel_count(const cv_matrix *W)
{
    return (W->rows + CV_PANEL - 1) / CV_PANEL;
}

static void record_product(const cv_run *run, const cv_linear *job);

void cv_linear_all(const cv_run *run, const cv_linear *list, size_t n)
{
    size_t total = 0, lo, hi;
    for (size_t i = 0; i < n; i++)
        total += panel_count(list[i].W);
    cv_share(run->me, total, &lo, &hi);

    size_t first = 0; /* panels of the products before this one */
    for (size_t i = 0; i < n; i++) {
        size_t count = panel_count(list[i].W);
        size_t a = lo > first ? lo - first : 0;
        size_t b = hi > first ? hi - first : 0;
        if (b > count) b = count;
        if (a < b) panels(run, &list[i], a, b);
        first += count;
    }
    for (size_t i = 0; run->tape && i < n; i++)
        record_product(run, &list[i]);
}

void cv_linear_part(const cv_run *run, const cv_matrix *W, size_t lo, size_t hi, const float *x,
                    float *y)
{
    if (lo >= hi && !run->tape) return;
    cv_linear job = { .W = W, .x = x, .y = y };
    if (run->tape) record_product(run, &job);
    panels(run, &job, lo / CV_PANEL, (hi + CV_PANEL - 1) / CV_PANEL);
}

/* ---- Back ------------------------------------------------------------------------------------ */

/* f'(z) dy for the activations, from what they gave (SILU: from z), for n numbers in place. */
static void turn_back(cv_act act, size_t n, const float *y, const float *z, float *dy)
{
    for (size_t i = 0; i < n; i++) {
        float s;
        switch (act) {
        case CV_ACT_NONE: return;
        case CV_ACT_TANH: dy[i] *= 1.0f - y[i] * y[i]; break;
        case CV_ACT_SIGMOID: dy[i] *= y[i] * (1.0f - y[i]); break;
        case CV_ACT_RELU2: dy[i] *= 2.0f * sqrtf(y[i]); break;
        case CV_ACT_SILU:
            s = 1.0f / (1.0f + expf(-z[i]));
            dy[i] *= s * (1.0f + z[i] * (1.0f - s));
            break;
        }
    }
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
        float *dgate = cv_gradient(run, job->gate) + at;
        for (size_t i = 0; i < count; i++) {
            dgate[i] += dsum[i] * y[i];
            dy[at + i] = dsum[i] * gate[i];
        }
    }
    const float *z = job->act == CV_ACT_SILU ? cv_memory_of(run, job->y, n) + at : y;
    turn_back(job->act, count, y, z, dy + at);
    return dy;
}

/* Rows of X [T][ld] as panels of its transpose: 16 columns of all rows each, for panels [lo, hi). */
static void lay_out_rows(size_t lo, size_t hi, size_t T, size_t cols, size_t ld, const float *x,
                         float *panels_of)
{
    for (size_t p = lo; p < hi; p++) {
        const size_t c = p * CV_PANEL, n = cols - c < CV_PANEL ? cols - c : CV_PANEL;
        float *to = panels_of + p * T * CV_PANEL;
        for (size_t t = 0; t < T; t++, to += CV_PANEL) {
            memcpy(to, x + t * ld + c, n * sizeof *to);
            memset(to + n, 0, (CV_PANEL - n) * sizeof *to);
        }
    }
}

static cv_matrix panels_of_rows(size_t rows, size_t cols, const float *panels_at)
{
    return (cv_matrix){ .rows = rows,
                        .cols = cols,
                        .layout = CV_LAYOUT_F32,
                        .panel_bytes = cols * CV_PANEL * sizeof(float),
                        .panels = (const unsigned char *)panels_at };
}

enum { OUTS = 64 }; /* outputs whose gradients are turned at a time */

/* dW += dy^T x for this member's outputs; X are the inputs in panels. */
static void weight_gradient(const cv_run *run, const cv_matrix *W, const cv_matrix *X,
                            const float *dy, float *db)
{
    const size_t rows = W->rows, cols = W->cols, T = run->T;
    float *turned = run->tape->own;
    size_t lo, hi;
    cv_share(run->me, rows, &lo, &hi);
    for (size_t o = lo; o < hi; o += OUTS) {
        const size_t n = hi - o < OUTS ? hi - o : OUTS;
        for (size_t t = 0; t < T; t++)
            for (size_t i = 0; i < n; i++)
                turned[i * T + t] = dy[t * rows + o + i];
        for (size_t i = 0; db && i < n; i++)
            for (size_t t = 0; t < T; t++)
                db[o + i] += turned[i * T + t];
        run->kernel->matmul(X, 0, panel_count(X), n, turned, T, W->trained->gradient + o * cols,
                            cols, true, run->matmul);
    }
}

void cv_product_back(const cv_run *run, const cv_matrix *W, const float *x, size_t ldx,
                     const float *dy, float *dx, float *db)
{
    const cv_matrix *turned = &W->trained->turned;
    const size_t n = run->hi - run->lo;
    if (dx && n)
        run->kernel->matmul(turned, 0, panel_count(turned), n, dy + run->lo * W->rows, W->rows,
                            dx + run->lo * ldx, ldx, true, run->matmul);
    const cv_matrix X = panels_of_rows(W->cols, run->T, run->tape->scratch);
    size_t lo, hi;
    cv_share(run->me, panel_count(&X), &lo, &hi);
    lay_out_rows(lo, hi, run->T, W->cols, ldx, x, run->tape->scratch);
    cv_meet(run);
    weight_gradient(run, W, &X, dy, db);
}

static void back(const cv_run *run, const void *record)
{
    const cv_linear *job = record;
    const float *dy = product_gradient(run, job);
    cv_product_back(run, job->W, job->x, job->ldx ? job->ldx : job->W->cols, dy,
                    cv_gradient(run, job->x), job->bias ? cv_gradient(run, job->bias) : NULL);
}

static void record_product(const cv_run *run, const cv_linear *job)
{
    cv_linear *record = cv_record(run, back, sizeof *record);
    if (record) *record = *job;
}

size_t cv_linear_scratch(const cv_matrix *W, size_t T)
{
    return panel_count(&(cv_matrix){ .rows = W->cols }) * T * CV_PANEL;
}

size_t cv_linear_own_scratch(size_t T)
{
    return OUTS * T;
}

void cv_trained_lay_out(const cv_member *me, const cv_matrix *W)
{
    const cv_trained *t = W->trained;
    size_t lo, hi;
    cv_share(me, panel_count(&t->turned), &lo, &hi);
    lay_out_rows(lo, hi, W->rows, W->cols, W->cols, t->value,
                 (float *)(size_t)(const void *)t->turned.panels);
    /* And W itself, whose panels are columns of the transpose. */
    cv_share(me, panel_count(W), &lo, &hi);
    for (size_t p = lo; p < hi; p++) {
        float *to = (float *)(size_t)(const void *)(W->panels + p * W->panel_bytes);
        for (size_t j = 0; j < W->cols; j++)
            for (size_t i = 0; i < CV_PANEL; i++)
                *to++ =
                    p * CV_PANEL + i < W->rows ? t->value[(p * CV_PANEL + i) * W->cols + j] : 0.0f;
    }
}
