/* nearest.c - edit distance with swaps of neighbouring letters counted as one slip. */
#include "nearest.h"

#include <stdint.h>
#include <string.h>

#define LONGEST 40

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Insertions, deletions, replacements and swaps that lead from a to b. */
static size_t distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST) return SIZE_MAX;
    size_t d[LONGEST + 1][LONGEST + 1];
    for (size_t i = 0; i <= n; i++)
        for (size_t j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            size_t replaced = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            d[i][j] = least(replaced, least(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    return d[n][m];
}

nearest nearest_to(const char *word)
{
    return (nearest){ word, NULL, SIZE_MAX };
}

void nearest_try(nearest *n, const char *candidate)
{
    size_t length = strlen(n->word);
    /* The beginning of a longer word is a likelier slip than its letters say. */
    bool prefix = length >= 3 && strncmp(n->word, candidate, length) == 0;
    size_t d = prefix ? 1 : distance(n->word, candidate);
    if (d >= n->distance) return;
    n->distance = d;
    n->best = candidate;
}

bool nearest_found(const nearest *n)
{
    return n->best && n->distance <= 1 + strlen(n->word) / 3;
}
