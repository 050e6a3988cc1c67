/* textio.h - small help with memory, files, paths, token lists and JSON for the verbs. */
#ifndef CLI_TEXTIO_H
#define CLI_TEXTIO_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "corvid.h"

/* Memory or the end of the program with exit code 5. */
void *cli_realloc(void *old, size_t bytes);
void *cli_array(size_t n, size_t size);
char *cli_copy(const char *text);
void *cli_keep(void *memory); /* borrowed from until the program ends */

/* Bytes that grow; always terminated once something was added. */
typedef struct buffer {
    char *bytes;
    size_t n, capacity;
} buffer;
void buffer_add(buffer *b, const char *bytes, size_t n);
void buffer_text(buffer *b, const char *text);
void buffer_free(buffer *b);

typedef struct token_list {
    int32_t *ids;
    size_t n, capacity;
} token_list;
void tokens_add(token_list *list, int32_t id);
void tokens_free(token_list *list);

/* $VARIABLE/corvid/NAME, or ~/FOLDER/corvid/NAME; NAME may be NULL.  NULL without a home. */
char *cli_user_path(const char *variable, const char *folder, const char *name);

/* Appends a whole file, "-" being standard input.  0, or an exit code after a message. */
int cli_read(const char *path, buffer *out);

/* Appends the ids in "1 2,3": white space or commas between.  0, or 2 after a message. */
int cli_parse_ids(const char *what, const char *text, token_list *out);

/* Appends the tokens of a text.  0, or an exit code after a message. */
int cli_encode(const corvid_tokenizer *tokenizer, const char *text, size_t n, token_list *out);

/* Prints one JSON value and a newline, and releases it. */
int cli_print_json(json_t *value);

/* A JSON string of bytes that need not be UTF-8: what is not becomes U+FFFD. */
json_t *cli_json_text(const char *bytes, size_t n);
json_t *cli_json_ids(const token_list *list);

/* "1.5 GiB" into out. */
#define SIZE_TEXT 32
const char *cli_size_text(uint64_t bytes, char out[SIZE_TEXT]);

/* Makes a folder unless it is there; 0, or 6 after a message. */
int cli_make_folder(const char *path);

/* Puts a file in place whole or not at all: open a temporary beside it, write, then keep or drop. */
typedef struct new_file {
    FILE *file;
    char *path, *temporary;
} new_file;
int new_file_open(new_file *f, const char *path);
int new_file_keep(new_file *f); /* 0, or 6 after a message; either way f is done */
void new_file_drop(new_file *f);

#endif
