/* fuzz_binidx.c - any bytes as a data set of tokens, from memory.
 *
 * The first two bytes say how many of the rest are the index; the tokens follow.  Findings beyond
 * those of the sanitizers: a refusal without a sentence, documents that are not one behind the
 * other from the first token to the last, and an id outside the vocabulary. */
#include <stdlib.h>
#include <string.h>

#include "train/binidx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) abort();
}

static void read_tokens(const cv_binidx *set, uint64_t from, uint64_t n)
{
    int32_t ids[700];
    while (n > 0) {
        const size_t part = n < 700 ? (size_t)n : 700;
        corvid_error err = { CORVID_OK, "" };
        const corvid_status status = cv_binidx_read(set, from, part, 50000, ids, &err);
        check(status == CORVID_OK || (status == CORVID_E_MISMATCH && err.text[0] != '\0'));
        for (size_t i = 0; status == CORVID_OK && i < part; i++)
            check(ids[i] >= 0 && ids[i] < 50000);
        from += part;
        n -= part;
    }
}

static void read_all(const cv_binidx *set)
{
    uint64_t at = 0, from, n;
    for (uint64_t d = 0; d < set->n_documents; d++) {
        check(cv_binidx_document(set, d, &from, &n, NULL) == CORVID_OK);
        check(from == at && n <= set->n_tokens - from);
        read_tokens(set, from, n);
        at += n;
    }
    check(at == set->n_tokens);
}

/* An exact copy, so that reading past its end is found. */
static void *copy_of(const uint8_t *bytes, size_t n)
{
    void *copy = malloc(n > 0 ? n : 1);
    check(copy != NULL);
    memcpy(copy, bytes, n);
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 1 << 17) return 0;
    corvid_error err = { CORVID_OK, "" };
    cv_binidx set;
    size_t index_n = data[0] | (size_t)data[1] << 8;
    if (index_n > size - 2) index_n = size - 2;
    const size_t tokens_n = size - 2 - index_n;
    void *index = copy_of(data + 2, index_n), *tokens = copy_of(data + 2 + index_n, tokens_n);
    const corvid_status status =
        cv_binidx_parse(&set, index, index_n, tokens, tokens_n, "fuzz", &err);
    if (status == CORVID_OK) {
        read_all(&set);
        cv_binidx_close(&set);
    } else {
        check(status == CORVID_E_FORMAT && err.status == status && err.text[0] != '\0');
    }
    free(index);
    free(tokens);
    return 0;
}
