/* picture_bytes.h - JPEG, PNG and WebP files made in memory, for the tests of their decoders.
 *
 * The pixels come from a formula, the files from the encoders of the libraries that we decode with
 * and, around them, from chunks written by hand.  What fails here fails the test. */
#ifndef TEST_PICTURE_BYTES_H
#define TEST_PICTURE_BYTES_H

#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include <webp/encode.h>

#include "support.h"

typedef struct file_bytes {
    unsigned char *bytes; /* malloc'ed, room of them */
    size_t n, room;
} file_bytes;

static inline void put(file_bytes *file, const void *bytes, size_t n)
{
    if (file->n + n > file->room) {
        file->room = 2 * (file->n + n) + 64;
        file->bytes = realloc(file->bytes, file->room);
        if (!file->bytes) fail_msg("out of memory");
    }
    if (n) memcpy(file->bytes + file->n, bytes, n);
    file->n += n;
}

static inline void put_big(file_bytes *file, uint32_t value, unsigned n_bytes)
{
    for (unsigned i = n_bytes; i-- > 0;)
        put(file, &(unsigned char){ (unsigned char)(value >> 8 * i) }, 1);
}

static inline void put_little(file_bytes *file, uint32_t value, unsigned n_bytes)
{
    for (unsigned i = 0; i < n_bytes; i++)
        put(file, &(unsigned char){ (unsigned char)(value >> 8 * i) }, 1);
}

