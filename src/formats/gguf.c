/* gguf.c - reads the header of a GGUF file: keys with values, and where each tensor lies.
 *
 * The header is walked twice through a window of fixed size.  The first walk keeps nothing and
 * proves that every count and length is really there; the second stores into arrays whose sizes
 * are known by then, so memory is bounded by what the file holds, whatever it claims.
 *
 * Versions 2 and 3, little-endian.  Arrays of arrays are checked and left out.  It does not know
 * what a key or a tensor means, except general.alignment.  [fmt.gguf] */
#include "formats/gguf_types.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "formats/dims.h"

#define WINDOW ((size_t)64 << 10)

/* A vocabulary of 65536 tokens makes a header of 2 MB; safetensors draws the same line. */
#define MAX_HEADER 100000000u

#define MIN_PAIR   14 /* bytes: length and one letter of a key, type, one byte of value */
#define MIN_TENSOR 33 /* length and one letter of a name, number of dims, a dim, type, offset */

#define MIN_ALIGNMENT 8
#define MAX_ALIGNMENT (1 << 20)

const cv_gguf_element cv_gguf_elements[CV_GGUF_ELEMENTS] = {
    [0] = { "f32", CV_F32 },
    [1] = { "f16", CV_F16 },
    [2] = { "q4_0", CV_Q4_0 },
    [3] = { "q4_1", CV_Q4_1 },
    [4] = { "q4_2", CV_DTYPES },
    [5] = { "q4_3", CV_DTYPES },
    [6] = { "q5_0", CV_Q5_0 },
    [7] = { "q5_1", CV_Q5_1 },
    [8] = { "q8_0", CV_Q8_0 },
    [9] = { "q8_1", CV_DTYPES },
    [10] = { "q2_k", CV_DTYPES },
    [11] = { "q3_k", CV_DTYPES },
    [12] = { "q4_k", CV_Q4_K },
    [13] = { "q5_k", CV_Q5_K },
    [14] = { "q6_k", CV_Q6_K },
    [15] = { "q8_k", CV_DTYPES },
    [16] = { "iq2_xxs", CV_DTYPES },
    [17] = { "iq2_xs", CV_DTYPES },
    [18] = { "iq3_xxs", CV_DTYPES },
    [19] = { "iq1_s", CV_DTYPES },
    [20] = { "iq4_nl", CV_DTYPES },
    [21] = { "iq3_s", CV_DTYPES },
    [22] = { "iq2_s", CV_DTYPES },
    [23] = { "iq4_xs", CV_DTYPES },
    [24] = { "i8", CV_I8 },
    [25] = { "i16", CV_I16 },
    [26] = { "i32", CV_I32 },
    [27] = { "i64", CV_I64 },
    [28] = { "f64", CV_F64 },
    [29] = { "iq1_m", CV_DTYPES },
    [30] = { "bf16", CV_BF16 },
    [31] = { "q4_0_4_4", CV_DTYPES },
    [32] = { "q4_0_4_8", CV_DTYPES },
    [33] = { "q4_0_8_8", CV_DTYPES },
    [34] = { "tq1_0", CV_DTYPES },
    [35] = { "tq2_0", CV_DTYPES },
    [36] = { "iq4_nl_4_4", CV_DTYPES },
    [37] = { "iq4_nl_4_8", CV_DTYPES },
    [38] = { "iq4_nl_8_8", CV_DTYPES },
    [39] = { "mxfp4", CV_DTYPES },
    [40] = { "nvfp4", CV_DTYPES },
};

/* Bytes of one value; for texts and arrays the least they take. */
static const unsigned char value_bytes[CV_GGUF_VALUES] = {
    [CV_GGUF_U8] = 1,   [CV_GGUF_I8] = 1,     [CV_GGUF_U16] = 2, [CV_GGUF_I16] = 2,
    [CV_GGUF_U32] = 4,  [CV_GGUF_I32] = 4,    [CV_GGUF_F32] = 4, [CV_GGUF_BOOL] = 1,
    [CV_GGUF_TEXT] = 8, [CV_GGUF_ARRAY] = 12, [CV_GGUF_U64] = 8, [CV_GGUF_I64] = 8,
    [CV_GGUF_F64] = 8,
};

