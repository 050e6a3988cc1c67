/* test_formats_golden.c - one model in every format is one model.
 *
 * Tiny models go from rwkv.cpp files to safetensors, GGUF and .pth: the numbers come through, the
 * logits are the same bits where no number changes, greedy text is the same everywhere.  Smaller
 * types come close to f32 in the order of their bits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_files.h"
#include "reference.h"
#include "support.h"

enum { T = 24, GREEDY = 40 };

/* ---- What a model says ----------------------------------------------------------------------- */

typedef struct voice {
    size_t V;
    float *logits; /* [T][V] after a fixed prompt */
    int32_t greedy[GREEDY];
    uint64_t fingerprint;
    char arch[16], type[16];
} voice;

static voice listen(const char *path, double eps)
{
    corvid_error err;
    int32_t tokens[T];
    corvid_model *model = model_open(path, 2, eps);
    corvid_stream *stream = model_stream(model);
    corvid_model_info info = { .struct_size = sizeof info };
    ASSERT_OK(corvid_model_get_info(model, &info, &err), &err);
    voice v = { .V = info.n_vocab, .fingerprint = info.fingerprint };
    snprintf(v.arch, sizeof v.arch, "%s", info.arch);
    snprintf(v.type, sizeof v.type, "%s", info.weight_type);
    v.logits = malloc(T * v.V * sizeof *v.logits);
    float *last = malloc(v.V * sizeof *last);
    assert_true(v.logits && last);
    model_tokens(11, T, v.V, tokens);
    ASSERT_OK(corvid_feed_all(stream, tokens, T, v.logits, &err), &err);
    memcpy(last, v.logits + (T - 1) * v.V, v.V * sizeof *last);
    for (size_t i = 0; i < GREEDY; i++) {
        size_t best = 0;
        for (size_t j = 1; j < v.V; j++)
            if (last[j] > last[best]) best = j;
        v.greedy[i] = (int32_t)best;
        ASSERT_OK(corvid_feed(stream, &v.greedy[i], 1, last, &err), &err);
    }
    free(last);
    corvid_stream_free(stream);
    corvid_model_close(model);
    return v;
}

/* Same greedy tokens; logits within tolerance, 0: the same bits. */
static void expect_voice(const char *name, const char *path, double eps, const voice *expected,
                         double tolerance)
{
    voice v = listen(path, eps);
    assert_string_equal(v.arch, expected->arch);
    assert_int_equal(v.V, expected->V);
    const double difference = model_difference(v.logits, expected->logits, T * v.V);
    model_report(name, difference, tolerance);
    if (tolerance == 0.0) {
        model_same_bits(name, v.logits, expected->logits, T * v.V * sizeof *v.logits);
        /* GGUF holds some low-rank maps in f32 whatever they were: the same numbers, but another
         * layout, and so another fingerprint, unless all is f32. */
        if (!strcmp(v.type, "f32")) assert_int_equal(v.fingerprint, expected->fingerprint);
    }
    for (size_t i = 0; i < GREEDY; i++)
        if (v.greedy[i] != expected->greedy[i])
            fail_msg("%s: greedy token %zu is %d, expected %d", name, i, (int)v.greedy[i],
                     (int)expected->greedy[i]);
    free(v.logits);
}

static void convert(const char *from, const char *to, const char *type)
{
    corvid_error err;
    corvid_convert_options o;
    corvid_convert_defaults(&o);
    o.type = type;
    ASSERT_OK(corvid_convert(from, to, &o, &err), &err);
}

/* ---- v6 and v7: nothing changes -------------------------------------------------------------- */

