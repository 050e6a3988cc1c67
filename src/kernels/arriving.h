/* arriving.h - asking for numbers before they are worked on.
 *
 * What many rows are multiplied by or packed from has left the caches, and the processor does not see
 * it coming where it jumps from row to row.  Asked for in time it costs nothing: a few lines at a
 * time, while tiles are at work. */
#ifndef CV_ARRIVING_H
#define CV_ARRIVING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CV_LINE ((size_t)16) /* floats of a line of the cache */

/* Asks for n floats so many further on, wherever memory ends: into the first cache, or into the
 * second where they are wanted a while later. */
static inline __attribute__((always_inline)) void cv_fetch(const float *x, size_t further, size_t n,
                                                           bool later)
{
    const uintptr_t there = (uintptr_t)x + further * sizeof *x;
    for (size_t i = 0; i < n; i += CV_LINE)
        if (later)
            __builtin_prefetch((const void *)(there + i * sizeof *x), 0, 2);
        else
            __builtin_prefetch((const void *)(there + i * sizeof *x), 0, 3);
}

/* Asks for n numbers of each of some arrays.  For walks over a part of every row, as one head: that the
 * rest is skipped the processor does not foresee. */
static inline __attribute__((always_inline)) void cv_fetch_all(const float *const *arrays,
                                                               size_t many, size_t at, size_t n)
{
    for (size_t a = 0; a < many; a++)
        cv_fetch(arrays[a], at, n, false);
}

#define CV_ROWS_AHEAD ((size_t)8) /* such a walk asks for rows so many further on */

/* Rows that are packed next. */
typedef struct cv_arriving {
    const float *x;
    size_t ld, rows;
} cv_arriving;

/* The next of them; `instead` where none is left. */
static inline const float *cv_take_arriving(cv_arriving *next, const float *instead)
{
    if (next->rows == 0) return instead;
    const float *x = next->x;
    next->rows--;
    next->x += next->ld;
    return x;
}

/* What an outer product packs of x after a block: of the same tokens, from column `at` on; after the
 * last block of these tokens, of those that come then. */
static inline cv_arriving cv_packed_after(bool last, const float *x, size_t ld, size_t at,
                                          size_t tokens, size_t then)
{
    return last ? (cv_arriving){ x + tokens * ld, ld, then } : (cv_arriving){ x + at, ld, tokens };
}

#endif
