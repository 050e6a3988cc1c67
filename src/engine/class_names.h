/* class_names.h - what the classes of a vision model are called, and where that is looked for. */
#ifndef CV_CLASS_NAMES_H
#define CV_CLASS_NAMES_H

#include "formats/checkpoint.h"

/* Names in the metadata of files that Corvid writes: one per line. */
#define CV_CLASSES_KEY "corvid.classes"

typedef struct cv_class_names {
    char *text;         /* what the names stand in */
    const char **names; /* [n], terminated; NULL: none */
    size_t n;
} cv_class_names;

/* The names of K classes.
 *   explicit_path  given by the user, or NULL: only this is tried then
 *   ckpt           may hold them (Corvid's own, or CLASSES as mmcv writes it); may be NULL
 *   model_path     beside which classes.tsv or classes.txt may lie; may be NULL
 *   folder         the data folder, the same; may be NULL
 * A file has a name per line, or tab-separated columns of which "short_name" or "name" is taken.
 * None found is no error: names stay NULL.  A file that was named and does not fit is one
 * (CORVID_E_FILE, CORVID_E_MISMATCH). */
corvid_status cv_class_names_find(const corvid_allocator *mem, size_t K, const char *explicit_path,
                                  const cv_checkpoint *ckpt, const char *model_path,
                                  const char *folder, cv_class_names *out, corvid_error *err);

/* The same of a file alone, with as many classes as it has. */
corvid_status cv_class_names_read(const corvid_allocator *mem, const char *path,
                                  cv_class_names *out, corvid_error *err);
void cv_class_names_free(const corvid_allocator *mem, cv_class_names *names);

#endif
