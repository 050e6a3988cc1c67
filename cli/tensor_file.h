/* tensor_file.h - safetensors files of f32 numbers: one tensor read, several written as they come.
 *
 * Checkpoints are the library's business; these are the files that verbs take and give. */
#ifndef CLI_TENSOR_FILE_H
#define CLI_TENSOR_FILE_H

#include "textio.h"

#define TENSOR_DIMS 8

/* ---- Reading --------------------------------------------------------------------------------- */

typedef struct tensor_in {
    char *path, *name;
    FILE *file;
    size_t n_dims, dims[TENSOR_DIMS]; /* outermost first */
    uint64_t begin;                   /* where its numbers lie in the file */
} tensor_in;

/* Opens FILE:TENSOR, or FILE alone, and then the tensor is called name.  The last colon behind the
 * last slash divides the two, unless there is a file of the whole name.  0, or an exit code after a
 * message; tensor_in_close is right either way. */
int tensor_in_open(tensor_in *t, const char *spec, const char *name);

/* Reads n numbers from the first on.  0, or an exit code after a message. */
int tensor_in_read(tensor_in *t, size_t first, size_t n, float *out);
void tensor_in_close(tensor_in *t);

/* How many pictures [3, height, width] it holds and how large they are.  0, or 4 after a message. */
int tensor_in_pictures(const tensor_in *t, size_t *n, size_t *height, size_t *width);

/* ---- Writing --------------------------------------------------------------------------------- */

/* A tensor that is being written. */
typedef struct tensor_place {
    char *name;
    size_t n_dims, dims[TENSOR_DIMS];
    uint64_t begin; /* from the beginning of the data */
    size_t row;     /* numbers of one step of the first dimension */
    size_t used;    /* rows there are so far */
} tensor_place;

typedef struct tensor_out {
    new_file file;
    uint64_t room, end; /* of the header; of the data, as far as tensors were declared */
    tensor_place *tensors;
    size_t n;
    int why; /* errno of the row that could not be written */
} tensor_out;

/* Begins a file, which appears when it is kept.  The header comes last and must fit into the room
 * left for it: n tensors and a text of metadata bytes (cli/tensor_file.c says how long one may be).
 * 0, or an exit code after a message. */
int tensor_out_open(tensor_out *out, const char *path, size_t n, size_t metadata);

/* Declares the next tensor and gives its number.  Its first dimension is the most rows that may
 * come; when fewer do, it says so in the end. */
size_t tensor_out_add(tensor_out *out, const char *name, size_t n_dims, const size_t *dims);

/* The next row of a tensor.  False when it cannot be written; tensor_out_keep then says why. */
bool tensor_out_row(tensor_out *out, size_t tensor, const float *row);

/* Closes gaps, writes the header and puts the file in place.  metadata: an object of strings,
 * released here, or NULL.  0, or 6 after a message; either way out is done. */
int tensor_out_keep(tensor_out *out, json_t *metadata);
void tensor_out_drop(tensor_out *out);

/* Room that a string takes in the metadata, at most. */
size_t tensor_out_metadata(const char *text);

#endif
