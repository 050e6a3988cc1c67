/* eval.c - `corvid eval`: how well a model predicts. */
#include "eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "term.h"
#include "textio.h"
#include "verbs.h"

#define FIELD(name) offsetof(eval_options, name)

static const cli_option own_table[] = {
    { "data", 0, OPTION_TEXT, "FILE", NULL,
      "perplexity: a text; lambada: JSON lines with a field \"text\"; images: a folder with a "
      "folder "
      "per class, or a list with a path, a tab and a class a line.  \"-\" is standard input.",
      FIELD(data), 0, 0 },
    { "context", 0, OPTION_COUNT, "N", "0",
      "perplexity: begin anew every N tokens, with an empty state; 0 reads the whole text as one "
      "stream.",
      FIELD(context), 0, 0 },
    { "start", 0, OPTION_TEXT, "ID|none|auto", "auto",
      "Token before every text. auto is 0 (end of text), and none for byte-level models; with none "
      "the first token of a text is not scored.",
      FIELD(start), 0, 0 },
    { "limit", 0, OPTION_COUNT, "N", "0",
      "lambada: the first N passages; images: N pictures, spread evenly over all; 0 is all.",
      FIELD(limit), 0, 0 },
    { "per-class", 0, OPTION_FLAG, NULL, NULL, "images: a table of the classes, the worst first.",
      FIELD(per_class), 0, 0 },
    { "json", 0, OPTION_FLAG, NULL, NULL, "Print one JSON object.", FIELD(json), 0, 0 },
    { 0 }
};

static const option_group groups[] = { { "Eval", own_table, 0 },
                                       { "Pictures", picture_table, FIELD(pictures) },
                                       { "Model", model_table, FIELD(model) },
                                       { "Vision models", vision_table, FIELD(model) },
                                       GENERAL_GROUP,
                                       { 0 } };

#define NO_START (-1)

/* What both evaluations work with. */
typedef struct evaluation {
    const eval_options *o;
    corvid_model *model;
    const corvid_tokenizer *tokenizer;
    corvid_stream *stream;
    int32_t start;        /* or NO_START */
    float *logits, *next; /* what was predicted, and room for the prediction after */
    double started;
} evaluation;

static int choose_start(evaluation *e)
{
    const char *text = e->o->start;
    uint64_t id = 0;
    e->start = NO_START;
    if (strcmp(text, "none") == 0) return 0;
    if (strcmp(text, "auto") == 0) {
        if (strcmp(corvid_tokenizer_name(e->tokenizer), "bytes") != 0) e->start = 0;
        return 0;
    }
    int code = parse_count("--start", text, &id);
    size_t n_vocab = model_args_info(e->model).n_vocab;
    if (!code && id >= n_vocab)
        code = fail(EXIT_USAGE, "--start: the model has no token %s; ids end at %zu", text,
                    n_vocab - 1);
    e->start = (int32_t)id;
    return code;
}

static int open_all(evaluation *e)
{
    corvid_error err;
    int code = model_args_open_language(&e->o->model, &e->model);
    if (code) return code;
    if (corvid_model_tokenizer(e->model, &e->tokenizer, &err) ||
        corvid_stream_new(e->model, &e->stream, &err))
        return fail_with(&err);
    size_t n_vocab = model_args_info(e->model).n_vocab;
    e->logits = cli_array(n_vocab, sizeof *e->logits);
    e->next = cli_array(n_vocab, sizeof *e->next);
    e->started = term_seconds();
    return choose_start(e);
}

static void close_all(evaluation *e)
{
    free(e->logits);
    free(e->next);
    corvid_stream_free(e->stream);
    corvid_model_close(e->model);
}

static void swap_logits(evaluation *e)
{
    float *old = e->logits;
    e->logits = e->next;
    e->next = old;
}

/* ---- Perplexity ------------------------------------------------------------------------------ */

/* Sums over the tokens that were predicted. */
typedef struct tally {
    double nll; /* nats */
    uint64_t tokens, bytes;
} tally;

static size_t token_length(const evaluation *e, int32_t id)
{
    size_t n = 0;
    corvid_token_bytes(e->tokenizer, id, &n);
    return n;
}

/* Scores the next n tokens; predicted: e->logits hold the prediction of the first. */
static corvid_status score_piece(evaluation *e, const int32_t *ids, size_t n, bool predicted,
                                 double *scores, tally *sum, corvid_error *err)
{
    corvid_status status =
        corvid_score(e->stream, ids, n, predicted ? e->logits : NULL, scores, NULL, e->next, err);
    if (status) return status;
    swap_logits(e);
    for (size_t i = predicted ? 0 : 1; i < n; i++) {
        sum->nll -= scores[i];
        sum->tokens++;
        sum->bytes += token_length(e, ids[i]);
    }
    return CORVID_OK;
}

static double perplexity(const tally *sum)
{
    return sum->tokens ? exp(sum->nll / (double)sum->tokens) : 0;
}

