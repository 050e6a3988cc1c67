/* chat.c - `corvid chat`: a conversation, on a terminal or over a pipe.
 *
 * The state is the conversation.  After every turn it has read exactly what was shown, then the
 * blank line that closes a turn. */
#include "verbs.h"

#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "chatline.h"
#include "model_args.h"
#include "sampling_args.h"
#include "shipped.h"
#include "term.h"
#include "textio.h"

typedef struct chat_options {
    general_options general;
    model_args model;
    sampling_args sampling;
    const char *template, *system, *state;
    uint64_t n;
    bool think, no_think;
} chat_options;

#define FIELD(name) offsetof(chat_options, name)

static const cli_option own_table[] = {
    { "template", 0, OPTION_CHOICE, "world|g1", NULL,
      "The form of a turn; g1 is that of the reasoning models. Otherwise world, or paragraphs for "
      "a model with a vocabulary of its own.",
      FIELD(template), 0, 0 },
    { "think", 0, OPTION_FLAG, NULL, NULL, "With g1: let the model reason before it answers.",
      FIELD(think), 0, 0 },
    { "no-think", 0, OPTION_FLAG, NULL, NULL,
      "With g1: begin the answer behind an empty piece of reasoning.", FIELD(no_think), 0, 0 },
    { "system", 0, OPTION_TEXT, "TEXT", NULL, "A system message before the first turn.",
      FIELD(system), 0, 0 },
    { "max-tokens", 'n', OPTION_COUNT, "N", "4096", "Tokens of one answer at most.", FIELD(n), 1,
      1e9 },
    { "state", 0, OPTION_TEXT, "FILE", NULL, "Begin in a saved or a tuned state.", FIELD(state), 0,
      0 },
    { 0 }
};

static const option_group groups[] = { { "Chat", own_table, 0 },
                                       { "Sampling", sampling_table, FIELD(sampling) },
                                       { "Model", model_table, FIELD(model) },
                                       GENERAL_GROUP,
                                       { 0 } };

/* What the text around messages looks like. */
typedef enum turn_form {
    FORM_WORLD,     /* User: ... Assistant: ...               */
    FORM_G1,        /* the same, with a place for reasoning   */
    FORM_PARAGRAPHS /* nothing: both write one text, in turns */
} turn_form;

static const char *const form_names[] = { "world", "g1", "paragraphs" };

/* One line of conversation that can be left and come back to. */
typedef struct branch {
    char *name;
    corvid_stream *now;    /* after the last turn                                 */
    corvid_stream *before; /* before the last message; what /retry goes back to   */
    char *message;         /* the last message as it was typed, NULL: none        */
} branch;

typedef struct chat {
    const chat_options *o;
    corvid_model *model;
    const corvid_tokenizer *tokenizer;
    turn_form form;
    corvid_sampler *sampler;
    corvid_stream *mark;
    float *logits;
    uint64_t seed, turn;
    char *system;
    branch *branches;
    size_t n_branches, current;
    bool lively; /* a person at a terminal */
    chat_line *line;
} chat;

/* ---- Branches -------------------------------------------------------------------------------- */

static branch *here(chat *c)
{
    return &c->branches[c->current];
}

static size_t find_branch(const chat *c, const char *name)
{
    size_t i = 0;
    while (i < c->n_branches && strcmp(c->branches[i].name, name) != 0)
        i++;
    return i;
}

static void free_branch(branch *b)
{
    corvid_stream_free(b->now);
    corvid_stream_free(b->before);
    free(b->name);
    free(b->message);
}

