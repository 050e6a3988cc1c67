/* decode_jpeg.c - JPEG by libjpeg-turbo, after a walk over the file's markers.
 *
 * The walk finds the size, the EXIF block and the end before anything is unpacked, because the
 * library fills what is missing from a cut file with grey and only warns of its first doubt.  Its
 * accurate transform and smooth upsampling are used, so pixels are those of Pillow.  Arithmetic
 * coding, lossless JPEG and 12 bits per sample are not read. */
#include "decode.h"

#include <string.h>
#include <turbojpeg.h>

#include "base/checked.h"

/* Ordinary progressive files have up to about 12; each one visits every block of the picture. */
#define MAX_SCANS 100

enum {
    SOF0 = 0xC0, /* a frame's header: baseline */
    SOF2 = 0xC2, /* progressive */
    DHT = 0xC4,
    JPG = 0xC8,
    DAC = 0xCC,
    SOF15 = 0xCF,
    RST0 = 0xD0,
    SOI = 0xD8,
    EOI = 0xD9,
    SOS = 0xDA, /* a scan's header */
    APP1 = 0xE1,
    TEM = 0x01
};

/* What the walk over the markers has found. */
typedef struct layout {
    bool framed; /* a frame's header was there */
    size_t width, height, n_components;
    uint64_t least_bytes; /* of a file with such a frame */
    size_t n_scans;
    bool has_exif;
    int orientation;
} layout;

static size_t u16_at(const unsigned char *bytes)
{
    return (size_t)bytes[0] << 8 | bytes[1];
}

/* The next marker from *at on, which becomes where it ends; -1 when there is none.  Passes over the
 * coded data of a scan, where 0xff is followed by a zero. */
static int next_marker(const cv_encoded *in, size_t *at)
{
    while (*at < in->n) {
        const unsigned char *found = memchr(in->bytes + *at, 0xff, in->n - *at);
        if (!found) return -1;
        *at = (size_t)(found - in->bytes);
        while (*at < in->n && in->bytes[*at] == 0xff) /* any number may stand before a marker */
            ++*at;
        if (*at == in->n) return -1;
        const int marker = in->bytes[(*at)++];
        if (marker != 0) return marker;
    }
    return -1;
}

static bool stands_alone(int marker)
{
    return marker == TEM || (marker >= RST0 && marker <= SOI);
}

static bool is_frame(int marker)
{
    return marker >= SOF0 && marker <= SOF15 && marker != DHT && marker != JPG && marker != DAC;
}

/* Blocks of 8 x 8 of one component that is sampled h x v times where the finest is hmax x vmax. */
static uint64_t n_blocks(const layout *is, size_t h, size_t v, size_t hmax, size_t vmax)
{
    const uint64_t wide = (is->width * h + 8 * hmax - 1) / (8 * hmax);
    const uint64_t high = (is->height * v + 8 * vmax - 1) / (8 * vmax);
    return wide * high;
}

/* A Huffman code has a bit at least, and every block takes one for its mean and, unless the file is
 * progressive, one to say that nothing follows. */
static corvid_status note_least_bytes(const cv_encoded *in, const unsigned char *components,
                                      int marker, layout *is, corvid_error *err)
{
    size_t hmax = 1, vmax = 1;
    for (size_t c = 0; c < is->n_components; c++) {
        const size_t h = components[3 * c + 1] >> 4, v = components[3 * c + 1] & 15;
        if (h < 1 || h > 4 || v < 1 || v > 4)
            return cv_decode_damaged(in, "a damaged JPEG picture", "no such sampling", err);
        if (h > hmax) hmax = h;
        if (v > vmax) vmax = v;
    }
    uint64_t bits = 0;
    for (size_t c = 0; c < is->n_components; c++) {
        const size_t h = components[3 * c + 1] >> 4, v = components[3 * c + 1] & 15;
        bits += n_blocks(is, h, v, hmax, vmax) * (marker == SOF2 ? 1 : 2);
    }
    is->least_bytes = bits / 8;
    return CORVID_OK;
}

static corvid_status note_frame(const cv_encoded *in, int marker, const unsigned char *body,
                                size_t n, layout *is, corvid_error *err)
{
    if (marker > SOF2)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: a JPEG picture of a rare kind (frame 0x%02x: lossless, arithmetic or "
                       "hierarchical coding); baseline and progressive ones are read, save it "
                       "anew as one of these",
                       in->name, (unsigned)marker);
    if (n < 6 || n != 6 + 3 * (size_t)body[5] || body[5] == 0)
        return cv_decode_damaged(in, "a damaged JPEG picture", "its frame's header is wrong", err);
    if (body[0] != 8)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: a JPEG picture of %u bits per sample, expected 8; save it anew with 8",
                       in->name, body[0]);
    is->framed = true;
    is->height = u16_at(body + 1);
    is->width = u16_at(body + 3);
    is->n_components = body[5];
    return note_least_bytes(in, body + 6, marker, is, err);
}

