/* model_args.c - from -m and its companions to an open model. */
#include "model_args.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shipped.h"
#include "term.h"
#include "textio.h"

#define MODEL_OPTION                                                                            \
    {                                                                                           \
        "model", 'm', OPTION_TEXT, "FILE", NULL,                                                \
            "The checkpoint: .pth, safetensors, GGUF or rwkv.cpp .bin, recognised by content; " \
            "or the name of a shipped model: story, pictures.",                                 \
            offsetof(model_args, model), 0, 0                                                   \
    }
#define VOCAB_OPTION                                                                             \
    {                                                                                            \
        "vocab", 0, OPTION_TEXT, "FILE", NULL,                                                   \
            "Vocabulary; otherwise the one in the checkpoint, beside it, or in the data folder " \
            "($XDG_DATA_HOME/corvid).  \"bytes\" is the byte-level one.",                        \
            offsetof(model_args, vocab), 0, 0                                                    \
    }

#define THREADS_OPTION                                                                    \
    {                                                                                     \
        "threads", 0, OPTION_COUNT, "N", "0",                                             \
            "Threads; 0 is as many as the process may use. Results do not depend on it.", \
            offsetof(model_args, threads), 0, 1024                                        \
    }
#define MEMORY_OPTION                                                                              \
    {                                                                                              \
        "memory-limit", 0, OPTION_BYTES, "SIZE", "0",                                              \
            "Refuse a model that takes more, as 800M or 4G; 0 is what the machine has available.", \
            offsetof(model_args, memory_limit), 0, 0                                               \
    }
#define CPU_OPTION                                                                  \
    {                                                                               \
        "cpu", 0, OPTION_CHOICE, "ref|avx2|avx512|bf16|amx|neon", NULL,             \
            "Force a level of kernels; otherwise the best one this processor has.", \
            offsetof(model_args, cpu), 0, 0                                         \
    }
#define BI_WKV_OPTION                                                                        \
    {                                                                                        \
        "bi-wkv", 0, OPTION_CHOICE, "formula|cuda32|cuda16", "formula",                      \
            "How VRWKV mixes patches: by the formula, or as the published GPU kernels come " \
            "out, with blocks of 32 or 16 patches.",                                         \
            offsetof(model_args, bi_wkv), 0, 0                                               \
    }
#define NORM_OPTION                                                                             \
    {                                                                                           \
        "norm", 0, OPTION_CHOICE, "auto|pre|post", "auto",                                      \
            "Where the norms of a vision layer stand, which the names of its tensors do not "   \
            "tell: before a branch or on what it gives. auto is how the published models have " \
            "it.",                                                                              \
            offsetof(model_args, norm), 0, 0                                                    \
    }
#define CLASSES_OPTION                                                                           \
    {                                                                                            \
        "classes", 0, OPTION_TEXT, "FILE", NULL,                                                 \
            "Names of the classes, one a line, or the .tsv of ImageNet; otherwise those in the " \
            "checkpoint, beside it, or in the data folder.",                                     \
            offsetof(model_args, classes), 0, 0                                                  \
    }

const cli_option vocab_table[] = { MODEL_OPTION, VOCAB_OPTION, { 0 } };

const cli_option model_table[] = {
    MODEL_OPTION,
    VOCAB_OPTION,
    THREADS_OPTION,
    { "chunk", 0, OPTION_COUNT, "N", "0", "Tokens of one pass while reading text; 0 is 128.",
      offsetof(model_args, chunk), 0, 1024 },
    { "gn-eps", 0, OPTION_REAL, "X", "0",
      "Group-norm epsilon of RWKV-5; 0 is the official 64e-5. Files made for rwkv.cpp give its "
      "figures with 1e-5.",
      offsetof(model_args, gn_eps), 0, 1 },
    MEMORY_OPTION,
    CPU_OPTION,
    { 0 }
};

const cli_option vision_table[] = { BI_WKV_OPTION, NORM_OPTION, CLASSES_OPTION, { 0 } };

const cli_option vision_model_table[] = { MODEL_OPTION,  THREADS_OPTION, MEMORY_OPTION,  CPU_OPTION,
                                          BI_WKV_OPTION, NORM_OPTION,    CLASSES_OPTION, { 0 } };

/* ---- Which file ------------------------------------------------------------------------------ */

#define ANY_MODEL                                                                    \
    "Any official RWKV-4 to RWKV-7 or Vision-RWKV file will do (.pth, safetensors, " \
    "GGUF, rwkv.cpp .bin), for example one from huggingface.co/BlinkDL or "          \
    "huggingface.co/OpenGVLab/Vision-RWKV"

static bool is_given(const model_args *args)
{
    return args->model && *args->model;
}

int model_args_need(const model_args *args)
{
    if (is_given(args)) return 0;
    return fail(EXIT_USAGE, "no model: point at a checkpoint with -m FILE or the variable "
                            "CORVID_MODEL.\n" ANY_MODEL);
}

