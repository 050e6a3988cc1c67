/* utf8.c - which bytes are UTF-8, how many of them can be shown, and a repaired copy. */
#include "text/utf8.h"

#include <string.h>

#include "text/codepoint.h"

/* How many of the n bytes, from the start, are ASCII; counts eight at a time. */
static size_t ascii_run(const char *bytes, size_t n)
{
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t word;
        memcpy(&word, bytes + i, sizeof word);
        if (word & 0x8080808080808080u) break;
    }
    while (i < n && (unsigned char)bytes[i] < 0x80)
        i++;
    return i;
}

/* Are the n bytes a beginning, but not the whole, of a well-formed sequence? */
static bool is_cut_short(const unsigned char *bytes, size_t n)
{
    if (cv_utf8_promised(bytes[0]) <= n) return false;
    if (n > 1 && !cv_utf8_second_fits(bytes[0], bytes[1])) return false;
    for (size_t i = 1; i < n; i++)
        if (!cv_is_continuation(bytes[i])) return false;
    return true;
}

size_t cv_utf8_complete(const char *bytes, size_t n)
{
    const size_t longest = n < 3 ? n : 3;
    for (size_t tail = 1; tail <= longest; tail++)
        if (is_cut_short((const unsigned char *)bytes + n - tail, tail)) return n - tail;
    return n;
}

bool cv_utf8_valid(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n;) {
        i += ascii_run(bytes + i, n - i);
        if (i == n) break;
        uint32_t codepoint;
        const size_t length = cv_codepoint_read(bytes + i, n - i, &codepoint);
        if (length == 0) return false;
        i += length;
    }
    return true;
}

size_t cv_utf8_repair(const char *bytes, size_t n, char *out)
{
    size_t written = 0;
    for (size_t i = 0; i < n;) {
        uint32_t codepoint;
        const size_t length = cv_codepoint_read(bytes + i, n - i, &codepoint);
        if (length == 0) {
            written += cv_codepoint_write(CV_REPLACEMENT, out + written);
            i++;
        } else {
            memcpy(out + written, bytes + i, length);
            written += length;
            i += length;
        }
    }
    return written;
}
