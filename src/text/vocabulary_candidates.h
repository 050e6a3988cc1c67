/* vocabulary_candidates.h - which parts of words could be tokens, and where they are. */
#ifndef CV_VOCABULARY_CANDIDATES_H
#define CV_VOCABULARY_CANDIDATES_H

#include "text/vocabulary_words.h"

typedef struct cv_candidate {
    uint32_t position; /* in the words' bytes, where it is first */
    uint32_t length;   /* in bytes, at least 2 */
    uint64_t count;    /* how often the text has it, overlaps included */
} cv_candidate;

typedef struct cv_candidates {
    const corvid_allocator *mem;
    cv_candidate *of;
    size_t n;
    /* at[first[p]] .. at[first[p + 1] - 1] are the candidates that begin at position p of the
     * words' bytes and end within the word, by increasing length. */
    size_t *first; /* [n_bytes + 1] */
    uint32_t *at;
} cv_candidates;

/* The `most` candidates that promise most: count times the bytes that each saves.  A candidate has
 * whole characters, or is the beginning of one, and is there at least `seldom` times. */
corvid_status cv_candidates_find(const cv_vocabulary_words *words, uint64_t seldom, size_t most,
                                 cv_candidates *out, corvid_error *err);
void cv_candidates_free(cv_candidates *c);

#endif
