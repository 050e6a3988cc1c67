/* logit_row.h - walks over a row of logits, which are as many as the vocabulary has tokens: wide ones.
 * What a softmax and its scores are made of, but for the exponential, which is a kernel. */
#ifndef CV_LOGIT_ROW_H
#define CV_LOGIT_ROW_H

#include <stddef.h>

/* The largest of n; -infinity where none of them is a number. */
float cv_largest(size_t n, const float *x);

/* The first of the largest of n; where none of them is a number, any. */
size_t cv_best_logit(size_t n, const float *x);

/* to = x - top; to may be x. */
void cv_below(size_t n, const float *x, float top, float *to);

double cv_sum_of(size_t n, const float *x);

/* x = x scale - less */
void cv_scale_down(size_t n, float scale, float less, float *x);

#endif
