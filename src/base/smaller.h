/* smaller.h - the smaller of two sizes. */
#ifndef CV_SMALLER_H
#define CV_SMALLER_H

#include <stddef.h>

static inline size_t cv_smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

#endif
