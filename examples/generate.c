/* generate.c - opens a model, reads a prompt, writes what comes next:  generate MODEL [PROMPT] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <corvid.h>

enum { PROMPT_TOKENS = 4096, NEW_TOKENS = 32 };

int main(int argc, char **argv)
{
    const char *prompt = argc > 2 ? argv[2] : "Once upon a time";
    static int32_t ids[PROMPT_TOKENS];
    corvid_error err = { CORVID_OK, "out of memory" };
    corvid_model_info info = { .struct_size = sizeof info };
    corvid_sampler_options how;
    corvid_model *model = NULL;
    corvid_stream *stream = NULL;
    corvid_sampler *sampler = NULL;
    const corvid_tokenizer *tok = NULL;
    float *logits = NULL;
    size_t n = 0;
    int failed = 1;

    if (argc < 2 || corvid_model_open(argv[1], NULL, &model, &err)) goto done;
    if (corvid_model_get_info(model, &info, &err)) goto done;
    if (corvid_model_tokenizer(model, &tok, &err)) goto done;
    if (!(logits = calloc(info.n_vocab, sizeof *logits))) goto done;
    corvid_sampler_defaults(&how);
    if (corvid_sampler_new(info.n_vocab, &how, tok, &sampler, &err)) goto done;
    if (corvid_stream_new(model, &stream, &err)) goto done;
    if (corvid_tokenize(tok, prompt, strlen(prompt), ids, PROMPT_TOKENS, &n, &err)) goto done;
    if (corvid_feed(stream, ids, n, logits, &err)) goto done;
    fputs(prompt, stdout);
    for (int i = 0; i < NEW_TOKENS; i++) {
        int32_t next = corvid_sample(sampler, logits);
        if (next <= 0) break; /* 0 ends a text, -1 says that no score was finite */
        const char *piece = corvid_token_bytes(tok, next, &n);
        fwrite(piece, 1, n, stdout);
        if (corvid_feed(stream, &next, 1, logits, &err)) goto done;
    }
    failed = putchar('\n') == EOF;
done:
    if (failed) fprintf(stderr, "%s\n", argc < 2 ? "usage: generate MODEL [PROMPT]" : err.text);
    corvid_stream_free(stream), corvid_sampler_free(sampler), free(logits);
    corvid_model_close(model);
    return failed;
}
