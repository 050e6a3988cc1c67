/* feed.c - streams, and feeding them through an engine; see engine.h. */
#include <string.h>

#include "engine/engine.h"
#include "ops/count.h"
#include "ops/logit_row.h"

/* ---- Streams --------------------------------------------------------------------------------- */

corvid_status cv_stream_init(cv_engine *engine, cv_stream *out, corvid_error *err)
{
    *out = (cv_stream){ .engine = engine };
    CV_TRY(cv_alloc_or_fail(engine->mem, cv_state_size(&engine->model), sizeof(float), "a state",
                            (void **)&out->state, err));
    cv_stream_reset(out);
    return CORVID_OK;
}

void cv_stream_free(cv_stream *stream)
{
    cv_free(stream->engine->mem, stream->state);
    stream->state = NULL;
}

void cv_stream_reset(cv_stream *stream)
{
    cv_state_start(&stream->engine->model, stream->state);
    stream->position = 0;
}

/* Channels of a shift vector. */
static size_t shift_of(const cv_model *m)
{
    return m->arch->no_shift ? 0 : m->sizes.C;
}

/* Per layer: shift of the channel mix, shift of the time mix, memory.  Ours has the shifts the
 * other way round. [state.order] */
void cv_state_export(const cv_stream *stream, float *out)
{
    const cv_model *m = &stream->engine->model;
    const size_t C = shift_of(m), size = m->arch->state_size(&m->sizes);
    for (size_t l = 0; l < m->sizes.L; l++, out += size) {
        const float *s = stream->state + l * size;
        memcpy(out, s + C, C * sizeof *s);
        memcpy(out + C, s, C * sizeof *s);
        m->arch->state_export(&m->sizes, s + 2 * C, out + 2 * C);
    }
}

void cv_state_import(cv_stream *stream, const float *values)
{
    const cv_model *m = &stream->engine->model;
    const size_t C = shift_of(m), size = m->arch->state_size(&m->sizes);
    for (size_t l = 0; l < m->sizes.L; l++, values += size) {
        float *s = stream->state + l * size;
        memcpy(s + C, values, C * sizeof *s);
        memcpy(s, values + C, C * sizeof *s);
        m->arch->state_import(&m->sizes, values + 2 * C, s + 2 * C);
    }
}

/* ---- Feeding --------------------------------------------------------------------------------- */

typedef struct pass {
    cv_engine *engine;
    cv_step step;
} pass;

/* One member's part of a pass. */
static void walk(const cv_member *me, void *arg)
{
    pass *p = arg;
    cv_engine *e = p->engine;
    float *members = e->workspace + e->common;
    cv_run run = { .kernel = e->kernel, .me = me };
    run.common.base = e->workspace;
    run.own.base = members + me->id * e->own;
    run.matmul = members + me->n * e->own + me->id * e->matmul;
    cv_language_step(&run, &e->model, &p->step);
}

static bool wants_every_row(const cv_feed *f)
{
    return f->want == CV_WANT_ALL || f->want == CV_WANT_SCORES;
}

/* Adds as many tokens of a feed as the pass has room for. */
static void pack(pass *p, cv_feed *f)
{
    cv_engine *e = p->engine;
    cv_step *s = &p->step;
    size_t room = e->chunk - s->T, left = f->n - f->done;
    const size_t heads = CV_HEAD_ROWS - s->n_wanted;
    if (wants_every_row(f) && room > heads) room = heads;
    if (f->want == CV_WANT_LAST && heads == 0) room = room < left - 1 ? room : left - 1;
    const size_t n = left < room ? left : room;
    if (n == 0) return;

    memcpy(e->tokens + s->T, f->tokens + f->done, n * sizeof *e->tokens);
    e->sequences[s->n_sequences++] =
        (cv_sequence){ .begin = s->T, .n = n, .state = f->stream->state };
    const bool last = f->done + n == f->n;
    if (wants_every_row(f))
        for (size_t t = 0; t < n; t++)
            e->wanted[s->n_wanted++] = s->T + t;
    else if (f->want == CV_WANT_LAST && last)
        e->wanted[s->n_wanted++] = s->T + n - 1;
    s->T += n;
}

double cv_log_probability(const cv_kernels *kernel, const float *logits, size_t V, int32_t token,
                          unsigned char *greedy)
{
    const size_t best = cv_best_logit(V, logits);
    const float top = logits[best];
    double sum = 0.0;
    for (size_t i = 0; i < V; i += 256) {
        float e[256];
        const size_t n = V - i < 256 ? V - i : 256;
        cv_below(n, logits + i, top, e);
        kernel->exp(n, e, e);
        sum += cv_sum_of(n, e);
    }
    if (greedy) *greedy = best == (size_t)token;
    return (double)logits[token] - (double)top - __builtin_log(sum);
}

