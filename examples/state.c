/* state.c - a state is a value: it is saved, loaded into another stream, and goes on from there.
 *
 *     state MODEL [FILE]
 *
 * Feeds a prompt, saves the state to FILE (corvid-example.state), loads it into a second stream,
 * and lets both choose eight tokens: they are the same, and so is every bit of the scores. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <corvid.h>

enum { PROMPT = 24, NEW = 8 };

static int32_t best(const float *logits, size_t n)
{
    size_t top = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[top]) top = i;
    return (int32_t)top;
}

/* Both streams take the same first token; true when they agree on all that follows. */
static int agree(corvid_stream *a, corvid_stream *b, size_t n_vocab, float *la, float *lb,
                 corvid_error *err)
{
    int32_t token = best(la, n_vocab);
    for (int i = 0; i < NEW; i++) {
        printf("%d ", (int)token);
        if (corvid_feed(a, &token, 1, la, err) || corvid_feed(b, &token, 1, lb, err)) return 0;
        if (memcmp(la, lb, n_vocab * sizeof *la) != 0) {
            snprintf(err->text, sizeof err->text, "the two streams differ");
            return 0;
        }
        token = best(la, n_vocab);
    }
    puts("in both");
    return 1;
}

int main(int argc, char **argv)
{
    const char *file = argc > 2 ? argv[2] : "corvid-example.state";
    corvid_error err = { CORVID_OK, "out of memory" };
    corvid_model_info info = { .struct_size = sizeof info };
    corvid_model *model = NULL;
    corvid_stream *first = NULL, *second = NULL;
    float *logits = NULL;
    int32_t tokens[PROMPT];
    int failed = 1;

    if (argc < 2) {
        fputs("usage: state MODEL [FILE]\n", stderr);
        return 2;
    }
    if (corvid_model_open(argv[1], NULL, &model, &err)) goto done;
    if (corvid_model_get_info(model, &info, &err)) goto done;
    if (corvid_stream_new(model, &first, &err) || corvid_stream_new(model, &second, &err))
        goto done;
    logits = calloc(2 * info.n_vocab, sizeof *logits);
    if (!logits) goto done;
    for (size_t i = 0; i < PROMPT; i++)
        tokens[i] = (int32_t)(1 + (7 * i) % (info.n_vocab - 1));

    if (corvid_feed(first, tokens, PROMPT, logits, &err)) goto done;
    if (corvid_state_save(first, file, &err) || corvid_state_load(second, file, &err)) goto done;
    remove(file);
    printf("position %llu and %llu: ", (unsigned long long)corvid_stream_position(first),
           (unsigned long long)corvid_stream_position(second));
    failed = !agree(first, second, info.n_vocab, logits, logits + info.n_vocab, &err);
done:
    if (failed) fprintf(stderr, "state: %s\n", err.text);
    free(logits);
    corvid_stream_free(first);
    corvid_stream_free(second);
    corvid_model_close(model);
    return failed;
}
