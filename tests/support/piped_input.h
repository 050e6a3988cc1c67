/* piped_input.h - standard input for tests of what reads it: a pipe that is filled bit by bit. */
#ifndef TEST_PIPED_INPUT_H
#define TEST_PIPED_INPUT_H

#include "support.h"

#include <sys/wait.h>
#include <unistd.h>

/* Standard input is these bytes, which another process writes in odd parts.  For end_input. */
static inline pid_t begin_input(const char *text, size_t n)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t writer = fork();
    assert_true(writer >= 0);
    if (writer == 0) {
        close(ends[0]);
        for (size_t at = 0; at < n;) {
            const size_t part = n - at < 7001 ? n - at : 7001;
            const ssize_t done = write(ends[1], text + at, part);
            if (done <= 0) break; /* nobody wants it */
            at += (size_t)done;
        }
        _exit(0);
    }
    close(ends[1]);
    assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    close(ends[0]);
    return writer;
}

/* How many bytes of it nobody has read. */
static inline size_t end_input(pid_t writer)
{
    char bytes[4096];
    size_t left = 0;
    for (ssize_t n; (n = read(STDIN_FILENO, bytes, sizeof bytes)) > 0;)
        left += (size_t)n;
    assert_int_equal(waitpid(writer, NULL, 0), writer);
    return left;
}

#endif
