/* test_adapter_file.c - adapters and tuned states as the official trainers write them: .pth files with
 * lora_A and lora_B and without alpha, whole tensors beside them, time_state; merged into models of
 * several formats and types.  What W + (alpha / r) B A is, is computed here in double. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../hostile/model_draft.h"
#include "engine/engine.h"
#include "engine/merging.h"
#include "model_files.h"
#include "pth_fixture.h"
#include "support.h"

enum { MOST = 16, RANK = 2 };

/* Tensors to be, with random values that bf16 holds exactly. */
typedef struct box {
    size_t n;
    cv_tensor tensors[MOST];
    float *values[MOST];
    void *data[MOST];
    uint64_t seed;
} box;

static float *put(box *b, const char *name, cv_dtype type, int n_dims, const size_t *dims)
{
    const size_t i = b->n++;
    cv_tensor *t = &b->tensors[i];
    assert_true(i < MOST);
    *t = (cv_tensor){
        .name = name, .dtype = type, .n_dims = n_dims, .count = 1, .contiguous = true
    };
    for (int k = 0; k < n_dims; k++)
        t->count *= t->dims[k] = dims[k];
    b->values[i] = malloc(t->count * sizeof(float));
    b->data[i] = malloc(t->count * sizeof(double));
    assert_true(b->values[i] && b->data[i]);
    for (size_t j = 0; j < t->count; j++)
        b->values[i][j] = (float)model_random(&b->seed, 257) / 128.0f - 1.0f;
    cv_from_f32(type, b->values[i], b->data[i], t->count);
    return b->values[i];
}

static void write_box(const box *b, const char *path, bool legacy)
{
    pth_fixture_write(path, b->tensors, b->n, (const void *const *)b->data, legacy);
}

static void free_box(box *b)
{
    for (size_t i = 0; i < b->n; i++) {
        free(b->values[i]);
        free(b->data[i]);
    }
}

static const char *write_model(const char *name, cv_format format, cv_dtype type)
{
    static draft d;
    cv_sizes sizes = SMALL;
    sizes.L = 2;
    draft_model(&d, &cv_rwkv7, CV_OFFICIAL, sizes);
    for (size_t i = 0; i < d.n; i++)
        if (d.tensors[i].n_dims == 2) d.tensors[i].dtype = type;
    const char *plain = test_scratch("plain.safetensors"), *path = test_scratch(name);
    save(&d, format == CV_SAFETENSORS ? path : plain);
    if (format == CV_PTH) {
        const model_copy how = { .format = CV_PTH };
        model_copy_write(plain, path, &how);
    } else if (format == CV_GGUF) {
        corvid_error err;
        const cv_convert_settings keep = { .format = CV_GGUF, .keep = true };
        ASSERT_OK(cv_convert(&cv_libc_allocator, plain, path, &keep, &err), &err);
    }
    return path;
}

static float *read_tensor(const char *path, const char *name, cv_dtype *type, size_t *n)
{
    corvid_error err;
    cv_checkpoint ckpt;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    const cv_tensor *t = cv_checkpoint_find(&ckpt, name);
    if (!t) fail_msg("%s: no %s", path, name);
    void *raw = malloc(t->count * sizeof(double));
    float *values = malloc(t->count * sizeof *values);
    assert_true(raw && values);
    ASSERT_OK(cv_tensor_read(&ckpt, t, 0, t->count, raw, &err), &err);
    cv_to_f32(t->dtype, raw, values, t->count);
    *n = t->count;
    *type = t->dtype;
    free(raw);
    cv_checkpoint_close(&ckpt);
    return values;
}

#define KEY   "blocks.1.att.key"
#define VALUE "blocks.0.ffn.value"

/* A pair for KEY [16][16] and one for VALUE [16][32], a norm, and a mix without its ones. */
static void fill_adapter(box *b, cv_dtype type)
{
    *b = (box){ .seed = 42 };
    put(b, KEY ".lora_A", type, 2, (size_t[]){ RANK, 16 });
    put(b, KEY ".lora_B", type, 2, (size_t[]){ 16, RANK });
    put(b, VALUE ".lora_A", type, 2, (size_t[]){ RANK, 32 });
    put(b, VALUE ".lora_B", type, 2, (size_t[]){ 16, RANK });
    put(b, "blocks.0.ln1.weight", type, 1, (size_t[]){ 16 });
    put(b, "blocks.1.ffn.x_k", type, 1, (size_t[]){ 16 });
    put(b, "blocks.0.att.v0", type, 3, (size_t[]){ 1, 1, 16 }); /* no model uses it */
}

