/* adapter.h - low-rank adapters of a model that learns.
 *
 * While an adapter is learnt its matrix is W = base + (alpha / r) B A, made anew before each step;
 * the learner computes the gradient dW as ever, and that of the factors follows from it:
 *     dA = (alpha / r) B^T dW        dB = (alpha / r) dW A^T
 * So the model text knows nothing of adapters, and the base never changes.  What learns is put
 * together as a learner of its own that has parameters and no model (cv_adapters_learner): the loop,
 * the optimiser and the resume file treat it as any other. */
#ifndef CV_ADAPTER_H
#define CV_ADAPTER_H

#include "engine/adapter_file.h"
#include "train/learner.h"

typedef struct cv_adapter_settings {
    /* Patterns with commas between.  "att" is every matrix with that part in its name, as is
     * "att.key" or "blocks.0"; with * or ? it is the whole name without ".weight". */
    const char *targets;
    size_t rank;
    double alpha;
    bool vectors; /* norms, mixes, decays and other vectors learn too, in full */
    uint64_t seed;
} cv_adapter_settings;

#define CV_ADAPTER_TARGETS "att,ffn"

/* One matrix with its factors. */
typedef struct cv_adapter {
    cv_param *param;
    float *base; /* [out][in] */
    cv_factors factors;
    float *A, *B, *dA, *dB; /* as in factors */
} cv_adapter;

typedef struct cv_adapters {
    cv_learner *learner; /* of the model */
    cv_adapter *items;
    size_t n;
    cv_param *params; /* A and B of each item, then what learns in full */
    size_t n_params;
    float *block; /* bases, factors, their gradients */
    double *sums; /* [members][largest rank][CV_ADAPTER_COLUMNS] */
    size_t sums_each;
    double alpha;
} cv_adapters;

#define CV_ADAPTER_COLUMNS ((size_t)64)

/* New adapters: A uniform within 1 / sqrt(in), as official, B zero, so nothing changes yet.
 * CORVID_E_ARGUMENT: a pattern that matches no matrix, with those whose names are nearest. */
corvid_status cv_adapters_open(cv_learner *learner, const cv_adapter_settings *settings,
                               cv_adapters *out, corvid_error *err);

/* Those of a file, applied; its whole tensors replace the model's and learn too. */
corvid_status cv_adapters_load(cv_learner *learner, const char *path,
                               const cv_adapter_choice *choice, cv_adapters *out,
                               corvid_error *err);
void cv_adapters_close(cv_adapters *adapters); /* safe on a zeroed one */

/* The factors have changed: makes the matrices of the model from them and publishes. */
void cv_adapters_apply(cv_adapters *adapters);

/* The gradients of the factors from those of the matrices; behind the batches of a step. */
void cv_adapters_gather(cv_adapters *adapters);

/* What learns, valid while the adapters are; not to be closed.  Clearing, gathering and publishing it
 * does nothing: that is done to the model's own. */
cv_learner cv_adapters_learner(cv_adapters *adapters);

/* A safetensors file of official names. */
corvid_status cv_adapters_save(const cv_adapters *adapters, const char *path, corvid_error *err);

/* A parameter that is no part of a model: its value is what learns, and nothing is made of it. */
cv_param cv_param_alone(const cv_param *like, const char *name, float *value, float *gradient,
                        size_t n);

#endif