typedef struct reader {
    cv_checkpoint *ckpt;
    corvid_error *err;
    bool keep; /* the second walk */

    uint64_t at;      /* of the next field, from the start of the file */
    uint64_t end;     /* no field reaches beyond */
    uint64_t held_at; /* window[0..held) is what the file holds from here on */
    size_t held;

    size_t n_pairs, n_tensors; /* as the header says */
    uint64_t alignment, data_at;
    uint64_t used; /* end of the tensors' data seen so far, from data_at */

    const char *kind; /* of the record being read, for messages: */
    size_t index;
    bool named; /* name holds its name already */
    char name[CV_GGUF_MAX_NAME + 1];
    unsigned char window[WINDOW];
} reader;

/* ---- names ---------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at p (n > 0 bytes are left); 0 when it is malformed. */
static size_t utf8_length(const unsigned char *p, size_t n)
{
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (length == 0 || length > n || p[0] > 0xF4) return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    if (p[0] == 0xE0 && p[1] < 0xA0) return 0; /* longer than it need be */
    if (p[0] == 0xED && p[1] > 0x9F) return 0; /* half of a UTF-16 pair */
    if (p[0] == 0xF0 && p[1] < 0x90) return 0;
    if (p[0] == 0xF4 && p[1] > 0x8F) return 0; /* beyond U+10FFFF */
    return length;
}

const char *cv_gguf_name_fault(const char *name, size_t n)
{
    const unsigned char *p = (const unsigned char *)name;
    if (n == 0) return "is empty";
    if (n > CV_GGUF_MAX_NAME) return "is longer than 65535 bytes";
    for (size_t i = 0, length; i < n; i += length) {
        /* They would reach a terminal through messages, and a zero would cut the name short. */
        if (p[i] < 0x20 || p[i] == 0x7F) return "holds a control character";
        length = utf8_length(p + i, n - i);
        if (length == 0) return "is not UTF-8";
    }
    return NULL;
}

int cv_gguf_shown(const char *name)
{
    size_t n = strnlen(name, 96);
    while (n > 0 && ((unsigned char)name[n] & 0xC0) == 0x80)
        n--;
    return (int)n;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const char *cv_gguf_repeated(const char **names, size_t n)
{
    if (n < 2) return NULL;
    qsort(names, n, sizeof *names, compare_names);
    for (size_t i = 1; i < n; i++)
        if (strcmp(names[i - 1], names[i]) == 0) return names[i];
    return NULL;
}

/* ---- messages ------------------------------------------------------------------------------- */

typedef struct label {
    char text[160];
} label;

/* As: key "general.name"; before its name is known: key 3 of 40. */
static label label_of(const reader *r)
{
    label l;
    if (r->named)
        snprintf(l.text, sizeof l.text, "%s \"%.*s\"", r->kind, cv_gguf_shown(r->name), r->name);
    else
        snprintf(l.text, sizeof l.text, "%s %zu of %zu", r->kind, r->index + 1,
                 strcmp(r->kind, "key") == 0 ? r->n_pairs : r->n_tensors);
    return l;
}

static corvid_status fail_memory(const reader *r)
{
    return cv_fail(r->err, CORVID_E_MEMORY, "out of memory for %s", label_of(r).text);
}

/* ---- fields --------------------------------------------------------------------------------- */

/* Are n more bytes there?  Every length and count passes here before anything is done with it. */
static corvid_status need(const reader *r, uint64_t n)
{
    if (cv_range_within(r->at, n, r->end)) return CORVID_OK;
    unsigned long long wanted = n, at = r->at, size = r->ckpt->in.size;
    if (cv_range_within(r->at, n, size))
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "%s takes %llu bytes at offset %llu, which makes the header longer than "
                       "%u bytes; no model needs that, is the file damaged?",
                       label_of(r).text, wanted, at, MAX_HEADER);
    return cv_fail(r->err, CORVID_E_FORMAT,
                   "%s takes %llu bytes at offset %llu, but the file ends at byte %llu; it is "
                   "cut short or damaged, get it again",
                   label_of(r).text, wanted, at, size);
}

