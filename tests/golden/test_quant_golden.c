/* test_quant_golden.c - our quantizer against files that the reference tool quantized: each
 * quantized tensor of the shipped Q5_0 and Q5_1 models, byte for byte, from the FP32 model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/checkpoint.h"
#include "support.h"

static void *read_tensor(const cv_checkpoint *ckpt, const cv_tensor *tensor, size_t *bytes)
{
    corvid_error err;
    assert_true(cv_dtype_bytes(tensor->dtype, tensor->count, bytes));
    void *raw = malloc(*bytes);
    assert_non_null(raw);
    ASSERT_OK(cv_tensor_read(ckpt, tensor, 0, tensor->count, raw, &err), &err);
    return raw;
}

static void check_tensor(const cv_checkpoint *plain, const cv_checkpoint *quantized,
                         const cv_tensor *expected)
{
    const cv_tensor *source = cv_checkpoint_find(plain, expected->name);
    if (!source) fail_msg("%s: not in the FP32 file", expected->name);
    assert_int_equal(source->dtype, CV_F32);
    assert_int_equal(source->count, expected->count);
    size_t source_bytes, bytes;
    float *x = read_tensor(plain, source, &source_bytes);
    void *want = read_tensor(quantized, expected, &bytes);
    void *got = malloc(bytes);
    assert_non_null(got);
    cv_from_f32(expected->dtype, x, got, expected->count);
    if (memcmp(got, want, bytes) != 0) fail_msg("%s: other bytes", expected->name);
    free(got);
    free(want);
    free(x);
}

/* Returns how many tensors of the type there were. */
static size_t check_file(const char *plain_path, const char *quantized_path, cv_dtype type)
{
    corvid_error err;
    cv_checkpoint plain, quantized;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, plain_path, &plain, &err), &err);
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, quantized_path, &quantized, &err), &err);
    size_t n = 0;
    for (size_t i = 0; i < quantized.n_tensors; i++)
        if (quantized.tensors[i].dtype == type) {
            check_tensor(&plain, &quantized, &quantized.tensors[i]);
            n++;
        }
    cv_checkpoint_close(&quantized);
    cv_checkpoint_close(&plain);
    return n;
}

static void check_model(const char *stem, size_t n_tensors)
{
    static const struct {
        const char *suffix;
        cv_dtype type;
    } KINDS[] = { { "Q5_0", CV_Q5_0 }, { "Q5_1", CV_Q5_1 } };
    for (size_t k = 0; k < 2; k++) {
        char relative[128], relative_plain[128];
        snprintf(relative_plain, sizeof relative_plain, "rwkv-tiny/tiny-rwkv-%s-FP32.bin", stem);
        snprintf(relative, sizeof relative, "rwkv-tiny/tiny-rwkv-%s-%s.bin", stem, KINDS[k].suffix);
        NEED_DATA(plain, relative_plain);
        NEED_DATA(quantized, relative);
        assert_int_equal(check_file(plain, quantized, KINDS[k].type), n_tensors);
    }
}

/* 28 + 84 + 96 + 72 = 280 tensors of each type.  [quant.legacy] */
static void test_v4(void **state)
{
    (void)state;
    check_model("4v0-660K", 28);
}

static void test_v5_1(void **state)
{
    (void)state;
    check_model("5v1-730K", 84);
}

static void test_v5_2(void **state)
{
    (void)state;
    check_model("5v2-730K", 96);
}

static void test_v7(void **state)
{
    (void)state;
    check_model("7v0-834K", 72);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v4),
        cmocka_unit_test(test_v5_1),
        cmocka_unit_test(test_v5_2),
        cmocka_unit_test(test_v7),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
