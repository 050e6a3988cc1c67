/* kernel_check.h - what the tests of the kernels share: tables, fenced memory, random numbers.
 *
 * Needs nothing but the floors below ops, so that it builds where no other library is. */
#ifndef TEST_KERNEL_CHECK_H
#define TEST_KERNEL_CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support.h"

#include "base/rng.h"
#include "kernels/kernels.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Half a unit in the last place of one: the largest relative error of one rounding. */
#define ROUNDING 0x1p-24

/* ---- tables --------------------------------------------------------------------------------- */

/* The tables of this build and machine, ref first; NULL past the end. */
static inline const cv_kernels *table_at(size_t i)
{
    static const cv_cpu_level LEVELS[] = { CV_CPU_REF, CV_CPU_AVX2, CV_CPU_AVX512, CV_CPU_NEON };
    for (size_t l = 0; l < COUNT(LEVELS); l++) {
        const cv_kernels *table = cv_kernels_for(LEVELS[l]);
        if (table && i-- == 0) return table;
    }
    return NULL;
}

/* The same, and behind them those of AMX and of BF16, whose products are their own. */
static inline const cv_kernels *product_table(size_t i)
{
    size_t n = 0;
    while (table_at(n))
        n++;
    if (i < n) return table_at(i);
    const cv_kernels *amx = cv_kernels_for(CV_CPU_AMX), *bf16 = cv_kernels_for(CV_CPU_BF16);
    return i == n ? (amx ? amx : bf16) : i == n + 1 && amx ? bf16 : NULL;
}

static inline const char *table_name(const cv_kernels *table)
{
    return cv_cpu_level_name(table->level);
}

/* ---- memory that faults when it is overrun -------------------------------------------------- */

/* A block whose end is the start of a page that nobody may touch. */
typedef struct fence {
    unsigned char *map, *end;
    size_t bytes;
} fence;

static inline void fence_make(fence *f, size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    f->bytes = (bytes + page - 1) / page * page;
    f->map =
        mmap(NULL, f->bytes + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(f->map != MAP_FAILED);
    assert_int_equal(mprotect(f->map, page, PROT_NONE), 0);
    f->end = f->map + page + f->bytes;
    assert_int_equal(mprotect(f->end, page, PROT_NONE), 0);
}

static inline void fence_free(fence *f)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    munmap(f->map, f->bytes + 2 * page);
}

/* The last n floats before the fence: aligned to 4 bytes, and for most n to no more. */
static inline float *fence_floats(const fence *f, size_t n)
{
    assert_true(n * sizeof(float) <= f->bytes);
    return (float *)(void *)f->end - n;
}

/* The last n bytes before the fence, from a multiple of 64 bytes on. */
static inline void *fence_aligned(const fence *f, size_t n)
{
    const size_t room = (n + 63) / 64 * 64;
    assert_true(room <= f->bytes);
    return f->end - room;
}

/* ---- numbers -------------------------------------------------------------------------------- */

static inline size_t random_below(cv_rng *rng, size_t n)
{
    return (size_t)(cv_rng_next(rng) % n);
}

/* In [lo, hi]. */
static inline size_t random_in(cv_rng *rng, size_t lo, size_t hi)
{
    return lo + random_below(rng, hi - lo + 1);
}

static inline float random_between(cv_rng *rng, float lo, float hi)
{
    return lo + (hi - lo) * (float)cv_rng_uniform(rng);
}

static inline void fill_normal(cv_rng *rng, float *x, size_t n, float middle, float width)
{
    for (size_t i = 0; i < n; i++)
        x[i] = middle + width * cv_rng_normal(rng);
}

static inline void fill_between(cv_rng *rng, float *x, size_t n, float lo, float hi)
{
    for (size_t i = 0; i < n; i++)
        x[i] = random_between(rng, lo, hi);
}

static inline bool same_bits(const float *a, const float *b, size_t n)
{
    return n == 0 || memcmp(a, b, n * sizeof *a) == 0;
}

static inline float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

#endif
