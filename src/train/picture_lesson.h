/* picture_lesson.h - what a vision model learns from: batches of pictures with their classes. */
#ifndef CV_PICTURE_LESSON_H
#define CV_PICTURE_LESSON_H

#include "train/learner.h"

typedef struct cv_picture_batch {
    const float *values;    /* [n][3][side][side], normalised */
    size_t n, side;         /* pictures, pixels a side */
    const int32_t *targets; /* [n] class */
    const int32_t *others;  /* [n] or NULL: q = (1 - share) target + share other [loss.mixed] */
    const float *share;     /* [n] */
    double weight;          /* of one picture in the gradient: 1 / pictures of all batches of a step */
    double smoothing;       /* of the labels */
    double drop_path;       /* rate of the last layer, from 0 in the first [train.drop] */
    uint64_t key;           /* decides which paths are dropped */
} cv_picture_batch;

/* Room for batches of n pictures. */
corvid_status cv_learner_picture_room(cv_learner *learner, size_t n, size_t side,
                                      corvid_error *err);

/* Adds the gradient of a batch; *loss becomes its mean, in nats. */
corvid_status cv_learner_pictures(cv_learner *learner, const cv_picture_batch *batch, double *loss,
                                  corvid_error *err);

/* The same without gradients; *right: how many were given their class. */
corvid_status cv_learner_look(cv_learner *learner, const cv_picture_batch *batch, double *loss,
                              size_t *right, corvid_error *err);

#endif
