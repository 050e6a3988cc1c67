/* safetensors.c - reads the header of a safetensors file: eight bytes of length, JSON, data.
 *
 * Jansson checks the JSON, one member of the header at a time: a whole tree of a hostile header
 * would take some fifty times the header's own size.  The writer is in safetensors_write.c. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "formats/checkpoint.h"
#include "formats/dims.h"

#define MAX_HEADER   100000000u
#define LENGTH_BYTES 8

/* The shortest entry there is:  "":{"dtype":"U8","shape":[],"data_offsets":[0,0]} */
#define SMALLEST_ENTRY 49

/* What one tensor's entry may take; the longest useful one has some four hundred bytes. */
#define LARGEST_ENTRY ((size_t)64 << 10)

typedef struct reader {
    cv_checkpoint *ckpt;
    const char *json; /* [n], the header without the padding behind it */
    size_t n, at;
    size_t capacity;           /* of ckpt->tensors */
    uint64_t data, data_bytes; /* where the data begins in the file, and its size */
    bool metadata_seen;
} reader;

static const struct {
    const char *name;
    cv_dtype dtype;
} DTYPES[] = {
    { "F64", CV_F64 }, { "F32", CV_F32 },   { "F16", CV_F16 }, { "BF16", CV_BF16 },
    { "I64", CV_I64 }, { "I32", CV_I32 },   { "I16", CV_I16 }, { "I8", CV_I8 },
    { "U8", CV_U8 },   { "BOOL", CV_BOOL },
};

/* ---- JSON, member by member ----------------------------------------------------------------- */

static unsigned long long offset_in_file(const reader *r)
{
    return LENGTH_BYTES + (unsigned long long)r->at;
}

static corvid_status fail_json(const reader *r, const char *expected, corvid_error *err)
{
    return cv_fail(err, CORVID_E_FORMAT,
                   "offset %llu: the header is not the JSON of a safetensors file: expected %s",
                   offset_in_file(r), expected);
}

static void skip_space(reader *r)
{
    while (r->at < r->n && memchr(" \t\r\n", r->json[r->at], 4))
        r->at++;
}

/* Steps over one character of punctuation, after any space. */
static bool take(reader *r, char c)
{
    skip_space(r);
    if (r->at == r->n || r->json[r->at] != c) return false;
    r->at++;
    return true;
}

/* The JSON value that begins at r->at and takes at most `room` bytes. */
static corvid_status load_value(reader *r, size_t room, size_t flags, json_t **out,
                                corvid_error *err)
{
    json_error_t problem;
    size_t left = r->n - r->at, n = left < room ? left : room;
    flags |= JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK;
    *out = json_loadb(r->json + r->at, n, flags, &problem);
    if (*out) {
        r->at += (size_t)problem.position;
        return CORVID_OK;
    }
    if (problem.text[0] == '\0' || json_error_code(&problem) == json_error_out_of_memory)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: the header's JSON");
    unsigned long long at = offset_in_file(r);
    if (problem.position > 0) at += (unsigned long long)problem.position;
    if (n < left && json_error_code(&problem) == json_error_premature_end_of_input)
        return cv_fail(err, CORVID_E_FORMAT,
                       "offset %llu: a tensor's entry is longer than %zu bytes, expected dtype, "
                       "shape and data_offsets",
                       offset_in_file(r), room);
    return cv_fail(err, CORVID_E_FORMAT, "offset %llu: the header is not valid JSON: %s", at,
                   problem.text);
}

/* A string; NUL characters are refused unless the flags say JSON_ALLOW_NUL. */
static corvid_status load_string(reader *r, size_t flags, const char *expected, json_t **out,
                                 corvid_error *err)
{
    *out = NULL;
    skip_space(r);
    if (r->at == r->n || r->json[r->at] != '"') return fail_json(r, expected, err);
    return load_value(r, r->n - r->at, flags, out, err);
}

/* Steps to the value of the next member of the object that r->at is in; *key becomes NULL behind
 * the closing brace.  *first is true before the first member. */
static corvid_status next_member(reader *r, bool *first, json_t **key, corvid_error *err)
{
    *key = NULL;
    if (take(r, '}')) return CORVID_OK;
    if (!*first && !take(r, ',')) return fail_json(r, "',' or '}' after a member", err);
    *first = false;
    CV_TRY(load_string(r, 0, "a name in quotes", key, err));
    if (take(r, ':')) return CORVID_OK;
    json_decref(*key);
    *key = NULL;
    return fail_json(r, "':' after a name", err);
}

