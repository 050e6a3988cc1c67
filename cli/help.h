/* help.h - texts printed from the option tables. */
#ifndef CLI_HELP_H
#define CLI_HELP_H

#include <stdio.h>

#include "options.h"

/* Ten lines about the whole program. */
void help_program(FILE *to);

/* What --help prints. */
void help_verb(FILE *to, const cli_verb *verb);

/* "-m, --model FILE" into out. */
void help_label(const cli_option *o, char *out, size_t size);

#endif
