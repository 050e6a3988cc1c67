/* weights.h - from a source to a model in memory, laid out for the kernels. */
#ifndef CV_WEIGHTS_H
#define CV_WEIGHTS_H

#include "models/source.h"

/* Bytes of weights that cv_weights_load would allocate. */
corvid_status cv_weights_measure(const cv_source *source, size_t *bytes, corvid_error *err);

typedef struct cv_load_options {
    cv_team *team;               /* reads and lays out in parallel */
    float group_norm_eps;        /* v5 */
    bool as_f32;                 /* matrices become f32 whatever the file has */
    corvid_progress_fn progress; /* may be NULL; called by the caller's thread */
    corvid_cancel_fn cancel;     /* may be NULL */
    void *ctx;
} cv_load_options;

/* Allocates and fills a model.  On failure nothing is left behind. */
corvid_status cv_weights_load(const corvid_allocator *mem, const cv_source *source,
                              const cv_load_options *options, cv_model *out, corvid_error *err);
void cv_weights_free(cv_model *model);

/* The layout and the panel size that a type of `cols` inputs gets. */
void cv_matrix_layout(cv_dtype type, size_t rows, size_t cols, cv_matrix *out);

#endif
