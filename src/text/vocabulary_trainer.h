/* vocabulary_trainer.h - makes a vocabulary of the World form from a text.
 *
 * Id 0 is the end of a text, ids 1 to 256 are the bytes, then come the tokens of several bytes, by
 * length and then by their bytes.  The result is the text of a vocabulary file, which
 * cv_tokenizer_parse reads; with it the longest match encodes any bytes and gives them back.
 *
 * Same texts in the same order, same vocabulary, on every machine. */
#ifndef CV_VOCABULARY_TRAINER_H
#define CV_VOCABULARY_TRAINER_H

#include "text/vocabulary_words.h"

/* The end of a text and the bytes: what the smallest vocabulary has. */
#define CV_VOCABULARY_SMALLEST ((size_t)257)
#define CV_VOCABULARY_LARGEST  ((size_t)65536)

typedef struct cv_vocabulary_options {
    size_t size;                 /* ids wanted, CV_VOCABULARY_SMALLEST to CV_VOCABULARY_LARGEST */
    corvid_progress_fn progress; /* may be NULL; done and total count rounds of the search */
    corvid_cancel_fn cancel;     /* may be NULL */
    void *ctx;                   /* of both */
} cv_vocabulary_options;

/* Tokens that make the counted text short under the longest match.  A text that does not have as
 * many repeated parts gives fewer ids than wanted.
 *   *file   a fresh allocation of words->mem, *n bytes, for cv_free
 *   *size   the ids it has; may be NULL */
corvid_status cv_vocabulary_train(const cv_vocabulary_words *words,
                                  const cv_vocabulary_options *options, char **file, size_t *n,
                                  size_t *size, corvid_error *err);

/* One token for each character of the counted text, besides the bytes. */
corvid_status cv_vocabulary_characters(const cv_vocabulary_words *words, char **file, size_t *n,
                                       size_t *size, corvid_error *err);

/* One token of several bytes. */
typedef struct cv_token_bytes {
    const char *bytes;
    size_t n;
} cv_token_bytes;

/* The file of the bytes and these tokens, which are sorted on the way.  At most
 * CV_VOCABULARY_LARGEST tokens, different, of 2 to CV_WORD_BYTES bytes. */
corvid_status cv_vocabulary_write(const corvid_allocator *mem, cv_token_bytes *tokens,
                                  size_t n_tokens, char **file, size_t *n, corvid_error *err);

#endif
