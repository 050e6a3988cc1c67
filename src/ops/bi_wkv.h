/* bi_wkv.h - the WKV of pictures: every token sees all others, in linear time. [bi.wkv]
 *
 * Two sweeps that only add, in blocks of tokens; one exponential per key.  Work is cut into pieces
 * of 16 channels and at most CV_BI_SEGMENT tokens of one picture, which are shared out over the
 * team; how it is cut depends on the shapes alone. */
#ifndef CV_BI_WKV_H
#define CV_BI_WKV_H

#include "ops/run.h"

/* What is evaluated: the formula, or what the published GPU kernels make of it with so many blocks
 * of tokens [bi.cuda]. */
typedef enum cv_bi_mode { CV_BI_FORMULA = 0, CV_BI_CUDA16 = 16, CV_BI_CUDA32 = 32 } cv_bi_mode;

/* What it works in, beside its inputs. */
typedef struct cv_bi_buffers {
    float *segments; /* common */
    float *sums;     /* of this member: [T] of the exact way */
} cv_bi_buffers;

void cv_bi_wkv_take(cv_run *run, size_t C, cv_bi_buffers *b);

/* y = BiWKV(W / T, U / T, k, v) of each picture, T its number of tokens; all [T][C] common and
 * complete.
 *   W, U  [C]  spatial_decay, spatial_first, of either sign
 *   k     overwritten
 *   v     y on return, complete after the next cv_meet
 * With a tape k and v have T * C floats of memory behind them, where both are kept (tape.h); what is
 * walked back is the formula, whatever the mode [bi.back]. */
void cv_bi_wkv(const cv_run *run, cv_bi_mode mode, size_t C, const float *W, const float *U,
               float *k, float *v, const cv_bi_buffers *b);

/* Floats of tape->own that walking back needs, when no picture has more tokens than `longest`. */
size_t cv_bi_wkv_own_scratch(size_t longest);

#endif
