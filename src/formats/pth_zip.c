/* pth_zip.c - PyTorch checkpoints since 1.6: a zip archive with a pickle and one entry per storage.
 *
 * libzip reads the directory, through a source that reads our input; it is never asked for data.
 * Instead its reads are watched: a few bytes of an entry are read through libzip, the source notes
 * from where they came, and from then on the data is read at that offset, from any thread.  That
 * works because PyTorch stores its entries uncompressed; checksums are not verified.  [pth.zip] */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <zip.h>

#include "base/checked.h"
#include "formats/pth.h"

#define ENTRY_LIMIT ((uint64_t)1 << 18)
#define ENTRY_BYTES 46                /* the least that one takes in the central directory */
#define TAIL_BYTES  (65535 + 22 + 20) /* where the end record may lie: comment, record, locator */
#define END_RECORDS 16                /* more of them in the tail are an attack */
#define PROBE_BYTES 32
#define NAME_LIMIT  512

typedef struct archive {
    cv_checkpoint *ckpt;
    zip_t *zip;
    uint64_t position;          /* of the source */
    uint64_t read_from, n_read; /* the last read that libzip asked for */
    uint64_t allowance;         /* bytes that libzip may still read */
    zip_error_t source_error;
    corvid_status read_status; /* when the input itself failed */
    corvid_error read_error;
    char folder[NAME_LIMIT]; /* "archive/", with the slash, or "" */
    corvid_error *err;
} archive;

typedef struct entry {
    uint64_t offset, size;
} entry;

/* ---- the source that libzip reads ----------------------------------------------------------- */

static zip_int64_t source_read(archive *a, void *data, zip_uint64_t length)
{
    const cv_input *in = &a->ckpt->in;
    uint64_t n = a->position < in->size ? in->size - a->position : 0;
    if (length < n) n = length;
    if (n > a->allowance) {
        zip_error_set(&a->source_error, ZIP_ER_INCONS, 0);
        return -1;
    }
    a->read_status = cv_input_read(in, a->position, data, (size_t)n, &a->read_error);
    if (a->read_status != CORVID_OK) {
        zip_error_set(&a->source_error, ZIP_ER_READ, 0);
        return -1;
    }
    a->allowance -= n;
    a->read_from = a->position;
    a->n_read = n;
    a->position += n;
    return (zip_int64_t)n;
}

static zip_int64_t source_seek(archive *a, void *data, zip_uint64_t length)
{
    zip_int64_t to = zip_source_seek_compute_offset(a->position, a->ckpt->in.size, data, length,
                                                    &a->source_error);
    if (to < 0) return -1;
    a->position = (uint64_t)to;
    return 0;
}

static zip_int64_t source(void *ctx, void *data, zip_uint64_t length, zip_source_cmd_t command)
{
    archive *a = ctx;
    zip_stat_t *info = data;
    switch (command) {
    case ZIP_SOURCE_OPEN: a->position = 0; return 0;
    case ZIP_SOURCE_READ: return source_read(a, data, length);
    case ZIP_SOURCE_SEEK: return source_seek(a, data, length);
    case ZIP_SOURCE_TELL: return (zip_int64_t)a->position;
    case ZIP_SOURCE_CLOSE:
    case ZIP_SOURCE_FREE: return 0;
    case ZIP_SOURCE_STAT:
        zip_stat_init(info);
        info->size = a->ckpt->in.size;
        info->valid |= ZIP_STAT_SIZE;
        return sizeof *info;
    case ZIP_SOURCE_ERROR: return zip_error_to_data(&a->source_error, data, length);
    case ZIP_SOURCE_SUPPORTS:
        return zip_source_make_command_bitmap(ZIP_SOURCE_OPEN, ZIP_SOURCE_READ, ZIP_SOURCE_SEEK,
                                              ZIP_SOURCE_TELL, ZIP_SOURCE_CLOSE, ZIP_SOURCE_FREE,
                                              ZIP_SOURCE_STAT, ZIP_SOURCE_ERROR, -1);
    default: zip_error_set(&a->source_error, ZIP_ER_OPNOTSUPP, 0); return -1;
    }
}

