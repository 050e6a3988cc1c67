/* x86_bf16.h - the two kernels that AVX-512 BF16 has of its own, both for what may be rounded to
 * bf16; the rest of its table is x86_avx512.c's. */
#ifndef CV_X86_BF16_H
#define CV_X86_BF16_H

#include "kernels/kernels.h"

/* As matmul in kernels.h, for matrices that are `rounded`. */
void cv_bf16_matmul(const cv_matrix *W, size_t lo, size_t hi, size_t T, const float *x, size_t ldx,
                    float *y, size_t ldy, bool add, float *scratch);

/* As outer in kernels.h, rounded. */
void cv_bf16_outer(size_t T, size_t n, size_t m, const float *a, size_t lda, const float *b,
                   size_t ldb, float *W, size_t ldw, float *scratch);

#endif
