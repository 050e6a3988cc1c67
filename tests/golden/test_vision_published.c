/* test_vision_published.c - the eight published shapes, with weights that the reference data
 * generates from the tensors' names: recognised, seen, and converted to other weight types.
 *
 * VRWKV-L (335 and 399 million parameters) is recognised always, and seen when CORVID_TEST_LARGE is
 * set: its files take 1.3 and 1.6 GB of scratch space. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model_files.h"
#include "support.h"
#include "vision_files.h"

#define TOLERANCE     2e-5
#define AMX_TOLERANCE 1e-4

/* What the specification says of each file; the rest is in the manifest. */
static const struct {
    const char *name, *arch;
    size_t C, L, H, native, K, J;
    bool post_norm, keyed, large;
} published[] = {
    { "vrwkv_t_in1k_224", "vrwkv", 192, 12, 192, 224, 1000, 0, false, false, false },
    { "vrwkv_s_in1k_224", "vrwkv", 384, 12, 384, 224, 1000, 0, true, false, false },
    { "vrwkv_b_in1k_224", "vrwkv", 768, 12, 768, 224, 1000, 0, true, false, false },
    { "vrwkv6_t_in1k_224", "vrwkv6", 192, 12, 3, 224, 1000, 0, false, false, false },
    { "vrwkv6_s_in1k_224", "vrwkv6", 384, 12, 6, 224, 1000, 0, true, false, false },
    { "vrwkv6_b_in1k_224", "vrwkv6", 768, 12, 12, 224, 1000, 0, true, false, false },
    { "vrwkv_l_22kto1k_384", "vrwkv", 1024, 24, 1024, 192, 1000, 3072, true, true, true },
    { "vrwkv_l_in22k_192", "vrwkv", 1024, 24, 1024, 192, 21841, 3072, true, true, true },
};
#define N_PUBLISHED (sizeof published / sizeof *published)

/* ---- The manifest ---------------------------------------------------------------------------- */

typedef struct entry {
    cv_tensor tensor;
    double centre, halfwidth;
} entry;

typedef struct manifest {
    json_t *root;
    entry *entries;
    cv_tensor *tensors; /* the same, for the writer */
    size_t n, side;     /* of the picture */
    uint64_t n_parameters;
} manifest;

static entry entry_of(const json_t *t)
{
    const json_t *shape = json_object_get(t, "shape");
    entry e = { .centre = json_number_value(json_object_get(t, "center")),
                .halfwidth = json_number_value(json_object_get(t, "halfwidth")) };
    e.tensor = (cv_tensor){ .name = json_string_value(json_object_get(t, "name")),
                            .dtype = CV_F32,
                            .n_dims = (int)json_array_size(shape),
                            .count = 1,
                            .contiguous = true };
    assert_true(e.tensor.name && e.tensor.n_dims > 0 && e.tensor.n_dims <= 4);
    for (int i = 0; i < e.tensor.n_dims; i++) {
        e.tensor.dims[i] = (size_t)json_integer_value(json_array_get(shape, (size_t)i));
        e.tensor.count *= e.tensor.dims[i];
    }
    return e;
}

static manifest read_manifest(const char *path, const char *name)
{
    manifest m = { .root = json_load_file(path, 0, NULL) };
    const json_t *model = json_object_get(json_object_get(m.root, "models"), name);
    const json_t *tensors = json_object_get(model, "tensors");
    m.n = json_array_size(tensors);
    assert_true(m.n > 0);
    m.entries = calloc(m.n, sizeof *m.entries);
    m.tensors = calloc(m.n, sizeof *m.tensors);
    assert_true(m.entries && m.tensors);
    m.n_parameters = (uint64_t)json_integer_value(json_object_get(model, "params"));
    m.side = (size_t)json_integer_value(json_array_get(json_object_get(model, "input"), 3));
    for (size_t i = 0; i < m.n; i++) {
        m.entries[i] = entry_of(json_array_get(tensors, i));
        m.tensors[i] = m.entries[i].tensor;
    }
    return m;
}

