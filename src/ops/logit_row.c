/* logit_row.c - walks over a row of logits; see logit_row.h. */
#include "ops/logit_row.h"

#include <math.h>

#include "base/smaller.h"
#include "base/wide.h"

CV_WIDE
float cv_largest(size_t n, const float *x)
{
    float top[CV_LANES];
    for (size_t j = 0; j < CV_LANES; j++)
        top[j] = -INFINITY;
    size_t i = 0;
    for (; i + CV_LANES <= n; i += CV_LANES)
        for (size_t j = 0; j < CV_LANES; j++)
            top[j] = x[i + j] > top[j] ? x[i + j] : top[j];
    for (; i < n; i++)
        top[0] = x[i] > top[0] ? x[i] : top[0];
    for (size_t j = 1; j < CV_LANES; j++)
        top[0] = top[j] > top[0] ? top[j] : top[0];
    return top[0];
}

size_t cv_best_logit(size_t n, const float *x)
{
    enum { PART = 512 };
    size_t part = 0;
    float top = cv_largest(cv_smaller(PART, n), x);
    for (size_t i = PART; i < n; i += PART) {
        const float here = cv_largest(cv_smaller(PART, n - i), x + i);
        if (!(here > top)) continue;
        top = here;
        part = i;
    }
    const size_t end = cv_smaller(part + PART, n);
    for (size_t i = part; i < end; i++)
        if (x[i] == top) return i;
    return part; /* none of them is a number */
}

CV_WIDE
double cv_sum_of(size_t n, const float *x)
{
    double s[CV_LANES] = { 0.0 };
    size_t i = 0;
    for (; i + CV_LANES <= n; i += CV_LANES)
        for (size_t j = 0; j < CV_LANES; j++)
            s[j] += (double)x[i + j];
    for (; i < n; i++)
        s[0] += (double)x[i];
    return cv_lanes_sum(s);
}

CV_WIDE
void cv_below(size_t n, const float *x, float top, float *to)
{
    for (size_t i = 0; i < n; i++)
        to[i] = x[i] - top;
}

CV_WIDE
void cv_scale_down(size_t n, float scale, float less, float *x)
{
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] * scale - less;
}
