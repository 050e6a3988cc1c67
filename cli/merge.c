/* merge.c - `corvid merge`: a model and an adapter become one model. */
#include "verbs.h"

#include "model_args.h"
#include "term.h"

typedef struct merge_options {
    general_options general;
    const char *model, *adapter, *initial, *type, *vocab, *format;
    double alpha;
} merge_options;

#define FIELD(name) offsetof(merge_options, name)

static const cli_option own_table[] = {
    { "model", 'm', OPTION_TEXT, "FILE", NULL,
      "The model that the adapter was trained on: .pth, safetensors, GGUF or rwkv.cpp .bin.",
      FIELD(model), 0, 0 },
    { "adapter", 'a', OPTION_TEXT, "FILE", NULL,
      "The adapter, .pth or safetensors: LoRA pairs, tensors in place of the model's, initial "
      "states.",
      FIELD(adapter), 0, 0 },
    { "alpha", 0, OPTION_REAL, "R", "0",
      "Pairs are multiplied by alpha / rank. Official files do not say it; 0: as the file says.",
      FIELD(alpha), 0, 1e6 },
    { "initial", 0, OPTION_TEXT, "FILE", NULL,
      "The first pairs of a PiSSA adapter, which are taken from the model.", FIELD(initial), 0, 0 },
    { "type", 0, OPTION_TEXT, "TYPE", NULL,
      "Type of the matrices: f32, bf16, f16, q8, q6, q5, q4 or the name of a GGUF type; without it "
      "every tensor keeps its own.",
      FIELD(type), 0, 0 },
    { "vocab", 0, OPTION_TEXT, "FILE", NULL, "Put this vocabulary into the file.", FIELD(vocab), 0,
      0 },
    { "format", 0, OPTION_CHOICE, "gguf|safetensors", NULL,
      "Format to write; otherwise the one the name of OUT ends with.", FIELD(format), 0, 0 },
    { 0 }
};

static const option_group groups[] = { { "Merge", own_table, 0 }, GENERAL_GROUP, { 0 } };

static void on_log(void *ctx, corvid_log_level level, const char *text)
{
    (void)ctx;
    if (level >= CORVID_LOG_WARNING)
        warn("%s", text);
    else if (level == CORVID_LOG_INFO)
        note("%s", text);
}

static int run(const void *options, int n_args, char **args)
{
    const merge_options *o = options;
    model_args model = { .model = o->model };
    corvid_merge_options m;
    corvid_error err;
    progress bar;
    int code = model_args_choose(&model, NULL, &model);
    if (code) return code;
    if (!o->adapter) return fail(EXIT_USAGE, "give the adapter with --adapter FILE");
    if (n_args != 1) return fail(EXIT_USAGE, "give the file to write");
    corvid_merge_defaults(&m);
    m.alpha = o->alpha;
    m.initial = o->initial;
    m.type = o->type;
    m.format = o->format;
    m.vocab = o->vocab;
    m.progress = progress_show;
    m.cancel = term_cancel;
    m.log = on_log;
    m.callback_ctx = &bar;
    progress_begin(&bar, "merging");
    const corvid_status status = corvid_merge(model.model, o->adapter, args[0], &m, &err);
    progress_end(&bar);
    if (status) return fail_with(&err);
    note("%s and %s became %s in %.2f s", model.model, o->adapter, args[0],
         term_seconds() - bar.started);
    return 0;
}

const cli_verb verb_merge = {
    .name = "merge",
    .summary = "make one model of a model and an adapter",
    .usage = "-m MODEL --adapter FILE OUT [--alpha R] [--type TYPE] [--format FORMAT]",
    .examples = "corvid merge -m rwkv7.pth --adapter run1/adapter.safetensors merged.safetensors\n"
                "corvid merge -m rwkv7.pth --adapter lora.pth --alpha 32 merged.gguf --type q8\n"
                "corvid merge -m rwkv7.pth --adapter pissa.pth --initial init_lora.pth out.gguf\n"
                "corvid merge -m rwkv7.pth --adapter state.pth with_state.safetensors",
    .details = "Every tensor of the adapter must fit the model: one that fits nothing is an error "
               "(exit code 8), and nothing is written. Tensors that the adapter does not change "
               "keep every bit where neither format nor type changes. OUT appears whole or not at "
               "all.",
    .groups = groups,
    .options_size = sizeof(merge_options),
    .run = run,
};
