/* test_rwkvcpp.c - rwkv.cpp files: one made by hand, and the tiny models, read and compared. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/checkpoint.h"

/* ---- a file made by hand -------------------------------------------------------------------- */

static const unsigned char BY_HAND[] = {
    'f', 'm', 'g', 'g', 101, 0, 0, 0, /* magic, version          */
    0, 1, 0, 0, 32, 0, 0, 0,          /* n_vocab 256, n_embed 32 */
    2, 0, 0, 0, 2, 0, 0, 0,           /* n_layer 2, Q4_0         */
    /* at 24: [2][1][3] of FP16 */
    3, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 'z', '.', 'a', 'b', 'c',
    0, 0x3c, 0, 0x40, 0, 0x42, 0, 0xbc, 0, 0xc0, 0, 0xc2, /* 1 2 3 -1 -2 -3 */
    /* at 65: [1][32] of Q4_0, scale 0.5, nibbles (low, high) = (i, 15 - i) */
    2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 32, 0, 0, 0, 1, 0, 0, 0, 'q', 0, 0x38, 0xf0, 0xe1, 0xd2,
    0xc3, 0xb4, 0xa5, 0x96, 0x87, 0x78, 0x69, 0x5a, 0x4b, 0x3c, 0x2d, 0x1e, 0x0f,
    /* at 104: [1] of FP32 */
    1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 'l', 'n', 0, 0, 0x80, 0x3e, /* 0.25 */
};

static void assert_meta(const cv_checkpoint *ckpt, const char *key, int64_t value)
{
    const cv_meta *meta = cv_checkpoint_meta(ckpt, key);
    assert_non_null(meta);
    assert_int_equal(meta->type, CV_META_INT);
    assert_int_equal(meta->integer, value);
}

static void test_by_hand(void **state)
{
    (void)state;
    cv_input in;
    cv_checkpoint ckpt;
    corvid_error err;
    cv_input_memory(&in, BY_HAND, sizeof BY_HAND, "by hand");
    ASSERT_OK(cv_checkpoint_parse(&cv_libc_allocator, &in, &ckpt, &err), &err);
    assert_int_equal(ckpt.format, CV_RWKVCPP);
    assert_string_equal(cv_format_name(ckpt.format), "ggml");
    assert_meta(&ckpt, "rwkvcpp.version", 101);
    assert_meta(&ckpt, "rwkvcpp.n_vocab", 256);
    assert_meta(&ckpt, "rwkvcpp.n_embed", 32);
    assert_meta(&ckpt, "rwkvcpp.n_layer", 2);
    assert_meta(&ckpt, "rwkvcpp.data_type", 2);
    assert_null(cv_checkpoint_meta(&ckpt, "rwkvcpp.n_head"));

    assert_int_equal(ckpt.n_tensors, 3); /* sorted by name */
    assert_string_equal(ckpt.tensors[0].name, "ln");
    assert_string_equal(ckpt.tensors[1].name, "q");
    assert_string_equal(ckpt.tensors[2].name, "z.abc");
    assert_null(cv_checkpoint_find(&ckpt, "z.ab"));

    const cv_tensor *t = cv_checkpoint_find(&ckpt, "z.abc");
    assert_non_null(t);
    assert_int_equal(t->dtype, CV_F16);
    assert_int_equal(t->n_dims, 3);
    assert_int_equal(t->dims[0], 2);
    assert_int_equal(t->dims[1], 1);
    assert_int_equal(t->dims[2], 3);
    assert_int_equal(t->count, 6);
    assert_true(t->contiguous);
    uint16_t h[6];
    float f[32];
    ASSERT_OK(cv_tensor_read(&ckpt, t, 0, 6, h, &err), &err);
    cv_to_f32(CV_F16, h, f, 6);
    for (int i = 0; i < 6; i++)
        assert_true(f[i] == (i < 3 ? (float)(i + 1) : (float)(2 - i)));
    ASSERT_OK(cv_tensor_read(&ckpt, t, 4, 1, h, &err), &err);
    assert_int_equal(h[0], 0xc000);
    assert_int_equal(cv_tensor_read(&ckpt, t, 4, 3, h, &err), CORVID_E_ARGUMENT);

    t = cv_checkpoint_find(&ckpt, "q");
    assert_non_null(t);
    assert_int_equal(t->dtype, CV_Q4_0);
    unsigned char block[18];
    ASSERT_OK(cv_tensor_read(&ckpt, t, 0, 32, block, &err), &err);
    cv_to_f32(CV_Q4_0, block, f, 32);
    for (int i = 0; i < 16; i++) {
        assert_true(f[i] == 0.5f * (float)(i - 8));
        assert_true(f[i + 16] == 0.5f * (float)(7 - i));
    }
    /* Half a block cannot be read. */
    assert_int_equal(cv_tensor_read(&ckpt, t, 0, 16, block, &err), CORVID_E_ARGUMENT);
    assert_int_equal(cv_tensor_read(&ckpt, t, 16, 0, block, &err), CORVID_E_ARGUMENT);
    cv_checkpoint_close(&ckpt);
}

