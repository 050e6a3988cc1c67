/* linear.h - products with weight matrices, shared out by output rows. */
#ifndef CV_LINEAR_H
#define CV_LINEAR_H

#include "ops/tape.h"

/* What a matrix has beside its panels while it is trained. */
typedef struct cv_trained {
    float *value, *gradient; /* [rows][cols] */
    cv_matrix turned;        /* [cols][rows]: its transpose in panels */
} cv_trained;

/* Lays value out as the panels of W and of its transpose, both of f32 or bf16: this member's
 * share. */
void cv_trained_lay_out(const cv_member *me, const cv_kernels *kernel, const cv_matrix *W);

typedef enum cv_act {
    CV_ACT_NONE,
    CV_ACT_TANH,
    CV_ACT_SIGMOID,
    CV_ACT_SILU,
    CV_ACT_RELU2,
    CV_ACT_GELU
} cv_act;

/* y[t] = act(W x[t]) for all rows.
 *   x [T][ldx] complete (ldx 0: W->cols); y [T][W->rows] common, complete after the next cv_meet
 *   add    y += W x instead; act is then NONE
 *   bias   [W->rows] or NULL: W x + bias; add is then false
 *   sum    [T][W->rows] or NULL: sum += gate * y on top, y being scratch then
 * With a tape, SILU and GELU want T * W->rows floats of memory behind y (cv_take_memory). */
typedef struct cv_linear {
    const cv_matrix *W;
    const float *x;
    size_t ldx;
    float *y;
    cv_act act;
    bool add;
    const float *bias;
    float *sum;
    const float *gate;
} cv_linear;

/* Several products at once: their panels are one list, of which each member does its part. */
void cv_linear_all(const cv_run *run, const cv_linear *list, size_t n);

/* Rows [lo, hi) of W alone, by this member alone: what a member that owns heads needs of them.
 * lo is a multiple of CV_PANEL; hi is, or is W->rows.  y as above, no meeting needed. */
void cv_linear_part(const cv_run *run, const cv_matrix *W, size_t lo, size_t hi, const float *x,
                    float *y);

/* Back through y = W x + b for all rows of the run, given the gradient dy [T][W->rows], complete:
 * dx = W^T dy for this member's rows, or with `add` dx += W^T dy; dW += dy^T x and db += sum dy for
 * its share of them.  dx, db may be NULL. */
void cv_product_back(const cv_run *run, const cv_matrix *W, const float *x, size_t ldx,
                     const float *dy, float *dx, bool add, float *db);

/* Floats of a member's scratch that walking back through a product takes. */
size_t cv_linear_own_scratch(void);

#endif
