/* logits.h - what the two halves of `corvid logits` share: logits.c feeds tokens, logits_vision.c
 * shows pictures. */
#ifndef CLI_LOGITS_H
#define CLI_LOGITS_H

#include "model_args.h"
#include "pictures.h"

typedef struct logits_options {
    general_options general;
    model_args model;
    picture_args pictures;
    const char *tokens, *text, *input, *out;
    option_list image;
    bool all, json;
} logits_options;

/* Prints [1.5,-2,...]: every bit of a float comes back from it; null for what is not finite. */
void logits_json(const float *row, size_t n);

int logits_of_pictures(const logits_options *o);

#endif