static void merge_to(const char *base, const char *adapter, const char *out,
                     const cv_adapter_choice *choice, const cv_convert_settings *settings)
{
    corvid_error err;
    ASSERT_OK(cv_merge(&cv_libc_allocator, base, adapter, choice, out, settings, &err), &err);
}

/* max |merged - (base + scale B A)| of one matrix. */
static double sum_error(const char *base, const char *merged, const char *matrix, const float *A,
                        const float *B, double scale)
{
    size_t n, m;
    cv_dtype type;
    double worst = 0.0;
    float *x = read_tensor(base, matrix, &type, &n), *y = read_tensor(merged, matrix, &type, &m);
    assert_int_equal(n, m);
    const size_t in = n / 16;
    for (size_t i = 0; i < 16; i++)
        for (size_t j = 0; j < in; j++) {
            double sum = (double)x[i * in + j];
            for (size_t k = 0; k < RANK; k++)
                sum += scale * (double)B[i * RANK + k] * (double)A[k * in + j];
            worst = fmax(worst, fabs(sum - (double)y[i * in + j]));
        }
    free(x);
    free(y);
    return worst;
}

static void same_tensor(const char *path, const char *name, const char *other, const float *values)
{
    size_t n, m;
    cv_dtype type, kept;
    float *x = read_tensor(path, name, &type, &n);
    if (other) {
        float *y = read_tensor(other, name, &kept, &m);
        assert_int_equal(type, kept);
        model_same_bits(name, x, y, n * sizeof *x);
        free(y);
    } else {
        model_same_bits(name, x, values, n * sizeof *x);
    }
    free(x);
}

static const cv_convert_settings keep = { .format = CV_SAFETENSORS, .keep = true };

/* Official .pth on official .pth, in f32 and in bf16, whose sums are rounded once. */
static void test_official(void **state)
{
    (void)state;
    for (int form = 0; form < 4; form++) {
        box b;
        const char *adapter = test_scratch("lora.pth"),
                   *merged = test_scratch("merged.safetensors");
        const cv_dtype type = form & 1 ? CV_BF16 : CV_F32;
        const char *base = write_model("base.pth", CV_PTH, type);
        const cv_adapter_choice choice = { .alpha = 8.0 };
        fill_adapter(&b, type);
        write_box(&b, adapter, form & 2);
        merge_to(base, adapter, merged, &choice, &keep);
        const double bound = type == CV_F32 ? 1e-6 : 0.04; /* 2^-9 of at most 8.5, rounded up */
        model_report(KEY, sum_error(base, merged, KEY ".weight", b.values[0], b.values[1], 4.0),
                     bound);
        model_report(VALUE, sum_error(base, merged, VALUE ".weight", b.values[2], b.values[3], 4.0),
                     bound);
        same_tensor(merged, "blocks.0.ln1.weight", NULL, b.values[4]);
        same_tensor(merged, "blocks.1.ffn.x_k", NULL, b.values[5]);
        same_tensor(merged, "blocks.0.att.key.weight", base, NULL);
        same_tensor(merged, "emb.weight", base, NULL);
        same_tensor(merged, "blocks.1.att.w1", base, NULL);
        free_box(&b);
    }
}

