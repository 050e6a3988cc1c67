/* source.h - where a model's weights come from, told apart by names and shapes.
 *
 * A source is a checkpoint that was recognised: its architecture, the family of names it uses, its
 * sizes, and every shape checked.  Loading, converting and inspecting all go through it.  A source
 * without a checkpoint stands for random weights of the same sizes. */
#ifndef CV_SOURCE_H
#define CV_SOURCE_H

#include "models/model.h"

typedef enum cv_dialect {
    CV_OFFICIAL, /* .pth and safetensors, and GGUF of v4 and v5 */
    CV_LLAMACPP, /* GGUF of rwkv6 and rwkv7 */
    CV_GGML      /* rwkv.cpp */
} cv_dialect;

/* Metadata of a file: the size of the heads of a gpt. */
#define CV_HEAD_SIZE_KEY "head_size"

typedef struct cv_view cv_view;

typedef struct cv_source {
    const cv_checkpoint *ckpt; /* NULL: random */
    const cv_arch *arch;
    cv_dialect dialect;
    cv_sizes sizes;
    cv_vision_traits traits;
    size_t rescale_every; /* rwkv6 GGUF: period of the division, 0: none */
    cv_dtype random_type; /* of the matrices, when random */
    uint64_t seed;
    const void *values_of; /* what random_values makes them of, beside the seed */
    /* Official values [first, first + n) of a view, [rows][cols]; NULL with a checkpoint. */
    void (*random_values)(const struct cv_source *source, const cv_view *view, size_t first,
                          size_t n, float *out);
} cv_source;

/* One field of one layer as the file has it. */
struct cv_view {
    const cv_field *field;
    size_t layer;
    const cv_tensor *tensor; /* NULL: absent, or random */
    char name[96];           /* the tensor's name, for messages */
    cv_dtype dtype;
    size_t first;      /* elements before it in the tensor */
    size_t rows, cols; /* as the model wants it: [out][in]; vectors: 1, count */
    bool transposed;   /* the file has [in][out] */
    float scale;       /* what the values are multiplied by (a power of two) */
};

/* Recognises a checkpoint: CORVID_E_FORMAT names the tensor, its shape and what was expected. */
corvid_status cv_source_open(const cv_checkpoint *ckpt, cv_source *out, corvid_error *err);

/* Random weights of a named shape; matrices of the given type. */
corvid_status cv_source_random(const char *shape, cv_dtype type, uint64_t seed, cv_source *out,
                               corvid_error *err);
const char *cv_source_shape_name(size_t i); /* NULL past the end */

/* Calls each() for every field that is there: the stack's, then layer by layer.  Stops at the
 * first status that is not CORVID_OK and returns it. */
corvid_status cv_source_each(const cv_source *source,
                             corvid_status (*each)(void *ctx, const cv_view *view,
                                                   corvid_error *err),
                             void *ctx, corvid_error *err);

/* Rows [first, first + n) of a view that is not transposed, raw in view->dtype: from the file, or
 * random numbers that depend on the seed and the place alone.  Not multiplied by view->scale. */
corvid_status cv_source_read(const cv_source *source, const cv_view *view, size_t first, size_t n,
                             void *dst, corvid_error *err);

/* What applies to official values of a vector to get those of the model; and back
 * [dialect.decay]. */
float cv_transform_value(cv_transform transform, float x);
float cv_transform_undo(cv_transform transform, float y);

/* Does this source hold the transformed values already? */
static inline bool cv_source_baked(const cv_source *source, const cv_field *field)
{
    return source->dialect == CV_GGML && (field->flags & CV_BAKED);
}

/* The name of a field in a dialect, with its layer; false when it has none there. */
bool cv_field_name(const cv_arch *arch, const cv_field *field, cv_dialect dialect, size_t layer,
                   char *name, size_t n);

const cv_spelling *cv_field_spelling(const cv_field *field, cv_dialect dialect);

/* The dimensions a field has in files of a dialect (of one slice, where it is sliced); returns how
 * many. */
int cv_field_dims(const cv_source *source, const cv_field *field, cv_dialect dialect, size_t *dims);

#endif
