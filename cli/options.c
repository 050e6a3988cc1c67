/* options.c - reads a verb's options from flags, environment, configuration file and defaults.
 *
 * Knows nothing about what an option means; help.c and completions.c print the same tables. */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nearest.h"
#include "term.h"
#include "textio.h"

const cli_option general_table[] = {
    { "quiet", 'q', OPTION_FLAG, NULL, NULL, "No progress, no warnings.",
      offsetof(general_options, quiet), 0, 0 },
    { "verbose", 'v', OPTION_FLAG, NULL, NULL,
      "Say more on standard error: timing, memory, choices.", offsetof(general_options, verbose), 0,
      0 },
    { "color", 0, OPTION_CHOICE, "auto|always|never", "auto",
      "Colour; auto is a terminal without NO_COLOR.", offsetof(general_options, color), 0, 0 },
    { "help", 'h', OPTION_FLAG, NULL, NULL, "This text.", offsetof(general_options, help), 0, 0 },
    { 0 }
};

/* Where a value came from; a higher rank wins. */
typedef enum source_rank {
    FROM_DEFAULT,
    FROM_CONFIG,
    FROM_CONFIG_VERB,
    FROM_TWIN,
    FROM_FLAG
} source_rank;

size_t options_flatten(const cli_verb *verb, flat_option out[MAX_OPTIONS])
{
    size_t n = 0;
    for (const option_group *g = verb->groups; g->options; g++)
        for (const cli_option *o = g->options; o->name && n < MAX_OPTIONS; o++)
            out[n++] = (flat_option){ o, g->offset };
    return n;
}

void options_twin(const char *name, char out[TWIN_SIZE])
{
    int n = snprintf(out, TWIN_SIZE, "CORVID_%s", name);
    for (int i = 0; i < n && i < TWIN_SIZE - 1; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

/* ---- Values ---------------------------------------------------------------------------------- */

int parse_count(const char *what, const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno)
        return fail(EXIT_USAGE, "%s: \"%s\" is not a whole number", what, text);
    *value = v;
    return 0;
}

int parse_real(const char *what, const char *text, double *value)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || isspace((unsigned char)text[0]) || isnan(v))
        return fail(EXIT_USAGE, "%s: \"%s\" is not a number", what, text);
    *value = v;
    return 0;
}

static int parse_bytes(const char *what, const char *text, uint64_t *value)
{
    static const char units[] = "KMGT";
    char digits[32];
    size_t n = strlen(text);
    unsigned shift = 0;
    const char *unit = n ? strchr(units, toupper((unsigned char)text[n - 1])) : NULL;
    if (unit) {
        shift = 10 * (unsigned)(unit - units + 1);
        n--;
    }
    if (n == 0 || n >= sizeof digits)
        return fail(EXIT_USAGE, "%s: \"%s\" is not a size; write 800M or 4G", what, text);
    memcpy(digits, text, n);
    digits[n] = 0;
    int code = parse_count(what, digits, value);
    if (code) return code;
    if (shift && *value > (UINT64_MAX >> shift))
        return fail(EXIT_USAGE, "%s: \"%s\" is too large", what, text);
    *value <<= shift;
    return 0;
}

static int parse_flag(const char *what, const char *text, bool *value)
{
    static const char *const words[] = { "0", "1", "no", "yes", "false", "true", "off", "on" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(text, words[i]) == 0) {
            *value = i % 2;
            return 0;
        }
    return fail(EXIT_USAGE, "%s: \"%s\" is neither yes nor no", what, text);
}