/* Adds a branch, a copy of from unless that is NULL. */
static corvid_status add_branch(chat *c, const char *name, const branch *from, corvid_error *err)
{
    branch b = { .name = cli_copy(name) };
    corvid_status status = corvid_stream_new(c->model, &b.now, err);
    if (!status) status = corvid_stream_new(c->model, &b.before, err);
    if (!status && from) status = corvid_stream_copy(b.now, from->now, err);
    if (!status && from) status = corvid_stream_copy(b.before, from->before, err);
    if (status) {
        free_branch(&b);
        return status;
    }
    if (from && from->message) b.message = cli_copy(from->message);
    c->branches = cli_realloc(c->branches, (c->n_branches + 1) * sizeof *c->branches);
    c->branches[c->n_branches++] = b;
    return CORVID_OK;
}

static void start_anew(chat *c)
{
    branch *b = here(c);
    corvid_stream_reset(b->now);
    corvid_stream_reset(b->before);
    free(b->message);
    b->message = NULL;
}

/* ---- The form of a turn ---------------------------------------------------------------------- */

static bool is_space(char ch)
{
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

/* Blank lines only ever stand between turns: CRLF becomes LF, runs of LF become one, both ends are
 * stripped. */
static void add_message(buffer *out, const char *text)
{
    size_t n = strlen(text);
    while (n && is_space(text[n - 1]))
        n--;
    size_t i = 0;
    while (i < n && is_space(text[i]))
        i++;
    bool broken = false; /* the last byte written is LF */
    for (; i < n; i++) {
        if (text[i] == '\r' && text[i + 1] == '\n') continue;
        if (text[i] == '\n' && broken) continue;
        broken = text[i] == '\n';
        buffer_add(out, text + i, 1);
    }
}

static bool wants_g1(const chat_options *o)
{
    return o->template && strcmp(o->template, "g1") == 0;
}

/* The models that converse ended their turns with token 261 of the World vocabulary, two new lines,
 * or had the vocabulary of the Pile, or bytes.  A vocabulary that was made for a text came with no
 * conversations. */
static turn_form form_of(const chat_options *o, const corvid_tokenizer *tokenizer)
{
    size_t n = 0;
    if (wants_g1(o)) return FORM_G1;
    if (o->template || strcmp(corvid_tokenizer_name(tokenizer), "world") != 0) return FORM_WORLD;
    const char *end = corvid_token_bytes(tokenizer, 261, &n);
    return n == 2 && memcmp(end, "\n\n", 2) == 0 ? FORM_WORLD : FORM_PARAGRAPHS;
}

/* What stands between the name of the assistant and what the model writes. */
static const char *opening(const chat *c)
{
    if (c->form != FORM_G1) return "";
    return c->o->think ? " <think" : c->o->no_think ? " <think>\n</think" : "";
}

static void turn_text(const chat *c, const corvid_stream *stream, const char *message, buffer *out)
{
    const bool named = c->form != FORM_PARAGRAPHS;
    if (corvid_stream_position(stream) == 0 && c->system && *c->system) {
        buffer_text(out, named ? "System: " : "");
        add_message(out, c->system);
        buffer_text(out, "\n\n");
    }
    buffer_text(out, named ? "User: " : "");
    add_message(out, message);
    buffer_text(out, named ? "\n\nAssistant:" : "\n\n");
    buffer_text(out, opening(c));
}

/* ---- A turn ---------------------------------------------------------------------------------- */

/* Shows the answer without the white space it begins with, nor the bracket that closes an empty
 * piece of reasoning. */
typedef struct answer_view {
    bool begun, skip_bracket;
} answer_view;

static bool show(void *ctx, const char *bytes, size_t n)
{
    answer_view *view = ctx;
    while (!view->begun && n && (is_space(*bytes) || (view->skip_bracket && *bytes == '>'))) {
        if (*bytes == '>') view->skip_bracket = false;
        bytes++;
        n--;
    }
    if (n) view->begun = true;
    return term_out(bytes, n);
}

static bool say(const char *text)
{
    return term_out(text, strlen(text));
}

/* Reads the message.  A signal takes it back: the conversation is as before. */
static int read_turn(chat *c, branch *b, const char *message)
{
    buffer text = { 0 };
    token_list ids = { 0 };
    corvid_error err;
    turn_text(c, b->now, message, &text);
    int code = cli_encode(c->tokenizer, text.bytes, text.n, &ids);
    if (!code && corvid_feed(b->now, ids.ids, ids.n, c->logits, &err)) {
        bool stopped = err.status == CORVID_E_CANCELLED;
        code = stopped ? CORVID_E_CANCELLED : fail_with(&err);
        if (corvid_stream_copy(b->now, b->before, &err)) code = fail_with(&err);
    }
    buffer_free(&text);
    tokens_free(&ids);
    return code;
}

/* Writes the answer and closes the turn. */
static int write_turn(chat *c, branch *b)
{
    static const char *const stops[] = { "\n\n" };
    answer_view view = { .skip_bracket = c->o->no_think };
    corvid_error err;
    answer a = { .stream = b->now,
                 .mark = c->mark,
                 .sampler = c->sampler,
                 .tokenizer = c->tokenizer,
                 .logits = c->logits,
                 .limit = c->o->n,
                 .stops = stops,
                 .n_stops = 1,
                 .show = show,
                 .ctx = &view };
    corvid_sampler_reset(c->sampler, c->seed + c->turn++);
    if (c->lively) say(term_paint(stdout, STYLE_ANSWER));
    if (c->o->think) show(&view, opening(c), strlen(opening(c)));
    double started = term_seconds();
    answer_end end = answer_write(&a, &err);
    double seconds = term_seconds() - started;
    if (c->lively) say(term_paint(stdout, STYLE_PLAIN));
    int code = 0;
    if (end == END_FAILED) {
        code = err.status == CORVID_E_WRITE ? CORVID_E_WRITE : fail_with(&err);
    } else {
        if (!say(c->lively ? "\n\n" : "\n")) code = CORVID_E_WRITE;
        if (term_signal() == SIGINT) term_forget_signal();
        if (answer_settle(&a, "\n\n", c->logits, &err) && !code) code = fail_with(&err);
        note("%zu tokens in %.2f s (%.1f/s), ended by %s", a.tokens.n, seconds,
             seconds > 0 ? (double)a.tokens.n / seconds : 0.0, answer_end_name(end));
    }
    answer_free(&a);
    return code;
}

static int take_turn(chat *c, const char *message)
{
    branch *b = here(c);
    corvid_error err;
    if (corvid_stream_copy(b->before, b->now, &err)) return fail_with(&err);
    char *kept = cli_copy(message); /* message may be b->message */
    free(b->message);
    b->message = kept;
    int code = read_turn(c, b, kept);
    if (code == CORVID_E_CANCELLED) {
        if (term_signal() != SIGINT) return term_signal_code();
        term_forget_signal();
        warn("interrupted before the answer; the message was taken back");
        return 0;
    }
    return code ? code : write_turn(c, b);
}

/* ---- Commands -------------------------------------------------------------------------------- */

/* A command returns 0 to go on, LEAVE to end, or an exit code to fail with; ordinary mistakes are
 * told and go on. */
#define LEAVE (-1)

static int do_help(chat *c, const char *rest);

static int do_reset(chat *c, const char *rest)
{
    (void)rest;
    start_anew(c);
    return 0;
}

static int do_save(chat *c, const char *rest)
{
    corvid_error err;
    if (!*rest)
        warn("/save needs a file name");
    else if (corvid_state_save(here(c)->now, rest, &err))
        fail_with(&err);
    return 0;
}

static int do_load(chat *c, const char *rest)
{
    corvid_error err;
    if (!*rest) {
        warn("/load needs a file name");
    } else if (corvid_state_load(here(c)->now, rest, &err)) {
        fail_with(&err);
    } else {
        free(here(c)->message);
        here(c)->message = NULL;
    }
    return 0;
}

static int do_fork(chat *c, const char *rest)
{
    corvid_error err;
    if (!*rest)
        warn("/fork needs a name");
    else if (find_branch(c, rest) < c->n_branches)
        warn("there is a conversation %s already", rest);
    else if (add_branch(c, rest, here(c), &err))
        fail_with(&err);
    return 0;
}

static int do_switch(chat *c, const char *rest)
{
    size_t i = find_branch(c, rest);
    if (i == c->n_branches)
        warn("there is no conversation \"%s\"; /list shows them", rest);
    else
        c->current = i;
    return 0;
}

static int do_list(chat *c, const char *rest)
{
    (void)rest;
    for (size_t i = 0; i < c->n_branches; i++)
        printf("%s %s  %llu tokens\n", i == c->current ? "*" : " ", c->branches[i].name,
               (unsigned long long)corvid_stream_position(c->branches[i].now));
    return 0;
}

static int do_retry(chat *c, const char *rest)
{
    (void)rest;
    branch *b = here(c);
    corvid_error err;
    if (!b->message) {
        warn("there is no message to answer again");
        return 0;
    }
    if (corvid_stream_copy(b->now, b->before, &err)) return fail_with(&err);
    return take_turn(c, b->message);
}

static int do_system(chat *c, const char *rest)
{
    free(c->system);
    c->system = cli_copy(rest);
    start_anew(c);
    return 0;
}

static int do_params(chat *c, const char *rest)
{
    (void)rest;
    const sampling_args *s = &c->o->sampling;
    printf("template %s  temperature %g  top-p %g  top-k %llu  min-p %g  typical %g\n",
           form_names[c->form], s->greedy ? 0 : s->temperature, s->top_p,
           (unsigned long long)s->top_k, s->min_p, s->typical);
    printf("presence %g  frequency %g  penalty-decay %g  seed %llu  tokens read %llu\n",
           s->presence, s->frequency, s->penalty_decay, (unsigned long long)c->seed,
           (unsigned long long)corvid_stream_position(here(c)->now));
    return 0;
}

static int do_exit(chat *c, const char *rest)
{
    (void)c;
    (void)rest;
    return LEAVE;
}

typedef struct chat_command {
    const char *name, *argument, *help;
    int (*run)(chat *c, const char *rest);
} chat_command;

static const chat_command commands[] = {
    { "/help", "", "this list", do_help },
    { "/reset", "", "forget the conversation", do_reset },
    { "/save", " FILE", "save the state of the conversation", do_save },
    { "/load", " FILE", "go on from a saved state", do_load },
    { "/fork", " NAME", "keep a copy of the conversation under a name", do_fork },
    { "/switch", " NAME", "go to another conversation; the first one is main", do_switch },
    { "/list", "", "the conversations", do_list },
    { "/retry", "", "answer the last message again", do_retry },
    { "/system", " TEXT", "set the system message and begin anew", do_system },
    { "/params", "", "how answers are drawn", do_params },
    { "/exit", "", "leave (also Ctrl-D)", do_exit },
};

#define N_COMMANDS (sizeof commands / sizeof *commands)

static int do_help(chat *c, const char *rest)
{
    (void)c;
    (void)rest;
    for (size_t i = 0; i < N_COMMANDS; i++)
        printf("%-8s%-6s %s\n", commands[i].name, commands[i].argument, commands[i].help);
    puts("A backslash at the end of a line continues it; Ctrl-C stops an answer.");
    return 0;
}

static int run_command(chat *c, char *line)
{
    size_t n = strcspn(line, " \t");
    char *rest = line + n;
    while (is_space(*rest))
        rest++;
    for (size_t end = strlen(rest); end && is_space(rest[end - 1]);)
        rest[--end] = 0;
    line[n] = 0;
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, line) == 0) {
            int code = commands[i].run(c, rest);
            fflush(stdout);
            return code;
        }
    warn("no command %s; /help lists them", line);
    return 0;
}