/* ---- the tiny models ------------------------------------------------------------------------ */

/* [spec table of the tiny models] and the number of tensors that each has per block and besides. */
typedef struct tiny {
    const char *stem;
    size_t L, C, N, F;
    size_t n_tensors, n_elements;
    size_t n_quantized; /* in the Q5 files */
    int first_version;  /* of the FP32 and FP16 files */
    bool plain;         /* the FP32 and FP16 files are there */
} tiny;

static const tiny TINY[] = {
    { "4v0-660K", 4, 128, 0, 256, 18 * 4 + 6, 661504, 7 * 4, 100, true },
    { "5v1-730K", 12, 64, 8, 256, 20 * 12 + 6, 680640, 7 * 12, 101, true },
    { "5v2-730K", 12, 64, 8, 256, 22 * 12 + 6, 731904, 8 * 12, 101, true },
    { "6v0-3m", 12, 128, 8, 448, 28 * 12 + 6, 3334656, 11 * 12, 101, false },
    { "7v0-834K", 12, 64, 64, 256, 28 * 12 + 3, 829888, 6 * 12, 101, true },
};

static const struct {
    const char *name;
    cv_dtype dtype;
    int32_t code;
} KINDS[] = {
    { "FP32", CV_F32, 0 }, { "FP16", CV_F16, 1 }, { "Q5_0", CV_Q5_0, 7 }, { "Q5_1", CV_Q5_1, 8 }
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Opens a tiny model, or returns false when it is not among the data. */
static bool open_tiny(const char *stem, const char *kind, cv_checkpoint *ckpt)
{
    char relative[128];
    corvid_error err;
    snprintf(relative, sizeof relative, "rwkv-tiny/tiny-rwkv-%s-%s.bin", stem, kind);
    const char *path = test_data(relative);
    if (!path) return false;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, ckpt, &err), &err);
    return true;
}

static void assert_matrix(const cv_checkpoint *ckpt, const char *name, size_t rows, size_t columns)
{
    const cv_tensor *t = cv_checkpoint_find(ckpt, name);
    if (!t) fail_msg("%s: no tensor %s", ckpt->in.path, name);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], rows);
    assert_int_equal(t->dims[1], columns);
}

static void check_tiny(const tiny *m, size_t kind, const cv_checkpoint *ckpt)
{
    const bool quantized = cv_dtype_of(KINDS[kind].dtype)->quantized;
    assert_int_equal(ckpt->format, CV_RWKVCPP);
    assert_meta(ckpt, "rwkvcpp.version", quantized ? 101 : m->first_version);
    assert_meta(ckpt, "rwkvcpp.n_vocab", 256);
    assert_meta(ckpt, "rwkvcpp.n_embed", (int64_t)m->C);
    assert_meta(ckpt, "rwkvcpp.n_layer", (int64_t)m->L);
    assert_meta(ckpt, "rwkvcpp.data_type", KINDS[kind].code);

    assert_int_equal(ckpt->n_tensors, m->n_tensors);
    size_t elements = 0, of_type = 0;
    uint64_t end = 0;
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        const cv_tensor *t = &ckpt->tensors[i];
        size_t bytes;
        assert_true(cv_dtype_bytes(t->dtype, t->count, &bytes));
        elements += t->count;
        of_type += t->dtype == KINDS[kind].dtype;
        if (t->offset + bytes > end) end = t->offset + bytes;
        assert_true(t->dtype == CV_F32 || t->dtype == KINDS[kind].dtype);
    }
    assert_int_equal(elements, m->n_elements);
    assert_int_equal(end, ckpt->in.size);
    if (quantized) assert_int_equal(of_type, m->n_quantized);

    assert_matrix(ckpt, "emb.weight", 256, m->C);
    assert_matrix(ckpt, "head.weight", 256, m->C);
    for (size_t l = 0; l < m->L; l++) {
        char name[64];
        snprintf(name, sizeof name, "blocks.%zu.ffn.key.weight", l);
        assert_matrix(ckpt, name, m->F, m->C);
        snprintf(name, sizeof name, "blocks.%zu.ffn.value.weight", l);
        assert_matrix(ckpt, name, m->C, m->F);
        snprintf(name, sizeof name, "blocks.%zu.att.output.weight", l);
        assert_matrix(ckpt, name, m->C, m->C);
    }
}