/* ---- __metadata__ --------------------------------------------------------------------------- */

/* Texts go one after the other into a pool: an allocation of their own would cost a hostile header
 * of tiny entries several times its size. */
typedef struct text_pool {
    char *bytes;
    size_t used;
} text_pool;

static const char *pool_text(text_pool *pool, const json_t *string)
{
    char *text = pool->bytes + pool->used;
    size_t n = json_string_length(string);
    memcpy(text, json_string_value(string), n);
    text[n] = '\0';
    pool->used += n + 1;
    return text;
}

/* Walks the object that r->at is in.  Without metas and a pool for them it only counts. */
static corvid_status walk_metadata(reader *r, cv_meta *metas, text_pool *pool, size_t *n,
                                   corvid_error *err)
{
    bool first = true;
    for (*n = 0;; ++*n) {
        json_t *key, *value;
        CV_TRY(next_member(r, &first, &key, err));
        if (!key) return CORVID_OK;
        corvid_status status =
            load_string(r, JSON_ALLOW_NUL, "a text as the value of a metadata key", &value, err);
        if (status == CORVID_OK && pool) {
            const char *name = pool_text(pool, key);
            cv_text text = { pool_text(pool, value), json_string_length(value) };
            metas[*n] = (cv_meta){ .key = name, .type = CV_META_TEXT, .text = text };
        }
        json_decref(key);
        json_decref(value);
        if (status != CORVID_OK) return status;
    }
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const cv_meta *)a)->key, ((const cv_meta *)b)->key);
}

static corvid_status read_metadata(reader *r, corvid_error *err)
{
    cv_checkpoint *ckpt = r->ckpt;
    if (r->metadata_seen) return fail_json(r, "__metadata__ only once", err);
    r->metadata_seen = true;
    if (!take(r, '{')) return fail_json(r, "an object of texts as __metadata__", err);
    const size_t start = r->at;
    size_t n;
    CV_TRY(walk_metadata(r, NULL, NULL, &n, err));

    /* Decoded, a text is no longer than in JSON, where quotes surround it. */
    text_pool pool = { .bytes = cv_arena_alloc(&ckpt->arena, r->at - start, 1) };
    ckpt->meta = cv_arena_alloc(&ckpt->arena, n, sizeof *ckpt->meta);
    if (!pool.bytes || !ckpt->meta)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu metadata texts", n);
    r->at = start;
    CV_TRY(walk_metadata(r, ckpt->meta, &pool, &ckpt->n_meta, err));

    if (n > 1) qsort(ckpt->meta, n, sizeof *ckpt->meta, by_key);
    for (size_t i = 1; i < n; i++)
        if (strcmp(ckpt->meta[i - 1].key, ckpt->meta[i].key) == 0)
            return cv_fail(err, CORVID_E_FORMAT,
                           "offset %llu: the metadata key \"%.200s\" is there twice, expected "
                           "every key once",
                           LENGTH_BYTES + (unsigned long long)start, ckpt->meta[i].key);
    return CORVID_OK;
}

/* ---- one tensor ----------------------------------------------------------------------------- */

static corvid_status read_dtype(const json_t *entry, cv_tensor *t, corvid_error *err)
{
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (!name)
        return cv_fail(err, CORVID_E_FORMAT, "tensor \"%.200s\": no dtype, expected a text",
                       t->name);
    for (size_t i = 0; i < sizeof DTYPES / sizeof *DTYPES; i++)
        if (strcmp(DTYPES[i].name, name) == 0) {
            t->dtype = DTYPES[i].dtype;
            return CORVID_OK;
        }
    return cv_fail(err, CORVID_E_FORMAT,
                   "tensor \"%.200s\": dtype \"%.40s\" is not supported, expected one of F64, F32, "
                   "F16, BF16, I64, I32, I16, I8, U8, BOOL; convert it first",
                   t->name, name);
}

