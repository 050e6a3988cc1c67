/* test_safetensors.c - safetensors files written and read back, byte by byte and value by value;
 * what cv_checkpoint shares among formats: telling them apart, sealing, strided reading, writing.
 *
 * Malformed files are in tests/hostile. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "formats/header.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void parse_memory(const void *bytes, size_t n, cv_checkpoint *ckpt)
{
    cv_input in;
    corvid_error err;
    cv_input_memory(&in, bytes, n, "memory");
    ASSERT_OK(cv_checkpoint_parse(&cv_libc_allocator, &in, ckpt, &err), &err);
}

/* ---- writing and reading -------------------------------------------------------------------- */

static const cv_dtype WRITABLE[] = { CV_F64, CV_F32, CV_F16, CV_BF16, CV_I64,
                                     CV_I32, CV_I16, CV_I8,  CV_U8,   CV_BOOL };

static const int64_t INTS[] = { -1, 0, INT64_MAX };
static const double FLOATS[] = { 0.1, -2.5e300 };
static const cv_text TEXTS[] = { { "a\"b", 3 }, { "", 0 }, { "\xe4\xb8\xad", 3 } };
static const cv_meta METAS[] = {
    { .key = "int", .type = CV_META_INT, .integer = INT64_MIN },
    { .key = "float", .type = CV_META_FLOAT, .number = 0.1 },
    { .key = "yes", .type = CV_META_BOOL, .integer = 1 },
    { .key = "no", .type = CV_META_BOOL, .integer = 0 },
    { .key = "text", .type = CV_META_TEXT, .text = { "tab\t \"quoted\" \\ \0zero \xc3\xa4", 24 } },
    { .key = "ints", .type = CV_META_INTS, .count = 3, .integers = INTS },
    { .key = "floats", .type = CV_META_FLOATS, .count = 2, .numbers = FLOATS },
    { .key = "texts", .type = CV_META_TEXTS, .count = 3, .texts = TEXTS },
    { .key = "none", .type = CV_META_INTS },
    { .key = "\xf0\x9f\x90\xa6", .type = CV_META_TEXT, .text = { "", 0 } },
};

/* What the values above read as; JSON of their own where they are lists. */
static const struct {
    const char *key, *text;
    size_t n;
} META_TEXTS[] = {
    { "int", "-9223372036854775808", 20 },
    { "float", "0.10000000000000001", 19 },
    { "yes", "true", 4 },
    { "no", "false", 5 },
    { "text", "tab\t \"quoted\" \\ \0zero \xc3\xa4", 24 },
    { "ints", "[-1,0,9223372036854775807]", 26 },
    { "floats", "[0.10000000000000001,-2.5000000000000001e+300]", 46 },
    { "texts", "[\"a\\\"b\",\"\",\"\xe4\xb8\xad\"]", 17 },
    { "none", "[]", 2 },
    { "\xf0\x9f\x90\xa6", "", 0 },
};

/* One tensor of each type, of shapes from a scalar and an empty one to eight dims. */
static void declare(cv_tensor *tensors)
{
    static const char *const names[] = {
        "z", "y", "x", "w", "v", "u", "t", "s", "blocks.0.r", "q"
    };
    for (size_t i = 0; i < COUNT(WRITABLE); i++) {
        cv_tensor *t = &tensors[i];
        *t = (cv_tensor){ .name = names[i], .dtype = WRITABLE[i], .n_dims = (int)(i % 9) };
        for (int k = 0; k < t->n_dims; k++)
            t->dims[k] = (size_t)(1 + (k + (int)i) % 3);
    }
    tensors[4].dims[1] = 0;
    tensors[8].n_dims = 8;
    for (int k = 0; k < 8; k++)
        tensors[8].dims[k] = 2;
}

static size_t declared_bytes(const cv_tensor *t)
{
    size_t n = cv_dtype_of(t->dtype)->block_bytes;
    for (int k = 0; k < t->n_dims; k++)
        n *= t->dims[k];
    return n;
}

/* Byte i of tensor number `which`. */
static unsigned char pattern(size_t which, size_t i)
{
    return (unsigned char)(which * 37 + i * 11 + (i >> 8));
}

