/* term.h - what goes to the terminal: errors, notes, colour, progress; and the signals it sends.
 *
 * stdout carries the product only; everything here but term_out writes to stderr. */
#ifndef CLI_TERM_H
#define CLI_TERM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "corvid.h"
#include "options.h"

#define EXIT_USAGE 2

/* Names the verb in messages and takes over -q, -v and --color. */
void term_setup(const char *verb, const general_options *general);
bool term_verbose(void);
bool term_quiet(void);

/* Prints "corvid VERB: ..." and returns code, so that a caller can return fail(3, ...). */
int fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with a library error; its status is the code, 130 or 143 when a signal stopped us. */
int fail_with(const corvid_error *err);

void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Said only with -v. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Escape sequences for stdout or stderr, or "" where colour is off. */
typedef enum term_style {
    STYLE_PLAIN,
    STYLE_STRONG,
    STYLE_FAINT,
    STYLE_ERROR,
    STYLE_ANSWER
} term_style;
const char *term_paint(FILE *to, term_style style);

/* Writes to stdout at once; false when that failed (see term_finish). */
bool term_out(const char *bytes, size_t n);

/* Flushes stdout: code, or 6 with a message when something could not be written. */
int term_finish(int code);

/* SIGINT and SIGTERM are noted; a second one ends the program, unless patient.  SIGPIPE ends it
 * without a word. */
void term_catch_signals(void);
void term_be_patient(void);
int term_signal(void); /* the one that arrived, or 0 */
void term_forget_signal(void);
int term_signal_code(void); /* 128 + signal */

/* A corvid_cancel_fn: non-zero once a signal came. */
int term_cancel(void *ctx);
void term_defer_cancel(bool defer); /* while true, term_cancel says no: short work must be whole */

double term_seconds(void); /* a clock for differences */

/* A bar on stderr, only on a terminal and not with -q, drawn from half a second on. */
typedef struct progress {
    const char *label;
    double started, drawn;
    bool on, visible;
    char extra[96]; /* running values, shown behind the bar */
} progress;
void progress_begin(progress *p, const char *label);
void progress_show(void *p, uint64_t done, uint64_t total); /* a corvid_progress_fn */
void progress_end(progress *p);

#endif