/* What an archive or one of its entries lacks. */
static corvid_status fail(archive *a, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static corvid_status fail(archive *a, const char *format, ...)
{
    char text[768];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return cv_fail(a->err, CORVID_E_FORMAT, "zip archive at offset 0: %s", text);
}

/* Says why libzip failed: our own input, a shortage of memory, or the archive. */
static corvid_status fail_zip(archive *a, zip_error_t *error, const char *what)
{
    if (a->read_status != CORVID_OK)
        return cv_fail(a->err, a->read_status, "%s", a->read_error.text);
    if (zip_error_code_zip(error) == ZIP_ER_MEMORY)
        return cv_fail(a->err, CORVID_E_MEMORY, "out of memory while reading a zip archive");
    return fail(a, "%s: %s; it is damaged, or cut short at offset %llu; get it again", what,
                zip_error_strerror(error), (unsigned long long)a->ckpt->in.size);
}

/* ---- before libzip sees it ------------------------------------------------------------------ */

static uint64_t number(const unsigned char *bytes, size_t n)
{
    uint64_t value = 0;
    for (size_t i = n; i-- > 0;)
        value = value << 8 | bytes[i];
    return value;
}

/* The ZIP64 end record that a locator points to: libzip allocates as many entries as it claims. */
static corvid_status check_zip64(archive *a, const unsigned char *locator)
{
    unsigned char record[56];
    const cv_input *in = &a->ckpt->in;
    uint64_t at = number(locator + 8, 8);
    if (!cv_range_within(at, sizeof record, in->size)) return CORVID_OK; /* libzip refuses it */
    CV_TRY(cv_input_read(in, at, record, sizeof record, a->err));
    if (memcmp(record, "PK\x06\x06", 4) != 0) return CORVID_OK;
    for (size_t field = 24; field <= 32; field += 8) {
        uint64_t claimed = number(record + field, 8);
        if (claimed > ENTRY_LIMIT || claimed > in->size / ENTRY_BYTES)
            return fail(a,
                        "the end record at offset %llu claims %llu entries; a file of %llu bytes "
                        "may have %llu at most, and none may have more than %llu",
                        (unsigned long long)at, (unsigned long long)claimed,
                        (unsigned long long)in->size, (unsigned long long)(in->size / ENTRY_BYTES),
                        (unsigned long long)ENTRY_LIMIT);
    }
    return CORVID_OK;
}

static corvid_status check_records(archive *a, const unsigned char *tail, size_t n)
{
    size_t records = 0;
    for (size_t i = 0; i + 20 <= n; i++) {
        if (tail[i] != 'P' || tail[i + 1] != 'K') continue;
        if (memcmp(tail + i, "PK\x05\x06", 4) == 0) records++;
        if (memcmp(tail + i, "PK\x06\x07", 4) == 0) {
            records++;
            CV_TRY(check_zip64(a, tail + i));
        }
        if (records > END_RECORDS)
            return fail(a, "more than %d end records, the last at offset %llu; refused",
                        END_RECORDS, (unsigned long long)(a->ckpt->in.size - n + i));
    }
    return CORVID_OK;
}

/* Looks at every end record that libzip might choose. */
static corvid_status check_tail(archive *a)
{
    const cv_input *in = &a->ckpt->in;
    size_t n = in->size < TAIL_BYTES ? (size_t)in->size : TAIL_BYTES;
    const corvid_allocator *mem = a->ckpt->arena.mem;
    void *tail = NULL;
    CV_TRY(cv_alloc_or_fail(mem, n, 1, "the end of a zip archive", &tail, a->err));
    corvid_status status = cv_input_read(in, in->size - n, tail, n, a->err);
    if (status == CORVID_OK) status = check_records(a, tail, n);
    cv_free(mem, tail);
    return status;
}

static corvid_status archive_open(archive *a)
{
    zip_error_t error;
    zip_error_init(&error);
    a->allowance = a->ckpt->in.size <= UINT64_MAX / 4 ? 2 * a->ckpt->in.size + ((uint64_t)1 << 20)
                                                      : UINT64_MAX;
    corvid_status status = CORVID_OK;
    zip_source_t *from = zip_source_function_create(source, a, &error);
    if (from) a->zip = zip_open_from_source(from, ZIP_RDONLY, &error);
    if (!a->zip) {
        if (from) zip_source_free(from);
        status = fail_zip(a, &error, "cannot be opened as a zip archive");
    }
    zip_error_fini(&error);
    a->allowance = UINT64_MAX;
    return status;
}

/* ---- entries -------------------------------------------------------------------------------- */

/* Where libzip finds the first bytes of an entry, which is stored as it is. */
static corvid_status probe(archive *a, uint64_t index, const char *name, entry *e)
{
    unsigned char seen[PROBE_BYTES], again[PROBE_BYTES];
    size_t n = e->size < PROBE_BYTES ? (size_t)e->size : PROBE_BYTES;
    zip_file_t *file = zip_fopen_index(a->zip, index, ZIP_FL_COMPRESSED);
    if (!file) return fail_zip(a, zip_get_error(a->zip), name);
    a->n_read = 0;
    zip_int64_t got = zip_fread(file, seen, n);
    corvid_status status = CORVID_OK;
    if (got < 0) status = fail_zip(a, zip_file_get_error(file), name);
    zip_fclose(file);
    if (status != CORVID_OK) return status;
    e->offset = a->read_from;
    if (!cv_range_within(e->offset, e->size, a->ckpt->in.size))
        return fail(a,
                    "%s: %llu bytes at %llu reach past the end of the file at %llu; the file is "
                    "cut short, get it again",
                    name, (unsigned long long)e->size, (unsigned long long)e->offset,
                    (unsigned long long)a->ckpt->in.size);
    CV_TRY(cv_input_read(&a->ckpt->in, e->offset, again, n, a->err));
    if ((size_t)got != n || a->n_read < n || memcmp(seen, again, n) != 0)
        return fail(a, "%s: its data cannot be found near offset %llu", name,
                    (unsigned long long)e->offset);
    return CORVID_OK;
}

static corvid_status entry_find(archive *a, uint64_t index, const char *name, entry *e)
{
    zip_stat_t info;
    const zip_uint64_t needed = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD;
    if (zip_stat_index(a->zip, index, 0, &info) != 0 || (info.valid & needed) != needed)
        return fail_zip(a, zip_get_error(a->zip), name);
    if (info.comp_method != ZIP_CM_STORE)
        return fail(a,
                    "%s: compressed (method %u), expected stored as torch.save does; load it in "
                    "PyTorch and save it again",
                    name, (unsigned)info.comp_method);
    if ((info.valid & ZIP_STAT_ENCRYPTION_METHOD) && info.encryption_method != ZIP_EM_NONE)
        return fail(a, "%s: encrypted, which is not read", name);
    if (info.size != info.comp_size || info.size > a->ckpt->in.size)
        return fail(a, "%s: claims %llu bytes from %llu stored ones, in a file of %llu", name,
                    (unsigned long long)info.size, (unsigned long long)info.comp_size,
                    (unsigned long long)a->ckpt->in.size);
    *e = (entry){ .size = info.size };
    return e->size ? probe(a, index, name, e) : CORVID_OK;
}

/* FOLDER/NAME into path; *index is negative when there is no such entry. */
static corvid_status entry_named(archive *a, const char *name, size_t n_name, char *path,
                                 zip_int64_t *index)
{
    size_t n = strlen(a->folder);
    char shown[64];
    if (n_name >= NAME_LIMIT - n || memchr(name, '\0', n_name))
        return fail(a, "no entry of the archive is called %s",
                    cv_pickle_show(shown, sizeof shown, name, n_name));
    memcpy(path, a->folder, n);
    memcpy(path + n, name, n_name);
    path[n + n_name] = '\0';
    *index = zip_name_locate(a->zip, path, 0);
    return CORVID_OK;
}

/* ---- the directory -------------------------------------------------------------------------- */

/* Behind the first slash; NULL when there is none. */
static const char *inside(const char *name)
{
    const char *slash = strchr(name, '/');
    return slash ? slash + 1 : NULL;
}

static corvid_status set_folder(archive *a, const char *name, const char *base)
{
    size_t n = (size_t)(base - name);
    if (n >= NAME_LIMIT / 2) return fail(a, "the folder of data.pkl has a name of %zu bytes", n);
    memcpy(a->folder, name, n);
    a->folder[n] = '\0';
    return CORVID_OK;
}

/* Every name once; exactly one FOLDER/data.pkl; no program code. */
static corvid_status find_folder(archive *a, zip_int64_t *data_pkl)
{
    zip_int64_t n = zip_get_num_entries(a->zip, 0);
    char shown[80];
    *data_pkl = -1;
    if (n > (zip_int64_t)ENTRY_LIMIT)
        return fail(a, "it has %lld entries; at most %llu are read", (long long)n,
                    (unsigned long long)ENTRY_LIMIT);
    for (zip_int64_t i = 0; i < n; i++) {
        const char *name = zip_get_name(a->zip, (zip_uint64_t)i, 0);
        if (!name) return fail_zip(a, zip_get_error(a->zip), "an entry's name");
        cv_pickle_show(shown, sizeof shown, name, strlen(name));
        if (zip_name_locate(a->zip, name, 0) != i)
            return fail(a, "two entries are called %s", shown);
        const char *base = inside(name);
        if (base && strncmp(base, "code/", 5) == 0)
            return fail(a,
                        "%s: a TorchScript archive, which holds a program; save the model's "
                        "state_dict() instead",
                        shown);
        if (!base) base = name;
        if (strcmp(base, "data.pkl") != 0) continue;
        if (*data_pkl >= 0) return fail(a, "a second data.pkl, %s; expected one", shown);
        *data_pkl = i;
        CV_TRY(set_folder(a, name, base));
    }
    if (*data_pkl < 0) return fail(a, "it has no data.pkl, so torch.save did not write it");
    return CORVID_OK;
}

static corvid_status check_byteorder(archive *a)
{
    char path[NAME_LIMIT], order[16] = { 0 };
    zip_int64_t index = -1;
    entry e;
    CV_TRY(entry_named(a, "byteorder", strlen("byteorder"), path, &index));
    if (index < 0) return CORVID_OK;
    CV_TRY(entry_find(a, (uint64_t)index, path, &e));
    if (e.size < sizeof order)
        CV_TRY(cv_input_read(&a->ckpt->in, e.offset, order, (size_t)e.size, a->err));
    order[strcspn(order, "\r\n")] = '\0';
    if (strcmp(order, "little") == 0) return CORVID_OK;
    return fail(a,
                "byteorder at offset %llu: %s, expected little; save the file again on a "
                "little-endian machine",
                (unsigned long long)e.offset,
                strcmp(order, "big") == 0 ? "big-endian data" : "neither little nor big");
}

/* ---- the pickle and its storages ------------------------------------------------------------ */

static corvid_status locate(void *ctx, cv_pickle_storage *s, corvid_error *err)
{
    archive *a = ctx;
    char path[NAME_LIMIT], key[NAME_LIMIT / 2], shown[64];
    zip_int64_t index = -1;
    size_t bytes;
    entry e;
    (void)err; /* the archive's own */
    cv_pickle_show(shown, sizeof shown, s->key, s->n_key);
    if (s->n_key > sizeof key - 5)
        return fail(a, "storage %s: a key of %zu bytes", shown, s->n_key);
    memcpy(key, "data/", 5);
    memcpy(key + 5, s->key, s->n_key);
    CV_TRY(entry_named(a, key, 5 + s->n_key, path, &index));
    if (index < 0) return fail(a, "there is no entry data/%s; the file is incomplete", shown);
    CV_TRY(entry_find(a, (uint64_t)index, path, &e));
    if (!cv_dtype_bytes(s->dtype, (size_t)s->count, &bytes) || bytes > e.size)
        return fail(a, "storage %s: %llu elements of %s, but data/%s has %llu bytes", shown,
                    (unsigned long long)s->count, cv_dtype_of(s->dtype)->name, shown,
                    (unsigned long long)e.size);
    s->offset = e.offset;
    s->located = true;
    return CORVID_OK;
}

static corvid_status read_pickle(archive *a, const entry *e)
{
    const corvid_allocator *mem = a->ckpt->arena.mem;
    size_t n = (size_t)e->size;
    void *bytes = NULL;
    if (e->size == 0 || e->size > CV_PTH_PICKLE_LIMIT)
        return fail(a, "data.pkl has %llu bytes; expected 1 to %zu", (unsigned long long)e->size,
                    CV_PTH_PICKLE_LIMIT);
    CV_TRY(cv_alloc_or_fail(mem, n, 1, "data.pkl of a PyTorch checkpoint", &bytes, a->err));
    cv_pickle pickle = { 0 };
    corvid_status status = cv_input_read(&a->ckpt->in, e->offset, bytes, n, a->err);
    if (status == CORVID_OK) status = cv_pickle_read(&pickle, mem, bytes, n, e->offset, a->err);
    if (status == CORVID_OK) status = cv_pth_collect(a->ckpt, &pickle, n, locate, a, a->err);
    cv_pickle_free(&pickle);
    cv_free(mem, bytes);
    return status;
}

static corvid_status read_archive(archive *a)
{
    zip_int64_t index = -1;
    entry e;
    CV_TRY(find_folder(a, &index));
    CV_TRY(check_byteorder(a));
    CV_TRY(entry_find(a, (uint64_t)index, "data.pkl", &e));
    return read_pickle(a, &e);
}

corvid_status cv_pth_zip_parse(cv_checkpoint *ckpt, corvid_error *err)
{
    archive a = { .ckpt = ckpt, .err = err };
    zip_error_init(&a.source_error);
    corvid_status status = check_tail(&a);
    if (status == CORVID_OK) status = archive_open(&a);
    if (status == CORVID_OK) status = read_archive(&a);
    if (a.zip) zip_discard(a.zip);
    zip_error_fini(&a.source_error);
    return status;
}
