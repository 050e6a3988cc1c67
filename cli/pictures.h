/* pictures.h - the pictures that a verb is given, and how they are brought to size. */
#ifndef CLI_PICTURES_H
#define CLI_PICTURES_H

#include "corvid.h"
#include "options.h"
#include "textio.h"

/* ---- Which ----------------------------------------------------------------------------------- */

typedef struct picture_entry {
    char *path;  /* "-": standard input */
    char *label; /* what a list says behind the path, or NULL */
    size_t line; /* in the list; 0: it was in none */
} picture_entry;

typedef struct picture_list {
    picture_entry *items;
    size_t n, capacity;
    buffer standard_input; /* the picture "-" */
    bool took_input;
    int code; /* of the first argument that was not there */
} picture_list;

/* Appends what an argument stands for: a file, all pictures below a folder by name, or "-".  What is
 * not there is told at once and remembered in list->code, for the others go on.  0, or an exit code
 * after a message when nothing can go on. */
int pictures_add(picture_list *list, const char *argument);

/* The same for the lines of a file (see the details of `corvid classify --help`). */
int pictures_add_list(picture_list *list, const char *path);

/* Arguments, then the list, which may be NULL; 2 after a message when both are empty. */
int pictures_gather(picture_list *list, int n_args, char **args, const char *list_path);
void pictures_free(picture_list *list);

/* ---- How ------------------------------------------------------------------------------------- */

typedef struct picture_args {
    const char *size, *orient;
    uint64_t max_pixels, batch;
} picture_args;

extern const cli_option picture_table[];

/* What the options ask for, over the defaults of a model; model NULL: to check them early.  0, or 2
 * after a message. */
int picture_args_framing(const picture_args *args, const corvid_model *model,
                         corvid_framing *framing);

/* True when pictures of all sizes come out as one size. */
bool framing_is_fixed(const corvid_framing *framing);

/* Reads and frames the i-th picture. */
corvid_status pictures_load(const picture_list *list, size_t i, const corvid_framing *framing,
                            uint64_t max_pixels, corvid_picture **picture, corvid_error *err);

#endif
