/* test_gguf.c - GGUF headers: files assembled by hand are read right, and what is written is, byte
 * for byte, what the format says and what its readers insist on.  [fmt.gguf] */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "formats/gguf_types.h"
#include "formats/header.h"
#include "gguf_bytes.h"

static void parse(const gguf_bytes *g, cv_checkpoint *ckpt)
{
    cv_input in;
    corvid_error err;
    cv_input_memory(&in, g->bytes, g->n, "made.gguf");
    ASSERT_OK(cv_checkpoint_parse(&cv_libc_allocator, &in, ckpt, &err), &err);
    assert_int_equal(ckpt->format, CV_GGUF);
}

static const cv_meta *meta_of(const cv_checkpoint *ckpt, const char *key, cv_meta_type type)
{
    const cv_meta *meta = cv_checkpoint_meta(ckpt, key);
    if (!meta) fail_msg("no key %s", key);
    assert_int_equal(meta->type, type);
    return meta;
}

static const cv_tensor *tensor_of(const cv_checkpoint *ckpt, const char *name)
{
    const cv_tensor *tensor = cv_checkpoint_find(ckpt, name);
    if (!tensor) fail_msg("no tensor %s", name);
    return tensor;
}

static void assert_dims(const cv_tensor *tensor, int n_dims, const size_t *dims)
{
    size_t count = 1;
    assert_int_equal(tensor->n_dims, n_dims);
    for (int i = 0; i < n_dims; i++) {
        assert_int_equal(tensor->dims[i], dims[i]);
        count *= dims[i];
    }
    assert_int_equal(tensor->count, count);
    assert_true(tensor->contiguous);
}

/* ---- one small file, every byte known -------------------------------------------------------- */

/* Version 3; keys general.architecture = "rwkv7" and n = 7; tensor w, 2 rows of 3 f32. */
static const unsigned char
    small_file[] = {
        'G', 'G', 'U',  'F',  3,   0,   0,    0, /* 0: magic, version    */
        1,   0,   0,    0,    0,   0,   0,    0,    2,   0,   0,    0,    0,   0,
        0,   0,                                  /* 8: tensors, keys     */
        20,  0,   0,    0,    0,   0,   0,    0, /* 24: key              */
        'g', 'e', 'n',  'e',  'r', 'a', 'l',  '.',  'a', 'r', 'c',  'h',  'i', 't',
        'e', 'c', 't',  'u',  'r', 'e', 8,    0,    0,   0,   5,    0,    0,   0,
        0,   0,   0,    0,    'r', 'w', 'k',  'v',  '7', /* 52: text          */
        1,   0,   0,    0,    0,   0,   0,    0,    'n', 4,   0,    0,    0,   7,
        0,   0,   0, /* 69: u32              */
        1,   0,   0,    0,    0,   0,   0,    0,    'w', 2,   0,    0,    0, /* 86: tensor, 2 dims   */
        3,   0,   0,    0,    0,   0,   0,    0,    2,   0,   0,    0,    0,   0,
        0,   0,                                                           /* 99: row length first */
        0,   0,   0,    0,    0,   0,   0,    0,    0,   0,   0,    0,    /* 115: f32, offset 0   */
        0,                                                                /* 127: padding         */
        0,   0,   0x80, 0x3F, 0,   0,   0,    0x40, 0,   0,   0x40, 0x40, /* 128: 1 2 3           */
        0,   0,   0x80, 0x40, 0,   0,   0xA0, 0x40, 0,   0,   0xC0, 0x40, /* 140: 4 5 6           */
        0,   0,   0,    0,    0,   0,   0,    0,                          /* 152: padding         */
    };

static void small_file_is_read(void **state)
{
    (void)state;
    cv_checkpoint ckpt;
    cv_input in;
    corvid_error err;
    cv_input_memory(&in, small_file, sizeof small_file, "small.gguf");
    ASSERT_OK(cv_checkpoint_parse(&cv_libc_allocator, &in, &ckpt, &err), &err);
    assert_int_equal(ckpt.n_meta, 2);
    assert_int_equal(ckpt.n_tensors, 1);
    const cv_meta *arch = meta_of(&ckpt, "general.architecture", CV_META_TEXT);
    assert_int_equal(arch->text.n, 5);
    assert_string_equal(arch->text.bytes, "rwkv7");
    assert_int_equal(meta_of(&ckpt, "n", CV_META_INT)->integer, 7);

    const cv_tensor *w = tensor_of(&ckpt, "w");
    assert_int_equal(w->dtype, CV_F32);
    assert_dims(w, 2, (const size_t[]){ 2, 3 });
    assert_int_equal(w->offset, 128);
    float values[6];
    ASSERT_OK(cv_tensor_read(&ckpt, w, 0, 6, values, &err), &err);
    for (int i = 0; i < 6; i++)
        assert_true(values[i] == (float)(i + 1));
    cv_checkpoint_close(&ckpt);
}