/* All the data as one run, handed over in pieces of `piece` bytes. */
static void write_all(const char *path, const cv_tensor *tensors, size_t n, size_t piece)
{
    corvid_error err;
    cv_writer *writer;
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += declared_bytes(&tensors[i]);
    unsigned char *data = malloc(total + 1);
    assert_non_null(data);
    for (size_t i = 0, at = 0; i < n; i++)
        for (size_t k = 0; k < declared_bytes(&tensors[i]); k++)
            data[at++] = pattern(i, k);
    ASSERT_OK(cv_writer_open(&cv_libc_allocator, path, CV_SAFETENSORS, METAS, COUNT(METAS), tensors,
                             n, &writer, &err),
              &err);
    for (size_t at = 0; at < total; at += piece)
        ASSERT_OK(cv_writer_put(writer, data + at, total - at < piece ? total - at : piece, &err),
                  &err);
    ASSERT_OK(cv_writer_commit(writer, &err), &err);
    free(data);
}

static void check_all(const char *path, const cv_tensor *tensors, size_t n)
{
    cv_checkpoint ckpt;
    corvid_error err;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    assert_int_equal(ckpt.format, CV_SAFETENSORS);
    assert_int_equal(ckpt.n_tensors, n);
    for (size_t i = 0; i < n; i++) {
        const cv_tensor *t = cv_checkpoint_find(&ckpt, tensors[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, tensors[i].dtype);
        assert_int_equal(t->n_dims, tensors[i].n_dims);
        assert_memory_equal(t->dims, tensors[i].dims, sizeof t->dims);
        assert_true(t->contiguous);
        size_t bytes = declared_bytes(t);
        unsigned char data[4096];
        assert_true(bytes <= sizeof data);
        ASSERT_OK(cv_tensor_read(&ckpt, t, 0, t->count, data, &err), &err);
        for (size_t k = 0; k < bytes; k++)
            assert_int_equal(data[k], pattern(i, k));
    }
    assert_int_equal(ckpt.n_meta, COUNT(META_TEXTS));
    for (size_t i = 0; i < COUNT(META_TEXTS); i++) {
        const cv_meta *meta = cv_checkpoint_meta(&ckpt, META_TEXTS[i].key);
        assert_non_null(meta);
        assert_int_equal(meta->type, CV_META_TEXT);
        assert_int_equal(meta->text.n, META_TEXTS[i].n);
        assert_memory_equal(meta->text.bytes, META_TEXTS[i].text, META_TEXTS[i].n + 1);
    }
    cv_checkpoint_close(&ckpt);
}

static void test_round_trip(void **state)
{
    (void)state;
    cv_tensor tensors[COUNT(WRITABLE)];
    declare(tensors);
    static const size_t pieces[] = { 1, 7, 1000, SIZE_MAX / 2 };
    for (size_t i = 0; i < COUNT(pieces); i++) {
        const char *path = test_scratch("round.safetensors");
        write_all(path, tensors, COUNT(tensors), pieces[i]);
        check_all(path, tensors, COUNT(tensors));
    }
}

/* The exact bytes: the length, the JSON in the order declared, spaces up to a multiple of eight. */
static void test_exact_bytes(void **state)
{
    (void)state;
    static const char json[] = "{\"__metadata__\":{\"k\":\"v\"},"
                               "\"b\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[0,4]},"
                               "\"a\\n\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[4,5]}}";
    const cv_meta meta = { .key = "k", .type = CV_META_TEXT, .text = { "v", 1 } };
    const cv_tensor tensors[] = {
        { .name = "b", .dtype = CV_BF16, .n_dims = 2, .dims = { 1, 2 } },
        { .name = "a\n", .dtype = CV_U8, .n_dims = 0 },
    };
    cv_arena arena;
    cv_header header;
    corvid_error err;
    cv_arena_init(&arena, &cv_libc_allocator);
    ASSERT_OK(cv_safetensors_header(&arena, &meta, 1, tensors, 2, &header, &err), &err);
    const size_t n = sizeof json - 1, padded = (n + 7) / 8 * 8;
    assert_true(padded > n); /* else the padding is not tested */
    assert_int_equal(header.n, 8 + padded);
    assert_int_equal((unsigned char)header.bytes[0], padded);
    for (int i = 1; i < 8; i++)
        assert_int_equal(header.bytes[i], 0);
    assert_memory_equal(header.bytes + 8, json, n);
    for (size_t i = n; i < padded; i++)
        assert_int_equal(header.bytes[8 + i], ' ');
    assert_int_equal(header.offsets[0], 0);
    assert_int_equal(header.offsets[1], 4);
    assert_int_equal(header.data_bytes, 5);

    ASSERT_OK(cv_safetensors_header(&arena, NULL, 0, NULL, 0, &header, &err), &err);
    assert_int_equal(header.n, 16);
    assert_memory_equal(header.bytes, "\10\0\0\0\0\0\0\0{}      ", 16);
    cv_arena_free(&arena);
}

static corvid_status try_header(const cv_meta *meta, size_t n_meta, const cv_tensor *tensors,
                                size_t n_tensors, corvid_error *err)
{
    cv_arena arena;
    cv_header header;
    cv_arena_init(&arena, &cv_libc_allocator);
    corvid_status status =
        cv_safetensors_header(&arena, meta, n_meta, tensors, n_tensors, &header, err);
    cv_arena_free(&arena);
    return status;
}

static void assert_says(const corvid_error *err, const char *needle)
{
    if (!strstr(err->text, needle)) fail_msg("\"%s\" lacks \"%s\"", err->text, needle);
}

static void test_what_cannot_be_written(void **state)
{
    (void)state;
    corvid_error err;
    for (cv_dtype type = 0; type < CV_DTYPES; type++) {
        const cv_tensor t = { .name = "w", .dtype = type, .n_dims = 2, .dims = { 2, 256 } };
        bool quantized = cv_dtype_of(type)->quantized;
        assert_int_equal(try_header(NULL, 0, &t, 1, &err),
                         quantized ? CORVID_E_ARGUMENT : CORVID_OK);
        if (quantized) assert_says(&err, "write GGUF");
    }
    const cv_tensor twice[] = { { .name = "a" }, { .name = "b" }, { .name = "a" } };
    assert_int_equal(try_header(NULL, 0, twice, 3, &err), CORVID_E_ARGUMENT);
    assert_says(&err, "tensor \"a\" is declared twice");
    const cv_tensor reserved = { .name = "__metadata__" };
    assert_int_equal(try_header(NULL, 0, &reserved, 1, &err), CORVID_E_ARGUMENT);
    const cv_tensor huge = { .name = "h", .n_dims = 2, .dims = { SIZE_MAX / 2, 3 } };
    assert_int_equal(try_header(NULL, 0, &huge, 1, &err), CORVID_E_ARGUMENT);
    const cv_tensor name = { .name = "\xff" };
    assert_int_equal(try_header(NULL, 0, &name, 1, &err), CORVID_E_ARGUMENT);
    assert_says(&err, "not UTF-8");
    const cv_meta metas[] = { { .key = "k", .type = CV_META_INT }, { .key = "k" } };
    assert_int_equal(try_header(metas, 2, NULL, 0, &err), CORVID_E_ARGUMENT);
    assert_says(&err, "metadata key \"k\" is declared twice");
    const cv_meta text = { .key = "k", .type = CV_META_TEXT, .text = { "\xc3", 1 } };
    assert_int_equal(try_header(&text, 1, NULL, 0, &err), CORVID_E_ARGUMENT);
    assert_says(&err, "metadata \"k\": its text is not UTF-8");
}

/* ---- the writer ----------------------------------------------------------------------------- */

static const cv_tensor TWO[] = {
    { .name = "a", .dtype = CV_F32, .n_dims = 1, .dims = { 2 } },
    { .name = "empty", .dtype = CV_F32, .n_dims = 1, .dims = { 0 } },
    { .name = "b", .dtype = CV_U8, .n_dims = 1, .dims = { 3 } },
};

static cv_writer *open_two(const corvid_allocator *mem, const char *path)
{
    corvid_error err;
    cv_writer *writer;
    ASSERT_OK(cv_writer_open(mem, path, CV_SAFETENSORS, NULL, 0, TWO, COUNT(TWO), &writer, &err),
              &err);
    return writer;
}

static void assert_still_old(const char *path)
{
    size_t n;
    char *bytes = test_read_file(path, &n);
    assert_int_equal(n, 3);
    assert_memory_equal(bytes, "old", 3);
    free(bytes);
}

static void test_writer_counts(void **state)
{
    (void)state;
    corvid_error err;
    static const char data[16];
    const char *path = test_scratch("counted.safetensors");
    test_write_file(path, "old", 3);

    cv_writer *w = open_two(&cv_libc_allocator, path);
    ASSERT_OK(cv_writer_put(w, data, 10, &err), &err);
    assert_int_equal(cv_writer_commit(w, &err), CORVID_E_ARGUMENT);
    assert_says(&err, "tensor \"b\" lacks 1 of its 3 bytes");
    assert_still_old(path);

    w = open_two(&cv_libc_allocator, path);
    assert_int_equal(cv_writer_commit(w, &err), CORVID_E_ARGUMENT);
    assert_says(&err, "tensor \"a\" lacks 8 of its 8 bytes");
    assert_still_old(path);

    w = open_two(&cv_libc_allocator, path);
    assert_int_equal(cv_writer_put(w, data, 12, &err), CORVID_E_ARGUMENT);
    assert_says(&err, "1 bytes more than the declared");
    assert_int_equal(cv_writer_put(w, data, 1, &err), CORVID_E_WRITE);
    assert_int_equal(cv_writer_commit(w, &err), CORVID_E_WRITE);
    assert_still_old(path);

    w = open_two(&cv_libc_allocator, path);
    ASSERT_OK(cv_writer_put(w, data, 11, &err), &err);
    cv_writer_discard(w);
    cv_writer_discard(NULL);
    assert_still_old(path);

    w = open_two(&cv_libc_allocator, path);
    ASSERT_OK(cv_writer_put(w, data, 8, &err), &err);
    ASSERT_OK(cv_writer_put(w, data, 0, &err), &err);
    ASSERT_OK(cv_writer_put(w, data, 3, &err), &err);
    ASSERT_OK(cv_writer_commit(w, &err), &err);
    cv_checkpoint ckpt;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    assert_int_equal(ckpt.n_tensors, 3);
    cv_checkpoint_close(&ckpt);

    assert_int_equal(cv_writer_open(&cv_libc_allocator, path, CV_PTH, NULL, 0, TWO, 3, &w, &err),
                     CORVID_E_ARGUMENT);
    assert_null(w);
    assert_int_equal(cv_writer_open(&cv_libc_allocator, test_scratch("no/such/folder"),
                                    CV_SAFETENSORS, NULL, 0, TWO, 3, &w, &err),
                     CORVID_E_WRITE);
    assert_null(w);
}

/* GGUF aligns each tensor: what lies between them is zero, wherever the pieces are cut. */
static void test_gaps(void **state)
{
    (void)state;
    const cv_tensor tensors[] = {
        { .name = "a", .dtype = CV_I8, .n_dims = 1, .dims = { 5 } },
        { .name = "b", .dtype = CV_F32, .n_dims = 1, .dims = { 9 } },
        { .name = "c", .dtype = CV_I8, .n_dims = 1, .dims = { 1 } },
    };
    enum { BYTES = 5 + 36 + 1 };
    unsigned char data[BYTES];
    corvid_error err;
    memset(data, 0x77, sizeof data);
    for (size_t piece = 1; piece <= BYTES; piece++) {
        const char *path = test_scratch("gaps.gguf");
        cv_writer *w;
        ASSERT_OK(cv_writer_open(&cv_libc_allocator, path, CV_GGUF, NULL, 0, tensors, 3, &w, &err),
                  &err);
        for (size_t at = 0; at < BYTES; at += piece)
            ASSERT_OK(cv_writer_put(w, data, BYTES - at < piece ? BYTES - at : piece, &err), &err);
        ASSERT_OK(cv_writer_commit(w, &err), &err);

        cv_checkpoint ckpt;
        size_t n, n_set = 0;
        unsigned char *file = (unsigned char *)test_read_file(path, &n);
        ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
        assert_int_equal(ckpt.n_tensors, 3);
        for (size_t i = 0; i < 3; i++) {
            const cv_tensor *t = &ckpt.tensors[i];
            assert_int_equal(t->offset % 32, 0);
            for (size_t k = 0; k < declared_bytes(t); k++)
                assert_int_equal(file[t->offset + k], 0x77);
        }
        for (uint64_t at = ckpt.tensors[0].offset; at < n; at++) {
            assert_true(file[at] == 0 || file[at] == 0x77);
            n_set += file[at] != 0;
        }
        assert_int_equal(n_set, BYTES);
        cv_checkpoint_close(&ckpt);
        free(file);
    }
}

/* Every allocation of a save fails once: nothing leaks, and the old file stays. */
static void test_writer_without_memory(void **state)
{
    (void)state;
    const char *path = test_scratch("memory.safetensors");
    corvid_error err;
    test_allocator a;
    bool done = false;
    for (size_t i = 1; !done; i++) {
        test_write_file(path, "old", 3);
        test_allocator_init(&a);
        a.fail_at = i;
        cv_writer *w;
        corvid_status status = cv_writer_open(&a.api, path, CV_SAFETENSORS, METAS, COUNT(METAS),
                                              TWO, COUNT(TWO), &w, &err);
        done = a.calls < i;
        assert_int_equal(status, done ? CORVID_OK : CORVID_E_MEMORY);
        if (status == CORVID_OK) cv_writer_discard(w);
        assert_int_equal(a.live, 0);
        assert_still_old(path);
    }
    assert_true(a.calls > 4);
}

/* ---- files of others ------------------------------------------------------------------------ */

static void test_by_hand(void **state)
{
    (void)state;
    static const char json[] =
        "{\"b\":{\"dtype\":\"I16\",\"shape\":[2],\"data_offsets\":[4,8]},"
        "\"__metadata__\":{\"format\":\"pt\",\"empty\":\"\"},"
        "\"a\":{\"shape\":[1,1],\"dtype\":\"F32\",\"data_offsets\":[0,4]}}  ";
    unsigned char file[512] = { (unsigned char)(sizeof json - 1) };
    memcpy(file + 8, json, sizeof json - 1);
    memcpy(file + 8 + sizeof json - 1, "\0\0\x80\x3f\x01\x00\xff\xff", 8);
    cv_checkpoint ckpt;
    corvid_error err;
    parse_memory(file, 8 + sizeof json - 1 + 8, &ckpt);
    assert_int_equal(ckpt.n_tensors, 2);
    assert_string_equal(ckpt.tensors[0].name, "a");
    assert_string_equal(ckpt.tensors[1].name, "b");
    float f;
    int16_t i16[2];
    ASSERT_OK(cv_tensor_read(&ckpt, &ckpt.tensors[0], 0, 1, &f, &err), &err);
    ASSERT_OK(cv_tensor_read(&ckpt, &ckpt.tensors[1], 0, 2, i16, &err), &err);
    assert_true(f == 1.0f);
    assert_int_equal(i16[0], 1);
    assert_int_equal(i16[1], -1);
    assert_int_equal(cv_tensor_read(&ckpt, &ckpt.tensors[1], 1, 2, i16, &err), CORVID_E_ARGUMENT);
    assert_int_equal(cv_tensor_read(&ckpt, &ckpt.tensors[1], SIZE_MAX, 2, i16, &err),
                     CORVID_E_ARGUMENT);
    assert_string_equal(cv_checkpoint_meta(&ckpt, "format")->text.bytes, "pt");
    assert_int_equal(cv_checkpoint_meta(&ckpt, "empty")->text.n, 0);
    assert_null(cv_checkpoint_meta(&ckpt, "Format"));
    cv_checkpoint_close(&ckpt);
    cv_checkpoint zeroed = { 0 };
    cv_checkpoint_close(&zeroed);
}

static void read_named(const cv_checkpoint *ckpt, const char *name, cv_dtype dtype, size_t n,
                       void *dst)
{
    corvid_error err;
    const cv_tensor *t = cv_checkpoint_find(ckpt, name);
    if (!t) fail_msg("%s: no tensor %s", ckpt->in.path, name);
    assert_int_equal(t->dtype, dtype);
    assert_int_equal(t->count, n);
    ASSERT_OK(cv_tensor_read(ckpt, t, 0, n, dst, &err), &err);
}

/* The mean cross entropy of the logits against the targets, as the file's own loss says. */
static double cross_entropy(const double *logits, const int64_t *targets, size_t T, size_t V)
{
    double sum = 0.0;
    for (size_t t = 0; t < T; t++) {
        double total = 0.0;
        for (size_t v = 0; v < V; v++)
            total += exp(logits[t * V + v]);
        sum += log(total) - logits[t * V + (size_t)targets[t]];
    }
    return sum / (double)T;
}

static void check_reference(const char *path, const char *version)
{
    cv_checkpoint ckpt;
    corvid_error err;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    assert_int_equal(ckpt.format, CV_SAFETENSORS);
    assert_string_equal(cv_checkpoint_meta(&ckpt, "version")->text.bytes, version);
    const cv_tensor *logits = cv_checkpoint_find(&ckpt, "logits");
    assert_non_null(logits);
    assert_int_equal(logits->n_dims, 2);
    const size_t T = logits->dims[0], V = logits->dims[1];
    assert_int_equal(strtoul(cv_checkpoint_meta(&ckpt, "vocab")->text.bytes, NULL, 10), V);

    double *x = malloc(T * V * sizeof *x), loss;
    int64_t *targets = malloc(T * sizeof *targets);
    assert_true(x && targets);
    read_named(&ckpt, "logits", CV_F64, T * V, x);
    read_named(&ckpt, "targets", CV_I64, T, targets);
    read_named(&ckpt, "loss", CV_F64, 1, &loss);
    for (size_t t = 0; t < T; t++)
        assert_true(targets[t] >= 0 && (size_t)targets[t] < V);
    double expected = cross_entropy(x, targets, T, V);
    if (fabs(loss - expected) > 1e-12)
        fail_msg("%s: loss %g, logits give %g", path, loss, expected);
    free(x);
    free(targets);

    /* Each parameter comes with its gradient and its value after three steps. */
    size_t n_params = 0;
    for (size_t i = 0; i < ckpt.n_tensors; i++) {
        const cv_tensor *p = &ckpt.tensors[i];
        if (strncmp(p->name, "param.", 6) != 0) continue;
        char name[128];
        snprintf(name, sizeof name, "grad.%s", p->name + 6);
        const cv_tensor *g = cv_checkpoint_find(&ckpt, name);
        assert_non_null(g);
        assert_memory_equal(g->dims, p->dims, sizeof p->dims);
        n_params++;
    }
    assert_true(n_params > 50);
    cv_checkpoint_close(&ckpt);
}

static void test_references(void **state)
{
    (void)state;
    NEED_DATA(any, "rwkv-tiny/reference/lm_v4.safetensors");
    static const struct {
        const char *file, *version;
    } files[] = { { "lm_v4", "4" },     { "lm_v5_0", "5.0" }, { "lm_v5_1", "5.1" },
                  { "lm_v5_2", "5.2" }, { "lm_v6", "6" },     { "lm_v7", "7" } };
    for (size_t i = 0; i < COUNT(files); i++) {
        char relative[128];
        snprintf(relative, sizeof relative, "rwkv-tiny/reference/%s.safetensors", files[i].file);
        const char *path = test_data(relative);
        assert_non_null(path);
        check_reference(path, files[i].version);
    }
}

/* ---- telling formats apart ------------------------------------------------------------------ */

static void test_strangers(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } files[] = {
        { "", 0, "the file is empty" },
        { "<!DOCTYPE html><html>", 21, "web page" },
        { "\n  <HTML lang=en><head></head></html>", 37, "web page" },
        { "version https://git-lfs.github.com/spec/v1\noid", 46, "git lfs pull" },
        { "lmgg\0\0\0\0\0\0\0\0", 12, "rwkv.cpp" },
        { "tjgg\3\0\0\0\0\0\0\0", 12, "llama.cpp" },
        { "hello", 5, "68 65 6c 6c 6f (\"hello\")" },
        { "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10, "1f 8b 08 00 00 00 00 00 00 ff (\"..........\")" },
        { "GGU", 3, "PyTorch .pth (zip or legacy), safetensors, GGUF, rwkv.cpp" },
        { "{}", 2, "known formats" },
    };
    for (size_t i = 0; i < COUNT(files); i++) {
        cv_input in;
        cv_checkpoint ckpt;
        corvid_error err;
        cv_input_memory(&in, files[i].bytes, files[i].n, "stranger");
        assert_int_equal(cv_checkpoint_parse(&cv_libc_allocator, &in, &ckpt, &err),
                         CORVID_E_FORMAT);
        assert_says(&err, files[i].says);
        assert_int_equal(strncmp(err.text, "stranger: ", 10), 0);
        assert_int_equal(cv_checkpoint_parse(&cv_libc_allocator, &in, &ckpt, NULL),
                         CORVID_E_FORMAT);
    }
    cv_checkpoint ckpt;
    corvid_error err;
    assert_int_equal(cv_checkpoint_open(&cv_libc_allocator, test_scratch("missing"), &ckpt, &err),
                     CORVID_E_FILE);
    cv_checkpoint_close(&ckpt);
    assert_string_equal(cv_format_name(CV_PTH), "pth");
    assert_string_equal(cv_format_name(CV_SAFETENSORS), "safetensors");
    assert_string_equal(cv_format_name(CV_GGUF), "gguf");
}

/* A file that is cut while it is open: an error, not a crash and not stale data. */
static void test_file_shrinks(void **state)
{
    (void)state;
    const char *path = test_scratch("shrinks.safetensors");
    cv_tensor tensors[COUNT(WRITABLE)];
    cv_checkpoint ckpt;
    corvid_error err;
    declare(tensors);
    write_all(path, tensors, COUNT(tensors), 4096);
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    test_write_file(path, "short", 5);
    unsigned char data[4096];
    const cv_tensor *t = cv_checkpoint_find(&ckpt, "q");
    assert_int_equal(cv_tensor_read(&ckpt, t, 0, t->count, data, &err), CORVID_E_FORMAT);
    cv_checkpoint_close(&ckpt);
}

/* ---- sealing and strides -------------------------------------------------------------------- */

/* A checkpoint over `size` bytes with tensors that a reader of .pth could have found. */
static cv_checkpoint by_reader(const void *bytes, size_t size, cv_tensor *tensors, size_t n)
{
    cv_checkpoint ckpt = { .format = CV_PTH, .tensors = tensors, .n_tensors = n };
    cv_input_memory(&ckpt.in, bytes, size, "sealed");
    cv_arena_init(&ckpt.arena, &cv_libc_allocator);
    return ckpt;
}

static void test_seal(void **state)
{
    (void)state;
    static const unsigned char bytes[100];
    static const struct {
        cv_tensor t;
        const char *says; /* NULL: right */
    } cases[] = {
        { { .n_dims = 1, .dims = { 25 }, .contiguous = true }, NULL },
        { { .n_dims = 1, .dims = { 24 }, .offset = 4, .contiguous = true }, NULL },
        { { .n_dims = 1, .dims = { 25 }, .offset = 4, .contiguous = true }, "past the end" },
        { { .n_dims = 1, .dims = { 0 }, .offset = 100, .contiguous = true }, NULL },
        { { .n_dims = 1, .dims = { 0 }, .offset = 101, .contiguous = true }, "past the end" },
        { { .n_dims = 1, .dims = { 1 }, .offset = UINT64_MAX - 3, .contiguous = true },
          "past the end" },
        { { .n_dims = 9, .contiguous = true }, "9 dims" },
        { { .n_dims = -1, .contiguous = true }, "-1 dims" },
        { { .dtype = CV_DTYPES, .contiguous = true }, "unknown element type" },
        { { .n_dims = 3, .dims = { SIZE_MAX, 2, 0 }, .contiguous = true }, "overflows" },
        { { .n_dims = 1, .dims = { SIZE_MAX / 2 }, .contiguous = true }, "past the end" },
        { { .dtype = CV_Q4_0, .n_dims = 2, .dims = { 2, 32 }, .contiguous = true }, NULL },
        { { .dtype = CV_Q4_0, .n_dims = 2, .dims = { 32, 2 }, .contiguous = true }, "rows of 2" },
        { { .dtype = CV_Q4_0, .contiguous = true }, "rows of 1" },
        { { .dtype = CV_Q4_0, .n_dims = 2, .dims = { 2, 32 }, .strides = { 32, 1 } },
          "with strides" },
        /* The last element is at 4 * 5 + 2 * 2 = 24: bytes 96 to 100. */
        { { .n_dims = 2, .dims = { 5, 3 }, .strides = { 5, 2 } }, NULL },
        { { .n_dims = 2, .dims = { 5, 3 }, .strides = { 5, 2 }, .offset = 1 }, "past the end" },
        { { .n_dims = 2, .dims = { 5, 3 }, .strides = { SIZE_MAX / 2, 2 } }, "past the end" },
        { { .n_dims = 1, .dims = { 2 }, .strides = { SIZE_MAX } }, "past the end" },
        { { .n_dims = 2, .dims = { 0, 3 }, .strides = { SIZE_MAX, 2 } }, NULL },
        { { .n_dims = 1, .dims = { 25 }, .strides = { 0 } }, NULL },
        { { .n_dims = 1, .dims = { 1u << 30 }, .strides = { 0 } }, "past the end" },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        corvid_error err = { .text = "" };
        cv_tensor t = cases[i].t;
        t.name = "t";
        cv_checkpoint ckpt = by_reader(bytes, sizeof bytes, &t, 1);
        corvid_status status = cv_checkpoint_seal(&ckpt, &err);
        if (status != (cases[i].says ? CORVID_E_FORMAT : CORVID_OK))
            fail_msg("case %zu: status %d: %s", i, (int)status, err.text);
        if (cases[i].says) assert_says(&err, cases[i].says);
    }
}

/* Elements [first, first + n) one by one, in another way than the code does it. */
static void check_strided(const cv_checkpoint *ckpt, const cv_tensor *t, const unsigned char *bytes,
                          size_t first, size_t n)
{
    const size_t size = cv_dtype_of(t->dtype)->block_bytes;
    corvid_error err;
    unsigned char *got = malloc(n * size + 1);
    assert_non_null(got);
    ASSERT_OK(cv_tensor_read(ckpt, t, first, n, got, &err), &err);
    for (size_t i = 0; i < n; i++) {
        size_t rest = first + i, at = 0;
        for (int k = t->n_dims - 1; k >= 0; k--) {
            at += rest % t->dims[k] * t->strides[k];
            rest /= t->dims[k];
        }
        if (memcmp(got + i * size, bytes + t->offset + at * size, size) != 0)
            fail_msg("element %zu of [%zu, +%zu) is wrong", i, first, n);
    }
    free(got);
}

static void test_strided(void **state)
{
    (void)state;
    enum { SIZE = 5 << 20 }; /* more than a few buffers of the reader */
    unsigned char *bytes = malloc(SIZE);
    assert_non_null(bytes);
    cv_rng rng;
    cv_rng_seed(&rng, 1);
    for (size_t i = 0; i < SIZE; i += 4) {
        uint32_t r = (uint32_t)cv_rng_next(&rng);
        memcpy(bytes + i, &r, 4);
    }
    cv_tensor views[] = {
        /* transposed: small, wide, tall */
        { .dtype = CV_F32, .n_dims = 2, .dims = { 7, 5 }, .strides = { 1, 7 }, .offset = 12 },
        { .dtype = CV_F32, .n_dims = 2, .dims = { 3, 300001 }, .strides = { 1, 3 } },
        { .dtype = CV_BF16, .n_dims = 2, .dims = { 200003, 9 }, .strides = { 1, 200003 } },
        { .dtype = CV_F16, .n_dims = 2, .dims = { 1000, 1001 }, .strides = { 1, 1000 } },
        /* every other column, a row far apart, three dims turned round, one value for all */
        { .dtype = CV_U8, .n_dims = 2, .dims = { 100, 50 }, .strides = { 101, 2 }, .offset = 1 },
        { .dtype = CV_F64, .n_dims = 2, .dims = { 2, 10 }, .strides = { 400000, 1 }, .offset = 64 },
        { .dtype = CV_I64, .n_dims = 3, .dims = { 30, 20, 40 }, .strides = { 1, 1200, 30 } },
        { .dtype = CV_F32, .n_dims = 3, .dims = { 4, 3, 5 }, .strides = { 0, 7, 0 } },
        { .dtype = CV_I16, .n_dims = 4, .dims = { 2, 1, 3, 1 }, .strides = { 1000000, 9, 5, 7 } },
        { .dtype = CV_F32, .n_dims = 0, .offset = 8 },
    };
    for (size_t i = 0; i < COUNT(views); i++) {
        cv_tensor *t = &views[i];
        corvid_error err;
        t->name = "view";
        cv_checkpoint ckpt = by_reader(bytes, SIZE, t, 1);
        ASSERT_OK(cv_checkpoint_seal(&ckpt, &err), &err);
        check_strided(&ckpt, t, bytes, 0, t->count);
        check_strided(&ckpt, t, bytes, t->count - 1, 1);
        check_strided(&ckpt, t, bytes, t->count / 2, 0);
        for (int k = 0; k < 5; k++) {
            size_t first = (size_t)(cv_rng_next(&rng) % t->count);
            size_t n = (size_t)(cv_rng_next(&rng) % (t->count - first)) + 1;
            check_strided(&ckpt, t, bytes, first, n);
        }
        assert_int_equal(cv_tensor_read(&ckpt, t, t->count, 1, bytes, &err), CORVID_E_ARGUMENT);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_exact_bytes),
        cmocka_unit_test(test_what_cannot_be_written),
        cmocka_unit_test(test_writer_counts),
        cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_writer_without_memory),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_file_shrinks),
        cmocka_unit_test(test_seal),
        cmocka_unit_test(test_strided),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
