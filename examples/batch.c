/* batch.c - three streams in one pass over the weights:  batch MODEL
 *
 * The streams read texts of different lengths in one call of corvid_feed_batch; each gets the
 * scores that it would have got alone, bit for bit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <corvid.h>

enum { STREAMS = 3, LONGEST = 30 };

static int32_t best(const float *logits, size_t n)
{
    size_t top = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[top]) top = i;
    return (int32_t)top;
}

/* Feeds every item again to a fresh stream, alone; true when the scores are the same. */
static int same_alone(corvid_stream *alone, const corvid_batch_item *items, size_t n_vocab,
                      float *logits, corvid_error *err)
{
    for (size_t i = 0; i < STREAMS; i++) {
        corvid_stream_reset(alone);
        if (corvid_feed(alone, items[i].tokens, items[i].n, logits, err)) return 0;
        if (memcmp(logits, items[i].logits, n_vocab * sizeof *logits) != 0) {
            snprintf(err->text, sizeof err->text, "stream %zu of the batch differs", i);
            return 0;
        }
        printf("stream %zu read %zu tokens, then expects %d\n", i, items[i].n,
               (int)best(logits, n_vocab));
    }
    return 1;
}

int main(int argc, char **argv)
{
    corvid_error err = { CORVID_OK, "out of memory" };
    corvid_model_info info = { .struct_size = sizeof info };
    corvid_model *model = NULL;
    corvid_stream *streams[STREAMS] = { NULL }, *alone = NULL;
    corvid_batch_item items[STREAMS];
    int32_t tokens[STREAMS][LONGEST];
    float *logits = NULL;
    int failed = 1;

    if (argc < 2) {
        fputs("usage: batch MODEL\n", stderr);
        return 2;
    }
    if (corvid_model_open(argv[1], NULL, &model, &err)) goto done;
    if (corvid_model_get_info(model, &info, &err)) goto done;
    if (corvid_stream_new(model, &alone, &err)) goto done;
    logits = calloc((STREAMS + 1) * info.n_vocab, sizeof *logits);
    if (!logits) goto done;

    for (size_t i = 0; i < STREAMS; i++) {
        if (corvid_stream_new(model, &streams[i], &err)) goto done;
        items[i] = (corvid_batch_item){ .stream = streams[i],
                                        .tokens = tokens[i],
                                        .n = LONGEST / (i + 1),
                                        .logits = logits + i * info.n_vocab };
        for (size_t j = 0; j < LONGEST; j++)
            tokens[i][j] = (int32_t)(1 + (31 * i + 5 * j) % (info.n_vocab - 1));
    }
    if (corvid_feed_batch(items, STREAMS, &err)) goto done;
    failed = !same_alone(alone, items, info.n_vocab, logits + STREAMS * info.n_vocab, &err);
done:
    if (failed) fprintf(stderr, "batch: %s\n", err.text);
    free(logits);
    for (size_t i = 0; i < STREAMS; i++)
        corvid_stream_free(streams[i]);
    corvid_stream_free(alone);
    corvid_model_close(model);
    return failed;
}
