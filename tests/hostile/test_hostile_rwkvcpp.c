/* test_hostile_rwkvcpp.c - malformed rwkv.cpp files, one per failure class, each refused.
 *
 * `test_hostile_rwkvcpp --write FOLDER` writes the small ones as a corpus for the fuzzer. */
#include "refusal.h"

/* ---- files in memory ------------------------------------------------------------------------ */

typedef struct file {
    unsigned char bytes[4096];
    size_t n;
} file;

static void put(file *f, const void *bytes, size_t n)
{
    assert_true(f->n + n <= sizeof f->bytes);
    memcpy(f->bytes + f->n, bytes, n);
    f->n += n;
}

static void put_int(file *f, int32_t value)
{
    const uint32_t u = (uint32_t)value;
    const unsigned char raw[4] = { (unsigned char)u, (unsigned char)(u >> 8),
                                   (unsigned char)(u >> 16), (unsigned char)(u >> 24) };
    put(f, raw, 4);
}

static void put_header(file *f, int32_t version, int32_t type)
{
    put(f, "fmgg", 4);
    put_int(f, version);
    put_int(f, 256);
    put_int(f, 64);
    put_int(f, 2);
    put_int(f, type);
}

/* A tensor of two dims (the row's length first) with `data` bytes behind it. */
static void put_tensor(file *f, int32_t type, int32_t row, int32_t rows, const char *name,
                       size_t data)
{
    static const unsigned char zeros[2048];
    put_int(f, 2);
    put_int(f, (int32_t)strlen(name));
    put_int(f, type);
    put_int(f, row);
    put_int(f, rows);
    put(f, name, strlen(name));
    put(f, zeros, data);
}

static void put_three_dims(file *f, int32_t a, int32_t b, int32_t c, const char *name)
{
    put_int(f, 3);
    put_int(f, (int32_t)strlen(name));
    put_int(f, 0);
    put_int(f, a);
    put_int(f, b);
    put_int(f, c);
    put(f, name, strlen(name));
    put(f, "\0\0\0\0", 4);
}

/* The same damage at some place of a good file. */
static void patch(file *f, size_t at, int32_t value)
{
    file word = { .n = 0 };
    put_int(&word, value);
    memcpy(f->bytes + at, word.bytes, 4);
}

/* 24 bytes of header; tensor "a" [2,3] of FP32 at 24 with its data at 45; ends at 69. */
static void good(file *f)
{
    put_header(f, 101, 0);
    put_tensor(f, 0, 3, 2, "a", 24);
}

enum { N_DIMS_AT = 24, NAME_BYTES_AT = 28, TYPE_AT = 32, ROW_AT = 36, ROWS_AT = 40, NAME_AT = 44 };

/* ---- one maker per failure ------------------------------------------------------------------ */

static void wrong_magic(file *f)
{
    good(f);
    f->bytes[0] = 'F';
}
static void unversioned_magic(file *f)
{
    good(f);
    f->bytes[0] = 'l'; /* "lmgg" */
}
static void version_99(file *f)
{
    good(f);
    patch(f, 4, 99);
}
static void version_102(file *f)
{
    good(f);
    patch(f, 4, 102);
}
static void negative_vocab(file *f)
{
    good(f);
    patch(f, 8, -256);
}
static void zero_embed(file *f)
{
    good(f);
    patch(f, 12, 0);
}
static void zero_layers(file *f)
{
    good(f);
    patch(f, 16, 0);
}
static void unknown_bulk_type(file *f)
{
    good(f);
    patch(f, 20, 77);
}
static void removed_bulk_type(file *f)
{
    good(f);
    patch(f, 20, 5);
}
static void quantized_bulk_in_100(file *f)
{
    good(f);
    patch(f, 4, 100);
    patch(f, 20, 7);
}
static void no_tensors(file *f)
{
    put_header(f, 101, 0);
}
static void no_dims(file *f)
{
    good(f);
    patch(f, N_DIMS_AT, 0);
}
static void nine_dims(file *f)
{
    good(f);
    patch(f, N_DIMS_AT, 9);
}
static void negative_dim_count(file *f)
{
    good(f);
    patch(f, N_DIMS_AT, -1);
}
static void most_dims(file *f)
{
    good(f);
    patch(f, N_DIMS_AT, INT32_MAX);
}
static void no_name(file *f)
{
    good(f);
    patch(f, NAME_BYTES_AT, 0);
}
static void negative_name(file *f)
{
    good(f);
    patch(f, NAME_BYTES_AT, -1);
}
static void huge_name(file *f)
{
    good(f);
    patch(f, NAME_BYTES_AT, INT32_MAX);
}
static void name_past_the_end(file *f)
{
    good(f);
    patch(f, NAME_BYTES_AT, 1000);
}
static void name_not_utf8(file *f)
{
    good(f);
    f->bytes[NAME_AT] = 0xff;
}
static void name_with_zero(file *f)
{
    good(f);
    f->bytes[NAME_AT] = 0;
}
static void name_with_newline(file *f)
{
    good(f);
    f->bytes[NAME_AT] = '\n';
}
static void unknown_type(file *f)
{
    good(f);
    patch(f, TYPE_AT, 17);
}
static void negative_type(file *f)
{
    good(f);
    patch(f, TYPE_AT, -1);
}
static void unsupported_type(file *f)
{
    good(f);
    patch(f, TYPE_AT, 11);
}
static void removed_type(file *f)
{
    good(f);
    patch(f, TYPE_AT, 4);
}
static void quantized_in_100(file *f)
{
    put_header(f, 100, 0);
    put_tensor(f, 2, 32, 1, "a", 18);
}
static void zero_dim(file *f)
{
    good(f);
    patch(f, ROW_AT, 0);
}
static void negative_dim(file *f)
{
    good(f);
    patch(f, ROWS_AT, -2);
}
static void two_negative_dims(file *f) /* whose product is the right size */
{
    good(f);
    patch(f, ROW_AT, -3);
    patch(f, ROWS_AT, -2);
}
static void dims_overflow(file *f) /* the product of three does not fit in 64 bits */
{
    put_header(f, 101, 0);
    put_three_dims(f, INT32_MAX, INT32_MAX, INT32_MAX, "a");
}
static void bytes_overflow(file *f) /* 2^62 elements of four bytes wrap to zero bytes */
{
    put_header(f, 101, 0);
    put_three_dims(f, 1 << 21, 1 << 21, 1 << 20, "a");
}
static void data_past_the_end(file *f)
{
    good(f);
    patch(f, ROWS_AT, 3);
}
static void terabytes(file *f)
{
    good(f);
    patch(f, ROW_AT, 1 << 20);
    patch(f, ROWS_AT, 1 << 20);
}
static void block_does_not_divide(file *f) /* 48 x 2 elements are whole blocks, its rows are not */
{
    put_header(f, 101, 2);
    put_tensor(f, 2, 48, 2, "a", 54);
}
static void k_block_does_not_divide(file *f)
{
    put_header(f, 101, 13);
    put_tensor(f, 13, 128, 2, "a", 144);
}
static void same_name_twice(file *f)
{
    good(f);
    put_tensor(f, 0, 1, 1, "b", 4);
    put_tensor(f, 0, 1, 1, "a", 4);
}
static void trailing_byte(file *f)
{
    good(f);
    put(f, "x", 1);
}
static void trailing_text(file *f)
{
    good(f);
    put(f, "this is no tensor", 17);
}