static void free_manifest(manifest *m)
{
    json_decref(m->root);
    free(m->entries);
    free(m->tensors);
}

static void write_model(const manifest *m, const char *path)
{
    enum { PIECE = 65536 };
    corvid_error err;
    cv_writer *w;
    float *values = malloc(PIECE * sizeof *values);
    assert_non_null(values);
    ASSERT_OK(cv_writer_open(&cv_libc_allocator, path, CV_SAFETENSORS, NULL, 0, m->tensors, m->n,
                             &w, &err),
              &err);
    for (size_t i = 0; i < m->n; i++) {
        const entry *e = &m->entries[i];
        for (size_t at = 0, n; at < e->tensor.count; at += n) {
            n = e->tensor.count - at < PIECE ? e->tensor.count - at : PIECE;
            vision_generate(e->tensor.name, e->centre, e->halfwidth, at, n, values);
            ASSERT_OK(cv_writer_put(w, values, n * sizeof *values, &err), &err);
        }
    }
    ASSERT_OK(cv_writer_commit(w, &err), &err);
    free(values);
}

/* The same names and shapes, and a hole where the numbers would be. */
static void write_hole(const manifest *m, const char *path)
{
    char *text = malloc(64 + m->n * 256);
    uint64_t at = 0;
    assert_non_null(text);
    size_t n = 8;
    for (size_t i = 0; i < m->n; i++) {
        const cv_tensor *t = &m->tensors[i];
        const uint64_t end = at + 4 * (uint64_t)t->count;
        n += (size_t)sprintf(text + n, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "{",
                             t->name);
        for (int d = 0; d < t->n_dims; d++)
            n += (size_t)sprintf(text + n, "%s%zu", d ? "," : "", t->dims[d]);
        n += (size_t)sprintf(text + n, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                             (unsigned long long)end);
        at = end;
    }
    text[n++] = '}';
    while (n % 8)
        text[n++] = ' ';
    for (size_t i = 0; i < 8; i++)
        text[i] = (char)((n - 8) >> 8 * i & 255);
    test_write_file(path, text, n);
    assert_int_equal(truncate(path, (off_t)(n + at)), 0);
    free(text);
}

/* ---- Recognition ----------------------------------------------------------------------------- */

static void test_generator(void **state)
{
    (void)state;
    static const float expected[] = { 0.15040778f, -0.12765762f, 0.33091596f, -0.0777698f };
    float values[4], last;
    vision_generate("backbone.pos_embed", 0.0, 0.5, 0, 4, values);
    for (size_t i = 0; i < 4; i++)
        assert_true(fabsf(values[i] - expected[i]) < 1e-7f);
    vision_generate("backbone.pos_embed", 0.0, 0.5, 3, 1, &last);
    assert_true(last == values[3]);
}

static void check_source(const char *path, size_t which)
{
    corvid_error err;
    cv_checkpoint ckpt;
    cv_source source;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    ASSERT_OK(cv_source_open(&ckpt, &source, &err), &err);
    const cv_sizes *s = &source.sizes;
    assert_string_equal(source.arch->name, published[which].arch);
    assert_int_equal(s->C, published[which].C);
    assert_int_equal(s->F, 4 * published[which].C);
    assert_int_equal(s->L, published[which].L);
    assert_int_equal(s->H, published[which].H);
    assert_int_equal(s->p, 16);
    assert_int_equal(s->G * 256, published[which].native * published[which].native);
    assert_int_equal(s->K, published[which].K);
    assert_int_equal(s->J, published[which].J);
    assert_int_equal(source.traits.post_norm, published[which].post_norm);
    assert_int_equal(source.traits.keyed, published[which].keyed);
    assert_int_equal(source.traits.mlp, published[which].J > 0);
    assert_int_equal(source.traits.distance, 1);
    assert_true(source.traits.share == 0.25);
    cv_checkpoint_close(&ckpt);
}