/* True when word is one of "a|b|c". */
static bool is_choice(const char *choices, const char *word)
{
    size_t n = strlen(word);
    for (const char *c = choices; n && c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
        if (strncmp(c, word, n) == 0 && (c[n] == '|' || c[n] == 0)) return true;
    return false;
}

static int check_range(const cli_option *o, const char *what, double v)
{
    if ((o->low == 0 && o->high == 0) || (v >= o->low && v <= o->high)) return 0;
    return fail(EXIT_USAGE, "%s: %g is out of range; expected %g to %g", what, v, o->low, o->high);
}

static void list_add(option_list *list, const char *text, source_rank rank)
{
    if (list->rank != (int)rank) list->n = 0;
    list->rank = (int)rank;
    list->items = cli_realloc(list->items, (list->n + 1) * sizeof *list->items);
    list->items[list->n++] = text;
}

/* Puts text into the field of option o of the struct at base. */
static int put(const cli_option *o, char *base, const char *text, source_rank rank,
               const char *what)
{
    void *field = base + o->field;
    int code = 0;
    switch (o->kind) {
    case OPTION_FLAG: return parse_flag(what, text, field);
    case OPTION_TEXT: *(const char **)field = text; return 0;
    case OPTION_CHOICE:
        if (!is_choice(o->argument, text))
            return fail(EXIT_USAGE, "%s: \"%s\" is not one of %s", what, text, o->argument);
        *(const char **)field = text;
        return 0;
    case OPTION_COUNT:
        code = parse_count(what, text, field);
        return code ? code : check_range(o, what, (double)*(uint64_t *)field);
    case OPTION_BYTES: return parse_bytes(what, text, field);
    case OPTION_REAL:
        code = parse_real(what, text, field);
        return code ? code : check_range(o, what, *(double *)field);
    case OPTION_LIST: list_add(field, text, rank); return 0;
    }
    return fail(CORVID_E_INTERNAL, "%s: an option of no kind", what);
}

/* ---- Configuration file ---------------------------------------------------------------------- */

static bool known_anywhere(const char *name, nearest *near)
{
    flat_option all[MAX_OPTIONS];
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        size_t n = options_flatten(*v, all);
        for (size_t i = 0; i < n; i++) {
            if (strcmp(all[i].option->name, name) == 0) return true;
            nearest_try(near, all[i].option->name);
        }
    }
    return false;
}

/* Cuts white space off both ends, in place. */
static char *trim(char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    size_t n = strlen(s);
    while (n && isspace((unsigned char)s[n - 1]))
        s[--n] = 0;
    return s;
}

typedef struct config_place {
    const char *path;
    unsigned line;
    const cli_verb *section; /* NULL before the first [verb] */
} config_place;

static int config_section(config_place *at, char *line)
{
    size_t n = strlen(line);
    if (line[n - 1] != ']') return fail(EXIT_USAGE, "%s:%u: no ] at the end", at->path, at->line);
    line[n - 1] = 0;
    at->section = cli_find_verb(trim(line + 1));
    if (at->section) return 0;
    return fail(EXIT_USAGE, "%s:%u: [%s] is not a verb", at->path, at->line, trim(line + 1));
}

static int config_line(config_place *at, char *line, const cli_verb *verb, const flat_option *all,
                       size_t n, char *options)
{
    if (*line == 0 || *line == '#') return 0;
    if (*line == '[') return config_section(at, line);
    char *equals = strchr(line, '=');
    if (!equals) return fail(EXIT_USAGE, "%s:%u: expected \"name = value\"", at->path, at->line);
    *equals = 0;
    char *name = trim(line), *value = trim(equals + 1);
    nearest near = nearest_to(name);
    if (!known_anywhere(name, &near))
        return fail(EXIT_USAGE, "%s:%u: unknown name \"%s\"%s%s%s", at->path, at->line, name,
                    nearest_found(&near) ? "; did you mean \"" : "",
                    nearest_found(&near) ? near.best : "", nearest_found(&near) ? "\"?" : "");
    if (at->section && at->section != verb) return 0;
    char what[256];
    snprintf(what, sizeof what, "%s:%u: %s", at->path, at->line, name);
    source_rank rank = at->section ? FROM_CONFIG_VERB : FROM_CONFIG;
    for (size_t i = 0; i < n; i++)
        if (strcmp(all[i].option->name, name) == 0)
            return put(all[i].option, options + all[i].base, value, rank, what);
    return 0; /* another verb's */
}

/* Lines for all verbs first, those of the verb's own section over them, wherever they stand: the
 * file is read twice. */
static int from_config(const cli_verb *verb, const flat_option *all, size_t n, char *options)
{
    char *path = cli_user_path("XDG_CONFIG_HOME", ".config", "config");
    if (!path) return 0;
    int code = 0;
    for (int own = 0; own < 2 && !code; own++) {
        FILE *file = fopen(path, "r");
        if (!file) break; /* having none is the common case */
        config_place at = { path, 0, NULL };
        char *line = NULL;
        size_t capacity = 0;
        while (!code && getline(&line, &capacity, file) >= 0) {
            at.line++;
            char *kept = cli_keep(cli_copy(line)); /* values are borrowed from it */
            char *text = trim(kept);
            bool heading = *text == '[';
            if (heading || (at.section != NULL) == (own == 1))
                code = config_line(&at, text, verb, all, n, options);
        }
        free(line);
        fclose(file);
    }
    free(path);
    return code;
}

