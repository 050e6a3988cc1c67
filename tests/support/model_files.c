/* model_files.c - what the tests of whole models share; see model_files.h. */
#include "model_files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pth_fixture.h"
#include "support.h"

/* ---- Copies ---------------------------------------------------------------------------------- */

typedef struct copied {
    cv_tensor *tensors;
    char (*names)[96];
    void **data;
    size_t n;
} copied;

static void take(const cv_checkpoint *ckpt, const cv_tensor *from, const model_copy *how,
                 copied *to)
{
    corvid_error err;
    const size_t i = to->n;
    const size_t skip = how->prefix ? strlen(how->prefix) : 0;
    if (skip && strncmp(from->name, how->prefix, skip) != 0) return;
    cv_tensor *t = &to->tensors[i];
    *t = *from;
    snprintf(to->names[i], sizeof to->names[i], "%s", from->name + skip);
    t->name = to->names[i];
    t->contiguous = true;
    to->data[i] = malloc(from->count * sizeof(double) + 64);
    assert_non_null(to->data[i]);
    ASSERT_OK(cv_tensor_read(ckpt, from, 0, from->count, to->data[i], &err), &err);
    if (how->as_f32 && from->dtype == CV_F64) {
        float *values = malloc(from->count * sizeof *values + 1);
        assert_non_null(values);
        cv_to_f32(CV_F64, to->data[i], values, from->count);
        free(to->data[i]);
        to->data[i] = values;
        t->dtype = CV_F32;
    }
    if (!how->edit || how->edit(how->ctx, t, to->names[i], to->data[i]))
        to->n++;
    else
        free(to->data[i]);
}

/* The source's metadata with what is put in its place. */
static cv_meta *merge_meta(const cv_checkpoint *ckpt, const model_copy *how, size_t *n)
{
    cv_meta *all = calloc(ckpt->n_meta + how->n_extra_meta + 1, sizeof *all);
    assert_non_null(all);
    *n = 0;
    for (size_t i = 0; how->meta && i < ckpt->n_meta; i++) {
        bool replaced = false;
        for (size_t j = 0; j < how->n_extra_meta; j++)
            replaced |= !strcmp(how->extra_meta[j].key, ckpt->meta[i].key);
        if (!replaced) all[(*n)++] = ckpt->meta[i];
    }
    for (size_t j = 0; j < how->n_extra_meta; j++)
        all[(*n)++] = how->extra_meta[j];
    return all;
}

static void write_all(const char *path, cv_format format, const cv_meta *meta, size_t n_meta,
                      const cv_tensor *tensors, const void *const *data, size_t n)
{
    corvid_error err;
    cv_writer *w;
    ASSERT_OK(cv_writer_open(&cv_libc_allocator, path, format, meta, n_meta, tensors, n, &w, &err),
              &err);
    for (size_t i = 0; i < n; i++) {
        size_t bytes;
        assert_true(cv_dtype_bytes(tensors[i].dtype, tensors[i].count, &bytes));
        ASSERT_OK(cv_writer_put(w, data[i], bytes, &err), &err);
    }
    ASSERT_OK(cv_writer_commit(w, &err), &err);
}

void model_copy_write(const char *from, const char *to, const model_copy *how)
{
    corvid_error err;
    cv_checkpoint ckpt;
    size_t n_meta;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, from, &ckpt, &err), &err);
    const size_t room = ckpt.n_tensors + how->n_extra + 1;
    copied c = { .tensors = calloc(room, sizeof *c.tensors),
                 .names = calloc(room, sizeof *c.names),
                 .data = calloc(room, sizeof *c.data) };
    assert_true(c.tensors && c.names && c.data);
    for (size_t i = 0; i < ckpt.n_tensors; i++)
        take(&ckpt, &ckpt.tensors[i], how, &c);
    const size_t own = c.n;
    for (size_t i = 0; i < how->n_extra; i++, c.n++) {
        c.tensors[c.n] = how->extra[i];
        memcpy(&c.data[c.n], &how->extra_data[i], sizeof c.data[c.n]);
    }
    cv_meta *meta = merge_meta(&ckpt, how, &n_meta);
    if (how->format == CV_PTH)
        pth_fixture_write(to, c.tensors, c.n, (const void *const *)c.data, how->legacy);
    else
        write_all(to, how->format, meta, n_meta, c.tensors, (const void *const *)c.data, c.n);
    for (size_t i = 0; i < own; i++)
        free(c.data[i]);
    free(meta);
    free(c.tensors);
    free(c.names);
    free(c.data);
    cv_checkpoint_close(&ckpt);
}

