/* generate.c - `corvid generate`: continue a text. */
#include "verbs.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "model_args.h"
#include "sampling_args.h"
#include "shipped.h"
#include "term.h"
#include "textio.h"

typedef struct generate_options {
    general_options general;
    model_args model;
    sampling_args sampling;
    const char *prompt, *prompt_file, *tokens;
    uint64_t n;
    option_list stop;
    bool ignore_eos, ids, json;
    const char *state, *save_state;
} generate_options;

#define FIELD(name) offsetof(generate_options, name)

static const cli_option own_table[] = {
    { "prompt", 'p', OPTION_TEXT, "TEXT", NULL,
      "The text to continue; \"-\" reads it from standard "
      "input.",
      FIELD(prompt), 0, 0 },
    { "prompt-file", 0, OPTION_TEXT, "FILE", NULL, "Read the text to continue from a file.",
      FIELD(prompt_file), 0, 0 },
    { "tokens", 0, OPTION_TEXT, "\"1 2 3\"", NULL,
      "Continue token ids; with --ids no vocabulary is needed.", FIELD(tokens), 0, 0 },
    { "max-tokens", 'n', OPTION_COUNT, "N", "256", "Write at most N tokens.", FIELD(n), 0, 0 },
    { "stop", 0, OPTION_LIST, "TEXT", NULL,
      "End before this text appears; may be given several times.", FIELD(stop), 0, 0 },
    { "ignore-eos", 0, OPTION_FLAG, NULL, NULL, "Go on after token 0, the end of a text.",
      FIELD(ignore_eos), 0, 0 },
    { "state", 0, OPTION_TEXT, "FILE", NULL, "Begin in a saved or a tuned state.", FIELD(state), 0,
      0 },
    { "save-state", 0, OPTION_TEXT, "FILE", NULL,
      "Save the state that has read the prompt and all that was written.", FIELD(save_state), 0,
      0 },
    { "ids", 0, OPTION_FLAG, NULL, NULL, "Print token ids instead of text.", FIELD(ids), 0, 0 },
    { "json", 0, OPTION_FLAG, NULL, NULL, "Print one JSON object at the end.", FIELD(json), 0, 0 },
    { 0 }
};

static const option_group groups[] = { { "Generate", own_table, 0 },
                                       { "Sampling", sampling_table, FIELD(sampling) },
                                       { "Model", model_table, FIELD(model) },
                                       GENERAL_GROUP,
                                       { 0 } };

/* Everything one run holds. */
typedef struct generation {
    const generate_options *o;
    corvid_model *model;
    const corvid_tokenizer *tokenizer;
    corvid_stream *stream, *mark;
    corvid_sampler *sampler;
    float *logits;
    uint64_t seed;
    token_list prompt;
    answer answer;
    double t_start, t_loaded, t_read, t_written;
} generation;

/* ---- The prompt ------------------------------------------------------------------------------ */

static int prompt_text(const generate_options *o, buffer *text)
{
    if (o->prompt_file) return cli_read(o->prompt_file, text);
    if (o->prompt && strcmp(o->prompt, "-") == 0) return cli_read("-", text);
    buffer_text(text, o->prompt ? o->prompt : "");
    return 0;
}

/* What an empty prompt stands for: the end of the text before, or a new line where bytes have no
 * such token. */
static int32_t beginning(const corvid_tokenizer *tokenizer)
{
    bool bytes = tokenizer && strcmp(corvid_tokenizer_name(tokenizer), "bytes") == 0;
    return bytes ? '\n' : 0;
}

static int encode_prompt(generation *g)
{
    const generate_options *o = g->o;
    int code = 0;
    if (o->tokens) {
        code = cli_parse_ids("--tokens", o->tokens, &g->prompt);
    } else {
        buffer text = { 0 };
        code = prompt_text(o, &text);
        if (!code && text.n) code = cli_encode(g->tokenizer, text.bytes, text.n, &g->prompt);
        buffer_free(&text);
    }
    if (code || g->prompt.n) return code;
    if (o->state && o->n)
        return fail(EXIT_USAGE,
                    "a state does not hold the scores of what comes next: give a prompt "
                    "with -p, if only a new line");
    if (!o->state) tokens_add(&g->prompt, beginning(g->tokenizer));
    return 0;
}

/* ---- Running --------------------------------------------------------------------------------- */

static bool show_text(void *ctx, const char *bytes, size_t n)
{
    const generation *g = ctx;
    return g->o->ids || g->o->json || term_out(bytes, n);
}

static bool show_id(void *ctx, int32_t id)
{
    const generation *g = ctx;
    if (!g->o->ids || g->o->json) return true;
    char text[16];
    int n = snprintf(text, sizeof text, "%s%d", g->answer.tokens.n > 1 ? " " : "", (int)id);
    return term_out(text, (size_t)n);
}

static int check_options(const generate_options *o)
{
    if ((o->prompt != NULL) + (o->prompt_file != NULL) + (o->tokens != NULL) > 1)
        return fail(EXIT_USAGE, "give one of --prompt, --prompt-file and --tokens");
    for (size_t i = 0; i < o->stop.n; i++)
        if (!o->stop.items[i][0]) return fail(EXIT_USAGE, "--stop: the text is empty");
    return 0;
}

