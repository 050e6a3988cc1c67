/* logits.c - `corvid logits`: the scores of what may come next. */
#include "logits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ranking.h"
#include "tensor_file.h"
#include "term.h"
#include "textio.h"
#include "verbs.h"

#define FIELD(name) offsetof(logits_options, name)

static const cli_option own_table[] = {
    { "tokens", 0, OPTION_TEXT, "\"1 2 3\"", NULL, "Token ids; needs no vocabulary.", FIELD(tokens),
      0, 0 },
    { "text", 0, OPTION_TEXT, "TEXT", NULL, "A text; \"-\" reads it from standard input.",
      FIELD(text), 0, 0 },
    { "image", 0, OPTION_LIST, "FILE", NULL,
      "A picture, or all in a folder, for a vision model; \"-\" is standard input; may be given "
      "several times.",
      FIELD(image), 0, 0 },
    { "input", 0, OPTION_TEXT, "FILE[:TENSOR]", NULL,
      "Pictures as numbers, normalised: a tensor of a safetensors file, f32 [pictures, 3, height, "
      "width] or [3, height, width], named \"image\" if nothing is said.",
      FIELD(input), 0, 0 },
    { "all", 0, OPTION_FLAG, NULL, NULL, "After every token, not only after the last.", FIELD(all),
      0, 0 },
    { "json", 0, OPTION_FLAG, NULL, NULL,
      "Print {\"arch\", \"tokens\", \"logits\"}, for pictures without tokens and an array each; "
      "the "
      "numbers give back every bit of a float.",
      FIELD(json), 0, 0 },
    { "out", 0, OPTION_TEXT, "FILE", NULL,
      "Write a safetensors file with the tensor \"logits\", f32 [tokens, vocabulary] or [pictures, "
      "classes].",
      FIELD(out), 0, 0 },
    { 0 }
};

static const option_group groups[] = { { "Logits", own_table, 0 },
                                       { "Pictures", picture_table, FIELD(pictures) },
                                       { "Model", model_table, FIELD(model) },
                                       { "Vision models", vision_table, FIELD(model) },
                                       GENERAL_GROUP,
                                       { 0 } };

/* Where rows of logits go. */
typedef struct sink {
    const logits_options *o;
    const corvid_tokenizer *tokenizer; /* NULL: none */
    size_t n_vocab;
    const token_list *tokens;
    tensor_out file;
    size_t rows; /* seen so far */
} sink;

/* ---- JSON ------------------------------------------------------------------------------------ */

/* Written by hand: a tree of all numbers of a long text would not fit in memory. */
void logits_json(const float *row, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        putchar(i ? ',' : '[');
        if (isfinite(row[i]))
            printf("%.9g", (double)row[i]);
        else
            fputs("null", stdout);
    }
    putchar(']');
}

static void json_begin(const sink *s, const char *arch)
{
    printf("{\"arch\":\"%s\",\"tokens\":[", arch);
    for (size_t i = 0; i < s->tokens->n; i++)
        printf("%s%d", i ? "," : "", (int)s->tokens->ids[i]);
    fputs(s->o->all ? "],\"logits\":[" : "],\"logits\":", stdout);
}

/* ---- Table ----------------------------------------------------------------------------------- */

/* A token's text in quotes, as JSON writes it. */
static void print_text(const sink *s, int32_t id)
{
    size_t n = 0;
    const char *bytes = s->tokenizer ? corvid_token_bytes(s->tokenizer, id, &n) : NULL;
    if (!bytes || !n) return;
    json_t *text = cli_json_text(bytes, n);
    char *quoted = json_dumps(text, JSON_ENCODE_ANY);
    printf("  %s", quoted ? quoted : "");
    free(quoted);
    json_decref(text);
}

static void table_row(const sink *s, const float *row, size_t position)
{
    size_t shown = s->o->all ? 1 : 10;
    double whole = log_sum(row, s->n_vocab);
    if (!s->o->all) printf("rank       id       logit  probability\n");
    for (size_t rank = 1, i = s->n_vocab; rank <= shown; rank++) {
        i = next_largest(row, s->n_vocab, i);
        if (i == s->n_vocab) break;
        printf("%4zu %8zu  %10.5f     %8.5f", s->o->all ? position : rank, i, (double)row[i],
               exp((double)row[i] - whole));
        print_text(s, (int32_t)i);
        putchar('\n');
    }
}

/* ---- Running --------------------------------------------------------------------------------- */

static void take_row(sink *s, const float *row)
{
    if (s->o->out) tensor_out_row(&s->file, 0, row); /* tensor_out_keep says what went wrong */
    if (s->o->json) {
        if (s->rows) putchar(',');
        logits_json(row, s->n_vocab);
    } else if (!s->o->out) {
        table_row(s, row, s->rows);
    }
    s->rows++;
}

