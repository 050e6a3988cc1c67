/* exif.c - finds in a block of EXIF how the camera was held.
 *
 * The block is a small TIFF file: a byte order, the offset of a first directory, and in it entries
 * of twelve bytes, of which one may be the orientation.  Every offset is checked, so any bytes may
 * be handed in.  Nothing else of EXIF is read. */
#include "base/checked.h"
#include "image/picture.h"

#define TAG_ORIENTATION 0x0112u
#define TYPE_SHORT      3
#define TYPE_LONG       4
#define ENTRY_BYTES     12
#define UPRIGHT         1

typedef struct tiff {
    const unsigned char *bytes;
    size_t n;
    bool big_endian;
} tiff;

/* The caller has checked that they are within. */
static unsigned read_u16(const tiff *t, size_t at)
{
    const unsigned a = t->bytes[at], b = t->bytes[at + 1];
    return t->big_endian ? a << 8 | b : b << 8 | a;
}

static uint32_t read_u32(const tiff *t, size_t at)
{
    const uint32_t a = read_u16(t, at), b = read_u16(t, at + 2);
    return t->big_endian ? a << 16 | b : b << 16 | a;
}

/* The value of an orientation's entry; one value, or it is none. */
static int entry_value(const tiff *t, size_t at)
{
    const unsigned type = read_u16(t, at + 2);
    if (read_u32(t, at + 4) != 1) return UPRIGHT;
    uint32_t value = 0;
    if (type == TYPE_SHORT) value = read_u16(t, at + 8);
    if (type == TYPE_LONG) value = read_u32(t, at + 8);
    return value >= 1 && value <= 8 ? (int)value : UPRIGHT;
}

int cv_exif_orientation(const unsigned char *bytes, size_t n)
{
    tiff t = { .bytes = bytes, .n = n };
    if (n < 8) return UPRIGHT;
    if (bytes[0] == 'M' && bytes[1] == 'M')
        t.big_endian = true;
    else if (bytes[0] != 'I' || bytes[1] != 'I')
        return UPRIGHT;
    if (read_u16(&t, 2) != 42) return UPRIGHT;

    const uint64_t directory = read_u32(&t, 4);
    if (!cv_range_within(directory, 2, n)) return UPRIGHT;
    const unsigned n_entries = read_u16(&t, (size_t)directory);
    uint64_t at = directory + 2;
    for (unsigned i = 0; i < n_entries && cv_range_within(at, ENTRY_BYTES, n); i++) {
        if (read_u16(&t, (size_t)at) == TAG_ORIENTATION) return entry_value(&t, (size_t)at);
        at += ENTRY_BYTES;
    }
    return UPRIGHT;
}
