/* x86_amx.h - the one kernel that AMX has of its own; the rest of its table is x86_avx512.c's. */
#ifndef CV_X86_AMX_H
#define CV_X86_AMX_H

#include "kernels/kernels.h"

/* As matmul in kernels.h, for the layouts F16, BF16 and Q8.  The process must be allowed to use
 * the tiles: cv_cpu_allow_amx. */
void cv_amx_matmul(const cv_matrix *W, size_t lo, size_t hi, size_t T, const float *x, size_t ldx,
                   float *y, size_t ldy, bool add, float *scratch);

#endif
