/* gguf_types.h - what the reader and the writer of GGUF share: numbers of types, rules for names.
 *
 * Nothing outside gguf.c and gguf_write.c needs it. */
#ifndef CV_GGUF_TYPES_H
#define CV_GGUF_TYPES_H

#include "formats/checkpoint.h"

#define CV_GGUF_HEADER_BYTES 24 /* magic, version, number of tensors, number of keys */
#define CV_GGUF_ALIGNMENT    32 /* of tensor data, where general.alignment does not say */
#define CV_GGUF_MAX_DIMS     4
#define CV_GGUF_MAX_NAME     65535 /* bytes of a key or of a tensor's name */

/* Types of values, as they stand in the file. */
typedef enum cv_gguf_value {
    CV_GGUF_U8 = 0,
    CV_GGUF_I8 = 1,
    CV_GGUF_U16 = 2,
    CV_GGUF_I16 = 3,
    CV_GGUF_U32 = 4,
    CV_GGUF_I32 = 5,
    CV_GGUF_F32 = 6,
    CV_GGUF_BOOL = 7,
    CV_GGUF_TEXT = 8,
    CV_GGUF_ARRAY = 9,
    CV_GGUF_U64 = 10,
    CV_GGUF_I64 = 11,
    CV_GGUF_F64 = 12,
    CV_GGUF_VALUES
} cv_gguf_value;

/* Types of tensor elements: the index is the number in the file.  The dtype is CV_DTYPES where
 * there is none of ours; the name is NULL where the number has no meaning. */
typedef struct cv_gguf_element {
    const char *name;
    cv_dtype dtype;
} cv_gguf_element;

#define CV_GGUF_ELEMENTS 41
extern const cv_gguf_element cv_gguf_elements[CV_GGUF_ELEMENTS];

/* What is wrong with a key or a tensor's name ("is empty", "is not UTF-8", ...); NULL if nothing. */
const char *cv_gguf_name_fault(const char *name, size_t n);

/* The bytes of a name that a message shows: all, or as many whole characters as are seemly. */
int cv_gguf_shown(const char *name);

/* Sorts names; returns one that occurs twice, or NULL. */
const char *cv_gguf_repeated(const char **names, size_t n);

#endif
