/* picture.h - 8-bit RGB pictures: from files, and to the size that a model is shown.
 *
 * decode.c tells JPEG, PNG and WebP by their first bytes (libturbojpeg, libpng, libwebp); exif.c
 * finds how the camera was held; resize.c is Pillow's bicubic, pixel for pixel; preprocess.c puts
 * them together and says which numbers a model gets. */
#ifndef CV_PICTURE_H
#define CV_PICTURE_H

#include <stdbool.h>

#include "base/memory.h"
#include "base/status.h"

/* Owns pixels [height][width][3], from mem. */
typedef struct cv_picture {
    size_t width, height;
    unsigned char *pixels;
    int orientation; /* 1..8 as EXIF numbers them; 1: upright */
    const corvid_allocator *mem;
} cv_picture;

/* Files of more bytes are not read. */
#define CV_PICTURE_FILE_MAX ((size_t)1 << 30)

/* Pixels of a new picture, zero; orientation 1.  CORVID_E_MEMORY. */
corvid_status cv_picture_new(const corvid_allocator *mem, size_t width, size_t height,
                             cv_picture *out, corvid_error *err);
void cv_picture_free(cv_picture *picture); /* safe on a zeroed one */

/* ---- decode.c -------------------------------------------------------------------------------- */

/* From n bytes of a file; name stands for them in messages.  The size is read from the header and
 * checked against max_pixels before anything is unpacked. */
corvid_status cv_picture_decode(const corvid_allocator *mem, const unsigned char *bytes, size_t n,
                                const char *name, uint64_t max_pixels, cv_picture *out,
                                corvid_error *err);
corvid_status cv_picture_read(const corvid_allocator *mem, const char *path, uint64_t max_pixels,
                              cv_picture *out, corvid_error *err);

/* ---- exif.c ---------------------------------------------------------------------------------- */

/* The orientation in a block of EXIF (from "II" or "MM" on); 1 when it is damaged or says none. */
int cv_exif_orientation(const unsigned char *tiff, size_t n);

/* ---- resize.c -------------------------------------------------------------------------------- */

/* The picture resized to width x height [pre.resize], of which only the part of part_width x
 * part_height from (x, y) on is computed; memory and time depend on the part, not on the whole.
 * All sizes from 1 to 2^30; the part lies within. */
typedef struct cv_resize {
    size_t width, height;
    size_t x, y, part_width, part_height;
} cv_resize;

corvid_status cv_picture_resize(const corvid_allocator *mem, const cv_picture *in,
                                const cv_resize *to, cv_picture *out, corvid_error *err);

/* ---- preprocess.c ---------------------------------------------------------------------------- */

/* Turned and mirrored so that orientation becomes 1. */
corvid_status cv_picture_turn(const corvid_allocator *mem, const cv_picture *in, cv_picture *out,
                              corvid_error *err);

typedef struct cv_framing {
    size_t resize;                  /* of the short side; 0: width and height below */
    size_t width, height;           /* 0: as it is */
    size_t crop_width, crop_height; /* 0: all */
    bool orient;
} cv_framing;

/* Turned, resized, cropped [pre.resize] [pre.crop].  CORVID_E_ARGUMENT when a size is beyond 2^30 or
 * the result beyond max_pixels. */
corvid_status cv_picture_frame(const corvid_allocator *mem, const cv_picture *in,
                               const cv_framing *framing, uint64_t max_pixels, cv_picture *out,
                               corvid_error *err);

/* What the short side is resized to before the middle of `side` pixels is cut out: the margin that
 * the official pipelines leave, but none for models of pictures so small that they show one thing
 * from border to border. */
static inline size_t cv_middle_side(size_t side)
{
    return side < 112 ? side : (side * 256 + 112) / 224;
}

/* How 8-bit values become the numbers of a model [pre.normalise]. */
typedef struct cv_normalise {
    double mean[3], std[3];
    bool unit; /* mean and std are of values divided by 255 (the L models) */
} cv_normalise;

extern const cv_normalise cv_normalise_255;  /* T, S, B and VRWKV6 */
extern const cv_normalise cv_normalise_unit; /* L */

/* The number of each value of each channel, in the order and precision of the official pipelines. */
void cv_normalise_table(const cv_normalise *how, float table[3][256]);

/* values [3][height][width] of a picture. */
void cv_picture_values(const cv_picture *picture, float table[3][256], float *values);

#endif
