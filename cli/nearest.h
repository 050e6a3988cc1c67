/* nearest.h - what a mistyped word probably meant. */
#ifndef CLI_NEAREST_H
#define CLI_NEAREST_H

#include <stdbool.h>
#include <stddef.h>

/* The candidate fewest edits away so far. */
typedef struct nearest {
    const char *word;
    const char *best;
    size_t distance;
} nearest;

nearest nearest_to(const char *word);
void nearest_try(nearest *n, const char *candidate);

/* True when the best candidate is close enough to be worth naming. */
bool nearest_found(const nearest *n);

#endif
