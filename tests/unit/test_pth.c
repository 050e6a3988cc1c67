/* test_pth.c - PyTorch checkpoints: every element type, views, wrappings, both containers.
 *
 * Files come from pth_fixture.c, from PyTorch itself (the reference data) and, beyond 4 GiB, from
 * the bytes below.  Malformed ones are in test_hostile_pth.c. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

#include "base/rng.h"
#include "formats/checkpoint.h"
#include "pth_fixture.h"

/* ---- helpers -------------------------------------------------------------------------------- */

static void open_path(const char *path, cv_checkpoint *ckpt)
{
    corvid_error err;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, ckpt, &err), &err);
    assert_int_equal(ckpt->format, CV_PTH);
}

/* bytes must stay until the checkpoint is closed. */
static void open_bytes(const void *bytes, size_t n, cv_checkpoint *ckpt)
{
    corvid_error err;
    cv_input in;
    cv_input_memory(&in, bytes, n, "fixture");
    ASSERT_OK(cv_checkpoint_parse(&cv_libc_allocator, &in, ckpt, &err), &err);
    assert_int_equal(ckpt->format, CV_PTH);
}

static const cv_tensor *find(const cv_checkpoint *ckpt, const char *name)
{
    const cv_tensor *t = cv_checkpoint_find(ckpt, name);
    if (!t) fail_msg("no tensor %s", name);
    return t;
}

/* All elements, malloc'ed. */
static void *values(const cv_checkpoint *ckpt, const cv_tensor *t)
{
    corvid_error err;
    void *out = malloc(t->count * cv_dtype_of(t->dtype)->block_bytes + 1);
    assert_non_null(out);
    ASSERT_OK(cv_tensor_read(ckpt, t, 0, t->count, out, &err), &err);
    return out;
}

static void check_values(const cv_checkpoint *ckpt, const char *name, cv_dtype dtype,
                         const void *expected, size_t count)
{
    const cv_tensor *t = find(ckpt, name);
    assert_int_equal(t->dtype, dtype);
    assert_int_equal(t->count, count);
    void *got = values(ckpt, t);
    if (memcmp(got, expected, count * cv_dtype_of(dtype)->block_bytes) != 0)
        fail_msg("%s: wrong values", name);
    free(got);
}

static void check_dims(const cv_checkpoint *ckpt, const char *name, int n_dims, const size_t *dims)
{
    const cv_tensor *t = find(ckpt, name);
    assert_int_equal(t->n_dims, n_dims);
    for (int k = 0; k < n_dims; k++)
        if (t->dims[k] != dims[k])
            fail_msg("%s: dim %d is %zu, expected %zu", name, k, t->dims[k], dims[k]);
}

static void check_text(const cv_checkpoint *ckpt, const char *key, const char *expected)
{
    const cv_meta *meta = cv_checkpoint_meta(ckpt, key);
    if (!meta) fail_msg("no metadata %s", key);
    assert_int_equal(meta->type, CV_META_TEXT);
    assert_string_equal(meta->text.bytes, expected);
    assert_int_equal(meta->text.n, strlen(expected));
}

/* Bits rounded as cv_tensor stores them; f32, or the type itself. */
static void check_against(const cv_checkpoint *got, const cv_tensor *t, const cv_checkpoint *other,
                          const cv_tensor *e)
{
    assert_int_equal(t->n_dims, e->n_dims);
    for (int k = 0; k < t->n_dims; k++)
        assert_int_equal(t->dims[k], e->dims[k]);
    void *a = values(got, t), *b = values(other, e);
    size_t bytes = t->count * cv_dtype_of(t->dtype)->block_bytes;
    if (t->dtype == CV_BF16 && e->dtype == CV_F32) {
        for (size_t i = 0; i < t->count; i++) {
            float f = cv_bf16_to_f32(((uint16_t *)a)[i]);
            if (memcmp(&f, (float *)b + i, sizeof f) != 0) fail_msg("%s: element %zu", t->name, i);
        }
    } else if (t->dtype == CV_F16 && e->dtype == CV_F32) {
        for (size_t i = 0; i < t->count; i++)
            if (((uint16_t *)a)[i] != cv_f32_to_f16(((float *)b)[i]))
                fail_msg("%s: element %zu", t->name, i);
    } else {
        assert_int_equal(t->dtype, e->dtype);
        if (memcmp(a, b, bytes) != 0) fail_msg("%s: wrong values", t->name);
    }
    free(a);
    free(b);
}

