/* main.c - the `corvid` command: finds the verb, reads its options, runs it. */
#include <stdlib.h>
#include <string.h>

#include "corvid.h"
#include "help.h"
#include "nearest.h"
#include "term.h"
#include "textio.h"
#include "verbs.h"

const cli_verb *const cli_verbs[] = { &verb_generate,
                                      &verb_chat,
                                      &verb_classify,
                                      &verb_features,
                                      &verb_logits,
                                      &verb_tokenize,
                                      &verb_detokenize,
                                      &verb_convert,
                                      &verb_train,
                                      &verb_finetune,
                                      &verb_merge,
                                      &verb_inspect,
                                      &verb_eval,
                                      &verb_bench,
                                      &verb_completions,
                                      &verb_man,
                                      &verb_help,
                                      &verb_version,
                                      NULL };

/* Verbs of the plan that this version does not have: worth a better answer than "unknown". */
static const char *const later[] = { "serve" };

const cli_verb *cli_find_verb(const char *name)
{
    nearest near = nearest_to(name);
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        if (strcmp((*v)->name, name) == 0) return *v;
        nearest_try(&near, (*v)->name);
    }
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (strcmp(later[i], name) == 0) {
            fail(EXIT_USAGE, "%s is not part of this version (%s); corvid help lists the verbs",
                 name, corvid_version());
            return NULL;
        }
    fail(EXIT_USAGE, "unknown verb \"%s\"; did you mean %s? corvid help lists the verbs", name,
         near.best ? near.best : "generate");
    return NULL;
}

static int run_verb(const cli_verb *verb, int n_args, char **args)
{
    int first = 0;
    /* Kept: option values and lists are borrowed from it. */
    general_options *options = cli_keep(cli_array(1, verb->options_size));
    term_setup(verb->name, NULL);
    int code = options_parse(verb, n_args, args, options, &first);
    if (code) return code;
    term_setup(verb->name, options);
    if (!options->help) return verb->run(options, n_args - first, args + first);
    help_verb(stdout, verb);
    return 0;
}

int main(int n_args, char **args)
{
    term_catch_signals();
    if (n_args < 2) {
        help_program(stdout);
        return term_finish(0);
    }
    const char *name = args[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) name = "help";
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) name = "version";
    const cli_verb *verb = cli_find_verb(name);
    if (!verb) return EXIT_USAGE;
    return term_finish(run_verb(verb, n_args - 1, args + 1));
}
