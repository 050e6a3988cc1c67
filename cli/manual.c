/* manual.c - `corvid man`: manual pages in roff, from the option tables. */
#include "verbs.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "corvid.h"
#include "help.h"
#include "term.h"

typedef struct man_options {
    general_options general;
} man_options;

static const option_group groups[] = { GENERAL_GROUP, { 0 } };

/* Text as roff takes it literally: no escapes, no requests at the start of a line. */
static void literal(const char *text)
{
    bool start = true;
    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\'')) fputs("\\&", stdout);
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '"')
            fputs("\\(dq", stdout);
        else if (*text == '\'')
            fputs("\\(aq", stdout);
        else
            putchar(*text);
        start = *text == '\n';
    }
}

static void title(const char *name)
{
    fputs(".TH CORVID", stdout);
    if (name) putchar('-');
    for (; name && *name; name++)
        putchar(toupper((unsigned char)*name));
    printf(" 1 \"\" \"corvid %s\" \"Corvid manual\"\n", corvid_version());
}

static void examples(const char *text)
{
    fputs(".SH EXAMPLES\n.nf\n", stdout);
    literal(text);
    fputs("\n.fi\n", stdout);
}

static void option_entry(const cli_option *o)
{
    char label[96];
    help_label(o, label, sizeof label);
    fputs(".TP\n\\fB", stdout);
    literal(label);
    fputs("\\fR\n", stdout);
    literal(o->help);
    if (o->fallback) {
        fputs(" Default: ", stdout);
        literal(o->fallback);
        putchar('.');
    }
    putchar('\n');
}

static bool takes_model(const cli_verb *verb)
{
    for (const option_group *g = verb->groups; g->options; g++)
        for (const cli_option *o = g->options; o->name; o++)
            if (strcmp(o->name, "model") == 0) return true;
    return false;
}

static void environment(const cli_verb *verb)
{
    fputs(".SH ENVIRONMENT\nA flag is stronger than its variable, which is stronger than a line\n"
          "\\(dqname = value\\(dq in $XDG_CONFIG_HOME/corvid/config, where a section [",
          stdout);
    literal(verb->name);
    fputs("] may hold\nlines for this verb alone.\n", stdout);
    for (const option_group *g = verb->groups; g->options; g++)
        for (const cli_option *o = g->options; o->name; o++) {
            char twin[TWIN_SIZE];
            if (strcmp(o->name, "help") == 0) continue;
            options_twin(o->name, twin);
            printf(".TP\n.B %s\nThe option ", twin);
            fputs("\\fB\\-\\-", stdout);
            literal(o->name);
            fputs("\\fR.\n", stdout);
        }
    if (takes_model(verb))
        fputs(".TP\n.B CORVID_MODELS\nA folder where shipped models are looked for first.\n",
              stdout);
    fputs(".TP\n.B NO_COLOR\nNo colour unless asked for.\n", stdout);
}

/* Where the models that come with the command are looked for (shipped.c). */
static void model_files(void)
{
    static const char *const rows[][2] = {
        { "../share/corvid/models",
          "Seen from the folder of the command: where they are installed." },
        { "../../models", "The same for a command that was built and not installed." },
        { "$XDG_DATA_HOME/corvid/models", "Of the user; otherwise below ~/.local/share." },
        { "$XDG_DATA_DIRS", "/corvid/models below each of these, otherwise below /usr/local/share "
                            "and /usr/share." },
    };
    fputs(".SH FILES\nA model that is named without a path, as story or pictures, is NAME.gguf in "
          "the first of\nthese folders that has it, after $CORVID_MODELS.\n",
          stdout);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fputs(".TP\n.I ", stdout);
        literal(rows[i][0]);
        putchar('\n');
        literal(rows[i][1]);
        putchar('\n');
    }
}

static void exit_status(void)
{
    static const char *const rows[][2] = {
        { "0", "Done." },
        { "2", "Usage: an option or an argument is wrong." },
        { "3", "A file is missing or cannot be read." },
        { "4", "A file is malformed, or of a kind that is not supported." },
        { "5", "It does not fit in memory." },
        { "6", "Writing failed; the old file is intact." },
        { "8", "A state, adapter or vocabulary of another model." },
        { "9", "A mistake of ours; please report it." },
        { "130, 143", "Ended by Ctrl-C or SIGTERM." },
    };
    fputs(".SH EXIT STATUS\n", stdout);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        printf(".TP\n.B %s\n%s\n", rows[i][0], rows[i][1]);
}

static void verb_page(const cli_verb *verb)
{
    title(verb->name);
    printf(".SH NAME\ncorvid\\-%s \\- ", verb->name);
    literal(verb->summary);
    printf("\n.SH SYNOPSIS\n\\fBcorvid %s\\fR ", verb->name);
    literal(verb->usage);
    putchar('\n');
    examples(verb->examples);
    if (verb->details) {
        fputs(".SH DESCRIPTION\n", stdout);
        literal(verb->details);
        putchar('\n');
    }
    fputs(".SH OPTIONS\n", stdout);
    for (const option_group *g = verb->groups; g->options; g++) {
        fputs(".SS ", stdout);
        literal(g->title);
        putchar('\n');
        for (const cli_option *o = g->options; o->name; o++)
            option_entry(o);
    }
    environment(verb);
    if (takes_model(verb)) model_files();
    exit_status();
    fputs(".SH SEE ALSO\n.BR corvid (1)\n", stdout);
}

static void program_page(void)
{
    title(NULL);
    fputs(".SH NAME\ncorvid \\- RWKV language and vision models: read, use, measure\n"
          ".SH SYNOPSIS\n\\fBcorvid\\fR \\fIVERB\\fR [\\fIoptions\\fR]\n",
          stdout);
    examples(verb_generate.examples);
    fputs(".SH VERBS\n", stdout);
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        printf(".TP\n.BR corvid\\-%s (1)\n", (*v)->name);
        literal((*v)->summary);
        putchar('\n');
    }
    exit_status();
}

static int run(const void *options, int n_args, char **args)
{
    (void)options;
    if (n_args > 1) return fail(EXIT_USAGE, "give one verb");
    if (n_args == 0) {
        program_page();
        return 0;
    }
    const cli_verb *verb = cli_find_verb(args[0]);
    if (!verb) return EXIT_USAGE;
    verb_page(verb);
    return 0;
}

const cli_verb verb_man = {
    .name = "man",
    .summary = "print a manual page",
    .usage = "[VERB]",
    .examples = "corvid man generate | man -l -\ncorvid man > corvid.1",
    .groups = groups,
    .options_size = sizeof(man_options),
    .run = run,
};