/* The next n bytes (n <= WINDOW), and past them. */
static corvid_status take(reader *r, size_t n, const unsigned char **out)
{
    CV_TRY(need(r, n));
    bool held = r->at >= r->held_at && cv_range_within(r->at - r->held_at, n, r->held);
    if (!held) {
        uint64_t left = r->end - r->at;
        size_t fill = left < WINDOW ? (size_t)left : WINDOW;
        r->held = 0;
        CV_TRY(cv_input_read(&r->ckpt->in, r->at, r->window, fill, r->err));
        r->held = fill;
        r->held_at = r->at;
    }
    *out = r->window + (r->at - r->held_at);
    r->at += n;
    return CORVID_OK;
}

static uint64_t little_endian(const unsigned char *p, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++)
        value |= (uint64_t)p[i] << 8 * i;
    return value;
}

static corvid_status take_u32(reader *r, uint32_t *out)
{
    const unsigned char *p;
    CV_TRY(take(r, 4, &p));
    *out = (uint32_t)little_endian(p, 4);
    return CORVID_OK;
}

static corvid_status take_u64(reader *r, uint64_t *out)
{
    const unsigned char *p;
    CV_TRY(take(r, 8, &p));
    *out = little_endian(p, 8);
    return CORVID_OK;
}

static corvid_status take_bytes(reader *r, void *dst, size_t n)
{
    const unsigned char *p;
    if (n <= WINDOW) {
        CV_TRY(take(r, n, &p));
        memcpy(dst, p, n);
        return CORVID_OK;
    }
    CV_TRY(need(r, n));
    CV_TRY(cv_input_read(&r->ckpt->in, r->at, dst, n, r->err));
    r->at += n;
    return CORVID_OK;
}

/* A length and that many bytes; *out is {"", 0} in the first walk. */
static corvid_status take_text(reader *r, cv_text *out)
{
    uint64_t n;
    *out = (cv_text){ "", 0 };
    CV_TRY(take_u64(r, &n));
    CV_TRY(need(r, n));
    if (!r->keep || n == 0) {
        r->at += n;
        return CORVID_OK;
    }
    char *text = cv_arena_alloc(&r->ckpt->arena, (size_t)n + 1, 1);
    if (!text) return fail_memory(r);
    *out = (cv_text){ text, (size_t)n };
    return take_bytes(r, text, (size_t)n);
}

/* The name that begins record `index` of a kind; *kept is its copy in the second walk. */
static corvid_status take_name(reader *r, const char *kind, size_t index, const char **kept)
{
    uint64_t n, at = r->at;
    r->kind = kind;
    r->index = index;
    r->named = false;
    CV_TRY(take_u64(r, &n));
    if (n <= CV_GGUF_MAX_NAME) CV_TRY(take_bytes(r, r->name, (size_t)n));
    const char *fault = cv_gguf_name_fault(r->name, (size_t)n);
    if (fault)
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "the name of %s at offset %llu %s (%llu bytes); the file is damaged",
                       label_of(r).text, (unsigned long long)at, fault, (unsigned long long)n);
    r->name[n] = '\0';
    r->named = true;
    if (!r->keep) return CORVID_OK;
    *kept = cv_arena_text(&r->ckpt->arena, r->name, (size_t)n);
    return *kept ? CORVID_OK : fail_memory(r);
}

/* ---- values --------------------------------------------------------------------------------- */

static bool is_float(cv_gguf_value type)
{
    return type == CV_GGUF_F32 || type == CV_GGUF_F64;
}

static double float_of(uint64_t bits, cv_gguf_value type)
{
    double wide;
    float narrow;
    uint32_t low = (uint32_t)bits;
    memcpy(&wide, &bits, sizeof wide);
    memcpy(&narrow, &low, sizeof narrow);
    return type == CV_GGUF_F64 ? wide : (double)narrow;
}

static int64_t integer_of(uint64_t bits, cv_gguf_value type)
{
    switch (type) {
    case CV_GGUF_I8: return (int8_t)bits;
    case CV_GGUF_I16: return (int16_t)bits;
    case CV_GGUF_I32: return (int32_t)bits;
    default: return (int64_t)bits;
    }
}