/* Both have the same tensors, by name, shape and value. */
static void check_same(const char *path, const char *expected_path)
{
    cv_checkpoint got, expected;
    corvid_error err;
    open_path(path, &got);
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, expected_path, &expected, &err), &err);
    assert_int_equal(got.n_tensors, expected.n_tensors);
    assert_true(got.n_tensors > 0);
    for (size_t i = 0; i < got.n_tensors; i++)
        check_against(&got, &got.tensors[i], &expected, find(&expected, got.tensors[i].name));
    cv_checkpoint_close(&got);
    cv_checkpoint_close(&expected);
}

/* ---- fixtures ------------------------------------------------------------------------------- */

/* One tensor of each element type: random bytes, no two alike. */
static void every_dtype(bool legacy)
{
    static const cv_dtype types[] = { CV_F32, CV_F16, CV_BF16, CV_F64, CV_I8,
                                      CV_I16, CV_I32, CV_I64,  CV_U8,  CV_BOOL };
    enum { N = sizeof types / sizeof types[0] };
    cv_tensor tensors[N] = { 0 };
    const void *data[N];
    static unsigned char bytes[N][15 * 8];
    cv_rng rng;
    cv_rng_seed(&rng, 1);
    for (size_t i = 0; i < N; i++) {
        for (size_t k = 0; k < sizeof bytes[i]; k++)
            bytes[i][k] = (unsigned char)cv_rng_next(&rng);
        data[i] = bytes[i];
        tensors[i] = (cv_tensor){
            .name = cv_dtype_of(types[i])->name, .dtype = types[i], .n_dims = 2, .dims = { 3, 5 }
        };
    }
    const char *path = test_scratch(legacy ? "dtypes_legacy.pth" : "dtypes.pth");
    pth_fixture_write(path, tensors, N, data, legacy);
    cv_checkpoint ckpt;
    open_path(path, &ckpt);
    assert_int_equal(ckpt.n_tensors, N);
    for (size_t i = 0; i < N; i++) {
        check_dims(&ckpt, tensors[i].name, 2, tensors[i].dims);
        assert_true(find(&ckpt, tensors[i].name)->contiguous);
        check_values(&ckpt, tensors[i].name, types[i], bytes[i], 15);
    }
    cv_checkpoint_close(&ckpt);
}

static void test_dtypes(void **state)
{
    (void)state;
    every_dtype(false);
    every_dtype(true);
}