/* GGUF and quantized bases, and other types of the result. */
static void test_formats(void **state)
{
    (void)state;
    box b;
    corvid_error err;
    const char *adapter = test_scratch("lora.pth"), *out = test_scratch("merged.out");
    const char *plain = write_model("base.safetensors", CV_SAFETENSORS, CV_F32);
    const char *gguf = write_model("base.gguf", CV_GGUF, CV_F32);
    const cv_adapter_choice choice = { .alpha = 8.0 };
    const cv_convert_settings half = { .format = CV_SAFETENSORS, .type = CV_F16 };
    const cv_convert_settings to_gguf = { .format = CV_GGUF, .keep = true };
    fill_adapter(&b, CV_F32);
    write_box(&b, adapter, false);

    merge_to(gguf, adapter, out, &choice, &keep);
    model_report("from gguf", sum_error(plain, out, KEY ".weight", b.values[0], b.values[1], 4.0),
                 1e-6);
    merge_to(plain, adapter, out, &choice, &half);
    model_report("to f16", sum_error(plain, out, KEY ".weight", b.values[0], b.values[1], 4.0),
                 5e-3);
    merge_to(gguf, adapter, out, &choice, &to_gguf);
    int32_t tokens[8];
    model_tokens(1, 8, SMALL.V, tokens);
    corvid_model *model = model_open(out, 1, 0);
    corvid_stream *stream = model_stream(model);
    ASSERT_OK(corvid_feed(stream, tokens, 8, NULL, &err), &err);
    corvid_stream_free(stream);
    corvid_model_close(model);

    /* No file is left beside the result. */
    char beside[512];
    for (int i = 0; i < 2; i++) {
        snprintf(beside, sizeof beside, "%s%s", out, i ? ".merged" : ".base");
        assert_null(fopen(beside, "rb"));
    }
    free_box(&b);
}

/* A view with strides: A is stored transposed. */
static void test_strides(void **state)
{
    (void)state;
    const char *adapter = test_scratch("lora.pth"), *merged = test_scratch("merged.safetensors");
    const char *base = write_model("base.safetensors", CV_SAFETENSORS, CV_F32);
    box b = { .seed = 3 };
    float *A = put(&b, KEY ".lora_A", CV_F32, 2, (size_t[]){ RANK, 16 });
    float *B = put(&b, KEY ".lora_B", CV_F32, 2, (size_t[]){ 16, RANK });
    float turned[16 * RANK], same[RANK * 16];
    for (size_t k = 0; k < RANK; k++)
        for (size_t j = 0; j < 16; j++)
            turned[j * RANK + k] = A[k * 16 + j];
    memcpy(same, A, sizeof same);
    b.tensors[0].contiguous = false;
    b.tensors[0].strides[0] = 1;
    b.tensors[0].strides[1] = RANK;
    const size_t storage[] = { 0, 1 }, counts[] = { 32, 32 };
    const pth_options options = { .storage = storage, .n_storages = 2, .counts = counts };
    const void *data[] = { turned, b.data[1] };
    size_t n;
    unsigned char *bytes = pth_fixture_bytes(b.tensors, 2, data, &options, &n);
    test_write_file(adapter, bytes, n);
    const cv_adapter_choice choice = { .alpha = 2.0 };
    merge_to(base, adapter, merged, &choice, &keep);
    model_report("turned A", sum_error(base, merged, KEY ".weight", same, B, 1.0), 1e-6);
    free(bytes);
    free_box(&b);
}

/* W - B0 A0 + B A, without a factor; the first pair under either name. */
static void test_first_pairs(void **state)
{
    (void)state;
    corvid_error err;
    const char *adapter = test_scratch("pissa.pth"), *first = test_scratch("init.pth");
    const char *merged = test_scratch("merged.safetensors");
    const char *half = test_scratch("half.safetensors");
    const char *base = write_model("base.safetensors", CV_SAFETENSORS, CV_F32);
    for (int form = 0; form < 2; form++) {
        box b = { .seed = 8 }, c = { .seed = 9 };
        put(&b, KEY ".lora_A", CV_F32, 2, (size_t[]){ RANK, 16 });
        put(&b, KEY ".lora_B", CV_F32, 2, (size_t[]){ 16, RANK });
        put(&c, form ? KEY ".lora_A" : KEY ".init_lora_A", CV_F32, 2, (size_t[]){ RANK, 16 });
        put(&c, form ? KEY ".lora_B" : KEY ".init_lora_B", CV_F32, 2, (size_t[]){ 16, RANK });
        write_box(&b, adapter, false);
        write_box(&c, first, false);
        const cv_adapter_choice choice = { .initial = first };
        merge_to(base, adapter, merged, &choice, &keep);
        /* The same in two steps: subtracting the first pair is merging it with alpha = -r. */
        const cv_adapter_choice one = { .alpha = RANK };
        for (size_t i = 0; i < 16 * RANK; i++)
            ((float *)c.data[1])[i] = -c.values[1][i];
        c.tensors[0].name = KEY ".lora_A";
        c.tensors[1].name = KEY ".lora_B";
        write_box(&c, first, false);
        merge_to(base, first, half, &one, &keep);
        model_report("first pairs",
                     sum_error(half, merged, KEY ".weight", b.values[0], b.values[1], 1.0), 1e-6);
        const cv_adapter_choice both = { .alpha = 2.0, .initial = first };
        assert_int_equal(cv_merge(&cv_libc_allocator, base, adapter, &both, merged, &keep, &err),
                         CORVID_E_ARGUMENT);
        free_box(&b);
        free_box(&c);
    }
}

