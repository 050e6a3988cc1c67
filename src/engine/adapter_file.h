/* adapter_file.h - what was learnt on top of a model, as official files have it: LoRA pairs, whole
 * tensors in place of the model's, and tuned initial states.
 *
 * A file holds any of
 *   NAME.lora_A [r][in], NAME.lora_B [out][r]   W + (alpha / r) B A in place of the matrix NAME.weight
 *   a tensor of the model under its own name     in place of it (norms, mixes, decays)
 *   blocks.l.att.time_state [H][value][key]      the memory that layer l begins with
 * alpha is not in official files; those written here have it in their metadata.  Every tensor must
 * fit the model: one that fits nothing is an error, not passed over.  A PiSSA adapter is the change
 * from a first pair that stands in another file: W - B0 A0 + B A. */
#ifndef CV_ADAPTER_FILE_H
#define CV_ADAPTER_FILE_H

#include "models/source.h"

/* Keys of the metadata that is written. */
#define CV_ADAPTER_ALPHA_KEY "lora_alpha"
#define CV_ADAPTER_ARCH_KEY  "corvid.arch"

#define CV_LORA_A "lora_A"
#define CV_LORA_B "lora_B"

/* One tensor of the model that the file changes. */
typedef struct cv_adapter_part {
    const char *name; /* official: of the matrix, where it is a pair */
    const cv_field *field;
    size_t layer;
    int n_dims;
    size_t dims[CV_MAX_DIMS]; /* official, of that tensor */
    const cv_tensor *A, *B;   /* a pair, or */
    const cv_tensor *A0, *B0; /* the first pair, in cv_adapter_file.initial; NULL: none */
    const cv_tensor *whole;   /* a tensor instead of the model's */
} cv_adapter_part;

typedef struct cv_adapter_file {
    const corvid_allocator *mem;
    cv_checkpoint ckpt, initial; /* initial.n_tensors 0: none */
    cv_arena arena;
    cv_adapter_part *parts; /* in the order of the names of the file */
    size_t n_parts;
    double alpha; /* 0: B A as it is */
} cv_adapter_file;

typedef struct cv_adapter_choice {
    double alpha;        /* 0: that of the file */
    const char *initial; /* file with the first pairs of a PiSSA adapter; NULL: none */
} cv_adapter_choice;

/* Opens a file for a model, of which only the shapes are asked.  CORVID_E_MISMATCH names the first
 * tensor that does not fit and both shapes; CORVID_E_FORMAT: damaged, or another kind of adapter;
 * CORVID_E_ARGUMENT: nobody says alpha. */
corvid_status cv_adapter_file_open(const corvid_allocator *mem, const char *path,
                                   const cv_adapter_choice *choice, const cv_source *model,
                                   cv_adapter_file *out, corvid_error *err);
void cv_adapter_file_close(cv_adapter_file *file); /* safe on a zeroed one */

/* What B A of a pair is multiplied by. */
float cv_adapter_scale(const cv_adapter_file *file, const cv_adapter_part *part);

/* The tensor's numbers in f32; one that is not finite is CORVID_E_FORMAT.
 *   out  [tensor->count] */
corvid_status cv_adapter_read(const corvid_allocator *mem, const cv_checkpoint *ckpt,
                              const cv_tensor *tensor, float *out, corvid_error *err);

/* The field of an initial state; NULL where the architecture has no matrices to begin with. */
const cv_field *cv_tuned_state_field(const cv_arch *arch);

/* The time_state tensors of all layers, those of a tuned state or in a model's file.
 *   out  [L][H][value][key]
 * CORVID_E_MISMATCH when the file has none for a layer, or of another shape. */
corvid_status cv_tuned_state_read(const corvid_allocator *mem, const cv_checkpoint *ckpt,
                                  const cv_arch *arch, const cv_sizes *sizes, float *out,
                                  corvid_error *err);

/* ---- The change that a pair makes ------------------------------------------------------------- */

typedef struct cv_factors {
    size_t rank, out, in;
    float scale;
    const float *A, *B; /* [rank][in], [out][rank] */
} cv_factors;

/* Rows [lo, hi) of W = base + scale B A; W may be base.  The sums of an element are in the same order
 * however the rows are cut.  [lo, hi) and W count from row `first` of the matrix. */
void cv_factors_add(const cv_factors *f, size_t first, size_t lo, size_t hi, const float *base,
                    float *W);

#endif
