/* position.c - positions on a grid of any size from the table of one size; see vision.h.
 *
 * The official code resamples the whole table each time; here a token takes its 16 taps when it is
 * embedded, which costs next to nothing and keeps nothing. [vrwkv.position] */
#include <math.h>

#include "models/vision.h"

/* The cubic that PyTorch interpolates with: A = -3/4, for distances up to 1 and from 1 to 2. */
#define A (-0.75)

static double near(double d)
{
    return ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0;
}

static double far(double d)
{
    return ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A;
}

/* Four neighbours along one axis and their weights. */
typedef struct taps {
    size_t at[4];
    double weight[4];
} taps;

/* Cell d of `out` on a table of `in`. */
static taps taps_of(size_t d, size_t out, size_t in)
{
    const double s = ((double)d + 0.5) * ((double)in / (double)out) - 0.5, below = floor(s);
    const double x = s - below;
    taps t = { .weight = { far(x + 1.0), near(x), near(1.0 - x), far(2.0 - x) } };
    for (size_t i = 0; i < 4; i++) {
        const double at = below - 1.0 + (double)i;
        t.at[i] = at < 0.0 ? 0 : at > (double)(in - 1) ? in - 1 : (size_t)at;
    }
    return t;
}

void cv_position_add(const float *pos, size_t side, size_t C, size_t h, size_t w, size_t row,
                     size_t column, float *y)
{
    if (h == side && w == side) {
        pos += (row * side + column) * C;
        for (size_t c = 0; c < C; c++)
            y[c] += pos[c];
        return;
    }
    const taps down = taps_of(row, h, side), across = taps_of(column, w, side);
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++) {
            const float weight = (float)(down.weight[i] * across.weight[j]);
            const float *from = pos + (down.at[i] * side + across.at[j]) * C;
            for (size_t c = 0; c < C; c++)
                y[c] += weight * from[c];
        }
}

void cv_position_back(float *dpos, size_t side, size_t C, size_t h, size_t w, size_t row,
                      size_t column, size_t lo, size_t hi, const float *dy)
{
    if (h == side && w == side) {
        dpos += (row * side + column) * C;
        for (size_t c = lo; c < hi; c++)
            dpos[c] += dy[c];
        return;
    }
    const taps down = taps_of(row, h, side), across = taps_of(column, w, side);
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++) {
            const float weight = (float)(down.weight[i] * across.weight[j]);
            float *to = dpos + (down.at[i] * side + across.at[j]) * C;
            for (size_t c = lo; c < hi; c++)
                to[c] += weight * dy[c];
        }
}