/* Names and shapes are enough. */
static void test_recognition(void **state)
{
    (void)state;
    NEED_DATA(path, "vrwkv-golden/published/manifest.json");
    for (size_t i = 0; i < N_PUBLISHED; i++) {
        corvid_error err;
        corvid_memory memory;
        const char *hole = test_scratch("hole.safetensors");
        manifest m = read_manifest(path, published[i].name);
        write_hole(&m, hole);
        check_source(hole, i);
        ASSERT_OK(corvid_memory_estimate(hole, NULL, &memory, &err), &err);
        print_message("%-20s recognised; %.1f MiB of weights, %.1f MiB to see with\n",
                      published[i].name, (double)memory.weights / 1048576.0,
                      (double)memory.workspace / 1048576.0);
        assert_true(memory.weights >= 4 * m.n_parameters);
        assert_true((double)memory.weights < 4.0 * (double)m.n_parameters * 1.01 + 4e6);
        free_manifest(&m);
        unlink(hole);
    }
}

/* ---- Seeing ---------------------------------------------------------------------------------- */

typedef struct sight {
    float *logits, *pooled, *features; /* features of the last layer */
    size_t K, C, cells;
} sight;

static sight see(corvid_model *model, size_t side)
{
    corvid_error err;
    const corvid_model_info info = vision_info(model);
    const int last = -1;
    const size_t n = 3 * side * side;
    sight s = { .K = info.n_classes, .C = info.n_embd, .cells = (side / 16) * (side / 16) };
    s.logits = malloc(s.K * sizeof(float));
    s.pooled = malloc(s.C * sizeof(float));
    s.features = malloc(s.C * s.cells * sizeof(float));
    float *values = malloc(n * sizeof *values);
    assert_true(s.logits && s.pooled && s.features && values);
    vision_generate("input.image", 0.0, sqrt(3.0), 0, n, values);
    const corvid_view view = { .values = values,
                               .height = side,
                               .width = side,
                               .logits = s.logits,
                               .pooled = s.pooled,
                               .features = s.features };
    ASSERT_OK(corvid_see(model, &view, 1, &last, 1, &err), &err);
    free(values);
    return s;
}

static void free_sight(sight *s)
{
    free(s->logits);
    free(s->pooled);
    free(s->features);
}

static void report(const char *name, const char *level, const char *what, double off, double most)
{
    char title[96];
    snprintf(title, sizeof title, "%s %s %s", name, level, what);
    model_report(title, off, most);
}

static float *need(const cv_checkpoint *io, const char *name, const char *what, size_t n)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", name, what);
    return vision_need(io, key, n);
}

/* Row 0, columns 0 to 7 of the last map. */
static double features_off(const sight *s, const float *want)
{
    float *got = malloc(s->C * 8 * sizeof *got);
    assert_non_null(got);
    for (size_t c = 0; c < s->C; c++)
        memcpy(got + 8 * c, s->features + c * s->cells, 8 * sizeof *got);
    const double off = vision_off(got, want, 8 * s->C);
    free(got);
    return off;
}

static void check_sight(const cv_checkpoint *io, size_t which, const char *path, const manifest *m,
                        const char *cpu, double tolerance)
{
    const char *name = published[which].name;
    corvid_model *model = vision_open(path, 2, cpu);
    const corvid_model_info info = vision_info(model);
    sight s = see(model, m->side);
    float *logits = need(io, name, "logits", s.K), *pooled = need(io, name, "pooled", s.C);
    float *features = need(io, name, "feat_sample", 8 * s.C);
    assert_int_equal(info.n_parameters, m->n_parameters);
    assert_string_equal(info.arch, published[which].arch);
    assert_int_equal(info.native, published[which].native);
    assert_int_equal(info.patch, 16);
    report(name, info.cpu, "logits", vision_off(s.logits, logits, s.K), tolerance);
    report(name, info.cpu, "pooled", vision_off(s.pooled, pooled, s.C), tolerance);
    report(name, info.cpu, "features", features_off(&s, features), tolerance);
    free(logits);
    free(pooled);
    free(features);
    free_sight(&s);
    corvid_model_close(model);
}