/* From a file in any format over all others. */
static void check_same_everywhere(const char *name, const char *from)
{
    char title[96];
    const char *st = test_scratch("a.safetensors"), *gguf = test_scratch("a.gguf"),
               *pth = test_scratch("a.pth"), *old = test_scratch("old.pth"),
               *back = test_scratch("back.safetensors");
    voice first = listen(from, 0);
    convert(from, st, NULL);
    convert(from, gguf, NULL);
    model_copy how = { .format = CV_PTH };
    model_copy_write(st, pth, &how);
    how.legacy = true;
    model_copy_write(st, old, &how);
    convert(gguf, back, NULL);
    const char *const paths[] = { st, gguf, pth, old, back };
    static const char *const forms[] = { "safetensors", "GGUF", ".pth", "legacy .pth",
                                         "GGUF and back" };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        snprintf(title, sizeof title, "%s as %s", name, forms[i]);
        expect_voice(title, paths[i], 0, &first, 0.0);
    }
    convert(pth, gguf, NULL);
    snprintf(title, sizeof title, "%s as GGUF by way of .pth", name);
    expect_voice(title, gguf, 0, &first, 0.0);
    free(first.logits);
}

static const char *lm_file(const char *name)
{
    char relative[64];
    snprintf(relative, sizeof relative, "rwkv-tiny/reference/%s.safetensors", name);
    const char *from = test_data(relative);
    if (!from) return NULL;
    const char *path = test_scratch("lm.safetensors");
    const model_copy how = { .format = CV_SAFETENSORS, .prefix = "param.", .as_f32 = true };
    model_copy_write(from, path, &how);
    return path;
}

static void test_same_everywhere(void **state)
{
    (void)state;
    NEED_DATA(tiny, "rwkv-tiny/tiny-rwkv-7v0-834K-FP32.bin");
    NEED_DATA(halves, "rwkv-tiny/tiny-rwkv-7v0-834K-FP16.bin");
    check_same_everywhere("7v0", tiny);
    check_same_everywhere("7v0 FP16", halves);
    char lm[1024];
    snprintf(lm, sizeof lm, "%s", lm_file("lm_v6"));
    check_same_everywhere("lm_v6", lm);
    snprintf(lm, sizeof lm, "%s", lm_file("lm_v7"));
    check_same_everywhere("lm_v7", lm);
}

/* ---- Files with transformed or quantized values ---------------------------------------------- */

/* rwkv.cpp holds exp(-exp(x)) in f32: x comes back rounded. */
static void check_transformed(const char *stem, double eps)
{
    char relative[96], title[96];
    snprintf(relative, sizeof relative, "rwkv-tiny/tiny-rwkv-%s.bin", stem);
    NEED_DATA(from, relative);
    const char *st = test_scratch("t.safetensors"), *gguf = test_scratch("t.gguf"),
               *again = test_scratch("again.gguf");
    voice first = listen(from, eps);
    convert(from, st, NULL);
    convert(from, gguf, NULL);
    convert(st, again, NULL);
    snprintf(title, sizeof title, "%s as safetensors", stem);
    expect_voice(title, st, eps, &first, 1e-5);
    snprintf(title, sizeof title, "%s as GGUF", stem);
    expect_voice(title, gguf, eps, &first, 1e-5);
    snprintf(title, sizeof title, "%s as GGUF by way of safetensors", stem);
    expect_voice(title, again, eps, &first, 1e-5);
    free(first.logits);
}

static void test_transformed(void **state)
{
    (void)state;
    check_transformed("4v0-660K-FP32", 0);
    check_transformed("5v1-730K-FP32", 1e-5);
    check_transformed("5v2-730K-FP32", 1e-5);
}

/* Quantized blocks go to GGUF as they are; safetensors has no such types and says so. */
static void check_quantized(const char *stem, double eps)
{
    corvid_error err = { 0 };
    char relative[96], title[96];
    snprintf(relative, sizeof relative, "rwkv-tiny/tiny-rwkv-%s.bin", stem);
    NEED_DATA(from, relative);
    const char *st = test_scratch("q.safetensors"), *gguf = test_scratch("q.gguf");
    voice first = listen(from, eps);
    remove(st);
    assert_int_equal(corvid_convert(from, st, NULL, &err), CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "--type"));
    FILE *file = fopen(st, "rb");
    assert_null(file);

    convert(from, gguf, NULL);
    snprintf(title, sizeof title, "%s as GGUF", stem);
    expect_voice(title, gguf, eps, &first, 1e-5);
    convert(from, st, "f32");
    snprintf(title, sizeof title, "%s as safetensors in f32", stem);
    expect_voice(title, st, eps, &first, 1e-5);
    free(first.logits);
}