typedef struct hostile {
    const char *name;
    void (*make)(file *f);
    const char *needle;
} hostile;

static const hostile CASES[] = {
    { "wrong_magic", wrong_magic, "46 6d 67 67" },
    { "unversioned_magic", unversioned_magic, "without a version" },
    { "version_99", version_99, "offset 4: rwkv.cpp file version 99" },
    { "version_102", version_102, "expected 100 or 101" },
    { "negative_vocab", negative_vocab, "offset 8: n_vocab is -256" },
    { "zero_embed", zero_embed, "offset 12: n_embed is 0" },
    { "zero_layers", zero_layers, "offset 16: n_layer is 0" },
    { "unknown_bulk_type", unknown_bulk_type, "offset 20: the header's data_type has the unknown" },
    { "removed_bulk_type", removed_bulk_type, "offset 20: the header's data_type" },
    { "quantized_bulk_in_100", quantized_bulk_in_100, "version 100" },
    { "no_tensors", no_tensors, "offset 24: the file ends after its header" },
    { "no_dims", no_dims, "offset 24: a tensor of 0 dims" },
    { "nine_dims", nine_dims, "offset 24: a tensor of 9 dims" },
    { "negative_dim_count", negative_dim_count, "offset 24: a tensor of -1 dims" },
    { "most_dims", most_dims, "expected 1 to 3" },
    { "no_name", no_name, "offset 28: a tensor's name of 0 bytes" },
    { "negative_name", negative_name, "offset 28: a tensor's name of -1 bytes" },
    { "huge_name", huge_name, "offset 28: a tensor's name of 2147483647 bytes" },
    { "name_past_the_end", name_past_the_end, "ends at byte 69, wanted 1008 bytes at 36" },
    { "name_not_utf8", name_not_utf8, "offset 44: a tensor's name of 1 bytes is not UTF-8" },
    { "name_with_zero", name_with_zero, "offset 44" },
    { "name_with_newline", name_with_newline, "offset 44" },
    { "unknown_type", unknown_type, "offset 32: a tensor has the unknown element type 17" },
    { "negative_type", negative_type, "offset 32: a tensor has the unknown element type -1" },
    { "unsupported_type", unsupported_type, "11 (Q2_K), which is not supported" },
    { "removed_type", removed_type, "which is not supported" },
    { "quantized_in_100", quantized_in_100, "is quantized (Q4_0) in a file of version 100" },
    { "zero_dim", zero_dim, "offset 36: tensor \"a\" has a dim of 0" },
    { "negative_dim", negative_dim, "offset 40: tensor \"a\" has a dim of -2" },
    { "two_negative_dims", two_negative_dims, "has a dim of -3" },
    { "dims_overflow", dims_overflow, "tensor \"a\": the product of its 3 dims overflows" },
    { "bytes_overflow", bytes_overflow, "tensor \"a\": the product of its 3 dims overflows" },
    { "data_past_the_end", data_past_the_end, "tensor \"a\": 36 bytes of f32 at offset 45" },
    { "terabytes", terabytes, "4398046511104 bytes of f32 at offset 45" },
    { "block_does_not_divide", block_does_not_divide, "rows of 48 elements" },
    { "k_block_does_not_divide", k_block_does_not_divide, "rows of 128 elements" },
    { "same_name_twice", same_name_twice, "tensor \"a\" is there twice" },
    { "trailing_byte", trailing_byte, "offset 69: 1 bytes after the last tensor" },
    { "trailing_text", trailing_text, "offset 69: a tensor of" },
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void test_each_failure(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(CASES); i++) {
        file f = { .n = 0 };
        CASES[i].make(&f);
        check_refused(CASES[i].name, f.bytes, f.n, CASES[i].needle);
    }
}

