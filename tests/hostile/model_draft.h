/* model_draft.h - model files put together from the tables of an architecture, to be spoilt.
 *
 * A draft is a list of tensors; any of them can be dropped, renamed or reshaped before the file is
 * written, with values that mean nothing but are the same in every run. */
#ifndef TEST_MODEL_DRAFT_H
#define TEST_MODEL_DRAFT_H

#include <stdio.h>
#include <string.h>

#include "support.h"

#include "models/source.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- drafts: models before they are files --------------------------------------------------- */

enum { MOST_TENSORS = 160, NAME_BYTES = 96 };

typedef struct draft {
    cv_format format;
    size_t n;
    cv_tensor tensors[MOST_TENSORS];
    char names[MOST_TENSORS][NAME_BYTES];
    size_t n_meta;
    cv_meta meta[4];
} draft;

static inline cv_tensor *find(draft *d, const char *name)
{
    for (size_t i = 0; i < d->n; i++)
        if (strcmp(d->names[i], name) == 0) return &d->tensors[i];
    return NULL;
}

static inline cv_tensor *must_find(draft *d, const char *name)
{
    cv_tensor *t = find(d, name);
    if (!t) fail_msg("%s: not in the draft", name);
    return t;
}

static inline cv_tensor *add(draft *d, const char *name, cv_dtype dtype, int n_dims,
                             const size_t *dims)
{
    assert_true(d->n < MOST_TENSORS);
    cv_tensor *t = &d->tensors[d->n];
    snprintf(d->names[d->n], NAME_BYTES, "%s", name);
    *t = (cv_tensor){ .dtype = dtype, .n_dims = n_dims, .contiguous = true };
    for (int i = 0; i < n_dims; i++)
        t->dims[i] = dims[i];
    d->n++;
    return t;
}

static inline void add_matrix(draft *d, const char *name, size_t rows, size_t cols)
{
    add(d, name, CV_F32, 2, (size_t[]){ rows, cols });
}

static inline void drop(draft *d, const char *name)
{
    const size_t at = (size_t)(must_find(d, name) - d->tensors);
    d->n--;
    memmove(&d->tensors[at], &d->tensors[at + 1], (d->n - at) * sizeof *d->tensors);
    memmove(d->names[at], d->names[at + 1], (d->n - at) * sizeof *d->names);
}

static inline void reshape(draft *d, const char *name, int n_dims, const size_t *dims)
{
    cv_tensor *t = must_find(d, name);
    t->n_dims = n_dims;
    for (int i = 0; i < n_dims; i++)
        t->dims[i] = dims[i];
}

/* Every name that begins with `from` begins with `to` afterwards. */
static inline void rename_all(draft *d, const char *from, const char *to)
{
    for (size_t i = 0; i < d->n; i++)
        if (strncmp(d->names[i], from, strlen(from)) == 0) {
            char rest[NAME_BYTES];
            snprintf(rest, sizeof rest, "%s", d->names[i] + strlen(from));
            snprintf(d->names[i], NAME_BYTES, "%s%.60s", to, rest);
        }
}

static inline void add_text(draft *d, const char *key, const char *text)
{
    assert_true(d->n_meta < COUNT(d->meta));
    d->meta[d->n_meta++] =
        (cv_meta){ .key = key, .type = CV_META_TEXT, .text = { text, strlen(text) } };
}

/* Adds the fields of the stack or of a layer, parts of a fused tensor as one. */
static inline void add_fields(draft *d, const cv_source *source, const cv_field *fields, size_t n,
                              size_t layer)
{
    for (size_t i = 0; i < n; i++) {
        char name[NAME_BYTES];
        size_t dims[CV_MAX_DIMS];
        const cv_field *f = &fields[i];
        const bool next = f->flags & CV_OR_NEXT;
        if (!(f->flags & CV_OPTIONAL) && !((f->flags & CV_NOT_FIRST) && layer == 0) &&
            cv_field_name(source->arch, f, source->dialect, layer, name, sizeof name)) {
            const int n_dims = cv_field_dims(source, f, source->dialect, dims);
            const bool fused = cv_field_spelling(f, source->dialect)->slice != CV_WHOLE;
            cv_tensor *t = fused ? find(d, name) : NULL;
            if (t) {
                t->dims[0]++;
            } else {
                t = add(d, name, CV_F32, n_dims, dims);
                if (fused) {
                    memmove(t->dims + 1, t->dims, (size_t)n_dims * sizeof *t->dims);
                    t->dims[0] = 1;
                    t->n_dims++;
                }
            }
        }
        if (next) i++;
    }
}

static const cv_sizes SMALL = { .V = 16,
                                .C = 16,
                                .L = 1,
                                .A = 16,
                                .F = 32,
                                .H = 2,
                                .N = 8,
                                .D = 2,
                                .M = 10,
                                .E = 4,
                                .w = 4,
                                .a = 4,
                                .v = 4,
                                .g = 4 };

static inline void draft_model(draft *d, const cv_arch *arch, cv_dialect dialect, cv_sizes sizes)
{
    const cv_source source = { .arch = arch, .dialect = dialect, .sizes = sizes };
    memset(d, 0, sizeof *d);
    d->format = dialect == CV_OFFICIAL ? CV_SAFETENSORS : CV_GGUF;
    add_fields(d, &source, cv_language_stack.fields, cv_language_stack.n_fields, 0);
    for (size_t l = 0; l < sizes.L; l++)
        add_fields(d, &source, arch->fields, arch->n_fields, l);
    if (dialect == CV_LLAMACPP) {
        static char key[32];
        snprintf(key, sizeof key, "%s.wkv.head_size", arch->name);
        add_text(d, "general.architecture", arch->name);
        d->meta[d->n_meta++] =
            (cv_meta){ .key = key, .type = CV_META_INT, .integer = (int64_t)sizes.N };
    }
}

/* A value between -0.5 and 0.5, the same in every run. */
static inline float value_at(size_t tensor, size_t i)
{
    const uint32_t mixed = (uint32_t)(tensor * 2654435761u + i * 40503u);
    return (float)((mixed >> 8) & 1023) / 1023.0f - 0.5f;
}

static inline void put_values(cv_writer *writer, const cv_tensor *t, size_t which)
{
    enum { BLOCK = 256 };
    corvid_error err;
    size_t count = 1, bytes;
    for (int i = 0; i < t->n_dims; i++)
        count *= t->dims[i];
    for (size_t at = 0, n; at < count; at += n) {
        float values[BLOCK];
        double raw[BLOCK] = { 0 };
        n = count - at < BLOCK ? count - at : BLOCK;
        for (size_t i = 0; i < n; i++)
            values[i] = value_at(which, at + i);
        if (cv_dtype_of(t->dtype)->real) cv_from_f32(t->dtype, values, raw, n);
        assert_true(cv_dtype_bytes(t->dtype, n, &bytes));
        ASSERT_OK(cv_writer_put(writer, raw, bytes, &err), &err);
    }
}

static inline void save(draft *d, const char *path)
{
    corvid_error err;
    cv_writer *writer;
    for (size_t i = 0; i < d->n; i++)
        d->tensors[i].name = d->names[i];
    ASSERT_OK(cv_writer_open(&cv_libc_allocator, path, d->format, d->meta, d->n_meta, d->tensors,
                             d->n, &writer, &err),
              &err);
    for (size_t i = 0; i < d->n; i++)
        put_values(writer, &d->tensors[i], i);
    ASSERT_OK(cv_writer_commit(writer, &err), &err);
}

#endif
