/* safetensors_write.c - the header of a safetensors file that is about to be written.
 *
 * Tensors follow each other without gaps, in the order declared.  Metadata is a map of texts, so
 * numbers and lists are written as their JSON text.  Quantized tensors have no place in this
 * format and are refused. */
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "formats/dims.h"
#include "formats/header.h"

#define MAX_HEADER   100000000u /* what readers accept */
#define LENGTH_BYTES 8
#define ALIGNMENT    8

static const char *const DTYPE_NAMES[CV_DTYPES] = {
    [CV_F32] = "F32", [CV_F16] = "F16", [CV_BF16] = "BF16", [CV_F64] = "F64", [CV_I8] = "I8",
    [CV_I16] = "I16", [CV_I32] = "I32", [CV_I64] = "I64",   [CV_U8] = "U8",   [CV_BOOL] = "BOOL",
};

/* ---- a text that grows ---------------------------------------------------------------------- */

/* After a failure everything is ignored, so that the status is asked for once, at the end. */
typedef struct text {
    const corvid_allocator *mem;
    char *bytes;
    size_t n, room;
    corvid_status status;
    corvid_error *err;
} text;

static bool make_room(text *t, size_t more)
{
    size_t wanted = SIZE_MAX, doubled = t->room < 1024 ? 1024 : t->room;
    if (t->status != CORVID_OK) return false;
    if (cv_add_size(t->n, more, &wanted) && wanted <= t->room) return true;
    (void)cv_mul_size(doubled, 2, &doubled);
    if (wanted < doubled) wanted = doubled; /* a sum that overflowed stays too large to get */
    void *bytes;
    t->status = cv_alloc_or_fail(t->mem, wanted, 1, "the header", &bytes, t->err);
    if (t->status != CORVID_OK) return false;
    if (t->n > 0) memcpy(bytes, t->bytes, t->n);
    cv_free(t->mem, t->bytes);
    t->bytes = bytes;
    t->room = wanted;
    return true;
}

static void put(text *t, const char *bytes, size_t n)
{
    if (!make_room(t, n)) return;
    memcpy(t->bytes + t->n, bytes, n);
    t->n += n;
}

__attribute__((format(printf, 2, 3))) static void put_format(text *t, const char *format, ...)
{
    char line[128]; /* numbers and punctuation only */
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n > 0) put(t, line, (size_t)n);
}

static int put_dumped(const char *bytes, size_t n, void *t)
{
    put(t, bytes, n);
    return 0;
}

/* A JSON string; where it comes from is said when it is not UTF-8. */
static void put_string(text *t, const char *bytes, size_t n, const char *where, const char *name)
{
    if (t->status != CORVID_OK) return;
    json_t *string = json_stringn(bytes, n);
    if (!string) {
        /* Jansson says no more than no: it was memory if it also fails without the check. */
        string = json_stringn_nocheck(bytes, n);
        t->status = string ? cv_fail(t->err, CORVID_E_ARGUMENT,
                                     "%s \"%.200s\": its text is not UTF-8, which safetensors "
                                     "demands; leave it out or write GGUF",
                                     where, name)
                           : cv_fail(t->err, CORVID_E_MEMORY, "out of memory: the header's JSON");
    } else if (json_dump_callback(string, put_dumped, t, JSON_ENCODE_ANY | JSON_COMPACT) != 0 &&
               t->status == CORVID_OK) {
        t->status = cv_fail(t->err, CORVID_E_MEMORY, "out of memory: the header's JSON");
    }
    json_decref(string);
}

/* ---- metadata ------------------------------------------------------------------------------- */

/* Seventeen digits give back every double. */
static void put_number(text *t, double number)
{
    put_format(t, "%.17g", number);
}

static void put_list(text *t, const cv_meta *meta)
{
    put(t, "[", 1);
    for (size_t i = 0; i < meta->count; i++) {
        if (i > 0) put(t, ",", 1);
        switch (meta->type) {
        case CV_META_INTS: put_format(t, "%" PRId64, meta->integers[i]); break;
        case CV_META_FLOATS: put_number(t, meta->numbers[i]); break;
        default:
            put_string(t, meta->texts[i].bytes, meta->texts[i].n, "metadata", meta->key);
            break;
        }
    }
    put(t, "]", 1);
}

static void put_value(text *t, const cv_meta *meta)
{
    switch (meta->type) {
    case CV_META_INT: put_format(t, "\"%" PRId64 "\"", meta->integer); return;
    case CV_META_BOOL: put_format(t, meta->integer ? "\"true\"" : "\"false\""); return;
    case CV_META_FLOAT: put_format(t, "\"%.17g\"", meta->number); return;
    case CV_META_TEXT: put_string(t, meta->text.bytes, meta->text.n, "metadata", meta->key); return;
    case CV_META_INTS:
    case CV_META_FLOATS:
    case CV_META_TEXTS: break;
    }
    text list = { .mem = t->mem, .err = t->err, .status = t->status };
    put_list(&list, meta);
    t->status = list.status;
    put_string(t, list.bytes, list.n, "metadata", meta->key);
    cv_free(list.mem, list.bytes);
}

static void put_metadata(text *t, const cv_meta *meta, size_t n_meta)
{
    put_format(t, "\"__metadata__\":{");
    for (size_t i = 0; i < n_meta; i++) {
        if (i > 0) put(t, ",", 1);
        put_string(t, meta[i].key, strlen(meta[i].key), "metadata key", meta[i].key);
        put(t, ":", 1);
        put_value(t, &meta[i]);
    }
    put(t, "}", 1);
}

/* ---- tensors -------------------------------------------------------------------------------- */

