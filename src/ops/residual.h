/* residual.h - what is added to the residual stream of a picture, and rows copied and added. */
#ifndef CV_RESIDUAL_H
#define CV_RESIDUAL_H

#include "ops/tape.h"

/* x += keep gamma y for this member's rows; x and y are [T][C], rows of the run.
 *   gamma  [C], the scale of the layer, or NULL: 1
 *   keep   [n_grids], what each picture takes of it (0: nothing, y is not even read), or NULL: 1.
 *          The rows are then those of run->grids, which those of a tile are only with a tape.  No
 *          weight; it stays until the tape has been walked back. */
void cv_scale_add(const cv_run *run, size_t C, const float *gamma, const float *keep,
                  const float *y, float *x);

/* z = x for this member's rows. */
void cv_copy_rows(const cv_run *run, size_t C, const float *x, float *z);

/* y += a for this member's rows. */
void cv_add_rows(const cv_run *run, size_t C, const float *a, float *y);

#endif
