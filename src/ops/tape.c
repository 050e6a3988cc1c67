/* tape.c - recording ops and walking back; see tape.h. */
#include "ops/tape.h"

#include <string.h>

/* What stands before the bytes of a record. */
typedef struct record {
    cv_backward_fn backward;
    size_t before; /* offset of the record before this one; itself: none */
} record;

enum { ROUND = 16 };

static size_t rounded(size_t bytes)
{
    return (bytes + ROUND - 1) / ROUND * ROUND;
}

void *cv_record(const cv_run *run, cv_backward_fn backward, size_t bytes)
{
    cv_tape *tape = run->tape;
    if (!tape) return NULL;
    const size_t at = tape->used, size = rounded(sizeof(record)) + rounded(bytes);
    if (at + size > tape->size) {
        tape->full = true;
        return NULL;
    }
    record *r = (record *)(void *)(tape->records + at);
    *r = (record){ backward, at ? tape->last : at };
    tape->last = at;
    tape->used += size;
    return tape->records + at + rounded(sizeof(record));
}

void cv_walk_back_to(const cv_run *run, size_t mark)
{
    cv_tape *tape = run->tape;
    while (tape->used > mark) {
        const size_t at = tape->last;
        const record *r = (const record *)(const void *)(tape->records + at);
        tape->op++;
        r->backward(run, tape->records + at + rounded(sizeof(record)));
        cv_meet(run);
        tape->used = at;
        tape->last = r->before;
    }
}

void cv_walk_back(const cv_run *run)
{
    cv_walk_back_to(run, 0);
}

static bool is_within(const float *value, const float *block, size_t n)
{
    return n > 0 && value >= block && value < block + n;
}

static size_t gradient_at(const cv_tape *t, size_t value)
{
    if (value >= t->behind) return value - t->behind + t->layers + t->layer;
    if (value < t->layers || t->layer == 0) return value;
    return t->layers + (value - t->layers) % t->layer;
}

/* ---- Who came first -------------------------------------------------------------------------- */

/* Instead of the number of an op. */
enum { NOBODY = 0 };
#define CLEARING UINT32_MAX /* by a member, for all */
#define CLEARED  (UINT32_MAX - 1)

void cv_place(cv_tape *t, size_t at)
{
    const bool again = t->layer > 0 && !(t->behind > 0 && at >= t->behind); /* another layer's */
    if (!t->first_come || again) return;
    if (t->n_places == CV_PLACES) t->full = true;
    if (t->full) return;
    t->begins[t->n_places++] = t->layer > 0 ? gradient_at(t, at) : at;
}

/* The last place that begins at or before a gradient. */
static size_t place_of(const cv_tape *t, size_t at)
{
    size_t lo = 0, hi = t->n_places;
    while (hi - lo > 1) {
        const size_t middle = (lo + hi) / 2;
        if (t->begins[middle] <= at)
            lo = middle;
        else
            hi = middle;
    }
    return lo;
}

static size_t place_end(const cv_tape *t, size_t place)
{
    return place + 1 < t->n_places ? t->begins[place + 1] : t->n_gradients;
}

/* Clears it, unless somebody came before or does so now; then waits. */
static void clear_if_first(const cv_tape *t, size_t place)
{
    _Atomic uint32_t *first = &t->first_come->first[place];
    uint32_t seen = NOBODY;
    if (atomic_compare_exchange_strong(first, &seen, CLEARING)) {
        const size_t begin = t->begins[place];
        memset(t->gradients + begin, 0, (place_end(t, place) - begin) * sizeof *t->gradients);
        atomic_store(first, CLEARED);
    }
    while (seen == CLEARING)
        seen = atomic_load(first);
}

static bool tells_places(const cv_tape *t)
{
    return t->first_come && t->n_places > 0;
}

float *cv_gradient(const cv_run *run, const float *value)
{
    const cv_tape *t = run->tape;
    if (is_within(value, t->weights, t->n_weights))
        return t->weight_gradients + (value - t->weights);
    if (!is_within(value, t->values, t->n_values)) return NULL;
    const size_t at = gradient_at(t, (size_t)(value - t->values));
    if (tells_places(t)) clear_if_first(t, place_of(t, at));
    return t->gradients + at;
}

float *cv_gradient_into(const cv_run *run, const float *value, size_t n, bool *add)
{
    const cv_tape *t = run->tape;
    *add = true;
    if (!tells_places(t) || !is_within(value, t->values, t->n_values))
        return cv_gradient(run, value);
    const size_t at = gradient_at(t, (size_t)(value - t->values)), place = place_of(t, at);
    if (t->begins[place] != at || place_end(t, place) - at != cv_apart(n))
        return cv_gradient(run, value); /* a part of a buffer */
    uint32_t seen = NOBODY;
    if (atomic_compare_exchange_strong(&t->first_come->first[place], &seen, t->op) || seen == t->op)
        *add = false;
    return t->gradients + at;
}

/* Of gradients [begin, end). */
static void forget(const cv_tape *t, size_t begin, size_t end)
{
    for (size_t i = 0; t->first_come && i < t->n_places; i++)
        if (t->begins[i] >= begin && t->begins[i] < end)
            atomic_store(&t->first_come->first[i], NOBODY);
}

void cv_forget_layer(const cv_tape *tape)
{
    forget(tape, tape->layers, tape->layers + tape->layer);
}

void cv_forget_gradients(const cv_tape *tape)
{
    for (size_t i = 0; i < CV_PLACES; i++)
        atomic_store(&tape->first_come->first[i], NOBODY);
}

/* ---- Memory ---------------------------------------------------------------------------------- */

void cv_take_memory(cv_run *run, size_t n)
{
    if (run->tape) cv_take_shared(run, n);
}

float *cv_memory_of(const cv_run *run, float *buffer, size_t width)
{
    return buffer + cv_apart(run->T * width);
}

void cv_own_columns(const cv_run *run, size_t n, size_t *lo, size_t *hi)
{
    cv_share(run->me, (n + CV_PANEL - 1) / CV_PANEL, lo, hi);
    *lo *= CV_PANEL;
    *hi = *hi * CV_PANEL < n ? *hi * CV_PANEL : n;
}