/* Hands the logits of n rows, from token `done` of the feed on, to where they are wanted. */
static void deliver(const cv_engine *e, cv_feed *f, size_t n, const float *logits, bool in_place)
{
    const size_t V = e->model.sizes.V;
    if (f->want == CV_WANT_SCORES) {
        for (size_t i = 0; i < n; i++) {
            const size_t next = f->done + i + 1;
            if (next < f->n)
                f->scores[next] = cv_log_probability(e->kernel, logits + i * V, V, f->tokens[next],
                                                     f->greedy ? f->greedy + next : NULL);
            else if (f->logits)
                memcpy(f->logits, logits + i * V, V * sizeof *logits);
        }
    } else if (!in_place) {
        float *out = f->want == CV_WANT_ALL ? f->logits + f->done * V : f->logits;
        memcpy(out, logits, n * V * sizeof *logits);
    }
}

/* Where the pass's logits go: straight to the only feed that wants them, else to the workspace. */
static float *destination(const cv_engine *e, cv_feed *feeds, size_t first, size_t end)
{
    const size_t V = e->model.sizes.V;
    if (end - first != 1) return e->logits;
    const cv_feed *f = &feeds[first];
    if (f->want == CV_WANT_ALL) return f->logits + f->done * V;
    return f->want == CV_WANT_LAST ? f->logits : e->logits;
}

/* One pass over feeds [*first, ...): packs, walks, delivers. */
static void run_pass(cv_engine *e, cv_feed *feeds, size_t *first, size_t n)
{
    pass p = { .engine = e,
               .step = { .tokens = e->tokens, .sequences = e->sequences, .wanted = e->wanted } };
    size_t end = *first;
    for (; end < n && p.step.T < e->chunk; end++) {
        const size_t before = p.step.T, left = feeds[end].n - feeds[end].done;
        pack(&p, &feeds[end]);
        if (p.step.T - before < left) { /* no room for the rest, nor for who comes after */
            end += p.step.T > before;
            break;
        }
    }
    p.step.logits = destination(e, feeds, *first, end);
    const bool in_place = p.step.logits != e->logits;
    cv_team_run(e->team, walk, &p);

    const size_t V = e->model.sizes.V;
    const float *logits = p.step.logits;
    size_t sequence = 0;
    for (size_t i = *first; i < end; i++) {
        cv_feed *f = &feeds[i];
        if (f->done == f->n) continue; /* it had no tokens */
        const size_t rows = e->sequences[sequence++].n;
        const bool last = f->done + rows == f->n;
        const size_t out = wants_every_row(f) ? rows : f->want == CV_WANT_LAST && last ? 1 : 0;
        if (out) deliver(e, f, out, logits, in_place);
        logits += out * V;
        f->done += rows;
        f->stream->position += rows;
    }
    while (*first < n && feeds[*first].done == feeds[*first].n)
        ++*first;
}

static corvid_status check_tokens(const cv_engine *e, const cv_feed *f, corvid_error *err)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->tokens[i] < 0 || (size_t)f->tokens[i] >= e->model.sizes.V)
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "token %d at position %zu is not in the vocabulary of 0 to %zu",
                           (int)f->tokens[i], i, e->model.sizes.V - 1);
    return CORVID_OK;
}

/* A stream may be fed several times at once. */
static corvid_status check_length(const cv_engine *e, const cv_feed *feeds, size_t i,
                                  corvid_error *err)
{
    const cv_arch *arch = e->model.arch;
    if (!arch->longest) return CORVID_OK;
    const size_t longest = arch->longest(&e->model.sizes);
    size_t seen = cv_count_of(feeds[i].stream->state);
    for (size_t j = 0; j < i; j++)
        if (feeds[j].stream == feeds[i].stream) seen += feeds[j].n;
    if (feeds[i].n <= longest - seen) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT,
                   "%zu tokens behind %zu are more than the %zu that this %s model knows places "
                   "for; begin again with the last ones, or train it with a longer context",
                   feeds[i].n, seen, longest, arch->name);
}

corvid_status cv_engine_feed(cv_engine *e, cv_feed *feeds, size_t n, corvid_error *err)
{
    for (size_t i = 0; i < n; i++) {
        CV_TRY(check_tokens(e, &feeds[i], err));
        CV_TRY(check_length(e, feeds, i, err));
        feeds[i].done = 0;
        if (feeds[i].want == CV_WANT_LAST && !feeds[i].logits) feeds[i].want = CV_WANT_NOTHING;
    }
    corvid_status status = CORVID_OK;
    size_t first = 0;
    while (first < n && feeds[first].n == 0)
        first++;
    pthread_mutex_lock(&e->lock);
    while (first < n && status == CORVID_OK) {
        run_pass(e, feeds, &first, n);
        if (first < n && e->options.cancel && e->options.cancel(e->options.ctx))
            status = cv_fail(err, CORVID_E_CANCELLED, "cancelled");
    }
    pthread_mutex_unlock(&e->lock);
    return status;
}
