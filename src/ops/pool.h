/* pool.h - one vector for each picture. [vrwkv.pool] */
#ifndef CV_POOL_H
#define CV_POOL_H

#include "ops/tape.h"

/* pooled [n_grids][C]: the mean of z [T][C] over the tokens of each picture, or with a class token
 * that token's row.  z is complete; members share the channels, so pooled is after the next
 * cv_meet. */
void cv_pool(const cv_run *run, size_t C, bool class_token, const float *z, float *pooled);

#endif
