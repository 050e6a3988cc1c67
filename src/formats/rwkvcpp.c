/* rwkvcpp.c - reads the directory of rwkv.cpp's own files: versions 100 and 101.
 *
 * Everything is little-endian and packed, there is no directory: each tensor's header stands right
 * before its data, so the file is walked from tensor to tensor.  It is walked twice, to count and
 * then to fill, which keeps the memory in proportion to what is there.  The files are not written
 * here; a converted model becomes GGUF or safetensors. */
#include <string.h>

#include "base/checked.h"
#include "formats/checkpoint.h"
#include "formats/dims.h"

#define HEADER_BYTES 24
#define RECORD_BYTES 12 /* before the dims and the name */
#define MAX_DIMS     3
#define MAX_NAME     1024 /* the longest in use has 31 bytes */
#define MAX_TENSORS  65536

/* The codes of ggml's types, with those that are known but not read here. */
typedef struct type_code {
    const char *name;
    bool readable;
    cv_dtype dtype;
} type_code;

static const type_code TYPES[] = {
    [0] = { "FP32", true, CV_F32 },   [1] = { "FP16", true, CV_F16 },
    [2] = { "Q4_0", true, CV_Q4_0 },  [3] = { "Q4_1", true, CV_Q4_1 },
    [4] = { "Q4_1_O", false, 0 },     [5] = { "Q4_2", false, 0 },
    [6] = { "Q4_3", false, 0 },       [7] = { "Q5_0", true, CV_Q5_0 },
    [8] = { "Q5_1", true, CV_Q5_1 },  [9] = { "Q8_0", true, CV_Q8_0 },
    [10] = { "Q8_1", false, 0 },      [11] = { "Q2_K", false, 0 },
    [12] = { "Q3_K", false, 0 },      [13] = { "Q4_K", true, CV_Q4_K },
    [14] = { "Q5_K", true, CV_Q5_K }, [15] = { "Q6_K", true, CV_Q6_K },
    [16] = { "Q8_K", false, 0 },
};

static int32_t int_at(const unsigned char *p)
{
    uint32_t u = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    int32_t i;
    memcpy(&i, &u, sizeof i);
    return i;
}

/* Whose type it is, is in `what`; `at` is where the code stands. */
static corvid_status read_type(int32_t code, int32_t version, const char *what, uint64_t at,
                               cv_dtype *out, corvid_error *err)
{
    if (code < 0 || (size_t)code >= sizeof TYPES / sizeof *TYPES)
        return cv_fail(err, CORVID_E_FORMAT,
                       "offset %llu: %s has the unknown element type %d, expected a code of ggml "
                       "(0 to 16)",
                       (unsigned long long)at, what, code);
    const type_code *type = &TYPES[code];
    if (!type->readable)
        return cv_fail(err, CORVID_E_FORMAT,
                       "offset %llu: %s has element type %d (%s), which is not supported; quantize "
                       "the model again to one of Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K",
                       (unsigned long long)at, what, code, type->name);
    if (version == 100 && cv_dtype_of(type->dtype)->quantized)
        return cv_fail(err, CORVID_E_FORMAT,
                       "offset %llu: %s is quantized (%s) in a file of version 100, whose blocks "
                       "had another layout; expected version 101, quantize the model again",
                       (unsigned long long)at, what, type->name);
    *out = type->dtype;
    return CORVID_OK;
}

/* ---- the file header ------------------------------------------------------------------------ */

typedef struct file_header {
    int32_t version, n_vocab, n_embed, n_layer, data_type;
} file_header;

static corvid_status read_file_header(const cv_input *in, file_header *h, corvid_error *err)
{
    unsigned char raw[HEADER_BYTES];
    CV_TRY(cv_input_read(in, 0, raw, sizeof raw, err));
    if (memcmp(raw, "fmgg", 4) != 0)
        return cv_fail(err, CORVID_E_FORMAT,
                       "offset 0: the first bytes are %02x %02x %02x %02x, expected 66 6d 67 67 "
                       "(an rwkv.cpp file)",
                       raw[0], raw[1], raw[2], raw[3]);
    *h = (file_header){ .version = int_at(raw + 4),
                        .n_vocab = int_at(raw + 8),
                        .n_embed = int_at(raw + 12),
                        .n_layer = int_at(raw + 16),
                        .data_type = int_at(raw + 20) };
    if (h->version != 100 && h->version != 101)
        return cv_fail(err, CORVID_E_FORMAT,
                       "offset 4: rwkv.cpp file version %d, expected 100 or 101; convert the model "
                       "with a release that writes one of them",
                       h->version);
    const struct {
        const char *name;
        int32_t value;
    } sizes[] = { { "n_vocab", h->n_vocab }, { "n_embed", h->n_embed }, { "n_layer", h->n_layer } };
    for (size_t i = 0; i < 3; i++)
        if (sizes[i].value < 1)
            return cv_fail(err, CORVID_E_FORMAT, "offset %zu: %s is %d, expected at least 1",
                           8 + 4 * i, sizes[i].name, sizes[i].value);
    cv_dtype bulk;
    return read_type(h->data_type, h->version, "the header's data_type", 20, &bulk, err);
}