/* All tokens, in contexts of the asked length, in pieces that keep memory small. */
static int score_all(evaluation *e, const token_list *t, tally *sum)
{
    enum { PIECE = 512 };
    size_t context = e->o->context ? (size_t)e->o->context : t->n;
    double *scores = cli_array(PIECE, sizeof *scores);
    corvid_error err;
    corvid_status status = CORVID_OK;
    progress bar;
    progress_begin(&bar, "perplexity");
    for (size_t i = 0; i < t->n && !status;) {
        bool begins = i % context == 0;
        if (begins) corvid_stream_reset(e->stream);
        if (begins && e->start != NO_START)
            status = corvid_feed(e->stream, &e->start, 1, e->logits, &err);
        if (status) break;
        size_t left = context - i % context, n = left < PIECE ? left : PIECE;
        if (n > t->n - i) n = t->n - i;
        status = score_piece(e, t->ids + i, n, !begins || e->start != NO_START, scores, sum, &err);
        i += n;
        snprintf(bar.extra, sizeof bar.extra, "ppl %.4f", perplexity(sum));
        progress_show(&bar, i, t->n);
    }
    progress_end(&bar);
    free(scores);
    return status ? fail_with(&err) : 0;
}

static int print_perplexity(const evaluation *e, const tally *sum, size_t tokens, size_t bytes)
{
    double mean = sum->nll / (double)sum->tokens;
    double bits = sum->nll / log(2) / (double)sum->bytes;
    double seconds = term_seconds() - e->started;
    if (e->o->json)
        return cli_print_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:I, s:f}",
                                        "task", "perplexity", "tokens", (json_int_t)tokens, "bytes",
                                        (json_int_t)bytes, "scored_tokens", (json_int_t)sum->tokens,
                                        "scored_bytes", (json_int_t)sum->bytes, "mean_nll", mean,
                                        "perplexity", perplexity(sum), "bits_per_byte", bits,
                                        "context", (json_int_t)e->o->context, "seconds", seconds));
    printf("tokens         %zu (%llu scored)\nbytes          %zu\n", tokens,
           (unsigned long long)sum->tokens, bytes);
    printf("mean nll       %.6f nats per token\nperplexity     %.6f\nbits per byte  %.6f\n", mean,
           perplexity(sum), bits);
    note("%.1f s, %.1f tokens/s", seconds, (double)tokens / seconds);
    return 0;
}

static int run_perplexity(evaluation *e)
{
    buffer text = { 0 };
    token_list tokens = { 0 };
    tally sum = { 0 };
    int code = cli_read(e->o->data, &text);
    if (!code) code = open_all(e);
    if (!code) code = cli_encode(e->tokenizer, text.bytes, text.n, &tokens);
    if (!code) code = score_all(e, &tokens, &sum);
    if (!code && (!sum.tokens || !sum.bytes))
        code = fail(CORVID_E_FORMAT, "%s: too short, no token could be scored", e->o->data);
    if (!code) code = print_perplexity(e, &sum, tokens.n, text.n);
    tokens_free(&tokens);
    buffer_free(&text);
    return code;
}

/* ---- LAMBADA --------------------------------------------------------------------------------- */

/* One passage: the last word is to be predicted from all before it. */
typedef struct passage_score {
    double nll; /* of the whole last word */
    size_t tokens;
    bool right; /* every token of it was the likeliest one */
} passage_score;

typedef struct lambada_sum {
    double nll;
    uint64_t items, right, tokens;
} lambada_sum;

static int score_passage(evaluation *e, const char *text, size_t n, size_t line, passage_score *out)
{
    const char *space = memrchr(text, ' ', n);
    if (!space) return fail(CORVID_E_FORMAT, "%s:%zu: a passage of one word", e->o->data, line);
    token_list given = { 0 }, target = { 0 };
    if (e->start != NO_START) tokens_add(&given, e->start);
    int code = cli_encode(e->tokenizer, text, (size_t)(space - text), &given);
    if (!code) code = cli_encode(e->tokenizer, space, n - (size_t)(space - text), &target);
    if (!code && !given.n)
        code = fail(CORVID_E_FORMAT, "%s:%zu: nothing before the last word", e->o->data, line);
    double *scores = cli_array(target.n, sizeof *scores);
    unsigned char *greedy = cli_array(target.n, 1);
    corvid_error err;
    corvid_stream_reset(e->stream);
    if (!code &&
        (corvid_feed(e->stream, given.ids, given.n, e->logits, &err) ||
         corvid_score(e->stream, target.ids, target.n, e->logits, scores, greedy, NULL, &err)))
        code = fail_with(&err);
    *out = (passage_score){ 0, target.n, true };
    for (size_t i = 0; i < target.n && !code; i++) {
        out->nll -= scores[i];
        out->right = out->right && greedy[i];
    }
    free(scores);
    free(greedy);
    tokens_free(&given);
    tokens_free(&target);
    return code;
}

static double lambada_perplexity(const lambada_sum *s)
{
    return exp(s->nll / (double)s->items);
}

static double accuracy(const lambada_sum *s)
{
    return (double)s->right / (double)s->items;
}

