/* vision.h - what a vision model is shown, and what it gives: the stack of vision.c.
 *
 * Pictures of any sizes go through side by side; their tokens are the rows of the run, a grid each.
 * Nothing is kept between calls. */
#ifndef CV_VISION_H
#define CV_VISION_H

#include "models/model.h"
#include "ops/bi_wkv.h"
#include "ops/q_shift.h"

/* One picture: 8-bit pixels, or numbers that are normalised already. */
typedef struct cv_image {
    const unsigned char *pixels; /* [height][width][3], or NULL and */
    const float *values;         /* [3][height][width] */
    size_t height, width;
    float *logits;       /* [K] out; NULL: not wanted */
    float *pooled;       /* [C] out, or NULL */
    float *features;     /* [n_wanted][C][h][w] out, or NULL */
    float *class_tokens; /* [n_wanted][C] out, or NULL */
} cv_image;

typedef struct cv_sight {
    const cv_image *images;
    const cv_grid *grids;
    size_t n;
    const float (*table)[256]; /* [3]: the number of an 8-bit value [pre.normalise] */
    const size_t *wanted;      /* layers whose output is a feature */
    size_t n_wanted;
} cv_sight;

/* The grid of a picture whose first row of the run is `begin`. */
cv_grid cv_vision_grid(const cv_model *model, size_t height, size_t width, size_t begin);

/* One member's walk.  run has kernel, me, buffers (reset) and matmul scratch. */
void cv_vision_step(cv_run *run, const cv_model *model, const cv_sight *sight);

/* Floats of common and own buffers and of matmul scratch that pictures of these grids take. */
void cv_vision_buffers(const cv_model *model, const cv_grid *grids, size_t n, const cv_member *me,
                       size_t *common, size_t *own, size_t *matmul);

/* What the checkpoint says, and what its weights tell, of its traits (vision_traits.c). */
corvid_status cv_vision_traits_read(const cv_checkpoint *ckpt, const cv_sizes *sizes,
                                    cv_vision_traits *out, corvid_error *err);

/* ---- What the layers of all vision models share (vision_layer.c) ------------------------------ */

/* The norm and the layer scale of one of the two branches of a layer [vrwkv.layer]. */
typedef struct cv_branch {
    cv_norm ln;
    const float *gamma; /* [C] or NULL */
} cv_branch;

/* What a branch sees of this member's rows: z = LN(x), or x itself in post-norm models.  Meet before
 * other rows are read. */
void cv_branch_begin(const cv_run *run, const cv_model *model, const cv_branch *p, const float *x,
                     float *z);

/* x += gamma LN(gate W in) for the rows of a tile; LN only in post-norm models.
 *   in    [T of the tile][W->cols];  gate [T of the tile][C] or NULL
 *   out   [T of the tile][C] scratch;  x [all rows][C] */
void cv_branch_end(const cv_tile *tile, const cv_model *model, const cv_branch *p,
                   const cv_matrix *W, const float *in, const float *gate, float *out, float *x);

/* y = LN(y) over n channels of a tile's rows where the model has a norm of the key. */
void cv_key_norm(const cv_tile *tile, size_t n, cv_norm norm, float *y);

/* Channel mixing [vrwkv.cmix]. */
typedef struct cv_vision_channel_mix {
    cv_branch branch;
    const float *mu_k, *mu_r; /* [C], multiply the shifted row; NULL: no shift */
    cv_matrix K, R, V;        /* [F, C], [C, C], [C, F] */
    cv_norm key_norm;         /* [F]; w NULL: none */
} cv_vision_channel_mix;

typedef struct cv_vision_channel_buffers {
    float *shifted, *xk, *xr, *r, *out; /* [T of a tile][C] */
    float *k;                           /* [T of a tile][F] */
} cv_vision_channel_buffers;

void cv_vision_channel_mix_take(cv_run *run, const cv_sizes *s, cv_vision_channel_buffers *b);

/* x += ChannelMix for this member's rows; z is common scratch [all rows][C].  Meets once. */
void cv_vision_channel_mix_rows(const cv_run *run, const cv_model *model,
                                const cv_vision_channel_mix *p, const cv_q_shift *shift, float *x,
                                float *z, const cv_vision_channel_buffers *b);

/* ---- The table of positions (position.c) ----------------------------------------------------- */

/* y += the position of grid cell (row, column) of h x w [vrwkv.position]: a row of pos [G][C] where
 * the grid is the one the table was made for, else interpolated. */
void cv_position_add(const float *pos, size_t side, size_t C, size_t h, size_t w, size_t row,
                     size_t column, float *y);

#endif
