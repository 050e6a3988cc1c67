/* header.h - what a writable format has to say: the bytes before the data, and where data goes. */
#ifndef CV_HEADER_H
#define CV_HEADER_H

#include "formats/checkpoint.h"

/* The header of a file that is about to be written.  The tensors' data follows it in the order
 * declared: tensor i begins at offsets[i], counted from the end of the header. */
typedef struct cv_header {
    char *bytes; /* in the arena */
    size_t n;
    uint64_t *offsets;   /* [n_tensors], ascending; gaps are written as zeros */
    uint64_t data_bytes; /* from the end of the header to the end of the file */
} cv_header;

corvid_status cv_safetensors_header(cv_arena *arena, const cv_meta *meta, size_t n_meta,
                                    const cv_tensor *tensors, size_t n_tensors, cv_header *out,
                                    corvid_error *err);
corvid_status cv_gguf_header(cv_arena *arena, const cv_meta *meta, size_t n_meta,
                             const cv_tensor *tensors, size_t n_tensors, cv_header *out,
                             corvid_error *err);

#endif