/* Six views of two storages: 0..23 as f32, 0..11 as i16. */
static void views(bool legacy)
{
    static const float f[24] = { 0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23 };
    static const int16_t h[12] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 };
    const cv_tensor tensors[] = {
        { .name = "whole", .dtype = CV_F32, .n_dims = 2, .dims = { 4, 6 }, .strides = { 6, 1 } },
        { .name = "tail",
          .dtype = CV_F32,
          .n_dims = 1,
          .dims = { 4 },
          .strides = { 1 },
          .offset = 80 },
        { .name = "transposed",
          .dtype = CV_F32,
          .n_dims = 2,
          .dims = { 6, 4 },
          .strides = { 1, 6 } },
        { .name = "column",
          .dtype = CV_F32,
          .n_dims = 1,
          .dims = { 4 },
          .strides = { 6 },
          .offset = 8 },
        { .name = "expanded",
          .dtype = CV_I16,
          .n_dims = 2,
          .dims = { 3, 2 },
          .strides = { 0, 1 },
          .offset = 20 },
        { .name = "scalar", .dtype = CV_I16, .n_dims = 0, .offset = 22 },
        { .name = "empty", .dtype = CV_F32, .n_dims = 2, .dims = { 0, 3 }, .strides = { 3, 1 } },
        { .name = "thin",
          .dtype = CV_F32,
          .n_dims = 2,
          .dims = { 1, 5 },
          .strides = { 999, 1 },
          .offset = 4 },
    };
    const size_t storage[] = { 0, 0, 0, 0, 1, 1, 0, 0 }, counts[] = { 24, 12 };
    const void *data[] = { f, h };
    const pth_options options = {
        .legacy = legacy, .storage = storage, .n_storages = 2, .counts = counts
    };
    size_t n;
    unsigned char *bytes = pth_fixture_bytes(tensors, 8, data, &options, &n);
    cv_checkpoint ckpt;
    open_bytes(bytes, n, &ckpt);
    assert_int_equal(ckpt.n_tensors, 8);
    check_values(&ckpt, "whole", CV_F32, f, 24);
    check_values(&ckpt, "tail", CV_F32, f + 20, 4);
    float t[24];
    for (size_t i = 0; i < 24; i++)
        t[i] = f[i % 4 * 6 + i / 4];
    check_values(&ckpt, "transposed", CV_F32, t, 24);
    check_values(&ckpt, "column", CV_F32, (const float[]){ 2, 8, 14, 20 }, 4);
    check_values(&ckpt, "expanded", CV_I16, (const int16_t[]){ 10, 11, 10, 11, 10, 11 }, 6);
    check_values(&ckpt, "scalar", CV_I16, h + 11, 1);
    check_values(&ckpt, "thin", CV_F32, f + 1, 5);
    check_values(&ckpt, "empty", CV_F32, f, 0);
    check_dims(&ckpt, "empty", 2, (const size_t[]){ 0, 3 });
    assert_true(find(&ckpt, "whole")->contiguous);
    assert_true(find(&ckpt, "thin")->contiguous);
    assert_true(find(&ckpt, "scalar")->contiguous);
    assert_false(find(&ckpt, "transposed")->contiguous);
    assert_false(find(&ckpt, "expanded")->contiguous);
    assert_false(find(&ckpt, "column")->contiguous);
    cv_checkpoint_close(&ckpt);
    free(bytes);
}

static void test_views(void **state)
{
    (void)state;
    views(false);
    views(true);
}

static const float four[] = { 1, 2, 3, 4 };
static const cv_tensor two_tensors[] = {
    { .name = "emb.weight", .dtype = CV_F32, .n_dims = 2, .dims = { 2, 2 } },
    { .name = "head.weight", .dtype = CV_F32, .n_dims = 1, .dims = { 4 } },
};
static const void *const two_data[] = { four, four };

/* The two tensors come back under their names, with the wrapper and prefix as metadata. */
static void check_wrapped(const pth_options *options, const char *wrapper, const char *prefix)
{
    size_t n;
    cv_checkpoint ckpt;
    unsigned char *bytes = pth_fixture_bytes(two_tensors, 2, two_data, options, &n);
    open_bytes(bytes, n, &ckpt);
    assert_int_equal(ckpt.n_tensors, 2);
    check_values(&ckpt, "emb.weight", CV_F32, four, 4);
    check_values(&ckpt, "head.weight", CV_F32, four, 4);
    if (prefix)
        check_text(&ckpt, "pth.prefix", prefix);
    else
        assert_null(cv_checkpoint_meta(&ckpt, "pth.prefix"));
    if (wrapper) {
        check_text(&ckpt, "pth.wrapper", wrapper);
        check_text(&ckpt, "note", "made for a test");
        assert_int_equal(cv_checkpoint_meta(&ckpt, "epoch")->type, CV_META_INT);
        assert_int_equal(cv_checkpoint_meta(&ckpt, "epoch")->integer, 3);
        assert_int_equal(cv_checkpoint_meta(&ckpt, "loss")->type, CV_META_FLOAT);
        assert_true(cv_checkpoint_meta(&ckpt, "loss")->number == 1.5);
    }
    cv_checkpoint_close(&ckpt);
    free(bytes);
}

