/* picture_sources.h - which pictures there are, of which classes: folders, archives, IDX and CIFAR.
 *
 * A folder, or an archive (.tar, .tar.gz, .tgz, .tar.bz2, .tar.xz, .zip), holds a folder for each
 * class, with its .jpg, .jpeg, .png and .webp files in it and below it.  Those may lie in `train`
 * and in `val` or `test`.  Folders around all of it do not matter; names that begin with a dot are
 * left out, and links to folders are not followed.  A folder may instead hold the files of MNIST,
 * plain or .gz, or the binary ones of CIFAR-10 or CIFAR-100. */
#ifndef CV_PICTURE_SOURCES_H
#define CV_PICTURE_SOURCES_H

#include <stdbool.h>

#include "base/input.h"

typedef enum cv_picture_part {
    CV_PART_ANY, /* the data does not say */
    CV_PART_TRAIN,
    CV_PART_VALIDATION
} cv_picture_part;

typedef enum cv_picture_form {
    CV_FORM_FILE,    /* to be read from the file `name` */
    CV_FORM_ENCODED, /* JPEG, PNG or WebP in memory */
    CV_FORM_GREY,    /* [height][width] in memory */
    CV_FORM_PLANES   /* [3][height][width] in memory */
} cv_picture_form;

typedef struct cv_picture_sample {
    const char *name; /* of its file, or of the archive */
    const unsigned char *bytes;
    uint64_t n;             /* bytes, of the file or in memory */
    uint32_t width, height; /* of what is not encoded */
    int32_t target;
    uint8_t part, form;     /* cv_picture_part, cv_picture_form */
    uint16_t skip;          /* where in `path` the folder of its class begins */
    const char *path;       /* below the source; from `skip` on it is what samples are sorted by */
} cv_picture_sample;

typedef struct cv_picture_list {
    cv_arena arena; /* names */
    cv_arena bytes; /* pictures of archives and raw ones */
    cv_picture_sample *of;
    size_t n, capacity;
    const char **classes; /* sorted, or in the order of their numbers */
    size_t n_classes, class_capacity;
    bool in_order;      /* the classes came with their numbers */
    size_t n_bytes;     /* in `bytes`, */
    size_t limit;       /* and how many there may be */
    size_t n_left_out;  /* pictures beside `train` and `val` or `test`, or of no class */
    uint64_t n_encoded; /* bytes of files and archives' entries */
    corvid_cancel_fn cancel;
    void *ctx;
} cv_picture_list;

/* Finds the pictures: reads archives and raw files into memory (limit bytes at most), but decodes
 * nothing.  They are sorted, so numbers of samples do not depend on the file system, nor on whether
 * they lie in a folder or an archive.  cancel may be NULL. */
corvid_status cv_picture_list_find(const corvid_allocator *mem, const char *const *paths, size_t n,
                                   size_t limit, corvid_cancel_fn cancel, void *ctx,
                                   cv_picture_list *out, corvid_error *err);
void cv_picture_list_free(cv_picture_list *list); /* safe on a zeroed one */

/* ---- what the readers of one kind share ------------------------------------------------------ */

bool cv_picture_named(const char *name); /* does it end as a picture's does? */
bool cv_name_ends(const char *name, const char *end); /* whatever the case of its letters */

corvid_status cv_picture_list_cancelled(const cv_picture_list *list, corvid_error *err);

/* One more; its text and bytes stay where they are. */
corvid_status cv_picture_list_add(cv_picture_list *list, cv_picture_sample sample,
                                  corvid_error *err);

/* The number of a class of this name, new where there is none yet.  For sources that number
 * them. */
corvid_status cv_picture_list_class(cv_picture_list *list, const char *name, int32_t *target,
                                    corvid_error *err);

/* Room for n bytes of pictures; CORVID_E_MEMORY beyond the limit, with what to do. */
corvid_status cv_picture_list_room(cv_picture_list *list, const char *path, uint64_t n,
                                   unsigned char **out, corvid_error *err);

#endif
