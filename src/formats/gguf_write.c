/* gguf_write.c - the header of a GGUF file that is about to be written: version 3, little-endian.
 *
 * The same code runs twice, first to count the bytes and then to fill them in.  The types of values
 * are those that llama.cpp insists on for its keys: counts and ids as unsigned 32-bit integers,
 * reals as 32-bit floats, arrays of integers as signed 32-bit.  Wider integers are used only where
 * a value does not fit.  It knows no key but general.alignment.  [fmt.gguf] */
#include "formats/gguf_types.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "formats/dims.h"
#include "formats/header.h"

typedef struct emitter {
    unsigned char *bytes; /* NULL while counting */
    size_t n;
} emitter;

static void put(emitter *e, const void *bytes, size_t n)
{
    if (e->bytes && n) memcpy(e->bytes + e->n, bytes, n);
    e->n += n;
}

/* The n low bytes of value, lowest first. */
static void put_number(emitter *e, uint64_t value, size_t n)
{
    unsigned char bytes[8];
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(value >> 8 * i);
    put(e, bytes, n);
}

static void put_type(emitter *e, cv_gguf_value type)
{
    put_number(e, (uint64_t)type, 4);
}

static void put_text(emitter *e, const char *bytes, size_t n)
{
    put_number(e, n, 8);
    put(e, bytes, n);
}

static void put_float(emitter *e, double number)
{
    float narrow = (float)number;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    put_number(e, bits, 4);
}

/* ---- keys and values ------------------------------------------------------------------------ */

static void put_integer(emitter *e, int64_t value)
{
    bool fits = value >= 0 && value <= UINT32_MAX;
    put_type(e, fits ? CV_GGUF_U32 : CV_GGUF_I64);
    put_number(e, (uint64_t)value, fits ? 4 : 8);
}

static void put_integers(emitter *e, const cv_meta *meta)
{
    bool fit = true;
    for (size_t i = 0; i < meta->count; i++)
        fit = fit && meta->integers[i] >= INT32_MIN && meta->integers[i] <= INT32_MAX;
    put_type(e, fit ? CV_GGUF_I32 : CV_GGUF_I64);
    put_number(e, meta->count, 8);
    for (size_t i = 0; i < meta->count; i++)
        put_number(e, (uint64_t)meta->integers[i], fit ? 4 : 8);
}

static void put_floats(emitter *e, const cv_meta *meta)
{
    put_type(e, CV_GGUF_F32);
    put_number(e, meta->count, 8);
    for (size_t i = 0; i < meta->count; i++)
        put_float(e, meta->numbers[i]);
}

static void put_texts(emitter *e, const cv_meta *meta)
{
    put_type(e, CV_GGUF_TEXT);
    put_number(e, meta->count, 8);
    for (size_t i = 0; i < meta->count; i++)
        put_text(e, meta->texts[i].bytes, meta->texts[i].n);
}

static void put_value(emitter *e, const cv_meta *meta)
{
    switch (meta->type) {
    case CV_META_INT: put_integer(e, meta->integer); return;
    case CV_META_FLOAT:
        put_type(e, CV_GGUF_F32);
        put_float(e, meta->number);
        return;
    case CV_META_BOOL:
        put_type(e, CV_GGUF_BOOL);
        put_number(e, meta->integer != 0, 1);
        return;
    case CV_META_TEXT:
        put_type(e, CV_GGUF_TEXT);
        put_text(e, meta->text.bytes, meta->text.n);
        return;
    case CV_META_INTS:
        put_type(e, CV_GGUF_ARRAY);
        put_integers(e, meta);
        return;
    case CV_META_FLOATS:
        put_type(e, CV_GGUF_ARRAY);
        put_floats(e, meta);
        return;
    case CV_META_TEXTS:
        put_type(e, CV_GGUF_ARRAY);
        put_texts(e, meta);
        return;
    }
}

/* The alignment of a file that was read says nothing about the one that is written. */
static bool is_written(const cv_meta *meta)
{
    return strcmp(meta->key, "general.alignment") != 0;
}

static bool fits_float(double number)
{
    return !isfinite(number) || (number >= -(double)FLT_MAX && number <= (double)FLT_MAX);
}

