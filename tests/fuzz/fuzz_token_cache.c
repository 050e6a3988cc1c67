/* fuzz_token_cache.c - any bytes as a token cache, from memory.
 *
 * A cache ends in a checksum that no fuzzer guesses: where the first byte of the input is odd it is
 * completed; the rest is the file.  Findings beyond those of the sanitizers: a refusal without a
 * sentence, document starts out of order, and an id outside the vocabulary. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "train/text_data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) abort();
}

static void read_all(const cv_token_cache *cache)
{
    int32_t ids[100];
    for (uint64_t at = 0; at < cache->n_tokens; at += 100) {
        const size_t n = cache->n_tokens - at < 100 ? (size_t)(cache->n_tokens - at) : 100;
        check(cv_token_cache_read(cache, at, n, ids, NULL) == CORVID_OK);
        for (size_t i = 0; i < n; i++)
            check(ids[i] >= 0 && (uint64_t)ids[i] < cache->key.vocabulary_size);
    }
    check(cache->n_documents > 0 && cache->starts[0] == 0);
    for (uint64_t i = 1; i < cache->n_documents; i++)
        check(cache->starts[i] > cache->starts[i - 1] && cache->starts[i] < cache->n_tokens);
}

/* Batches of every order, where there are enough tokens. */
static void sample(const cv_token_cache *cache)
{
    enum { T = 3, B = 4 };
    const cv_text_data all = { .cache = *cache, .train = { 0, cache->n_tokens } };
    int32_t tokens[T * B], targets[T * B];
    cv_sample_plan sampler;
    for (int order = CV_SAMPLES_RANDOM; order <= CV_SAMPLES_SEQUENTIAL; order++) {
        if (cv_sample_plan_init(&sampler, all.train, (cv_sample_order)order, T, B, 1, NULL) !=
            CORVID_OK)
            continue;
        for (uint64_t step = 0; step < 5; step++)
            check(cv_text_batch(&all, &sampler, step, 0, B, tokens, targets, NULL) == CORVID_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 1 << 16) return 0;
    corvid_error err = { CORVID_OK, "" };
    cv_token_cache cache;
    const size_t n = size - 1;
    unsigned char *file = malloc(n > 0 ? n : 1);
    check(file != NULL);
    memcpy(file, data + 1, n);
    if ((data[0] & 1) && n >= 8) {
        const uint64_t sum = XXH3_64bits(file, n - 8);
        memcpy(file + n - 8, &sum, 8);
    }
    const corvid_status status =
        cv_token_cache_parse(&cv_libc_allocator, file, n, "fuzz", NULL, &cache, &err);
    if (status == CORVID_OK) {
        read_all(&cache);
        sample(&cache);
        cv_token_cache_close(&cache);
    } else {
        check(status == CORVID_E_FORMAT || status == CORVID_E_MEMORY);
        check(err.status == status && err.text[0] != '\0');
    }
    free(file);
    return 0;
}
