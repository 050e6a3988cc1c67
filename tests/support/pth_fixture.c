/* pth_fixture.c - writes PyTorch checkpoints: protocol-2 pickles, stored zip entries, old streams.
 *
 * The pickles follow what torch.save emits, minus most of the memo; the zip archives come from
 * libzip's writer.  Out of memory ends the test. */
#include "pth_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zip.h>

#include "support.h"

/* ---- bytes ---------------------------------------------------------------------------------- */

void pth_put(pth_bytes *b, const void *bytes, size_t n)
{
    if (b->room - b->n < n) {
        b->room = 2 * b->room + n + 256;
        b->at = realloc(b->at, b->room);
        if (!b->at) fail_msg("out of memory");
    }
    if (n) memcpy(b->at + b->n, bytes, n);
    b->n += n;
}

void pth_op(pth_bytes *b, const char *ops)
{
    pth_put(b, ops, strlen(ops));
}

void pth_number(pth_bytes *b, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)(i < 8 ? value >> (8 * i) : 0);
        pth_put(b, &byte, 1);
    }
}

/* ---- pickle --------------------------------------------------------------------------------- */

void pth_text(pth_bytes *b, const char *text)
{
    pth_op(b, "X");
    pth_number(b, strlen(text), 4);
    pth_op(b, text);
}

void pth_int(pth_bytes *b, int64_t value)
{
    if (value >= 0 && value < 256) {
        pth_op(b, "K");
        pth_number(b, (uint64_t)value, 1);
    } else if (value >= 0 && value < 65536) {
        pth_op(b, "M");
        pth_number(b, (uint64_t)value, 2);
    } else if (value >= INT32_MIN && value <= INT32_MAX) {
        pth_op(b, "J");
        pth_number(b, (uint64_t)value, 4);
    } else {
        pth_op(b, "\x8a\x08");
        pth_number(b, (uint64_t)value, 8);
    }
}

void pth_global(pth_bytes *b, const char *module, const char *name)
{
    pth_op(b, "c");
    pth_op(b, module);
    pth_op(b, "\n");
    pth_op(b, name);
    pth_op(b, "\n");
}

void pth_sizes(pth_bytes *b, const int64_t *sizes, size_t n)
{
    pth_op(b, "(");
    for (size_t i = 0; i < n; i++)
        pth_int(b, sizes[i]);
    pth_op(b, "t");
}

const char *pth_storage_class(cv_dtype dtype)
{
    switch (dtype) {
    case CV_F16: return "HalfStorage";
    case CV_BF16: return "BFloat16Storage";
    case CV_F64: return "DoubleStorage";
    case CV_I8: return "CharStorage";
    case CV_I16: return "ShortStorage";
    case CV_I32: return "IntStorage";
    case CV_I64: return "LongStorage";
    case CV_U8: return "ByteStorage";
    case CV_BOOL: return "BoolStorage";
    default: return "FloatStorage";
    }
}

void pth_storage(pth_bytes *b, const char *storage_class, const char *key, int64_t count,
                 bool legacy)
{
    pth_op(b, "(");
    pth_text(b, "storage");
    pth_global(b, "torch", storage_class);
    pth_text(b, key);
    pth_text(b, "cpu");
    pth_int(b, count);
    pth_op(b, legacy ? "NtQ" : "tQ");
}

void pth_tensor(pth_bytes *b, const char *storage_class, const char *key, int64_t count,
                int64_t first, const int64_t *sizes, const int64_t *strides, size_t n_dims,
                bool legacy)
{
    pth_global(b, "torch._utils", "_rebuild_tensor_v2");
    pth_op(b, "(");
    pth_storage(b, storage_class, key, count, legacy);
    pth_int(b, first);
    pth_sizes(b, sizes, n_dims);
    pth_sizes(b, strides, n_dims);
    pth_op(b, "\x89");
    pth_global(b, "collections", "OrderedDict");
    pth_op(b, ")RtR");
}

/* ---- the pickle of a list of tensors -------------------------------------------------------- */

static size_t storage_of(const pth_options *o, size_t i)
{
    return o->storage ? o->storage[i] : i;
}

static size_t product(const cv_tensor *t)
{
    size_t count = 1;
    for (int k = 0; k < t->n_dims; k++)
        count *= t->dims[k];
    return count;
}

/* Elements of storage s, of which tensor i is a view. */
static size_t storage_count(const pth_options *o, const cv_tensor *tensors, size_t i)
{
    return o->storage ? o->counts[o->storage[i]] : product(&tensors[i]);
}

