/* decode.h - what the three decoders share; private to decode*.c. */
#ifndef CV_DECODE_H
#define CV_DECODE_H

#include "image/picture.h"

/* A file in memory, borrowed, and what is allowed for it. */
typedef struct cv_encoded {
    const unsigned char *bytes;
    size_t n;
    const char *name; /* for messages */
    uint64_t max_pixels;
    const corvid_allocator *mem;
} cv_encoded;

/* Each fills *out, which is zero before; after an error the caller frees it. */
corvid_status cv_decode_jpeg(const cv_encoded *in, cv_picture *out, corvid_error *err);
corvid_status cv_decode_png(const cv_encoded *in, cv_picture *out, corvid_error *err);
corvid_status cv_decode_webp(const cv_encoded *in, cv_picture *out, corvid_error *err);

/* The size that a header says: refused when it is zero or beyond max_pixels. */
corvid_status cv_decode_size(const cv_encoded *in, uint64_t width, uint64_t height,
                             corvid_error *err);

/* Refuses a file of fewer bytes than its pixels take at the very least: a few bytes that claim a
 * huge picture must not cost the memory and the time of one. */
corvid_status cv_decode_least(const cv_encoded *in, uint64_t least_bytes, uint64_t width,
                              uint64_t height, corvid_error *err);

/* Room for width x height pixels, not filled; orientation 1. */
corvid_status cv_decode_room(const cv_encoded *in, size_t width, size_t height, cv_picture *out,
                             corvid_error *err);

/* The orientation in a chunk of EXIF, which may begin with "Exif" and two zeros as in JPEG. */
int cv_decode_orientation(const unsigned char *bytes, size_t n);

/* "NAME: what (why); ..." for a file that is damaged.  why comes from a library, or is NULL. */
corvid_status cv_decode_damaged(const cv_encoded *in, const char *what, const char *why,
                                corvid_error *err);
/* For a file that ends too early. */
corvid_status cv_decode_cut(const cv_encoded *in, const char *kind, corvid_error *err);

#endif