static corvid_status add_metas(cv_checkpoint *ckpt, const file_header *h, corvid_error *err)
{
    const cv_meta metas[] = {
        { .key = "rwkvcpp.version", .type = CV_META_INT, .integer = h->version },
        { .key = "rwkvcpp.n_vocab", .type = CV_META_INT, .integer = h->n_vocab },
        { .key = "rwkvcpp.n_embed", .type = CV_META_INT, .integer = h->n_embed },
        { .key = "rwkvcpp.n_layer", .type = CV_META_INT, .integer = h->n_layer },
        { .key = "rwkvcpp.data_type", .type = CV_META_INT, .integer = h->data_type },
    };
    ckpt->meta = cv_arena_alloc(&ckpt->arena, 1, sizeof metas);
    if (!ckpt->meta) return cv_fail(err, CORVID_E_MEMORY, "out of memory: the file's metadata");
    memcpy(ckpt->meta, metas, sizeof metas);
    ckpt->n_meta = sizeof metas / sizeof *metas;
    return CORVID_OK;
}

/* ---- one tensor ----------------------------------------------------------------------------- */

/* Well-formed UTF-8 without control characters: names go into messages and JSON. */
static bool is_plain_text(const unsigned char *s, size_t n)
{
    static const uint32_t SMALLEST[4] = { 0x20, 0x80, 0x800, 0x10000 };
    for (size_t i = 0; i < n;) {
        unsigned c = s[i++];
        size_t more = c < 0x80 ? 0 : c < 0xC2 ? 4 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : c < 0xF5 ? 3 : 4;
        if (more == 4 || more > n - i) return false;
        uint32_t code = more == 0 ? c : c & (0x3Fu >> more);
        for (size_t k = 0; k < more; k++, i++) {
            if ((s[i] & 0xC0) != 0x80) return false;
            code = code << 6 | (s[i] & 0x3Fu);
        }
        if (code < SMALLEST[more] || code == 0x7F || code > 0x10FFFF) return false;
        if (code >= 0xD800 && code < 0xE000) return false;
    }
    return true;
}

/* dim_count, key_length and data_type, which stand at `at`. */
typedef struct record {
    int32_t n_dims, name_bytes;
    cv_dtype dtype;
} record;

static corvid_status read_record(const cv_input *in, int32_t version, uint64_t at, record *r,
                                 corvid_error *err)
{
    unsigned char raw[RECORD_BYTES];
    if (in->size - at < sizeof raw)
        return cv_fail(err, CORVID_E_FORMAT,
                       "offset %llu: %llu bytes after the last tensor, expected the end of the "
                       "file or a tensor's header of %d bytes; the file is cut short or damaged",
                       (unsigned long long)at, (unsigned long long)(in->size - at), RECORD_BYTES);
    CV_TRY(cv_input_read(in, at, raw, sizeof raw, err));
    r->n_dims = int_at(raw);
    r->name_bytes = int_at(raw + 4);
    if (r->n_dims < 1 || r->n_dims > MAX_DIMS)
        return cv_fail(err, CORVID_E_FORMAT, "offset %llu: a tensor of %d dims, expected 1 to %d",
                       (unsigned long long)at, r->n_dims, MAX_DIMS);
    if (r->name_bytes < 1 || r->name_bytes > MAX_NAME)
        return cv_fail(err, CORVID_E_FORMAT,
                       "offset %llu: a tensor's name of %d bytes, expected 1 to %d",
                       (unsigned long long)at + 4, r->name_bytes, MAX_NAME);
    return read_type(int_at(raw + 8), version, "a tensor", at + 8, &r->dtype, err);
}

/* The dims stand in the file with the length of a row first. */
static corvid_status read_dims(const unsigned char *raw, uint64_t at, cv_tensor *t,
                               corvid_error *err)
{
    for (int i = 0; i < t->n_dims; i++) {
        int32_t dim = int_at(raw + 4 * i);
        if (dim < 1)
            return cv_fail(err, CORVID_E_FORMAT,
                           "offset %llu: tensor \"%.200s\" has a dim of %d, expected at least 1",
                           (unsigned long long)at + 4 * (unsigned)i, t->name, dim);
        t->dims[t->n_dims - 1 - i] = (size_t)dim;
    }
    return CORVID_OK;
}