/* The passage in one line of JSON, scored and added up. */
static int take_line(evaluation *e, const char *line, size_t n, size_t number, lambada_sum *s)
{
    json_error_t problem;
    json_t *item = json_loadb(line, n, 0, &problem);
    json_t *text = json_object_get(item, "text");
    int code = 0;
    passage_score p = { 0 };
    if (!json_is_string(text))
        code = fail(CORVID_E_FORMAT, "%s:%zu: %s", e->o->data, number,
                    item ? "no field \"text\" that is a string" : problem.text);
    else
        code = score_passage(e, json_string_value(text), json_string_length(text), number, &p);
    json_decref(item);
    if (code) return code;
    s->nll += p.nll;
    s->items++;
    s->right += p.right;
    s->tokens += p.tokens;
    if (s->items % 100 == 0)
        note("%llu passages: perplexity %.2f, accuracy %.2f %%", (unsigned long long)s->items,
             lambada_perplexity(s), 100 * accuracy(s));
    return 0;
}

static int score_passages(evaluation *e, const buffer *data, lambada_sum *s)
{
    progress bar;
    progress_begin(&bar, "lambada");
    int code = 0;
    size_t number = 0;
    for (size_t at = 0; at < data->n && !code;) {
        const char *line = data->bytes + at, *end = memchr(line, '\n', data->n - at);
        size_t n = end ? (size_t)(end - line) : data->n - at;
        at += n + 1;
        number++;
        if (e->o->limit && s->items == e->o->limit) break;
        if (n == 0) continue;
        code = take_line(e, line, n, number, s);
        if (s->items)
            snprintf(bar.extra, sizeof bar.extra, "ppl %.2f  acc %.2f %%", lambada_perplexity(s),
                     100 * accuracy(s));
        progress_show(&bar, at, data->n);
    }
    progress_end(&bar);
    return code;
}

static int print_lambada(const evaluation *e, const lambada_sum *s)
{
    double seconds = term_seconds() - e->started;
    if (e->o->json)
        return cli_print_json(json_pack("{s:s, s:I, s:I, s:f, s:f, s:f, s:f}", "task", "lambada",
                                        "items", (json_int_t)s->items, "target_tokens",
                                        (json_int_t)s->tokens, "perplexity", lambada_perplexity(s),
                                        "perplexity_per_token", exp(s->nll / (double)s->tokens),
                                        "accuracy", accuracy(s), "seconds", seconds));
    printf("passages    %llu\nperplexity  %.4f\naccuracy    %.4f %%\n",
           (unsigned long long)s->items, lambada_perplexity(s), 100 * accuracy(s));
    note("%.1f s", seconds);
    return 0;
}

static int run_lambada(evaluation *e)
{
    buffer data = { 0 };
    lambada_sum sum = { 0 };
    int code = cli_read(e->o->data, &data);
    if (!code) code = open_all(e);
    if (!code) code = score_passages(e, &data, &sum);
    if (!code && !sum.items) code = fail(CORVID_E_FORMAT, "%s: no passages", e->o->data);
    if (!code) code = print_lambada(e, &sum);
    buffer_free(&data);
    return code;
}

static int run(const void *options, int n_args, char **args)
{
    evaluation e = { .o = options };
    const char *what = n_args == 1 ? args[0] : "";
    bool ppl = strcmp(what, "perplexity") == 0, images = strcmp(what, "images") == 0;
    if (!ppl && !images && strcmp(what, "lambada") != 0)
        return fail(EXIT_USAGE, "say what to measure: corvid eval perplexity, corvid eval lambada "
                                "or corvid eval images");
    if (!e.o->data)
        return fail(EXIT_USAGE, "give the data with --data %s", images ? "FOLDER|LIST" : "FILE");
    int code = model_args_need(&e.o->model);
    if (code) return code;
    if (images) return eval_images(e.o);
    code = ppl ? run_perplexity(&e) : run_lambada(&e);
    close_all(&e);
    return code;
}

const cli_verb verb_eval = {
    .name = "eval",
    .summary = "measure how well a model predicts",
    .usage = "perplexity|lambada|images -m MODEL --data FILE [options]",
    .examples = "corvid eval perplexity -m rwkv7.pth --data wiki.test.raw\n"
                "corvid eval perplexity -m rwkv7.pth --data book.txt --context 4000 --json\n"
                "corvid eval lambada -m rwkv7.pth --data lambada_test.jsonl -v\n"
                "corvid eval images -m vrwkv_t.pth --data imagenet/val --limit 1000 --per-class",
    .details = "perplexity: the mean over tokens, and bits per byte of the text, which can be "
               "compared across tokenizers. lambada: perplexity is over whole last words, accuracy "
               "counts passages where every token of the word was the likeliest one; -v prints "
               "running values every 100 passages. images: how often the right class is the "
               "likeliest (top-1) or among the five likeliest (top-5). The names of the folders "
               "are names of classes, WordNet ids (the column wnid of the classes' .tsv) or "
               "numbers; else, when there are as many as classes, the classes in the order of the "
               "names; -v says which. A list gives for each picture a number, a name or a WordNet "
               "id. A picture that cannot be read is told on standard error and not counted, and "
               "the exit code is that of the first failure.",
    .subjects = "perplexity|lambada|images",
    .groups = groups,
    .options_size = sizeof(eval_options),
    .run = run,
};
