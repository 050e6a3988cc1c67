/* trie.h - a set of byte strings that answers "which is the longest that begins here?".
 *
 * Built once from pieces, then read only, so threads may share it.  The nodes lie in breadth-first
 * order: the children of one node are neighbours, sorted by byte, and its list ends where that of
 * the next node begins.  A node costs nine bytes. */
#ifndef CV_TRIE_H
#define CV_TRIE_H

#include "text/pieces.h"

typedef struct cv_trie {
    const uint32_t *first;      /* [nodes + 1] first child of each node */
    const int32_t *value;       /* [nodes]     id of the string that ends here, or -1 */
    const unsigned char *label; /* [nodes]     the byte that leads to the node */
    uint32_t after_one[256];    /* node after one byte, 0 where no string begins with it */
    const uint32_t *after_two;  /* [65536] node after two bytes, or NULL in a small set */
    size_t nodes;
} cv_trie;

/* From the pieces of n different ids, none of them empty.  The nodes come from the arena.  Where
 * two pieces are equal the smaller id stays, and *twin is one of the larger (-1: all differ). */
corvid_status cv_trie_build(cv_trie *trie, cv_arena *arena, const cv_pieces *pieces,
                            const int32_t *ids, size_t n, int32_t *twin, corvid_error *err);

/* The length of the longest string of the set that the n bytes begin with, and its id; 0 when
 * there is none. */
size_t cv_trie_longest(const cv_trie *trie, const char *bytes, size_t n, int32_t *id);

/* The id of exactly these n bytes, or -1. */
int32_t cv_trie_find(const cv_trie *trie, const char *bytes, size_t n);

#endif
