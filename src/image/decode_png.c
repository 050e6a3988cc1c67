/* decode_png.c - PNG by libpng: all colour types, depths and interlacing, to 8-bit RGB.
 *
 * Transparency is dropped, not blended; of 16 bits the upper 8 are kept; chunks that do not matter
 * to the pixels or their orientation are passed over.  libpng reports errors by a jump: what it
 * may leave lies in one struct, and only setjmp's own function sees the jump. */
#include "decode.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"

#define HEADER_BYTES 29 /* signature, and the IHDR chunk without its checksum */
/* What deflate makes of one byte at most: 258 equal bytes take two bits. */
#define DEFLATE_BEST 1032

typedef struct reading {
    const cv_encoded *in;
    cv_picture *out;
    corvid_error *err;
    png_structp png;
    png_infop info;
    size_t at;    /* bytes read */
    bool starved; /* an allocation failed */
    char complaint[128];
} reading;

/* ---- what libpng calls ----------------------------------------------------------------------- */

/* libpng hands messages on as the user's functions do, none is printed. */
static void __attribute__((noreturn)) on_error(png_structp png, png_const_charp text)
{
    reading *r = png_get_error_ptr(png);
    snprintf(r->complaint, sizeof r->complaint, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static png_voidp on_alloc(png_structp png, png_alloc_size_t n)
{
    reading *r = png_get_mem_ptr(png);
    void *ptr = cv_alloc(r->in->mem, n, 1);
    if (!ptr) r->starved = true;
    return ptr;
}

static void on_free(png_structp png, png_voidp ptr)
{
    reading *r = png_get_mem_ptr(png);
    cv_free(r->in->mem, ptr);
}

static void on_read(png_structp png, png_bytep dst, size_t n)
{
    reading *r = png_get_io_ptr(png);
    if (!cv_range_within(r->at, n, r->in->n)) png_error(png, "no more bytes");
    memcpy(dst, r->in->bytes + r->at, n);
    r->at += n;
}

/* ---- the header ------------------------------------------------------------------------------ */

static uint32_t u32_at(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Are all chunks there, to the last?  libpng would find out too, but only after it has taken memory
 * for as much as a chunk claims to hold. */
static corvid_status check_chunks(const cv_encoded *in, corvid_error *err)
{
    uint64_t at = 8;
    while (cv_range_within(at, 12, in->n)) { /* length, name, checksum */
        const unsigned char *chunk = in->bytes + at;
        at += 12 + (uint64_t)u32_at(chunk);
        if (memcmp(chunk + 4, "IEND", 4) == 0 && at <= in->n) return CORVID_OK;
    }
    return cv_decode_cut(in, "PNG", err);
}

/* The size, read here so that ours is the message about it. */
static corvid_status check_header(const cv_encoded *in, uint32_t *width, uint32_t *height,
                                  corvid_error *err)
{
    static const unsigned char START[] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n',
                                           0,    0,   0,   13,  'I',  'H',  'D',  'R' };
    static const unsigned CHANNELS[] = { 1, 1, 3, 1, 2, 1, 4, 1 };
    const size_t n = in->n < sizeof START ? in->n : sizeof START;
    if (memcmp(in->bytes, START, n) != 0)
        return cv_decode_damaged(in, "a damaged PNG picture", "its first bytes are wrong", err);
    if (in->n < HEADER_BYTES) return cv_decode_cut(in, "PNG", err);
    *width = u32_at(in->bytes + 16);
    *height = u32_at(in->bytes + 20);
    CV_TRY(cv_decode_size(in, *width, *height, err));

    /* No size in 31 bits overflows here; of a larger one or of an odd depth libpng complains. */
    uint64_t bits = (uint64_t)*width * *height;
    if (*width >> 31 == 0 && *height >> 31 == 0 && in->bytes[24] <= 16 && bits >> 50 == 0)
        bits *= in->bytes[24] * CHANNELS[in->bytes[25] & 7];
    CV_TRY(cv_decode_least(in, bits / 8 / DEFLATE_BEST, *width, *height, err));
    return check_chunks(in, err);
}

/* ---- unpacking ------------------------------------------------------------------------------- */

static void pass_over_chunks(png_structp png)
{
    static const png_byte NAMES[] = "bKGD\0cHRM\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0pHYs\0sBIT\0"
                                    "sCAL\0sPLT\0sRGB\0tEXt\0tIME\0tRNS\0zTXt";
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NAMES, sizeof NAMES / 5);
}

static void set_transformations(reading *r)
{
    const png_byte type = png_get_color_type(r->png, r->info);
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(r->png);
    if (type == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(r->png);
    if (png_get_bit_depth(r->png, r->info) == 16) png_set_strip_16(r->png);
    if (type & PNG_COLOR_MASK_ALPHA) png_set_strip_alpha(r->png);
    if (!(type & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(r->png);
}

/* A pass of an interlaced picture adds to the rows that the passes before it left. */
static void read_rows(reading *r)
{
    const int n_passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    if (png_get_rowbytes(r->png, r->info) != 3 * r->out->width)
        png_error(r->png, "no such colours");
    for (int pass = 0; pass < n_passes; pass++)
        for (size_t y = 0; y < r->out->height; y++)
            png_read_row(r->png, r->out->pixels + 3 * r->out->width * y, NULL);
    png_read_end(r->png, r->info);
}

static void read_orientation(reading *r)
{
    png_uint_32 n;
    png_bytep exif;
    if (png_get_eXIf_1(r->png, r->info, &n, &exif))
        r->out->orientation = cv_decode_orientation(exif, n);
}

static corvid_status fail_jump(const reading *r)
{
    if (r->starved) return cv_fail(r->err, CORVID_E_MEMORY, "out of memory: for %s", r->in->name);
    return cv_decode_damaged(r->in, "a damaged PNG picture", r->complaint, r->err);
}

/* No local variable: what a jump would leave undefined is not there. */
static corvid_status unpack(reading *r)
{
    if (setjmp(png_jmpbuf(r->png))) return fail_jump(r);
    r->info = png_create_info_struct(r->png);
    if (!r->info) png_error(r->png, "no memory");
    png_set_read_fn(r->png, r, on_read);
    png_set_user_limits(r->png, (png_uint_32)r->out->width, (png_uint_32)r->out->height);
    pass_over_chunks(r->png);
    png_read_info(r->png, r->info);
    set_transformations(r);
    read_rows(r);
    read_orientation(r);
    if (r->starved) png_error(r->png, "no memory"); /* libpng can do without some chunks */
    return CORVID_OK;
}

corvid_status cv_decode_png(const cv_encoded *in, cv_picture *out, corvid_error *err)
{
    uint32_t width = 0, height = 0;
    CV_TRY(check_header(in, &width, &height, err));
    CV_TRY(cv_decode_room(in, width, height, out, err));
    reading r = { .in = in, .out = out, .err = err };
    r.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &r, on_error, on_warning, &r, on_alloc,
                                     on_free);
    if (!r.png) return cv_fail(err, CORVID_E_MEMORY, "out of memory: for %s", in->name);
    const corvid_status status = unpack(&r);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    return status;
}
