/* test_hostile_gguf.c - GGUF files made to do harm: each is refused with the right status and a text
 * that says where, within 100 ms and little memory, and so is each when memory runs out halfway.
 *
 * Failures that other readers of the format had carry the number they became known by. */
#include "support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "formats/checkpoint.h"
#include "gguf_bytes.h"

#define ONE  ((const uint64_t[]){ 1, 1, 1, 1, 1, 1, 1, 1, 1 })
#define ROOM ((size_t)16 << 20)

/* ---- the files ------------------------------------------------------------------------------ */

/* A good file, the start of every test here: two keys, two tensors, data to the last byte. */
static void good_file(gguf_bytes *g)
{
    g_header(g, 3, 2, 3);
    g_key(g, "general.architecture", G_TEXT), g_text(g, "rwkv7");
    g_key(g, "tokenizer.ggml.tokens", G_ARRAY), g_array(g, G_TEXT, 2);
    g_text(g, "<s>"), g_text(g, "\\x00");
    g_key(g, "tokenizer.ggml.token_type", G_ARRAY), g_array(g, G_I32, 2), g_u32(g, 3), g_u32(g, 1);
    g_tensor(g, "output.weight", 2, (const uint64_t[]){ 32, 2 }, G_TENSOR_Q8_0, 0);
    g_tensor(g, "output_norm.weight", 1, (const uint64_t[]){ 3 }, G_TENSOR_F32, 96);
    g_pad(g, 32);
    g_zeros(g, 96 + 12);
}

static void magic(gguf_bytes *g)
{
    good_file(g);
    g->bytes[3] = 'X';
}

static void magic_backwards(gguf_bytes *g)
{
    good_file(g);
    memcpy(g->bytes, "FUGG", 4);
}

static void nothing_but_magic(gguf_bytes *g)
{
    g_put(g, "GGUF", 4);
}

static void version(gguf_bytes *g, uint32_t number)
{
    good_file(g);
    for (size_t i = 0; i < 4; i++)
        g->bytes[4 + i] = (unsigned char)(number >> 8 * i);
}

static void version_0(gguf_bytes *g)
{
    version(g, 0);
}

static void version_1(gguf_bytes *g)
{
    version(g, 1);
}

static void version_4(gguf_bytes *g)
{
    version(g, 4);
}

static void version_byte_swapped(gguf_bytes *g)
{
    version(g, 0x03000000);
}

static void tensors_2_to_the_63(gguf_bytes *g)
{
    g_header(g, 3, (uint64_t)1 << 63, 0);
}

static void keys_2_to_the_64(gguf_bytes *g)
{
    g_header(g, 3, 0, UINT64_MAX);
}

static void keys_one_too_many_for_the_file(gguf_bytes *g)
{
    g_header(g, 3, 0, 11);
    g_zeros(g, 150); /* room for ten of the smallest */
}

static void key_empty(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "", G_U64), g_u64(g, 1);
}

static void key_beyond_64_kib(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_u64(g, 65536);
    for (size_t i = 0; i < 65536; i++)
        g_put(g, "k", 1);
    g_u32(g, G_U64), g_u64(g, 1);
}

static void key_length_2_to_the_64(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_u64(g, UINT64_MAX);
    g_zeros(g, 64);
}

static void key_not_utf8(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "general.\xc0\xae", G_U64), g_u64(g, 1);
}

static void key_with_escape_codes(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "\033[2Jgeneral", G_U64), g_u64(g, 1);
}

static void key_with_a_zero_inside(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_u64(g, 3), g_put(g, "a\0b", 3), g_u32(g, G_U8), g_number(g, 0, 1);
}

static void key_twice(gguf_bytes *g)
{
    g_header(g, 3, 0, 3);
    g_key(g, "twin", G_U8), g_number(g, 1, 1);
    g_key(g, "other", G_U8), g_number(g, 1, 1);
    g_key(g, "twin", G_U32), g_u32(g, 2);
}

static void value_of_unknown_type(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "strange", 13), g_u64(g, 0);
}

static void bool_of_2(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "perhaps", G_BOOL), g_number(g, 2, 1);
}

static void integer_beyond_63_bits(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "large", G_U64), g_u64(g, (uint64_t)1 << 63);
}

static void text_of_2_to_the_64(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "endless", G_TEXT), g_u64(g, UINT64_MAX), g_zeros(g, 64);
}

