/* cpu.h - what this processor can do, and what the caller allows. */
#ifndef CV_CPU_H
#define CV_CPU_H

#include <stdbool.h>
#include <stddef.h>

/* Levels of the kernel tables, each one including those before it on the same architecture.  The
 * numbers say nothing about which is better across architectures. */
typedef enum cv_cpu_level {
    CV_CPU_REF = 0,    /* plain C, any machine */
    CV_CPU_AVX2 = 1,   /* x86: AVX2, FMA, F16C */
    CV_CPU_AVX512 = 2, /* x86: AVX-512 F, BW, DQ, VL */
    CV_CPU_NEON = 3,   /* arm64 */
    CV_CPU_AMX = 4,    /* x86: AVX-512 with its BF16, AMX tiles of BF16 */
    CV_CPU_BF16 = 5    /* x86: AVX-512 with its BF16 */
} cv_cpu_level;

/* The best level this machine runs (OS support included) that multiplies in f32; never CV_CPU_AMX,
 * which splits its numbers (docs/decisions/0009-amx-with-split-activations.md), nor CV_CPU_BF16, which
 * differs where they may be rounded. */
cv_cpu_level cv_cpu_best(void);

/* CV_CPU_AMX where the machine and the system have it, else CV_CPU_BF16 where the machine has that,
 * else cv_cpu_best().  Only looks: the system may still refuse the first, see cv_cpu_allow_amx. */
cv_cpu_level cv_cpu_widest(void);

bool cv_cpu_has_bf16(void); /* CV_CPU_BF16 runs here */

/* Asks the system to let every thread of this process use AMX tiles, which makes the frame of a
 * signal 8 KiB larger.  False where there is no AMX, or where the system refuses: a thread has an
 * alternate signal stack too small for such a frame.  May be called again, from any thread. */
bool cv_cpu_allow_amx(void);

size_t cv_cpu_count(void); /* processors this process may use */
const char *cv_cpu_level_name(cv_cpu_level level);

/* "ref", "avx2", "avx512", "neon", "amx", "bf16"; returns 0 and leaves *level alone for anything else. */
int cv_cpu_level_parse(const char *name, cv_cpu_level *level);

#endif