static void test_wrappers(void **state)
{
    (void)state;
    check_wrapped(NULL, NULL, NULL);
    static const char *const keys[] = { "state_dict", "model", "module", "state_dict_ema" };
    for (size_t i = 0; i < 4; i++) {
        check_wrapped(&(pth_options){ .wrapper = keys[i] }, keys[i], NULL);
        check_wrapped(&(pth_options){ .wrapper = keys[i], .legacy = true }, keys[i], NULL);
    }
    check_wrapped(&(pth_options){ .parameters = true }, NULL, NULL);
    check_wrapped(&(pth_options){ .plain_dict = true, .folder = "mod\xc3\xa8le v2.9" }, NULL, NULL);
    check_wrapped(&(pth_options){ .prefix = "_forward_module." }, NULL, "_forward_module.");
    check_wrapped(&(pth_options){ .prefix = "module." }, NULL, "module.");
    check_wrapped(&(pth_options){ .prefix = "model.", .legacy = true }, NULL, "model.");
    check_wrapped(&(pth_options){ .prefix = "module.model.", .wrapper = "state_dict" },
                  "state_dict", "module.model.");
}

/* A prefix that only some names carry is part of them. */
static void test_prefix_of_some(void **state)
{
    (void)state;
    const cv_tensor tensors[] = {
        { .name = "model.emb.weight", .dtype = CV_F32, .n_dims = 1, .dims = { 4 } },
        { .name = "head.weight", .dtype = CV_F32, .n_dims = 1, .dims = { 4 } },
    };
    size_t n;
    cv_checkpoint ckpt;
    unsigned char *bytes = pth_fixture_bytes(tensors, 2, two_data, NULL, &n);
    open_bytes(bytes, n, &ckpt);
    check_values(&ckpt, "model.emb.weight", CV_F32, four, 4);
    check_values(&ckpt, "head.weight", CV_F32, four, 4);
    assert_null(cv_checkpoint_meta(&ckpt, "pth.prefix"));
    cv_checkpoint_close(&ckpt);
    free(bytes);
}

/* ---- pickles by hand ------------------------------------------------------------------------ */

static void put_four(pth_bytes *b)
{
    const int64_t sizes[] = { 4 }, strides[] = { 1 };
    pth_tensor(b, "FloatStorage", "0", 4, 0, sizes, strides, 1, false);
}

/* Opens an archive with this pickle and the storage 0 of four floats. */
static unsigned char *open_pickle(pth_bytes *b, cv_checkpoint *ckpt)
{
    size_t n;
    unsigned char *bytes = pth_zip_of(b, four, sizeof four, &n);
    open_bytes(bytes, n, ckpt);
    free(b->at);
    return bytes;
}

/* {"a": {"b": {"c": tensor}, 7: {"exp_avg": tensor}}, "d": tensor, "flag": True, "n": -2^40,
 *  "names": ("x", "y"), "mixed": [1, "x"], "none": None} */
static void test_nested_dicts(void **state)
{
    (void)state;
    pth_bytes b = { 0 };
    cv_checkpoint ckpt;
    pth_op(&b, "\x80\x02}(");
    pth_text(&b, "a");
    pth_op(&b, "}(");
    pth_text(&b, "b");
    pth_op(&b, "}");
    pth_text(&b, "c");
    put_four(&b);
    pth_op(&b, "s");
    pth_int(&b, 7);
    pth_op(&b, "}");
    pth_text(&b, "exp_avg");
    put_four(&b);
    pth_op(&b, "su");
    pth_text(&b, "d\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\xa6"); /* characters of 1 to 4 bytes */
    put_four(&b);
    pth_text(&b, "flag");
    pth_op(&b, "\x88");
    pth_text(&b, "n");
    pth_int(&b, -((int64_t)1 << 40));
    pth_text(&b, "small");
    pth_int(&b, -5);
    pth_text(&b, "names");
    pth_text(&b, "x");
    pth_text(&b, "y");
    pth_op(&b, "\x86");
    pth_text(&b, "mixed");
    pth_op(&b, "](K\x01");
    pth_text(&b, "x");
    pth_op(&b, "e");
    pth_text(&b, "none");
    pth_op(&b, "Nu.");
    unsigned char *bytes = open_pickle(&b, &ckpt);
    assert_int_equal(ckpt.n_tensors, 2);
    check_values(&ckpt, "a.b.c", CV_F32, four, 4);
    check_values(&ckpt, "d\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\xa6", CV_F32, four, 4);
    assert_int_equal(cv_checkpoint_meta(&ckpt, "flag")->type, CV_META_BOOL);
    assert_int_equal(cv_checkpoint_meta(&ckpt, "flag")->integer, 1);
    assert_true(cv_checkpoint_meta(&ckpt, "n")->integer == -((int64_t)1 << 40));
    assert_true(cv_checkpoint_meta(&ckpt, "small")->integer == -5);
    const cv_meta *names = cv_checkpoint_meta(&ckpt, "names");
    assert_int_equal(names->type, CV_META_TEXTS);
    assert_int_equal(names->count, 2);
    assert_string_equal(names->texts[1].bytes, "y");
    assert_null(cv_checkpoint_meta(&ckpt, "mixed"));
    assert_null(cv_checkpoint_meta(&ckpt, "none"));
    cv_checkpoint_close(&ckpt);
    free(bytes);
}

