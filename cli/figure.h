/* figure.h - small figures: lines in an SVG file, and a spark of a few letters. */
#ifndef CLI_FIGURE_H
#define CLI_FIGURE_H

#include <stddef.h>

typedef struct figure_line {
    double *x, *y;
    size_t n, capacity;
} figure_line;

void figure_add(figure_line *line, double x, double y);
void figure_free(figure_line *line);

/* The last values as `width` blocks of different height. */
void figure_spark(const figure_line *line, size_t width, char *out, size_t size);

/* Writes the lines over one pair of axes; 0, or 6 after a message. */
int figure_write(const char *path, const char *title, const char *x_name, const char *y_name,
                 const figure_line *const *lines, const char *const *names, size_t n);

#endif