static void text_one_byte_too_long(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "longish", G_TEXT), g_u64(g, 65), g_zeros(g, 64);
}

static void array_of_unknown_type(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "strange", G_ARRAY), g_array(g, 0xFFFFFFFF, 1), g_u64(g, 0);
}

static void array_count_times_size_wraps(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "wrapped", G_ARRAY), g_array(g, G_U64, ((uint64_t)1 << 61) + 1), g_zeros(g, 64);
}

static void arrays_nest_three_deep(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "matryoshka", G_ARRAY), g_array(g, G_ARRAY, 1), g_array(g, G_ARRAY, 1);
    g_array(g, G_U8, 1), g_number(g, 1, 1);
}

/* A reader that calls itself for each level runs out of stack. */
static void arrays_nest_a_million_deep(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "matryoshka", G_ARRAY);
    for (int i = 0; i < 1000000; i++)
        g_array(g, G_ARRAY, 1);
    g_array(g, G_U8, 0);
}

static void nested_text_beyond_the_end(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "inner", G_ARRAY), g_array(g, G_ARRAY, 1), g_array(g, G_TEXT, 1), g_u64(g, 1000);
}

/* ollama#17042: a count alone made readers allocate for it. */
static void ollama_17042_160_bytes_force_gigabytes(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "tokenizer.ggml.tokens", G_ARRAY), g_array(g, G_TEXT, (uint64_t)1 << 30);
    g_zeros(g, 160 - g->n);
}

/* llama.cpp#26690: the count suits the key, the type does not. */
static void llama_26690_elements_wider_than_the_bytes(gguf_bytes *g)
{
    g_header(g, 3, 0, 1);
    g_key(g, "tokenizer.ggml.token_type", G_ARRAY), g_array(g, G_I64, 64), g_zeros(g, 64 * 4);
}

static void with_alignment(gguf_bytes *g, uint64_t alignment)
{
    g_header(g, 3, 1, 1);
    g_key(g, "general.alignment", G_U32), g_u32(g, alignment);
    g_tensor(g, "w", 1, ONE, G_TENSOR_F32, 0);
    g_zeros(g, 256);
}

static void gguf_tools_27_alignment_0(gguf_bytes *g)
{
    with_alignment(g, 0);
}

static void alignment_3(gguf_bytes *g)
{
    with_alignment(g, 3);
}

static void alignment_4(gguf_bytes *g)
{
    with_alignment(g, 4);
}

static void alignment_2_to_the_31(gguf_bytes *g)
{
    with_alignment(g, (uint64_t)1 << 31);
}

static void alignment_beyond_the_file(gguf_bytes *g)
{
    with_alignment(g, 1 << 20);
}

static void alignment_is_a_text(gguf_bytes *g)
{
    g_header(g, 3, 1, 1);
    g_key(g, "general.alignment", G_TEXT), g_text(g, "32");
    g_tensor(g, "w", 1, ONE, G_TENSOR_F32, 0);
    g_zeros(g, 64);
}

static void one_tensor(gguf_bytes *g, uint32_t n_dims, const uint64_t *ne, uint32_t type,
                       uint64_t offset)
{
    g_header(g, 3, 1, 0);
    g_tensor(g, "blk.0.w", n_dims, ne, type, offset);
    g_pad(g, 32);
    g_zeros(g, 128);
}

static void dims_0(gguf_bytes *g)
{
    one_tensor(g, 0, ONE, G_TENSOR_F32, 0);
}

static void dims_5(gguf_bytes *g)
{
    one_tensor(g, 5, ONE, G_TENSOR_F32, 0);
}

/* CVE-2024-21802: as many lengths as the file says were written into an array of four. */
static void cve_2024_21802_dims_2_to_the_30(gguf_bytes *g)
{
    g_header(g, 3, 1, 0);
    g_text(g, "blk.0.w");
    g_u32(g, (uint64_t)1 << 30);
    for (int i = 0; i < 64; i++)
        g_u64(g, 0x4141414141414141);
}

/* gguf-tools#25: the same in an array of eight. */
static void gguf_tools_25_dims_9(gguf_bytes *g)
{
    one_tensor(g, 9, ONE, G_TENSOR_F32, 0);
}

/* whisper.cpp#3864: the check for overflow divides by each length. */
static void whisper_3864_dim_of_0(gguf_bytes *g)
{
    one_tensor(g, 3, (const uint64_t[]){ 4, 0, 2 }, G_TENSOR_F32, 0);
}

