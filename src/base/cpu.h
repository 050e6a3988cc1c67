/* cpu.h - what this processor can do, and what the caller allows. */
#ifndef CV_CPU_H
#define CV_CPU_H

#include <stddef.h>

/* Levels of the kernel tables, each one including those before it on the same architecture. */
typedef enum cv_cpu_level {
    CV_CPU_REF = 0,    /* plain C, any machine */
    CV_CPU_AVX2 = 1,   /* x86: AVX2, FMA, F16C */
    CV_CPU_AVX512 = 2, /* x86: AVX-512 F, BW, DQ, VL */
    CV_CPU_NEON = 3    /* arm64 */
} cv_cpu_level;

cv_cpu_level cv_cpu_best(void); /* the best this machine runs (OS support included) */
size_t cv_cpu_count(void);      /* processors this process may use */
const char *cv_cpu_level_name(cv_cpu_level level);

/* "ref", "avx2", "avx512", "neon"; returns 0 and leaves *level alone for anything else. */
int cv_cpu_level_parse(const char *name, cv_cpu_level *level);

#endif
