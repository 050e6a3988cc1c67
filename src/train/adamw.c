/* adamw.c - the norm of the gradients and one pass over the weights; see adamw.h.
 *
 * A step is bound by memory: each number is read and written once, in f32, and what is the same for
 * a whole tensor is computed once, in double. */
#include "train/adamw.h"

#include <math.h>

#include "base/wide.h"

/* ---- Pieces ---------------------------------------------------------------------------------- */

/* Elements [first, first + n) of a tensor: piece `index` of all. */
typedef struct piece {
    size_t tensor, first, n;
    size_t index, end; /* this member's pieces are those before end */
} piece;

static size_t chunks_of(const cv_adam_tensor *t)
{
    return t->n / CV_ADAM_CHUNK + (t->n % CV_ADAM_CHUNK != 0);
}

size_t cv_adam_chunks(const cv_adam_tensor *tensors, size_t n_tensors)
{
    size_t chunks = 0;
    for (size_t i = 0; i < n_tensors; i++)
        chunks += chunks_of(&tensors[i]);
    return chunks;
}

/* Piece `index`; there is one. */
static piece piece_at(const cv_adam_tensor *tensors, size_t index)
{
    piece p = { .index = index };
    while (index >= chunks_of(&tensors[p.tensor]))
        index -= chunks_of(&tensors[p.tensor++]);
    p.first = index * CV_ADAM_CHUNK;
    return p;
}

static piece piece_begin(const cv_member *me, const cv_adam_tensor *tensors, size_t n_tensors)
{
    size_t lo, hi;
    cv_share(me, cv_adam_chunks(tensors, n_tensors), &lo, &hi);
    piece p = { .index = lo };
    if (lo < hi) p = piece_at(tensors, lo);
    p.end = hi;
    return p;
}

/* Walks:  for (piece p = piece_begin(...); piece_here(tensors, &p); piece_pass(&p)) */
static bool piece_here(const cv_adam_tensor *tensors, piece *p)
{
    if (p->index >= p->end) return false;
    while (p->first >= tensors[p->tensor].n) {
        p->tensor++;
        p->first = 0;
    }
    p->n = tensors[p->tensor].n - p->first;
    if (p->n > CV_ADAM_CHUNK) p->n = CV_ADAM_CHUNK;
    return true;
}

static void piece_pass(piece *p)
{
    p->first += p->n;
    p->index++;
}

/* ---- The norm -------------------------------------------------------------------------------- */

/* Sums side by side: the order is fixed, and the processor need not wait for each addition. */
CV_WIDE
static double sum_of_squares(const float *g, size_t n)
{
    double s[CV_LANES] = { 0.0 };
    size_t i = 0;
    for (; i + CV_LANES <= n; i += CV_LANES)
        for (size_t j = 0; j < CV_LANES; j++)
            s[j] += (double)g[i + j] * (double)g[i + j];
    for (; i < n; i++)
        s[0] += (double)g[i] * (double)g[i];
    return cv_lanes_sum(s);
}

/* The squares of floats do not overflow in double, so a sum that is not finite has a number in it
 * that is not. */
static void find_first(const cv_adam_tensor *tensors, const double *sums, cv_gradient_report *r)
{
    size_t index = 0;
    while (isfinite(sums[index]))
        index++;
    const piece p = piece_at(tensors, index);
    const cv_adam_tensor *t = &tensors[p.tensor];
    r->tensor = p.tensor;
    for (r->element = p.first; r->element + 1 < t->n && isfinite(t->gradient[r->element]);)
        r->element++;
}

cv_gradient_report cv_gradient_measure(const cv_member *me, const cv_adam_settings *settings,
                                       const cv_adam_tensor *tensors, size_t n_tensors,
                                       double *sums)
{
    for (piece p = piece_begin(me, tensors, n_tensors); piece_here(tensors, &p); piece_pass(&p))
        sums[p.index] = sum_of_squares(tensors[p.tensor].gradient + p.first, p.n);
    cv_barrier(me);

    const size_t chunks = cv_adam_chunks(tensors, n_tensors);
    double sum = 0.0;
    for (size_t i = 0; i < chunks; i++)
        sum += sums[i];
    cv_gradient_report r = { .norm = sqrt(sum), .factor = 1.0, .tensor = CV_ALL_FINITE };
    if (!isfinite(sum))
        find_first(tensors, sums, &r);
    else if (settings->clip > 0.0)
        r.factor = fmin(1.0, settings->clip / (r.norm + 1e-6));
    return r;
}

/* ---- The step -------------------------------------------------------------------------------- */

/* What is the same for all numbers of a tensor. */
typedef struct scalars {
    float factor;
    float keep_m, take_m, keep_v, take_v;
    float rate; /* lr / (1 - beta1^k) */
    float root; /* 1 / sqrt(1 - beta2^k) */
    float eps;
    float decay; /* lr weight_decay, or 0 */
    float take_average;
} scalars;

static scalars scalars_of(const cv_adam_settings *s, const cv_adam_tensor *t, uint64_t k, double lr,
                          double factor)
{
    const double rate = lr * t->lr_scale;
    return (scalars){
        .factor = (float)factor,
        .keep_m = (float)s->beta1,
        .take_m = (float)(1.0 - s->beta1),
        .keep_v = (float)s->beta2,
        .take_v = (float)(1.0 - s->beta2),
        .rate = (float)(rate / (1.0 - pow(s->beta1, (double)k))),
        .root = (float)(1.0 / sqrt(1.0 - pow(s->beta2, (double)k))),
        .eps = (float)s->eps,
        .decay = t->decays ? (float)(rate * s->weight_decay) : 0.0f,
        .take_average = (float)(1.0 - s->average),
    };
}

/* p (1 - decay) - step is taken as p - (decay p + step), which rounds p once: 1 - decay may be 1 in
 * single precision, and the decay would be lost for good.  [train.adamw] */
CV_WIDE
static void update(const cv_adam_tensor *t, const scalars *s, size_t first, size_t n)
{
    const float *restrict gradient = t->gradient + first;
    float *restrict p = t->value + first, *restrict m = t->m + first, *restrict v = t->v + first;
    for (size_t i = 0; i < n; i++) {
        const float g = gradient[i] * s->factor;
        m[i] = s->keep_m * m[i] + s->take_m * g;
        v[i] = s->keep_v * v[i] + s->take_v * g * g;
        p[i] -= s->decay * p[i] + s->rate * m[i] / (sqrtf(v[i]) * s->root + s->eps);
    }
    if (!t->average) return;
    float *restrict average = t->average + first;
    for (size_t i = 0; i < n; i++)
        average[i] += s->take_average * (p[i] - average[i]);
}

void cv_adam_step(const cv_member *me, const cv_adam_settings *settings,
                  const cv_adam_tensor *tensors, size_t n_tensors, uint64_t k, double lr,
                  double factor)
{
    scalars s = { 0 };
    size_t of = SIZE_MAX; /* the tensor that s is for */
    for (piece p = piece_begin(me, tensors, n_tensors); piece_here(tensors, &p); piece_pass(&p)) {
        const cv_adam_tensor *t = &tensors[p.tensor];
        if (p.tensor != of) s = scalars_of(settings, t, k, lr, factor);
        of = p.tensor;
        update(t, &s, p.first, p.n);
    }
}
