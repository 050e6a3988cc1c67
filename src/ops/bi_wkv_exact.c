/* bi_wkv_exact.c - Bi-WKV of one channel in double, forward and back, and what the GPU kernels make
 * of it; see bi_wkv_exact.h.  Not fast: it serves weights beyond the range of the fast way, and
 * comparisons with a GPU. */
#include <math.h>

#include "ops/bi_wkv_exact.h"

static const cv_wsum nothing = { 0.0, 0.0, -HUGE_VAL };

static cv_wsum plus(cv_wsum a, cv_wsum b)
{
    if (a.top < b.top) return plus(b, a);
    if (isinf(b.top)) return a;
    const double s = exp(b.top - a.top);
    return (cv_wsum){ a.N + s * b.N, a.D + s * b.D, a.top };
}

/* e^exponent a */
static cv_wsum weigh(cv_wsum a, double exponent)
{
    a.top += exponent;
    return a;
}

static cv_wsum times(cv_wsum a, double factor)
{
    return (cv_wsum){ factor * a.N, factor * a.D, a.top };
}

/* What the GPU kernels miss of the sum for token t of a block that begins `offset` tokens before
 * it, because their block states are one step off: (e^-w - 1) times what comes from before the
 * block and from behind its first token [bi.cuda]. */
static cv_wsum slip(cv_wsum past_at_start, cv_wsum future_at_start, double w, double offset)
{
    const cv_wsum both =
        plus(weigh(past_at_start, -offset * w), weigh(future_at_start, offset * w));
    return times(both, expm1(-w));
}

void cv_bi_wkv_exact(cv_bi_mode mode, size_t T, size_t ld, double w, double u, const float *k,
                     float *v, cv_wsum *future)
{
    const size_t blocks = (size_t)mode, block = mode ? (T + blocks - 1) / blocks : T;
    const double epsilon = mode ? 1e-6 : 0.0; /* added by the kernels to the scaled denominator */
    cv_wsum past = nothing, past_at_start = nothing, sum = nothing;
    for (size_t t = T; t-- > 0;) {
        future[t] = sum;
        sum = plus(weigh(sum, -w), (cv_wsum){ (double)v[t * ld], 1.0, (double)k[t * ld] });
    }
    for (size_t t = 0; t < T; t++) {
        const cv_wsum own = { (double)v[t * ld], 1.0, (double)k[t * ld] };
        const size_t offset = t % block;
        if (offset == 0) past_at_start = past;
        cv_wsum all = plus(plus(past, future[t]), weigh(own, u));
        if (mode) all = plus(all, slip(past_at_start, future[t - offset], w, (double)offset));
        v[t * ld] = (float)(all.N / (all.D + epsilon));
        past = plus(weigh(past, -w), own);
    }
}

/* e^exponent (gradient.N s.N - gradient.D s.D): what a sum does to the loss, by its gradient. */
static double cross(cv_wsum gradient, cv_wsum s, double exponent)
{
    return exp(gradient.top + s.top + exponent) * (gradient.N * s.N - gradient.D * s.D);
}

static cv_wsum key_of(const cv_bi_exact_back *x, size_t t)
{
    return (cv_wsum){ (double)x->v[t * x->ld], 1.0, (double)x->k[t * x->ld] };
}

/* The sums on both sides of each token, and what it passes on: its dy over its denominator, without
 * y and with it.  The tops of these are the highest of all that weighs on the token, with the sign
 * turned, so that no exponent further on is positive. */
static void sum_again(const cv_bi_exact_back *x, cv_wsum *past, cv_wsum *future, cv_wsum *share)
{
    cv_wsum sum = nothing;
    for (size_t t = x->T; t-- > 0;) {
        future[t] = sum;
        sum = plus(weigh(sum, -x->w), key_of(x, t));
    }
    sum = nothing;
    for (size_t t = 0; t < x->T; t++) {
        const cv_wsum own = key_of(x, t), all = plus(plus(sum, future[t]), weigh(own, x->u));
        const double h = (double)x->dv[t * x->ld] / all.D;
        past[t] = sum;
        share[t] = (cv_wsum){ h, h * (all.N / all.D), -all.top };
        sum = plus(weigh(sum, -x->w), own);
    }
}

void cv_bi_wkv_exact_back(cv_bi_exact_back *x)
{
    cv_wsum *past = x->sums, *future = past + x->T, *share = future + x->T, sum = nothing;
    sum_again(x, past, future, share);
    x->dw = x->du = 0.0;
    for (size_t t = x->T; t-- > 0;) {
        x->dw -= cross(sum, past[t], -x->w);
        past[t] = sum; /* from here on that of shares */
        sum = plus(weigh(sum, -x->w), share[t]);
    }
    sum = nothing;
    for (size_t t = 0; t < x->T; t++) {
        const cv_wsum key = key_of(x, t), self = weigh(share[t], x->u);
        const cv_wsum all = plus(plus(sum, past[t]), self);
        x->dw -= cross(sum, future[t], -x->w);
        x->du += cross(self, key, 0.0);
        x->dk[t * x->ld] += (float)cross(all, key, 0.0);
        x->dv[t * x->ld] = (float)(exp(all.top + key.top) * all.N);
        sum = plus(weigh(sum, -x->w), share[t]);
    }
}
