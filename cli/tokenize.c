/* tokenize.c - `corvid tokenize` and `corvid detokenize`: text to token ids and back. */
#include "verbs.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model_args.h"
#include "term.h"
#include "textio.h"

typedef struct tokenize_options {
    general_options general;
    model_args model; /* only model and vocab can be set */
    bool ids, json;
} tokenize_options;

#define FIELD(name) offsetof(tokenize_options, name)

static const cli_option tokenize_table[] = {
    { "ids", 0, OPTION_FLAG, NULL, NULL, "Print the ids alone, on one line.", FIELD(ids), 0, 0 },
    { "json", 0, OPTION_FLAG, NULL, NULL, "Print {\"ids\", \"pieces\"}.", FIELD(json), 0, 0 },
    { 0 }
};

static const cli_option detokenize_table[] = {
    { "ids", 0, OPTION_FLAG, NULL, NULL, "The arguments are ids (they always are).", FIELD(ids), 0,
      0 },
    { "json", 0, OPTION_FLAG, NULL, NULL,
      "Print {\"text\"}; bytes that are not UTF-8 become U+FFFD.", FIELD(json), 0, 0 },
    { 0 }
};

static const option_group tokenize_groups[] = { { "Tokenize", tokenize_table, 0 },
                                                { "Vocabulary", vocab_table, FIELD(model) },
                                                GENERAL_GROUP,
                                                { 0 } };
static const option_group detokenize_groups[] = { { "Detokenize", detokenize_table, 0 },
                                                  { "Vocabulary", vocab_table, FIELD(model) },
                                                  GENERAL_GROUP,
                                                  { 0 } };

/* A tokenizer and what it was taken from. */
typedef struct vocabulary {
    const corvid_tokenizer *tokenizer;
    corvid_tokenizer *own;
    corvid_model *model;
} vocabulary;

static void close_vocabulary(vocabulary *v)
{
    corvid_tokenizer_close(v->own);
    corvid_model_close(v->model);
}

/* From --vocab, else from inside the checkpoint, else by opening the model, which knows where
 * vocabularies lie. */
static int open_vocabulary(const model_args *args, vocabulary *v)
{
    corvid_error err;
    *v = (vocabulary){ 0 };
    if (args->vocab) {
        if (corvid_tokenizer_open(args->vocab, &v->own, &err)) return fail_with(&err);
    } else {
        int code = model_args_need(args);
        if (code) return code;
        if (corvid_tokenizer_open(args->model, &v->own, NULL)) {
            code = model_args_open_language(args, &v->model);
            if (code) return code;
            if (corvid_model_tokenizer(v->model, &v->tokenizer, &err)) {
                code = fail_with(&err);
                close_vocabulary(v);
                return code;
            }
            return 0;
        }
    }
    v->tokenizer = v->own;
    return 0;
}

static json_t *piece(const corvid_tokenizer *tokenizer, int32_t id)
{
    size_t n = 0;
    const char *bytes = corvid_token_bytes(tokenizer, id, &n);
    return cli_json_text(bytes ? bytes : "", n);
}

static void print_ids(const token_list *tokens)
{
    for (size_t i = 0; i < tokens->n; i++)
        printf("%s%d", i ? " " : "", (int)tokens->ids[i]);
    putchar('\n');
}

static void print_table(const corvid_tokenizer *tokenizer, const token_list *tokens)
{
    for (size_t i = 0; i < tokens->n; i++) {
        json_t *text = piece(tokenizer, tokens->ids[i]);
        char *quoted = json_dumps(text, JSON_ENCODE_ANY);
        printf("%d\t%s\n", (int)tokens->ids[i], quoted ? quoted : "");
        free(quoted);
        json_decref(text);
    }
}

static int print_tokens_json(const corvid_tokenizer *tokenizer, const token_list *tokens)
{
    json_t *pieces = json_array();
    for (size_t i = 0; i < tokens->n; i++)
        json_array_append_new(pieces, piece(tokenizer, tokens->ids[i]));
    return cli_print_json(json_pack("{s:o, s:o}", "ids", cli_json_ids(tokens), "pieces", pieces));
}