static void dim_product_wraps_to_4(gguf_bytes *g)
{
    one_tensor(g, 2, (const uint64_t[]){ ((uint64_t)1 << 62) + 1, 4 }, G_TENSOR_F16, 0);
}

static void dim_negative(gguf_bytes *g)
{
    one_tensor(g, 2, (const uint64_t[]){ UINT64_MAX, UINT64_MAX }, G_TENSOR_F32, 0);
}

static void bytes_wrap_to_4(gguf_bytes *g)
{
    one_tensor(g, 1, (const uint64_t[]){ ((uint64_t)1 << 62) + 1 }, G_TENSOR_F32, 0);
}

static void row_is_no_multiple_of_the_block(gguf_bytes *g)
{
    one_tensor(g, 2, (const uint64_t[]){ 16, 2 }, G_TENSOR_Q8_0, 0); /* 32 elements, in halves */
}

static void row_is_no_multiple_of_256(gguf_bytes *g)
{
    one_tensor(g, 2, (const uint64_t[]){ 288, 8 }, G_TENSOR_Q4_K, 0);
}

static void type_of_no_meaning(gguf_bytes *g)
{
    one_tensor(g, 1, ONE, 4000000000u, 0);
}

static void type_not_supported(gguf_bytes *g)
{
    one_tensor(g, 1, (const uint64_t[]){ 256 }, 16, 0);
}

static void type_removed(gguf_bytes *g)
{
    one_tensor(g, 1, (const uint64_t[]){ 32 }, 4, 0);
}

static void offset_beyond_the_file(gguf_bytes *g)
{
    one_tensor(g, 1, ONE, G_TENSOR_F32, 4096);
}

static void offset_wraps(gguf_bytes *g)
{
    one_tensor(g, 1, ONE, G_TENSOR_F32, UINT64_MAX - 31);
}

static void offset_misaligned(gguf_bytes *g)
{
    one_tensor(g, 1, ONE, G_TENSOR_F32, 4);
}

/* CVE-2026-7482: the shape promises more than the file has, and was believed. */
static void cve_2026_7482_size_beyond_the_file(gguf_bytes *g)
{
    one_tensor(g, 2, (const uint64_t[]){ 16384, 16384 }, G_TENSOR_F32, 0);
}

static void last_byte_missing(gguf_bytes *g)
{
    good_file(g);
    g->n--;
}

/* CVE-2025-53630: two sizes that are each possible and whose sum is small again. */
static void cve_2025_53630_summed_sizes_wrap(gguf_bytes *g)
{
    g_header(g, 3, 2, 0);
    g_tensor(g, "half", 1, (const uint64_t[]){ (uint64_t)1 << 61 }, G_TENSOR_F32, 0);
    g_tensor(g, "rest", 1, (const uint64_t[]){ ((uint64_t)1 << 61) + 8 }, G_TENSOR_F32,
             (uint64_t)1 << 63);
    g_pad(g, 32);
    g_zeros(g, 128);
}

/* CVE-2026-27940, which got past the mend of that one: the rounding up is what wraps. */
static void cve_2026_27940_padded_size_wraps(gguf_bytes *g)
{
    g_header(g, 3, 2, 0);
    g_tensor(g, "half", 1, (const uint64_t[]){ ((uint64_t)1 << 63) - 1 }, G_TENSOR_F16, 0);
    g_tensor(g, "rest", 1, ONE, G_TENSOR_F32, 0);
    g_pad(g, 32);
    g_zeros(g, 128);
}

/* Many tensors over the same bytes would make a small file a large model. */
static void data_overlap(gguf_bytes *g)
{
    g_header(g, 3, 2, 0);
    g_tensor(g, "first", 1, (const uint64_t[]){ 16 }, G_TENSOR_F32, 0);
    g_tensor(g, "second", 1, (const uint64_t[]){ 16 }, G_TENSOR_F32, 32);
    g_pad(g, 32);
    g_zeros(g, 128);
}

static void tensor_twice(gguf_bytes *g)
{
    g_header(g, 3, 3, 0);
    g_tensor(g, "twin", 1, ONE, G_TENSOR_F32, 0);
    g_tensor(g, "other", 1, ONE, G_TENSOR_F32, 32);
    g_tensor(g, "twin", 1, ONE, G_TENSOR_F32, 64);
    g_pad(g, 32);
    g_zeros(g, 128);
}

