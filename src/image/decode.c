/* decode.c - pictures from files: tells the kind by the first bytes and hands on to a decoder.
 *
 * The decoders are libjpeg-turbo, libpng and libwebp, each behind one file here.  Colour profiles
 * and gamma are not applied, as in the pipelines that the models were made with. */
#include "decode.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/input.h"

/* ---- a picture in memory --------------------------------------------------------------------- */

static corvid_status picture_room(const corvid_allocator *mem, size_t width, size_t height,
                                  const char *what, cv_picture *out, corvid_error *err)
{
    size_t row;
    void *pixels;
    *out = (cv_picture){ 0 };
    if (!cv_mul_size(width, 3, &row))
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu x %zu pixels for %s", width,
                       height, what);
    CV_TRY(cv_alloc_or_fail(mem, height, row, what, &pixels, err));
    *out = (cv_picture){
        .width = width, .height = height, .pixels = pixels, .orientation = 1, .mem = mem
    };
    return CORVID_OK;
}

corvid_status cv_picture_new(const corvid_allocator *mem, size_t width, size_t height,
                             cv_picture *out, corvid_error *err)
{
    CV_TRY(picture_room(mem, width, height, "a picture", out, err));
    memset(out->pixels, 0, width * height * 3);
    return CORVID_OK;
}

void cv_picture_free(cv_picture *picture)
{
    if (picture->mem) cv_free(picture->mem, picture->pixels);
    *picture = (cv_picture){ 0 };
}

/* ---- what the decoders share ----------------------------------------------------------------- */

corvid_status cv_decode_size(const cv_encoded *in, uint64_t width, uint64_t height,
                             corvid_error *err)
{
    if (width == 0 || height == 0)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: says it has %llu x %llu pixels, expected at least 1 x 1; the file is "
                       "damaged, get it again",
                       in->name, (unsigned long long)width, (unsigned long long)height);
    if (width > in->max_pixels / height)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: %llu x %llu pixels is more than the %llu allowed (--max-pixels)",
                       in->name, (unsigned long long)width, (unsigned long long)height,
                       (unsigned long long)in->max_pixels);
    return CORVID_OK;
}

corvid_status cv_decode_least(const cv_encoded *in, uint64_t least_bytes, uint64_t width,
                              uint64_t height, corvid_error *err)
{
    if (in->n >= least_bytes) return CORVID_OK;
    return cv_fail(err, CORVID_E_FORMAT,
                   "%s: has %zu bytes, expected at least %llu for the %llu x %llu pixels that it "
                   "says it has; the file is cut short or damaged, get it again",
                   in->name, in->n, (unsigned long long)least_bytes, (unsigned long long)width,
                   (unsigned long long)height);
}

corvid_status cv_decode_room(const cv_encoded *in, size_t width, size_t height, cv_picture *out,
                             corvid_error *err)
{
    return picture_room(in->mem, width, height, in->name, out, err);
}

int cv_decode_orientation(const unsigned char *bytes, size_t n)
{
    if (n >= 6 && memcmp(bytes, "Exif\0", 5) == 0) {
        bytes += 6;
        n -= 6;
    }
    return cv_exif_orientation(bytes, n);
}

corvid_status cv_decode_damaged(const cv_encoded *in, const char *what, const char *why,
                                corvid_error *err)
{
    return cv_fail(err, CORVID_E_FORMAT, "%s: %s%s%s%s; get the file again, or save it anew",
                   in->name, what, why ? " (" : "", why ? why : "", why ? ")" : "");
}

corvid_status cv_decode_cut(const cv_encoded *in, const char *kind, corvid_error *err)
{
    return cv_fail(err, CORVID_E_FORMAT,
                   "%s: ends at byte %zu, in the middle of a %s picture; the file is cut short, "
                   "get it again",
                   in->name, in->n, kind);
}

/* ---- kinds by their first bytes -------------------------------------------------------------- */

static bool has(const cv_encoded *in, size_t at, const char *bytes, size_t n)
{
    return cv_range_within(at, n, in->n) && memcmp(in->bytes + at, bytes, n) == 0;
}

/* Files that people do hand in, by their first bytes (or those at 4 or 8), to name them. */
typedef struct kind {
    size_t at, n;
    const char *bytes, *name;
} kind;

static const kind OTHER_KINDS[] = {
    { 0, 4, "GIF8", "a GIF picture" },
    { 0, 2, "BM", "a BMP picture" },
    { 0, 4, "II*\0", "a TIFF picture" },
    { 0, 4, "MM\0*", "a TIFF picture" },
    { 0, 4, "II+\0", "a TIFF picture" },
    { 0, 4, "MM\0+", "a TIFF picture" },
    { 4, 8, "ftypavif", "an AVIF picture" },
    { 4, 8, "ftypavis", "an AVIF picture" },
    { 4, 7, "ftyphei", "a HEIC picture" },
    { 4, 7, "ftyphev", "a HEIC picture" },
    { 4, 7, "ftypmif", "a HEIC or AVIF picture" },
    { 4, 7, "ftypmsf", "a HEIC or AVIF picture" },
    { 4, 4, "ftyp", "a video" },
    { 0, 2, "\xff\x0a", "a JPEG XL picture" },
    { 0, 12, "\0\0\0\x0cJXL \x0d\x0a\x87\x0a", "a JPEG XL picture" },
    { 0, 12, "\0\0\0\x0cjP  \x0d\x0a\x87\x0a", "a JPEG 2000 picture" },
    { 0, 4, "8BPS", "a Photoshop file" },
    { 0, 5, "%PDF-", "a PDF document" },
    { 0, 4, "RIFF", "a RIFF file that is no WebP picture" },
    { 0, 4, "PK\3\4", "a ZIP archive" },
    { 0, 2, "\x1f\x8b", "a gzip archive" },
};

