/* train.c - `corvid train lm`: trains a language model from nothing, in the open. */
#include "verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "figure.h"
#include "term.h"
#include "textio.h"

typedef struct train_options {
    general_options general;
    option_list data;
    const char *arch, *vocab, *out, *cpu;
    uint64_t layers, dim, seed, steps, batch, context, warmup, eval_every, eval_tokens, save_every,
        threads;
    double lr, lr_final, weight_decay, clip, validation;
    bool resume, json;
} train_options;

#define FIELD(name) offsetof(train_options, name)

static const cli_option own_table[] = {
    { "data", 'd', OPTION_LIST, "PATH", NULL,
      "Texts: a .txt or .jsonl file, or a folder of them; may be given again.", FIELD(data), 0, 0 },
    { "out", 'o', OPTION_TEXT, "FOLDER", NULL,
      "Where model.safetensors, resume.bin, log.jsonl and loss.svg go.", FIELD(out), 0, 0 },
    { "arch", 0, OPTION_CHOICE, "rwkv4|rwkv5.2|rwkv6|rwkv7", "rwkv7", "The architecture.",
      FIELD(arch), 0, 0 },
    { "layers", 0, OPTION_COUNT, "N", "6", "Layers.", FIELD(layers), 1, 1024 },
    { "dim", 0, OPTION_COUNT, "N", "256", "Width; a multiple of 64.", FIELD(dim), 1, 65536 },
    { "vocab", 0, OPTION_TEXT, "FILE", NULL,
      "The vocabulary; without one the tokens are the bytes of the text.", FIELD(vocab), 0, 0 },
    { "resume", 0, OPTION_FLAG, NULL, NULL, "Go on from what is in the folder.", FIELD(resume), 0,
      0 },
    { "json", 0, OPTION_FLAG, NULL, NULL, "Print each step as a line of JSON.", FIELD(json), 0, 0 },
    { 0 }
};

static const cli_option recipe_table[] = {
    { "steps", 'n', OPTION_COUNT, "N", "1000", "Steps.", FIELD(steps), 1, 1e12 },
    { "batch", 'b', OPTION_COUNT, "N", "8", "Sequences of a step.", FIELD(batch), 1, 65536 },
    { "context", 'c', OPTION_COUNT, "N", "256", "Tokens of a sequence.", FIELD(context), 1, 1e7 },
    { "lr", 0, OPTION_REAL, "R", "1e-3", "Learning rate at the top.", FIELD(lr), 0, 100 },
    { "lr-final", 0, OPTION_REAL, "R", "1e-5", "Learning rate at the end of the cosine.",
      FIELD(lr_final), 0, 100 },
    { "warmup", 0, OPTION_COUNT, "N", "10", "Steps of warm-up.", FIELD(warmup), 0, 1e9 },
    { "weight-decay", 0, OPTION_REAL, "R", "0.001", "Decay of the large matrices.",
      FIELD(weight_decay), 0, 10 },
    { "clip", 0, OPTION_REAL, "R", "1", "The largest norm of a gradient; 0: none.", FIELD(clip), 0,
      1e9 },
    { "seed", 0, OPTION_COUNT, "N", "1", "Everything follows from it.", FIELD(seed), 0, 0 },
    { "validation", 0, OPTION_REAL, "R", "0.1", "Share of the text that is kept aside.",
      FIELD(validation), 0, 0.9 },
    { "eval-every", 0, OPTION_COUNT, "N", "100", "Steps between evaluations.", FIELD(eval_every), 1,
      1e9 },
    { "eval-tokens", 0, OPTION_COUNT, "N", "65536", "Tokens of an evaluation; 0: all.",
      FIELD(eval_tokens), 0, 0 },
    { "save-every", 0, OPTION_COUNT, "N", "500", "Steps between savings.", FIELD(save_every), 1,
      1e9 },
    { "threads", 0, OPTION_COUNT, "N", "0", "Threads; 0 is as many as the process may use.",
      FIELD(threads), 0, 64 },
    { "cpu", 0, OPTION_CHOICE, "ref|avx2|avx512|neon", NULL, "Force a level of kernels.",
      FIELD(cpu), 0, 0 },
    { 0 }
};

static const option_group groups[] = {
    { "Training", own_table, 0 }, { "Recipe", recipe_table, 0 }, GENERAL_GROUP, { 0 }
};

/* What is shown and written while a run goes on. */
typedef struct watch {
    const train_options *o;
    progress bar;
    FILE *log;
    figure_line losses, validations;
    double smooth;
    uint64_t first_tokens;
    bool begun;
} watch;

static void log_step(FILE *to, const corvid_training_report *r)
{
    if (!to) return;
    json_t *line = json_pack("{s:I, s:f, s:f, s:f, s:I, s:f}", "step", (json_int_t)r->step, "loss",
                             r->loss, "lr", r->learning_rate, "grad_norm", r->gradient_norm,
                             "tokens", (json_int_t)r->tokens, "seconds", r->seconds);
    if (!isnan(r->validation)) json_object_set_new(line, "validation", json_real(r->validation));
    if (r->saved) json_object_set_new(line, "saved", json_true());
    char *text = json_dumps(line, JSON_COMPACT);
    if (text) fprintf(to, "%s\n", text);
    fflush(to);
    free(text);
    json_decref(line);
}

static double tokens_per_s(const watch *w, const corvid_training_report *r)
{
    return r->seconds > 0 ? (double)(r->tokens - w->first_tokens) / r->seconds : 0;
}