static void small_file_is_written(void **state)
{
    (void)state;
    const cv_meta meta[] = {
        { .key = "general.architecture", .type = CV_META_TEXT, .text = { "rwkv7", 5 } },
        { .key = "n", .type = CV_META_INT, .integer = 7 },
    };
    const cv_tensor w = { .name = "w", .dtype = CV_F32, .n_dims = 2, .dims = { 2, 3 }, .count = 6 };
    cv_arena arena;
    cv_header header;
    corvid_error err;
    cv_arena_init(&arena, &cv_libc_allocator);
    ASSERT_OK(cv_gguf_header(&arena, meta, 2, &w, 1, &header, &err), &err);
    assert_int_equal(header.n, 128);
    assert_memory_equal(header.bytes, small_file, 128);
    assert_int_equal(header.offsets[0], 0);
    assert_int_equal(header.data_bytes, 32); /* 24, padded as readers of whole files expect */
    cv_arena_free(&arena);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void put_every_scalar(gguf_bytes *g)
{
    g_key(g, "u8", G_U8), g_number(g, 0xFF, 1);
    g_key(g, "i8", G_I8), g_number(g, 0xFF, 1);
    g_key(g, "u16", G_U16), g_number(g, 0xFFFE, 2);
    g_key(g, "i16", G_I16), g_number(g, 0xFFFE, 2);
    g_key(g, "u32", G_U32), g_u32(g, 0xFFFFFFFD);
    g_key(g, "i32", G_I32), g_u32(g, 0xFFFFFFFD);
    g_key(g, "f32", G_F32), g_f32(g, 1e-5f);
    g_key(g, "bool", G_BOOL), g_number(g, 1, 1);
    g_key(g, "text", G_TEXT), g_u64(g, 3), g_put(g, "a\0b", 3);
    g_key(g, "u64", G_U64), g_u64(g, INT64_MAX);
    g_key(g, "i64", G_I64), g_u64(g, UINT64_MAX);
    g_key(g, "f64", G_F64), g_f64(g, -1e300);
}

static void every_value_type_is_read(void **state)
{
    (void)state;
    gguf_bytes g = { 0 };
    cv_checkpoint ckpt;
    g_header(&g, 3, 0, 12);
    put_every_scalar(&g);
    parse(&g, &ckpt);
    assert_int_equal(ckpt.n_meta, 12);
    assert_int_equal(meta_of(&ckpt, "u8", CV_META_INT)->integer, 255);
    assert_int_equal(meta_of(&ckpt, "i8", CV_META_INT)->integer, -1);
    assert_int_equal(meta_of(&ckpt, "u16", CV_META_INT)->integer, 65534);
    assert_int_equal(meta_of(&ckpt, "i16", CV_META_INT)->integer, -2);
    assert_int_equal(meta_of(&ckpt, "u32", CV_META_INT)->integer, 4294967293);
    assert_int_equal(meta_of(&ckpt, "i32", CV_META_INT)->integer, -3);
    assert_true(meta_of(&ckpt, "f32", CV_META_FLOAT)->number == (double)1e-5f);
    assert_int_equal(meta_of(&ckpt, "bool", CV_META_BOOL)->integer, 1);
    const cv_meta *text = meta_of(&ckpt, "text", CV_META_TEXT);
    assert_int_equal(text->text.n, 3);
    assert_memory_equal(text->text.bytes, "a\0b", 4);
    assert_int_equal(meta_of(&ckpt, "u64", CV_META_INT)->integer, INT64_MAX);
    assert_int_equal(meta_of(&ckpt, "i64", CV_META_INT)->integer, -1);
    assert_true(meta_of(&ckpt, "f64", CV_META_FLOAT)->number == -1e300);
    cv_checkpoint_close(&ckpt);
    g_free(&g);
}

/* Arrays of 1, 2, 3 in each type of numbers.  A reader that trusts a key's usual element type runs
 * off the end of the narrow ones. */
static void put_number_arrays(gguf_bytes *g)
{
    static const struct {
        const char *key;
        uint32_t type, bytes;
    } kinds[] = { { "u8", G_U8, 1 },   { "i8", G_I8, 1 },   { "u16", G_U16, 2 },
                  { "i16", G_I16, 2 }, { "u32", G_U32, 4 }, { "i32", G_I32, 4 },
                  { "u64", G_U64, 8 }, { "i64", G_I64, 8 } };
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        g_key(g, kinds[k].key, G_ARRAY);
        g_array(g, kinds[k].type, 3);
        for (uint64_t i = 1; i <= 3; i++)
            g_number(g, i, kinds[k].bytes);
    }
    g_key(g, "f32", G_ARRAY), g_array(g, G_F32, 3);
    g_f32(g, 1), g_f32(g, 2), g_f32(g, 3);
    g_key(g, "f64", G_ARRAY), g_array(g, G_F64, 3);
    g_f64(g, 1), g_f64(g, 2), g_f64(g, 3);
}