static corvid_status check_value(const cv_meta *meta, corvid_error *err)
{
    const char *fault = cv_gguf_name_fault(meta->key, strlen(meta->key));
    if (fault)
        return cv_fail(err, CORVID_E_ARGUMENT, "GGUF: the key \"%.*s\" %s; rename it",
                       cv_gguf_shown(meta->key), meta->key, fault);
    bool fits = meta->type != CV_META_FLOAT || fits_float(meta->number);
    for (size_t i = 0; meta->type == CV_META_FLOATS && i < meta->count; i++)
        fits = fits && fits_float(meta->numbers[i]);
    if (!fits)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "GGUF: key \"%.*s\": a number beyond the range of 32-bit floats; scale it",
                       cv_gguf_shown(meta->key), meta->key);
    return CORVID_OK;
}

/* ---- tensors -------------------------------------------------------------------------------- */

static uint32_t element_number(cv_dtype dtype)
{
    uint32_t i = 0;
    while (i < CV_GGUF_ELEMENTS &&
           (!cv_gguf_elements[i].name || cv_gguf_elements[i].dtype != dtype))
        i++;
    return i;
}

/* ne[0] is the length of a row.  A scalar is one row of one; GGUF has four dimensions at most, so
 * ones in front that do not fit are left out.  Returns their number, 0 when there are too many. */
static size_t row_first_dims(const cv_tensor *tensor, uint64_t ne[CV_GGUF_MAX_DIMS])
{
    size_t n = (size_t)tensor->n_dims, skip = 0;
    while (n - skip > CV_GGUF_MAX_DIMS && tensor->dims[skip] == 1)
        skip++;
    if (n - skip > CV_GGUF_MAX_DIMS) return 0;
    ne[0] = 1;
    for (size_t i = 0; i < n - skip; i++)
        ne[i] = tensor->dims[n - 1 - i];
    return n - skip ? n - skip : 1;
}

static void put_tensor(emitter *e, const cv_tensor *tensor, uint64_t offset)
{
    uint64_t ne[CV_GGUF_MAX_DIMS];
    size_t n_dims = row_first_dims(tensor, ne);
    put_text(e, tensor->name, strlen(tensor->name));
    put_number(e, n_dims, 4);
    for (size_t i = 0; i < n_dims; i++)
        put_number(e, ne[i], 8);
    put_number(e, element_number(tensor->dtype), 4);
    put_number(e, offset, 8);
}

/* Bytes of the tensor's data, once it is sure that GGUF can describe it. */
static corvid_status measure_tensor(const cv_tensor *tensor, size_t *bytes, corvid_error *err)
{
    const char *name = tensor->name;
    const cv_dtype_info *type = cv_dtype_of(tensor->dtype);
    const char *fault = cv_gguf_name_fault(name, strlen(name));
    uint64_t ne[CV_GGUF_MAX_DIMS];
    size_t count = 0;
    if (fault)
        return cv_fail(err, CORVID_E_ARGUMENT, "GGUF: the tensor name \"%.*s\" %s; rename it",
                       cv_gguf_shown(name), name, fault);
    if (element_number(tensor->dtype) == CV_GGUF_ELEMENTS)
        return cv_fail(
            err, CORVID_E_ARGUMENT,
            "GGUF: tensor \"%.*s\": GGUF has no type for %s; convert it to i8 or i32, or "
            "write safetensors",
            cv_gguf_shown(name), name, type->name);
    if (row_first_dims(tensor, ne) == 0)
        return cv_fail(
            err, CORVID_E_ARGUMENT,
            "GGUF: tensor \"%.*s\" has %d dimensions, GGUF has at most %d; reshape it, or "
            "write safetensors",
            cv_gguf_shown(name), name, tensor->n_dims, CV_GGUF_MAX_DIMS);
    if (!cv_dims_count(tensor->dims, tensor->n_dims, &count) || count == 0 ||
        !cv_dims_fit_blocks(tensor->dims, tensor->n_dims, tensor->dtype) ||
        !cv_dtype_bytes(tensor->dtype, count, bytes))
        return cv_fail(
            err, CORVID_E_ARGUMENT,
            "GGUF: tensor \"%.*s\": %zu elements in rows of %llu cannot be written as %s, "
            "whose block is %zu; GGUF has no empty tensors",
            cv_gguf_shown(name), name, count, (unsigned long long)ne[0], type->name, type->block);
    return CORVID_OK;
}