/* Wrappers in wrappers; an empty "state_dict" and a "model" without tensors are passed over. */
static void test_nested_wrappers(void **state)
{
    (void)state;
    pth_bytes b = { 0 };
    cv_checkpoint ckpt;
    pth_op(&b, "\x80\x02}(");
    pth_text(&b, "state_dict");
    pth_op(&b, "}");
    pth_text(&b, "model");
    pth_text(&b, "VRWKV-T");
    pth_text(&b, "module");
    pth_op(&b, "}(");
    pth_text(&b, "state_dict");
    pth_op(&b, "}");
    pth_text(&b, "x");
    put_four(&b);
    pth_op(&b, "su");
    pth_op(&b, "u.");
    unsigned char *bytes = open_pickle(&b, &ckpt);
    assert_int_equal(ckpt.n_tensors, 1);
    check_values(&ckpt, "x", CV_F32, four, 4);
    check_text(&ckpt, "pth.wrapper", "module.state_dict");
    check_text(&ckpt, "model", "VRWKV-T");
    cv_checkpoint_close(&ckpt);
    free(bytes);
}

/* Protocol 4: FRAME, SHORT_BINUNICODE, STACK_GLOBAL, MEMOIZE; the tensor twice through the memo,
 * and an OrderedDict from a list of pairs. */
static void test_protocol_4(void **state)
{
    (void)state;
    const int64_t sizes[] = { 2, 2 }, strides[] = { 2, 1 };
    pth_bytes b = { 0 };
    cv_checkpoint ckpt;
    pth_op(&b, "\x80\x04\x95");
    pth_number(&b, 1000, 8);
    pth_op(&b, "\x8c\x0b"
               "collections\x94\x8c\x0bOrderedDict\x94\x93\x94");
    pth_op(&b, "](\x8c\x01w");
    pth_tensor(&b, "FloatStorage", "0", 4, 0, sizes, strides, 2, false);
    pth_op(&b, "\x94\x86\x8c\x05tying");
    pth_op(&b, "h\x03\x86"
               "e\x85R.");
    unsigned char *bytes = open_pickle(&b, &ckpt);
    assert_int_equal(ckpt.n_tensors, 2);
    check_values(&ckpt, "w", CV_F32, four, 4);
    check_values(&ckpt, "tying", CV_F32, four, 4);
    cv_checkpoint_close(&ckpt);
    free(bytes);
}

/* What lies beside the tensors may be of a class that is known to be harmless. */
static void test_opaque_values(void **state)
{
    (void)state;
    pth_bytes b = { 0 };
    cv_checkpoint ckpt;
    pth_op(&b, "\x80\x02}(");
    pth_text(&b, "args");
    pth_global(&b, "argparse", "Namespace");
    pth_op(&b, ")\x81}");
    pth_text(&b, "lr");
    pth_int(&b, 1);
    pth_op(&b, "sb");
    pth_text(&b, "seed");
    pth_op(&b, "\x8a\x09");
    pth_number(&b, UINT64_MAX, 8);
    pth_number(&b, 0, 1);
    pth_text(&b, "w");
    put_four(&b);
    pth_op(&b, "u.");
    unsigned char *bytes = open_pickle(&b, &ckpt);
    assert_int_equal(ckpt.n_tensors, 1);
    assert_int_equal(ckpt.n_meta, 0);
    cv_checkpoint_close(&ckpt);
    free(bytes);
}

