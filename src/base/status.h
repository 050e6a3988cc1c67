/* status.h - how the library says that something went wrong.
 *
 * Functions that can fail return corvid_status and take a corvid_error * (may be NULL).
 * The text says what, where, what was expected and what to do next. */
#ifndef CV_STATUS_H
#define CV_STATUS_H

#include "corvid_base.h"

/* Fills err and returns status, so that a function can `return cv_fail(err, ...)`. */
corvid_status cv_fail(corvid_error *err, corvid_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "where: " in front of the text that err already holds (a file's path, a tensor's name). */
void cv_error_prefix(corvid_error *err, const char *where);

/* Evaluates a call that returns corvid_status; on failure returns the status from this function. */
#define CV_TRY(call)                                          \
    do {                                                      \
        corvid_status cv_try_status = (call);                 \
        if (cv_try_status != CORVID_OK) return cv_try_status; \
    } while (0)

#endif
