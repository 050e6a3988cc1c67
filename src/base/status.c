/* status.c - fills corvid_error; the only place that formats its text.
 *
 * Text that does not fit is cut at a character's border, so it stays valid UTF-8. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Drops a UTF-8 sequence that the end of the buffer cut in two. */
static void trim_cut_character(char *text, size_t n)
{
    size_t start = n;
    while (start > 0 && n - start < 3 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0) return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t wanted = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (wanted > 1 && n - start + 1 < wanted) text[start - 1] = '\0';
}

corvid_status cv_fail(corvid_error *err, corvid_status status, const char *format, ...)
{
    if (!err) return status;
    /* Formatted beside err, because an argument may point into err->text. */
    char text[CORVID_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0) text[0] = '\0';
    if (n >= (int)sizeof text) trim_cut_character(text, sizeof text - 1);
    err->status = status;
    memcpy(err->text, text, sizeof text);
    return status;
}

void cv_error_prefix(corvid_error *err, const char *where)
{
    if (!err || !where || !where[0]) return;
    cv_fail(err, err->status, "%s: %.*s", where, CORVID_ERROR_TEXT, err->text);
}
