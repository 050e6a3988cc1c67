/* vocabulary_words.h - the different words of a text and how often each is there.
 *
 * What vocabularies are made from: a text of megabytes has some ten thousand different words, and
 * all counting is done on those.  A word here is what a token may be a part of: a leading space
 * belongs to it, a digit stands alone, line ends go with the punctuation before them. */
#ifndef CV_VOCABULARY_WORDS_H
#define CV_VOCABULARY_WORDS_H

#include "base/memory.h"

/* Longer runs are cut: no token needs to be longer, and runs of one character stay few words. */
#define CV_WORD_BYTES ((size_t)64)

typedef struct cv_counted_word {
    size_t start; /* of its bytes */
    size_t length;
    uint64_t count;
} cv_counted_word;

typedef struct cv_vocabulary_words {
    const corvid_allocator *mem;
    char *bytes; /* the words one behind the other, in the order of their first appearance */
    size_t n_bytes, bytes_capacity;
    cv_counted_word *words;
    size_t n, capacity;
    uint32_t *slots; /* [n_slots] index + 1 of a word, by hash; 0: free */
    size_t n_slots;
    uint64_t text_bytes; /* of all texts */
} cv_vocabulary_words;

void cv_vocabulary_words_init(cv_vocabulary_words *w, const corvid_allocator *mem);
void cv_vocabulary_words_free(cv_vocabulary_words *w);

/* Counts the words of n more bytes, of any kind: what is not UTF-8 counts as words of one byte. */
corvid_status cv_vocabulary_words_add(cv_vocabulary_words *w, const char *text, size_t n,
                                      corvid_error *err);

/* The length of the word that the n > 0 bytes begin with. */
size_t cv_vocabulary_word_length(const char *text, size_t n);

#endif
