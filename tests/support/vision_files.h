/* vision_files.h - what the tests of vision models share: small models made here, tensors of the
 * reference files, how far numbers are from them. */
#ifndef TEST_VISION_FILES_H
#define TEST_VISION_FILES_H

#include "corvid.h"
#include "models/source.h"

/* ---- Tensors of a file ----------------------------------------------------------------------- */

/* A tensor's values as f32, to be freed; NULL when the file has none of that name.  count may be
 * NULL. */
float *vision_tensor(const cv_checkpoint *ckpt, const char *name, size_t *count);

/* The same of a file that must have it, with `count` values. */
float *vision_need(const cv_checkpoint *ckpt, const char *name, size_t count);

/* max |got - want| / max |want|; infinite when something is no number. */
double vision_off(const float *got, const float *want, size_t n);

/* The values that the reference data generates from a tensor's name, elements [first, first + n). */
void vision_generate(const char *name, double centre, double halfwidth, size_t first, size_t n,
                     float *out);

/* ---- Models ---------------------------------------------------------------------------------- */

/* Random weights in the manner of a known shape, but of any size: a safetensors file. */
typedef struct vision_small {
    const char *like;  /* "vrwkv-t", "vrwkv6-s", ...: which weights there are */
    size_t C, L, p, G; /* width, layers, side of a patch, positions */
    size_t K, J;       /* classes; width inside of the head of vrwkv-l */
    bool class_token, headless;
} vision_small;

void vision_write(const char *path, const vision_small *small);

/* Opens with these threads and level (NULL: the default). */
corvid_model *vision_open(const char *path, size_t n_threads, const char *cpu);
corvid_model_info vision_info(const corvid_model *model);

/* The levels of kernels that this machine has, all but AMX, then AMX if it is there and wanted;
 * returns how many.  levels [5]. */
size_t vision_levels(const char **levels, bool with_amx);

#endif
