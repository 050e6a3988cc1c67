/* options.h - one table of options per verb, from which everything else follows: parsing, --help,
 * the manual page, completions, environment twins and the names of the configuration file.
 *
 * A value comes from, strongest first: the flag, its environment twin (--top-p is CORVID_TOP_P),
 * the configuration file, the default in the table. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The kind says how a value is read and what the field it lands in is. */
typedef enum option_kind {
    OPTION_FLAG,   /* bool; --name, or --name=no to take an environment twin back */
    OPTION_TEXT,   /* const char *                                                */
    OPTION_CHOICE, /* const char *, one of the words in argument: "a|b|c"         */
    OPTION_COUNT,  /* uint64_t                                                    */
    OPTION_BYTES,  /* uint64_t, with K, M, G or T behind it                       */
    OPTION_REAL,   /* double                                                      */
    OPTION_LIST    /* option_list, one item per use                               */
} option_kind;

typedef struct option_list {
    const char **items;
    size_t n;
    int rank; /* of the source the items came from; a stronger one starts anew */
} option_list;

/* One option; a table ends with a NULL name. */
typedef struct cli_option {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    option_kind kind;
    const char *argument; /* NULL for flags */
    const char *fallback; /* default as text; NULL: the field stays zero */
    const char *help;
    size_t field;     /* offset in the struct of the group */
    double low, high; /* inclusive bounds of numbers; both 0: none */
} cli_option;

/* A table and where its struct lies in the struct of the verb; groups end with a NULL table. */
typedef struct option_group {
    const char *title;
    const cli_option *options;
    size_t offset;
} option_group;

/* Every verb's struct begins with these. */
typedef struct general_options {
    bool quiet, verbose, help;
    const char *color;
} general_options;

extern const cli_option general_table[];

#define GENERAL_GROUP               \
    {                               \
        "General", general_table, 0 \
    }

typedef struct cli_verb {
    const char *name;
    const char *summary;  /* "continue a text" */
    const char *usage;    /* lines after "corvid NAME " */
    const char *examples; /* lines */
    const char *details;  /* paragraphs between the examples and the options; NULL: none */
    const char *subjects; /* "perplexity|lambada": the words that may come first; NULL: none */
    const option_group *groups;
    size_t options_size;
    int (*run)(const void *options, int n_args, char **args);
} cli_verb;

/* All verbs, NULL at the end (main.c). */
extern const cli_verb *const cli_verbs[];
const cli_verb *cli_find_verb(const char *name);

#define MAX_OPTIONS 64

/* The verb's options in the order of its groups; base receives where each group's struct lies. */
typedef struct flat_option {
    const cli_option *option;
    size_t base;
} flat_option;
size_t options_flatten(const cli_verb *verb, flat_option out[MAX_OPTIONS]);

/* "CORVID_TOP_P" for top-p. */
#define TWIN_SIZE 64
void options_twin(const char *name, char out[TWIN_SIZE]);

/* Fills options (zeroed, options_size bytes) from the four sources.  args[0] is the verb; what is
 * not an option moves to the end, and *first_arg is its index.  0, or 2 after a message. */
int options_parse(const cli_verb *verb, int n_args, char **args, void *options, int *first_arg);

/* The value of one number, for those that stand inside other texts.  what names it in the message.
 * 0, or 2 after a message. */
int parse_count(const char *what, const char *text, uint64_t *value);
int parse_real(const char *what, const char *text, double *value);

#endif
