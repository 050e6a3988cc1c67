/* language_run.c - a run of training of a language model; see language_run.h. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "engine/conversion.h"
#include "engine/vocabulary.h"
#include "train/adamw.h"
#include "train/groups.h"
#include "train/init.h"
#include "train/language_run.h"
#include "train/resume_file.h"
#include "train/schedule.h"
#include "train/shape.h"
#include "train/text_data.h"
#include "train/text_lesson.h"

#define PATH_MAX_BYTES 4096

/* All that a run holds. */
typedef struct session {
    const corvid_allocator *mem;
    const cv_language_run *run;
    cv_tokenizer *tok;
    cv_text_data data;
    cv_sample_plan samples, windows; /* for training, for validation */
    cv_source shape;
    cv_learner learner;
    cv_adam_tensor *tensors;
    float *moments;
    double *sums;
    int32_t *tokens, *targets;
    cv_schedule schedule;
    cv_adam_settings adam;
    cv_resume at;
} session;

/* ---- Opening --------------------------------------------------------------------------------- */

static void path_in(const session *s, const char *name, char *path)
{
    snprintf(path, PATH_MAX_BYTES, "%s/%s", s->run->out, name);
}

static corvid_status open_data(session *s, corvid_error *err)
{
    const cv_language_run *r = s->run;
    char cache[PATH_MAX_BYTES];
    cv_text_source *sources;
    CV_TRY(cv_alloc_or_fail(s->mem, r->n_data + 1, sizeof *sources, "the list of texts",
                            (void **)&sources, err));
    for (size_t i = 0; i < r->n_data; i++)
        sources[i] = (cv_text_source){ .path = r->data[i] };
    path_in(s, "tokens.bin", cache);
    const cv_text_options options = { .sources = sources,
                                      .n_sources = r->n_data,
                                      .tok = s->tok,
                                      .cache = cache,
                                      .validation = r->validation,
                                      .progress = r->progress,
                                      .cancel = r->cancel,
                                      .ctx = r->ctx };
    corvid_status status = cv_text_data_open(s->mem, &options, &s->data, err);
    cv_free(s->mem, sources);
    if (status == CORVID_OK)
        status = cv_sample_plan_init(&s->samples, s->data.train, CV_SAMPLES_RANDOM, r->context,
                                     r->batch, r->seed, err);
    if (status == CORVID_OK && r->validation > 0.0)
        status = cv_sample_plan_init(&s->windows, s->data.validation, CV_SAMPLES_SEQUENTIAL,
                                     r->context, r->batch, 0, err);
    return status;
}

static corvid_status fill_params(session *s, corvid_error *err)
{
    const cv_init_settings settings = { .embedding = s->shape.arch == &cv_rwkv4
                                                         ? s->run->learning_rate
                                                         : 0.0 };
    for (size_t i = 0; i < s->learner.n_params; i++) {
        cv_param *p = &s->learner.params[i];
        CV_TRY(cv_init_fill(&s->shape, s->run->seed, &p->view, p->value, &settings, s->mem, err));
    }
    cv_learner_publish(&s->learner);
    return CORVID_OK;
}

static corvid_status open_learner(session *s, corvid_error *err)
{
    const cv_language_run *r = s->run;
    const cv_shape_wish wish = { .arch = r->arch,
                                 .layers = r->layers,
                                 .width = r->width,
                                 .vocabulary = cv_tokenizer_size(s->tok) };
    CV_TRY(cv_shape_for(&wish, &s->shape, err));
    CV_TRY(cv_learner_open(s->mem, r->team, r->kernel, &s->shape, NULL, &s->learner, err));
    CV_TRY(fill_params(s, err));
    return cv_learner_room(&s->learner, r->batch, r->context, err);
}

