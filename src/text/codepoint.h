/* codepoint.h - one code point from UTF-8 and back, for the files of this folder.
 *
 * Well-formed UTF-8 only: no surrogates, nothing longer than needed, nothing above U+10FFFF. */
#ifndef CV_CODEPOINT_H
#define CV_CODEPOINT_H

#include <stddef.h>
#include <stdint.h>

#define CV_REPLACEMENT 0xFFFDu

static inline int cv_is_continuation(unsigned char byte)
{
    return (byte & 0xC0u) == 0x80u;
}

/* How long the sequence is that this lead byte opens; 0 when it opens none. */
static inline size_t cv_utf8_promised(unsigned char lead)
{
    if (lead < 0x80) return 1;
    if (lead < 0xC2) return 0;
    if (lead < 0xE0) return 2;
    if (lead < 0xF0) return 3;
    return lead < 0xF5 ? 4 : 0;
}

/* May `second` follow `lead`?  Excludes overlong forms, surrogates and what is above U+10FFFF. */
static inline int cv_utf8_second_fits(unsigned char lead, unsigned char second)
{
    if (lead == 0xE0) return second >= 0xA0 && second <= 0xBF;
    if (lead == 0xED) return second >= 0x80 && second <= 0x9F;
    if (lead == 0xF0) return second >= 0x90 && second <= 0xBF;
    if (lead == 0xF4) return second >= 0x80 && second <= 0x8F;
    return cv_is_continuation(second);
}

/* The code point at the start of the n bytes; returns its length, 0 when they begin with none. */
static inline size_t cv_codepoint_read(const char *bytes, size_t n, uint32_t *codepoint)
{
    if (n == 0) return 0;
    const unsigned char *b = (const unsigned char *)bytes;
    const size_t length = cv_utf8_promised(b[0]);
    if (length == 1) {
        *codepoint = b[0];
        return 1;
    }
    if (length == 0 || length > n || !cv_utf8_second_fits(b[0], b[1])) return 0;
    uint32_t c = b[0] & (0xFFu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if (!cv_is_continuation(b[i])) return 0;
        c = c << 6 | (b[i] & 0x3Fu);
    }
    *codepoint = c;
    return length;
}

/* Writes at most 4 bytes to out; returns how many. */
static inline size_t cv_codepoint_write(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0u | c >> 6);
        out[1] = (char)(0x80u | (c & 0x3Fu));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0u | c >> 12);
        out[1] = (char)(0x80u | (c >> 6 & 0x3Fu));
        out[2] = (char)(0x80u | (c & 0x3Fu));
        return 3;
    }
    out[0] = (char)(0xF0u | c >> 18);
    out[1] = (char)(0x80u | (c >> 12 & 0x3Fu));
    out[2] = (char)(0x80u | (c >> 6 & 0x3Fu));
    out[3] = (char)(0x80u | (c & 0x3Fu));
    return 4;
}

#endif
