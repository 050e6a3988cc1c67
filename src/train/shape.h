/* shape.h - the sizes of a model that is to be trained from nothing: what the official trainers make
 * of an architecture, a number of layers and a width. */
#ifndef CV_SHAPE_H
#define CV_SHAPE_H

#include "models/source.h"

typedef enum cv_choice { CV_AS_OFFICIAL, CV_YES, CV_NO } cv_choice;

/* What was asked for.  A 0 leaves the choice to the official trainers. */
typedef struct cv_shape_wish {
    const char *arch; /* "rwkv4", "rwkv5.2", ...: the name of a cv_arch */
    size_t layers, width;
    size_t inner;                 /* width of the channel mix; 0: 4 C, in versions 5 and 6 3.5 C */
    size_t head_size;             /* 0: 64; version 4, vrwkv, aft and lstm have none */
    size_t vocabulary;            /* language models */
    size_t context;               /* gpt and aft: places, that is the longest sequence; 0: 1024 */
    size_t rank, window;          /* of the biases of aft-full and aft-local; 0: 64, 32 */
    size_t classes, image, patch; /* vision models; 0: 1000 classes, 224 and 16 pixels a side */
    /* Vision: norms behind the branches, with layer scale (official: wider than 192); norms of the
     * keys, and a head of two layers (official: deeper than 12). */
    cv_choice post_norm, keyed, mlp;
} cv_shape_wish;

/* Fills a source without a checkpoint: arch, sizes, traits.  Its views are those that cv_source_each
 * gives; as a source it reads as zeros, and cv_init_fill has the values to begin with.
 * CORVID_E_ARGUMENT says which size does not do, and leaves *out alone. */
corvid_status cv_shape_for(const cv_shape_wish *wish, cv_source *out, corvid_error *err);

#endif