static void test_quantized(void **state)
{
    (void)state;
    check_quantized("4v0-660K-Q5_0", 0);
    check_quantized("5v1-730K-Q5_1", 1e-5);
    check_quantized("5v2-730K-Q5_0", 1e-5);
    check_quantized("6v0-3m-Q5_0", 0);
    check_quantized("6v0-3m-Q5_1", 0);
    check_quantized("7v0-834K-Q5_1", 0);
}

/* ---- Tensors come back bit for bit ----------------------------------------------------------- */

/* Matrices of a wide model to bf16, vectors stay: what official files look like. */
static bool to_bf16(void *ctx, cv_tensor *t, char *name, void *bytes)
{
    (void)ctx;
    (void)name;
    if (t->n_dims < 2 || t->dims[0] == 4) return true; /* r_k is a vector */
    float *x = bytes;
    uint16_t *h = bytes;
    for (size_t i = 0; i < t->count; i++)
        h[i] = cv_f32_to_bf16(x[i]);
    t->dtype = CV_BF16;
    return true;
}

/* Official shapes of vectors: [1, 1, C]. */
static bool official_dims(void *ctx, cv_tensor *t, char *name, void *bytes)
{
    (void)ctx;
    (void)bytes;
    const char *last = strrchr(name, '.') + 1;
    const bool mixed =
        !strncmp(last, "x_", 2) || !strncmp(last, "k_", 2) || (strlen(last) == 2 && last[1] == '0');
    if (t->n_dims == 1 && mixed) {
        t->n_dims = 3;
        t->dims[2] = t->dims[0];
        t->dims[0] = t->dims[1] = 1;
    }
    return true;
}

static bool official(void *ctx, cv_tensor *t, char *name, void *bytes)
{
    return to_bf16(ctx, t, name, bytes) && official_dims(ctx, t, name, bytes);
}

/* Every tensor of a is in b with the same shape; with the same bits where the type is the same,
 * else with the same values.  Returns how many had the same type. */
static size_t expect_same_tensors(const char *path_a, const char *path_b)
{
    corvid_error err;
    cv_checkpoint a, b;
    size_t n_same = 0;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path_a, &a, &err), &err);
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path_b, &b, &err), &err);
    assert_int_equal(a.n_tensors, b.n_tensors);
    for (size_t i = 0; i < a.n_tensors; i++) {
        const cv_tensor *t = &a.tensors[i], *u = cv_checkpoint_find(&b, t->name);
        if (!u) fail_msg("%s is gone", t->name);
        bool same_dims = t->n_dims == u->n_dims;
        for (int d = 0; same_dims && d < t->n_dims; d++)
            same_dims = t->dims[d] == u->dims[d];
        if (!same_dims) fail_msg("%s has another shape", t->name);
        unsigned char *x = malloc(t->count * 8), *y = malloc(t->count * 8);
        float *p = malloc(t->count * sizeof *p), *q = malloc(t->count * sizeof *q);
        assert_true(x && y && p && q);
        ASSERT_OK(cv_tensor_read(&a, t, 0, t->count, x, &err), &err);
        ASSERT_OK(cv_tensor_read(&b, u, 0, t->count, y, &err), &err);
        cv_to_f32(t->dtype, x, p, t->count);
        cv_to_f32(u->dtype, y, q, t->count);
        model_same_bits(t->name, p, q, t->count * sizeof *p);
        if (t->dtype == u->dtype) {
            size_t bytes;
            assert_true(cv_dtype_bytes(t->dtype, t->count, &bytes));
            model_same_bits(t->name, x, y, bytes);
            n_same++;
        }
        free(x);
        free(y);
        free(p);
        free(q);
    }
    print_message("%zu tensors have the same values, %zu of them the same type and bits\n",
                  a.n_tensors, n_same);
    cv_checkpoint_close(&a);
    cv_checkpoint_close(&b);
    return n_same;
}

