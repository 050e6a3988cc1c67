/* adamw.h - AdamW with decoupled weight decay, and the norm its gradients are clipped to.
 *
 * Works on flat arrays and knows nothing of models: groups.h says what a tensor's learning rate and
 * decay are, schedule.h what the learning rate of a step is.  All members of a team call the
 * functions side by side with the same arguments.  Sums are taken in pieces of CV_ADAM_CHUNK numbers
 * and added in order, so results are the same bit for bit on any number of threads
 * (tests/unit/test_adamw.c). */
#ifndef CV_ADAMW_H
#define CV_ADAMW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/team.h"

#define CV_ADAM_CHUNK ((size_t)4096)

typedef struct cv_adam_tensor {
    float *value;
    const float *gradient;
    float *m, *v;    /* running means of g and of g^2; zero before step 1 */
    float *average;  /* running mean of the values, or NULL */
    size_t n;        /* of all the arrays above */
    double lr_scale; /* multiplies the learning rate */
    bool decays;
} cv_adam_tensor;

typedef struct cv_adam_settings {
    double beta1, beta2, eps;
    double weight_decay; /* of the tensors that decay */
    double clip;         /* the largest norm of all gradients together; 0: none */
    double average;      /* share of the running mean that a step keeps (0.9999) */
} cv_adam_settings;

#define CV_ALL_FINITE SIZE_MAX

typedef struct cv_gradient_report {
    double norm;    /* L2, of all gradients together, before clipping */
    double factor;  /* what clipping multiplies them by: min(1, clip / (norm + 1e-6)) */
    size_t tensor;  /* the first tensor with a number that is not finite, or CV_ALL_FINITE */
    size_t element; /* where in it; norm and factor mean nothing then */
} cv_gradient_report;

/* How many sums cv_gradient_measure needs. */
size_t cv_adam_chunks(const cv_adam_tensor *tensors, size_t n_tensors);

/* Measures complete gradients.  Meets once; every member gets the same report.
 *   sums  [cv_adam_chunks()]  common scratch; read until the next meeting */
cv_gradient_report cv_gradient_measure(const cv_member *me, const cv_adam_settings *settings,
                                       const cv_adam_tensor *tensors, size_t n_tensors,
                                       double *sums);

/* Step k = 1, 2, ...: [train.adamw]
 *     g = factor gradient
 *     m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2
 *     p = p (1 - lr weight_decay) - lr (m / (1 - beta1^k)) / (sqrt(v / (1 - beta2^k)) + eps)
 *     average = keep average + (1 - keep) p
 * A gradient of exactly zero leaves a tensor that never had another to its decay alone.  Does not
 * meet: values are complete after the next meeting. */
void cv_adam_step(const cv_member *me, const cv_adam_settings *settings,
                  const cv_adam_tensor *tensors, size_t n_tensors, uint64_t k, double lr,
                  double factor);

#endif