/* ---- Environment and flags ------------------------------------------------------------------- */

static int from_environment(const flat_option *all, size_t n, char *options)
{
    for (size_t i = 0; i < n; i++) {
        char twin[TWIN_SIZE];
        if (strcmp(all[i].option->name, "help") == 0) continue;
        options_twin(all[i].option->name, twin);
        const char *text = getenv(twin);
        if (!text || !*text) continue;
        int code = put(all[i].option, options + all[i].base, text, FROM_TWIN, twin);
        if (code) return code;
    }
    return 0;
}

static int from_defaults(const flat_option *all, size_t n, char *options)
{
    for (size_t i = 0; i < n; i++) {
        const cli_option *o = all[i].option;
        if (!o->fallback) continue;
        int code = put(o, options + all[i].base, o->fallback, FROM_DEFAULT, o->name);
        if (code) return code;
    }
    return 0;
}

/* What getopt_long could not place: a slip, a beginning of several names, or no such letter. */
static int unknown_option(const cli_verb *verb, const flat_option *all, size_t n, const char *word)
{
    if (optopt)
        return fail(EXIT_USAGE, "unknown option -%c; see corvid %s --help", optopt, verb->name);
    while (*word == '-')
        word++;
    size_t length = strcspn(word, "=");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(length < 60 ? length : 60), word);
    nearest near = nearest_to(name);
    size_t beginnings = 0;
    for (size_t i = 0; i < n; i++) {
        nearest_try(&near, all[i].option->name);
        beginnings += strncmp(all[i].option->name, name, strlen(name)) == 0;
    }
    if (beginnings > 1)
        return fail(EXIT_USAGE, "--%s could be several options; see corvid %s --help", name,
                    verb->name);
    if (!nearest_found(&near))
        return fail(EXIT_USAGE, "unknown option --%s; see corvid %s --help", name, verb->name);
    return fail(EXIT_USAGE, "unknown option --%s; did you mean --%s?", name, near.best);
}

static size_t find_key(const flat_option *all, size_t n, int key)
{
    if (key >= 256) return (size_t)(key - 256);
    for (size_t i = 0; i < n; i++)
        if (all[i].option->letter == key) return i;
    return n;
}

/* getopt's two tables; long options answer with 256 + their index. */
static void getopt_tables(const flat_option *all, size_t n, struct option *names, char *letters)
{
    *letters++ = ':';
    for (size_t i = 0; i < n; i++) {
        const cli_option *o = all[i].option;
        bool flag = o->kind == OPTION_FLAG;
        names[i] = (struct option){ o->name, flag ? optional_argument : required_argument, NULL,
                                    256 + (int)i };
        if (!o->letter) continue;
        *letters++ = o->letter;
        if (!flag) *letters++ = ':';
    }
    names[n] = (struct option){ 0 };
    *letters = 0;
}

static int from_flags(const cli_verb *verb, const flat_option *all, size_t n, int n_args,
                      char **args, char *options)
{
    struct option names[MAX_OPTIONS + 1];
    char letters[2 * MAX_OPTIONS + 2];
    getopt_tables(all, n, names, letters);
    opterr = 0;
    for (int key; (key = getopt_long(n_args, args, letters, names, NULL)) != -1;) {
        if (key == '?') return unknown_option(verb, all, n, args[optind - 1]);
        size_t i = find_key(all, n, key == ':' ? optopt : key);
        if (i >= n) return fail(CORVID_E_INTERNAL, "option %d is in no table", key);
        const cli_option *o = all[i].option;
        if (key == ':') return fail(EXIT_USAGE, "--%s needs a value: %s", o->name, o->argument);
        char what[80];
        snprintf(what, sizeof what, "--%s", o->name);
        int code = put(o, options + all[i].base, optarg ? optarg : "1", FROM_FLAG, what);
        if (code) return code;
    }
    return 0;
}

int options_parse(const cli_verb *verb, int n_args, char **args, void *options, int *first_arg)
{
    flat_option all[MAX_OPTIONS];
    size_t n = options_flatten(verb, all);
    memset(options, 0, verb->options_size);
    int code = from_defaults(all, n, options);
    if (!code) code = from_config(verb, all, n, options);
    if (!code) code = from_environment(all, n, options);
    if (!code) code = from_flags(verb, all, n, n_args, args, options);
    *first_arg = optind;
    return code;
}