static void arrays_are_read(void **state)
{
    (void)state;
    gguf_bytes g = { 0 };
    cv_checkpoint ckpt;
    g_header(&g, 3, 0, 13);
    put_number_arrays(&g);
    g_key(&g, "bools", G_ARRAY), g_array(&g, G_BOOL, 2), g_number(&g, 0x0001, 2);
    g_key(&g, "texts", G_ARRAY), g_array(&g, G_TEXT, 3);
    g_text(&g, "one"), g_text(&g, ""), g_text(&g, "three");
    g_key(&g, "none", G_ARRAY), g_array(&g, G_I32, 0);
    parse(&g, &ckpt);
    static const char *const integers[] = { "u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64" };
    for (size_t k = 0; k < 8; k++) {
        const cv_meta *meta = meta_of(&ckpt, integers[k], CV_META_INTS);
        assert_int_equal(meta->count, 3);
        for (int i = 0; i < 3; i++)
            assert_int_equal(meta->integers[i], i + 1);
    }
    for (int k = 0; k < 2; k++) {
        const cv_meta *meta = meta_of(&ckpt, k ? "f32" : "f64", CV_META_FLOATS);
        assert_int_equal(meta->count, 3);
        for (int i = 0; i < 3; i++)
            assert_true(meta->numbers[i] == i + 1);
    }
    const cv_meta *bools = meta_of(&ckpt, "bools", CV_META_INTS);
    assert_int_equal(bools->integers[0], 1);
    assert_int_equal(bools->integers[1], 0);
    const cv_meta *texts = meta_of(&ckpt, "texts", CV_META_TEXTS);
    assert_int_equal(texts->count, 3);
    assert_string_equal(texts->texts[0].bytes, "one");
    assert_int_equal(texts->texts[1].n, 0);
    assert_string_equal(texts->texts[1].bytes, "");
    assert_string_equal(texts->texts[2].bytes, "three");
    assert_int_equal(meta_of(&ckpt, "none", CV_META_INTS)->count, 0);
    cv_checkpoint_close(&ckpt);
    g_free(&g);
}

static void nested_arrays_are_left_out(void **state)
{
    (void)state;
    gguf_bytes g = { 0 };
    cv_checkpoint ckpt;
    g_header(&g, 3, 0, 3);
    g_key(&g, "before", G_U8), g_number(&g, 1, 1);
    g_key(&g, "nested", G_ARRAY), g_array(&g, G_ARRAY, 2);
    g_array(&g, G_U16, 2), g_number(&g, 7, 4);
    g_array(&g, G_TEXT, 2), g_text(&g, "x"), g_text(&g, "yz");
    g_key(&g, "after", G_U8), g_number(&g, 2, 1);
    parse(&g, &ckpt);
    assert_int_equal(ckpt.n_meta, 2);
    assert_null(cv_checkpoint_meta(&ckpt, "nested"));
    assert_int_equal(meta_of(&ckpt, "before", CV_META_INT)->integer, 1);
    assert_int_equal(meta_of(&ckpt, "after", CV_META_INT)->integer, 2);
    cv_checkpoint_close(&ckpt);
    g_free(&g);
}

