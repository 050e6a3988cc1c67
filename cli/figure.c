/* figure.c - small figures; see figure.h. */
#include "figure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "term.h"
#include "textio.h"

enum { WIDTH = 720, HEIGHT = 400, LEFT = 70, RIGHT = 110, TOP = 40, BOTTOM = 50, POINTS = 600 };

void figure_add(figure_line *line, double x, double y)
{
    if (!isfinite(y)) return;
    if (line->n == line->capacity) {
        line->capacity = line->capacity ? 2 * line->capacity : 1024;
        double *both = cli_array(2 * line->capacity, sizeof *both);
        if (line->n) {
            memcpy(both, line->x, line->n * sizeof *both);
            memcpy(both + line->capacity, line->y, line->n * sizeof *both);
        }
        free(line->x);
        line->x = both;
        line->y = both + line->capacity;
    }
    line->x[line->n] = x;
    line->y[line->n++] = y;
}

void figure_free(figure_line *line)
{
    free(line->x);
    *line = (figure_line){ 0 };
}

/* The mean of the part-th of `parts` equal parts of a line. */
static double part_mean(const figure_line *line, size_t part, size_t parts)
{
    const size_t lo = line->n * part / parts, hi = line->n * (part + 1) / parts;
    double sum = 0;
    for (size_t i = lo; i < hi; i++)
        sum += line->y[i];
    return sum / (double)(hi - lo);
}

void figure_spark(const figure_line *line, size_t width, char *out, size_t size)
{
    static const char *const blocks[] = { "\xe2\x96\x81", "\xe2\x96\x82", "\xe2\x96\x83",
                                          "\xe2\x96\x84", "\xe2\x96\x85", "\xe2\x96\x86",
                                          "\xe2\x96\x87", "\xe2\x96\x88" };
    out[0] = 0;
    if (width > size / 3) width = size / 3 - 1;
    if (line->n < width) return;
    double low = HUGE_VAL, high = -HUGE_VAL;
    for (size_t i = 0; i < width; i++) {
        low = fmin(low, part_mean(line, i, width));
        high = fmax(high, part_mean(line, i, width));
    }
    for (size_t i = 0; i < width && high > low; i++) {
        const double share = (part_mean(line, i, width) - low) / (high - low);
        strcat(out, blocks[(size_t)(share * 7.0 + 0.5)]);
    }
}

typedef struct axes {
    double x0, x1, y0, y1;
} axes;

static double place_x(const axes *a, double x)
{
    return LEFT + (x - a->x0) / (a->x1 - a->x0) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const axes *a, double y)
{
    return TOP + (a->y1 - y) / (a->y1 - a->y0) * (HEIGHT - TOP - BOTTOM);
}

static axes axes_of(const figure_line *const *lines, size_t n)
{
    axes a = { HUGE_VAL, -HUGE_VAL, HUGE_VAL, -HUGE_VAL };
    for (size_t l = 0; l < n; l++)
        for (size_t i = 0; i < lines[l]->n; i++) {
            a.x0 = fmin(a.x0, lines[l]->x[i]);
            a.x1 = fmax(a.x1, lines[l]->x[i]);
            a.y0 = fmin(a.y0, lines[l]->y[i]);
            a.y1 = fmax(a.y1, lines[l]->y[i]);
        }
    if (!(a.x1 > a.x0)) a.x1 = a.x0 + 1;
    if (!(a.y1 > a.y0)) a.y1 = a.y0 + 1;
    return a;
}

static void draw_axes(FILE *to, const axes *a, const char *x_name, const char *y_name)
{
    enum { TICKS = 5 };
    for (int i = 0; i <= TICKS; i++) {
        const double x = a->x0 + (a->x1 - a->x0) * i / TICKS;
        const double y = a->y0 + (a->y1 - a->y0) * i / TICKS;
        fprintf(to,
                "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='#ddd'/>"
                "<text x='%d' y='%.1f' text-anchor='end'>%.3g</text>"
                "<text x='%.1f' y='%d' text-anchor='middle'>%.0f</text>\n",
                LEFT, WIDTH - RIGHT, place_y(a, y), place_y(a, y), LEFT - 8, place_y(a, y) + 4, y,
                place_x(a, x), HEIGHT - BOTTOM + 18, x);
    }
    fprintf(to,
            "<text x='%d' y='%d' text-anchor='middle'>%s</text>"
            "<text x='16' y='%d' text-anchor='middle' transform='rotate(-90 16 %d)'>%s</text>\n",
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_name, HEIGHT / 2, HEIGHT / 2, y_name);
}

/* At most POINTS points: means of equal parts, so that a long run stays a small file. */
static void draw_line(FILE *to, const axes *a, const figure_line *line, const char *name,
                      const char *colour)
{
    const size_t parts = line->n < POINTS ? line->n : POINTS;
    if (parts == 0) return;
    fprintf(to, "<polyline fill='none' stroke='%s' stroke-width='1.5' points='", colour);
    for (size_t i = 0; i < parts; i++)
        fprintf(to, "%.1f,%.1f ", place_x(a, line->x[line->n * (i + 1) / parts - 1]),
                place_y(a, part_mean(line, i, parts)));
    fprintf(to, "'/><text x='%d' y='%.1f' fill='%s'>%s</text>\n", WIDTH - RIGHT + 6,
            place_y(a, part_mean(line, parts - 1, parts)) + 4, colour, name);
}

int figure_write(const char *path, const char *title, const char *x_name, const char *y_name,
                 const figure_line *const *lines, const char *const *names, size_t n)
{
    static const char *const colours[] = { "#3366aa", "#cc5500", "#228833", "#aa3377" };
    const axes a = axes_of(lines, n);
    new_file file;
    const int code = new_file_open(&file, path);
    if (code) return code;
    fprintf(file.file,
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' font-family='sans-serif' "
            "font-size='12'>\n<rect width='100%%' height='100%%' fill='white'/>"
            "<text x='%d' y='24' font-size='15'>%s</text>\n",
            WIDTH, HEIGHT, LEFT, title);
    draw_axes(file.file, &a, x_name, y_name);
    for (size_t i = 0; i < n; i++)
        draw_line(file.file, &a, lines[i], names[i], colours[i % 4]);
    fputs("</svg>\n", file.file);
    return new_file_keep(&file);
}
