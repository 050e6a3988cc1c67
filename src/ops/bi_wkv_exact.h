/* bi_wkv_exact.h - Bi-WKV of one channel in double with running maxima: any decay, any key;
 * forward, and back. */
#ifndef CV_BI_WKV_EXACT_H
#define CV_BI_WKV_EXACT_H

#include <stddef.h>

#include "ops/bi_wkv.h"

/* A weighted sum that stands for N e^top and D e^top; every exponent that is taken is <= 0
 * [bi.wsum]. */
typedef struct cv_wsum {
    double N, D, top;
} cv_wsum;

/* w, u are already divided by T; k, v are ld apart, v becomes y.  future: [T], scratch. */
void cv_bi_wkv_exact(cv_bi_mode mode, size_t T, size_t ld, double w, double u, const float *k,
                     float *v, cv_wsum *future);

/* Walking the formula back.  w, u, k, v as above; dk is added to, dv is dy on entry, dw and du are
 * written. */
typedef struct cv_bi_exact_back {
    size_t T, ld;
    double w, u;
    const float *k, *v; /* T of them, ld apart */
    float *dk, *dv;
    double dw, du;
    cv_wsum *sums; /* [CV_BI_EXACT_SUMS T], scratch */
} cv_bi_exact_back;

#define CV_BI_EXACT_SUMS ((size_t)3)

void cv_bi_wkv_exact_back(cv_bi_exact_back *back);

#endif
