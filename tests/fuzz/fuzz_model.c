/* fuzz_model.c - any bytes as a checkpoint in memory, of any format, on its way to a running model.
 *
 * What is recognised as a model is measured; what is small is loaded and reads three tokens.
 * Findings beyond those of the sanitizers: a refusal without a sentence, a status that opening may
 * not have, and weights of another size than was measured. */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST_WEIGHTS ((size_t)1 << 20)
#define MOST_MEMORY  ((uint64_t)64 << 20)

static void check(bool holds)
{
    if (!holds) abort();
}

/* A refusal says why, and is one of the file or of its size. */
static void check_refusal(corvid_status status, const corvid_error *err)
{
    check(status == CORVID_E_FORMAT || status == CORVID_E_MEMORY);
    check(err->status == status && err->text[0] != '\0');
}

/* Three tokens from anywhere in the vocabulary; logits may be anything, NaN too. */
static void feed_three(cv_engine *engine)
{
    const size_t V = engine->model.sizes.V;
    corvid_error err = { CORVID_OK, "" };
    cv_stream stream;
    check(V > 0 && V <= INT32_MAX);
    check(cv_stream_init(engine, &stream, &err) == CORVID_OK);
    const int32_t tokens[] = { 0, (int32_t)(V / 2), (int32_t)(V - 1) };
    float *logits = malloc(V * sizeof *logits);
    check(logits != NULL);
    cv_feed feed = {
        .stream = &stream, .tokens = tokens, .n = 3, .want = CV_WANT_LAST, .logits = logits
    };
    check(cv_engine_feed(engine, &feed, 1, &err) == CORVID_OK);
    check(stream.position == 3);
    free(logits);
    cv_stream_free(&stream);
}

static void run(const cv_source *source, size_t measured)
{
    const cv_engine_options options = { .n_threads = 1, .chunk = 4, .memory_limit = MOST_MEMORY };
    corvid_error err = { CORVID_OK, "" };
    cv_engine engine;
    corvid_status status = cv_engine_open(&cv_libc_allocator, source, &options, &engine, &err);
    if (status != CORVID_OK) {
        check_refusal(status, &err);
        return;
    }
    check(engine.model.weight_bytes == measured);
    feed_three(&engine);
    cv_engine_close(&engine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cv_input in;
    cv_checkpoint ckpt;
    cv_source source;
    size_t bytes;
    corvid_error err = { CORVID_OK, "" };
    cv_input_memory(&in, data, size, "fuzz");
    if (cv_checkpoint_parse(&cv_libc_allocator, &in, &ckpt, &err) != CORVID_OK) return 0;
    corvid_status status = cv_source_open(&ckpt, &source, &err);
    if (status == CORVID_OK) status = cv_weights_measure(&source, &bytes, &err);
    if (status != CORVID_OK)
        check_refusal(status, &err);
    else if (bytes < MOST_WEIGHTS)
        run(&source, bytes);
    cv_checkpoint_close(&ckpt);
    return 0;
}
