/* checked.h - the one layer of arithmetic on sizes that come from files. */
#ifndef CV_CHECKED_H
#define CV_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each returns false, and leaves *out alone, when the result does not fit. */
static inline bool cv_mul_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

static inline bool cv_add_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

static inline bool cv_u64_to_size(uint64_t a, size_t *out)
{
    if (a > SIZE_MAX) return false;
    *out = (size_t)a;
    return true;
}

/* Does [offset, offset + bytes) lie within a file of `size` bytes? */
static inline bool cv_range_within(uint64_t offset, uint64_t bytes, uint64_t size)
{
    return offset <= size && bytes <= size - offset;
}

/* a rounded up to a multiple of m (m > 0). */
static inline bool cv_round_up(size_t a, size_t m, size_t *out)
{
    size_t r = a % m;
    return cv_add_size(a, r ? m - r : 0, out);
}

#endif