/* ---- size ----------------------------------------------------------------------------------- */

/* Far more tensors than any model has; in the legacy form the pickle outgrows its first windows. */
static void many_tensors(bool legacy)
{
    enum { N = 20000 };
    cv_tensor *tensors = calloc(N, sizeof *tensors);
    const void **data = calloc(N, sizeof *data);
    uint16_t *words = calloc(N, sizeof *words);
    char(*names)[64] = calloc(N, sizeof *names);
    assert_true(tensors && data && words && names);
    for (size_t i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "blocks.%zu.att.receptance.weight", i);
        words[i] = (uint16_t)i;
        data[i] = &words[i];
        tensors[i] = (cv_tensor){ .name = names[i], .dtype = CV_BF16, .n_dims = 1, .dims = { 1 } };
    }
    size_t n;
    const pth_options options = { .legacy = legacy };
    unsigned char *bytes = pth_fixture_bytes(tensors, N, data, &options, &n);
    cv_checkpoint ckpt;
    open_bytes(bytes, n, &ckpt);
    assert_int_equal(ckpt.n_tensors, N);
    for (size_t i = 0; i < N; i += 777)
        check_values(&ckpt, names[i], CV_BF16, &words[i], 1);
    cv_checkpoint_close(&ckpt);
    free(bytes);
    free(tensors);
    free(data);
    free(words);
    free(names);
}

static void test_many_tensors(void **state)
{
    (void)state;
    many_tensors(false);
    many_tensors(true);
}

typedef struct big_entry {
    const char *name;
    uint64_t size, header_at;
} big_entry;

static void local_header(pth_bytes *b, const big_entry *e)
{
    pth_op(b, "PK\x03\x04");
    pth_number(b, 45, 2);
    pth_number(b, 0x0808, 2); /* sizes follow the data; names are UTF-8 */
    pth_number(b, 0, 8);      /* stored, no time, checksum not told     */
    pth_number(b, 0, 4);
    pth_number(b, 0, 4);
    pth_number(b, 0, 2);
    pth_number(b, strlen(e->name), 2);
    pth_number(b, 0, 2);
    pth_op(b, e->name);
}

/* Large numbers go to the ZIP64 field, which holds only those that do not fit.  [pth.zip] */
static void central_header(pth_bytes *b, const big_entry *e)
{
    bool big = e->size > UINT32_MAX - 1, far = e->header_at > UINT32_MAX - 1;
    size_t extra = (big ? 16u : 0u) + (far ? 8u : 0u);
    pth_op(b, "PK\x01\x02");
    pth_number(b, 45, 2);
    pth_number(b, 45, 2);
    pth_number(b, 0x0808, 2);
    pth_number(b, 0, 10);
    pth_number(b, big ? UINT32_MAX : e->size, 4);
    pth_number(b, big ? UINT32_MAX : e->size, 4);
    pth_number(b, strlen(e->name), 2);
    pth_number(b, extra ? 4 + extra : 0, 2);
    pth_number(b, 0, 10);
    pth_number(b, far ? UINT32_MAX : e->header_at, 4);
    pth_op(b, e->name);
    if (!extra) return;
    pth_number(b, 1, 2);
    pth_number(b, extra, 2);
    if (big) pth_number(b, e->size, 8);
    if (big) pth_number(b, e->size, 8);
    if (far) pth_number(b, e->header_at, 8);
}