/* A word that is no path, and no file that is there. */
static bool may_be_shipped(const char *model)
{
    struct stat about;
    if (!isalnum((unsigned char)*model)) return false;
    for (const char *c = model; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_') return false;
    return stat(model, &about) != 0 || S_ISDIR(about.st_mode);
}

static int fail_to_find(const char *name, bool given)
{
    buffer folders = { 0 };
    shipped_folders(&folders);
    int code = given ? fail(CORVID_E_FILE,
                            "%s: no such file, nor a model %s.gguf in one of these folders:%s\n"
                            "Give the path of a checkpoint, or set CORVID_MODELS to the folder of "
                            "the models that come with corvid",
                            name, name, folders.bytes)
                     : fail(EXIT_USAGE,
                            "no model: %s.gguf, which comes with corvid, is in none of these "
                            "folders:%s\n"
                            "Put it into one of them, or set CORVID_MODELS to the folder that has "
                            "it; or point at another checkpoint with -m FILE or the variable "
                            "CORVID_MODEL.\n" ANY_MODEL,
                            name, folders.bytes);
    buffer_free(&folders);
    return code;
}

int model_args_choose(const model_args *given, const char *shipped, model_args *chosen)
{
    *chosen = *given;
    const bool named = is_given(given);
    if (!named && !shipped) return model_args_need(given);
    if (named && !may_be_shipped(given->model)) return 0;
    const char *name = named ? given->model : shipped;
    chosen->model = cli_keep(shipped_find(name));
    return chosen->model ? 0 : fail_to_find(name, named);
}

/* ---- Opening --------------------------------------------------------------------------------- */

static void on_log(void *ctx, corvid_log_level level, const char *text)
{
    (void)ctx;
    if (level >= CORVID_LOG_WARNING)
        warn("%s", text);
    else if (level == CORVID_LOG_INFO)
        note("%s", text);
}

char *model_args_folder(void)
{
    return cli_user_path("XDG_DATA_HOME", ".local/share", NULL);
}

void model_args_options(const model_args *args, char *vocab_folder, void *bar,
                        corvid_model_options *options)
{
    corvid_model_defaults(options);
    options->n_threads = (size_t)args->threads;
    options->chunk = (size_t)args->chunk;
    options->cpu = args->cpu;
    options->group_norm_eps = (float)args->gn_eps;
    options->vocab = args->vocab;
    options->vocab_folder = vocab_folder;
    options->memory_limit = args->memory_limit;
    options->bi_wkv = args->bi_wkv;
    options->norm = args->norm;
    options->classes = args->classes;
    options->log = on_log;
    options->progress = bar ? progress_show : NULL;
    options->cancel = term_cancel;
    options->callback_ctx = bar;
}

corvid_model_info model_args_info(const corvid_model *model)
{
    corvid_model_info info = { .struct_size = sizeof info };
    corvid_model_get_info(model, &info, NULL);
    return info;
}

static void note_estimate(const char *path, const corvid_model_options *options)
{
    corvid_memory m;
    if (!term_verbose() || corvid_memory_estimate(path, options, &m, NULL)) return;
    char total[SIZE_TEXT], free_now[SIZE_TEXT];
    note("%s: takes %s in memory, %s available", path,
         cli_size_text(m.weights + m.workspace + m.state, total),
         m.available ? cli_size_text(m.available, free_now) : "an unknown amount");
}

static void note_model(const corvid_model *model, double seconds)
{
    corvid_model_info i = model_args_info(model);
    char words[64];
    if (!i.vision)
        snprintf(words, sizeof words, "vocabulary %s", i.tokenizer ? i.tokenizer : "none");
    else if (i.n_classes)
        snprintf(words, sizeof words, "%zu classes%s", i.n_classes,
                 i.has_class_names ? "" : " without names");
    else
        snprintf(words, sizeof words, "no head");
    note("%s (%s), %zu layers of width %zu, %.1f M parameters, mostly %s; %s; %s kernels, %zu "
         "threads; opened in %.2f s",
         i.arch, i.format, i.n_layers, i.n_embd, (double)i.n_parameters / 1e6, i.weight_type, words,
         i.cpu, i.n_threads, seconds);
}

/* Opens the file, or, without one, draws random weights of a shape. */
static int open_either(const model_args *args, const char *shape, const char *type,
                       corvid_model **model)
{
    progress bar;
    char *folder = model_args_folder();
    corvid_model_options options;
    model_args_options(args, folder, &bar, &options);
    if (!shape) note_estimate(args->model, &options);
    progress_begin(&bar, "loading");
    /* The model keeps callback_ctx for its cancel callback, which does not use it; progress is
     * reported only while opening, so the bar may live here. */
    corvid_error err;
    corvid_status status = shape ? corvid_model_random(shape, type, 1, &options, model, &err)
                                 : corvid_model_open(args->model, &options, model, &err);
    progress_end(&bar);
    free(folder);
    if (status) return fail_with(&err);
    note_model(*model, term_seconds() - bar.started);
    return 0;
}

int model_args_open(const model_args *args, corvid_model **model)
{
    model_args chosen;
    int code = model_args_choose(args, NULL, &chosen);
    return code ? code : open_either(&chosen, NULL, NULL, model);
}

static int open_kind(const model_args *args, bool vision, corvid_model **model)
{
    model_args chosen;
    int code = model_args_choose(args, NULL, &chosen);
    if (!code) code = open_either(&chosen, NULL, NULL, model);
    if (code) return code;
    corvid_model_info info = model_args_info(*model);
    if ((info.vision != 0) == vision) return 0;
    code = fail(EXIT_USAGE,
                vision ? "%s is a language model (%s); this takes a Vision-RWKV model"
                       : "%s is a vision model (%s): it is shown pictures, not text. corvid "
                         "classify, features and logits --image take it",
                chosen.model, info.arch);
    corvid_model_close(*model);
    *model = NULL;
    return code;
}

int model_args_open_language(const model_args *args, corvid_model **model)
{
    return open_kind(args, false, model);
}

int model_args_open_vision(const model_args *args, corvid_model **model)
{
    return open_kind(args, true, model);
}

int model_args_random(const model_args *args, const char *shape, const char *type,
                      corvid_model **model)
{
    return open_either(args, shape, type, model);
}