/* The bytes of a tensor that this format can hold. */
static corvid_status measure(const cv_tensor *tensor, size_t *bytes, corvid_error *err)
{
    size_t count;
    if ((unsigned)tensor->dtype >= CV_DTYPES || !DTYPE_NAMES[tensor->dtype])
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "tensor \"%.200s\" is of type %s, which safetensors cannot hold; write GGUF "
                       "or choose f32, f16 or bf16",
                       tensor->name,
                       (unsigned)tensor->dtype < CV_DTYPES ? cv_dtype_of(tensor->dtype)->name
                                                           : "unknown");
    if (tensor->n_dims < 0 || tensor->n_dims > CV_MAX_DIMS ||
        !cv_dims_count(tensor->dims, tensor->n_dims, &count) ||
        !cv_dtype_bytes(tensor->dtype, count, bytes))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "tensor \"%.200s\": its %d dims have no size, expected at most %d whose "
                       "product fits",
                       tensor->name, tensor->n_dims, CV_MAX_DIMS);
    return CORVID_OK;
}

static void put_tensor(text *t, const cv_tensor *tensor, uint64_t begin, uint64_t end)
{
    put_string(t, tensor->name, strlen(tensor->name), "tensor", tensor->name);
    put_format(t, ":{\"dtype\":\"%s\",\"shape\":[", DTYPE_NAMES[tensor->dtype]);
    for (int i = 0; i < tensor->n_dims; i++)
        put_format(t, i > 0 ? ",%zu" : "%zu", tensor->dims[i]);
    put_format(t, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin, end);
}

static corvid_status put_tensors(text *t, const cv_tensor *tensors, size_t n, cv_header *out)
{
    for (size_t i = 0; i < n; i++) {
        size_t bytes;
        CV_TRY(measure(&tensors[i], &bytes, t->err));
        const uint64_t begin = out->data_bytes;
        if (__builtin_add_overflow(begin, bytes, &out->data_bytes))
            return cv_fail(t->err, CORVID_E_ARGUMENT,
                           "tensor \"%.200s\": the tensors together are too many bytes",
                           tensors[i].name);
        out->offsets[i] = begin;
        if (i > 0) put(t, ",", 1);
        put_tensor(t, &tensors[i], begin, out->data_bytes);
    }
    return t->status;
}

/* ---- names ---------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static corvid_status check_unique(const char **names, size_t n, const char *what, corvid_error *err)
{
    if (n > 1) qsort(names, n, sizeof *names, by_text);
    for (size_t i = 1; i < n; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return cv_fail(err, CORVID_E_ARGUMENT, "%s \"%.200s\" is declared twice", what,
                           names[i]);
    return CORVID_OK;
}

static corvid_status check_names(const corvid_allocator *mem, const cv_meta *meta, size_t n_meta,
                                 const cv_tensor *tensors, size_t n_tensors, corvid_error *err)
{
    void *room;
    const size_t most = n_meta > n_tensors ? n_meta : n_tensors;
    CV_TRY(cv_alloc_or_fail(mem, most, sizeof(char *), "names", &room, err));
    const char **names = room;
    for (size_t i = 0; i < n_meta; i++)
        names[i] = meta[i].key;
    corvid_status status = check_unique(names, n_meta, "metadata key", err);
    for (size_t i = 0; i < n_tensors; i++)
        names[i] = tensors[i].name;
    if (status == CORVID_OK) status = check_unique(names, n_tensors, "tensor", err);
    cv_free(mem, room);
    for (size_t i = 0; status == CORVID_OK && i < n_tensors; i++)
        if (strcmp(tensors[i].name, "__metadata__") == 0)
            status = cv_fail(err, CORVID_E_ARGUMENT,
                             "tensor \"__metadata__\": safetensors keeps this name for texts");
    return status;
}

/* ---- the header ----------------------------------------------------------------------------- */

/* The length in front, and spaces behind so that the data begins at a multiple of eight. */
static corvid_status frame(cv_arena *arena, const text *json, cv_header *out, corvid_error *err)
{
    size_t padded;
    if (!cv_round_up(json->n, ALIGNMENT, &padded) || padded > MAX_HEADER)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "the header has %zu bytes, safetensors allows %u; leave metadata out or "
                       "write GGUF",
                       json->n, MAX_HEADER);
    out->n = LENGTH_BYTES + padded;
    out->bytes = cv_arena_alloc(arena, out->n, 1);
    if (!out->bytes)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu bytes for the header", out->n);
    for (int i = 0; i < LENGTH_BYTES; i++)
        out->bytes[i] = (char)(unsigned char)(padded >> (8 * i));
    memcpy(out->bytes + LENGTH_BYTES, json->bytes, json->n);
    memset(out->bytes + LENGTH_BYTES + json->n, ' ', padded - json->n);
    return CORVID_OK;
}

corvid_status cv_safetensors_header(cv_arena *arena, const cv_meta *meta, size_t n_meta,
                                    const cv_tensor *tensors, size_t n_tensors, cv_header *out,
                                    corvid_error *err)
{
    *out = (cv_header){ 0 };
    CV_TRY(check_names(arena->mem, meta, n_meta, tensors, n_tensors, err));
    out->offsets = cv_arena_alloc(arena, n_tensors, sizeof *out->offsets);
    if (!out->offsets)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu tensors", n_tensors);

    text json = { .mem = arena->mem, .err = err };
    put(&json, "{", 1);
    if (n_meta > 0) put_metadata(&json, meta, n_meta);
    if (n_meta > 0 && n_tensors > 0) put(&json, ",", 1);
    corvid_status status = put_tensors(&json, tensors, n_tensors, out);
    put(&json, "}", 1);
    if (status == CORVID_OK) status = json.status;
    if (status == CORVID_OK) status = frame(arena, &json, out, err);
    cv_free(arena->mem, json.bytes);
    return status;
}
