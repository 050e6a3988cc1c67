/* words.h - what happens to a text before byte-pair encoding: normal form, then words. */
#ifndef CV_WORDS_H
#define CV_WORDS_H

#include "base/memory.h"

/* The length of the word that the n > 0 bytes of valid UTF-8 begin with, by GPT-2's pattern. */
size_t cv_word_length(const char *text, size_t n);

/* Normalisation form C of n bytes of valid UTF-8.  *owned is NULL, and *out the text itself, where
 * it is in that form already; else both are a fresh allocation of mem. */
corvid_status cv_nfc(const corvid_allocator *mem, const char *text, size_t n, const char **out,
                     size_t *out_n, char **owned, corvid_error *err);

#endif
