/* stream.c - streams, feeding, states. */
#include <string.h>

#include "api/handles.h"

corvid_status corvid_stream_new(corvid_model *model, corvid_stream **stream, corvid_error *err)
{
    corvid_stream *s;
    *stream = NULL;
    if (model->engine.eye) return cv_fail(err, CORVID_E_ARGUMENT, "%s", model->no_tokenizer.text);
    CV_TRY(cv_alloc_or_fail(&model->allocator, 1, sizeof *s, "a stream", (void **)&s, err));
    s->model = model;
    corvid_status status = cv_stream_init(&model->engine, &s->stream, err);
    if (status != CORVID_OK)
        cv_free(&model->allocator, s);
    else
        *stream = s;
    return status;
}

void corvid_stream_free(corvid_stream *stream)
{
    if (!stream) return;
    const corvid_allocator *mem = &stream->model->allocator;
    cv_stream_free(&stream->stream);
    cv_free(mem, stream);
}

void corvid_stream_reset(corvid_stream *stream)
{
    cv_stream_reset(&stream->stream);
}

uint64_t corvid_stream_position(const corvid_stream *stream)
{
    return stream->stream.position;
}

corvid_status corvid_stream_copy(corvid_stream *dst, const corvid_stream *src, corvid_error *err)
{
    if (dst->model != src->model)
        return cv_fail(err, CORVID_E_MISMATCH, "the two streams belong to different models");
    if (dst == src) return CORVID_OK;
    memcpy(dst->stream.state, src->stream.state,
           cv_state_size(&src->model->engine.model) * sizeof(float));
    dst->stream.position = src->stream.position;
    return CORVID_OK;
}

static corvid_status feed(corvid_stream *stream, cv_feed *f, corvid_error *err)
{
    f->stream = &stream->stream;
    return cv_engine_feed(&stream->model->engine, f, 1, err);
}

corvid_status corvid_feed(corvid_stream *stream, const int32_t *tokens, size_t n, float *logits,
                          corvid_error *err)
{
    cv_feed f = { .tokens = tokens, .n = n, .want = CV_WANT_LAST, .logits = logits };
    return feed(stream, &f, err);
}

corvid_status corvid_feed_all(corvid_stream *stream, const int32_t *tokens, size_t n, float *logits,
                              corvid_error *err)
{
    cv_feed f = { .tokens = tokens, .n = n, .want = CV_WANT_ALL, .logits = logits };
    return feed(stream, &f, err);
}

corvid_status corvid_score(corvid_stream *stream, const int32_t *tokens, size_t n,
                           const float *previous, double *scores, unsigned char *greedy,
                           float *logits, corvid_error *err)
{
    const cv_engine *e = &stream->model->engine;
    cv_feed f = { .tokens = tokens,
                  .n = n,
                  .want = CV_WANT_SCORES,
                  .logits = logits,
                  .scores = scores,
                  .greedy = greedy };
    /* Before feeding, because logits may be the buffer that holds previous. */
    const size_t V = e->model.sizes.V;
    double first = 0.0;
    unsigned char first_greedy = 0;
    if (n && previous && tokens[0] >= 0 && (size_t)tokens[0] < V)
        first = cv_log_probability(e->kernel, previous, V, tokens[0], &first_greedy);
    CV_TRY(feed(stream, &f, err));
    if (n == 0) return CORVID_OK;
    scores[0] = first;
    if (greedy) greedy[0] = first_greedy;
    return CORVID_OK;
}

static corvid_status check_batch(const corvid_batch_item *items, size_t n, corvid_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (items[i].stream->model != items[0].stream->model)
            return cv_fail(err, CORVID_E_MISMATCH, "batch item %zu belongs to another model", i);
        for (size_t j = 0; j < i; j++)
            if (items[j].stream == items[i].stream)
                return cv_fail(err, CORVID_E_ARGUMENT, "batch items %zu and %zu are one stream", j,
                               i);
        for (size_t t = 0; t < items[i].n; t++)
            if (items[i].tokens[t] < 0 ||
                (size_t)items[i].tokens[t] >= items[i].stream->model->engine.model.sizes.V)
                return cv_fail(err, CORVID_E_ARGUMENT,
                               "batch item %zu: token %d at %zu is not in the vocabulary", i,
                               (int)items[i].tokens[t], t);
    }
    return CORVID_OK;
}

corvid_status corvid_feed_batch(const corvid_batch_item *items, size_t n_items, corvid_error *err)
{
    CV_TRY(check_batch(items, n_items, err));
    enum { GROUP = 64 }; /* items handed to the engine at a time */
    for (size_t first = 0; first < n_items; first += GROUP) {
        cv_feed feeds[GROUP];
        const size_t n = n_items - first < GROUP ? n_items - first : GROUP;
        for (size_t i = 0; i < n; i++) {
            const corvid_batch_item *it = &items[first + i];
            feeds[i] = (cv_feed){ .stream = &it->stream->stream,
                                  .tokens = it->tokens,
                                  .n = it->n,
                                  .want = CV_WANT_LAST,
                                  .logits = it->logits };
        }
        CV_TRY(cv_engine_feed(&items[0].stream->model->engine, feeds, n, err));
    }
    return CORVID_OK;
}

corvid_status corvid_state_save(const corvid_stream *stream, const char *path, corvid_error *err)
{
    return cv_state_save(&stream->stream, path, err);
}

corvid_status corvid_state_load(corvid_stream *stream, const char *path, corvid_error *err)
{
    return cv_state_load(&stream->stream, path, err);
}

size_t corvid_state_floats(const corvid_model *model)
{
    return cv_state_size(&model->engine.model);
}

corvid_status corvid_state_get(const corvid_stream *stream, float *values, corvid_error *err)
{
    (void)err;
    cv_state_export(&stream->stream, values);
    return CORVID_OK;
}

corvid_status corvid_state_set(corvid_stream *stream, const float *values, uint64_t position,
                               corvid_error *err)
{
    (void)err;
    cv_state_import(&stream->stream, values);
    stream->stream.position = position;
    return CORVID_OK;
}
