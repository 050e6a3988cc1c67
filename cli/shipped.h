/* shipped.h - the models that come with the command, found by name. */
#ifndef CLI_SHIPPED_H
#define CLI_SHIPPED_H

#include "textio.h"

#define SHIPPED_STORY    "story"    /* goes on with a text */
#define SHIPPED_PICTURES "pictures" /* names what is in a picture */

/* NAME.gguf in the first folder that has it, to be freed; NULL where none has. */
char *shipped_find(const char *name);

/* Appends those folders in the order in which they are looked through, each behind "\n  ". */
void shipped_folders(buffer *out);

#endif
