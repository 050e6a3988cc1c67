/* text_course.c - what a language model is taught from; see text_course.h. */
#include "train/text_course.h"

static corvid_status open_data(cv_text_course *c, corvid_error *err)
{
    const cv_text_course_wish *w = &c->wish;
    const cv_recipe *r = w->recipe;
    char cache[CV_RUN_PATH];
    cv_text_source *sources;
    CV_TRY(cv_alloc_or_fail(c->mem, w->n_data + 1, sizeof *sources, "the list of texts",
                            (void **)&sources, err));
    for (size_t i = 0; i < w->n_data; i++)
        sources[i] = (cv_text_source){ .path = w->data[i] };
    cv_loop_path(r, "tokens.bin", cache);
    const cv_text_options options = { .sources = sources,
                                      .n_sources = w->n_data,
                                      .tok = w->tok,
                                      .cache = cache,
                                      .resume = r->resume,
                                      .validation = w->validation,
                                      .progress = r->progress,
                                      .cancel = r->cancel,
                                      .ctx = r->ctx };
    const corvid_status status = cv_text_data_open(c->mem, &options, &c->data, err);
    cv_free(c->mem, sources);
    return status;
}

static corvid_status open_course(cv_text_course *c, corvid_error *err)
{
    const cv_text_course_wish *w = &c->wish;
    c->most = cv_loop_most(w->recipe, w->batch);
    CV_TRY(open_data(c, err));
    CV_TRY(cv_sample_plan_init(&c->samples, c->data.train, CV_SAMPLES_RANDOM, w->context, w->batch,
                               w->recipe->seed, err));
    if (w->validation > 0.0)
        CV_TRY(cv_sample_plan_init(&c->windows, c->data.validation, CV_SAMPLES_SEQUENTIAL,
                                   w->context, c->most, 0, err));
    CV_TRY(cv_alloc_or_fail(c->mem, c->most * w->context, sizeof *c->tokens, "a batch",
                            (void **)&c->tokens, err));
    return cv_alloc_or_fail(c->mem, c->most * w->context, sizeof *c->targets, "a batch",
                            (void **)&c->targets, err);
}

corvid_status cv_text_course_open(const corvid_allocator *mem, const cv_text_course_wish *wish,
                                  cv_text_course *out, corvid_error *err)
{
    *out = (cv_text_course){ .mem = mem, .wish = *wish };
    const corvid_status status = open_course(out, err);
    if (status != CORVID_OK) cv_text_course_close(out);
    return status;
}

void cv_text_course_close(cv_text_course *c)
{
    if (!c->mem) return;
    cv_text_data_close(&c->data);
    cv_free(c->mem, c->tokens);
    cv_free(c->mem, c->targets);
    *c = (cv_text_course){ .mem = NULL };
}

corvid_status cv_text_course_learn(cv_text_course *c, cv_learner *learner, uint64_t step,
                                   size_t part, double *loss, corvid_error *err)
{
    const cv_text_course_wish *w = &c->wish;
    size_t lo, hi;
    cv_loop_part(w->recipe, w->batch, part, &lo, &hi);
    CV_TRY(cv_text_batch(&c->data, &c->samples, step, lo, hi - lo, c->tokens, c->targets, err));
    const cv_batch batch = { .tokens = c->tokens,
                             .targets = c->targets,
                             .n_sequences = hi - lo,
                             .length = w->context,
                             .weight = 1.0 / (double)(w->batch * w->context),
                             .l2_wrap = w->l2_wrap };
    CV_TRY(cv_learner_batch(learner, &batch, loss, err));
    *loss *= (double)(hi - lo) / (double)w->batch;
    return CORVID_OK;
}

/* The mean loss over the validation part, or its beginning. */
corvid_status cv_text_course_score(cv_text_course *c, cv_learner *learner, cv_run_score *score,
                                   corvid_error *err)
{
    const cv_text_course_wish *w = &c->wish;
    const uint64_t rows = c->most * w->context;
    double sum = 0.0;
    uint64_t counted = 0;
    for (uint64_t at = 0;; at++) {
        if (cv_sample_offset(&c->windows, at, 0) >= c->data.validation.end) break;
        if (w->evaluate_tokens && at * rows >= w->evaluate_tokens) break;
        CV_TRY(cv_text_batch(&c->data, &c->windows, at, 0, c->most, c->tokens, c->targets, err));
        const cv_batch batch = {
            .tokens = c->tokens, .targets = c->targets, .n_sequences = c->most, .length = w->context
        };
        double mean;
        uint64_t n = 0;
        CV_TRY(cv_learner_score(learner, &batch, &mean, err));
        for (uint64_t i = 0; i < rows; i++)
            n += c->targets[i] >= 0;
        sum += mean * (double)n;
        counted += n;
    }
    if (counted) score->loss = sum / (double)counted;
    return CORVID_OK;
}