static void report(void *ctx, const corvid_training_report *r)
{
    watch *w = ctx;
    if (!w->begun) {
        w->begun = true;
        progress_end(&w->bar);
        progress_begin(&w->bar, "training");
        w->first_tokens = r->tokens - w->o->batch * w->o->context;
        w->smooth = r->loss;
        note("%.1f MiB to learn in", (double)r->memory_bytes / 1048576.0);
    }
    w->smooth += 0.05 * (r->loss - w->smooth);
    figure_add(&w->losses, (double)r->step, r->loss);
    log_step(w->log, r);
    if (w->o->json) log_step(stdout, r);
    if (!isnan(r->validation)) {
        figure_add(&w->validations, (double)r->step, r->validation);
        progress_end(&w->bar);
        progress_begin(&w->bar, "training");
        if (!w->o->json)
            printf("step %7llu  loss %.4f  validation %.4f  %.0f tokens/s  %.0f s\n",
                   (unsigned long long)r->step, w->smooth, r->validation, tokens_per_s(w, r),
                   r->seconds);
        fflush(stdout);
    }
    char spark[40];
    figure_spark(&w->losses, 16, spark, sizeof spark);
    snprintf(w->bar.extra, sizeof w->bar.extra, "loss %.3f %s %.0f tok/s", w->smooth, spark,
             tokens_per_s(w, r));
    progress_show(&w->bar, r->step, r->steps);
}

static void show_progress(void *ctx, uint64_t done, uint64_t total)
{
    progress_show(&((watch *)ctx)->bar, done, total);
}

static char *path_in(const char *folder, const char *name)
{
    buffer path = { 0 };
    buffer_text(&path, folder);
    buffer_text(&path, "/");
    buffer_text(&path, name);
    buffer_text(&path, "");
    return path.bytes;
}

/* The curves so far, in loss.svg. */
static int draw(const watch *w)
{
    char *path = path_in(w->o->out, "loss.svg");
    const figure_line *lines[] = { &w->losses, &w->validations };
    const char *const names[] = { "training", "validation" };
    const int code = figure_write(path, "Loss", "step", "nats per token", lines, names, 2);
    free(path);
    return code;
}

static int train_language(const train_options *o)
{
    corvid_train_language_options t;
    corvid_error err;
    watch w = { .o = o };
    corvid_train_language_defaults(&t);
    t.arch = o->arch;
    t.layers = o->layers;
    t.width = o->dim;
    t.vocab = o->vocab;
    t.data = o->data.items;
    t.n_data = o->data.n;
    t.out = o->out;
    t.resume = o->resume;
    t.seed = o->seed;
    t.steps = o->steps;
    t.batch = o->batch;
    t.context = o->context;
    t.learning_rate = o->lr;
    t.final_learning_rate = o->lr_final;
    t.warmup = o->warmup;
    t.weight_decay = o->weight_decay;
    t.clip = o->clip;
    t.validation = o->validation;
    t.evaluate_every = o->eval_every;
    t.evaluate_tokens = o->eval_tokens;
    t.save_every = o->save_every;
    t.n_threads = o->threads;
    t.cpu = o->cpu;
    t.report = report;
    t.progress = show_progress;
    t.cancel = term_cancel;
    t.callback_ctx = &w;
    progress_begin(&w.bar, "reading texts");
    int code = cli_make_folder(o->out);
    if (code) return code;
    char *log = path_in(o->out, "log.jsonl");
    w.log = fopen(log, o->resume ? "a" : "w");
    if (!w.log) code = fail(CORVID_E_WRITE, "%s: cannot be written", log);
    const corvid_status status = code ? CORVID_OK : corvid_train_language(&t, &err);
    progress_end(&w.bar);
    if (w.log) fclose(w.log);
    if (!code && w.losses.n) code = draw(&w);
    if (status) code = fail_with(&err);
    free(log);
    figure_free(&w.losses);
    figure_free(&w.validations);
    return code;
}

static int run(const void *options, int n_args, char **args)
{
    const train_options *o = options;
    if (n_args != 1 || strcmp(args[0], "lm") != 0)
        return fail(EXIT_USAGE, "say what to train: corvid train lm");
    if (o->data.n == 0) return fail(EXIT_USAGE, "give the texts with --data PATH");
    if (!o->out) return fail(EXIT_USAGE, "say where the model goes with --out FOLDER");
    return train_language(o);
}

const cli_verb verb_train = {
    .name = "train",
    .summary = "train a model from nothing",
    .usage = "lm --data PATH --out FOLDER [options]",
    .examples =
        "corvid train lm --data shakespeare.txt --out run1\n"
        "corvid train lm --data books/ --arch rwkv6 --layers 4 --dim 192 -n 2000 --out run2\n"
        "corvid train lm --data books/ --out run2 -n 2000 --arch rwkv6 --layers 4 --dim 192 "
        "--resume\n"
        "corvid generate -m run1/model.safetensors -p \"To be\"",
    .details =
        "The weights, their official names and the vocabulary are in model.safetensors. A run "
        "that is stopped with Ctrl-C, or killed, goes on with --resume and the same settings, "
        "and ends with the same bits. Each step is a line of log.jsonl; loss.svg is drawn at "
        "the end.",
    .subjects = "lm",
    .groups = groups,
    .options_size = sizeof(train_options),
    .run = run,
};
