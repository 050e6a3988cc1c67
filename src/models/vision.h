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

/* Pictures that are learnt from, of a model with a head.  run has a tape; see cv_lesson. */
typedef struct cv_sight_lesson {
    cv_sight sight;    /* what is wanted of it is not used */
    cv_loss loss;      /* head and bias are filled in here */
    const float *keep; /* [2 L][n] or NULL: see cv_run */
    bool gradients;
    float *rows; /* [n] out: the loss of each picture */
} cv_sight_lesson;

void cv_vision_learn(cv_run *run, const cv_model *model, const cv_sight_lesson *lesson);

void cv_vision_lesson_memory(const cv_model *model, const cv_grid *grids, size_t n, bool again,
                             const cv_member *me, cv_lesson_memory *out);

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

/* The common rows z, for cv_branch_begin. */
float *cv_branch_begin_take(cv_run *run, const cv_model *model);

/* What cv_branch_end works in. */
typedef struct cv_branch_buffers {
    float *out, *gated, *normed; /* [T of a tile][C]; without a tape all the same */
} cv_branch_buffers;

void cv_branch_take(cv_run *run, const cv_model *model, cv_branch_buffers *b);

/* x += gamma LN(gate W in) for the rows of a tile, less what dropping paths takes; LN only in
 * post-norm models.  This member's rows of x are complete.
 *   which  2 l for the first branch of layer l, 2 l + 1 for the second
 *   in     [T of the tile][W->cols];  gate [T of the tile][C] or NULL
 *   x      [all rows][C] */
void cv_branch_end(const cv_tile *tile, const cv_model *model, const cv_branch *p, size_t which,
                   const cv_matrix *W, const float *in, const float *gate,
                   const cv_branch_buffers *b, float *x);

/* Channel mixing [vrwkv.cmix]. */
typedef struct cv_vision_channel_mix {
    cv_branch branch;
    const float *mu_k, *mu_r; /* [C], multiply the shifted row; NULL: no shift */
    cv_matrix K, R, V;        /* [F, C], [C, C], [C, F] */
    cv_norm key_norm;         /* [F]; w NULL: none */
} cv_vision_channel_mix;

typedef struct cv_vision_channel_buffers {
    float *z;                    /* [T][C] common */
    float *shifted, *xk, *xr, *r; /* [T of a tile][C] */
    float *k, *normed;            /* [T of a tile][F]; normed is k, but not with a tape */
    cv_branch_buffers end;
} cv_vision_channel_buffers;

/* z: common rows that may be overwritten. */
void cv_vision_channel_mix_take(cv_run *run, const cv_model *model, float *z,
                                cv_vision_channel_buffers *b);

/* x += ChannelMix of layer l for this member's rows.  Meets once. */
void cv_vision_channel_mix_rows(const cv_run *run, const cv_model *model, size_t l,
                                const cv_vision_channel_mix *p, const cv_q_shift *shift, float *x,
                                const cv_vision_channel_buffers *b);

/* ---- The table of positions (position.c) ----------------------------------------------------- */

/* y += the position of grid cell (row, column) of h x w [vrwkv.position]: a row of pos [G][C] where
 * the grid is the one the table was made for, else interpolated. */
void cv_position_add(const float *pos, size_t side, size_t C, size_t h, size_t w, size_t row,
                     size_t column, float *y);

/* Back through it for channels [lo, hi): dpos [G][C] += what the row took of each place times dy
 * [C]. */
void cv_position_back(float *dpos, size_t side, size_t C, size_t h, size_t w, size_t row,
                      size_t column, size_t lo, size_t hi, const float *dy);

#endif