/* A whole number of zero or more. */
static bool read_size(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static corvid_status read_shape(const json_t *entry, cv_tensor *t, corvid_error *err)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > CV_MAX_DIMS)
        return cv_fail(err, CORVID_E_FORMAT,
                       "tensor \"%.200s\": no shape, expected a list of at most %d sizes", t->name,
                       CV_MAX_DIMS);
    t->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < t->n_dims; i++) {
        uint64_t dim;
        if (!read_size(json_array_get(shape, (size_t)i), &dim) || !cv_u64_to_size(dim, &t->dims[i]))
            return cv_fail(err, CORVID_E_FORMAT,
                           "tensor \"%.200s\": dim %d of its shape is not a size, expected a whole "
                           "number of zero or more",
                           t->name, i);
    }
    if (!cv_dims_count(t->dims, t->n_dims, &t->count))
        return cv_fail(err, CORVID_E_FORMAT,
                       "tensor \"%.200s\": the product of its %d dims overflows; the file is "
                       "damaged",
                       t->name, t->n_dims);
    return CORVID_OK;
}

static corvid_status read_offsets(const reader *r, const json_t *entry, cv_tensor *t,
                                  corvid_error *err)
{
    const json_t *pair = json_object_get(entry, "data_offsets");
    uint64_t begin, end;
    if (json_array_size(pair) != 2 || !read_size(json_array_get(pair, 0), &begin) ||
        !read_size(json_array_get(pair, 1), &end))
        return cv_fail(err, CORVID_E_FORMAT,
                       "tensor \"%.200s\": no data_offsets, expected [begin, end] in bytes",
                       t->name);
    if (begin > end || end > r->data_bytes)
        return cv_fail(err, CORVID_E_FORMAT,
                       "tensor \"%.200s\": data_offsets [%llu, %llu], expected an ascending pair "
                       "within the %llu bytes of data; the file is cut short or damaged",
                       t->name, (unsigned long long)begin, (unsigned long long)end,
                       (unsigned long long)r->data_bytes);
    size_t bytes;
    if (!cv_dtype_bytes(t->dtype, t->count, &bytes) || bytes != end - begin)
        return cv_fail(err, CORVID_E_FORMAT,
                       "tensor \"%.200s\": data_offsets [%llu, %llu] hold %llu bytes, expected the "
                       "size of %zu elements of %s",
                       t->name, (unsigned long long)begin, (unsigned long long)end,
                       (unsigned long long)(end - begin), t->count, cv_dtype_of(t->dtype)->name);
    t->offset = r->data + begin;
    return CORVID_OK;
}

static corvid_status read_entry(reader *r, const json_t *key, const json_t *entry,
                                corvid_error *err)
{
    cv_checkpoint *ckpt = r->ckpt;
    if (!json_is_object(entry))
        return cv_fail(err, CORVID_E_FORMAT,
                       "tensor \"%.200s\": its entry is no object, expected dtype, shape and "
                       "data_offsets",
                       json_string_value(key));
    if (ckpt->n_tensors == r->capacity) /* bound_tensors was wrong */
        return cv_fail(err, CORVID_E_INTERNAL, "offset %llu: more than %zu tensors",
                       offset_in_file(r), r->capacity);
    cv_tensor *t = &ckpt->tensors[ckpt->n_tensors];
    *t = (cv_tensor){ .contiguous = true };
    t->name = cv_arena_text(&ckpt->arena, json_string_value(key), json_string_length(key));
    if (!t->name) return cv_fail(err, CORVID_E_MEMORY, "out of memory: a tensor's name");
    CV_TRY(read_dtype(entry, t, err));
    CV_TRY(read_shape(entry, t, err));
    CV_TRY(read_offsets(r, entry, t, err));
    ckpt->n_tensors++;
    return CORVID_OK;
}

/* ---- the whole header ----------------------------------------------------------------------- */

static corvid_status read_member(reader *r, const json_t *key, corvid_error *err)
{
    if (strcmp(json_string_value(key), "__metadata__") == 0) return read_metadata(r, err);
    json_t *entry;
    skip_space(r);
    CV_TRY(load_value(r, LARGEST_ENTRY, 0, &entry, err));
    corvid_status status = read_entry(r, key, entry, err);
    json_decref(entry);
    return status;
}

static corvid_status read_members(reader *r, corvid_error *err)
{
    if (r->n == 0 || r->json[0] != '{') return fail_json(r, "'{' as the first character", err);
    r->at = 1;
    for (bool first = true;;) {
        json_t *key;
        CV_TRY(next_member(r, &first, &key, err));
        if (!key) break;
        corvid_status status = read_member(r, key, err);
        json_decref(key);
        if (status != CORVID_OK) return status;
    }
    skip_space(r);
    return r->at == r->n ? CORVID_OK : fail_json(r, "only spaces after the object", err);
}