static corvid_status open_optimizer(session *s, corvid_error *err)
{
    const cv_language_run *r = s->run;
    const cv_grouping grouping = cv_grouping_of(&s->shape);
    cv_learner *l = &s->learner;
    size_t n = 0;
    for (size_t i = 0; i < l->n_params; i++)
        n += l->params[i].n;
    s->tensors = cv_alloc_zero(s->mem, l->n_params, sizeof *s->tensors);
    s->moments = cv_alloc_zero(s->mem, 2 * n, sizeof *s->moments);
    if (!s->tensors || !s->moments)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: the moments of %zu parameters", n);
    float *at = s->moments;
    for (size_t i = 0; i < l->n_params; i++) {
        const cv_param *p = &l->params[i];
        const cv_group group = cv_group_of(grouping, &s->shape, &p->view);
        s->tensors[i] = (cv_adam_tensor){ .value = p->value,
                                          .gradient = p->gradient,
                                          .m = at,
                                          .v = at + p->n,
                                          .n = p->n,
                                          .lr_scale = group.lr_scale,
                                          .decays = group.decays };
        at += 2 * p->n;
    }
    s->adam = (cv_adam_settings){ .beta1 = r->beta1,
                                  .beta2 = r->beta2,
                                  .eps = r->eps,
                                  .weight_decay = r->weight_decay,
                                  .clip = r->clip };
    const uint64_t step_tokens = r->batch * r->context;
    s->schedule = cv_schedule_rwkv(r->learning_rate, r->final_learning_rate,
                                   (int64_t)(r->steps * step_tokens), step_tokens, r->warmup,
                                   CV_WARM_FROM_V7);
    CV_TRY(cv_alloc_or_fail(s->mem, cv_adam_chunks(s->tensors, l->n_params), sizeof *s->sums,
                            "sums", (void **)&s->sums, err));
    CV_TRY(cv_alloc_or_fail(s->mem, step_tokens, sizeof *s->tokens, "a batch", (void **)&s->tokens,
                            err));
    return cv_alloc_or_fail(s->mem, step_tokens, sizeof *s->targets, "a batch",
                            (void **)&s->targets, err);
}

/* All that decides the numbers of a run, beside its seed. */
static uint64_t hash_settings(const session *s)
{
    const cv_language_run *r = s->run;
    const double numbers[] = { (double)r->layers,
                               (double)r->width,
                               (double)r->steps,
                               (double)r->batch,
                               (double)r->context,
                               r->learning_rate,
                               r->final_learning_rate,
                               (double)r->warmup,
                               r->beta1,
                               r->beta2,
                               r->eps,
                               r->weight_decay,
                               r->clip,
                               r->l2_wrap,
                               r->validation,
                               (double)s->data.train.begin,
                               (double)s->data.train.end };
    const uint64_t hash =
        XXH3_64bits_withSeed(r->arch, strlen(r->arch), cv_vocabulary_hash(s->tok));
    return XXH3_64bits_withSeed(numbers, sizeof numbers, hash);
}

static corvid_status make_folder(const char *path, corvid_error *err)
{
    if (mkdir(path, 0777) == 0 || errno == EEXIST) return CORVID_OK;
    return cv_fail(err, CORVID_E_WRITE, "%s: cannot make this folder: %s", path, strerror(errno));
}

static corvid_status open_session(session *s, corvid_error *err)
{
    const cv_language_run *r = s->run;
    char path[PATH_MAX_BYTES];
    struct stat there;
    CV_TRY(make_folder(r->out, err));
    CV_TRY(cv_vocabulary_open(s->mem, r->vocab ? r->vocab : "bytes", &s->tok, err));
    CV_TRY(open_data(s, err));
    CV_TRY(open_learner(s, err));
    CV_TRY(open_optimizer(s, err));
    s->at = (cv_resume){ .seed = r->seed, .settings = hash_settings(s), .best = (double)INFINITY };
    path_in(s, "resume.bin", path);
    const bool found = stat(path, &there) == 0;
    if (r->resume && found) return cv_resume_load(&s->learner, s->tensors, &s->at, path, err);
    if (found)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s is there from another run; give --resume to go on, or another folder",
                       path);
    return CORVID_OK;
}

static void close_session(session *s)
{
    cv_learner_close(&s->learner);
    cv_text_data_close(&s->data);
    cv_tokenizer_free(s->tok);
    cv_free(s->mem, s->tensors);
    cv_free(s->mem, s->moments);
    cv_free(s->mem, s->sums);
    cv_free(s->mem, s->tokens);
    cv_free(s->mem, s->targets);
}

/* ---- Steps ----------------------------------------------------------------------------------- */

typedef struct update {
    session *s;
    double lr;
    cv_gradient_report gradient;
} update;

static void update_work(const cv_member *me, void *arg)
{
    update *u = arg;
    session *s = u->s;
    const size_t n = s->learner.n_params;
    const cv_gradient_report g = cv_gradient_measure(me, &s->adam, s->tensors, n, s->sums);
    if (me->id == 0) u->gradient = g;
    if (g.tensor != CV_ALL_FINITE) return;
    cv_adam_step(me, &s->adam, s->tensors, n, s->at.step + 1, u->lr, g.factor);
}

static corvid_status not_finite(const session *s, const cv_gradient_report *g, double loss,
                                corvid_error *err)
{
    if (!isfinite(loss))
        return cv_fail(err, CORVID_E_INTERNAL,
                       "step %llu: the loss is not finite; the files of the last saved step are as "
                       "they were. Try a lower learning rate, or a longer warm-up",
                       (unsigned long long)s->at.step + 1);
    return cv_fail(
        err, CORVID_E_INTERNAL,
        "step %llu: the gradient of %s is not finite at %zu; the files of the last saved "
        "step are as they were. Try a lower learning rate, or clipping",
        (unsigned long long)s->at.step + 1, s->learner.params[g->tensor].view.name, g->element);
}