static int run_tokenize(const void *options, int n_args, char **args)
{
    const tokenize_options *o = options;
    if (n_args != 1)
        return fail(EXIT_USAGE, n_args ? "give one text; quote it if it has spaces"
                                       : "give a text, or - for standard input");
    vocabulary v;
    buffer text = { 0 };
    token_list tokens = { 0 };
    int code = open_vocabulary(&o->model, &v);
    if (code) return code;
    if (strcmp(args[0], "-") == 0)
        code = cli_read("-", &text);
    else
        buffer_text(&text, args[0]);
    if (!code) code = cli_encode(v.tokenizer, text.bytes, text.n, &tokens);
    if (!code && o->json)
        code = print_tokens_json(v.tokenizer, &tokens);
    else if (!code && o->ids)
        print_ids(&tokens);
    else if (!code)
        print_table(v.tokenizer, &tokens);
    tokens_free(&tokens);
    buffer_free(&text);
    close_vocabulary(&v);
    return code;
}

/* The ids of all arguments, "-" standing for standard input. */
static int read_ids(int n_args, char **args, token_list *out)
{
    int code = 0;
    for (int i = 0; i < n_args && !code; i++) {
        buffer text = { 0 };
        if (strcmp(args[i], "-") == 0)
            code = cli_read("-", &text);
        else
            buffer_text(&text, args[i]);
        if (!code) code = cli_parse_ids("ids", text.bytes, out);
        buffer_free(&text);
    }
    return code;
}

static int append_text(const corvid_tokenizer *tokenizer, const token_list *tokens, buffer *out)
{
    size_t size = corvid_tokenizer_size(tokenizer);
    buffer_add(out, "", 0);
    for (size_t i = 0; i < tokens->n; i++) {
        if ((size_t)tokens->ids[i] >= size)
            return fail(EXIT_USAGE, "id %d is not in the vocabulary, which ends at %zu",
                        (int)tokens->ids[i], size - 1);
        size_t n = 0;
        const char *bytes = corvid_token_bytes(tokenizer, tokens->ids[i], &n);
        if (bytes) buffer_add(out, bytes, n);
    }
    return 0;
}

static int run_detokenize(const void *options, int n_args, char **args)
{
    const tokenize_options *o = options;
    if (!n_args) return fail(EXIT_USAGE, "give token ids, or - for standard input");
    vocabulary v;
    token_list tokens = { 0 };
    buffer text = { 0 };
    int code = read_ids(n_args, args, &tokens);
    if (!code) code = open_vocabulary(&o->model, &v);
    if (!code) {
        code = append_text(v.tokenizer, &tokens, &text);
        if (!code && o->json)
            code = cli_print_json(json_pack("{s:o}", "text", cli_json_text(text.bytes, text.n)));
        else if (!code && term_out(text.bytes, text.n) && isatty(STDOUT_FILENO) == 1)
            putchar('\n');
        close_vocabulary(&v);
    }
    tokens_free(&tokens);
    buffer_free(&text);
    return code;
}

const cli_verb verb_tokenize = {
    .name = "tokenize",
    .summary = "turn text into token ids",
    .usage = "(-m MODEL | --vocab FILE) [--ids] TEXT|-",
    .examples = "corvid tokenize --vocab rwkv_vocab_v20230424.txt \"The Eiffel tower\"\n"
                "corvid tokenize -m rwkv7.gguf --ids - < book.txt",
    .details = "Prints one token per line with its text in quotes.",
    .groups = tokenize_groups,
    .options_size = sizeof(tokenize_options),
    .run = run_tokenize,
};

const cli_verb verb_detokenize = {
    .name = "detokenize",
    .summary = "turn token ids into text",
    .usage = "(-m MODEL | --vocab FILE) IDS...|-",
    .examples = "corvid detokenize --vocab rwkv_vocab_v20230424.txt \"6699 304 25740\"\n"
                "corvid tokenize --vocab V --ids - < a.txt | corvid detokenize --vocab V - > b.txt",
    .details = "Prints exactly the bytes of the tokens, and a newline only on a terminal. Ids are "
               "separated by white space or commas.",
    .groups = detokenize_groups,
    .options_size = sizeof(tokenize_options),
    .run = run_detokenize,
};