static void end_records(pth_bytes *b, uint64_t directory_at, uint64_t directory_bytes, size_t n)
{
    uint64_t record_at = directory_at + directory_bytes;
    pth_op(b, "PK\x06\x06");
    pth_number(b, 44, 8);
    pth_number(b, 45, 2);
    pth_number(b, 45, 2);
    pth_number(b, 0, 8);
    pth_number(b, n, 8);
    pth_number(b, n, 8);
    pth_number(b, directory_bytes, 8);
    pth_number(b, directory_at, 8);
    pth_op(b, "PK\x06\x07");
    pth_number(b, 0, 4);
    pth_number(b, record_at, 8);
    pth_number(b, 1, 4);
    pth_op(b, "PK\x05\x06");
    pth_number(b, 0, 4);
    pth_number(b, n, 2);
    pth_number(b, n, 2);
    pth_number(b, directory_bytes, 4);
    pth_number(b, UINT32_MAX, 4);
    pth_number(b, 0, 2);
}

static void write_at(int fd, uint64_t at, const void *bytes, size_t n)
{
    assert_int_equal(pwrite(fd, bytes, n, (off_t)at), (ssize_t)n);
}

/* A storage of 4.3 GB, nearly all of it a hole in the file, and a small one behind it. */
static void test_beyond_4_gib(void **state)
{
    (void)state;
    const int64_t count = 1074000000, one = 1, four_sizes[] = { 4 };
    const float marks[] = { 3.25f, -7.5f };
    pth_bytes pickle = { 0 }, b = { 0 };
    pth_op(&pickle, "\x80\x02}(");
    pth_text(&pickle, "big");
    pth_tensor(&pickle, "FloatStorage", "0", count, 0, &count, &one, 1, false);
    pth_text(&pickle, "behind");
    pth_tensor(&pickle, "FloatStorage", "1", 4, 0, four_sizes, &one, 1, false);
    pth_op(&pickle, "u.");
    big_entry entries[] = { { "big/data.pkl", pickle.n, 0 },
                            { "big/data/0", (uint64_t)count * 4, 0 },
                            { "big/data/1", sizeof four, 0 } };
    const char *path = test_scratch("zip64.pth");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    uint64_t at = 0, data_at[3];
    for (size_t i = 0; i < 3; i++) {
        b.n = 0;
        entries[i].header_at = at;
        local_header(&b, &entries[i]);
        write_at(fd, at, b.at, b.n);
        data_at[i] = at + b.n;
        at = data_at[i] + entries[i].size;
    }
    write_at(fd, data_at[0], pickle.at, pickle.n);
    write_at(fd, data_at[1] + (uint64_t)count * 4 - sizeof marks, marks, sizeof marks);
    write_at(fd, data_at[2], four, sizeof four);
    b.n = 0;
    for (size_t i = 0; i < 3; i++)
        central_header(&b, &entries[i]);
    end_records(&b, at, b.n, 3);
    write_at(fd, at, b.at, b.n);
    close(fd);

    cv_checkpoint ckpt;
    corvid_error err;
    float got[2];
    open_path(path, &ckpt);
    const cv_tensor *t = find(&ckpt, "big");
    assert_int_equal(t->count, (size_t)count);
    assert_int_equal(t->offset, data_at[1]);
    ASSERT_OK(cv_tensor_read(&ckpt, t, (size_t)count - 2, 2, got, &err), &err);
    assert_memory_equal(got, marks, sizeof marks);
    assert_true(find(&ckpt, "behind")->offset > UINT32_MAX);
    check_values(&ckpt, "behind", CV_F32, four, 4);
    cv_checkpoint_close(&ckpt);
    unlink(path);
    free(pickle.at);
    free(b.at);
}

/* ---- files that PyTorch wrote --------------------------------------------------------------- */

static void test_golden_tricky(void **state)
{
    (void)state;
    NEED_DATA(expected, "vrwkv-golden/pickle/tricky.expected.safetensors");
    NEED_DATA(zip, "vrwkv-golden/pickle/tricky_zip.pth");
    NEED_DATA(legacy, "vrwkv-golden/pickle/tricky_legacy.pth");
    check_same(zip, expected);
    check_same(legacy, expected);
}

