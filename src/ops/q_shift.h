/* q_shift.h - token shift on a grid: every token looks at its four neighbours. [q.shift] */
#ifndef CV_Q_SHIFT_H
#define CV_Q_SHIFT_H

#include "ops/rowwise.h"

/* Which channels come from where.  Within each head of `head` channels (all C of them in VRWKV, 64
 * in VRWKV6) channels [border[0], border[1]) come from the left neighbour, then from the right,
 * from above, from below; the rest stays.  `distance` is in tokens; 0: no shift at all. */
typedef struct cv_q_shift {
    size_t head, border[5], distance;
} cv_q_shift;

/* The shift of VRWKV: quarters of `share` (at most 1/4) of all channels each. */
cv_q_shift cv_q_shift_whole(size_t C, double share, size_t distance);

/* The shift of VRWKV6: quarters of each head of N channels. */
cv_q_shift cv_q_shift_heads(size_t N, size_t distance);

/* The shifted rows of a tile: out [T of the tile][C], of z [all rows][C], which is complete.  A
 * neighbour beyond the border of its picture is 0; a class token is its own neighbour. */
void cv_q_shift_rows(const cv_tile *tile, size_t C, const cv_q_shift *shift, const float *z,
                     float *out);

/* y = z mu + shifted (1 - mu) for each mix, whose mu is 1 - mu (NULL: y = z) and whose y is [T][C]
 * of the tile [q.mix].  shifted as from cv_q_shift_rows. */
void cv_q_mix(const cv_tile *tile, size_t C, const float *z, const float *shifted,
              const cv_mix *mixes, size_t n_mixes);

/* delta = shifted - z, [T of the tile][C]; without a tape delta may be shifted. */
void cv_q_delta(const cv_tile *tile, size_t C, const float *z, const float *shifted, float *delta);

#endif
