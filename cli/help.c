/* help.c - --help, `corvid help` and `corvid version`. */
#include "help.h"

#include <string.h>

#include "corvid.h"
#include "nearest.h"
#include "term.h"
#include "verbs.h"

#define WIDTH  96
#define INDENT 28

/* Prints text wrapped at WIDTH; the cursor stands at column. */
static void wrapped(FILE *to, const char *text, size_t column, size_t indent)
{
    bool first = true;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (!first && column + 1 + n > WIDTH) {
            fprintf(to, "\n%*s", (int)indent, "");
            column = indent;
        } else if (!first) {
            fputc(' ', to);
            column++;
        }
        fprintf(to, "%.*s", (int)n, text);
        column += n;
        text += n + strspn(text + n, " ");
        first = false;
    }
    fputc('\n', to);
}

/* Every line of a text behind an indent. */
static void indented(FILE *to, const char *text, const char *before)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        fprintf(to, "%s%.*s\n", before, (int)n, text);
        text += n + (text[n] == '\n');
    }
}

void help_label(const cli_option *o, char *out, size_t size)
{
    char letter[8] = "";
    if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(out, size, "%s--%s%s%s", letter, o->name, o->argument ? " " : "",
             o->argument ? o->argument : "");
}

static void print_option(FILE *to, const cli_option *o)
{
    char label[96], text[512];
    help_label(o, label, sizeof label);
    const char *pad = o->letter ? "" : "    ";
    int n = fprintf(to, "  %s%s", pad, label);
    if (n < INDENT - 1)
        fprintf(to, "%*s", INDENT - n, "");
    else
        fprintf(to, "\n%*s", INDENT, "");
    snprintf(text, sizeof text, "%s%s%s%s", o->help, o->fallback ? " (default: " : "",
             o->fallback ? o->fallback : "", o->fallback ? ")" : "");
    wrapped(to, text, INDENT, INDENT);
}

void help_verb(FILE *to, const cli_verb *verb)
{
    const char *strong = term_paint(to, STYLE_STRONG), *plain = term_paint(to, STYLE_PLAIN);
    fprintf(to, "%scorvid %s%s - %s\n\n%sExamples:%s\n", strong, verb->name, plain, verb->summary,
            strong, plain);
    indented(to, verb->examples, "  ");
    fprintf(to, "\n%sUsage:%s\n  corvid %s%s%s\n\n", strong, plain, verb->name,
            *verb->usage ? " " : "", verb->usage);
    if (verb->details) {
        wrapped(to, verb->details, 0, 0);
        fputc('\n', to);
    }
    for (const option_group *g = verb->groups; g->options; g++) {
        fprintf(to, "%s%s:%s\n", strong, g->title, plain);
        for (const cli_option *o = g->options; o->name; o++)
            print_option(to, o);
        fputc('\n', to);
    }
    wrapped(to,
            "Every option can also be set by an environment variable (--top-p is CORVID_TOP_P) or "
            "a line \"top-p = 0.3\" in $XDG_CONFIG_HOME/corvid/config.",
            0, 0);
}

void help_program(FILE *to)
{
    fprintf(to,
            "corvid %s - RWKV language and vision models: read them, use them, measure them\n\n",
            corvid_version());
    fputs("  corvid generate -p \"In the evening\"       write a text\n"
          "  corvid classify cat.jpg                    name what is in a picture\n"
          "  corvid chat -m rwkv7-world.pth             hold a conversation\n"
          "  corvid inspect info -m rwkv7.pth           what is in a file?\n\n"
          "Verbs:",
          to);
    size_t column = 6;
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        if (column + strlen((*v)->name) > 88) {
            fputs("\n      ", to);
            column = 6;
        }
        column += (size_t)fprintf(to, " %s", (*v)->name);
    }
    fputs("\n\ncorvid VERB --help tells about one, corvid help lists them.\n", to);
}

/* ---- corvid help, corvid version ------------------------------------------------------------- */

typedef struct plain_options {
    general_options general;
} plain_options;

static const option_group plain_groups[] = { GENERAL_GROUP, { 0 } };

static int run_help(const void *options, int n_args, char **args)
{
    (void)options;
    if (n_args) {
        const cli_verb *verb = cli_find_verb(args[0]);
        if (!verb) return EXIT_USAGE;
        help_verb(stdout, verb);
        return 0;
    }
    printf("corvid %s - RWKV language and vision models\n\n", corvid_version());
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        printf("  %-12s %s\n", (*v)->name, (*v)->summary);
    puts("\nExit codes: 0 done, 2 usage, 3 file missing, 4 malformed file, 5 does not fit in "
         "memory,\n"
         "6 write failed, 8 mismatch of model and state or vocabulary, 9 our mistake, 130 Ctrl-C.");
    return 0;
}

static int run_version(const void *options, int n_args, char **args)
{
    (void)options;
    (void)n_args;
    (void)args;
    printf("corvid %s\n", corvid_version());
    return 0;
}

const cli_verb verb_help = {
    .name = "help",
    .summary = "list the verbs, or tell about one",
    .usage = "[VERB]",
    .examples = "corvid help\ncorvid help generate",
    .groups = plain_groups,
    .options_size = sizeof(plain_options),
    .run = run_help,
};

const cli_verb verb_version = {
    .name = "version",
    .summary = "print the version of the library in use",
    .usage = "",
    .examples = "corvid version",
    .groups = plain_groups,
    .options_size = sizeof(plain_options),
    .run = run_version,
};