/* Tightly with products of f32, and as it is by default. */
static void test_seeing(void **state)
{
    (void)state;
    const char *levels[5];
    const size_t n_levels = vision_levels(levels, false);
    NEED_DATA(path, "vrwkv-golden/published/manifest.json");
    NEED_DATA(io_path, "vrwkv-golden/published/synthetic.io.safetensors");
    cv_checkpoint io;
    corvid_error err;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, io_path, &io, &err), &err);
    for (size_t i = 0; i < N_PUBLISHED; i++) {
        if (published[i].large && !getenv("CORVID_TEST_LARGE")) {
            print_message("SKIP: %s is large; set CORVID_TEST_LARGE to see with it\n",
                          published[i].name);
            continue;
        }
        manifest m = read_manifest(path, published[i].name);
        const char *file = test_scratch("published.safetensors");
        write_model(&m, file);
        check_sight(&io, i, file, &m, levels[n_levels - 1], TOLERANCE);
        check_sight(&io, i, file, &m, NULL, AMX_TOLERANCE);
        unlink(file);
        free_manifest(&m);
    }
    cv_checkpoint_close(&io);
}

/* ---- Weight types ---------------------------------------------------------------------------- */

/* What rounding all weights does to the logits of random ones.  Trained ones are not as even, so
 * these bounds say that the right numbers are computed, not how good a type is. */
static const struct {
    const char *type, *target;
    double most;
} conversions[] = {
    { NULL, "same.gguf", 0.0 },
    { "f32", "f32.safetensors", 0.0 },
    { "bf16", "bf16.safetensors", 1e-2 },
    { "bf16", "bf16.gguf", 1e-2 },
    { "f16", "f16.safetensors", 1e-3 },
    { "f16", "f16.gguf", 1e-3 },
    { "q8", "q8.gguf", 2e-2 },
};

static size_t top_class(const sight *s)
{
    size_t best = 0;
    for (size_t i = 1; i < s->K; i++)
        if (s->logits[i] > s->logits[best]) best = i;
    return best;
}

static void check_conversion(const char *name, const char *from, size_t which, const char *cpu,
                             const sight *exact)
{
    corvid_error err;
    corvid_convert_options options;
    const char *path = test_scratch(conversions[which].target);
    corvid_convert_defaults(&options);
    options.type = conversions[which].type;
    ASSERT_OK(corvid_convert(from, path, &options, &err), &err);
    corvid_model *model = vision_open(path, 2, cpu);
    const corvid_model_info info = vision_info(model);
    sight s = see(model, 224);
    const double off = vision_off(s.logits, exact->logits, s.K);
    report(name, info.cpu, conversions[which].target, off, conversions[which].most);
    if (conversions[which].most > 0.0) assert_true(off > 0.0); /* it was converted */
    if (conversions[which].type)
        assert_memory_equal(info.weight_type, conversions[which].type,
                            strlen(conversions[which].type));
    assert_int_equal(top_class(&s), top_class(exact));
    free_sight(&s);
    corvid_model_close(model);
    unlink(path);
}

static void check_types(const char *manifest_path, const char *name, const char *cpu)
{
    const char *from = test_scratch("from.safetensors");
    manifest m = read_manifest(manifest_path, name);
    write_model(&m, from);
    corvid_model *model = vision_open(from, 2, cpu);
    sight exact = see(model, 224);
    for (size_t i = 0; i < sizeof conversions / sizeof *conversions; i++)
        check_conversion(name, from, i, cpu, &exact);
    free_sight(&exact);
    corvid_model_close(model);
    free_manifest(&m);
    unlink(from);
}

static void test_types(void **state)
{
    (void)state;
    const char *levels[5];
    const size_t n_levels = vision_levels(levels, true);
    NEED_DATA(path, "vrwkv-golden/published/manifest.json");
    for (size_t i = n_levels > 2 ? n_levels - 2 : 0; i < n_levels; i++) {
        check_types(path, "vrwkv_t_in1k_224", levels[i]);
        check_types(path, "vrwkv6_t_in1k_224", levels[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generator),
        cmocka_unit_test(test_recognition),
        cmocka_unit_test(test_seeing),
        cmocka_unit_test(test_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
