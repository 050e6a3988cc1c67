/* checkpoint.h - a checkpoint file as a list of named tensors, whatever its format.
 *
 * Readers: pth.c (zip and legacy), safetensors.c, gguf.c, rwkvcpp.c.  A reader parses the header
 * and the directory, checks every size against the file, and leaves the data where it is; the
 * data is read on demand, from any thread.  Names and values are those of the file: which tensor
 * means what is the business of models/. */
#ifndef CV_CHECKPOINT_H
#define CV_CHECKPOINT_H

#include "base/input.h"
#include "tensor/dtype.h"

#define CV_MAX_DIMS 8

typedef struct cv_tensor {
    const char *name;
    cv_dtype dtype;
    int n_dims;
    size_t dims[CV_MAX_DIMS];    /* outermost first, as PyTorch prints them */
    size_t count;                /* product of dims */
    uint64_t offset;             /* of element 0, in bytes from the start of the file */
    bool contiguous;             /* row-major without gaps; always, except in .pth */
    size_t strides[CV_MAX_DIMS]; /* in elements; used when not contiguous */
} cv_tensor;

typedef enum cv_meta_type {
    CV_META_INT,
    CV_META_FLOAT,
    CV_META_BOOL,
    CV_META_TEXT,
    CV_META_INTS,
    CV_META_FLOATS,
    CV_META_TEXTS
} cv_meta_type;

typedef struct cv_text {
    const char *bytes; /* terminated, though it may hold zeros */
    size_t n;
} cv_text;

/* One key and its value: GGUF key-values, or the string map of safetensors. */
typedef struct cv_meta {
    const char *key;
    cv_meta_type type;
    int64_t integer; /* INT, BOOL */
    double number;   /* FLOAT */
    cv_text text;    /* TEXT */
    size_t count;    /* arrays */
    const int64_t *integers;
    const double *numbers;
    const cv_text *texts;
} cv_meta;

typedef enum cv_format { CV_PTH, CV_SAFETENSORS, CV_GGUF, CV_RWKVCPP } cv_format;

typedef struct cv_checkpoint {
    cv_input in;
    cv_format format;
    cv_arena arena;     /* owns everything below */
    cv_tensor *tensors; /* sorted by name */
    size_t n_tensors;
    cv_meta *meta;
    size_t n_meta;
} cv_checkpoint;

/* Opens path and reads its directory; the format is told by the first bytes, never by the name.
 * CORVID_E_FILE, CORVID_E_FORMAT (what, at which offset, what was expected), CORVID_E_MEMORY. */
corvid_status cv_checkpoint_open(const corvid_allocator *mem, const char *path, cv_checkpoint *out,
                                 corvid_error *err);

/* The same over an input that is already open (memory, in tests and fuzzers); takes it over. */
corvid_status cv_checkpoint_parse(const corvid_allocator *mem, const cv_input *in,
                                  cv_checkpoint *out, corvid_error *err);
void cv_checkpoint_close(cv_checkpoint *ckpt); /* safe on a zeroed one */

const cv_tensor *cv_checkpoint_find(const cv_checkpoint *ckpt, const char *name);
const cv_meta *cv_checkpoint_meta(const cv_checkpoint *ckpt, const char *key);
const char *cv_format_name(cv_format format); /* "pth", "safetensors", "gguf", "ggml" */

/* Elements [first, first + n) in row-major order, raw in the tensor's type (both multiples of its
 * block).  Follows strides.  Thread-safe. */
corvid_status cv_tensor_read(const cv_checkpoint *ckpt, const cv_tensor *tensor, size_t first,
                             size_t n, void *dst, corvid_error *err);

/* ------------------------------------------------------------------------------------------------
 * What the readers are made of: each fills an initialised checkpoint (in, arena) or fails. */
corvid_status cv_pth_parse(cv_checkpoint *ckpt, corvid_error *err);
corvid_status cv_safetensors_parse(cv_checkpoint *ckpt, corvid_error *err);
corvid_status cv_gguf_parse(cv_checkpoint *ckpt, corvid_error *err);
corvid_status cv_rwkvcpp_parse(cv_checkpoint *ckpt, corvid_error *err);

/* Checks a finished tensor list: counts, bytes within the file, unique names; sorts it. */
corvid_status cv_checkpoint_seal(cv_checkpoint *ckpt, corvid_error *err);

/* ------------------------------------------------------------------------------------------------
 * Writing.  The directory comes first, so all tensors are declared at the start (name, dtype,
 * dims); their data follows in the same order, in pieces of any size. */
typedef struct cv_writer cv_writer;

corvid_status cv_writer_open(const corvid_allocator *mem, const char *path, cv_format format,
                             const cv_meta *meta, size_t n_meta, const cv_tensor *tensors,
                             size_t n_tensors, cv_writer **out, corvid_error *err);
corvid_status cv_writer_put(cv_writer *writer, const void *bytes, size_t n, corvid_error *err);
corvid_status cv_writer_commit(cv_writer *writer, corvid_error *err); /* frees writer */
void cv_writer_discard(cv_writer *writer);                            /* NULL is fine */

#endif
