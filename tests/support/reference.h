/* reference.h - RWKV language models in double precision, one token after the other.
 *
 * Written from the specification's equations alone: it shares the checkpoint readers with the
 * library, and nothing of the models, the engine or the kernels.  Slow and obvious on purpose.
 * Reads official names (.pth, safetensors) and rwkv.cpp files, plus the reverse task model with its
 * own names.  Fails the running test when a file is not what it expects. */
#ifndef TEST_REFERENCE_H
#define TEST_REFERENCE_H

#include "formats/checkpoint.h"

typedef enum ref_version { REF_V4, REF_V5_0, REF_V5_1, REF_V5_2, REF_V6, REF_V7 } ref_version;

typedef struct ref_tensor {
    char name[64];
    int n_dims;
    size_t dims[CV_MAX_DIMS], count;
    double *x;
} ref_tensor;

typedef struct ref_model {
    ref_version version;
    size_t V, C, L, A, F, H, N;
    double group_norm_eps;
    ref_tensor *tensors; /* sorted by name */
    size_t n_tensors;
    /* [L][layer_floats] in the order of the reference files: shift of the channel mix [C], shift of
     * the time mix [C], then v4: aa, bb, pp [C] each; else S [head][value i][key j].  [state.order] */
    double *state;
    size_t layer_floats;
} ref_model;

/* Reads a model; a "param." before the names is dropped, other tensors are kept for ref_find.
 * group_norm_eps 0: the official 64e-5. */
ref_model *ref_open(const char *path, double group_norm_eps);
void ref_close(ref_model *m);

/* NULL when there is none. */
const ref_tensor *ref_find(const ref_model *m, const char *name);

/* The state before the first token: zero, or the checkpoint's time_state. */
void ref_reset(ref_model *m);

/* Feeds n tokens; logits [n][V], or NULL. */
void ref_feed(ref_model *m, const int32_t *tokens, size_t n, double *logits);

#endif