static void put_tensor(pth_bytes *b, const pth_options *o, const cv_tensor *tensors, size_t i)
{
    const cv_tensor *t = &tensors[i];
    int64_t dims[CV_MAX_DIMS], strides[CV_MAX_DIMS], row = 1, first = 0;
    for (int k = t->n_dims; k-- > 0;) {
        dims[k] = (int64_t)t->dims[k];
        strides[k] = o->storage && !t->contiguous ? (int64_t)t->strides[k] : row;
        row *= dims[k] ? dims[k] : 1;
    }
    if (o->storage) first = (int64_t)(t->offset / cv_dtype_of(t->dtype)->block_bytes);
    char key[32];
    snprintf(key, sizeof key, "%zu", storage_of(o, i));
    if (o->parameters) {
        pth_global(b, "torch._utils", "_rebuild_parameter");
        pth_op(b, "(");
    }
    pth_tensor(b, pth_storage_class(t->dtype), key, (int64_t)storage_count(o, tensors, i), first,
               dims, strides, (size_t)t->n_dims, o->legacy);
    if (o->parameters) {
        pth_op(b, "\x88");
        pth_global(b, "collections", "OrderedDict");
        pth_op(b, ")RtR");
    }
}

static void put_dict(pth_bytes *b, const pth_options *o, const cv_tensor *tensors, size_t n)
{
    if (o->plain_dict) {
        pth_op(b, "}");
    } else {
        pth_global(b, "collections", "OrderedDict");
        pth_op(b, ")R");
    }
    for (size_t i = 0; i < n; i++) {
        char name[1024];
        if (i % 1000 == 0) pth_op(b, i ? "u(" : "(");
        snprintf(name, sizeof name, "%s%s", o->prefix ? o->prefix : "", tensors[i].name);
        pth_text(b, name);
        put_tensor(b, o, tensors, i);
    }
    if (n) pth_op(b, "u");
    if (o->plain_dict) return;
    pth_op(b, "}");
    pth_text(b, "_metadata");
    pth_global(b, "collections", "OrderedDict");
    pth_op(b, ")Rsb");
}

static void put_root(pth_bytes *b, const pth_options *o, const cv_tensor *tensors, size_t n)
{
    pth_op(b, "\x80\x02");
    if (o->wrapper) {
        pth_op(b, "}(");
        pth_text(b, "epoch");
        pth_int(b, 3);
        pth_text(b, "note");
        pth_text(b, "made for a test");
        pth_text(b, "loss");
        pth_op(b, "G\x3f\xf8");
        pth_number(b, 0, 6);
        pth_text(b, o->wrapper);
    }
    put_dict(b, o, tensors, n);
    if (o->wrapper) pth_op(b, "u");
    pth_op(b, ".");
}

/* ---- zip ------------------------------------------------------------------------------------ */

static void check_zip(bool ok, const char *what)
{
    if (!ok) fail_msg("libzip: %s failed", what);
}

static void zip_put(zip_t *zip, const pth_entry *e)
{
    zip_source_t *source = zip_source_buffer(zip, e->bytes, e->n, 0);
    check_zip(source != NULL, "zip_source_buffer");
    zip_int64_t index = zip_file_add(zip, e->name, source, ZIP_FL_ENC_UTF_8);
    check_zip(index >= 0, "zip_file_add");
    zip_int32_t method = e->compressed ? ZIP_CM_DEFLATE : ZIP_CM_STORE;
    check_zip(zip_set_file_compression(zip, (zip_uint64_t)index, method, 0) == 0, "compression");
    check_zip(zip_file_set_mtime(zip, (zip_uint64_t)index, 1600000000, 0) == 0, "mtime");
}

static unsigned char *read_source(zip_source_t *source, size_t *n_bytes)
{
    zip_stat_t info;
    check_zip(zip_source_stat(source, &info) == 0, "zip_source_stat");
    *n_bytes = (size_t)info.size;
    unsigned char *bytes = malloc(*n_bytes + 1);
    if (!bytes) fail_msg("out of memory");
    check_zip(zip_source_open(source) == 0, "zip_source_open");
    zip_int64_t got = zip_source_read(source, bytes, info.size);
    check_zip(got == (zip_int64_t)info.size, "zip_source_read");
    zip_source_close(source);
    return bytes;
}

unsigned char *pth_zip(const pth_entry *entries, size_t n, size_t *n_bytes)
{
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t *source = zip_source_buffer_create(NULL, 0, 0, &error);
    check_zip(source != NULL, "zip_source_buffer_create");
    zip_source_keep(source);
    zip_t *zip = zip_open_from_source(source, ZIP_TRUNCATE, &error);
    check_zip(zip != NULL, "zip_open_from_source");
    for (size_t i = 0; i < n; i++)
        zip_put(zip, &entries[i]);
    check_zip(zip_close(zip) == 0, "zip_close");
    unsigned char *bytes = read_source(source, n_bytes);
    zip_source_free(source);
    zip_error_fini(&error);
    return bytes;
}

unsigned char *pth_zip_of(const pth_bytes *pickle, const void *data, size_t n_data, size_t *n_bytes)
{
    const pth_entry entries[] = {
        { "archive/data.pkl", pickle->at, pickle->n, false },
        { "archive/byteorder", "little", 6, false },
        { "archive/version", "3\n", 2, false },
        { "archive/data/0", data, n_data, false },
    };
    return pth_zip(entries, data ? 4 : 3, n_bytes);
}

