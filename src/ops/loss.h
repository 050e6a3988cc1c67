/* loss.h - cross-entropy behind the head, and its gradient at once. [loss.ce] */
#ifndef CV_LOSS_H
#define CV_LOSS_H

#include "ops/linear.h"

typedef struct cv_loss {
    const cv_matrix *head; /* [V][C] */
    const float *bias;     /* [V] or NULL */
    const int32_t *targets; /* [T]; negative: the row does not count */
    const int32_t *others;  /* [T] or NULL: the target is (1 - share) targets + share others */
    const float *share;     /* [T] [loss.mixed] */
    int32_t *best;          /* [T] out, or NULL: the class with the largest logit */
    double weight;    /* of one row: 1 / rows that count, in all batches of a step */
    double smoothing; /* of the labels: q = (1 - s) target + s / V */
    double l2_wrap;   /* 1e-4 in the official trainers of language models, 0: none [loss.wrap] */
} cv_loss;

/* Rows whose logits exist at a time. */
#define CV_LOSS_ROWS ((size_t)256)

/* The losses of all rows, in natural units and not weighed, go to rows [T] (0 where there is no
 * target).  The gradient of weight * their sum goes to that of z and of the head, at once: nothing
 * is recorded.  z [T][C] is complete.  With gradients false only the losses are computed.
 *   logits  common scratch, CV_LOSS_ROWS * V floats */
void cv_cross_entropy(const cv_run *run, const cv_loss *loss, const float *z, float *logits,
                      bool gradients, float *rows);

#endif