/* ---- tuned states ---------------------------------------------------------------------------- */

static void fill_state(box *b, cv_dtype type)
{
    *b = (box){ .seed = 5 };
    put(b, "blocks.0.att.time_state", type, 3, (size_t[]){ 2, 8, 8 });
    put(b, "blocks.1.att.time_state", type, 3, (size_t[]){ 2, 8, 8 });
}

static void feed(corvid_stream *stream, float *logits)
{
    int32_t tokens[8];
    corvid_error err;
    model_tokens(6, 8, SMALL.V, tokens);
    ASSERT_OK(corvid_feed_all(stream, tokens, 8, logits, &err), &err);
}

/* Loaded from .pth or safetensors, or merged into the model: the same logits. */
static void test_states(void **state)
{
    (void)state;
    corvid_error err;
    float loaded[8 * 16], merged[8 * 16], plain[8 * 16];
    const char *file = test_scratch("state.pth"), *tensors = test_scratch("state.safetensors");
    const char *out = test_scratch("merged.safetensors");
    const char *base = write_model("base.safetensors", CV_SAFETENSORS, CV_F32);
    for (int form = 0; form < 3; form++) {
        box b;
        fill_state(&b, form == 2 ? CV_BF16 : CV_F32);
        write_box(&b, file, false);
        const model_copy how = { .format = CV_SAFETENSORS };
        model_copy_write(file, tensors, &how);
        const char *path = form == 1 ? tensors : file;
        const cv_adapter_choice none = { .alpha = 0.0 };
        merge_to(base, path, out, &none, &keep);
        same_tensor(out, "blocks.1.att.time_state", NULL, b.values[1]);
        corvid_model *model = model_open(base, 1, 0), *with = model_open(out, 1, 0);
        corvid_stream *stream = model_stream(model), *other = model_stream(with);
        feed(stream, plain);
        ASSERT_OK(corvid_state_load(stream, path, &err), &err);
        assert_int_equal(corvid_stream_position(stream), 0);
        feed(stream, loaded);
        feed(other, merged);
        model_same_bits("logits", loaded, merged, sizeof loaded);
        assert_true(model_difference(loaded, plain, 8 * 16) > 1e-2);
        corvid_stream_free(stream);
        corvid_stream_free(other);
        corvid_model_close(model);
        corvid_model_close(with);
        free_box(&b);
    }
}

/* A model that has a state already gets another one in its place. */
static void test_state_replaced(void **state)
{
    (void)state;
    box b;
    const char *file = test_scratch("state.pth"), *first = test_scratch("first.safetensors");
    const char *second = test_scratch("second.safetensors");
    const char *base = write_model("base.safetensors", CV_SAFETENSORS, CV_F32);
    const cv_adapter_choice none = { .alpha = 0.0 };
    fill_state(&b, CV_F32);
    write_box(&b, file, false);
    merge_to(base, file, first, &none, &keep);
    for (size_t i = 0; i < 128; i++)
        ((float *)b.data[0])[i] = b.values[0][i] += 1.0f;
    write_box(&b, file, false);
    merge_to(first, file, second, &none, &keep);
    same_tensor(second, "blocks.0.att.time_state", NULL, b.values[0]);
    same_tensor(second, "blocks.1.att.time_state", first, NULL);
    free_box(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_official), cmocka_unit_test(test_formats),
        cmocka_unit_test(test_strides),  cmocka_unit_test(test_first_pairs),
        cmocka_unit_test(test_states),   cmocka_unit_test(test_state_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