static void tensor_name_not_utf8(gguf_bytes *g)
{
    g_header(g, 3, 1, 0);
    g_tensor(g, "w\xed\xa0\x80", 1, ONE, G_TENSOR_F32, 0); /* half of a UTF-16 pair */
    g_zeros(g, 64);
}

static void tensor_name_beyond_the_file(gguf_bytes *g)
{
    g_header(g, 3, 1, 0);
    g_u64(g, 60000);
    g_zeros(g, 64);
}

/* ---- what is asked of each ------------------------------------------------------------------ */

typedef struct hostile {
    void (*make)(gguf_bytes *g);
    const char *says; /* part of the text */
} hostile;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* Parses g, which leaves nothing allocated; the bytes are a block of their own, so that a sanitizer
 * sees the first read beyond them. */
static corvid_status parse(const gguf_bytes *g, test_allocator *a, corvid_error *err)
{
    unsigned char *copy = malloc(g->n ? g->n : 1);
    if (g->n) memcpy(copy, g->bytes, g->n);
    cv_input in;
    cv_checkpoint ckpt;
    cv_input_memory(&in, copy, g->n, "hostile.gguf");
    memset(err, 0, sizeof *err);
    corvid_status status = cv_checkpoint_parse(&a->api, &in, &ckpt, err);
    if (status == CORVID_OK) cv_checkpoint_close(&ckpt);
    free(copy);
    assert_int_equal(a->live, 0);
    return status;
}

/* Every allocation fails once: the only other answer is that memory is short. */
static void starve(const gguf_bytes *g, corvid_status expected)
{
    corvid_error err;
    for (size_t nth = 1;; nth++) {
        test_allocator a;
        test_allocator_init(&a);
        a.fail_at = nth;
        corvid_status status = parse(g, &a, &err);
        bool failed = a.calls >= nth;
        assert_int_equal(status, failed ? CORVID_E_MEMORY : expected);
        if (!failed) return;
    }
}

static void is_refused(void **state)
{
    const hostile *h = *state;
    gguf_bytes g = { 0 };
    test_allocator a;
    corvid_error err;
    h->make(&g);
    test_allocator_init(&a);
    double start = now_ms();
    corvid_status status = parse(&g, &a, &err);
    double took = now_ms() - start;
    assert_int_equal(status, CORVID_E_FORMAT);
    assert_int_equal(err.status, CORVID_E_FORMAT);
    if (!strstr(err.text, h->says)) fail_msg("\"%s\" does not say \"%s\"", err.text, h->says);
    assert_non_null(strstr(err.text, "hostile.gguf"));
    assert_true(strstr(err.text, "offset") || strchr(err.text, '"'));
    if (took > 100) fail_msg("took %.0f ms", took);
    if (a.peak_bytes > 16 * g.n + ROOM) fail_msg("took %zu bytes of memory", a.peak_bytes);
    starve(&g, CORVID_E_FORMAT);
    g_free(&g);
}

/* Every file above is refused for its one fault only if this one is not. */
static void good_file_is_accepted(void **state)
{
    (void)state;
    gguf_bytes g = { 0 };
    test_allocator a;
    corvid_error err;
    good_file(&g);
    test_allocator_init(&a);
    ASSERT_OK(parse(&g, &a, &err), &err);
    assert_true(a.peak_bytes <= 16 * g.n + ROOM);
    starve(&g, CORVID_OK);
    g_free(&g);
}

static void cut_at_every_byte(void **state)
{
    (void)state;
    gguf_bytes g = { 0 };
    corvid_error err;
    good_file(&g);
    size_t n = g.n;
    for (g.n = 0; g.n < n; g.n++) {
        test_allocator a;
        test_allocator_init(&a);
        assert_int_equal(parse(&g, &a, &err), CORVID_E_FORMAT);
        if (!strstr(err.text, "offset")) fail_msg("cut at %zu: \"%s\"", g.n, err.text);
    }
    g_free(&g);
}

