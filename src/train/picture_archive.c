/* picture_archive.c - reads tar and zip archives, and compressed files, from front to back.
 *
 * libarchive unpacks them (it allocates from the C library).  Nothing is written, so names in an
 * archive are only names.  Its filters that run other programs are not switched on. */
#include "train/picture_archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>
#include <string.h>

#define BLOCK      ((size_t)1 << 17)
#define PATH_BYTES 4096

bool cv_archive_named(const char *path)
{
    static const char *const ends[] = { ".tar",  ".tar.gz", ".tgz", ".tar.bz2",
                                        ".tbz2", ".tar.xz", ".txz", ".zip" };
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (cv_name_ends(path, ends[i])) return true;
    return false;
}

typedef struct reading {
    cv_picture_list *list;
    const char *path;
    struct archive *from;
    locale_t utf8, before; /* names in archives are UTF-8, whatever this thread's locale is */
    unsigned char *buffer; /* an entry of unknown length */
    size_t n, capacity;
    corvid_error *err;
} reading;

/* ---- opening --------------------------------------------------------------------------------- */

static corvid_status fail_archive(const reading *r, corvid_error *err)
{
    const char *why = archive_error_string(r->from);
    return cv_fail(err, CORVID_E_FORMAT,
                   "%.512s: cannot be unpacked, at about byte %lld: %s; the file is cut short or "
                   "damaged, get it again",
                   r->path, (long long)archive_filter_bytes(r->from, -1),
                   why ? why : "libarchive does not say why");
}

static bool worked(int result)
{
    return result == ARCHIVE_OK || result == ARCHIVE_WARN;
}

/* libarchive gives no name with letters that the locale lacks.  Where there is no such locale as
 * this, all is left as it is, and such a name is refused. */
static void speak_utf8(reading *r)
{
    r->utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    if (r->utf8) r->before = uselocale(r->utf8);
}

static corvid_status open_archive(reading *r, bool whole_file)
{
    speak_utf8(r);
    r->from = archive_read_new();
    if (!r->from) return cv_fail(r->err, CORVID_E_MEMORY, "out of memory: reading %.512s", r->path);
    const bool filters = worked(archive_read_support_filter_gzip(r->from)) &&
                         worked(archive_read_support_filter_bzip2(r->from)) &&
                         worked(archive_read_support_filter_xz(r->from));
    const bool formats = whole_file ? worked(archive_read_support_format_raw(r->from)) &&
                                          worked(archive_read_support_format_empty(r->from))
                                    : worked(archive_read_support_format_tar(r->from)) &&
                                          worked(archive_read_support_format_zip(r->from));
    if (filters && formats && worked(archive_read_open_filename(r->from, r->path, BLOCK)))
        return CORVID_OK;
    return fail_archive(r, r->err);
}

static void close_archive(reading *r)
{
    if (r->from) archive_read_free(r->from);
    if (r->utf8) {
        uselocale(r->before);
        freelocale(r->utf8);
    }
    cv_free(r->list->arena.mem, r->buffer);
}

/* ---- entries --------------------------------------------------------------------------------- */

static corvid_status more_room(reading *r)
{
    unsigned char *wider = NULL;
    const size_t limit = r->list->limit;
    if (r->capacity - r->n >= BLOCK) return CORVID_OK;
    if (r->n > limit || r->capacity > SIZE_MAX / 4)
        return cv_fail(r->err, CORVID_E_MEMORY,
                       "%.512s: what it unpacks to takes more than the %zu bytes of memory that "
                       "are allowed; allow more",
                       r->path, limit);
    const size_t capacity = 2 * r->capacity + 2 * BLOCK;
    CV_TRY(cv_alloc_or_fail(r->list->arena.mem, capacity, 1, r->path, (void **)&wider, r->err));
    if (r->n > 0) memcpy(wider, r->buffer, r->n);
    cv_free(r->list->arena.mem, r->buffer);
    r->buffer = wider;
    r->capacity = capacity;
    return CORVID_OK;
}