/* .pth -> safetensors -> GGUF -> safetensors; n_widened tensors come back in f32, which GGUF wants
 * them in. */
static void check_round_trip(const char *name, const char *pth, size_t n_widened)
{
    const char *st = test_scratch("r.safetensors"), *gguf = test_scratch("r.gguf"),
               *back = test_scratch("r2.safetensors");
    convert(pth, st, NULL);
    print_message("%s, .pth and safetensors: ", name);
    const size_t n = expect_same_tensors(pth, st);
    convert(st, gguf, NULL);
    convert(gguf, back, NULL);
    print_message("%s, .pth and GGUF and back: ", name);
    const size_t same = expect_same_tensors(pth, back);
    assert_int_equal(same + n_widened, n);
    voice first = listen(pth, 0);
    expect_voice(name, back, 0, &first, 0.0);
    free(first.logits);
}

static void test_round_trip(void **state)
{
    (void)state;
    const char *wide = test_scratch("wide.safetensors"), *pth = test_scratch("wide.pth");
    model_write_wide(wide);
    model_copy how = { .format = CV_PTH, .edit = official_dims };
    model_copy_write(wide, pth, &how);
    check_round_trip("wide v7 f32", pth, 0);
    how.edit = official;
    model_copy_write(wide, pth, &how);
    check_round_trip("wide v7 bf16", pth, 4); /* w1 and w2 of two layers */
    const char *lm = lm_file("lm_v7");
    if (!lm) return;
    how.edit = NULL;
    const char *file = test_scratch("lm.pth");
    model_copy_write(lm, file, &how);
    check_round_trip("lm_v7", file, 0);
    model_copy_write(lm_file("lm_v6"), file, &how);
    check_round_trip("lm_v6", file, 0);
}

/* ---- GGUF files that llama.cpp's converter made ---------------------------------------------- */

/* Divides what rescale_every_n_layers says is divided. */
static bool divide(void *ctx, cv_tensor *t, char *name, void *bytes)
{
    unsigned layer;
    const unsigned every = *(const unsigned *)ctx;
    float *x = bytes;
    if (sscanf(name, "blk.%u.", &layer) != 1) return true;
    if (!strstr(name, "time_mix_output.") && !strstr(name, "channel_mix_value.")) return true;
    assert_int_equal(t->dtype, CV_F32);
    for (size_t i = 0; i < t->count; i++)
        x[i] = ldexpf(x[i], -(int)(layer / every));
    return true;
}

/* Powers of two: the same bits as without the division.  [dialect.rescale] */
static void test_rescaled(void **state)
{
    (void)state;
    unsigned every = 2;
    const char *plain = test_scratch("s.gguf"), *divided = test_scratch("s2.gguf");
    convert("random:rwkv6-tiny", plain, NULL);
    const cv_meta key = { .key = "rwkv6.rescale_every_n_layers",
                          .type = CV_META_INT,
                          .integer = (int64_t)every };
    const model_copy how = { .format = CV_GGUF,
                             .meta = true,
                             .edit = divide,
                             .ctx = &every,
                             .extra_meta = &key,
                             .n_extra_meta = 1 };
    model_copy_write(plain, divided, &how);
    voice first = listen(plain, 0);
    expect_voice("rwkv6 GGUF with divided weights", divided, 0, &first, 0.0);
    /* It goes back to official values, and stays what it is from GGUF to GGUF. */
    const char *st = test_scratch("s3.safetensors"), *again = test_scratch("s4.gguf");
    convert(divided, st, NULL);
    expect_voice("... as safetensors", st, 0, &first, 0.0);
    convert(divided, again, NULL);
    expect_voice("... as GGUF again", again, 0, &first, 0.0);
    free(first.logits);
}

