/* dims.h - how many elements and bytes a tensor of given dims and type has, checked. */
#ifndef CV_DIMS_H
#define CV_DIMS_H

#include "base/checked.h"
#include "formats/checkpoint.h"

/* The product of the dims.  False when it does not fit, also where a zero would hide that: then
 * the product of any of the dims fits as well, whoever computes it later. */
static inline bool cv_dims_count(const size_t *dims, int n_dims, size_t *count)
{
    size_t product = 1;
    bool empty = false;
    for (int i = 0; i < n_dims; i++) {
        if (dims[i] == 0)
            empty = true;
        else if (!cv_mul_size(product, dims[i], &product))
            return false;
    }
    *count = empty ? 0 : product;
    return true;
}

/* Do whole blocks of the type fill each row?  Plain types have blocks of one element. */
static inline bool cv_dims_fit_blocks(const size_t *dims, int n_dims, cv_dtype type)
{
    size_t row = n_dims > 0 ? dims[n_dims - 1] : 1;
    return row % cv_dtype_of(type)->block == 0;
}

#endif
