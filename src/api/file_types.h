/* file_types.h - names of types and formats in the options of calls that write checkpoints (files.c). */
#ifndef CV_FILE_TYPES_H
#define CV_FILE_TYPES_H

#include "formats/checkpoint.h"

/* "f32", "q8", "q4_k", ...: CORVID_E_ARGUMENT says which there are. */
corvid_status cv_file_type(const char *name, cv_dtype *out, corvid_error *err);

/* name NULL: as the name of the file `out` ends. */
corvid_status cv_file_format(const char *name, const char *out, cv_format *format,
                             corvid_error *err);

#endif