/* ---- The program ----------------------------------------------------------------------------- */

static int open_all(chat *c)
{
    const chat_options *o = c->o;
    model_args chosen;
    corvid_error err;
    int code = model_args_choose(&o->model, SHIPPED_STORY, &chosen);
    if (!code) code = model_args_open_language(&chosen, &c->model);
    if (code) return code;
    if (corvid_model_tokenizer(c->model, &c->tokenizer, &err) ||
        corvid_stream_new(c->model, &c->mark, &err) || add_branch(c, "main", NULL, &err))
        return fail_with(&err);
    c->form = form_of(o, c->tokenizer);
    if (o->state && corvid_state_load(here(c)->now, o->state, &err)) return fail_with(&err);
    size_t n_vocab = model_args_info(c->model).n_vocab;
    c->logits = cli_array(n_vocab, sizeof *c->logits);
    if (o->system) c->system = cli_copy(o->system);
    return sampling_args_open(&o->sampling, n_vocab, c->tokenizer, &c->sampler, &c->seed);
}

static int converse(chat *c)
{
    int code = 0;
    char *message;
    while (!code && (message = chat_line_read(c->line, &code)) != NULL) {
        if (message[0] == '/')
            code = run_command(c, message);
        else if (message[strspn(message, " \t\r\n")])
            code = take_turn(c, message);
        free(message);
    }
    return code == LEAVE ? 0 : code;
}

