/* channel_mix.h - the channel mixing of RWKV-4, 5 and 6: squared ReLU behind a receptance gate.
 *
 *     k = relu(K xk)^2     out = sigma(R xr) * (V k)                                  [v4.cmix] */
#ifndef CV_CHANNEL_MIX_H
#define CV_CHANNEL_MIX_H

#include "models/model.h"

typedef struct cv_channel_mix {
    cv_norm ln2;              /* [C] */
    const float *mu_k, *mu_r; /* [C], multiply prev */
    cv_matrix K, R, V;        /* [F, C], [C, C], [C, F] */
} cv_channel_mix;

typedef struct cv_channel_buffers {
    float *z, *xk, *xr; /* [T][C] rowwise */
    float *k, *r, *v;   /* [T][F], [T][C] common */
} cv_channel_buffers;

void cv_channel_mix_take(cv_run *run, const cv_sizes *s, cv_channel_buffers *b);

/* x += channel mix, for all rows; shift: offset of the remembered vector in the state. */
void cv_channel_mix_rows(const cv_run *run, const cv_sizes *s, const cv_channel_mix *p,
                         size_t shift, float *x, const cv_channel_buffers *b);

#endif