static void test_golden_wrapped(void **state)
{
    (void)state;
    NEED_DATA(expected, "vrwkv-golden/small/a_pre.weights.safetensors");
    static const char *const names[] = { "raw_zip", "mmcls_zip", "mmcls_legacy", "internimage_zip",
                                         "module_half_legacy" };
    for (size_t i = 0; i < 5; i++) {
        char relative[128];
        snprintf(relative, sizeof relative, "vrwkv-golden/pickle/a_pre.%s.pth", names[i]);
        NEED_DATA(path, relative);
        check_same(path, expected);
    }
}

static void test_golden_meta(void **state)
{
    (void)state;
    NEED_DATA(path, "vrwkv-golden/pickle/a_pre.mmcls_legacy.pth");
    NEED_DATA(half, "vrwkv-golden/pickle/a_pre.module_half_legacy.pth");
    NEED_DATA(training, "vrwkv-golden/pickle/a_pre.internimage_zip.pth");
    cv_checkpoint ckpt;
    open_path(path, &ckpt);
    check_text(&ckpt, "pth.wrapper", "state_dict");
    check_text(&ckpt, "meta.mmcls_version", "0.25.0");
    assert_int_equal(cv_checkpoint_meta(&ckpt, "meta.iter")->integer, 375300);
    const cv_meta *classes = cv_checkpoint_meta(&ckpt, "meta.CLASSES");
    assert_non_null(classes);
    assert_int_equal(classes->count, 10);
    assert_string_equal(classes->texts[9].bytes, "class 9 \xc3\xa9");
    cv_checkpoint_close(&ckpt);
    open_path(half, &ckpt);
    check_text(&ckpt, "pth.prefix", "module.");
    assert_null(cv_checkpoint_meta(&ckpt, "pth.wrapper"));
    cv_checkpoint_close(&ckpt);
    open_path(training, &ckpt);
    assert_int_equal(cv_checkpoint_meta(&ckpt, "epoch")->integer, 19);
    cv_checkpoint_close(&ckpt);
}

static void test_golden_task_model(void **state)
{
    (void)state;
    NEED_DATA(path, "rwkv-tiny/260123_reverse_L2_only_rwkv7.pth");
    static const struct {
        const char *name;
        int n_dims;
        size_t dims[3];
    } expected[] = {
        { "e.weight", 2, { 12, 32 } },
        { "o.weight", 2, { 12, 32 } },
        { "o.bias", 1, { 12 } },
        { "lno.weight", 1, { 32 } },
        { "rosa1.o.bias", 1, { 32 } },
        { "rwkv1.receptance.weight", 2, { 32, 32 } },
        { "rwkv2.x_r", 3, { 1, 1, 32 } },
        { "rwkv1.w1", 2, { 32, 8 } },
        { "rwkv1.r_k", 2, { 2, 16 } },
        { "ffn2.key.weight", 2, { 128, 32 } },
        { "ffn2.value.weight", 2, { 32, 128 } },
    };
    cv_checkpoint ckpt;
    open_path(path, &ckpt);
    assert_int_equal(ckpt.n_tensors, 99);
    size_t total = 0;
    for (size_t i = 0; i < ckpt.n_tensors; i++) {
        assert_int_equal(ckpt.tensors[i].dtype, CV_F32);
        total += ckpt.tensors[i].count;
    }
    assert_int_equal(total, 39564);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        check_dims(&ckpt, expected[i].name, expected[i].n_dims, expected[i].dims);
    cv_checkpoint_close(&ckpt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtypes),        cmocka_unit_test(test_views),
        cmocka_unit_test(test_wrappers),      cmocka_unit_test(test_prefix_of_some),
        cmocka_unit_test(test_nested_dicts),  cmocka_unit_test(test_nested_wrappers),
        cmocka_unit_test(test_protocol_4),    cmocka_unit_test(test_opaque_values),
        cmocka_unit_test(test_many_tensors),  cmocka_unit_test(test_beyond_4_gib),
        cmocka_unit_test(test_golden_tricky), cmocka_unit_test(test_golden_wrapped),
        cmocka_unit_test(test_golden_meta),   cmocka_unit_test(test_golden_task_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
