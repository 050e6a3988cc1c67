/* finetune.c - `corvid finetune`: teaches a language model more, in the open. */
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

#include "model_args.h"
#include "training_view.h"

typedef struct finetune_options {
    general_options general;
    model_args model;
    option_list data;
    const char *out, *method, *targets, *from, *schedule, *type, *cpu;
    uint64_t seed, steps, batch, context, warmup, rank, eval_every, eval_tokens, save_every,
        accumulate, threads;
    double lr, lr_final, weight_decay, clip, validation, alpha, from_alpha, ema, minutes;
    bool vectors, resume, json, recompute, keep_best;
} finetune_options;

#define FIELD(name) offsetof(finetune_options, name)

static const cli_option own_table[] = {
    { "data", 'd', OPTION_LIST, "PATH", NULL,
      "Texts: a .txt or .jsonl file, a folder of them, a .bin file of tokens with its .idx file, "
      "or "
      "- for standard input; may be given again.",
      FIELD(data), 0, 0 },
    { "out", 'o', OPTION_TEXT, "FOLDER", NULL,
      "Where adapter.safetensors, model.safetensors or state.safetensors goes, and resume.bin, "
      "log.jsonl, loss.svg.",
      FIELD(out), 0, 0 },
    { "method", 0, OPTION_CHOICE, "lora|full|state", "lora",
      "What learns: adapters of low rank beside the matrices, the whole model, or only the state "
      "that it begins in (RWKV-5, 6 and 7).",
      FIELD(method), 0, 0 },
    { "from", 0, OPTION_TEXT, "FILE", NULL,
      "Begin with this adapter or tuned state instead of a new one.", FIELD(from), 0, 0 },
    { "resume", 0, OPTION_FLAG, NULL, NULL, "Go on from what is in the folder.", FIELD(resume), 0,
      0 },
    { "json", 0, OPTION_FLAG, NULL, NULL, "Print each step as a line of JSON.", FIELD(json), 0, 0 },
    { 0 }
};

static const cli_option adapter_table[] = {
    { "targets", 0, OPTION_TEXT, "NAMES", "att,ffn",
      "Matrices that get adapters, with commas: att is all of the time mix, as is att.key,head or "
      "\"blocks.*.value\".",
      FIELD(targets), 0, 0 },
    { "rank", 'r', OPTION_COUNT, "N", "16", "Rank of the adapters.", FIELD(rank), 1, 4096 },
    { "alpha", 0, OPTION_REAL, "R", "32", "They are multiplied by alpha / rank.", FIELD(alpha),
      1e-6, 1e6 },
    { "vectors", 0, OPTION_FLAG, NULL, NULL,
      "Norms, mixes, decays and other vectors learn too, in full.", FIELD(vectors), 0, 0 },
    { "from-alpha", 0, OPTION_REAL, "R", "0",
      "Alpha of the adapter to begin with, where its file does not say it.", FIELD(from_alpha), 0,
      1e6 },
    { 0 }
};

static const cli_option recipe_table[] = {
    { "steps", 'n', OPTION_COUNT, "N", "200", "Steps.", FIELD(steps), 1, 1e12 },
    { "batch", 'b', OPTION_COUNT, "N", "4", "Sequences of a step.", FIELD(batch), 1, 65536 },
    { "context", 'c', OPTION_COUNT, "N", "256", "Tokens of a sequence.", FIELD(context), 1, 1e7 },
    { "lr", 0, OPTION_REAL, "R", "0",
      "Learning rate at the top; 0: 1e-4 for adapters, 1e-5 for models, 1 for states.", FIELD(lr),
      0, 100 },
    { "lr-final", 0, OPTION_REAL, "R", "-1",
      "Learning rate at the end; below 0: a tenth of --lr for adapters, all of it for models, a "
      "hundredth for states.",
      FIELD(lr_final), -1, 100 },
    { "schedule", 0, OPTION_CHOICE, "cosine|linear|exponential|mean|constant", "cosine",
      "How the learning rate goes from one to the other.", FIELD(schedule), 0, 0 },
    { "warmup", 0, OPTION_COUNT, "N", "10", "Steps of warm-up.", FIELD(warmup), 0, 1e9 },
    { "weight-decay", 0, OPTION_REAL, "R", "0", "Decay of the large matrices.", FIELD(weight_decay),
      0, 10 },
    { "clip", 0, OPTION_REAL, "R", "1", "The largest norm of a gradient; 0: none.", FIELD(clip), 0,
      1e9 },
    { "ema", 0, OPTION_REAL, "R", "0",
      "Share that a running mean of what learns keeps each step; it is measured and saved.",
      FIELD(ema), 0, 0.999999 },
    { "seed", 0, OPTION_COUNT, "N", "1", "Everything follows from it.", FIELD(seed), 0, 0 },
    { "minutes", 0, OPTION_REAL, "R", "0", "Save and end after so many; 0: with the last step.",
      FIELD(minutes), 0, 1e9 },
    { 0 }
};

static const cli_option measure_table[] = {
    { "validation", 0, OPTION_REAL, "R", "0.1", "Share of the text that is kept aside.",
      FIELD(validation), 0, 0.9 },
    { "eval-every", 0, OPTION_COUNT, "N", "50", "Steps between evaluations.", FIELD(eval_every), 1,
      1e9 },
    { "eval-tokens", 0, OPTION_COUNT, "N", "65536", "Tokens of an evaluation; 0: all.",
      FIELD(eval_tokens), 0, 0 },
    { "save-every", 0, OPTION_COUNT, "N", "100", "Steps between savings.", FIELD(save_every), 1,
      1e9 },
    { "keep-best", 0, OPTION_FLAG, NULL, NULL,
      "What has the lowest validation loss stays as best.safetensors.", FIELD(keep_best), 0, 0 },
    { 0 }
};

