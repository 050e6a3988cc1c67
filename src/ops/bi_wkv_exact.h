/* bi_wkv_exact.h - Bi-WKV of one channel in double with running maxima: any decay, any key. */
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

#endif
