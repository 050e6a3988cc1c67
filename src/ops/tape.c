/* tape.c - recording ops and walking back; see tape.h. */
#include "ops/tape.h"

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

float *cv_gradient(const cv_run *run, const float *value)
{
    const cv_tape *t = run->tape;
    if (is_within(value, t->values, t->n_values))
        return t->gradients + gradient_at(t, (size_t)(value - t->values));
    if (is_within(value, t->weights, t->n_weights))
        return t->weight_gradients + (value - t->weights);
    return NULL;
}

void cv_take_memory(cv_run *run, size_t n)
{
    if (run->tape) cv_take_shared(run, n);
}

float *cv_memory_of(const cv_run *run, float *buffer, size_t width)
{
    return buffer + cv_padded(run->T * width);
}

void cv_own_columns(const cv_run *run, size_t n, size_t *lo, size_t *hi)
{
    cv_share(run->me, (n + CV_PANEL - 1) / CV_PANEL, lo, hi);
    *lo *= CV_PANEL;
    *hi = *hi * CV_PANEL < n ? *hi * CV_PANEL : n;
}