/* Feeds the tokens; with --all a few at a time, so that memory does not grow with the text. */
static int feed(sink *s, corvid_stream *stream)
{
    enum { ROWS = 32 };
    const token_list *t = s->tokens;
    size_t step = s->o->all ? ROWS : t->n;
    float *rows = cli_array((s->o->all ? ROWS : 1) * s->n_vocab, sizeof *rows);
    corvid_error err;
    corvid_status status = CORVID_OK;
    progress bar;
    progress_begin(&bar, "reading");
    for (size_t i = 0; i < t->n && !status; i += step) {
        size_t n = t->n - i < step ? t->n - i : step;
        if (s->o->all)
            status = corvid_feed_all(stream, t->ids + i, n, rows, &err);
        else
            status = corvid_feed(stream, t->ids + i, n, rows, &err);
        for (size_t r = 0; r < (s->o->all ? n : 1) && !status; r++)
            take_row(s, rows + r * s->n_vocab);
        progress_show(&bar, i + n, t->n);
    }
    progress_end(&bar);
    free(rows);
    return status ? fail_with(&err) : 0;
}

static int print_all(sink *s, corvid_stream *stream, const char *arch)
{
    size_t shape[] = { s->o->all ? s->tokens->n : 1, s->n_vocab };
    int code = s->o->out ? tensor_out_open(&s->file, s->o->out, 1, 0) : 0;
    if (code) return code;
    if (s->o->out) tensor_out_add(&s->file, "logits", 2, shape);
    if (s->o->json) json_begin(s, arch);
    code = feed(s, stream);
    if (s->o->json) puts(s->o->all ? "]}" : "}");
    if (!s->o->out) return code;
    if (!code) return tensor_out_keep(&s->file, NULL);
    tensor_out_drop(&s->file);
    return code;
}

static int read_tokens(const logits_options *o, const corvid_tokenizer *tokenizer, token_list *out)
{
    int code = 0;
    if (o->tokens) {
        code = cli_parse_ids("--tokens", o->tokens, out);
    } else if (o->text) {
        buffer text = { 0 };
        if (strcmp(o->text, "-") == 0)
            code = cli_read("-", &text);
        else
            buffer_text(&text, o->text);
        if (!code) code = cli_encode(tokenizer, text.bytes, text.n, out);
        buffer_free(&text);
    }
    if (!code && !out->n) return fail(EXIT_USAGE, "there are no tokens to feed");
    return code;
}

static int logits_of_tokens(const logits_options *o)
{
    corvid_model *model = NULL;
    corvid_stream *stream = NULL;
    token_list tokens = { 0 };
    sink s = { .o = o, .tokens = &tokens };
    corvid_error err;
    int code = model_args_open_language(&o->model, &model);
    if (code) return code;
    corvid_status status = corvid_model_tokenizer(model, &s.tokenizer, &err);
    if (status) s.tokenizer = NULL;
    if (status && o->text) code = fail_with(&err);
    if (!code) code = read_tokens(o, s.tokenizer, &tokens);
    if (!code && corvid_stream_new(model, &stream, &err)) code = fail_with(&err);
    if (!code) {
        corvid_model_info info = model_args_info(model);
        s.n_vocab = info.n_vocab;
        code = print_all(&s, stream, info.arch);
    }
    tokens_free(&tokens);
    corvid_stream_free(stream);
    corvid_model_close(model);
    return code;
}

static int run(const void *options, int n_args, char **args)
{
    const logits_options *o = options;
    if (n_args)
        return fail(EXIT_USAGE,
                    "\"%s\" is no option; a text goes behind --text, a picture behind "
                    "--image",
                    args[0]);
    if ((o->tokens != NULL) + (o->text != NULL) + (o->image.n > 0) + (o->input != NULL) != 1)
        return fail(EXIT_USAGE, "give one of --tokens, --text, --image and --input");
    bool pictures = o->image.n || o->input;
    if (pictures && o->all) return fail(EXIT_USAGE, "--all is for tokens");
    return pictures ? logits_of_pictures(o) : logits_of_tokens(o);
}

const cli_verb verb_logits = {
    .name = "logits",
    .summary = "score what may come next, or what is in a picture",
    .usage = "-m MODEL (--tokens \"1 2 3\" | --text TEXT | --image FILE | --input FILE[:TENSOR]) "
             "[options]",
    .examples = "corvid logits -m rwkv7.pth --text \"The Eiffel tower is in the city of\"\n"
                "corvid logits -m rwkv7.pth --tokens \"6699 304 25740\" --json\n"
                "corvid logits -m rwkv7.pth --text - --all --out logits.safetensors < book.txt\n"
                "corvid logits -m vrwkv_t.pth --image cat.jpg --json\n"
                "corvid logits -m vrwkv_t.pth --input batch.safetensors:x --json",
    .details = "Logits are natural logarithms, not normalised. Without --json and --out the ten "
               "likeliest tokens are listed, with --all the likeliest one after every token, and "
               "the ten likeliest classes of every picture. With --image --json prints {\"arch\", "
               "\"logits\", \"files\"}; a picture that cannot be read is told on standard error "
               "and is in none of them, and the exit code is that of the first failure.",
    .groups = groups,
    .options_size = sizeof(logits_options),
    .run = run,
};
