/* pack.h - from rows as files have them to panels as the kernels want them. */
#ifndef CV_PACK_H
#define CV_PACK_H

#include "kernels/kernels.h"
#include "tensor/dtype.h"

/* One panel from up to 16 raw rows of the type that W was laid out for; missing rows are zero.
 *   rows      [n_rows][row_bytes], row-major
 *   scale     multiplies every weight (a power of two)
 *   panel     [W->panel_bytes], out */
void cv_pack_panel(const cv_matrix *W, cv_dtype type, const unsigned char *rows, size_t row_bytes,
                   size_t n_rows, float scale, unsigned char *panel);

#endif