static corvid_status one_step(session *s, cv_run_report *report, corvid_error *err)
{
    const cv_language_run *r = s->run;
    CV_TRY(
        cv_text_batch(&s->data, &s->samples, s->at.step, 0, r->batch, s->tokens, s->targets, err));
    const cv_batch batch = { .tokens = s->tokens,
                             .targets = s->targets,
                             .n_sequences = r->batch,
                             .length = r->context,
                             .weight = 1.0 / (double)(r->batch * r->context),
                             .l2_wrap = r->l2_wrap };
    cv_learner_clear(&s->learner);
    CV_TRY(cv_learner_batch(&s->learner, &batch, &report->loss, err));
    cv_learner_gather(&s->learner);
    update u = { .s = s, .lr = cv_schedule_at(&s->schedule, s->at.step) };
    cv_team_run(r->team, update_work, &u);
    if (!isfinite(report->loss) || u.gradient.tensor != CV_ALL_FINITE)
        return not_finite(s, &u.gradient, report->loss, err);
    cv_learner_publish(&s->learner);
    s->at.step++;
    report->step = s->at.step;
    report->tokens = s->at.step * r->batch * r->context;
    report->learning_rate = u.lr;
    report->gradient_norm = u.gradient.norm;
    return CORVID_OK;
}

/* The mean loss over the validation part, or its beginning. */
static corvid_status evaluate(session *s, double *loss, corvid_error *err)
{
    const cv_language_run *r = s->run;
    const uint64_t step_tokens = r->batch * r->context;
    double sum = 0.0;
    uint64_t counted = 0;
    for (uint64_t step = 0;; step++) {
        if (cv_sample_offset(&s->windows, step, 0) >= s->data.validation.end) break;
        if (r->evaluate_tokens && step * step_tokens >= r->evaluate_tokens) break;
        CV_TRY(cv_text_batch(&s->data, &s->windows, step, 0, r->batch, s->tokens, s->targets, err));
        const cv_batch batch = { .tokens = s->tokens,
                                 .targets = s->targets,
                                 .n_sequences = r->batch,
                                 .length = r->context };
        double mean;
        uint64_t n = 0;
        CV_TRY(cv_learner_score(&s->learner, &batch, &mean, err));
        for (uint64_t i = 0; i < step_tokens; i++)
            n += s->targets[i] >= 0;
        sum += mean * (double)n;
        counted += n;
    }
    *loss = counted ? sum / (double)counted : (double)NAN;
    return CORVID_OK;
}

static corvid_status save(session *s, corvid_error *err)
{
    char path[PATH_MAX_BYTES];
    const cv_convert_settings settings = { .format = CV_SAFETENSORS,
                                           .keep = true,
                                           .vocab = s->run->vocab };
    const cv_source source = cv_learner_source(&s->learner);
    path_in(s, "model.safetensors", path);
    CV_TRY(cv_convert_source(s->mem, &source, path, &settings, err));
    path_in(s, "resume.bin", path);
    return cv_resume_save(&s->learner, s->tensors, &s->at, path, err);
}

static bool is_due(uint64_t every, uint64_t step, uint64_t steps)
{
    return step == steps || (every && step % every == 0);
}

static corvid_status train(session *s, corvid_error *err)
{
    const cv_language_run *r = s->run;
    while (s->at.step < r->steps) {
        cv_run_report report = { .steps = r->steps,
                                 .validation = (double)NAN,
                                 .memory_bytes = cv_learner_bytes(&s->learner) };
        CV_TRY(one_step(s, &report, err));
        const bool stop = r->cancel && r->cancel(r->ctx);
        if (r->validation > 0.0 && is_due(r->evaluate_every, s->at.step, r->steps))
            CV_TRY(evaluate(s, &report.validation, err));
        if (report.validation < s->at.best) s->at.best = report.validation;
        if (stop || is_due(r->save_every, s->at.step, r->steps)) {
            CV_TRY(save(s, err));
            report.saved = true;
        }
        if (r->report) r->report(r->ctx, &report);
        if (stop && s->at.step < r->steps)
            return cv_fail(err, CORVID_E_CANCELLED,
                           "stopped after step %llu of %llu; --resume goes on from here",
                           (unsigned long long)s->at.step, (unsigned long long)r->steps);
    }
    return CORVID_OK;
}

corvid_status cv_train_language(const corvid_allocator *mem, const cv_language_run *run,
                                corvid_error *err)
{
    session s = { .mem = mem, .run = run };
    corvid_status status = open_session(&s, err);
    if (status == CORVID_OK) status = train(&s, err);
    close_session(&s);
    return status;
}