static void greet(const chat *c)
{
    if (c->form == FORM_PARAGRAPHS)
        say("This model was not taught to converse: write a paragraph, and it writes the next.\n");
    say("/help lists the commands, Ctrl-D leaves.\n");
}

static int run(const void *options, int n_args, char **args)
{
    chat c = { .o = options };
    if (n_args) return fail(EXIT_USAGE, "\"%s\" is no option; see corvid chat --help", args[0]);
    if ((c.o->think || c.o->no_think) && !wants_g1(c.o))
        return fail(EXIT_USAGE, "--think and --no-think need --template g1");
    if (c.o->think && c.o->no_think)
        return fail(EXIT_USAGE, "--think and --no-think are opposites");
    setlocale(LC_CTYPE, ""); /* the editor must know what a character is; numbers stay in C */
    c.lively = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1;
    int code = open_all(&c);
    if (!code) {
        term_be_patient();
        c.line = chat_line_open(c.lively);
        if (c.lively && !term_quiet()) greet(&c);
        code = converse(&c);
        chat_line_close(c.line);
    }
    for (size_t i = 0; i < c.n_branches; i++)
        free_branch(&c.branches[i]);
    free(c.branches);
    free(c.system);
    free(c.logits);
    corvid_stream_free(c.mark);
    corvid_sampler_free(c.sampler);
    corvid_model_close(c.model);
    return code;
}

const cli_verb verb_chat = {
    .name = "chat",
    .summary = "hold a conversation",
    .usage = "[-m MODEL] [options]",
    .examples = "corvid chat -m rwkv7-world.pth\n"
                "corvid chat\n"
                "corvid chat -m rwkv7-g1.pth --template g1 --think\n"
                "corvid chat -m rwkv7-world.pth --system \"You answer in one sentence.\"\n"
                "printf 'Name three birds.\\n/retry\\n' | corvid chat -m rwkv7-world.pth --seed 1",
    .details = "Every line is a message; a line that begins with / is a command, and /help lists "
               "them. Ctrl-C stops an answer: the conversation then holds what was shown. On a "
               "pipe there is no editing and no prompt, only answers. The history of typed lines "
               "is in $XDG_STATE_HOME/corvid/history. A model with a vocabulary of its own was "
               "taught no conversations, nor was story, which comes with corvid and is taken "
               "without -m: it answers a paragraph with the next one of the same text.",
    .groups = groups,
    .options_size = sizeof(chat_options),
    .run = run,
};
