/* resume_file.h - what a run of training goes on from, to the bit: step, parameters, both moments.
 *
 * The file appears whole or not at all, with a checksum; the model that people load is another file
 * beside it. */
#ifndef CV_RESUME_FILE_H
#define CV_RESUME_FILE_H

#include "train/adamw.h"
#include "train/learner.h"

typedef struct cv_resume {
    uint64_t step;     /* steps that were done */
    uint64_t seed;     /* of the run: a file of another one is refused */
    uint64_t settings; /* hash of all that decides the numbers, as the caller makes it */
    double best;       /* the best validation loss so far; infinite: none */
} cv_resume;

/* tensors[i] are the arrays of learner->params[i]. */
corvid_status cv_resume_save(const cv_learner *learner, const cv_adam_tensor *tensors,
                             const cv_resume *at, const char *path, corvid_error *err);

/* Fills values, moments and *at; at->seed and at->settings are what they must be
 * (CORVID_E_MISMATCH).  CORVID_E_FILE when there is none, CORVID_E_FORMAT when it is damaged: the
 * learner is then to be thrown away. */
corvid_status cv_resume_load(cv_learner *learner, const cv_adam_tensor *tensors, cv_resume *at,
                             const char *path, corvid_error *err);

#endif