/* The data of the entry that was just found, into the list's bytes. */
static corvid_status take_data(reading *r, const unsigned char **bytes, size_t *n)
{
    unsigned char *to;
    r->n = 0;
    for (;;) {
        CV_TRY(more_room(r));
        const la_ssize_t got = archive_read_data(r->from, r->buffer + r->n, r->capacity - r->n);
        if (got < 0) return fail_archive(r, r->err);
        if (got == 0) break;
        r->n += (size_t)got;
        CV_TRY(cv_picture_list_cancelled(r->list, r->err));
    }
    CV_TRY(cv_picture_list_room(r->list, r->path, r->n, &to, r->err));
    if (r->n > 0) memcpy(to, r->buffer, r->n);
    *bytes = to;
    *n = r->n;
    return CORVID_OK;
}

/* The entry's path without "." and empty parts; false for what is hidden or too long. */
static bool clean_path(const char *path, char out[PATH_BYTES])
{
    size_t n = 0;
    while (*path) {
        const size_t part = strcspn(path, "/");
        const bool nothing = part == 0 || (part == 1 && path[0] == '.');
        if (!nothing) {
            if (path[0] == '.' || n + part + 2 > PATH_BYTES) return false;
            if (n > 0) out[n++] = '/';
            memcpy(out + n, path, part);
            n += part;
        }
        path += part;
        if (*path == '/') path++;
    }
    out[n] = '\0';
    return n > 0;
}

static corvid_status take_entry(reading *r, struct archive_entry *entry, const char *name)
{
    char path[PATH_BYTES];
    const char *of = archive_entry_pathname(entry);
    const unsigned char *bytes;
    size_t n;
    if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry))
        return CORVID_OK;
    if (!of)
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "%.512s: has an entry, before about byte %lld, whose name cannot be read; "
                       "expected UTF-8: pack it anew, or unpack it into a folder",
                       r->path, (long long)archive_filter_bytes(r->from, -1));
    if (!cv_picture_named(of) || !clean_path(of, path)) return CORVID_OK;
    CV_TRY(take_data(r, &bytes, &n));
    const char *kept = cv_arena_text(&r->list->arena, path, strlen(path));
    if (!kept) return cv_fail(r->err, CORVID_E_MEMORY, "out of memory: the list of pictures");
    return cv_picture_list_add(
        r->list,
        (cv_picture_sample){
            .name = name, .path = kept, .bytes = bytes, .n = n, .form = CV_FORM_ENCODED },
        r->err);
}

static corvid_status take_entries(reading *r)
{
    const char *name = cv_arena_text(&r->list->arena, r->path, strlen(r->path));
    if (!name) return cv_fail(r->err, CORVID_E_MEMORY, "out of memory: the list of pictures");
    for (;;) {
        struct archive_entry *entry;
        CV_TRY(cv_picture_list_cancelled(r->list, r->err));
        const int result = archive_read_next_header(r->from, &entry);
        if (result == ARCHIVE_EOF) return CORVID_OK;
        if (!worked(result)) return fail_archive(r, r->err);
        CV_TRY(take_entry(r, entry, name));
    }
}

corvid_status cv_archive_read_pictures(cv_picture_list *list, const char *path, corvid_error *err)
{
    reading r = { .list = list, .path = path, .err = err };
    corvid_status status = open_archive(&r, false);
    if (status == CORVID_OK) status = take_entries(&r);
    close_archive(&r);
    return status;
}

/* ---- one file -------------------------------------------------------------------------------- */

corvid_status cv_archive_read_file(cv_picture_list *list, const char *path,
                                   const unsigned char **bytes, size_t *n, corvid_error *err)
{
    static const unsigned char nothing;
    reading r = { .list = list, .path = path, .err = err };
    struct archive_entry *entry;
    *bytes = &nothing;
    *n = 0;
    corvid_status status = open_archive(&r, true);
    if (status == CORVID_OK) {
        const int result = archive_read_next_header(r.from, &entry);
        if (worked(result))
            status = take_data(&r, bytes, n);
        else if (result != ARCHIVE_EOF) /* EOF: it is empty */
            status = fail_archive(&r, err);
    }
    close_archive(&r);
    return status;
}
