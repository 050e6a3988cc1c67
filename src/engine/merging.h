/* merging.h - a model and an adapter become one model. */
#ifndef CV_MERGING_H
#define CV_MERGING_H

#include "engine/adapter_file.h"
#include "engine/conversion.h"

/* Writes `base` with what the adapter changes; everything else goes over as it is, metadata too.
 * settings are those of a conversion: format, types, what is put inside.  Matrices keep their type
 * where settings->keep, a quantized one too, and their sums are rounded to it once.
 *
 * The work is done on official names.  A base in other names (GGUF, rwkv.cpp) is converted first and
 * the result after, where it shall be GGUF or of another type; such files stand beside `out` under its
 * name with ".base" and ".merged" behind it until the end. */
corvid_status cv_merge(const corvid_allocator *mem, const char *base, const char *adapter,
                       const cv_adapter_choice *choice, const char *out,
                       const cv_convert_settings *settings, corvid_error *err);

#endif