/* Gives every tensor its place in the data, padded at both ends as readers expect. */
static corvid_status place_tensors(const cv_tensor *tensors, size_t n_tensors, cv_header *out,
                                   corvid_error *err)
{
    size_t end = 0, bytes;
    for (size_t i = 0; i < n_tensors; i++) {
        CV_TRY(measure_tensor(&tensors[i], &bytes, err));
        out->offsets[i] = end;
        if (!cv_add_size(end, bytes, &end) || !cv_round_up(end, CV_GGUF_ALIGNMENT, &end))
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "GGUF: tensor \"%.*s\": the file would have more than 2^64 bytes",
                           cv_gguf_shown(tensors[i].name), tensors[i].name);
    }
    out->data_bytes = end;
    return CORVID_OK;
}

/* ---- the header ----------------------------------------------------------------------------- */

static corvid_status check_unique(cv_arena *arena, const cv_meta *meta, size_t n_meta,
                                  const cv_tensor *tensors, size_t n_tensors, corvid_error *err)
{
    void *memory;
    size_t room = n_meta > n_tensors ? n_meta : n_tensors;
    CV_TRY(cv_alloc_or_fail(arena->mem, room, sizeof(const char *), "a GGUF header", &memory, err));
    const char **names = memory;
    for (size_t i = 0; i < n_meta; i++)
        names[i] = meta[i].key;
    const char *key = cv_gguf_repeated(names, n_meta), *tensor = NULL;
    if (!key) {
        for (size_t i = 0; i < n_tensors; i++)
            names[i] = tensors[i].name;
        tensor = cv_gguf_repeated(names, n_tensors);
    }
    cv_free(arena->mem, memory);
    if (!key && !tensor) return CORVID_OK;
    const char *name = key ? key : tensor;
    return cv_fail(err, CORVID_E_ARGUMENT, "GGUF: %s \"%.*s\" is given twice; rename one",
                   key ? "key" : "tensor", cv_gguf_shown(name), name);
}

static void put_header(emitter *e, const cv_meta *meta, size_t n_meta, const cv_tensor *tensors,
                       size_t n_tensors, const uint64_t *offsets)
{
    static const unsigned char zeros[CV_GGUF_ALIGNMENT];
    size_t n_written = 0;
    for (size_t i = 0; i < n_meta; i++)
        n_written += is_written(&meta[i]);
    put(e, "GGUF", 4);
    put_number(e, 3, 4);
    put_number(e, n_tensors, 8);
    put_number(e, n_written, 8);
    for (size_t i = 0; i < n_meta; i++) {
        if (!is_written(&meta[i])) continue;
        put_text(e, meta[i].key, strlen(meta[i].key));
        put_value(e, &meta[i]);
    }
    for (size_t i = 0; i < n_tensors; i++)
        put_tensor(e, &tensors[i], offsets[i]);
    put(e, zeros, (CV_GGUF_ALIGNMENT - e->n % CV_GGUF_ALIGNMENT) % CV_GGUF_ALIGNMENT);
}

corvid_status cv_gguf_header(cv_arena *arena, const cv_meta *meta, size_t n_meta,
                             const cv_tensor *tensors, size_t n_tensors, cv_header *out,
                             corvid_error *err)
{
    *out = (cv_header){ .offsets = cv_arena_alloc(arena, n_tensors, sizeof *out->offsets) };
    if (!out->offsets) goto fail_memory;
    for (size_t i = 0; i < n_meta; i++)
        CV_TRY(check_value(&meta[i], err));
    CV_TRY(place_tensors(tensors, n_tensors, out, err));
    CV_TRY(check_unique(arena, meta, n_meta, tensors, n_tensors, err));

    emitter count = { .bytes = NULL };
    put_header(&count, meta, n_meta, tensors, n_tensors, out->offsets);
    emitter fill = { .bytes = cv_arena_alloc(arena, count.n, 1) };
    if (!fill.bytes) goto fail_memory;
    put_header(&fill, meta, n_meta, tensors, n_tensors, out->offsets);
    out->bytes = (char *)fill.bytes;
    out->n = fill.n;
    return CORVID_OK;

fail_memory:
    return cv_fail(err, CORVID_E_MEMORY, "GGUF: out of memory for the header of %zu tensors",
                   n_tensors);
}