static void test_tiny_models(void **state)
{
    (void)state;
    NEED_DATA(any, "rwkv-tiny/README.md");
    for (size_t i = 0; i < COUNT(TINY); i++)
        for (size_t kind = 0; kind < COUNT(KINDS); kind++) {
            cv_checkpoint ckpt;
            bool there = open_tiny(TINY[i].stem, KINDS[kind].name, &ckpt);
            assert_int_equal(there, TINY[i].plain || kind >= 2);
            if (!there) continue;
            check_tiny(&TINY[i], kind, &ckpt);
            cv_checkpoint_close(&ckpt);
        }
}

static float *read_f32(const cv_checkpoint *ckpt, const cv_tensor *t)
{
    corvid_error err;
    size_t bytes;
    assert_true(cv_dtype_bytes(t->dtype, t->count, &bytes));
    void *raw = malloc(bytes);
    float *f = malloc(t->count * sizeof *f);
    assert_true(raw && f);
    ASSERT_OK(cv_tensor_read(ckpt, t, 0, t->count, raw, &err), &err);
    cv_to_f32(t->dtype, raw, f, t->count);
    free(raw);
    return f;
}

/* Every tensor of one file against the same of the FP32 file: equal where both are FP32, else as
 * near as the type can be.  A wrong offset, order of dims or type code would show here.
 *   relative  to the largest value of the tensor
 *   least     what is lost below the smallest FP16, 6e-8: half of it in a value, and in a scale
 *             once for each of up to 31 steps */
static void compare_kinds(const char *stem, const char *kind, float relative, float least)
{
    cv_checkpoint a, b;
    assert_true(open_tiny(stem, "FP32", &a));
    assert_true(open_tiny(stem, kind, &b));
    for (size_t i = 0; i < a.n_tensors; i++) {
        const cv_tensor *s = &a.tensors[i], *t = cv_checkpoint_find(&b, s->name);
        assert_non_null(t);
        assert_int_equal(s->n_dims, t->n_dims);
        assert_memory_equal(s->dims, t->dims, sizeof s->dims);
        float *x = read_f32(&a, s), *y = read_f32(&b, t), most = 0.0f;
        for (size_t k = 0; k < s->count; k++)
            most = fmaxf(most, fabsf(x[k]));
        for (size_t k = 0; k < s->count; k++)
            if (fabsf(x[k] - y[k]) > (t->dtype == CV_F32 ? 0.0f : relative * most + least))
                fail_msg("%s %s: %s[%zu] is %g, FP32 has %g", stem, kind, s->name, k, (double)y[k],
                         (double)x[k]);
        free(x);
        free(y);
    }
    cv_checkpoint_close(&a);
    cv_checkpoint_close(&b);
}

static void test_kinds_agree(void **state)
{
    (void)state;
    NEED_DATA(any, "rwkv-tiny/tiny-rwkv-4v0-660K-FP32.bin");
    for (size_t i = 0; i < COUNT(TINY); i++) {
        if (!TINY[i].plain) continue;
        compare_kinds(TINY[i].stem, "FP16", 1.0f / 2048, 3e-8f); /* half a unit of 11 bits */
        compare_kinds(TINY[i].stem, "Q5_0", 1.0f / 15, 1e-6f);   /* a step of 1/16 of the largest */
        compare_kinds(TINY[i].stem, "Q5_1", 1.0f / 30, 1e-6f);   /* half a step of 2/31 */
    }
}

/* The first four values of a file whose bytes were looked at. */
static void test_first_bytes(void **state)
{
    (void)state;
    NEED_DATA(path, "rwkv-tiny/tiny-rwkv-4v0-660K-FP32.bin");
    static const unsigned char expected[16] = { 0xf2, 0x35, 0x67, 0x34, 0xfc, 0xd6, 0xdb, 0xb3,
                                                0x94, 0x0f, 0x8e, 0x34, 0xd1, 0xbb, 0x8a, 0xb4 };
    unsigned char got[16];
    cv_checkpoint ckpt;
    corvid_error err;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    const cv_tensor *t = cv_checkpoint_find(&ckpt, "emb.weight");
    assert_non_null(t);
    assert_int_equal(t->offset, 24 + 12 + 8 + 10);
    ASSERT_OK(cv_tensor_read(&ckpt, t, 0, 4, got, &err), &err);
    assert_memory_equal(got, expected, sizeof got);
    cv_checkpoint_close(&ckpt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_tiny_models),
        cmocka_unit_test(test_kinds_agree),
        cmocka_unit_test(test_first_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