/* Bytes of the tensor's data; t->offset is where they begin. */
static corvid_status measure(const cv_input *in, cv_tensor *t, size_t *bytes, corvid_error *err)
{
    const cv_dtype_info *info = cv_dtype_of(t->dtype);
    if (!cv_dims_fit_blocks(t->dims, t->n_dims, t->dtype))
        return cv_fail(err, CORVID_E_FORMAT,
                       "tensor \"%.200s\": rows of %zu elements, expected a multiple of %zu (the "
                       "block of %s)",
                       t->name, t->dims[t->n_dims - 1], info->block, info->name);
    if (!cv_dims_count(t->dims, t->n_dims, &t->count) || !cv_dtype_bytes(t->dtype, t->count, bytes))
        return cv_fail(err, CORVID_E_FORMAT,
                       "tensor \"%.200s\": the product of its %d dims overflows; the file is "
                       "damaged",
                       t->name, t->n_dims);
    if (!cv_range_within(t->offset, *bytes, in->size))
        return cv_fail(err, CORVID_E_FORMAT,
                       "tensor \"%.200s\": %zu bytes of %s at offset %llu reach past the end of "
                       "the file at %llu; the file is cut short or damaged, get it again",
                       t->name, *bytes, info->name, (unsigned long long)t->offset,
                       (unsigned long long)in->size);
    return CORVID_OK;
}

/* The tensor whose header stands at *at, which moves to the next one.  name [MAX_NAME + 1] is
 * where t->name points. */
static corvid_status read_tensor(const cv_input *in, int32_t version, uint64_t *at, char *name,
                                 cv_tensor *t, corvid_error *err)
{
    record r;
    CV_TRY(read_record(in, version, *at, &r, err));
    unsigned char raw[4 * MAX_DIMS + MAX_NAME];
    const uint64_t dims_at = *at + RECORD_BYTES;
    const size_t dims_bytes = 4 * (size_t)r.n_dims, name_bytes = (size_t)r.name_bytes;
    CV_TRY(cv_input_read(in, dims_at, raw, dims_bytes + name_bytes, err));
    if (!is_plain_text(raw + dims_bytes, name_bytes))
        return cv_fail(err, CORVID_E_FORMAT,
                       "offset %llu: a tensor's name of %zu bytes is not UTF-8 text; the file is "
                       "damaged",
                       (unsigned long long)(dims_at + dims_bytes), name_bytes);
    memcpy(name, raw + dims_bytes, name_bytes);
    name[name_bytes] = '\0';
    *t = (cv_tensor){ .name = name,
                      .dtype = r.dtype,
                      .n_dims = (int)r.n_dims,
                      .offset = dims_at + dims_bytes + name_bytes,
                      .contiguous = true };
    CV_TRY(read_dims(raw, dims_at, t, err));
    size_t bytes = 0;
    CV_TRY(measure(in, t, &bytes, err));
    *at = t->offset + bytes;
    return CORVID_OK;
}

/* ---- the whole file ------------------------------------------------------------------------- */

static corvid_status count_tensors(const cv_input *in, int32_t version, size_t *n,
                                   corvid_error *err)
{
    char name[MAX_NAME + 1];
    cv_tensor t;
    *n = 0;
    for (uint64_t at = HEADER_BYTES; at < in->size; ++*n) {
        if (*n == MAX_TENSORS)
            return cv_fail(err, CORVID_E_FORMAT,
                           "offset %llu: more than %d tensors; is this a language model?",
                           (unsigned long long)at, MAX_TENSORS);
        CV_TRY(read_tensor(in, version, &at, name, &t, err));
    }
    if (*n == 0)
        return cv_fail(err, CORVID_E_FORMAT,
                       "offset %d: the file ends after its header, expected tensors; it is cut "
                       "short, get it again",
                       HEADER_BYTES);
    return CORVID_OK;
}

corvid_status cv_rwkvcpp_parse(cv_checkpoint *ckpt, corvid_error *err)
{
    file_header h = { 0 };
    size_t n;
    CV_TRY(read_file_header(&ckpt->in, &h, err));
    CV_TRY(count_tensors(&ckpt->in, h.version, &n, err));
    CV_TRY(add_metas(ckpt, &h, err));
    ckpt->tensors = cv_arena_alloc(&ckpt->arena, n, sizeof *ckpt->tensors);
    if (!ckpt->tensors) return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu tensors", n);

    char name[MAX_NAME + 1];
    uint64_t at = HEADER_BYTES;
    /* Bounded by n as well: a file may grow between the two walks. */
    while (ckpt->n_tensors < n && at < ckpt->in.size) {
        cv_tensor *t = &ckpt->tensors[ckpt->n_tensors];
        CV_TRY(read_tensor(&ckpt->in, h.version, &at, name, t, err));
        t->name = cv_arena_text(&ckpt->arena, name, strlen(name));
        if (!t->name) return cv_fail(err, CORVID_E_MEMORY, "out of memory: a tensor's name");
        ckpt->n_tensors++;
    }
    return CORVID_OK;
}