/* ---- A model made here ----------------------------------------------------------------------- */

uint64_t model_random(uint64_t *seed, uint64_t n)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (*seed >> 33) % n;
}

typedef struct wide_field {
    const char *name;
    size_t n_dims, dims[2];
    double middle, width;
} wide_field;

/* Norms are about the identity, matrices keep the size of their input. */
static const wide_field wide_stack[] = {
    { "emb.weight", 2, { 256, 256 }, 0.0, 1.0 },   { "head.weight", 2, { 256, 256 }, 0.0, 0.2 },
    { "ln_out.weight", 1, { 256, 0 }, 1.0, 0.2 },  { "ln_out.bias", 1, { 256, 0 }, 0.0, 0.1 },
    { "blocks.0.ln0.weight", 1, { 256 }, 1., .2 }, { "blocks.0.ln0.bias", 1, { 256 }, 0.0, 0.1 },
};
static const wide_field wide_layer[] = {
    { "ln1.weight", 1, { 256, 0 }, 1.0, 0.2 },
    { "ln1.bias", 1, { 256, 0 }, 0.0, 0.1 },
    { "ln2.weight", 1, { 256, 0 }, 1.0, 0.2 },
    { "ln2.bias", 1, { 256, 0 }, 0.0, 0.1 },
    { "att.x_r", 1, { 256, 0 }, 0.5, 0.4 },
    { "att.x_w", 1, { 256, 0 }, 0.5, 0.4 },
    { "att.x_k", 1, { 256, 0 }, 0.5, 0.4 },
    { "att.x_v", 1, { 256, 0 }, 0.5, 0.4 },
    { "att.x_a", 1, { 256, 0 }, 0.5, 0.4 },
    { "att.x_g", 1, { 256, 0 }, 0.5, 0.4 },
    { "att.receptance.weight", 2, { 256, 256 }, 0.0, 0.1 },
    { "att.key.weight", 2, { 256, 256 }, 0.0, 0.1 },
    { "att.value.weight", 2, { 256, 256 }, 0.0, 0.1 },
    { "att.output.weight", 2, { 256, 256 }, 0.0, 0.1 },
    { "att.w0", 1, { 256, 0 }, -1.0, 2.0 },
    { "att.w1", 2, { 256, 32 }, 0.0, 0.1 },
    { "att.w2", 2, { 32, 256 }, 0.0, 0.1 },
    { "att.a0", 1, { 256, 0 }, 0.0, 1.0 },
    { "att.a1", 2, { 256, 24 }, 0.0, 0.1 },
    { "att.a2", 2, { 24, 256 }, 0.0, 0.1 },
    { "att.v0", 1, { 256, 0 }, 0.0, 1.0 },
    { "att.v1", 2, { 256, 16 }, 0.0, 0.1 },
    { "att.v2", 2, { 16, 256 }, 0.0, 0.1 },
    { "att.g1", 2, { 256, 48 }, 0.0, 0.1 },
    { "att.g2", 2, { 48, 256 }, 0.0, 0.4 },
    { "att.k_k", 1, { 256, 0 }, 0.9, 0.2 },
    { "att.k_a", 1, { 256, 0 }, 1.0, 0.2 },
    { "att.r_k", 2, { 4, 64 }, 0.0, 0.2 },
    { "att.ln_x.weight", 1, { 256, 0 }, 1.0, 0.2 },
    { "att.ln_x.bias", 1, { 256, 0 }, 0.0, 0.1 },
    { "ffn.x_k", 1, { 256, 0 }, 0.5, 0.4 },
    { "ffn.key.weight", 2, { 512, 256 }, 0.0, 0.1 },
    { "ffn.value.weight", 2, { 256, 512 }, 0.0, 0.1 },
};

