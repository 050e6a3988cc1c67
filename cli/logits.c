/* logits.c - `corvid logits`: the scores of what may come next. */
#include "verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model_args.h"
#include "term.h"
#include "textio.h"

typedef struct logits_options {
    general_options general;
    model_args model;
    const char *tokens, *text, *out;
    bool all, json;
} logits_options;

#define FIELD(name) offsetof(logits_options, name)

static const cli_option own_table[] = {
    { "tokens", 0, OPTION_TEXT, "\"1 2 3\"", NULL, "Token ids; needs no vocabulary.", FIELD(tokens),
      0, 0 },
    { "text", 0, OPTION_TEXT, "TEXT", NULL, "A text; \"-\" reads it from standard input.",
      FIELD(text), 0, 0 },
    { "all", 0, OPTION_FLAG, NULL, NULL, "After every token, not only after the last.", FIELD(all),
      0, 0 },
    { "json", 0, OPTION_FLAG, NULL, NULL,
      "Print {\"arch\", \"tokens\", \"logits\"}; the numbers give "
      "back every bit of a float.",
      FIELD(json), 0, 0 },
    { "out", 0, OPTION_TEXT, "FILE", NULL,
      "Write a safetensors file with the tensor \"logits\", f32 [tokens, vocabulary].", FIELD(out),
      0, 0 },
    { 0 }
};

static const option_group groups[] = {
    { "Logits", own_table, 0 }, { "Model", model_table, FIELD(model) }, GENERAL_GROUP, { 0 }
};

/* Where rows of logits go. */
typedef struct sink {
    const logits_options *o;
    const corvid_tokenizer *tokenizer; /* NULL: none */
    size_t n_vocab;
    const token_list *tokens;
    new_file file;
    size_t rows; /* seen so far */
} sink;

/* ---- safetensors ----------------------------------------------------------------------------- */

static int write_header(sink *s, size_t rows)
{
    char header[256];
    int n =
        snprintf(header, sizeof header,
                 "{\"logits\":{\"dtype\":\"F32\",\"shape\":[%zu,%zu],\"data_offsets\":[0,%zu]}}",
                 rows, s->n_vocab, rows * s->n_vocab * sizeof(float));
    while (n % 8) /* the data begins on a multiple of 8 */
        header[n++] = ' ';
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)n >> (8 * i));
    int code = new_file_open(&s->file, s->o->out);
    if (code) return code;
    fwrite(length, 1, sizeof length, s->file.file);
    fwrite(header, 1, (size_t)n, s->file.file);
    return 0; /* a failed write is found by new_file_keep */
}

static void write_row(sink *s, const float *row)
{
    for (size_t i = 0; i < s->n_vocab; i++) {
        uint32_t bits;
        memcpy(&bits, row + i, sizeof bits);
        unsigned char bytes[4] = { (unsigned char)bits, (unsigned char)(bits >> 8),
                                   (unsigned char)(bits >> 16), (unsigned char)(bits >> 24) };
        fwrite(bytes, 1, sizeof bytes, s->file.file);
    }
}

/* ---- JSON ------------------------------------------------------------------------------------ */

/* Written by hand: a tree of all numbers of a long text would not fit in memory. */
static void json_row(const sink *s, const float *row)
{
    fputs(s->o->all && s->rows ? ",[" : "[", stdout);
    for (size_t i = 0; i < s->n_vocab; i++) {
        if (i) putchar(',');
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

static double log_sum(const float *row, size_t n)
{
    double top = (double)row[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        top = fmax(top, (double)row[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)row[i] - top);
    return top + log(fmax(sum, 1)); /* the largest alone gives 1 */
}

/* The index of the largest entry that comes after last in falling order; ties by index. */
static size_t next_largest(const float *row, size_t n, size_t last)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++) {
        bool after = true;
        if (last < n) after = row[i] < row[last] || (i > last && row[i] == row[last]);
        if (after && (best == n || row[i] > row[best])) best = i;
    }
    return best;
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
    if (s->o->out) write_row(s, row);
    if (s->o->json)
        json_row(s, row);
    else if (!s->o->out)
        table_row(s, row, s->rows);
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
    int code = s->o->out ? write_header(s, s->o->all ? s->tokens->n : 1) : 0;
    if (code) return code;
    if (s->o->json) json_begin(s, arch);
    code = feed(s, stream);
    if (s->o->json) puts(s->o->all ? "]}" : "}");
    if (!s->o->out) return code;
    if (!code) return new_file_keep(&s->file);
    new_file_drop(&s->file);
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

static int run(const void *options, int n_args, char **args)
{
    const logits_options *o = options;
    if (n_args) return fail(EXIT_USAGE, "\"%s\" is no option; a text goes behind --text", args[0]);
    if (!o->tokens == !o->text) return fail(EXIT_USAGE, "give either --tokens or --text");
    corvid_model *model = NULL;
    corvid_stream *stream = NULL;
    token_list tokens = { 0 };
    sink s = { .o = o, .tokens = &tokens };
    corvid_error err;
    int code = model_args_open(&o->model, &model);
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

const cli_verb verb_logits = {
    .name = "logits",
    .summary = "score what may come next",
    .usage = "-m MODEL (--tokens \"1 2 3\" | --text TEXT) [options]",
    .examples = "corvid logits -m rwkv7.pth --text \"The Eiffel tower is in the city of\"\n"
                "corvid logits -m rwkv7.pth --tokens \"6699 304 25740\" --json\n"
                "corvid logits -m rwkv7.pth --text - --all --out logits.safetensors < book.txt",
    .details = "Logits are natural logarithms, not normalised. Without --json and --out the ten "
               "likeliest tokens are listed; with --all the likeliest one after every token.",
    .groups = groups,
    .options_size = sizeof(logits_options),
    .run = run,
};
