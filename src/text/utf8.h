/* utf8.h - small questions about UTF-8. */
#ifndef CV_UTF8_H
#define CV_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* How many of the n bytes can be shown now: all but a trailing incomplete sequence (at most 3
 * bytes).  Invalid bytes count as complete. */
size_t cv_utf8_complete(const char *bytes, size_t n);

bool cv_utf8_valid(const char *bytes, size_t n);

/* Copies n bytes to out (room for 3 n), each invalid byte replaced by U+FFFD; returns the length. */
size_t cv_utf8_repair(const char *bytes, size_t n, char *out);

#endif
