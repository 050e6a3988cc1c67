/* schedule.c - curves and warm-ups; see schedule.h. */
#include "train/schedule.h"

#include <math.h>

static const double PI = 3.14159265358979323846;

cv_schedule cv_schedule_rwkv(double first, double last, int64_t tokens, uint64_t tokens_per_step,
                             uint64_t warm_steps, double warm_from)
{
    const double step = tokens_per_step ? (double)tokens_per_step : 1.0;
    return (cv_schedule){
        .curve = tokens > 0   ? CV_RATE_COSINE
                 : tokens < 0 ? CV_RATE_MEAN
                              : CV_RATE_CONSTANT,
        .first = first,
        .last = last,
        .end = fabs((double)tokens) / step,
        .warmup = CV_WARMUP_BEFORE,
        .warm_steps = warm_steps,
        .warm_from = warm_from,
    };
}

cv_schedule cv_schedule_vrwkv(double first, uint64_t steps, uint64_t warm_steps)
{
    return (cv_schedule){
        .curve = CV_RATE_COSINE,
        .first = first,
        .last = 0.01 * first,
        .end = (double)steps,
        .warmup = CV_WARMUP_OVER,
        .warm_steps = warm_steps,
        .warm_from = 1e-3,
    };
}

cv_schedule cv_schedule_vrwkv_l(double first, double last, double warm_first, uint64_t steps,
                                uint64_t warm_steps)
{
    return (cv_schedule){
        .curve = CV_RATE_COSINE,
        .first = first,
        .last = last,
        .end = (double)steps,
        .warmup = CV_WARMUP_INSTEAD,
        .warm_steps = warm_steps,
        .warm_from = first > 0.0 ? warm_first / first : 0.0,
    };
}

double cv_schedule_progress(const cv_schedule *s, uint64_t step)
{
    const double start = s->warmup == CV_WARMUP_BEFORE ? (double)s->warm_steps : 0.0;
    if (!(s->end > start)) return s->end > 0.0 && (double)step >= s->end ? 1.0 : 0.0;
    return fmin(1.0, fmax(0.0, ((double)step - start) / (s->end - start)));
}

/* [train.cosine] */
static double curve_at(const cv_schedule *s, double p)
{
    const double linear = s->first + (s->last - s->first) * p;
    const double cosine = s->last + 0.5 * (s->first - s->last) * (1.0 + cos(PI * p));
    const double exponential =
        s->first > 0.0 && s->last > 0.0 ? s->first * pow(s->last / s->first, p) : linear;
    switch (s->curve) {
    case CV_RATE_CONSTANT: break;
    case CV_RATE_LINEAR: return linear;
    case CV_RATE_COSINE: return cosine;
    case CV_RATE_EXPONENTIAL: return exponential;
    case CV_RATE_MEAN: return 0.5 * (cosine + exponential);
    }
    return s->first;
}

/* [train.warmup] */
double cv_schedule_at(const cv_schedule *s, uint64_t step)
{
    const double lr = curve_at(s, cv_schedule_progress(s, step));
    if (step >= s->warm_steps) return lr;
    const double rise = s->warm_from + (1.0 - s->warm_from) * (double)step / (double)s->warm_steps;
    return rise * (s->warmup == CV_WARMUP_INSTEAD ? s->first : lr);
}

bool cv_schedule_over(const cv_schedule *s, uint64_t step)
{
    return s->end > 0.0 && (double)step >= s->end;
}