/* One byte of the header changed to values that matter: refused or not, but no worse. */
static void every_byte_changed(void **state)
{
    (void)state;
    static const unsigned char values[] = { 0, 1, 5, 9, 0x7F, 0x80, 0xFF };
    gguf_bytes g = { 0 };
    corvid_error err;
    good_file(&g);
    size_t refused = 0;
    for (size_t i = 0; i < g.n - 108; i++)
        for (size_t k = 0; k < sizeof values; k++) {
            unsigned char before = g.bytes[i];
            test_allocator a;
            test_allocator_init(&a);
            g.bytes[i] = values[k];
            corvid_status status = parse(&g, &a, &err);
            assert_true(status == CORVID_OK || status == CORVID_E_FORMAT);
            assert_true(a.peak_bytes <= 16 * g.n + ROOM);
            refused += status != CORVID_OK;
            g.bytes[i] = before;
        }
    assert_true(refused > 500);
    g_free(&g);
}

/* The size of the file is no licence either: a hole of 8 GiB costs nobody anything. */
static void text_of_gigabytes_in_a_sparse_file(void **state)
{
    (void)state;
    gguf_bytes g = { 0 };
    test_allocator a;
    cv_checkpoint ckpt;
    corvid_error err;
    g_header(&g, 3, 0, 1);
    g_key(&g, "hollow", G_TEXT), g_u64(&g, (uint64_t)7 << 30);
    const char *path = test_scratch("sparse.gguf");
    test_write_file(path, g.bytes, g.n);
    if (truncate(path, (off_t)8 << 30) != 0) {
        print_message("SKIP: no sparse files here\n");
        g_free(&g);
        skip();
    }
    test_allocator_init(&a);
    double start = now_ms();
    assert_int_equal(cv_checkpoint_open(&a.api, path, &ckpt, &err), CORVID_E_FORMAT);
    assert_true(now_ms() - start < 100);
    assert_non_null(strstr(err.text, "key \"hollow\""));
    assert_true(a.peak_bytes <= ROOM);
    assert_int_equal(a.live, 0);
    g_free(&g);
}

/* The most keys that a file of a few MB can hold: memory and time stay in proportion. */
static void crowded_header_stays_in_proportion(void **state)
{
    (void)state;
    enum { KEYS = 200000 };
    gguf_bytes g = { 0 };
    test_allocator a;
    corvid_error err;
    g_header(&g, 3, 0, KEYS);
    for (unsigned i = 0; i < KEYS; i++) {
        char key[4] = { (char)('0' + i % 64), (char)('0' + i / 64 % 64), (char)('0' + i / 4096),
                        0 };
        g_key(&g, key, G_U8), g_number(&g, 0, 1);
    }
    test_allocator_init(&a);
    ASSERT_OK(parse(&g, &a, &err), &err);
    print_message("%zu bytes of header, %zu of memory\n", g.n, a.peak_bytes);
    assert_true(a.peak_bytes <= 16 * g.n);
    g_free(&g);
}

/* ---- the list -------------------------------------------------------------------------------- */

