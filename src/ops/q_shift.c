/* q_shift.c - token shift on a grid, and back; see q_shift.h. */
#include <string.h>

#include "base/wide.h"
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

/* ---- Neighbours ------------------------------------------------------------------------------ */

/* A token's place: its picture and its row of the run; it walks from one to the next. */
typedef struct place {
    const cv_grid *grid;
    size_t t; /* row of the run */
} place;

/* Its picture, which is that of the token before or one behind it. */
static void enter(place *at)
{
    while (at->t >= at->grid->begin + at->grid->n)
        at->grid++;
}

static bool is_class_token(const place *at)
{
    return at->t - at->grid->begin >= at->grid->h * at->grid->w;
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

/* ---- Shift ----------------------------------------------------------------------------------- */

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

typedef struct shift_record {
    size_t C;
    cv_q_shift shift;
    const float *z;
    float *out;
} shift_record;

CV_WIDE
static void add(size_t n, const float *restrict d, float *restrict dz)
{
    for (size_t i = 0; i < n; i++)
        dz[i] += d[i];
}

/* Whoever takes a quarter of its left neighbour is the right neighbour of that one: dz is from the
 * opposite sides.  around, here: gradients of what was shifted. */
static void shift_row_back(const cv_q_shift *q, size_t C, const neighbours *around,
                           const float *here, float *dz)
{
    for (size_t c = 0; c < C; c += q->head) {
        for (size_t i = 0; i < 4; i++) {
            const size_t begin = c + q->border[i], n = q->border[i + 1] - q->border[i];
            const float *opposite = around->from[i ^ 1];
            if (opposite) add(n, opposite + begin, dz + begin);
        }
        const size_t rest = c + q->border[4];
        add(c + q->head - rest, here + rest, dz + rest);
    }
}

static void shift_back(const cv_run *run, const void *record)
{
    const shift_record *r = record;
    const float *g = cv_gradient(run, r->out);
    float *dz = cv_gradient(run, r->z);
    for (place at = { run->grids, run->lo }; at.t < run->hi; at.t++) {
        enter(&at);
        const float *here = g + at.t * r->C;
        if (is_class_token(&at)) {
            add(r->C, here, dz + at.t * r->C);
            continue;
        }
        const neighbours around = look_around(&at, r->C, r->shift.distance, g);
        shift_row_back(&r->shift, r->C, &around, here, dz + at.t * r->C);
    }
}

void cv_q_shift_rows(const cv_tile *tile, size_t C, const cv_q_shift *shift, const float *z,
                     float *out)
{
    const cv_run *run = &tile->run;
    shift_record *r = cv_record(run, shift_back, sizeof *r);
    if (r) *r = (shift_record){ C, *shift, z, out };
    place at = { run->grids, tile->first + run->lo };
    for (size_t i = run->lo; i < run->hi; i++, at.t++) {
        enter(&at);
        const float *here = z + at.t * C;
        if (is_class_token(&at)) {
            memcpy(out + i * C, here, C * sizeof *out);
            continue;
        }
        const neighbours around = look_around(&at, C, shift->distance, z);
        shift_row(shift, C, &around, here, out + i * C);
    }
}

/* ---- Mix ------------------------------------------------------------------------------------- */

typedef struct mix_record {
    size_t C;
    const float *z, *shifted;
    cv_mix mix; /* y alone: z itself */
} mix_record;

/* Row t:  dz = g (1 - mu);  dshifted = g mu. */
CV_WIDE
static void mix_row_back(size_t C, const float *restrict g, const float *restrict mu, bool add_z,
                         bool add_shifted, float *restrict dz, float *restrict dshifted)
{
    for (size_t c = 0; c < C; c++)
        cv_give(add_z, g[c] * (1.0f - mu[c]), &dz[c]);
    for (size_t c = 0; c < C; c++)
        cv_give(add_shifted, g[c] * mu[c], &dshifted[c]);
}

CV_WIDE
static void mix_mu_back(size_t n, const float *restrict g, const float *restrict shifted,
                        const float *restrict z, float *restrict dmu)
{
    for (size_t c = 0; c < n; c++)
        dmu[c] += g[c] * (shifted[c] - z[c]);
}

/* And dmu = sum g (shifted - z), for this member's channels. */
static void mix_back(const cv_run *run, const void *record)
{
    const mix_record *r = record;
    const size_t C = r->C;
    const float *g = cv_gradient(run, r->mix.y), *mu = r->mix.mu;
    float *dmu = mu ? cv_gradient(run, mu) : NULL;
    bool add_z, add_shifted = true;
    float *dz = cv_gradient_into(run, r->z, run->T * C, &add_z);
    float *dshifted = mu ? cv_gradient_into(run, r->shifted, run->T * C, &add_shifted) : NULL;
    for (size_t t = run->lo; t < run->hi; t++)
        if (mu)
            mix_row_back(C, g + t * C, mu, add_z, add_shifted, dz + t * C, dshifted + t * C);
        else if (add_z)
            add(C, g + t * C, dz + t * C);
        else
            memcpy(dz + t * C, g + t * C, C * sizeof *dz);
    size_t lo, hi;
    cv_own_columns(run, C, &lo, &hi);
    for (size_t at = lo; dmu && at < run->T * C; at += C)
        mix_mu_back(hi - lo, g + at, r->shifted + at, r->z + at, dmu + lo);
}

void cv_q_mix(const cv_tile *tile, size_t C, const float *z, const float *shifted,
              const cv_mix *mixes, size_t n_mixes)
{
    const cv_run *run = &tile->run;
    const float *here = z + tile->first * C;
    for (size_t m = 0; m < n_mixes; m++) {
        mix_record *r = cv_record(run, mix_back, sizeof *r);
        if (r) *r = (mix_record){ C, z, shifted, mixes[m] };
    }
    for (size_t i = run->lo; i < run->hi; i++)
        for (size_t m = 0; m < n_mixes; m++) {
            float *y = mixes[m].y + i * C;
            if (mixes[m].mu)
                run->kernel->lerp(C, here + i * C, shifted + i * C, mixes[m].mu, y);
            else
                memcpy(y, here + i * C, C * sizeof *y);
        }
}

/* ---- Difference ------------------------------------------------------------------------------ */

typedef struct delta_record {
    size_t C;
    const float *z, *shifted;
    float *delta;
} delta_record;

CV_WIDE
static void delta_row_back(size_t n, const float *restrict g, float *restrict dz,
                           float *restrict dshifted)
{
    for (size_t i = 0; i < n; i++) {
        dz[i] -= g[i];
        dshifted[i] += g[i];
    }
}

static void delta_back(const cv_run *run, const void *record)
{
    const delta_record *r = record;
    const float *g = cv_gradient(run, r->delta);
    float *dz = cv_gradient(run, r->z), *dshifted = cv_gradient(run, r->shifted);
    const size_t at = run->lo * r->C;
    delta_row_back((run->hi - run->lo) * r->C, g + at, dz + at, dshifted + at);
}

void cv_q_delta(const cv_tile *tile, size_t C, const float *z, const float *shifted, float *delta)
{
    const cv_run *run = &tile->run;
    const float *here = z + tile->first * C;
    delta_record *r = cv_record(run, delta_back, sizeof *r);
    if (r) *r = (delta_record){ C, z, shifted, delta };
    for (size_t i = run->lo * C; i < run->hi * C; i++)
        delta[i] = shifted[i] - here[i];
}
