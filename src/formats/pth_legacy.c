/* pth_legacy.c - PyTorch checkpoints from before 1.6: four pickles, then the storages.
 *
 *   magic number, protocol 1001, system information, the object, the list of storage keys,
 *   then for each key an int64 element count and the raw data.  [pth.legacy]
 *
 * The pickles say nowhere how long they are, so they are read from a window at the front of the
 * file that grows until it holds them. */
#include <string.h>

#include "base/checked.h"
#include "formats/pth.h"

#define FIRST_WINDOW  ((size_t)64 << 10)
#define WINDOW_GROWTH 8
#define PROTOCOL      1001

/* The pickled integer 0x1950a86a20f9469cfc6c. */
static const unsigned char magic[] = { 0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                       0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.' };

typedef struct stream {
    cv_checkpoint *ckpt;
    const corvid_allocator *mem;
    unsigned char *bytes; /* the window */
    size_t n, at;
    bool cut; /* a pickle does not end within the window */
    corvid_error *err;
} stream;

/* The next pickle of the window.  cv_pickle_free is due in either case. */
static corvid_status next_pickle(stream *s, cv_pickle *out)
{
    corvid_status status =
        cv_pickle_read(out, s->mem, s->bytes + s->at, s->n - s->at, s->at, s->err);
    s->cut = status != CORVID_OK && out->cut;
    s->at += out->used;
    return status;
}

static corvid_status read_protocol(stream *s)
{
    cv_pickle pickle;
    size_t at = s->at;
    corvid_status status = next_pickle(s, &pickle);
    if (status == CORVID_OK &&
        (pickle.root.type != CV_PICKLED_INT || pickle.root.as.integer != PROTOCOL))
        status = cv_fail(s->err, CORVID_E_FORMAT,
                         "offset %zu: the protocol of this old PyTorch file is not %d; load it in "
                         "PyTorch and save it again",
                         at, PROTOCOL);
    cv_pickle_free(&pickle);
    return status;
}

static corvid_status read_system(stream *s)
{
    cv_pickle pickle;
    size_t at = s->at;
    corvid_status status = next_pickle(s, &pickle);
    if (status == CORVID_OK) {
        const cv_pickled *little = cv_pickle_get(&pickle.root, "little_endian");
        if (!little || little->type != CV_PICKLED_BOOL)
            status = cv_fail(s->err, CORVID_E_FORMAT,
                             "offset %zu: the system information does not say little_endian", at);
        else if (!little->as.integer)
            status = cv_fail(s->err, CORVID_E_FORMAT,
                             "offset %zu: written on a big-endian machine, which is not read; load "
                             "it there and save it with a newer PyTorch",
                             at);
    }
    cv_pickle_free(&pickle);
    return status;
}

/* One storage of the list: its count, then its data, from *at on. */
static corvid_status place(stream *s, const cv_pickle *object, const cv_pickled *key, uint64_t *at)
{
    char shown[40];
    if (key->type != CV_PICKLED_TEXT)
        return cv_fail(s->err, CORVID_E_FORMAT, "offset %llu: a storage key is not a text",
                       (unsigned long long)*at);
    cv_pickle_show(shown, sizeof shown, key->as.text, key->n);
    cv_pickle_storage *storage = cv_pickle_storage_find(object, key->as.text, key->n);
    if (!storage || storage->located)
        return cv_fail(s->err, CORVID_E_FORMAT, "offset %llu: the key list names storage %s, %s",
                       (unsigned long long)*at, shown,
                       storage ? "twice" : "which no tensor mentions");
    unsigned char raw[8];
    CV_TRY(cv_input_read(&s->ckpt->in, *at, raw, sizeof raw, s->err));
    uint64_t count = 0;
    for (size_t i = sizeof raw; i-- > 0;)
        count = count << 8 | raw[i];
    if (count != storage->count)
        return cv_fail(s->err, CORVID_E_FORMAT,
                       "offset %llu: storage %s has %llu elements here, and %llu in the pickle",
                       (unsigned long long)*at, shown, (unsigned long long)count,
                       (unsigned long long)storage->count);
    size_t bytes;
    *at += sizeof raw;
    if (!cv_dtype_bytes(storage->dtype, (size_t)count, &bytes) ||
        !cv_range_within(*at, bytes, s->ckpt->in.size))
        return cv_fail(
            s->err, CORVID_E_FORMAT,
            "offset %llu: storage %s of %llu elements reaches past the end of the file at "
            "%llu; the file is cut short, get it again",
            (unsigned long long)*at, shown, (unsigned long long)count,
            (unsigned long long)s->ckpt->in.size);
    storage->offset = *at;
    storage->located = true;
    *at += bytes;
    return CORVID_OK;
}

static corvid_status place_storages(stream *s, const cv_pickle *object)
{
    cv_pickle keys;
    size_t list_at = s->at;
    corvid_status status = next_pickle(s, &keys);
    if (status == CORVID_OK && keys.root.type != CV_PICKLED_LIST)
        status = cv_fail(s->err, CORVID_E_FORMAT, "offset %zu: the storage keys are not a list",
                         list_at);
    if (status == CORVID_OK) {
        const cv_pickled_items *list = keys.root.as.items;
        uint64_t at = s->at;
        for (size_t i = 0; status == CORVID_OK && i < list->n; i++)
            status = place(s, object, &list->at[i], &at);
    }
    cv_pickle_free(&keys);
    return status;
}

/* All storages with data have been placed before. */
static corvid_status fail_to_locate(void *ctx, cv_pickle_storage *storage, corvid_error *err)
{
    char shown[40];
    (void)ctx;
    return cv_fail(err, CORVID_E_FORMAT, "storage %s is not in the list of storage keys",
                   cv_pickle_show(shown, sizeof shown, storage->key, storage->n_key));
}

static corvid_status read_object(stream *s)
{
    cv_pickle object;
    corvid_status status = next_pickle(s, &object);
    size_t n = object.used;
    if (status == CORVID_OK) status = place_storages(s, &object);
    if (status == CORVID_OK)
        status = cv_pth_collect(s->ckpt, &object, n, fail_to_locate, NULL, s->err);
    cv_pickle_free(&object);
    return status;
}

/* Everything, from a window of n bytes. */
static corvid_status read_window(stream *s, size_t n)
{
    void *bytes = NULL;
    CV_TRY(cv_alloc_or_fail(s->mem, n, 1, "the front of a PyTorch checkpoint", &bytes, s->err));
    s->bytes = bytes;
    s->n = n;
    s->at = sizeof magic;
    s->cut = false;
    corvid_status status = cv_input_read(&s->ckpt->in, 0, s->bytes, n, s->err);
    if (status == CORVID_OK && (n < sizeof magic || memcmp(s->bytes, magic, sizeof magic) != 0))
        status = cv_fail(s->err, CORVID_E_FORMAT,
                         "offset 0: neither a zip archive nor PyTorch's old magic number; was this "
                         "written by torch.save?");
    if (status == CORVID_OK) status = read_protocol(s);
    if (status == CORVID_OK) status = read_system(s);
    if (status == CORVID_OK) status = read_object(s);
    cv_free(s->mem, s->bytes);
    return status;
}

corvid_status cv_pth_legacy_parse(cv_checkpoint *ckpt, corvid_error *err)
{
    corvid_error last = { 0 };
    stream s = { .ckpt = ckpt, .mem = ckpt->arena.mem, .err = &last };
    size_t room = FIRST_WINDOW, largest = CV_PTH_PICKLE_LIMIT;
    if (ckpt->in.size < largest) largest = (size_t)ckpt->in.size;
    for (;;) {
        size_t n = room < largest ? room : largest;
        corvid_status status = read_window(&s, n);
        if (status != CORVID_OK && s.cut && n < largest) {
            room *= WINDOW_GROWTH;
            continue;
        }
        if (status != CORVID_OK && err) *err = last;
        return status;
    }
}
