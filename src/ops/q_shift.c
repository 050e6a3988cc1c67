/* q_shift.c - token shift on a grid; see q_shift.h. */
#include <string.h>

#include "ops/q_shift.h"

cv_q_shift cv_q_shift_whole(size_t C, double share, size_t distance)
{
    cv_q_shift shift = { .head = C, .distance = distance };
    for (size_t i = 0; i < 5; i++) /* cut off, as the official code does */
        shift.border[i] = (size_t)((double)C * share * (double)i);
    return shift;
}

cv_q_shift cv_q_shift_heads(size_t N, size_t distance)
{
    cv_q_shift shift = { .head = N, .distance = distance };
    for (size_t i = 0; i < 5; i++)
        shift.border[i] = N / 4 * i;
    return shift;
}

/* A token's place: its picture, row and column; it walks from one to the next. */
typedef struct place {
    const cv_grid *grid;
    size_t t; /* row of the run */
} place;

static place place_of(const cv_run *run, size_t t)
{
    place at = { run->grids, t };
    while (t >= at.grid->begin + at.grid->n)
        at.grid++;
    return at;
}

/* The rows that the four quarters come from; NULL: outside. */
typedef struct neighbours {
    const float *from[4];
} neighbours;

static neighbours look_around(const place *at, size_t C, size_t distance, const float *z)
{
    const cv_grid *g = at->grid;
    const size_t t = at->t - g->begin, row = t / g->w, column = t % g->w, s = distance;
    const float *here = z + at->t * C;
    return (neighbours){ {
        column >= s ? here - s * C : NULL,
        column + s < g->w ? here + s * C : NULL,
        row >= s ? here - s * g->w * C : NULL,
        row + s < g->h ? here + s * g->w * C : NULL,
    } };
}

static void shift_row(const cv_q_shift *q, size_t C, const neighbours *around, const float *here,
                      float *out)
{
    for (size_t c = 0; c < C; c += q->head) {
        for (size_t i = 0; i < 4; i++) {
            const size_t begin = c + q->border[i], n = q->border[i + 1] - q->border[i];
            if (around->from[i])
                memcpy(out + begin, around->from[i] + begin, n * sizeof *out);
            else
                memset(out + begin, 0, n * sizeof *out);
        }
        const size_t rest = q->head - q->border[4];
        memcpy(out + c + q->border[4], here + c + q->border[4], rest * sizeof *out);
    }
}

void cv_q_shift_rows(const cv_tile *tile, size_t C, const cv_q_shift *shift, const float *z,
                     float *out)
{
    place at = place_of(&tile->run, tile->first);
    for (size_t i = 0; i < tile->run.T; i++, at.t++, out += C) {
        while (at.t >= at.grid->begin + at.grid->n)
            at.grid++;
        const float *here = z + at.t * C;
        if (at.t - at.grid->begin >= at.grid->h * at.grid->w) { /* the class token */
            memcpy(out, here, C * sizeof *out);
            continue;
        }
        const neighbours around = look_around(&at, C, shift->distance, z);
        shift_row(shift, C, &around, here, out);
    }
}

void cv_q_mix(const cv_tile *tile, size_t C, const float *z, const float *shifted,
              const cv_mix *mixes, size_t n_mixes)
{
    const float *here = z + tile->first * C;
    for (size_t i = 0; i < tile->run.T; i++)
        for (size_t m = 0; m < n_mixes; m++) {
            float *y = mixes[m].y + i * C;
            if (mixes[m].mu)
                tile->run.kernel->lerp(C, here + i * C, shifted + i * C, mixes[m].mu, y);
            else
                memcpy(y, here + i * C, C * sizeof *y);
        }
}