/* Names of several scripts and every type that is read, in one file. */
static void every_type(file *f)
{
    static const struct {
        int32_t code, row;
        size_t data;
        const char *name;
    } types[] = {
        { 0, 1, 4, "fp32" },
        { 1, 1, 2, "fp16" },
        { 2, 32, 18, "q4_0 \xc3\xa4" },
        { 3, 32, 20, "q4_1" },
        { 7, 32, 22, "q5_0" },
        { 8, 32, 24, "q5_1 \xe4\xb8\xad" },
        { 9, 64, 68, "q8_0" },
        { 13, 256, 144, "q4_k" },
        { 14, 256, 176, "q5_k" },
        { 15, 256, 210, "q6_k \xf0\x9f\x90\xa6" },
    };
    put_header(f, 101, 7);
    for (size_t i = 0; i < COUNT(types); i++)
        put_tensor(f, types[i].code, types[i].row, 1, types[i].name, types[i].data);
}

static void test_allowed(void **state)
{
    (void)state;
    file f = { .n = 0 }, g = { .n = 0 };
    good(&f);
    check_accepted("good", f.bytes, f.n, 1);
    every_type(&g);
    check_accepted("every type", g.bytes, g.n, 10);
}

/* A file of two tensors cut after each byte; only whole tensors are a whole file. */
static void test_cut_anywhere(void **state)
{
    (void)state;
    file f = { .n = 0 };
    good(&f);
    const size_t whole = f.n;
    put_tensor(&f, 2, 32, 1, "quantized", 18);
    for (size_t n = 0; n < f.n; n++) {
        char name[64];
        snprintf(name, sizeof name, "cut after %zu bytes", n);
        if (n == whole)
            check_accepted(name, f.bytes, n, 1);
        else
            check_refused(name, f.bytes, n, "");
    }
}

static void test_every_bit(void **state)
{
    (void)state;
    file f = { .n = 0 };
    good(&f);
    for (size_t bit = 0; bit < 8 * f.n; bit++) {
        f.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        verdict v = parse_watched(f.bytes, f.n, 0, 0);
        assert_true(v.status == CORVID_E_FORMAT || v.status == CORVID_OK);
        if (bit / 8 >= N_DIMS_AT && bit / 8 < NAME_BYTES_AT)
            assert_int_equal(v.status, CORVID_E_FORMAT);
        check_memory("bit flip", f.n, &v);
        f.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}

/* The smallest tensors there are: the worst ratio of memory to bytes, and a bound on their number. */
static void test_many_tensors(void **state)
{
    (void)state;
    enum { MOST = 65536 };
    const size_t record = 12 + 4 + 3 + 2;
    unsigned char *bytes = malloc(24 + (MOST + 1) * record);
    assert_non_null(bytes);
    file head = { .n = 0 };
    put_header(&head, 101, 1);
    memcpy(bytes, head.bytes, head.n);
    for (size_t i = 0; i <= MOST; i++) {
        file t = { .n = 0 };
        const char name[4] = { (char)(33 + i % 64), (char)(33 + i / 64 % 64), (char)(33 + i / 4096),
                               '\0' };
        put_int(&t, 1);
        put_int(&t, 3);
        put_int(&t, 1);
        put_int(&t, 1);
        put(&t, name, 3);
        put(&t, "\0\0", 2);
        memcpy(bytes + 24 + i * record, t.bytes, record);
    }
    const size_t n = 24 + MOST * record;
    verdict v = parse_watched(bytes, n, 0, 0);
    assert_int_equal(v.status, CORVID_OK);
    check_memory("many tensors", n, &v);
    check_refused("too many tensors", bytes, n + record, "more than 65536 tensors");
    free(bytes);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        for (size_t i = 0; i < COUNT(CASES); i++) {
            file f = { .n = 0 };
            CASES[i].make(&f);
            write_case(argv[2], CASES[i].name, f.bytes, f.n);
        }
        file f = { .n = 0 }, g = { .n = 0 };
        good(&f);
        write_case(argv[2], "allowed_good", f.bytes, f.n);
        every_type(&g);
        write_case(argv[2], "allowed_every_type", g.bytes, g.n);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_failure), cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_cut_anywhere), cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_many_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