/* One number or bool, into whichever of the two its type is of. */
static corvid_status take_number(reader *r, cv_gguf_value type, int64_t *integer, double *number)
{
    const unsigned char *p;
    uint64_t at = r->at;
    CV_TRY(take(r, value_bytes[type], &p));
    uint64_t bits = little_endian(p, value_bytes[type]);
    if ((type == CV_GGUF_BOOL && bits > 1) || (type == CV_GGUF_U64 && bits > INT64_MAX))
        return cv_fail(r->err, CORVID_E_FORMAT, "%s: value %llu at offset %llu, expected %s",
                       label_of(r).text, (unsigned long long)bits, (unsigned long long)at,
                       type == CV_GGUF_BOOL ? "0 or 1 for a bool" : "less than 2^63");
    if (is_float(type))
        *number = float_of(bits, type);
    else
        *integer = integer_of(bits, type);
    return CORVID_OK;
}

static corvid_status take_type(reader *r, cv_gguf_value *out)
{
    uint32_t type;
    CV_TRY(take_u32(r, &type));
    if (type >= CV_GGUF_VALUES)
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "%s: value type %lu at offset %llu is unknown, expected 0 to %d; the "
                       "file is damaged or newer than this reader",
                       label_of(r).text, (unsigned long)type, (unsigned long long)(r->at - 4),
                       CV_GGUF_VALUES - 1);
    *out = (cv_gguf_value)type;
    return CORVID_OK;
}

/* Type and number of the elements that follow; the least they take is there. */
static corvid_status take_array_head(reader *r, cv_gguf_value *type, size_t *n)
{
    uint64_t count;
    size_t bytes;
    CV_TRY(take_type(r, type));
    CV_TRY(take_u64(r, &count));
    if (!cv_u64_to_size(count, n) || !cv_mul_size(*n, value_bytes[*type], &bytes))
        bytes = SIZE_MAX; /* more than any file has */
    return need(r, bytes);
}

static corvid_status take_numbers(reader *r, cv_gguf_value type, cv_meta *meta)
{
    if (!r->keep) {
        r->at += (uint64_t)meta->count * value_bytes[type];
        return CORVID_OK;
    }
    int64_t *integers = NULL, unused_integer;
    double *numbers = NULL, unused_number;
    if (is_float(type)) {
        meta->numbers = numbers = cv_arena_alloc(&r->ckpt->arena, meta->count, sizeof *numbers);
    } else {
        meta->integers = integers = cv_arena_alloc(&r->ckpt->arena, meta->count, sizeof *integers);
    }
    if (!numbers && !integers) return fail_memory(r);
    for (size_t i = 0; i < meta->count; i++)
        CV_TRY(take_number(r, type, integers ? &integers[i] : &unused_integer,
                           numbers ? &numbers[i] : &unused_number));
    return CORVID_OK;
}

static corvid_status take_texts(reader *r, cv_meta *meta)
{
    cv_text *texts = NULL, unused;
    if (r->keep) {
        meta->texts = texts = cv_arena_alloc(&r->ckpt->arena, meta->count, sizeof *texts);
        if (!texts) return fail_memory(r);
    }
    for (size_t i = 0; i < meta->count; i++)
        CV_TRY(take_text(r, texts ? &texts[i] : &unused));
    return CORVID_OK;
}

/* n arrays, one after the other, that nobody will use: only their bounds are checked. */
static corvid_status skip_arrays(reader *r, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cv_gguf_value type;
        size_t count;
        uint64_t at = r->at, length;
        CV_TRY(take_array_head(r, &type, &count));
        if (type == CV_GGUF_ARRAY)
            return cv_fail(r->err, CORVID_E_FORMAT,
                           "%s: arrays nest three deep at offset %llu, expected at most two; "
                           "no model needs that, is the file damaged?",
                           label_of(r).text, (unsigned long long)at);
        if (type != CV_GGUF_TEXT) {
            r->at += (uint64_t)count * value_bytes[type];
            continue;
        }
        for (size_t j = 0; j < count; j++) {
            CV_TRY(take_u64(r, &length));
            CV_TRY(need(r, length));
            r->at += length;
        }
    }
    return CORVID_OK;
}

/* *kept is false for an array that cv_meta cannot hold. */
static corvid_status take_array(reader *r, cv_meta *meta, bool *kept)
{
    cv_gguf_value type;
    CV_TRY(take_array_head(r, &type, &meta->count));
    if (type == CV_GGUF_ARRAY) {
        *kept = false;
        return skip_arrays(r, meta->count);
    }
    if (type == CV_GGUF_TEXT) {
        meta->type = CV_META_TEXTS;
        return take_texts(r, meta);
    }
    meta->type = is_float(type) ? CV_META_FLOATS : CV_META_INTS;
    return take_numbers(r, type, meta);
}

