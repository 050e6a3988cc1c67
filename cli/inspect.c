/* inspect.c - `corvid inspect`: what a checkpoint is. */
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

#include "model_args.h"
#include "term.h"
#include "textio.h"

typedef struct inspect_options {
    general_options general;
    model_args model;
    bool json;
} inspect_options;

#define FIELD(name) offsetof(inspect_options, name)

static const cli_option own_table[] = { { "json", 0, OPTION_FLAG, NULL, NULL,
                                          "Print one JSON object, with the table of tensors.",
                                          FIELD(json), 0, 0 },
                                        { 0 } };

static const option_group groups[] = { { "Inspect", own_table, 0 },
                                       { "Model", model_table, FIELD(model) },
                                       { "Vision models", vision_table, FIELD(model) },
                                       GENERAL_GROUP,
                                       { 0 } };

/* ---- Tensors --------------------------------------------------------------------------------- */

static void shape_text(const corvid_tensor_info *t, char out[96])
{
    size_t n = (size_t)snprintf(out, 96, "[");
    for (size_t i = 0; i < t->n_dims && i < 8 && n < 70; i++)
        n += (size_t)snprintf(out + n, 96 - n, "%s%zu", i ? ", " : "", t->dims[i]);
    snprintf(out + n, 96 - n, "]");
}

static void print_tensor(void *ctx, const corvid_tensor_info *t)
{
    (void)ctx;
    char shape[96], size[SIZE_TEXT];
    shape_text(t, shape);
    printf("  %-44s %-8s %-20s %s\n", t->name, t->type, shape, cli_size_text(t->bytes, size));
}

static void collect_tensor(void *ctx, const corvid_tensor_info *t)
{
    json_t *dims = json_array();
    for (size_t i = 0; i < t->n_dims && i < 8; i++)
        json_array_append_new(dims, json_integer((json_int_t)t->dims[i]));
    json_array_append_new(ctx, json_pack("{s:o, s:s, s:o, s:I}", "name",
                                         cli_json_text(t->name, strlen(t->name)), "type", t->type,
                                         "shape", dims, "bytes", (json_int_t)t->bytes));
}

/* ---- The two outputs ------------------------------------------------------------------------- */

static void line(const char *name, const char *value)
{
    printf("%s%-13s%s%s\n", term_paint(stdout, STYLE_STRONG), name, term_paint(stdout, STYLE_PLAIN),
           value);
}

static void size_line(const char *name, uint64_t bytes)
{
    char text[SIZE_TEXT];
    line(name, cli_size_text(bytes, text));
}

static void number_line(const char *name, uint64_t n)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)n);
    line(name, text);
}

static void print_vision(const corvid_model_info *i)
{
    char text[64];
    snprintf(text, sizeof text, "%zu%s", i->n_classes,
             i->has_class_names ? "" : ", names not found");
    line("classes", i->n_classes ? text : "none, the model has no head");
    snprintf(text, sizeof text, "%zu x %zu pixels", i->patch, i->patch);
    line("patch", text);
    snprintf(text, sizeof text, "%zu x %zu pixels", i->native, i->native);
    line("native size", text);
    line("class token", i->class_token ? "yes" : "no");
}

static void print_info(const char *path, const corvid_model_info *i, const corvid_memory *m)
{
    char text[96];
    line("file", path);
    line("format", i->format);
    line("architecture", i->arch);
    line("kind", i->vision ? "vision model: pictures go in" : "language model: tokens go in");
    line("type", i->weight_type);
    snprintf(text, sizeof text, "%llu (%.1f M)", (unsigned long long)i->n_parameters,
             (double)i->n_parameters / 1e6);
    line("parameters", text);
    number_line("layers", i->n_layers);
    number_line("width", i->n_embd);
    number_line("attention", i->n_att);
    number_line("feed-forward", i->n_ffn);
    snprintf(text, sizeof text, "%zu of size %zu", i->n_heads, i->head_size);
    if (i->head_size > 1 || (i->head_size && !i->vision)) line("heads", text);
    if (i->vision) {
        print_vision(i);
    } else {
        number_line("vocabulary", i->n_vocab);
        line("tokenizer", i->tokenizer ? i->tokenizer : "none found");
    }
    size_line("weights", m->weights);
    size_line("workspace", m->workspace);
    if (!i->vision) size_line("state", m->state);
    if (m->available) size_line("available", m->available);
    snprintf(text, sizeof text, "%016llx", (unsigned long long)i->fingerprint);
    line("fingerprint", text);
    snprintf(text, sizeof text, "%s, %zu threads", i->cpu, i->n_threads);
    line("kernels", text);
}