/* Name of the test, how the file is made, what the text says. */
#define REFUSED(maker, words)                                                \
    {                                                                        \
        .name = #maker, .test_func = is_refused, .initial_state = &(hostile) \
        {                                                                    \
            .make = maker, .says = words                                     \
        }                                                                    \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_file_is_accepted),
        cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(every_byte_changed),
        cmocka_unit_test(text_of_gigabytes_in_a_sparse_file),
        cmocka_unit_test(crowded_header_stays_in_proportion),
        REFUSED(magic, "offset 0"),
        REFUSED(magic_backwards, "offset 0"),
        REFUSED(nothing_but_magic, "ends at byte 4"),
        REFUSED(version_0, "version 0 at offset 4"),
        REFUSED(version_1, "version 1 at offset 4"),
        REFUSED(version_4, "version 4 at offset 4"),
        REFUSED(version_byte_swapped, "big-endian"),
        REFUSED(tensors_2_to_the_63, "claims 9223372036854775808 tensors at offset 8"),
        REFUSED(keys_2_to_the_64, "claims 18446744073709551615 keys at offset 16"),
        REFUSED(keys_one_too_many_for_the_file, "claims 11 keys at offset 16"),
        REFUSED(key_empty, "key 1 of 1 at offset 24 is empty"),
        REFUSED(key_beyond_64_kib, "offset 24 is longer than 65535 bytes"),
        REFUSED(key_length_2_to_the_64, "offset 24 is longer than 65535 bytes"),
        REFUSED(key_not_utf8, "offset 24 is not UTF-8"),
        REFUSED(key_with_escape_codes, "offset 24 holds a control character"),
        REFUSED(key_with_a_zero_inside, "offset 24 holds a control character"),
        REFUSED(key_twice, "\"twin\" occurs twice"),
        REFUSED(value_of_unknown_type, "key \"strange\": value type 13 at offset 39"),
        REFUSED(bool_of_2, "key \"perhaps\": value 2 at offset 43"),
        REFUSED(integer_beyond_63_bits, "key \"large\": value 9223372036854775808 at offset 41"),
        REFUSED(text_of_2_to_the_64,
                "key \"endless\" takes 18446744073709551615 bytes at offset 51"),
        REFUSED(text_one_byte_too_long, "key \"longish\" takes 65 bytes at offset 51"),
        REFUSED(array_of_unknown_type, "key \"strange\": value type 4294967295 at offset 43"),
        REFUSED(array_count_times_size_wraps, "key \"wrapped\" takes 18446744073709551615 bytes"),
        REFUSED(arrays_nest_three_deep, "key \"matryoshka\": arrays nest three deep at offset 58"),
        REFUSED(arrays_nest_a_million_deep, "arrays nest three deep at offset 58"),
        REFUSED(nested_text_beyond_the_end, "key \"inner\" takes 1000 bytes"),
        REFUSED(ollama_17042_160_bytes_force_gigabytes, "takes 8589934592 bytes at offset 69"),
        REFUSED(llama_26690_elements_wider_than_the_bytes, "takes 512 bytes at offset 73"),
        REFUSED(gguf_tools_27_alignment_0, "\"general.alignment\" is 0"),
        REFUSED(alignment_3, "\"general.alignment\" is 3"),
        REFUSED(alignment_4, "\"general.alignment\" is 4"),
        REFUSED(alignment_2_to_the_31, "\"general.alignment\" is 2147483648"),
        REFUSED(alignment_beyond_the_file, "tensor \"w\": 4 bytes of data at offset 1048576"),
        REFUSED(alignment_is_a_text, "\"general.alignment\" is not an integer"),
        REFUSED(dims_0, "tensor \"blk.0.w\": 0 dimensions at offset 39"),
        REFUSED(dims_5, "tensor \"blk.0.w\": 5 dimensions at offset 39"),
        REFUSED(cve_2024_21802_dims_2_to_the_30, "1073741824 dimensions at offset 39"),
        REFUSED(gguf_tools_25_dims_9, "9 dimensions at offset 39"),
        REFUSED(whisper_3864_dim_of_0, "tensor \"blk.0.w\": dimension 1 is 0"),
        REFUSED(dim_product_wraps_to_4, "tensor \"blk.0.w\": the product"),
        REFUSED(dim_negative, "tensor \"blk.0.w\": the product"),
        REFUSED(bytes_wrap_to_4, "tensor \"blk.0.w\": the product"),
        REFUSED(row_is_no_multiple_of_the_block, "rows of 16 elements, expected a multiple of 32"),
        REFUSED(row_is_no_multiple_of_256, "rows of 288 elements, expected a multiple of 256"),
        REFUSED(type_of_no_meaning, "element type 4000000000 is unknown"),
        REFUSED(type_not_supported, "tensor \"blk.0.w\": iq2_xxs is not supported; requantize"),
        REFUSED(type_removed, "tensor \"blk.0.w\": q4_2 is not supported"),
        REFUSED(offset_beyond_the_file, "4 bytes of data at offset 64 + 4096"),
        REFUSED(offset_wraps,
                "tensor \"blk.0.w\": 4 bytes of data at offset 64 + 1844674407370955158"),
        REFUSED(offset_misaligned, "tensor \"blk.0.w\": data at offset 4"),
        REFUSED(cve_2026_7482_size_beyond_the_file, "1073741824 bytes of data at offset 96"),
        REFUSED(last_byte_missing, "tensor \"output_norm.weight\": 12 bytes of data"),
        REFUSED(cve_2025_53630_summed_sizes_wrap, "tensor \"half\": 9223372036854775808 bytes"),
        REFUSED(cve_2026_27940_padded_size_wraps, "tensor \"half\": 18446744073709551614 bytes"),
        REFUSED(data_overlap, "tensor \"second\": data at offset 32"),
        REFUSED(tensor_twice, "\"twin\""),
        REFUSED(tensor_name_not_utf8, "tensor 1 of 1 at offset 24 is not UTF-8"),
        REFUSED(tensor_name_beyond_the_file, "tensor 1 of 1 takes 60000 bytes at offset 32"),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
