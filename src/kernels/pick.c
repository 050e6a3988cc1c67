/* pick.c - which kernel table serves a level on this build and machine. */
#include "kernels/kernels.h"

#if defined(__x86_64__)
extern const cv_kernels cv_kernels_avx2, cv_kernels_avx512, cv_kernels_amx, cv_kernels_bf16;
#elif defined(__aarch64__)
extern const cv_kernels cv_kernels_neon;
#endif

const cv_kernels *cv_kernels_for(cv_cpu_level level)
{
    if (level == CV_CPU_REF) return &cv_kernels_ref;
#if defined(__x86_64__)
    cv_cpu_level best = cv_cpu_best();
    if (level == CV_CPU_AVX2 && best >= CV_CPU_AVX2) return &cv_kernels_avx2;
    if (level == CV_CPU_AVX512 && best >= CV_CPU_AVX512) return &cv_kernels_avx512;
    if (level == CV_CPU_BF16 && cv_cpu_has_bf16()) return &cv_kernels_bf16;
    if (level == CV_CPU_AMX && cv_cpu_allow_amx()) return &cv_kernels_amx;
#elif defined(__aarch64__)
    if (level == CV_CPU_NEON) return &cv_kernels_neon;
#endif
    return NULL;
}

const cv_kernels *cv_kernels_widest(void)
{
    const cv_kernels *widest = cv_kernels_for(cv_cpu_widest());
    if (!widest) widest = cv_kernels_for(CV_CPU_BF16); /* the system refuses tiles */
    return widest ? widest : cv_kernels_for(cv_cpu_best());
}
