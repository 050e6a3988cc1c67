/* wide.h - loops over numbers, compiled for several widths of vectors.
 *
 * CV_WIDE before a function has the compiler make it for each of them; which one runs is decided as
 * the program is loaded.  What it computes is the same in all, to the bit: nothing is contracted, and
 * the compiler does not change the order of a sum.  A sum over a row therefore goes through
 * CV_LANES sums side by side, which stand in the text.
 *
 * This is for what is done once to each number, on the way back above all; what a model spends its
 * time in is in src/kernels. */
#ifndef CV_WIDE_H
#define CV_WIDE_H

#include <stddef.h>
#include <stdint.h> /* says whether this is glibc; stddef.h does not */

/* Choosing as the program is loaded is known to GCC and glibc; sanitizers are not ready by then. */
#if defined __x86_64__ && defined __GLIBC__ && defined __OPTIMIZE__ && !defined __clang__ && \
    !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
/* Inlined it would be the narrowest of them: a caller is compiled for any processor. */
#define CV_WIDE __attribute__((noinline, target_clones("avx512f", "avx2", "default")))
#else
#define CV_WIDE
#endif

#define CV_LANES ((size_t)16)

/* For a function that is part of wide ones. */
#define CV_WIDE_PART static inline __attribute__((always_inline))

/* The sum of CV_LANES sums. */
CV_WIDE_PART double cv_lanes_sum(const double *lanes)
{
    double sum = 0.0;
    for (size_t i = 0; i < CV_LANES; i++)
        sum += lanes[i];
    return sum;
}

#endif