static char lower(unsigned char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

/* Is word, in small letters, in the first n bytes?  At the first place only when anywhere is not
 * set. */
static bool says(const cv_encoded *in, size_t at, size_t n, const char *word, bool anywhere)
{
    const size_t length = strlen(word);
    for (; cv_range_within(at, length, n); at++) {
        size_t i = 0;
        while (i < length && lower(in->bytes[at + i]) == word[i])
            i++;
        if (i == length) return true;
        if (!anywhere) return false;
    }
    return false;
}

/* No control characters, and few letters beyond ASCII: bytes at random rarely look so. */
static bool is_text(const cv_encoded *in, size_t at, size_t n)
{
    size_t n_high = 0;
    for (size_t i = at; i < n; i++) {
        const unsigned char c = in->bytes[i];
        if (c == 0x7f || (c < 32 && !memchr("\t\n\r\f", c, 4))) return false;
        if (c >= 0x80) n_high++;
    }
    return n_high <= (n - at) / 4;
}

/* SVG, HTML or other text; NULL when it is none. */
static const char *text_kind(const cv_encoded *in)
{
    const size_t n = in->n < 1024 ? in->n : 1024;
    size_t at = has(in, 0, "\xef\xbb\xbf", 3) ? 3 : 0;
    if (!is_text(in, at, n)) return NULL;
    while (at < n && in->bytes[at] <= ' ')
        at++;
    if (says(in, at, n, "<!doctype html", false) || says(in, at, n, "<html", false))
        return "an HTML page";
    if (says(in, at, n, "<", false))
        return says(in, at, n, "<svg", true) ? "an SVG drawing" : "an XML or HTML text";
    return "a text";
}

static corvid_status fail_kind(const cv_encoded *in, corvid_error *err)
{
    const char *looks_like = NULL;
    for (size_t i = 0; i < sizeof OTHER_KINDS / sizeof *OTHER_KINDS && !looks_like; i++) {
        const kind *k = &OTHER_KINDS[i];
        if (has(in, k->at, k->bytes, k->n)) looks_like = k->name;
    }
    if (!looks_like) looks_like = text_kind(in);
    if (looks_like)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: looks like %s; JPEG, PNG and WebP pictures are read, convert it to "
                       "one of these",
                       in->name, looks_like);
    char bytes[3 * 8 + 1] = "";
    for (size_t i = 0; i < 8 && i < in->n; i++)
        snprintf(bytes + 3 * i, 4, " %02x", in->bytes[i]);
    return cv_fail(err, CORVID_E_FORMAT,
                   "%s: is of an unknown kind (its first bytes are%s); JPEG, PNG and WebP pictures "
                   "are read, is this the right file?",
                   in->name, bytes);
}

/* ---- decoding -------------------------------------------------------------------------------- */

corvid_status cv_picture_decode(const corvid_allocator *mem, const unsigned char *bytes, size_t n,
                                const char *name, uint64_t max_pixels, cv_picture *out,
                                corvid_error *err)
{
    const cv_encoded in = { bytes, n, name ? name : "memory", max_pixels, mem };
    corvid_status status;
    *out = (cv_picture){ 0 };
    if (n == 0)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: is empty, expected a JPEG, PNG or WebP picture; get the file again",
                       in.name);
    if (has(&in, 0, "\xff\xd8", 2))
        status = cv_decode_jpeg(&in, out, err);
    else if (has(&in, 0, "\x89PNG", 4))
        status = cv_decode_png(&in, out, err);
    else if (has(&in, 0, "RIFF", 4) && has(&in, 8, "WEBP", 4))
        status = cv_decode_webp(&in, out, err);
    else
        status = fail_kind(&in, err);
    if (status != CORVID_OK) cv_picture_free(out);
    return status;
}

corvid_status cv_picture_read(const corvid_allocator *mem, const char *path, uint64_t max_pixels,
                              cv_picture *out, corvid_error *err)
{
    cv_input in;
    char *bytes = NULL;
    size_t n;
    *out = (cv_picture){ 0 };
    CV_TRY(cv_input_open(&in, path, err));
    corvid_status status = cv_input_read_all(&in, mem, CV_PICTURE_FILE_MAX, &bytes, &n, err);
    if (status == CORVID_OK)
        status =
            cv_picture_decode(mem, (const unsigned char *)bytes, n, in.path, max_pixels, out, err);
    cv_free(mem, bytes);
    cv_input_close(&in);
    return status;
}