/* An upper bound of the number of entries: each has a brace, and room. */
static size_t bound_tensors(const reader *r)
{
    size_t braces = 0, most = r->n / SMALLEST_ENTRY + 1;
    for (size_t i = 1; i < r->n; i++)
        braces += r->json[i] == '{';
    return braces < most ? braces : most;
}

static int by_place(const void *a, const void *b)
{
    const cv_tensor *s = a, *t = b;
    if (s->offset != t->offset) return s->offset < t->offset ? -1 : 1;
    return (s->count > 0) - (t->count > 0); /* empty ones before the one that shares their offset */
}

/* The tensors must fill the data without holes, overlaps or anything behind the last. */
static corvid_status check_layout(const reader *r, corvid_error *err)
{
    cv_checkpoint *ckpt = r->ckpt;
    if (ckpt->n_tensors > 1) qsort(ckpt->tensors, ckpt->n_tensors, sizeof *ckpt->tensors, by_place);
    uint64_t end = r->data;
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        const cv_tensor *t = &ckpt->tensors[i];
        size_t bytes;
        if (t->offset != end)
            return cv_fail(
                err, CORVID_E_FORMAT,
                "tensor \"%.200s\": its data begins at offset %llu, expected %llu, where "
                "the data before it ends; the file has %s",
                t->name, (unsigned long long)t->offset, (unsigned long long)end,
                t->offset < end ? "overlapping tensors" : "a hole");
        if (!cv_dtype_bytes(t->dtype, t->count, &bytes))
            return cv_fail(err, CORVID_E_INTERNAL, "tensor \"%.200s\": its size changed", t->name);
        end += bytes;
    }
    if (end != ckpt->in.size)
        return cv_fail(
            err, CORVID_E_FORMAT,
            "offset %llu: the last tensor ends here, expected the end of the file, which "
            "has %llu bytes more",
            (unsigned long long)end, (unsigned long long)(ckpt->in.size - end));
    return CORVID_OK;
}

static corvid_status read_length(const cv_input *in, size_t *out, corvid_error *err)
{
    unsigned char raw[LENGTH_BYTES];
    uint64_t n = 0;
    CV_TRY(cv_input_read(in, 0, raw, sizeof raw, err));
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        n = n << 8 | raw[i];
    if (n > MAX_HEADER)
        return cv_fail(err, CORVID_E_FORMAT,
                       "offset 0: a header of %llu bytes, expected at most %u; is this a "
                       "safetensors file?",
                       (unsigned long long)n, MAX_HEADER);
    if (!cv_range_within(LENGTH_BYTES, n, in->size))
        return cv_fail(err, CORVID_E_FORMAT,
                       "offset 0: a header of %llu bytes, but the file has %llu; it is cut short "
                       "or damaged, get it again",
                       (unsigned long long)n, (unsigned long long)in->size);
    *out = (size_t)n;
    return CORVID_OK;
}

static corvid_status parse_header(reader *r, char *json, corvid_error *err)
{
    cv_checkpoint *ckpt = r->ckpt;
    CV_TRY(cv_input_read(&ckpt->in, LENGTH_BYTES, json, r->n, err));
    r->json = json;
    r->data = LENGTH_BYTES + r->n;
    r->data_bytes = ckpt->in.size - r->data;
    r->capacity = bound_tensors(r);
    ckpt->tensors = cv_arena_alloc(&ckpt->arena, r->capacity, sizeof *ckpt->tensors);
    if (!ckpt->tensors)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu tensors", r->capacity);
    CV_TRY(read_members(r, err));
    return check_layout(r, err);
}

corvid_status cv_safetensors_parse(cv_checkpoint *ckpt, corvid_error *err)
{
    reader r = { .ckpt = ckpt };
    void *json;
    CV_TRY(read_length(&ckpt->in, &r.n, err));
    CV_TRY(cv_alloc_or_fail(ckpt->arena.mem, r.n, 1, "the header", &json, err));
    corvid_status status = parse_header(&r, json, err);
    cv_free(ckpt->arena.mem, json);
    return status;
}
