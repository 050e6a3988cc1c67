/* vision_files.c - what the tests of vision models share; see vision_files.h. */
#include "vision_files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "support.h"

/* ---- Tensors of a file ----------------------------------------------------------------------- */

float *vision_tensor(const cv_checkpoint *ckpt, const char *name, size_t *count)
{
    corvid_error err;
    const cv_tensor *t = cv_checkpoint_find(ckpt, name);
    if (count) *count = 0;
    if (!t) return NULL;
    void *raw = malloc(t->count * sizeof(double) + 1);
    float *values = malloc(t->count * sizeof *values + 1);
    assert_true(raw && values);
    ASSERT_OK(cv_tensor_read(ckpt, t, 0, t->count, raw, &err), &err);
    cv_to_f32(t->dtype, raw, values, t->count);
    free(raw);
    if (count) *count = t->count;
    return values;
}

float *vision_need(const cv_checkpoint *ckpt, const char *name, size_t count)
{
    size_t n;
    float *values = vision_tensor(ckpt, name, &n);
    if (!values) fail_msg("%s: not in %s", name, ckpt->in.path);
    if (n != count) fail_msg("%s of %s: %zu values, expected %zu", name, ckpt->in.path, n, count);
    return values;
}

double vision_off(const float *got, const float *want, size_t n)
{
    double most = 0.0, top = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= most)) most = isnan(d) ? (double)INFINITY : d;
        top = fmax(top, fabs((double)want[i]));
    }
    return most / top;
}

void vision_generate(const char *name, double centre, double halfwidth, size_t first, size_t n,
                     float *out)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a of the name, then splitmix64 of the place */
    for (const char *c = name; *c; c++)
        h = (h ^ (unsigned char)*c) * 0x100000001b3u;
    for (size_t i = 0; i < n; i++) {
        uint64_t z = h + (first + i + 1) * 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        out[i] = (float)(centre + halfwidth * (2.0 * ((double)(z >> 11) * 0x1p-53) - 1.0));
    }
}

/* ---- Models ---------------------------------------------------------------------------------- */

typedef struct listing {
    cv_source source;
    cv_tensor *tensors;
    char (*names)[96];
    float **data;
    size_t n, room;
} listing;

static float *next_tensor(listing *l, const char *name, int n_dims, const size_t *dims)
{
    assert_true(l->n < l->room);
    cv_tensor *t = &l->tensors[l->n];
    *t = (cv_tensor){ .dtype = CV_F32, .n_dims = n_dims, .count = 1, .contiguous = true };
    for (int i = 0; i < n_dims; i++) {
        t->dims[i] = dims[i];
        t->count *= dims[i];
    }
    snprintf(l->names[l->n], sizeof l->names[l->n], "%s", name);
    t->name = l->names[l->n];
    float *values = l->data[l->n++] = malloc(t->count * sizeof *values);
    assert_non_null(values);
    return values;
}

/* Slices of one tensor arrive one after the other; the first makes it. */
static corvid_status list_view(void *ctx, const cv_view *view, corvid_error *err)
{
    listing *l = ctx;
    const cv_field *f = view->field;
    const int slice = cv_field_spelling(f, CV_OFFICIAL)->slice;
    const size_t n = view->rows * view->cols;
    size_t dims[CV_MAX_DIMS];
    int n_dims = cv_field_dims(&l->source, f, CV_OFFICIAL, dims);
    (void)err;
    if (slice > 0) {
        cv_tensor *t = &l->tensors[l->n - 1];
        float *more = realloc(l->data[l->n - 1], (t->count + n) * sizeof *more);
        assert_non_null(more);
        l->data[l->n - 1] = more;
        l->source.random_values(&l->source, view, 0, n, more + t->count);
        t->dims[0]++;
        t->count += n;
        return CORVID_OK;
    }
    if (slice == 0) {
        memmove(dims + 1, dims, (size_t)n_dims++ * sizeof *dims);
        dims[0] = 1;
    }
    l->source.random_values(&l->source, view, 0, n, next_tensor(l, view->name, n_dims, dims));
    return CORVID_OK;
}

static void write_listing(const listing *l, const char *path)
{
    corvid_error err;
    cv_writer *w;
    ASSERT_OK(cv_writer_open(&cv_libc_allocator, path, CV_SAFETENSORS, NULL, 0, l->tensors, l->n,
                             &w, &err),
              &err);
    for (size_t i = 0; i < l->n; i++)
        ASSERT_OK(cv_writer_put(w, l->data[i], l->tensors[i].count * sizeof(float), &err), &err);
    ASSERT_OK(cv_writer_commit(w, &err), &err);
}

static void apply(cv_sizes *s, const vision_small *small)
{
    s->C = s->A = small->C;
    s->F = 2 * small->C;
    s->H = s->N == 1 ? small->C : small->C / s->N;
    s->L = small->L;
    s->p = small->p;
    s->G = small->G;
    s->K = small->K;
    if (s->J) s->J = small->J;
}

void vision_write(const char *path, const vision_small *small)
{
    enum { ROOM = 1024 };
    corvid_error err;
    listing l = { .tensors = calloc(ROOM, sizeof *l.tensors),
                  .names = calloc(ROOM, sizeof *l.names),
                  .data = calloc(ROOM, sizeof *l.data),
                  .room = ROOM };
    assert_true(l.tensors && l.names && l.data);
    ASSERT_OK(cv_source_random(small->like, CV_F32, 11, &l.source, &err), &err);
    apply(&l.source.sizes, small);
    ASSERT_OK(cv_source_each(&l.source, list_view, &l, &err), &err);
    if (small->class_token) {
        const size_t dims[] = { 1, 1, small->C };
        vision_generate("backbone.cls_token", 0.0, 1.0, 0, small->C,
                        next_tensor(&l, "backbone.cls_token", 3, dims));
    }
    for (size_t i = 0; small->headless && i < l.n; i++)
        if (!strncmp(l.names[i], "head.", 5)) l.names[i][0] = 'x';
    write_listing(&l, path);
    for (size_t i = 0; i < l.n; i++)
        free(l.data[i]);
    free(l.tensors);
    free(l.names);
    free(l.data);
}

corvid_model *vision_open(const char *path, size_t n_threads, const char *cpu)
{
    corvid_error err;
    corvid_model *model;
    corvid_model_options options;
    corvid_model_defaults(&options);
    options.n_threads = n_threads;
    options.cpu = cpu;
    ASSERT_OK(corvid_model_open(path, &options, &model, &err), &err);
    return model;
}

corvid_model_info vision_info(const corvid_model *model)
{
    corvid_error err;
    corvid_model_info info = { .struct_size = sizeof info };
    ASSERT_OK(corvid_model_get_info(model, &info, &err), &err);
    return info;
}

size_t vision_levels(const char **levels, bool with_amx)
{
    static const cv_cpu_level all[] = { CV_CPU_REF, CV_CPU_AVX2, CV_CPU_AVX512, CV_CPU_NEON,
                                        CV_CPU_AMX };
    size_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if ((all[i] != CV_CPU_AMX || with_amx) && cv_kernels_for(all[i]))
            levels[n++] = cv_cpu_level_name(all[i]);
    return n;
}
