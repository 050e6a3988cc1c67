/* convert.c - `corvid convert`: any readable checkpoint to GGUF or safetensors. */
#include "verbs.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "term.h"
#include "textio.h"

typedef struct convert_options {
    general_options general;
    const char *type, *vocab, *classes, *format;
} convert_options;

#define FIELD(name) offsetof(convert_options, name)

static const cli_option own_table[] = {
    { "type", 0, OPTION_TEXT, "TYPE", NULL,
      "Type of the matrices: f32, bf16, f16, q8, q6, q5, q4 or the name of a GGUF type; without it "
      "every tensor keeps its own.",
      FIELD(type), 0, 0 },
    { "vocab", 0, OPTION_TEXT, "FILE", NULL, "Put this vocabulary into the file.", FIELD(vocab), 0,
      0 },
    { "classes", 0, OPTION_TEXT, "FILE", NULL,
      "Put these class names into a vision model: one a line, or the .tsv of ImageNet; without it "
      "those that IN has.",
      FIELD(classes), 0, 0 },
    { "format", 0, OPTION_CHOICE, "gguf|safetensors", NULL,
      "Format to write; otherwise the one the name of OUT ends with.", FIELD(format), 0, 0 },
    { 0 }
};

static const option_group groups[] = { { "Convert", own_table, 0 }, GENERAL_GROUP, { 0 } };

static void on_log(void *ctx, corvid_log_level level, const char *text)
{
    (void)ctx;
    if (level >= CORVID_LOG_WARNING)
        warn("%s", text);
    else if (level == CORVID_LOG_INFO)
        note("%s", text);
}

static uint64_t file_size(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 ? (uint64_t)about.st_size : 0;
}

static int run(const void *options, int n_args, char **args)
{
    const convert_options *o = options;
    if (n_args != 2) return fail(EXIT_USAGE, "give the checkpoint to read and the file to write");
    corvid_convert_options c;
    corvid_convert_defaults(&c);
    progress bar;
    c.type = o->type;
    c.format = o->format;
    c.vocab = o->vocab;
    c.classes = o->classes;
    c.progress = progress_show;
    c.cancel = term_cancel;
    c.log = on_log;
    c.callback_ctx = &bar;
    corvid_error err;
    progress_begin(&bar, "converting");
    corvid_status status = corvid_convert(args[0], args[1], &c, &err);
    progress_end(&bar);
    if (status) return fail_with(&err);
    char before[SIZE_TEXT], after[SIZE_TEXT];
    note("%s (%s) became %s (%s) in %.2f s", args[0], cli_size_text(file_size(args[0]), before),
         args[1], cli_size_text(file_size(args[1]), after), term_seconds() - bar.started);
    return 0;
}

const cli_verb verb_convert = {
    .name = "convert",
    .summary = "change the format or the type of a checkpoint",
    .usage = "IN OUT [--type TYPE] [--vocab FILE | --classes FILE] [--format FORMAT]",
    .examples = "corvid convert rwkv7.pth rwkv7.gguf --vocab rwkv_vocab_v20230424.txt\n"
                "corvid convert rwkv7.pth rwkv7-q8.gguf --type q8\n"
                "corvid convert rwkv7.gguf rwkv7.safetensors --type bf16\n"
                "corvid convert vrwkv_t.pth vrwkv_t.gguf --classes classes.tsv",
    .details = "Reads .pth, safetensors, GGUF and rwkv.cpp files; writes GGUF and safetensors. "
               "Tensors whose type does not change keep every bit. OUT appears whole or not at "
               "all.",
    .groups = groups,
    .options_size = sizeof(convert_options),
    .run = run,
};