/* Layer 0 of rwkv7 GGUF files has stand-ins for v0, v1, v2: what they hold is not used. */
static bool spoil(void *ctx, cv_tensor *t, char *name, void *bytes)
{
    int *n = ctx;
    float *x = bytes;
    if (strncmp(name, "blk.0.time_mix_v", 16) || !strchr("012", name[16])) return true;
    for (size_t i = 0; i < t->count; i++)
        x[i] = (float)i;
    ++*n;
    return true;
}

static void test_stand_ins(void **state)
{
    (void)state;
    int n = 0;
    const char *plain = test_scratch("v.gguf"), *spoiled = test_scratch("v2.gguf");
    convert("random:rwkv7-tiny", plain, NULL);
    const model_copy how = { .format = CV_GGUF, .meta = true, .edit = spoil, .ctx = &n };
    model_copy_write(plain, spoiled, &how);
    assert_int_equal(n, 3);
    voice first = listen(plain, 0);
    expect_voice("rwkv7 GGUF with other stand-ins", spoiled, 0, &first, 0.0);
    free(first.logits);
}

/* ---- Smaller types --------------------------------------------------------------------------- */

/* Root mean square of the differences of logits, relative to the spread of the logits. */
static double distance(const voice *a, const voice *b)
{
    double sum = 0.0, square = 0.0;
    for (size_t i = 0; i < T * a->V; i++) {
        const double d = (double)a->logits[i] - (double)b->logits[i];
        sum += d * d;
        square += (double)b->logits[i] * (double)b->logits[i];
    }
    return sqrt(sum / square);
}

/* Each type, and how far it is expected to be at most.  From most bits to fewest. */
static const struct {
    const char *type;
    double most;
} types[] = { { "f16", 2e-3 }, { "bf16", 2e-2 }, { "q8", 2e-2 },
              { "q6", 6e-2 },  { "q5", 0.12 },   { "q4", 0.25 } };

static void check_types(const char *name, const char *from)
{
    voice f32 = listen(from, 0);
    double before = 0.0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char title[96];
        const char *path = test_scratch("type.gguf");
        convert(from, path, types[i].type);
        voice v = listen(path, 0);
        const double off = distance(&v, &f32);
        snprintf(title, sizeof title, "%s %s (mostly %s), relative", name, types[i].type, v.type);
        model_report(title, off, types[i].most);
        assert_true(off > 0.0);
        /* bf16 (8 bits of precision) and q8 may stand either way; all others are in order. */
        if (strcmp(types[i].type, "q8") != 0 && off <= before)
            fail_msg("%s: %s is no further from f32 than the type before it", name, types[i].type);
        before = fmax(before, off);
        free(v.logits);
    }
    free(f32.logits);
}

static void test_types(void **state)
{
    (void)state;
    const char *wide = test_scratch("wide.safetensors");
    model_write_wide(wide);
    check_types("wide v7", wide);
    for (int i = 0; i < 2; i++) { /* the floating types in safetensors, too */
        char title[64];
        const char *type = i ? "bf16" : "f16";
        const char *st = test_scratch("type.safetensors"), *gguf = test_scratch("type.gguf");
        convert(wide, st, type);
        voice a = listen(st, 0), f32 = listen(wide, 0);
        convert(wide, gguf, type);
        snprintf(title, sizeof title, "wide v7 %s in safetensors, relative", type);
        model_report(title, distance(&a, &f32), types[i].most);
        free(a.logits);
        free(f32.logits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_everywhere), cmocka_unit_test(test_transformed),
        cmocka_unit_test(test_quantized),       cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_rescaled),        cmocka_unit_test(test_stand_ins),
        cmocka_unit_test(test_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