static const cli_option machine_table[] = {
    { "accumulate", 0, OPTION_COUNT, "N", "1",
      "Cut a step into so many parts: the memory of one, nearly the same result.",
      FIELD(accumulate), 1, 65536 },
    { "recompute", 0, OPTION_FLAG, NULL, NULL,
      "Compute layers again on the way back: slower, in much less memory.", FIELD(recompute), 0,
      0 },
    { "type", 0, OPTION_CHOICE, "f32|bf16", "f32", "What matrices are multiplied in.", FIELD(type),
      0, 0 },
    { "threads", 0, OPTION_COUNT, "N", "0",
      "Threads; 0 is as many as the process may use. Results do not depend on it.", FIELD(threads),
      0, 64 },
    { "cpu", 0, OPTION_CHOICE, "ref|avx2|avx512|bf16|amx|neon", NULL,
      "Force a level of kernels; otherwise the best one this processor has.", FIELD(cpu), 0, 0 },
    { 0 }
};

static const option_group groups[] = { { "Model", vocab_table, FIELD(model) },
                                       { "Fine-tuning", own_table, 0 },
                                       { "Adapters", adapter_table, 0 },
                                       { "Recipe", recipe_table, 0 },
                                       { "Measuring", measure_table, 0 },
                                       { "Machine", machine_table, 0 },
                                       GENERAL_GROUP,
                                       { 0 } };

static void take_recipe(const finetune_options *o, corvid_finetune_options *f)
{
    f->seed = o->seed;
    f->steps = o->steps;
    f->batch = o->batch;
    f->context = o->context;
    f->learning_rate = o->lr;
    f->final_learning_rate = o->lr_final;
    f->schedule = o->schedule;
    f->warmup = o->warmup;
    f->weight_decay = o->weight_decay;
    f->clip = o->clip;
    f->average = o->ema;
    f->max_seconds = 60 * o->minutes;
    f->validation = o->validation;
    f->evaluate_every = o->eval_every;
    f->evaluate_tokens = o->eval_tokens;
    f->save_every = o->save_every;
    f->keep_best = o->keep_best;
    f->accumulate = o->accumulate;
    f->recompute = o->recompute;
    f->type = o->type;
    f->n_threads = o->threads;
    f->cpu = o->cpu;
}

static int finetune(const finetune_options *o, const char *model, char *folder)
{
    corvid_finetune_options f;
    corvid_error err;
    training_view view = {
        .folder = o->out, .unit = "tokens", .json = o->json, .seconds = 60 * o->minutes
    };
    corvid_finetune_defaults(&f);
    f.model = model;
    f.vocab = o->model.vocab;
    f.vocab_folder = folder;
    f.method = o->method;
    f.data = o->data.items;
    f.n_data = o->data.n;
    f.out = o->out;
    f.resume = o->resume;
    f.targets = o->targets;
    f.rank = o->rank;
    f.alpha = o->alpha;
    f.vectors = o->vectors;
    f.from = o->from;
    f.from_alpha = o->from_alpha;
    take_recipe(o, &f);
    f.report = training_view_report;
    f.progress = training_view_progress;
    f.cancel = term_cancel;
    f.callback_ctx = &view;
    int code = training_view_open(&view, "reading texts");
    if (!code && corvid_finetune(&f, &err)) code = fail_with(&err);
    return training_view_close(&view, code);
}

static int run(const void *options, int n_args, char **args)
{
    const finetune_options *o = options;
    model_args chosen;
    if (n_args > 0) return fail(EXIT_USAGE, "what is \"%s\"? give texts with --data PATH", args[0]);
    int code = model_args_choose(&o->model, NULL, &chosen);
    if (code) return code;
    if (o->data.n == 0) return fail(EXIT_USAGE, "give the texts with --data PATH");
    if (!o->out) return fail(EXIT_USAGE, "say where the result goes with --out FOLDER");
    if (o->from && strcmp(o->method, "full") == 0)
        return fail(EXIT_USAGE, "--from is an adapter or a state; a model is given with -m");
    char *folder = model_args_folder();
    code = finetune(o, chosen.model, folder);
    free(folder);
    return code;
}

const cli_verb verb_finetune = {
    .name = "finetune",
    .summary = "teach a model more: adapters, all of it, or its state",
    .usage = "-m MODEL --data PATH --out FOLDER [--method lora|full|state] [options]",
    .examples =
        "corvid finetune -m rwkv7.pth --data letters/ --out run1\n"
        "corvid merge -m rwkv7.pth --adapter run1/adapter.safetensors letters.safetensors\n"
        "corvid finetune -m rwkv7.pth --data letters/ --out run2 --targets att.key,ffn -r 8\n"
        "corvid finetune -m rwkv7.pth --data letters/ --out run3 --method state\n"
        "corvid generate -m rwkv7.pth --state run3/state.safetensors -p \"Dear\"\n"
        "corvid finetune -m rwkv7.pth --data letters/ --out run4 --method full --lr 1e-5",
    .details =
        "Texts become tokens with the model's own vocabulary. The model's file is not changed: "
        "adapters are merged into it with corvid merge, a state is given with --state. A run that "
        "is stopped with Ctrl-C, or killed, goes on with --resume and the same settings, and ends "
        "with the same bits.",
    .groups = groups,
    .options_size = sizeof(finetune_options),
    .run = run,
};