static corvid_status take_pair(reader *r, size_t index, cv_meta *meta, bool *kept)
{
    cv_gguf_value type;
    *meta = (cv_meta){ .key = NULL };
    *kept = true;
    CV_TRY(take_name(r, "key", index, &meta->key));
    CV_TRY(take_type(r, &type));
    switch (type) {
    case CV_GGUF_TEXT: meta->type = CV_META_TEXT; return take_text(r, &meta->text);
    case CV_GGUF_ARRAY: return take_array(r, meta, kept);
    case CV_GGUF_BOOL: meta->type = CV_META_BOOL; break;
    default: meta->type = is_float(type) ? CV_META_FLOAT : CV_META_INT; break;
    }
    return take_number(r, type, &meta->integer, &meta->number);
}

/* ---- tensors -------------------------------------------------------------------------------- */

/* A tensor's record as it stands in the file: ne[0] is the length of a row. */
typedef struct record {
    const char *name;
    uint32_t n_dims, type;
    uint64_t ne[CV_GGUF_MAX_DIMS];
    uint64_t offset; /* from data_at */
    uint64_t at;     /* of the record, for messages */
} record;

static corvid_status take_record(reader *r, size_t index, record *out)
{
    *out = (record){ .at = r->at };
    CV_TRY(take_name(r, "tensor", index, &out->name));
    CV_TRY(take_u32(r, &out->n_dims));
    if (out->n_dims < 1 || out->n_dims > CV_GGUF_MAX_DIMS)
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "%s: %lu dimensions at offset %llu, expected 1 to %d; the file is "
                       "damaged",
                       label_of(r).text, (unsigned long)out->n_dims,
                       (unsigned long long)(r->at - 4), CV_GGUF_MAX_DIMS);
    for (uint32_t i = 0; i < out->n_dims; i++)
        CV_TRY(take_u64(r, &out->ne[i]));
    CV_TRY(take_u32(r, &out->type));
    return take_u64(r, &out->offset);
}

static corvid_status check_type(const reader *r, const record *rec, cv_tensor *tensor)
{
    const char *name = rec->type < CV_GGUF_ELEMENTS ? cv_gguf_elements[rec->type].name : NULL;
    if (!name)
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "%s: element type %lu is unknown (record at offset %llu); the file is "
                       "damaged or newer than this reader",
                       label_of(r).text, (unsigned long)rec->type, (unsigned long long)rec->at);
    tensor->dtype = cv_gguf_elements[rec->type].dtype;
    if (tensor->dtype == CV_DTYPES)
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "%s: %s is not supported; requantize with llama-quantize to q8_0, q6_k, "
                       "q5_k or q4_k, or convert the original model",
                       label_of(r).text, name);
    return CORVID_OK;
}

/* Dims, outermost first, and what they come to; a dim of 1 is kept wherever it stands. */
static corvid_status check_shape(const reader *r, const record *rec, cv_tensor *tensor,
                                 size_t *bytes)
{
    const cv_dtype_info *type = cv_dtype_of(tensor->dtype);
    bool fits = true;
    tensor->n_dims = (int)rec->n_dims;
    for (uint32_t i = 0; i < rec->n_dims; i++) {
        if (rec->ne[i] == 0)
            return cv_fail(r->err, CORVID_E_FORMAT,
                           "%s: dimension %lu is 0 (record at offset %llu), expected at least 1; "
                           "the file is damaged",
                           label_of(r).text, (unsigned long)i, (unsigned long long)rec->at);
        fits = fits && cv_u64_to_size(rec->ne[i], &tensor->dims[rec->n_dims - 1 - i]);
    }
    if (fits && !cv_dims_fit_blocks(tensor->dims, tensor->n_dims, tensor->dtype))
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "%s: rows of %llu elements, expected a multiple of %zu, the block of %s "
                       "(record at offset %llu)",
                       label_of(r).text, (unsigned long long)rec->ne[0], type->block, type->name,
                       (unsigned long long)rec->at);
    if (!fits || !cv_dims_count(tensor->dims, tensor->n_dims, &tensor->count) ||
        !cv_dtype_bytes(tensor->dtype, tensor->count, bytes))
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "%s: the product of its dimensions does not fit 64 bits (record at offset "
                       "%llu); the file is damaged",
                       label_of(r).text, (unsigned long long)rec->at);
    return CORVID_OK;
}