static json_t *info_json(const char *path, const corvid_model_info *i, const corvid_memory *m)
{
    char print[24];
    snprintf(print, sizeof print, "%016llx", (unsigned long long)i->fingerprint);
    json_t *o = json_pack("{s:o, s:s, s:s, s:s, s:s?, s:s, s:I, s:s, s:I}", "file",
                          cli_json_text(path, strlen(path)), "format", i->format, "arch", i->arch,
                          "type", i->weight_type, "tokenizer", i->tokenizer, "cpu", i->cpu,
                          "parameters", (json_int_t)i->n_parameters, "fingerprint", print,
                          "threads", (json_int_t)i->n_threads);
    const struct {
        const char *name;
        size_t value;
    } sizes[] = { { "n_vocab", i->n_vocab },    { "n_embd", i->n_embd },
                  { "n_layers", i->n_layers },  { "n_att", i->n_att },
                  { "n_ffn", i->n_ffn },        { "n_heads", i->n_heads },
                  { "head_size", i->head_size } };
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        json_object_set_new(o, sizes[k].name, json_integer((json_int_t)sizes[k].value));
    json_object_set_new(o, "vision", json_boolean(i->vision));
    if (i->vision)
        json_object_update_new(o, json_pack("{s:I, s:I, s:I, s:b, s:b}", "n_classes",
                                            (json_int_t)i->n_classes, "patch", (json_int_t)i->patch,
                                            "native", (json_int_t)i->native, "class_token",
                                            i->class_token, "class_names", i->has_class_names));
    json_object_set_new(o, "memory",
                        json_pack("{s:I, s:I, s:I, s:I}", "weights", (json_int_t)m->weights,
                                  "workspace", (json_int_t)m->workspace, "state",
                                  (json_int_t)m->state, "available", (json_int_t)m->available));
    return o;
}

static int show_tensors(const inspect_options *o, json_t *json)
{
    corvid_error err;
    corvid_status status = CORVID_OK;
    if (json) {
        json_t *list = json_array();
        json_object_set_new(json, "tensors", list);
        status = corvid_checkpoint_list(o->model.model, collect_tensor, list, &err);
    } else if (term_verbose()) {
        line("tensors", "");
        status = corvid_checkpoint_list(o->model.model, print_tensor, NULL, &err);
    }
    return status ? fail_with(&err) : 0;
}

static int info(const inspect_options *o)
{
    corvid_model *model = NULL;
    corvid_model_options options;
    corvid_memory memory;
    corvid_error err;
    char *folder = model_args_folder();
    model_args_options(&o->model, folder, NULL, &options);
    corvid_status status = corvid_memory_estimate(o->model.model, &options, &memory, &err);
    free(folder);
    if (status) return fail_with(&err);
    int code = model_args_open(&o->model, &model);
    if (code) return code;
    corvid_model_info i = model_args_info(model);
    json_t *json = o->json ? info_json(o->model.model, &i, &memory) : NULL;
    if (!json) print_info(o->model.model, &i, &memory);
    code = show_tensors(o, json);
    if (json && !code)
        code = cli_print_json(json);
    else
        json_decref(json);
    corvid_model_close(model);
    return code;
}

static int run(const void *options, int n_args, char **args)
{
    inspect_options o = *(const inspect_options *)options;
    if (n_args < 1 || strcmp(args[0], "info") != 0)
        return fail(EXIT_USAGE, "%s%s%s; this version has: info", n_args ? "\"" : "",
                    n_args ? args[0] : "inspect what?",
                    n_args ? "\" is not something to inspect" : "");
    if (n_args > 2) return fail(EXIT_USAGE, "give one checkpoint");
    if (n_args == 2) o.model.model = args[1];
    int code = model_args_choose(&o.model, NULL, &o.model);
    return code ? code : info(&o);
}

const cli_verb verb_inspect = {
    .name = "inspect",
    .summary = "show what a checkpoint is",
    .usage = "info -m MODEL [-v] [--json]",
    .examples = "corvid inspect info -m rwkv7.pth\n"
                "corvid inspect info rwkv7.gguf -v\n"
                "corvid inspect info -m rwkv7.pth --json",
    .details = "info tells architecture, sizes, number of parameters, memory, and tokenizer or "
               "classes; with -v or --json also every tensor as it lies in the file. It needs no "
               "vocabulary and no class names.",
    .subjects = "info",
    .groups = groups,
    .options_size = sizeof(inspect_options),
    .run = run,
};
