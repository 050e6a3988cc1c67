/* chatline.h - one message of a conversation: with editing and history at a terminal, as plain
 * lines from a pipe. */
#ifndef CLI_CHATLINE_H
#define CLI_CHATLINE_H

#include <stdbool.h>

typedef struct chat_line chat_line;

chat_line *chat_line_open(bool lively);
void chat_line_close(chat_line *line);

/* The next message without its final newline, to be freed; a backslash at the end of a line goes on
 * in the next.  NULL at the end of input, when a person leaves with Ctrl-C twice, or by a signal:
 * *code is then 130 or 143. */
char *chat_line_read(chat_line *line, int *code);

#endif
