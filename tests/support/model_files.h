/* model_files.h - what the tests of whole models share: copies of checkpoints in other clothes,
 * a model made here, tokens, the largest difference, one line per case. */
#ifndef TEST_MODEL_FILES_H
#define TEST_MODEL_FILES_H

#include "corvid.h"
#include "formats/checkpoint.h"

/* How a checkpoint is copied; zeroed but for format: every tensor as it is. */
typedef struct model_copy {
    cv_format format;   /* CV_SAFETENSORS, CV_GGUF or CV_PTH                        */
    const char *prefix; /* only tensors whose names begin so, and without it        */
    bool as_f32;        /* f64 becomes f32                                          */
    bool legacy;        /* .pth: the stream from before torch 1.6                   */
    bool meta;          /* GGUF: the metadata goes along                            */
    /* Called for every tensor with its bytes, after the type was changed; may change both name
     * (in place, 96 bytes) and bytes.  NULL: nothing.  False drops the tensor. */
    bool (*edit)(void *ctx, cv_tensor *tensor, char *name, void *bytes);
    void *ctx;
    const cv_tensor *extra; /* tensors in addition, with their data */
    const void *const *extra_data;
    size_t n_extra;
    const cv_meta *extra_meta; /* in place of a key of the same name, or in addition */
    size_t n_extra_meta;
} model_copy;

void model_copy_write(const char *from, const char *to, const model_copy *how);

/* A random v7 model whose widths k-quants fit: V 256, C 256, L 2, F 512, ranks 32, 24, 16, 48. */
void model_write_wide(const char *path);

/* Pseudo-random ids below V. */
void model_tokens(uint64_t seed, size_t n, size_t V, int32_t *tokens);

/* A pseudo-random number below n; advances *seed. */
uint64_t model_random(uint64_t *seed, uint64_t n);

/* max |a - b|; infinite when either holds what is no number. */
double model_difference(const float *a, const float *b, size_t n);
double model_difference_to(const float *a, const double *b, size_t n);

/* Prints "name  difference  tolerance", and fails the test when it is above. */
void model_report(const char *name, double difference, double tolerance);

/* Fails the test with `what` when not every bit is equal. */
void model_same_bits(const char *what, const void *a, const void *b, size_t bytes);

/* Opens with defaults but for threads and group-norm epsilon (0: as by default). */
corvid_model *model_open(const char *path, size_t n_threads, double group_norm_eps);
corvid_stream *model_stream(corvid_model *model);
size_t model_vocab(const corvid_model *model);

#endif