static void make_field(const wide_field *f, cv_tensor *t, void **data, uint64_t *seed)
{
    *t = (cv_tensor){ .dtype = CV_F32, .n_dims = (int)f->n_dims, .count = f->dims[0] };
    memcpy(t->dims, f->dims, f->n_dims * sizeof *t->dims);
    if (f->n_dims == 2) t->count *= f->dims[1];
    t->contiguous = true;
    float *x = malloc(t->count * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < t->count; i++)
        x[i] =
            (float)(f->middle + f->width * ((double)model_random(seed, 2000001) / 1000000.0 - 1.0));
    *data = x;
}

void model_write_wide(const char *path)
{
    enum {
        STACK = sizeof wide_stack / sizeof *wide_stack,
        LAYER = sizeof wide_layer / sizeof *wide_layer,
        L = 2
    };
    cv_tensor tensors[STACK + L * LAYER];
    char names[STACK + L * LAYER][64];
    void *data[STACK + L * LAYER];
    size_t n = 0;
    uint64_t seed = 7;
    for (size_t i = 0; i < STACK; i++, n++) {
        make_field(&wide_stack[i], &tensors[n], &data[n], &seed);
        snprintf(names[n], sizeof names[n], "%s", wide_stack[i].name);
    }
    for (size_t l = 0; l < L; l++)
        for (size_t i = 0; i < LAYER; i++) {
            if (l == 0 && !strncmp(wide_layer[i].name, "att.v", 5) &&
                strchr("012", wide_layer[i].name[5]))
                continue;
            make_field(&wide_layer[i], &tensors[n], &data[n], &seed);
            snprintf(names[n], sizeof names[n], "blocks.%zu.%s", l, wide_layer[i].name);
            n++;
        }
    for (size_t i = 0; i < n; i++)
        tensors[i].name = names[i];
    write_all(path, CV_SAFETENSORS, NULL, 0, tensors, (const void *const *)data, n);
    for (size_t i = 0; i < n; i++)
        free(data[i]);
}

/* ---- Small things ---------------------------------------------------------------------------- */

void model_tokens(uint64_t seed, size_t n, size_t V, int32_t *tokens)
{
    seed = seed * 2654435761u + 12345;
    for (size_t i = 0; i < n; i++)
        tokens[i] = (int32_t)model_random(&seed, V);
}

double model_difference_to(const float *a, const double *b, size_t n)
{
    double most = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)a[i] - b[i]);
        if (!(d <= most)) most = isnan(d) ? (double)INFINITY : d;
    }
    return most;
}

double model_difference(const float *a, const float *b, size_t n)
{
    double most = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= most)) most = isnan(d) ? (double)INFINITY : d;
    }
    return most;
}

void model_report(const char *name, double difference, double tolerance)
{
    print_message("%-56s %.3g (at most %.3g)\n", name, difference, tolerance);
    if (!(difference <= tolerance))
        fail_msg("%s: differs by %.6g, at most %.6g is right", name, difference, tolerance);
}

void model_same_bits(const char *what, const void *a, const void *b, size_t bytes)
{
    if (memcmp(a, b, bytes) != 0) fail_msg("%s: not the same bits", what);
}

corvid_model *model_open(const char *path, size_t n_threads, double group_norm_eps)
{
    corvid_error err;
    corvid_model_options options;
    corvid_model *model;
    corvid_model_defaults(&options);
    options.n_threads = n_threads;
    options.group_norm_eps = (float)group_norm_eps;
    ASSERT_OK(corvid_model_open(path, &options, &model, &err), &err);
    return model;
}

corvid_stream *model_stream(corvid_model *model)
{
    corvid_error err;
    corvid_stream *stream;
    ASSERT_OK(corvid_stream_new(model, &stream, &err), &err);
    return stream;
}

size_t model_vocab(const corvid_model *model)
{
    corvid_error err;
    corvid_model_info info = { .struct_size = sizeof info };
    ASSERT_OK(corvid_model_get_info(model, &info, &err), &err);
    return info.n_vocab;
}
