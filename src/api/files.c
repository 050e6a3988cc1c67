/* files.c - converting checkpoints. */
#include <string.h>
#include <strings.h>

#include "api/file_types.h"
#include "api/handles.h"
#include "engine/conversion.h"

void corvid_convert_defaults(corvid_convert_options *options)
{
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
}

/* The short names stand for the type that serves most at that size. */
corvid_status cv_file_type(const char *name, cv_dtype *out, corvid_error *err)
{
    static const struct {
        const char *name;
        cv_dtype type;
    } shorts[] = { { "q8", CV_Q8_0 }, { "q6", CV_Q6_K }, { "q5", CV_Q5_K }, { "q4", CV_Q4_K } };
    for (size_t i = 0; i < sizeof shorts / sizeof *shorts; i++)
        if (strcasecmp(name, shorts[i].name) == 0) {
            *out = shorts[i].type;
            return CORVID_OK;
        }
    if (cv_dtype_parse(name, out) && cv_dtype_of(*out)->real && *out != CV_F64) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT,
                   "%s: no such type; expected f32, f16, bf16, q8, q6, q5, q4 or a GGUF type (q4_0 "
                   "q4_1 q5_0 q5_1 q8_0 q4_k q5_k q6_k)",
                   name);
}

static bool ends_with(const char *path, const char *extension)
{
    const size_t n = strlen(path), m = strlen(extension);
    return n > m && strcasecmp(path + n - m, extension) == 0;
}

corvid_status cv_file_format(const char *name, const char *out, cv_format *format,
                             corvid_error *err)
{
    if (name ? strcasecmp(name, "gguf") == 0 : ends_with(out, ".gguf"))
        *format = CV_GGUF;
    else if (name ? strcasecmp(name, "safetensors") == 0
                  : ends_with(out, ".safetensors") || ends_with(out, ".st"))
        *format = CV_SAFETENSORS;
    else
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s: which format? End the name in .gguf or .safetensors, or give --format",
                       name ? name : out);
    return CORVID_OK;
}

corvid_status corvid_convert(const char *in, const char *out, const corvid_convert_options *options,
                             corvid_error *err)
{
    corvid_convert_options o;
    corvid_convert_defaults(&o);
    if (options) {
        if (options->struct_size == 0 || options->struct_size > sizeof o)
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "convert options: struct_size is %zu, expected at most %zu; fill them "
                           "with corvid_convert_defaults",
                           options->struct_size, sizeof o);
        memcpy(&o, options, options->struct_size);
    }
    cv_convert_settings s = { .keep = o.type == NULL,
                              .vocab = o.vocab,
                              .classes = o.classes,
                              .progress = o.progress,
                              .cancel = o.cancel,
                              .log = o.log,
                              .ctx = o.callback_ctx };
    CV_TRY(cv_file_format(o.format, out, &s.format, err));
    if (o.type) CV_TRY(cv_file_type(o.type, &s.type, err));
    return cv_convert(&cv_libc_allocator, in, out, &s, err);
}