static int open_all(generation *g)
{
    const generate_options *o = g->o;
    model_args chosen;
    corvid_error err;
    int code = model_args_choose(&o->model, SHIPPED_STORY, &chosen);
    if (!code) code = model_args_open_language(&chosen, &g->model);
    if (code) return code;
    g->t_loaded = term_seconds();
    bool no_text = o->ids && (o->tokens || (!o->prompt && !o->prompt_file));
    if (corvid_model_tokenizer(g->model, &g->tokenizer, &err)) {
        if (!no_text) return fail_with(&err);
        g->tokenizer = NULL;
    }
    if (corvid_stream_new(g->model, &g->stream, &err)) return fail_with(&err);
    if (o->save_state && corvid_stream_new(g->model, &g->mark, &err)) return fail_with(&err);
    if (o->state && corvid_state_load(g->stream, o->state, &err)) return fail_with(&err);
    size_t n_vocab = model_args_info(g->model).n_vocab;
    g->logits = cli_array(n_vocab, sizeof *g->logits);
    return sampling_args_open(&o->sampling, n_vocab, g->tokenizer, &g->sampler, &g->seed);
}

static int write_json(generation *g, answer_end end)
{
    double read_s = g->t_read - g->t_loaded, write_s = g->t_written - g->t_read;
    const answer *a = &g->answer;
    json_t *timings = json_pack(
        "{s:f, s:f, s:f, s:f, s:f}", "load_s", g->t_loaded - g->t_start, "prefill_s", read_s,
        "prefill_tokens_per_s", read_s > 0 ? (double)g->prompt.n / read_s : 0.0, "decode_s",
        write_s, "decode_tokens_per_s", write_s > 0 ? (double)a->tokens.n / write_s : 0.0);
    const char *bytes = a->text.bytes ? a->text.bytes : "";
    return cli_print_json(
        json_pack("{s:o, s:o, s:I, s:s, s:I, s:o}", "text", cli_json_text(bytes, a->text.n),
                  "tokens", cli_json_ids(&a->tokens), "prompt_tokens", (json_int_t)g->prompt.n,
                  "finish", answer_end_name(end), "seed", (json_int_t)g->seed, "timings", timings));
}

static void note_timing(const generation *g)
{
    double read_s = g->t_read - g->t_loaded, write_s = g->t_written - g->t_read;
    note("read %zu tokens in %.3f s (%.1f/s), wrote %zu in %.3f s (%.1f/s)", g->prompt.n, read_s,
         read_s > 0 ? (double)g->prompt.n / read_s : 0.0, g->answer.tokens.n, write_s,
         write_s > 0 ? (double)g->answer.tokens.n / write_s : 0.0);
}

/* Saves the state once it has read the text that was printed and nothing else. */
static int save_state(generation *g)
{
    corvid_error err;
    if (g->tokenizer && answer_settle(&g->answer, "", NULL, &err)) return fail_with(&err);
    if (corvid_state_save(g->stream, g->o->save_state, &err)) return fail_with(&err);
    return 0;
}

static int write_text(generation *g)
{
    const generate_options *o = g->o;
    corvid_error err;
    if (corvid_feed(g->stream, g->prompt.ids, g->prompt.n, g->logits, &err)) return fail_with(&err);
    g->t_read = term_seconds();
    g->answer = (answer){ .stream = g->stream,
                          .mark = g->mark,
                          .sampler = g->sampler,
                          .tokenizer = g->tokenizer,
                          .logits = g->logits,
                          .limit = o->n,
                          .ignore_end = o->ignore_eos,
                          .stops = o->stop.items,
                          .n_stops = o->stop.n,
                          .show = show_text,
                          .token = show_id,
                          .ctx = g };
    answer_end end = answer_write(&g->answer, &err);
    g->t_written = term_seconds();
    if (end == END_FAILED && err.status == CORVID_E_WRITE) return 0; /* term_finish says why */
    if (end == END_FAILED) return fail_with(&err);
    if (!o->json && (o->ids || isatty(STDOUT_FILENO) == 1)) term_out("\n", 1);
    if (o->json && write_json(g, end)) return CORVID_E_WRITE;
    note_timing(g);
    if (end == END_CANCELLED) {
        if (o->save_state) warn("interrupted: %s was not written", o->save_state);
        return term_signal_code();
    }
    return o->save_state ? save_state(g) : 0;
}

static int run(const void *options, int n_args, char **args)
{
    generation g = { .o = options, .t_start = term_seconds() };
    if (n_args) return fail(EXIT_USAGE, "\"%s\" is no option; a prompt goes behind -p", args[0]);
    int code = check_options(g.o);
    if (!code) code = open_all(&g);
    if (!code) code = encode_prompt(&g);
    if (!code) code = write_text(&g);
    answer_free(&g.answer);
    tokens_free(&g.prompt);
    free(g.logits);
    corvid_sampler_free(g.sampler);
    corvid_stream_free(g.mark);
    corvid_stream_free(g.stream);
    corvid_model_close(g.model);
    return code;
}

const cli_verb verb_generate = {
    .name = "generate",
    .summary = "continue a text",
    .usage = "[-m MODEL] -p TEXT|- [-n N] [options]",
    .examples = "corvid generate -p \"In the evening\"\n"
                "corvid generate -m rwkv7.pth -p \"Once upon a time\" -n 100\n"
                "corvid generate -m rwkv7.pth --prompt-file essay.txt --temperature 0.8 --seed 7\n"
                "echo \"User: Why is the sky blue?\" | corvid generate -m rwkv7.pth -p - "
                "--stop \"User:\"\n"
                "corvid generate -m rwkv7.pth -p \"A long story\" -n 0 --save-state story.state",
    .details = "Writes the continuation, not the prompt, to standard output as it is produced. "
               "An empty prompt begins a new text. Without -m the model story, which comes with "
               "corvid, goes on in the manner of an English novel. The state file of --save-state "
               "has read exactly "
               "the prompt and the text that was printed.",
    .groups = groups,
    .options_size = sizeof(generate_options),
    .run = run,
};
