/* fuzz_preprocess.c - any picture, framed in any way.
 *
 * The input is eight numbers of 4 bytes (little-endian, zeros where it is shorter): width, height,
 * orientation and flags, resize, new width and height, crop width and height; then pixels, used
 * over and over.  The picture has at most 64 x 64 pixels, the framing any sizes.  Flag 16 cuts the
 * asked sizes to 8 bits, so that fewer of them are refused.
 * Findings beyond those of the sanitizers: more memory than the sides of both pictures explain,
 * a refusal without a sentence, a crop that is not cut from the whole. */
#include <stdlib.h>
#include <string.h>

#include "image/picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NUMBERS = 8, MOST_PIXELS = 1 << 16, SMALL_SIZES = 16 };

/* Results of at most 64 Ki pixels, their weights, one strip. */
#define MOST_MEMORY ((size_t)4 << 20)

static size_t in_use;

static void check(bool holds)
{
    if (!holds) abort();
}

static void *bounded_alloc(void *ctx, size_t bytes, size_t align)
{
    (void)ctx;
    size_t *block = NULL;
    check(align <= 64 && bytes <= MOST_MEMORY - in_use);
    if (posix_memalign((void **)&block, 64, bytes + 64) != 0) return NULL;
    *block = bytes;
    in_use += bytes;
    return (char *)block + 64;
}

static void bounded_free(void *ctx, void *ptr)
{
    (void)ctx;
    char *block = (char *)ptr - 64;
    size_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    in_use -= bytes;
    free(block);
}

static const corvid_allocator MEM = { .alloc = bounded_alloc, .free = bounded_free };

/* A crop lies in the middle of what the framing gives without it, where that is not too large. */
static void check_crop(const cv_picture *in, const cv_framing *framing, const cv_picture *out)
{
    cv_framing uncut = *framing;
    cv_picture whole;
    uncut.crop_width = uncut.crop_height = 0;
    if (cv_picture_frame(&MEM, in, &uncut, MOST_PIXELS, &whole, NULL) != CORVID_OK) return;
    check(out->width <= whole.width && out->height <= whole.height);
    const size_t over_x = whole.width - out->width, over_y = whole.height - out->height;
    const size_t x = (over_x + (over_x % 4 == 3)) / 2, y = (over_y + (over_y % 4 == 3)) / 2;
    for (size_t row = 0; row < out->height; row++)
        check(memcmp(out->pixels + 3 * row * out->width,
                     whole.pixels + 3 * ((y + row) * whole.width + x), 3 * out->width) == 0);
    cv_picture_free(&whole);
}

static void check_framed(const cv_picture *in, const cv_framing *framing)
{
    cv_picture out;
    corvid_error err = { CORVID_OK, "" };
    const corvid_status status = cv_picture_frame(&MEM, in, framing, MOST_PIXELS, &out, &err);
    if (status != CORVID_OK) {
        check(status == CORVID_E_ARGUMENT && err.status == status && err.text[0] != '\0');
        check(out.pixels == NULL);
        return;
    }
    check(out.width >= 1 && out.height >= 1 && out.width * out.height <= MOST_PIXELS);
    check(framing->crop_width == 0 || out.width <= framing->crop_width);
    check(framing->crop_height == 0 || out.height <= framing->crop_height);
    check(out.orientation == (framing->orient ? 1 : in->orientation));
    check_crop(in, framing, &out);
    cv_picture_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t head[4 * NUMBERS] = { 0 };
    size_t numbers[NUMBERS] = { 0 };
    if (size > 0) memcpy(head, data, size < sizeof head ? size : sizeof head);
    for (size_t i = 0; i < sizeof head; i++)
        numbers[i / 4] |= (size_t)head[i] << (8 * (i % 4));
    for (size_t i = 3; i < NUMBERS && (numbers[2] & SMALL_SIZES); i++)
        numbers[i] &= 255;

    unsigned char pixels[64 * 64 * 3];
    const cv_picture in = { .width = 1 + numbers[0] % 64,
                            .height = 1 + numbers[1] % 64,
                            .pixels = pixels,
                            .orientation = 1 + (int)(numbers[2] % 8),
                            .mem = &MEM };
    const size_t given = size > sizeof head ? size - sizeof head : 0;
    for (size_t i = 0; i < 3 * in.width * in.height; i++)
        pixels[i] = given ? data[sizeof head + i % given] : (unsigned char)i;
    const cv_framing framing = { .resize = numbers[3],
                                 .width = numbers[4],
                                 .height = numbers[5],
                                 .crop_width = numbers[6],
                                 .crop_height = numbers[7],
                                 .orient = (numbers[2] & 8) != 0 };
    check_framed(&in, &framing);
    check(in_use == 0);
    return 0;
}
