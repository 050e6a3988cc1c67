/* linear.c - products with weight matrices; see linear.h. */
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
}

void cv_linear_part(const cv_run *run, const cv_matrix *W, size_t lo, size_t hi, const float *x,
                    float *y)
{
    if (lo >= hi) return;
    cv_linear job = { .W = W, .x = x, .y = y };
    panels(run, &job, lo / CV_PANEL, (hi + CV_PANEL - 1) / CV_PANEL);
}
