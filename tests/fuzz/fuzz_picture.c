/* fuzz_picture.c - any bytes as a picture: JPEG, PNG or WebP, and as a block of EXIF.
 *
 * Findings beyond those of the sanitizers: a picture beyond the limit, an orientation that is none,
 * pixels that the decoder left unset (they would depend on what was in memory before), a refusal
 * without a sentence. */
#include <stdlib.h>
#include <string.h>

#include "image/picture.h"

#define MAX_PIXELS ((uint64_t)1 << 16)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) abort();
}

/* An allocator whose blocks begin filled with the byte that ctx points to. */
static void *filled_alloc(void *ctx, size_t bytes, size_t align)
{
    void *ptr = cv_libc_allocator.alloc(NULL, bytes, align);
    if (ptr) memset(ptr, *(const unsigned char *)ctx, bytes);
    return ptr;
}

static void filled_free(void *ctx, void *ptr)
{
    (void)ctx;
    cv_libc_allocator.free(NULL, ptr);
}

static corvid_status decode(const uint8_t *data, size_t size, unsigned char *fill, cv_picture *out)
{
    /* static: the pictures keep a pointer to it. */
    static corvid_allocator mem;
    corvid_error err = { CORVID_OK, "" };
    mem = (corvid_allocator){ .ctx = fill, .alloc = filled_alloc, .free = filled_free };
    corvid_status status = cv_picture_decode(&mem, data, size, "fuzz", MAX_PIXELS, out, &err);
    if (status == CORVID_OK) {
        check(out->width > 0 && out->height > 0 && out->width * out->height <= MAX_PIXELS);
        check(out->orientation >= 1 && out->orientation <= 8);
    } else {
        check(status == CORVID_E_FORMAT && err.status == status && out->pixels == NULL);
        check(strncmp(err.text, "fuzz: ", 6) == 0);
    }
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char zero = 0, one = 0xff;
    cv_picture a, b;
    const int orientation = cv_exif_orientation(data, size);
    check(orientation >= 1 && orientation <= 8);
    if (decode(data, size, &zero, &a) == CORVID_OK) {
        check(decode(data, size, &one, &b) == CORVID_OK);
        check(a.width == b.width && a.height == b.height && a.orientation == b.orientation);
        check(memcmp(a.pixels, b.pixels, 3 * a.width * a.height) == 0);
        cv_picture_free(&b);
    }
    cv_picture_free(&a);
    return 0;
}