/* Data lie aligned, in the order of the records, none over another, all within the file. */
static corvid_status check_place(reader *r, const record *rec, cv_tensor *tensor, size_t bytes)
{
    unsigned long long offset = rec->offset, size = r->ckpt->in.size, data_at = r->data_at;
    if (rec->offset % r->alignment != 0)
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "%s: data at offset %llu of the data, expected a multiple of %llu "
                       "(general.alignment); the file is damaged",
                       label_of(r).text, offset, (unsigned long long)r->alignment);
    if (rec->offset < r->used)
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "%s: data at offset %llu of the data, inside those of the tensors before "
                       "it, which end at %llu; the file is damaged",
                       label_of(r).text, offset, (unsigned long long)r->used);
    if (data_at > size || !cv_range_within(rec->offset, bytes, size - data_at))
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "%s: %zu bytes of data at offset %llu + %llu, but the file ends at byte "
                       "%llu; it is cut short or damaged, get it again",
                       label_of(r).text, bytes, data_at, offset, size);
    r->used = rec->offset + bytes;
    tensor->offset = data_at + rec->offset;
    return CORVID_OK;
}

static corvid_status take_tensor(reader *r, size_t index)
{
    record rec;
    size_t bytes;
    CV_TRY(take_record(r, index, &rec));
    if (!r->keep) return CORVID_OK;
    cv_tensor *tensor = &r->ckpt->tensors[index];
    tensor->name = rec.name;
    tensor->contiguous = true;
    CV_TRY(check_type(r, &rec, tensor));
    CV_TRY(check_shape(r, &rec, tensor, &bytes));
    return check_place(r, &rec, tensor, bytes);
}

/* ---- the header ----------------------------------------------------------------------------- */

static corvid_status check_magic(const reader *r, const unsigned char *p)
{
    uint64_t version = little_endian(p + 4, 4);
    bool swapped = memcmp(p, "FUGG", 4) == 0;
    if (!swapped && memcmp(p, "GGUF", 4) != 0)
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "begins with bytes %02x %02x %02x %02x at offset 0, expected \"GGUF\"; "
                       "it is no GGUF file",
                       p[0], p[1], p[2], p[3]);
    if (swapped || (version != 0 && (version & 0xFFFF) == 0))
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "is a big-endian GGUF file (version bytes %02x %02x %02x %02x at offset "
                       "4), which is not supported; get or convert to the little-endian one",
                       p[4], p[5], p[6], p[7]);
    if (version != 2 && version != 3)
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "GGUF version %llu at offset 4 is not supported, expected 2 or 3; "
                       "convert the original model again",
                       (unsigned long long)version);
    return CORVID_OK;
}

/* A count that the rest of the file has room for. */
static corvid_status check_count(const reader *r, const unsigned char *p, uint64_t at,
                                 size_t smallest, const char *what, size_t *out)
{
    uint64_t n = little_endian(p, 8);
    if (n > (r->end - CV_GGUF_HEADER_BYTES) / smallest || !cv_u64_to_size(n, out))
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "claims %llu %s at offset %llu, but %llu bytes have no room for them "
                       "(at least %zu each); the file is cut short or damaged",
                       (unsigned long long)n, what, (unsigned long long)at,
                       (unsigned long long)r->ckpt->in.size, smallest);
    return CORVID_OK;
}

static corvid_status take_header(reader *r)
{
    const unsigned char *p;
    if (r->end < CV_GGUF_HEADER_BYTES)
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "ends at byte %llu, expected a GGUF header of at least %d bytes at "
                       "offset 0; the file is cut short",
                       (unsigned long long)r->end, CV_GGUF_HEADER_BYTES);
    CV_TRY(take(r, CV_GGUF_HEADER_BYTES, &p));
    CV_TRY(check_magic(r, p));
    CV_TRY(check_count(r, p + 8, 8, MIN_TENSOR, "tensors", &r->n_tensors));
    return check_count(r, p + 16, 16, MIN_PAIR, "keys", &r->n_pairs);
}