static corvid_status note_segment(const cv_encoded *in, int marker, const unsigned char *body,
                                  size_t n, layout *is, corvid_error *err)
{
    if (marker == SOS && ++is->n_scans > MAX_SCANS)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: a JPEG picture of more than %d scans; save it anew with fewer",
                       in->name, MAX_SCANS);
    if (marker == APP1 && !is->has_exif && n >= 6 && memcmp(body, "Exif\0", 5) == 0) {
        is->has_exif = true;
        is->orientation = cv_decode_orientation(body, n);
    }
    if (is_frame(marker) && !is->framed) return note_frame(in, marker, body, n, is, err);
    return CORVID_OK;
}

/* From the first marker to the last. */
static corvid_status walk(const cv_encoded *in, layout *is, corvid_error *err)
{
    size_t at = 2; /* after the SOI */
    *is = (layout){ .orientation = 1 };
    for (;;) {
        const int marker = next_marker(in, &at);
        if (marker < 0) return cv_decode_cut(in, "JPEG", err);
        if (marker == EOI) break;
        if (stands_alone(marker)) continue;
        if (!cv_range_within(at, 2, in->n)) return cv_decode_cut(in, "JPEG", err);
        const size_t length = u16_at(in->bytes + at);
        if (length < 2)
            return cv_decode_damaged(in, "a damaged JPEG picture", "a segment without a length",
                                     err);
        if (!cv_range_within(at, length, in->n)) return cv_decode_cut(in, "JPEG", err);
        CV_TRY(note_segment(in, marker, in->bytes + at + 2, length - 2, is, err));
        at += length;
    }
    if (is->framed && is->n_scans > 0) return CORVID_OK;
    return cv_decode_damaged(in, "a JPEG file without a picture in it", NULL, err);
}

/* ---- unpacking ------------------------------------------------------------------------------- */

/* Doubts that the library reports although all of the picture is there.  Any other means that pixels
 * were made up, or that it gave up: it says so in words only, since its code for a failure becomes
 * that for a doubt when there was a doubt before. */
static bool is_harmless(const char *words)
{
    static const char *const HARMLESS[] = { "extraneous bytes before marker",
                                            "unknown JFIF revision number",
                                            "Unknown Adobe color transform code",
                                            "Inconsistent progression sequence",
                                            "Invalid SOS parameters for sequential JPEG" };
    for (size_t i = 0; i < sizeof HARMLESS / sizeof *HARMLESS; i++)
        if (strstr(words, HARMLESS[i])) return true;
    return false;
}

static corvid_status unpack(const cv_encoded *in, const layout *is, int format,
                            unsigned char *pixels, corvid_error *err)
{
    tjhandle codec = tjInitDecompress();
    if (!codec) return cv_fail(err, CORVID_E_MEMORY, "out of memory: for %s", in->name);
    /* The size is an upper bound too: nothing is written beyond it, whatever the file holds. */
    const int failed = tjDecompress2(codec, in->bytes, in->n, pixels, (int)is->width,
                                     (int)is->width * tjPixelSize[format], (int)is->height, format,
                                     TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS);
    corvid_status status = CORVID_OK;
    if (failed) {
        const char *why = tjGetErrorStr2(codec);
        if (strstr(why, "Insufficient memory"))
            status = cv_fail(err, CORVID_E_MEMORY, "out of memory: for %s (%s)", in->name, why);
        else if (!is_harmless(why))
            status = cv_decode_damaged(in, "a damaged JPEG picture", why, err);
    }
    tjDestroy(codec);
    return status;
}

/* a * b / 255, rounded. */
static unsigned scale_255(unsigned a, unsigned b)
{
    const unsigned product = a * b + 128;
    return (product + (product >> 8)) >> 8;
}

/* Inks are stored inverted, as Adobe does it: 255 is none.  The rounding is Pillow's. */
static void inks_to_rgb(const unsigned char *inks, size_t n_pixels, unsigned char *rgb)
{
    for (size_t i = 0; i < n_pixels; i++) {
        const unsigned light = inks[4 * i + 3];
        for (size_t c = 0; c < 3; c++) {
            const unsigned ink = 255u - inks[4 * i + c];
            rgb[3 * i + c] = (unsigned char)(light - scale_255(ink, light));
        }
    }
}

static corvid_status unpack_inks(const cv_encoded *in, const layout *is, cv_picture *out,
                                 corvid_error *err)
{
    void *inks;
    const size_t n_pixels = is->width * is->height;
    CV_TRY(cv_alloc_or_fail(in->mem, n_pixels, 4, in->name, &inks, err));
    corvid_status status = unpack(in, is, TJPF_CMYK, inks, err);
    if (status == CORVID_OK) inks_to_rgb(inks, n_pixels, out->pixels);
    cv_free(in->mem, inks);
    return status;
}

corvid_status cv_decode_jpeg(const cv_encoded *in, cv_picture *out, corvid_error *err)
{
    layout is;
    CV_TRY(walk(in, &is, err));
    CV_TRY(cv_decode_size(in, is.width, is.height, err));
    CV_TRY(cv_decode_least(in, is.least_bytes, is.width, is.height, err));
    CV_TRY(cv_decode_room(in, is.width, is.height, out, err));
    out->orientation = is.orientation;
    if (is.n_components == 4) return unpack_inks(in, &is, out, err);
    return unpack(in, &is, TJPF_RGB, out->pixels, err);
}
