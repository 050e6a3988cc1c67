/* conversion.h - one checkpoint format into another. */
#ifndef CV_CONVERSION_H
#define CV_CONVERSION_H

#include "models/source.h"

typedef struct cv_convert_settings {
    cv_format format;    /* CV_GGUF or CV_SAFETENSORS */
    bool keep;           /* types stay as they are */
    cv_dtype type;       /* of the matrices, otherwise */
    bool official;       /* GGUF with official names, which only this library reads back */
    const char *vocab;   /* vocabulary file to put inside, or NULL */
    const char *classes; /* file of class names to put inside, or NULL */
    corvid_progress_fn progress;
    corvid_cancel_fn cancel;
    corvid_log_fn log;
    void *ctx;
} cv_convert_settings;

corvid_status cv_convert(const corvid_allocator *mem, const char *in, const char *out,
                         const cv_convert_settings *settings, corvid_error *err);

/* The same from a source without a checkpoint: what a model that learns is saved by. */
corvid_status cv_convert_source(const corvid_allocator *mem, const cv_source *source,
                                const char *out, const cv_convert_settings *settings,
                                corvid_error *err);

/* The names that a conversion of a model gives. */
cv_dialect cv_convert_dialect(const cv_source *source, const cv_convert_settings *settings);

/* A growing list of metadata for a writer; texts live in the arena. */
typedef struct cv_meta_list {
    cv_arena *arena;
    cv_meta *items;
    size_t n, capacity;
} cv_meta_list;

corvid_status cv_meta_add_text(cv_meta_list *list, const char *key, const char *text, size_t n,
                               corvid_error *err);
corvid_status cv_meta_add_int(cv_meta_list *list, const char *key, int64_t value,
                              corvid_error *err);
corvid_status cv_meta_add(cv_meta_list *list, const cv_meta *meta, corvid_error *err);

/* What llama.cpp needs to know about a model, and the vocabulary. (gguf_keys.c) */
corvid_status cv_gguf_keys(const cv_source *source, const cv_convert_settings *settings,
                           size_t rescale_every, cv_meta_list *list, corvid_error *err);
corvid_status cv_vocabulary_keys(const corvid_allocator *mem, const cv_source *source,
                                 const cv_convert_settings *settings, cv_meta_list *list,
                                 corvid_error *err);

/* The same for a vision model: its traits and the names of its classes, under keys of which
 * cv_is_vision_key tells that they are ours. (vision_keys.c) */
corvid_status cv_vision_keys(const corvid_allocator *mem, const cv_source *source,
                             const cv_convert_settings *settings, cv_meta_list *list,
                             corvid_error *err);
bool cv_is_vision_key(const char *key);

#endif
