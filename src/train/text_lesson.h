/* text_lesson.h - what a language model learns from: batches of sequences of tokens. */
#ifndef CV_TEXT_LESSON_H
#define CV_TEXT_LESSON_H

#include "train/learner.h"

/* Room for batches of n_sequences of `length` tokens. */
corvid_status cv_learner_room(cv_learner *learner, size_t n_sequences, size_t length,
                              corvid_error *err);

/* A batch of sequences of equal length, each from the model's start. */
typedef struct cv_batch {
    const int32_t *tokens, *targets; /* [n_sequences][length]; a negative target does not count */
    size_t n_sequences, length;
    double weight;  /* of one row in the gradient, 1 / rows of all batches of a step */
    double l2_wrap; /* [loss.wrap] */
} cv_batch;

/* Adds the gradient of a batch; *loss becomes the mean over the rows that count, in nats.  Where the
 * learner has a start of its own, its gradient is added to start_gradient, sequence by sequence. */
corvid_status cv_learner_batch(cv_learner *learner, const cv_batch *batch, double *loss,
                               corvid_error *err);

/* The same without gradients. */
corvid_status cv_learner_score(cv_learner *learner, const cv_batch *batch, double *loss,
                               corvid_error *err);

#endif
