/* picture_run.h - a run of training of a vision model, from pictures to files: loop.h with what a
 * vision model learns from. */
#ifndef CV_PICTURE_RUN_H
#define CV_PICTURE_RUN_H

#include "train/augment.h"
#include "train/loop.h"
#include "train/shape.h"

#define CV_WARMUP_OFFICIAL UINT64_MAX

typedef struct cv_picture_run {
    cv_recipe recipe;    /* warmup may be CV_WARMUP_OFFICIAL */
    cv_shape_wish shape; /* its classes are those of the data */
    const char *const *data;
    size_t n_data;
    double epochs; /* above 0: what decides the number of steps */
    size_t batch;  /* pictures of a step */
    cv_augment augment;
    double smoothing, drop_path;
    double validation; /* the part kept aside where the data does not say; 0: none */
    uint64_t evaluate_pictures;
} cv_picture_run;

corvid_status cv_train_pictures(const corvid_allocator *mem, const cv_picture_run *run,
                                corvid_error *err);

#endif
