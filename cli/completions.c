/* completions.c - `corvid completions`: for bash, zsh and fish, from the option tables. */
#include "verbs.h"

#include <stdio.h>
#include <string.h>

#include "nearest.h"
#include "term.h"

typedef struct completion_options {
    general_options general;
} completion_options;

static const option_group groups[] = { GENERAL_GROUP, { 0 } };

static bool takes_file(const cli_option *o)
{
    return o->argument && strcmp(o->argument, "FILE") == 0;
}

/* Words of "a|b|c" with spaces between. */
static void print_words(const char *choices)
{
    for (; *choices; choices++)
        putchar(*choices == '|' ? ' ' : *choices);
}

/* The first sentence, inside single quotes; also escapes the characters of special, if any. */
static void print_quoted(const char *text, const char *special)
{
    const char *end = strpbrk(text, ".;:");
    while (end && end[1] && end[1] != ' ')
        end = strpbrk(end + 1, ".;:");
    for (; *text && text != end; text++) {
        if (*text == '\'') {
            fputs("'\\''", stdout);
            continue;
        }
        if (strchr(special, *text)) putchar('\\');
        putchar(*text);
    }
}

static void print_verbs(void)
{
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        printf("%s%s", v == cli_verbs ? "" : " ", (*v)->name);
}

/* ---- bash ------------------------------------------------------------------------------------ */

/* Files are what bash completes when nothing matches (-o default). */
static void bash_verb(const cli_verb *verb)
{
    flat_option all[MAX_OPTIONS];
    size_t n = options_flatten(verb, all);
    printf("    %s)\n        case \"$previous\" in\n", verb->name);
    for (size_t i = 0; i < n; i++) {
        const cli_option *o = all[i].option;
        if (!o->argument) continue;
        fputs("        ", stdout);
        if (o->letter) printf("-%c|", o->letter);
        printf("--%s) words=\"", o->name);
        if (o->kind == OPTION_CHOICE) print_words(o->argument);
        puts("\" ;;");
    }
    fputs("        *) words=\"", stdout);
    if (verb->subjects) {
        print_words(verb->subjects);
        putchar(' ');
    }
    for (size_t i = 0; i < n; i++) {
        if (all[i].option->letter) printf("-%c ", all[i].option->letter);
        printf("--%s ", all[i].option->name);
    }
    puts("\" ;;\n        esac ;;");
}

static void bash(void)
{
    fputs("# bash completion for corvid: source it, or put it in bash-completion's folder\n"
          "_corvid() {\n"
          "    local word=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
          "    local words=\"\"\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"",
          stdout);
    print_verbs();
    puts("\"\n    else\n    case \"${COMP_WORDS[1]}\" in");
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        bash_verb(*v);
    puts("    esac\n    fi\n"
         "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
         "}\n"
         "complete -o default -F _corvid corvid");
}

/* ---- zsh ------------------------------------------------------------------------------------- */

static void zsh_option(const cli_option *o)
{
    fputs("            ", stdout);
    if (o->letter) {
        printf("'(-%c --%s)'{-%c,--%s%s}'[", o->letter, o->name, o->letter, o->name,
               o->argument ? "=" : "");
    } else {
        printf("%s'--%s%s[", o->kind == OPTION_LIST ? "'*'" : "", o->name, o->argument ? "=" : "");
    }
    print_quoted(o->help, "[]");
    putchar(']');
    if (o->argument) {
        fputs(":value:", stdout);
        if (takes_file(o)) fputs("_files", stdout);
        if (o->kind == OPTION_CHOICE) {
            putchar('(');
            print_words(o->argument);
            putchar(')');
        }
    }
    puts("' \\");
}

static void zsh(void)
{
    puts("#compdef corvid\n"
         "# zsh completion for corvid: put it in a folder of $fpath as _corvid\n"
         "_corvid() {\n"
         "    local -a verbs=(");
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        printf("        '%s:", (*v)->name);
        print_quoted((*v)->summary, "");
        puts("'");
    }
    puts("    )\n"
         "    if (( CURRENT == 2 )); then\n"
         "        _describe verb verbs\n"
         "        return\n"
         "    fi\n"
         "    local verb=$words[2]\n"
         "    shift words\n"
         "    (( CURRENT-- ))\n"
         "    case $verb in");
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        flat_option all[MAX_OPTIONS];
        size_t n = options_flatten(*v, all);
        printf("    %s)\n        _arguments -s \\\n", (*v)->name);
        for (size_t i = 0; i < n; i++)
            zsh_option(all[i].option);
        if ((*v)->subjects) {
            fputs("            '1:subject:(", stdout);
            print_words((*v)->subjects);
            puts(")' \\");
        }
        puts("            '*:file:_files' ;;");
    }
    puts(
        "    esac\n}\n"
        "if [ \"$funcstack[1]\" = _corvid ]; then _corvid \"$@\"; else compdef _corvid corvid; fi");
}

/* ---- fish ------------------------------------------------------------------------------------ */

static void fish_option(const cli_verb *verb, const cli_option *o)
{
    printf("complete -c corvid -n '__fish_seen_subcommand_from %s'", verb->name);
    if (o->letter) printf(" -s %c", o->letter);
    printf(" -l %s", o->name);
    if (o->kind == OPTION_CHOICE) {
        fputs(" -x -a '", stdout);
        print_words(o->argument);
        putchar('\'');
    } else if (o->argument) {
        fputs(takes_file(o) ? " -r -F" : " -x", stdout);
    }
    /* Inside single quotes fish takes \' and \\ only. */
    fputs(" -d '", stdout);
    const char *end = strpbrk(o->help, ".;");
    for (const char *at = o->help; *at && at != end; at++)
        printf("%s%c", *at == '\'' || *at == '\\' ? "\\" : "", *at);
    puts("'");
}

static void fish(void)
{
    fputs("# fish completion for corvid: put it in fish's folder of completions\n"
          "complete -c corvid -n __fish_use_subcommand -f\n",
          stdout);
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        printf("complete -c corvid -n __fish_use_subcommand -a %s -d '%s'\n", (*v)->name,
               (*v)->summary);
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        flat_option all[MAX_OPTIONS];
        size_t n = options_flatten(*v, all);
        if ((*v)->subjects) {
            printf("complete -c corvid -n '__fish_seen_subcommand_from %s' -a '", (*v)->name);
            print_words((*v)->subjects);
            puts("'");
        }
        for (size_t i = 0; i < n; i++)
            fish_option(*v, all[i].option);
    }
}

static int run(const void *options, int n_args, char **args)
{
    static const struct {
        const char *name;
        void (*print)(void);
    } shells[] = { { "bash", bash }, { "zsh", zsh }, { "fish", fish } };
    (void)options;
    if (n_args != 1) return fail(EXIT_USAGE, "give a shell: bash, zsh or fish");
    nearest near = nearest_to(args[0]);
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(shells[i].name, args[0]) == 0) {
            shells[i].print();
            return 0;
        }
        nearest_try(&near, shells[i].name);
    }
    return fail(EXIT_USAGE, "no completions for \"%s\"; did you mean %s?", args[0], near.best);
}

const cli_verb verb_completions = {
    .name = "completions",
    .summary = "print completions for a shell",
    .usage = "bash|zsh|fish",
    .examples = "source <(corvid completions bash)\n"
                "corvid completions fish > ~/.config/fish/completions/corvid.fish",
    .subjects = "bash|zsh|fish",
    .groups = groups,
    .options_size = sizeof(completion_options),
    .run = run,
};