static inline uint32_t get_big(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static inline uint32_t get_little(const unsigned char *bytes)
{
    return (uint32_t)bytes[3] << 24 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[1] << 8 | bytes[0];
}

/* before, then bytes from `at` on, with what was there moved back; the old file is freed. */
static inline file_bytes inserted(file_bytes file, size_t at, file_bytes what)
{
    file_bytes out = { 0 };
    put(&out, file.bytes, at);
    put(&out, what.bytes, what.n);
    put(&out, file.bytes + at, file.n - at);
    free(file.bytes);
    free(what.bytes);
    return out;
}

/* ---- pixels ---------------------------------------------------------------------------------- */

/* Channel c of the pixel at (x, y), 16 bits, of which every one varies. */
static inline unsigned rough(size_t x, size_t y, size_t c)
{
    uint32_t h = (uint32_t)(x * 2654435761u ^ y * 2246822519u ^ (c + 1) * 3266489917u);
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    return h >> 16;
}

/* The same, 8 bits, slowly varying: what a lossy file keeps. */
static inline unsigned char smooth(size_t x, size_t y, size_t c)
{
    return (unsigned char)(40 + 3 * x + (c + 1) * y + 30 * c);
}

typedef enum texture { ROUGH, SMOOTH } texture;

/* [height][width][n_channels]; a fourth channel is never zero (WebP forgets colours there). */
static inline unsigned char *pixels_of(texture how, size_t width, size_t height, size_t n_channels)
{
    unsigned char *pixels = malloc(width * height * n_channels);
    if (!pixels) fail_msg("out of memory");
    for (size_t i = 0; i < width * height; i++)
        for (size_t c = 0; c < n_channels; c++) {
            const size_t x = i % width, y = i / width;
            unsigned char value =
                how == SMOOTH ? smooth(x, y, c) : (unsigned char)(rough(x, y, c) >> 8);
            pixels[i * n_channels + c] = c == 3 ? value | 1 : value;
        }
    return pixels;
}

/* ---- EXIF ------------------------------------------------------------------------------------ */

/* A block with three entries, the last the orientation, and 12 more bytes of text. */
static inline file_bytes exif_block(bool big_endian, int orientation)
{
    void (*number)(file_bytes *, uint32_t, unsigned) = big_endian ? put_big : put_little;
    file_bytes exif = { 0 };
    put(&exif, big_endian ? "MM" : "II", 2);
    number(&exif, 42, 2);
    number(&exif, 8, 4); /* where the directory is */
    number(&exif, 3, 2); /* entries */
    number(&exif, 0x0100, 2), number(&exif, 4, 2), number(&exif, 1, 4), number(&exif, 640, 4);
    number(&exif, 0x010f, 2), number(&exif, 2, 2), number(&exif, 12, 4), number(&exif, 50, 4);
    number(&exif, 0x0112, 2), number(&exif, 3, 2), number(&exif, 1, 4);
    number(&exif, (uint32_t)orientation, 2), number(&exif, 0, 2);
    number(&exif, 0, 4); /* no next directory */
    put(&exif, "test camera", 12);
    return exif;
}

/* ---- JPEG ------------------------------------------------------------------------------------ */

static inline file_bytes jpeg_file(const unsigned char *pixels, size_t width, size_t height,
                                   int format, int sampling, int quality, int flags)
{
    unsigned char *bytes = NULL;
    unsigned long n = 0;
    tjhandle codec = tjInitCompress();
    assert_non_null(codec);
    if (tjCompress2(codec, pixels, (int)width, 0, (int)height, format, &bytes, &n, sampling,
                    quality, flags | TJFLAG_ACCURATEDCT))
        fail_msg("no JPEG: %s", tjGetErrorStr2(codec));
    file_bytes file = { 0 };
    put(&file, bytes, n);
    tjFree(bytes);
    tjDestroy(codec);
    return file;
}

static inline file_bytes smooth_jpeg(size_t width, size_t height, int sampling, int flags)
{
    unsigned char *pixels = pixels_of(SMOOTH, width, height, 3);
    file_bytes file = jpeg_file(pixels, width, height, TJPF_RGB, sampling, 95, flags);
    free(pixels);
    return file;
}

/* A segment after the SOI. */
static inline file_bytes jpeg_with_exif(file_bytes file, file_bytes exif)
{
    file_bytes segment = { 0 };
    put(&segment, "\xff\xe1", 2);
    put_big(&segment, (uint32_t)(exif.n + 8), 2);
    put(&segment, "Exif\0", 6);
    put(&segment, exif.bytes, exif.n);
    free(exif.bytes);
    return inserted(file, 2, segment);
}

/* Where the first segment with this marker begins; the files here have one before all scans. */
static inline size_t jpeg_segment(file_bytes file, unsigned char marker)
{
    size_t at = 2;
    while (at + 4 <= file.n && file.bytes[at + 1] != marker)
        at += 2 + ((size_t)file.bytes[at + 2] << 8 | file.bytes[at + 3]);
    if (at + 4 > file.n) fail_msg("no segment %02x", marker);
    return at;
}

/* ---- PNG ------------------------------------------------------------------------------------- */

typedef struct png_kind {
    int type, depth; /* as libpng names them */
    bool interlaced, transparent;
} png_kind;

static inline void png_collect(png_structp png, png_bytep bytes, size_t n)
{
    put(png_get_io_ptr(png), bytes, n);
}

static inline void png_flush_nothing(png_structp png)
{
    (void)png;
}

static inline size_t png_channels(int type)
{
    return type == PNG_COLOR_TYPE_RGB          ? 3
           : type == PNG_COLOR_TYPE_RGB_ALPHA  ? 4
           : type == PNG_COLOR_TYPE_GRAY_ALPHA ? 2
                                               : 1;
}

/* Colour i of the palette. */
static inline png_color png_palette_color(unsigned i)
{
    return (png_color){ (png_byte)(i * 7 + 3), (png_byte)(255 - i), (png_byte)(i * 31) };
}

/* The sample of channel c: `depth` bits. */
static inline unsigned png_sample(png_kind kind, size_t x, size_t y, size_t c)
{
    return rough(x, y, c) >> (16 - kind.depth);
}

static inline void png_pack_row(png_kind kind, size_t width, size_t y, unsigned char *row)
{
    const size_t n_channels = png_channels(kind.type), depth = (size_t)kind.depth;
    memset(row, 0, width * 8);
    for (size_t i = 0; i < width * n_channels; i++) {
        const unsigned sample = png_sample(kind, i / n_channels, y, i % n_channels);
        if (depth == 16) {
            row[2 * i] = (unsigned char)(sample >> 8);
            row[2 * i + 1] = (unsigned char)sample;
        } else {
            const size_t bit = i * depth;
            row[bit / 8] |= (unsigned char)(sample << (8 - depth - bit % 8));
        }
    }
}

static inline void png_set_palette(png_structp png, png_infop info, png_kind kind)
{
    png_color palette[256];
    png_byte alpha[3] = { 0, 128, 255 };
    const unsigned n = 1u << kind.depth;
    for (unsigned i = 0; i < n; i++)
        palette[i] = png_palette_color(i);
    png_set_PLTE(png, info, palette, (int)n);
    if (kind.transparent) png_set_tRNS(png, info, alpha, n < 3 ? (int)n : 3, NULL);
}

static inline file_bytes png_file(png_kind kind, size_t width, size_t height, file_bytes exif)
{
    file_bytes file = { 0 };
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_bytepp rows = malloc(height * sizeof *rows);
    assert_true(png && info && rows);
    png_set_write_fn(png, &file, png_collect, png_flush_nothing);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, kind.depth, kind.type,
                 kind.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (kind.type == PNG_COLOR_TYPE_PALETTE)
        png_set_palette(png, info, kind);
    else if (kind.transparent)
        png_set_tRNS(png, info, NULL, 0, &(png_color_16){ 0, 1, 1, 1, 1 });
    if (exif.n) png_set_eXIf_1(png, info, (png_uint_32)exif.n, exif.bytes);
    png_write_info(png, info);
    for (size_t y = 0; y < height; y++) {
        rows[y] = malloc(width * 8);
        assert_non_null(rows[y]);
        png_pack_row(kind, width, y, rows[y]);
    }
    png_write_image(png, rows);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    for (size_t y = 0; y < height; y++)
        free(rows[y]);
    free(rows);
    free(exif.bytes);
    return file;
}

/* Where the chunk of this name begins (at its length). */
static inline size_t png_chunk(file_bytes file, const char *name)
{
    size_t at = 8;
    while (at + 12 <= file.n && memcmp(file.bytes + at + 4, name, 4) != 0)
        at += 12 + get_big(file.bytes + at);
    if (at + 12 > file.n) fail_msg("no chunk %s", name);
    return at;
}

/* Makes the chunk's checksum right again. */
static inline void png_seal(file_bytes file, size_t at)
{
    const size_t end = at + 8 + get_big(file.bytes + at);
    uint32_t crc = ~(uint32_t)0;
    for (size_t i = at + 4; i < end; i++) {
        crc ^= file.bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
    }
    crc = ~crc;
    for (size_t i = 0; i < 4; i++)
        file.bytes[end + i] = (unsigned char)(crc >> (24 - 8 * i));
}

/* ---- WebP ------------------------------------------------------------------------------------ */

static inline file_bytes webp_lossless(const unsigned char *pixels, size_t width, size_t height,
                                       size_t n_channels)
{
    uint8_t *bytes = NULL;
    const int w = (int)width, h = (int)height;
    const size_t n = n_channels == 4 ? WebPEncodeLosslessRGBA(pixels, w, h, 4 * w, &bytes)
                                     : WebPEncodeLosslessRGB(pixels, w, h, 3 * w, &bytes);
    file_bytes file = { 0 };
    assert_true(n > 0);
    put(&file, bytes, n);
    WebPFree(bytes);
    return file;
}

static inline file_bytes webp_lossy(const unsigned char *pixels, size_t width, size_t height,
                                    size_t n_channels, float quality)
{
    uint8_t *bytes = NULL;
    const int w = (int)width, h = (int)height;
    const size_t n = n_channels == 4 ? WebPEncodeRGBA(pixels, w, h, 4 * w, quality, &bytes)
                                     : WebPEncodeRGB(pixels, w, h, 3 * w, quality, &bytes);
    file_bytes file = { 0 };
    assert_true(n > 0);
    put(&file, bytes, n);
    WebPFree(bytes);
    return file;
}

static inline void put_chunk(file_bytes *file, const char *name, const void *bytes, size_t n)
{
    put(file, name, 4);
    put_little(file, (uint32_t)n, 4);
    put(file, bytes, n);
    if (n % 2) put_little(file, 0, 1);
}

static inline file_bytes webp_start(unsigned flags, size_t width, size_t height)
{
    file_bytes file = { 0 };
    put(&file, "RIFF\0\0\0\0WEBPVP8X\x0a\0\0", 20 - 1);
    put_little(&file, 0, 1);
    put_little(&file, flags, 4);
    put_little(&file, (uint32_t)width - 1, 3);
    put_little(&file, (uint32_t)height - 1, 3);
    return file;
}

/* Writes the length of all into the head. */
static inline void webp_seal(file_bytes file)
{
    for (size_t i = 0; i < 4; i++)
        file.bytes[4 + i] = (unsigned char)((file.n - 8) >> 8 * i);
}

/* A simple file made an extended one. */
static inline file_bytes webp_with_exif(file_bytes simple, size_t width, size_t height,
                                        file_bytes exif)
{
    file_bytes file = webp_start(0x08, width, height);
    put(&file, simple.bytes + 12, simple.n - 12);
    put_chunk(&file, "EXIF", exif.bytes, exif.n);
    webp_seal(file);
    free(simple.bytes);
    free(exif.bytes);
    return file;
}

/* The same still picture twice, on a canvas that is larger; x and y are even. */
static inline file_bytes webp_animation(file_bytes simple, size_t width, size_t height, size_t x,
                                        size_t y, size_t canvas_width, size_t canvas_height)
{
    file_bytes file = webp_start(0x02, canvas_width, canvas_height);
    put_chunk(&file, "ANIM", "\xff\xff\xff\xff\0", 6); /* white behind, for ever */
    for (int i = 0; i < 2; i++) {
        file_bytes frame = { 0 };
        put_little(&frame, i == 0 ? (uint32_t)x / 2 : 0, 3);
        put_little(&frame, i == 0 ? (uint32_t)y / 2 : 0, 3);
        put_little(&frame, (uint32_t)width - 1, 3);
        put_little(&frame, (uint32_t)height - 1, 3);
        put_little(&frame, 100, 3); /* milliseconds */
        put_little(&frame, 0, 1);
        put(&frame, simple.bytes + 12, simple.n - 12);
        put_chunk(&file, "ANMF", frame.bytes, frame.n);
        free(frame.bytes);
    }
    webp_seal(file);
    free(simple.bytes);
    return file;
}

#endif
