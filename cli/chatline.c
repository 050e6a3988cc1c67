/* chatline.c - reads messages through libedit, or from a pipe without it. */
#include "chatline.h"

#include <errno.h>
#include <histedit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "term.h"
#include "textio.h"

struct chat_line {
    EditLine *editor; /* NULL on a pipe */
    History *history;
    char *history_path;
    char *raw; /* getline's */
    size_t raw_capacity;
    bool going_on; /* inside a message of several lines: another prompt */
};

static char *prompt(EditLine *editor)
{
    static char first[] = "> ", next[] = "  ";
    chat_line *line = NULL;
    el_get(editor, EL_CLIENTDATA, &line);
    return line && line->going_on ? next : first;
}

/* The file of typed lines; its folders are made when they are missing. */
static char *open_history(History *typed)
{
    char *path = cli_user_path("XDG_STATE_HOME", ".local/state", "history");
    for (char *slash = path ? strchr(path + 1, '/') : NULL; slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
    HistEvent event;
    history(typed, &event, H_SETSIZE, 1000);
    if (path) history(typed, &event, H_LOAD, path);
    return path;
}

chat_line *chat_line_open(bool lively)
{
    chat_line *line = cli_array(1, sizeof *line);
    if (!lively) return line;
    line->editor = el_init("corvid", stdin, stdout, stderr);
    line->history = history_init();
    if (!line->editor || !line->history) return line;
    line->history_path = open_history(line->history);
    el_set(line->editor, EL_CLIENTDATA, line);
    el_set(line->editor, EL_PROMPT, prompt);
    el_set(line->editor, EL_HIST, history, line->history);
    el_set(line->editor, EL_EDITOR, "emacs");
    el_source(line->editor, NULL);
    return line;
}

void chat_line_close(chat_line *line)
{
    HistEvent event;
    if (line->history && line->history_path)
        history(line->history, &event, H_SAVE, line->history_path);
    if (line->history) history_end(line->history);
    if (line->editor) el_end(line->editor);
    free(line->history_path);
    free(line->raw);
    free(line);
}

/* One line with its newline, or NULL. */
static const char *read_line(chat_line *line, size_t *n)
{
    errno = 0;
    if (!line->editor) {
        ssize_t got = getline(&line->raw, &line->raw_capacity, stdin);
        *n = got > 0 ? (size_t)got : 0;
        return got > 0 ? line->raw : NULL;
    }
    int got = 0;
    const char *text = el_gets(line->editor, &got);
    *n = got > 0 ? (size_t)got : 0;
    return got > 0 ? text : NULL;
}

/* A line that ended by a signal: true to ask again. */
static bool interrupted(const chat_line *line, bool *warned, int *code)
{
    if (term_signal() != SIGINT || !line->editor) {
        *code = term_signal_code();
        return false;
    }
    term_forget_signal();
    fputc('\n', stdout);
    if (*warned) return false;
    *warned = true;
    fputs("(Ctrl-C again, Ctrl-D or /exit leaves)\n", stdout);
    return true;
}

char *chat_line_read(chat_line *line, int *code)
{
    buffer message = { 0 };
    bool warned = false;
    line->going_on = false;
    for (;;) {
        size_t n;
        const char *text = read_line(line, &n);
        if (!text && term_signal()) {
            buffer_free(&message);
            line->going_on = false;
            if (interrupted(line, &warned, code)) continue;
            return NULL;
        }
        if (!text) return message.bytes; /* the end of input also ends an open message */
        while (n && (text[n - 1] == '\n' || text[n - 1] == '\r'))
            n--;
        line->going_on = n && text[n - 1] == '\\';
        buffer_add(&message, text, line->going_on ? n - 1 : n);
        if (!line->going_on) break;
        buffer_text(&message, "\n");
    }
    HistEvent event;
    if (line->history && message.n) history(line->history, &event, H_ENTER, message.bytes);
    return message.bytes;
}
