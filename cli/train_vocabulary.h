/* train_vocabulary.h - `corvid train vocabulary`, called by train.c. */
#ifndef CLI_TRAIN_VOCABULARY_H
#define CLI_TRAIN_VOCABULARY_H

#include "train.h"

/* Takes data, out, size, validation and json; 0, or an exit code after a message. */
int train_vocabulary(const train_options *options);

#endif
