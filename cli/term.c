/* term.c - messages, colour, progress, signals. */
#include "term.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    const char *verb;
    bool quiet, verbose;
    const char *color;
    bool write_failed;
    int write_errno;
} term = { .color = "auto" };

static volatile sig_atomic_t signal_seen;
static volatile sig_atomic_t patient;
static bool deferring;

void term_setup(const char *verb, const general_options *general)
{
    term.verb = verb;
    if (!general) return;
    term.quiet = general->quiet;
    term.verbose = general->verbose && !general->quiet;
    if (general->color) term.color = general->color;
}

bool term_verbose(void)
{
    return term.verbose;
}

bool term_quiet(void)
{
    return term.quiet;
}

/* ---- Messages -------------------------------------------------------------------------------- */

static bool colored(FILE *to)
{
    if (strcmp(term.color, "always") == 0) return true;
    if (strcmp(term.color, "never") == 0) return false;
    const char *no_color = getenv("NO_COLOR");
    const char *terminal = getenv("TERM");
    if (no_color && *no_color) return false;
    if (!terminal || strcmp(terminal, "dumb") == 0) return false;
    return isatty(fileno(to)) == 1;
}

const char *term_paint(FILE *to, term_style style)
{
    static const char *const codes[] = { "\033[0m", "\033[1m", "\033[2m", "\033[1;31m",
                                         "\033[36m" };
    return colored(to) ? codes[style] : "";
}

static void say(term_style style, const char *kind, const char *format, va_list values)
{
    fflush(stdout);
    fprintf(stderr, "%scorvid%s%s:%s %s", term_paint(stderr, style), term.verb ? " " : "",
            term.verb ? term.verb : "", term_paint(stderr, STYLE_PLAIN), kind);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
}

int fail(int code, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    say(STYLE_ERROR, "", format, values);
    va_end(values);
    return code;
}

int fail_with(const corvid_error *err)
{
    if (err->status == CORVID_E_CANCELLED && term_signal()) {
        if (!term.quiet) fail(0, "interrupted");
        return term_signal_code();
    }
    return fail((int)err->status, "%s", err->text);
}

void warn(const char *format, ...)
{
    if (term.quiet) return;
    va_list values;
    va_start(values, format);
    say(STYLE_STRONG, "warning: ", format, values);
    va_end(values);
}

void note(const char *format, ...)
{
    if (!term.verbose) return;
    va_list values;
    va_start(values, format);
    say(STYLE_FAINT, "", format, values);
    va_end(values);
}

/* ---- Standard output ------------------------------------------------------------------------- */

bool term_out(const char *bytes, size_t n)
{
    bool good = fwrite(bytes, 1, n, stdout) == n && fflush(stdout) == 0;
    if (!good && !term.write_failed) {
        term.write_failed = true;
        term.write_errno = errno;
    }
    return good;
}

int term_finish(int code)
{
    errno = 0;
    bool bad = fflush(stdout) != 0 || ferror(stdout) || term.write_failed;
    if (!bad) return code;
    int why = term.write_failed ? term.write_errno : errno;
    if (why == EPIPE) return 128 + SIGPIPE; /* the reader has had enough */
    return fail(CORVID_E_WRITE, "cannot write to standard output: %s", strerror(why ? why : EIO));
}

/* ---- Signals --------------------------------------------------------------------------------- */

static void on_signal(int number)
{
    if (signal_seen && !patient) {
        signal(number, SIG_DFL);
        raise(number);
    }
    signal_seen = number;
}

void term_catch_signals(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal; /* no SA_RESTART: a read from the keyboard must come back */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_DFL);
}

void term_be_patient(void)
{
    patient = 1;
}

int term_signal(void)
{
    return signal_seen;
}

void term_forget_signal(void)
{
    signal_seen = 0;
}

int term_signal_code(void)
{
    return 128 + signal_seen;
}

int term_cancel(void *ctx)
{
    (void)ctx;
    return signal_seen != 0 && !deferring;
}

void term_defer_cancel(bool defer)
{
    deferring = defer;
}

/* ---- Progress -------------------------------------------------------------------------------- */

double term_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void progress_begin(progress *p, const char *label)
{
    *p = (progress){ .label = label, .started = term_seconds() };
    p->on = !term.quiet && isatty(STDERR_FILENO) == 1;
}

void progress_show(void *ctx, uint64_t done, uint64_t total)
{
    enum { WIDTH = 30 };
    progress *p = ctx;
    if (!p || !p->on || total == 0) return;
    double now = term_seconds();
    if (now - p->started < 0.5 || now - p->drawn < 0.1) return;
    if (done > total) done = total;
    double share = (double)done / (double)total;
    char bar[WIDTH + 1];
    for (int i = 0; i < WIDTH; i++)
        bar[i] = (double)i < share * WIDTH ? '#' : '.';
    bar[WIDTH] = 0;
    double left = done ? (now - p->started) * (1 / share - 1) : 0;
    fprintf(stderr, "\r%s [%s] %3.0f%%  %.0f s left%s%s\033[K", p->label, bar, 100 * share, left,
            p->extra[0] ? "  " : "", p->extra);
    fflush(stderr);
    p->drawn = now;
    p->visible = true;
}

void progress_end(progress *p)
{
    if (p->visible) fputs("\r\033[K", stderr);
    p->visible = p->on = false;
}
