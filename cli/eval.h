/* eval.h - what the halves of `corvid eval` share: eval.c measures language models, eval_images.c
 * vision models. */
#ifndef CLI_EVAL_H
#define CLI_EVAL_H

#include "model_args.h"
#include "pictures.h"

typedef struct eval_options {
    general_options general;
    model_args model;
    picture_args pictures;
    const char *data, *start;
    uint64_t context, limit;
    bool json, per_class;
} eval_options;

int eval_images(const eval_options *o);

#endif