static corvid_status check_keys(reader *r)
{
    const corvid_allocator *mem = r->ckpt->arena.mem;
    size_t n = r->ckpt->n_meta;
    void *memory;
    CV_TRY(
        cv_alloc_or_fail(mem, n, sizeof(const char *), "the keys of a GGUF file", &memory, r->err));
    const char **keys = memory;
    for (size_t i = 0; i < n; i++)
        keys[i] = r->ckpt->meta[i].key;
    const char *twice = cv_gguf_repeated(keys, n);
    cv_free(mem, memory);
    if (!twice) return CORVID_OK;
    return cv_fail(r->err, CORVID_E_FORMAT,
                   "key \"%.*s\" occurs twice, expected once; the file is damaged",
                   cv_gguf_shown(twice), twice);
}

/* Where the data begin: the end of the records (data_at so far), rounded up. */
static corvid_status place_data(reader *r)
{
    r->alignment = CV_GGUF_ALIGNMENT;
    for (size_t i = 0; i < r->ckpt->n_meta; i++) {
        const cv_meta *meta = &r->ckpt->meta[i];
        if (strcmp(meta->key, "general.alignment") != 0) continue;
        int64_t n = meta->integer;
        if (meta->type != CV_META_INT || n < MIN_ALIGNMENT || n > MAX_ALIGNMENT || n & (n - 1))
            return cv_fail(r->err, CORVID_E_FORMAT,
                           "key \"general.alignment\" is %s%lld, expected a power of two from %d "
                           "to %d; the file is damaged",
                           meta->type == CV_META_INT ? "" : "not an integer: ", (long long)n,
                           MIN_ALIGNMENT, MAX_ALIGNMENT);
        r->alignment = (uint64_t)n;
    }
    r->data_at = (r->data_at + r->alignment - 1) & ~(r->alignment - 1); /* both are small */
    return CORVID_OK;
}

/* One walk over all keys and tensors. */
static corvid_status take_records(reader *r)
{
    cv_meta unused = { 0 };
    bool kept;
    r->at = CV_GGUF_HEADER_BYTES;
    for (size_t i = 0; i < r->n_pairs; i++) {
        cv_meta *meta = r->keep ? &r->ckpt->meta[r->ckpt->n_meta] : &unused;
        CV_TRY(take_pair(r, i, meta, &kept));
        if (r->keep && kept) r->ckpt->n_meta++;
    }
    if (r->keep) {
        CV_TRY(check_keys(r));
        CV_TRY(place_data(r));
    }
    for (size_t i = 0; i < r->n_tensors; i++)
        CV_TRY(take_tensor(r, i));
    return CORVID_OK;
}

static corvid_status parse(reader *r)
{
    cv_checkpoint *ckpt = r->ckpt;
    CV_TRY(take_header(r));
    CV_TRY(take_records(r));
    r->data_at = r->at;
    r->keep = true;
    ckpt->meta = cv_arena_alloc(&ckpt->arena, r->n_pairs, sizeof *ckpt->meta);
    ckpt->tensors = cv_arena_alloc(&ckpt->arena, r->n_tensors, sizeof *ckpt->tensors);
    if (!ckpt->meta || !ckpt->tensors)
        return cv_fail(r->err, CORVID_E_MEMORY,
                       "out of memory for the list of its %zu keys and %zu tensors", r->n_pairs,
                       r->n_tensors);
    CV_TRY(take_records(r));
    ckpt->n_tensors = r->n_tensors;
    return CORVID_OK;
}

corvid_status cv_gguf_parse(cv_checkpoint *ckpt, corvid_error *err)
{
    void *memory;
    CV_TRY(cv_alloc_or_fail(ckpt->arena.mem, 1, sizeof(reader), "reading a GGUF header", &memory,
                            err));
    reader *r = memory;
    memset(r, 0, offsetof(reader, name)); /* the buffers are filled before they are read */
    r->ckpt = ckpt;
    r->err = err;
    r->kind = "header";
    r->end = ckpt->in.size < MAX_HEADER ? ckpt->in.size : MAX_HEADER;
    ckpt->format = CV_GGUF;
    ckpt->n_meta = ckpt->n_tensors = 0;
    corvid_status status = parse(r);
    cv_free(ckpt->arena.mem, memory);
    return status;
}
