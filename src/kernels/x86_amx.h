/* x86_amx.h - the two kernels that AMX has of its own; the rest of its table is x86_avx512.c's. */
#ifndef CV_X86_AMX_H
#define CV_X86_AMX_H

#include "kernels/kernels.h"

/* As matmul in kernels.h, for all layouts.  The process must be allowed to use
 * the tiles: cv_cpu_allow_amx. */
void cv_amx_matmul(const cv_matrix *W, size_t lo, size_t hi, size_t T, const float *x, size_t ldx,
                   float *y, size_t ldy, bool add, float *scratch);

/* As outer in kernels.h. */
void cv_amx_outer(size_t T, size_t n, size_t m, const float *a, size_t lda, const float *b,
                  size_t ldb, float *W, size_t ldw, bool rounded, float *scratch);

#endif
