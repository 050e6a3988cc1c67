/* teach.h - optimiser steps on a learner, for the tests of whole models that learn. */
#ifndef TEST_TEACH_H
#define TEST_TEACH_H

#include "train/adamw.h"
#include "train/groups.h"
#include "train/learner.h"

typedef struct teacher {
    cv_learner *learner;
    cv_adam_tensor *tensors;
    float *moments;
    double *sums;
    cv_adam_settings settings;
    uint64_t step;
} teacher;

/* Moments of zero for every parameter, in the groups of an official trainer. */
void teacher_open(teacher *t, cv_learner *learner, cv_grouping grouping,
                  const cv_adam_settings *settings);
void teacher_close(teacher *t);

/* One step from the gradients that are there; returns their norm before clipping. */
double teacher_step(teacher *t, double lr);

/* Makes all gradients of values NaN: nothing may be read before a step sets it. */
void teacher_spoil(cv_room *room);

#endif