/* ---- whole files ---------------------------------------------------------------------------- */

void pth_legacy_head(pth_bytes *b)
{
    pth_put(b, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
    pth_op(b, "\x80\x02M\xe9\x03.");
    pth_op(b, "\x80\x02}(");
    pth_text(b, "protocol_version");
    pth_int(b, 1001);
    pth_text(b, "little_endian");
    pth_op(b, "\x88");
    pth_text(b, "type_sizes");
    pth_op(b, "}u.");
}

/* The storages' names, sizes and data: each is seen through the first tensor that lives in it. */
typedef struct storages {
    size_t n;
    const cv_tensor **tensor;
    size_t *count, *bytes;
} storages;

static storages list_storages(const pth_options *o, const cv_tensor *tensors, size_t n)
{
    storages s = { .n = o->storage ? o->n_storages : n };
    s.tensor = calloc(s.n + 1, sizeof(const cv_tensor *));
    s.count = calloc(s.n + 1, sizeof *s.count);
    s.bytes = calloc(s.n + 1, sizeof *s.bytes);
    if (!s.tensor || !s.count || !s.bytes) fail_msg("out of memory");
    for (size_t i = n; i-- > 0;) {
        size_t k = storage_of(o, i);
        s.tensor[k] = &tensors[i];
        s.count[k] = storage_count(o, tensors, i);
        s.bytes[k] = s.count[k] * cv_dtype_of(tensors[i].dtype)->block_bytes;
    }
    return s;
}

static unsigned char *legacy_bytes(const pth_options *o, const cv_tensor *tensors, size_t n,
                                   const storages *s, const void *const *data, size_t *n_bytes)
{
    pth_bytes b = { 0 };
    pth_legacy_head(&b);
    put_root(&b, o, tensors, n);
    pth_op(&b, "\x80\x02](");
    for (size_t k = 0; k < s->n; k++) {
        char key[32];
        snprintf(key, sizeof key, "%zu", k);
        pth_text(&b, key);
    }
    pth_op(&b, "e.");
    for (size_t k = 0; k < s->n; k++) {
        pth_number(&b, s->count[k], 8);
        pth_put(&b, data[k], s->bytes[k]);
    }
    *n_bytes = b.n;
    return b.at;
}

static unsigned char *zip_bytes(const pth_options *o, const cv_tensor *tensors, size_t n,
                                const storages *s, const void *const *data, size_t *n_bytes)
{
    const char *order = o->byteorder ? o->byteorder : "little";
    const char *folder = o->folder ? o->folder : "archive";
    pth_entry *entries = calloc(s->n + 3, sizeof *entries);
    char(*names)[256] = calloc(s->n + 3, sizeof *names);
    if (!entries || !names) fail_msg("out of memory");
    pth_bytes pickle = { 0 };
    put_root(&pickle, o, tensors, n);
    snprintf(names[0], sizeof names[0], "%s/data.pkl", folder);
    snprintf(names[1], sizeof names[1], "%s/byteorder", folder);
    entries[0] = (pth_entry){ names[0], pickle.at, pickle.n, false };
    entries[1] = (pth_entry){ names[1], order, strlen(order), false };
    for (size_t k = 0; k < s->n; k++) {
        snprintf(names[k + 2], sizeof names[0], "%s/data/%zu", folder, k);
        entries[k + 2] = (pth_entry){ names[k + 2], data[k], s->bytes[k], false };
    }
    snprintf(names[s->n + 2], sizeof names[0], "%s/version", folder);
    entries[s->n + 2] = (pth_entry){ names[s->n + 2], "3\n", 2, false };
    unsigned char *bytes = pth_zip(entries, s->n + 3, n_bytes);
    free(pickle.at);
    free(entries);
    free(names);
    return bytes;
}

unsigned char *pth_fixture_bytes(const cv_tensor *tensors, size_t n, const void *const *data,
                                 const pth_options *options, size_t *n_bytes)
{
    const pth_options plain = { 0 }, *o = options ? options : &plain;
    storages s = list_storages(o, tensors, n);
    unsigned char *bytes = o->legacy ? legacy_bytes(o, tensors, n, &s, data, n_bytes)
                                     : zip_bytes(o, tensors, n, &s, data, n_bytes);
    free(s.tensor);
    free(s.count);
    free(s.bytes);
    return bytes;
}

void pth_fixture_write(const char *path, const cv_tensor *tensors, size_t n,
                       const void *const *data, bool legacy)
{
    size_t n_bytes;
    const pth_options options = { .legacy = legacy };
    unsigned char *bytes = pth_fixture_bytes(tensors, n, data, &options, &n_bytes);
    test_write_file(path, bytes, n_bytes);
    free(bytes);
}