/* Version 2 differs from 3 only in its number; the data begin at a multiple of the alignment. */
static void version_2_with_alignment_64(void **state)
{
    (void)state;
    gguf_bytes g = { 0 };
    cv_checkpoint ckpt;
    corvid_error err;
    g_header(&g, 2, 2, 1);
    g_key(&g, "general.alignment", G_U32), g_u32(&g, 64);
    g_tensor(&g, "b", 1, (const uint64_t[]){ 4 }, G_TENSOR_F16, 0);
    g_tensor(&g, "a", 4, (const uint64_t[]){ 3, 1, 1, 2 }, G_TENSOR_F32, 64);
    assert_true(g.n % 64 != 0 && (g.n + 31) / 32 * 32 % 64 != 0); /* 32 would show a difference */
    g_pad(&g, 64);
    size_t data_at = g.n;
    g_zeros(&g, 64);
    for (int i = 0; i < 6; i++)
        g_f32(&g, (float)i);
    parse(&g, &ckpt);
    assert_dims(tensor_of(&ckpt, "b"), 1, (const size_t[]){ 4 });
    assert_int_equal(tensor_of(&ckpt, "b")->offset, data_at);
    const cv_tensor *a = tensor_of(&ckpt, "a");
    assert_dims(a, 4, (const size_t[]){ 2, 1, 1, 3 });
    float value;
    ASSERT_OK(cv_tensor_read(&ckpt, a, 5, 1, &value, &err), &err);
    assert_true(value == 5.0f);
    cv_checkpoint_close(&ckpt);
    g_free(&g);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* The header of a World model: 65536 tokens with types, through a file.  It is a few ms; the bound
 * leaves room for sanitizers and slow machines, and still fails when every field is a system call. */
static void big_vocabulary_is_quick(void **state)
{
    (void)state;
    enum { TOKENS = 65536 };
    gguf_bytes g = { 0 };
    cv_checkpoint ckpt;
    corvid_error err;
    char token[32];
    g_header(&g, 3, 0, 2);
    g_key(&g, "tokenizer.ggml.tokens", G_ARRAY), g_array(&g, G_TEXT, TOKENS);
    for (int i = 0; i < TOKENS; i++) {
        snprintf(token, sizeof token, "a token %d", i);
        g_text(&g, token);
    }
    g_key(&g, "tokenizer.ggml.token_type", G_ARRAY), g_array(&g, G_I32, TOKENS);
    for (int i = 0; i < TOKENS; i++)
        g_u32(&g, (uint64_t)i);
    const char *path = test_scratch("vocabulary.gguf");
    test_write_file(path, g.bytes, g.n);

    double start = now_ms();
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    double took = now_ms() - start;
    print_message("a header of %zu bytes took %.1f ms\n", g.n, took);
    assert_true(took < 100);
    const cv_meta *tokens = meta_of(&ckpt, "tokenizer.ggml.tokens", CV_META_TEXTS);
    assert_int_equal(tokens->count, TOKENS);
    for (int i = 0; i < TOKENS; i++) {
        snprintf(token, sizeof token, "a token %d", i);
        assert_string_equal(tokens->texts[i].bytes, token);
    }
    const cv_meta *types = meta_of(&ckpt, "tokenizer.ggml.token_type", CV_META_INTS);
    for (int i = 0; i < TOKENS; i++)
        assert_int_equal(types->integers[i], i);
    cv_checkpoint_close(&ckpt);
    g_free(&g);
}

/* A text longer than the window of the reader, and fields that straddle its border. */
static void long_texts_are_read(void **state)
{
    (void)state;
    for (size_t n = 65536 - 60; n < 65536 + 20; n++) {
        gguf_bytes g = { 0 };
        cv_checkpoint ckpt;
        g_header(&g, 3, 0, 2);
        g_key(&g, "long", G_TEXT), g_u64(&g, n);
        for (size_t i = 0; i < n; i++)
            g_number(&g, 'a' + i % 26, 1);
        g_key(&g, "next", G_U64), g_u64(&g, 0x0123456789ABCDEF);
        parse(&g, &ckpt);
        const cv_meta *text = meta_of(&ckpt, "long", CV_META_TEXT);
        assert_int_equal(text->text.n, n);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(text->text.bytes[i], 'a' + i % 26);
        assert_int_equal(meta_of(&ckpt, "next", CV_META_INT)->integer, 0x0123456789ABCDEF);
        cv_checkpoint_close(&ckpt);
        g_free(&g);
    }
}

/* Names at the borders of what UTF-8 allows, one step inside and one outside. */
static void names_are_utf8(void **state)
{
    (void)state;
    static const char *const good[] = { "a",
                                        "\xc2\x80",
                                        "\xdf\xbf",
                                        "\xe0\xa0\x80",
                                        "\xed\x9f\xbf",
                                        "\xee\x80\x80",
                                        "\xf0\x90\x80\x80",
                                        "\xf4\x8f\xbf\xbf" };
    static const char *const bad[] = { "\x80",
                                       "\xc1\xbf",
                                       "\xc2",
                                       "\xc2\x7e",
                                       "\xe0\x9f\xbf",
                                       "\xe2\x82",
                                       "\xed\xa0\x80",
                                       "\xf0\x8f\xbf\xbf",
                                       "\xf4\x90\x80\x80",
                                       "\xf5\x80\x80\x80",
                                       "\xff" };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_null(cv_gguf_name_fault(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_string_equal(cv_gguf_name_fault(bad[i], strlen(bad[i])), "is not UTF-8");
    assert_int_equal(cv_gguf_shown("abc"), 3);
    char text[128]; /* 95 letters and an accent that the 96th byte would cut */
    memset(text, 'x', 95);
    memcpy(text + 95, "\xc3\xa9 more", 8);
    assert_int_equal(cv_gguf_shown(text), 95);
}

/* ---- writing --------------------------------------------------------------------------------- */

/* The bytes after `key` in the header that holds it alone. */
static void assert_value_bytes(const cv_meta *meta, const gguf_bytes *expected)
{
    cv_arena arena;
    cv_header header;
    corvid_error err;
    gguf_bytes whole = { 0 };
    cv_arena_init(&arena, &cv_libc_allocator);
    ASSERT_OK(cv_gguf_header(&arena, meta, 1, NULL, 0, &header, &err), &err);
    g_header(&whole, 3, 0, 1);
    g_text(&whole, meta->key);
    g_put(&whole, expected->bytes, expected->n);
    g_pad(&whole, 32);
    assert_int_equal(header.n, whole.n);
    assert_memory_equal(header.bytes, whole.bytes, whole.n);
    assert_int_equal(header.data_bytes, 0);
    cv_arena_free(&arena);
    g_free(&whole);
}

static void assert_integer_bytes(int64_t value, uint32_t type, size_t bytes)
{
    gguf_bytes g = { 0 };
    g_u32(&g, type);
    g_number(&g, (uint64_t)value, bytes);
    assert_value_bytes(&(cv_meta){ .key = "k", .type = CV_META_INT, .integer = value }, &g);
    g_free(&g);
}

/* llama.cpp refuses a count or an id that is not u32, an epsilon that is not f32, and reads token
 * types as an array of i32. */
static void values_have_the_types_readers_insist_on(void **state)
{
    (void)state;
    assert_integer_bytes(0, G_U32, 4);
    assert_integer_bytes(UINT32_MAX, G_U32, 4);
    assert_integer_bytes((int64_t)UINT32_MAX + 1, G_I64, 8);
    assert_integer_bytes(-1, G_I64, 8);

    gguf_bytes g = { 0 };
    g_u32(&g, G_F32), g_f32(&g, 1e-5f);
    assert_value_bytes(&(cv_meta){ .key = "k", .type = CV_META_FLOAT, .number = 1e-5 }, &g);
    g.n = 0;
    g_u32(&g, G_BOOL), g_number(&g, 1, 1);
    assert_value_bytes(&(cv_meta){ .key = "k", .type = CV_META_BOOL, .integer = 5 }, &g);
    g.n = 0;
    g_u32(&g, G_ARRAY), g_array(&g, G_I32, 3), g_u32(&g, 3), g_u32(&g, 0xFFFFFFFF), g_u32(&g, 5);
    const int64_t types[] = { 3, -1, 5 };
    assert_value_bytes(
        &(cv_meta){ .key = "k", .type = CV_META_INTS, .count = 3, .integers = types }, &g);
    g.n = 0;
    g_u32(&g, G_ARRAY), g_array(&g, G_I64, 1), g_u64(&g, (uint64_t)INT32_MAX + 1);
    const int64_t wide[] = { (int64_t)INT32_MAX + 1 };
    assert_value_bytes(&(cv_meta){ .key = "k", .type = CV_META_INTS, .count = 1, .integers = wide },
                       &g);
    g.n = 0;
    g_u32(&g, G_ARRAY), g_array(&g, G_F32, 2), g_f32(&g, 0.5f), g_f32(&g, -INFINITY);
    const double numbers[] = { 0.5, (double)-INFINITY };
    assert_value_bytes(
        &(cv_meta){ .key = "k", .type = CV_META_FLOATS, .count = 2, .numbers = numbers }, &g);
    g.n = 0;
    g_u32(&g, G_ARRAY), g_array(&g, G_TEXT, 2), g_text(&g, "<s>"), g_text(&g, "");
    const cv_text texts[] = { { "<s>", 3 }, { "", 0 } };
    assert_value_bytes(&(cv_meta){ .key = "k", .type = CV_META_TEXTS, .count = 2, .texts = texts },
                       &g);
    g_free(&g);
}

static const cv_dtype written_types[] = { CV_F32,  CV_F16,  CV_BF16, CV_F64,  CV_I8,   CV_I16,
                                          CV_I32,  CV_I64,  CV_Q4_0, CV_Q4_1, CV_Q5_0, CV_Q5_1,
                                          CV_Q8_0, CV_Q4_K, CV_Q5_K, CV_Q6_K };
#define N_WRITTEN (sizeof written_types / sizeof *written_types)

static const int64_t some_integers[] = { 1, -2, 3000000000 };
static const double some_numbers[] = { 0.25, -8.0 };
static const cv_text some_texts[] = { { "\\x00", 4 }, { "", 0 }, { "\xff\0z", 3 } };
static const cv_meta all_metas[] = {
    { .key = "int", .type = CV_META_INT, .integer = -5 },
    { .key = "float", .type = CV_META_FLOAT, .number = 0.5 },
    { .key = "bool", .type = CV_META_BOOL, .integer = 1 },
    { .key = "text", .type = CV_META_TEXT, .text = { "a \xc3\xa9", 4 } },
    { .key = "ints", .type = CV_META_INTS, .count = 3, .integers = some_integers },
    { .key = "floats", .type = CV_META_FLOATS, .count = 2, .numbers = some_numbers },
    { .key = "texts", .type = CV_META_TEXTS, .count = 3, .texts = some_texts },
};
#define N_METAS (sizeof all_metas / sizeof *all_metas)

/* One tensor of 2 x 3 x 256 per type, named after it. */
static void name_tensors(cv_tensor *tensors)
{
    for (size_t i = 0; i < N_WRITTEN; i++)
        tensors[i] = (cv_tensor){ .name = cv_dtype_of(written_types[i])->name,
                                  .dtype = written_types[i],
                                  .n_dims = 3,
                                  .dims = { 2, 3, 256 },
                                  .count = 1536 };
}

static void assert_metas_came_back(const cv_checkpoint *ckpt)
{
    assert_int_equal(ckpt->n_meta, N_METAS);
    for (size_t i = 0; i < N_METAS; i++) {
        const cv_meta *want = &all_metas[i], *got = meta_of(ckpt, want->key, want->type);
        assert_int_equal(got->integer, want->integer);
        assert_true(got->number == want->number);
        assert_int_equal(got->text.n, want->text.n);
        if (want->text.n) assert_memory_equal(got->text.bytes, want->text.bytes, want->text.n);
        assert_int_equal(got->count, want->count);
        for (size_t j = 0; j < want->count; j++) {
            if (want->integers) assert_int_equal(got->integers[j], want->integers[j]);
            if (want->numbers) assert_true(got->numbers[j] == want->numbers[j]);
            if (!want->texts) continue;
            assert_int_equal(got->texts[j].n, want->texts[j].n);
            assert_memory_equal(got->texts[j].bytes, want->texts[j].bytes, want->texts[j].n);
        }
    }
}

static unsigned char data_byte(size_t tensor, size_t i)
{
    return (unsigned char)(31 * tensor + i * 7 + i / 251);
}

static void assert_tensors_came_back(const cv_checkpoint *ckpt)
{
    corvid_error err;
    assert_int_equal(ckpt->n_tensors, N_WRITTEN);
    for (size_t i = 0; i < N_WRITTEN; i++) {
        const cv_tensor *tensor = tensor_of(ckpt, cv_dtype_of(written_types[i])->name);
        size_t bytes;
        assert_int_equal(tensor->dtype, written_types[i]);
        assert_dims(tensor, 3, (const size_t[]){ 2, 3, 256 });
        assert_true(cv_dtype_bytes(tensor->dtype, tensor->count, &bytes));
        unsigned char *data = malloc(bytes);
        ASSERT_OK(cv_tensor_read(ckpt, tensor, 0, tensor->count, data, &err), &err);
        for (size_t j = 0; j < bytes; j++)
            assert_int_equal(data[j], data_byte(i, j));
        free(data);
    }
}

static void header_and_data_come_back(void **state)
{
    (void)state;
    cv_tensor tensors[N_WRITTEN];
    cv_arena arena;
    cv_header header;
    cv_checkpoint ckpt;
    corvid_error err;
    gguf_bytes g = { 0 };
    name_tensors(tensors);
    cv_arena_init(&arena, &cv_libc_allocator);
    ASSERT_OK(cv_gguf_header(&arena, all_metas, N_METAS, tensors, N_WRITTEN, &header, &err), &err);
    assert_int_equal(header.n % 32, 0);
    g_put(&g, header.bytes, header.n);
    for (size_t i = 0; i < N_WRITTEN; i++) {
        size_t bytes;
        assert_int_equal(header.offsets[i] % 32, 0);
        assert_true(g.n <= header.n + header.offsets[i]);
        g_zeros(&g, header.n + header.offsets[i] - g.n);
        assert_true(cv_dtype_bytes(written_types[i], 1536, &bytes));
        for (size_t j = 0; j < bytes; j++)
            g_number(&g, data_byte(i, j), 1);
    }
    g_pad(&g, 32);
    assert_int_equal(g.n, header.n + header.data_bytes);
    cv_arena_free(&arena);

    parse(&g, &ckpt);
    assert_metas_came_back(&ckpt);
    assert_tensors_came_back(&ckpt);
    cv_checkpoint_close(&ckpt);
    g_free(&g);
}

static void file_written_in_pieces_comes_back(void **state)
{
    (void)state;
    cv_tensor tensors[N_WRITTEN];
    cv_writer *writer;
    cv_checkpoint ckpt;
    corvid_error err;
    name_tensors(tensors);
    const char *path = test_scratch("all-types.gguf");
    ASSERT_OK(cv_writer_open(&cv_libc_allocator, path, CV_GGUF, all_metas, N_METAS, tensors,
                             N_WRITTEN, &writer, &err),
              &err);
    for (size_t i = 0; i < N_WRITTEN; i++) {
        size_t bytes;
        assert_true(cv_dtype_bytes(written_types[i], 1536, &bytes));
        unsigned char *data = malloc(bytes);
        for (size_t j = 0; j < bytes; j++)
            data[j] = data_byte(i, j);
        for (size_t done = 0, piece = 1; done < bytes; done += piece, piece = 1000) {
            if (piece > bytes - done) piece = bytes - done;
            ASSERT_OK(cv_writer_put(writer, data + done, piece, &err), &err);
        }
        free(data);
    }
    ASSERT_OK(cv_writer_commit(writer, &err), &err);
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    assert_int_equal(ckpt.format, CV_GGUF);
    assert_int_equal(ckpt.in.size % 32, 0);
    assert_metas_came_back(&ckpt);
    assert_tensors_came_back(&ckpt);
    cv_checkpoint_close(&ckpt);
}

/* Shapes that GGUF has no room for are brought into it where nothing is lost. */
static void odd_shapes_are_fitted(void **state)
{
    (void)state;
    const cv_tensor tensors[] = {
        { .name = "scalar", .dtype = CV_F32, .n_dims = 0, .count = 1 },
        { .name = "five", .dtype = CV_F32, .n_dims = 5, .dims = { 1, 2, 1, 1, 3 }, .count = 6 },
        { .name = "ones", .dtype = CV_F32, .n_dims = 3, .dims = { 1, 1, 3 }, .count = 3 },
    };
    const cv_meta old = { .key = "general.alignment", .type = CV_META_INT, .integer = 4096 };
    cv_arena arena;
    cv_header header;
    cv_checkpoint ckpt;
    corvid_error err;
    gguf_bytes g = { 0 };
    cv_arena_init(&arena, &cv_libc_allocator);
    ASSERT_OK(cv_gguf_header(&arena, &old, 1, tensors, 3, &header, &err), &err);
    g_put(&g, header.bytes, header.n);
    g_zeros(&g, header.data_bytes);
    cv_arena_free(&arena);
    parse(&g, &ckpt);
    assert_int_equal(ckpt.n_meta, 0); /* the alignment of another file is not handed on */
    assert_dims(tensor_of(&ckpt, "scalar"), 1, (const size_t[]){ 1 });
    assert_dims(tensor_of(&ckpt, "five"), 4, (const size_t[]){ 2, 1, 1, 3 });
    assert_dims(tensor_of(&ckpt, "ones"), 3, (const size_t[]){ 1, 1, 3 });
    cv_checkpoint_close(&ckpt);
    g_free(&g);
}

static void assert_not_written(const cv_meta *meta, size_t n_meta, const cv_tensor *tensors,
                               size_t n_tensors, const char *word)
{
    cv_arena arena;
    cv_header header;
    corvid_error err = { 0 };
    cv_arena_init(&arena, &cv_libc_allocator);
    corvid_status status = cv_gguf_header(&arena, meta, n_meta, tensors, n_tensors, &header, &err);
    assert_int_equal(status, CORVID_E_ARGUMENT);
    if (!strstr(err.text, word)) fail_msg("\"%s\" does not say %s", err.text, word);
    cv_arena_free(&arena);
}

static void what_gguf_cannot_hold_is_refused_by_name(void **state)
{
    (void)state;
    const cv_tensor bad[] = {
        { .name = "bytes", .dtype = CV_U8, .n_dims = 1, .dims = { 2 }, .count = 2 },
        { .name = "deep", .dtype = CV_F32, .n_dims = 5, .dims = { 2, 1, 1, 1, 1 }, .count = 2 },
        { .name = "empty", .dtype = CV_F32, .n_dims = 2, .dims = { 0, 3 }, .count = 0 },
        { .name = "rows", .dtype = CV_Q8_0, .n_dims = 2, .dims = { 32, 4 }, .count = 128 },
        { .name = "vast", .dtype = CV_F32, .n_dims = 2, .dims = { SIZE_MAX, 2 }, .count = 0 },
        { .name = "", .dtype = CV_F32, .n_dims = 1, .dims = { 1 }, .count = 1 },
    };
    static const char *const words[] = { "bytes", "deep", "empty", "rows", "vast", "is empty" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_not_written(NULL, 0, &bad[i], 1, words[i]);
    const cv_tensor twice[] = { { .name = "w", .n_dims = 1, .dims = { 1 }, .count = 1 },
                                { .name = "w", .n_dims = 1, .dims = { 1 }, .count = 1 } };
    assert_not_written(NULL, 0, twice, 2, "tensor \"w\"");
    const cv_tensor sum[] = {
        { .name = "a", .dtype = CV_I8, .n_dims = 1, .dims = { SIZE_MAX / 2 + 1 } },
        { .name = "b", .dtype = CV_I8, .n_dims = 1, .dims = { SIZE_MAX / 2 + 1 } },
    };
    assert_not_written(NULL, 0, sum, 2, "\"b\"");

    const cv_meta keys[] = { { .key = "k", .type = CV_META_INT },
                             { .key = "k", .type = CV_META_INT } };
    assert_not_written(keys, 2, NULL, 0, "key \"k\"");
    assert_not_written(&(cv_meta){ .key = "a\nb" }, 1, NULL, 0, "control");
    assert_not_written(&(cv_meta){ .key = "a\xff" }, 1, NULL, 0, "UTF-8");
    assert_not_written(&(cv_meta){ .key = "big", .type = CV_META_FLOAT, .number = 1e39 }, 1, NULL,
                       0, "big");
    assert_not_written(
        &(cv_meta){
            .key = "big", .type = CV_META_FLOATS, .count = 1, .numbers = &(double){ -1e39 } },
        1, NULL, 0, "big");
}

static void every_allocation_of_the_writer_may_fail(void **state)
{
    (void)state;
    cv_tensor tensors[N_WRITTEN];
    name_tensors(tensors);
    bool done = false;
    for (size_t nth = 1; !done; nth++) {
        test_allocator a;
        cv_arena arena;
        cv_header header;
        corvid_error err;
        test_allocator_init(&a);
        a.fail_at = nth;
        cv_arena_init(&arena, &a.api);
        corvid_status status =
            cv_gguf_header(&arena, all_metas, N_METAS, tensors, N_WRITTEN, &header, &err);
        done = a.calls < nth;
        assert_int_equal(status, done ? CORVID_OK : CORVID_E_MEMORY);
        cv_arena_free(&arena);
        assert_int_equal(a.live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_file_is_read),
        cmocka_unit_test(small_file_is_written),
        cmocka_unit_test(every_value_type_is_read),
        cmocka_unit_test(arrays_are_read),
        cmocka_unit_test(nested_arrays_are_left_out),
        cmocka_unit_test(version_2_with_alignment_64),
        cmocka_unit_test(big_vocabulary_is_quick),
        cmocka_unit_test(long_texts_are_read),
        cmocka_unit_test(names_are_utf8),
        cmocka_unit_test(values_have_the_types_readers_insist_on),
        cmocka_unit_test(header_and_data_come_back),
        cmocka_unit_test(file_written_in_pieces_comes_back),
        cmocka_unit_test(odd_shapes_are_fitted),
        cmocka_unit_test(what_gguf_cannot_hold_is_refused_by_name),
        cmocka_unit_test(every_allocation_of_the_writer_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
