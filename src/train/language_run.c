/* language_run.c - a run of training of a language model; see language_run.h. */
#include <string.h>
#include <xxhash.h>

#include "engine/vocabulary.h"
#include "train/language_run.h"
#include "train/shape.h"
#include "train/text_course.h"

/* All that a run holds beside what the loop does. */
typedef struct session {
    const corvid_allocator *mem;
    const cv_language_run *run;
    cv_tokenizer *tok;
    cv_text_course course;
    cv_source shape;
    cv_learner learner;
} session;

/* ---- Opening --------------------------------------------------------------------------------- */

static corvid_status open_course(session *s, corvid_error *err)
{
    const cv_language_run *r = s->run;
    const cv_text_course_wish wish = { .recipe = &r->recipe,
                                       .tok = s->tok,
                                       .data = r->data,
                                       .n_data = r->n_data,
                                       .batch = r->batch,
                                       .context = r->context,
                                       .l2_wrap = r->l2_wrap,
                                       .validation = r->validation,
                                       .evaluate_tokens = r->evaluate_tokens };
    return cv_text_course_open(s->mem, &wish, &s->course, err);
}

static corvid_status open_learner(session *s, corvid_error *err)
{
    const cv_language_run *r = s->run;
    const cv_shape_wish wish = { .arch = r->arch,
                                 .layers = r->layers,
                                 .width = r->width,
                                 .context = r->context,
                                 .vocabulary = cv_tokenizer_size(s->tok) };
    CV_TRY(cv_shape_for(&wish, &s->shape, err));
    const cv_init_settings init = { .embedding =
                                        s->shape.arch == &cv_rwkv4 ? r->recipe.learning_rate : 0.0,
                                    .no_shift = r->no_shift };
    CV_TRY(cv_loop_learner(s->mem, &r->recipe, &s->shape, &init, &s->learner, err));
    return cv_learner_room(&s->learner, s->course.most, r->context, err);
}

static corvid_status open_session(session *s, corvid_error *err)
{
    const cv_language_run *r = s->run;
    CV_TRY(cv_loop_folder(&r->recipe, err));
    CV_TRY(cv_vocabulary_open(s->mem, r->vocab ? r->vocab : "bytes", &s->tok, err));
    CV_TRY(open_course(s, err));
    return open_learner(s, err);
}

static void close_session(session *s)
{
    cv_learner_close(&s->learner);
    cv_text_course_close(&s->course);
    cv_tokenizer_free(s->tok);
}

/* ---- What the loop asks for ------------------------------------------------------------------- */

/* All that decides the numbers of a run, beside its seed. */
static uint64_t hash_settings(const session *s)
{
    const cv_language_run *r = s->run;
    const cv_recipe *c = &r->recipe;
    const double numbers[] = { (double)r->layers,
                               (double)r->width,
                               (double)c->steps,
                               (double)r->batch,
                               (double)r->context,
                               c->learning_rate,
                               c->final_learning_rate,
                               (double)c->warmup,
                               c->beta1,
                               c->beta2,
                               c->eps,
                               c->weight_decay,
                               c->clip,
                               r->l2_wrap,
                               r->validation,
                               (double)s->course.data.train.begin,
                               (double)s->course.data.train.end };
    uint64_t hash = XXH3_64bits_withSeed(r->arch, strlen(r->arch), cv_vocabulary_hash(s->tok));
    if (r->no_shift) hash = XXH3_64bits_withSeed("no shift", 8, hash);
    return cv_loop_settings(c, XXH3_64bits_withSeed(numbers, sizeof numbers, hash));
}

/* The official trainers' way into any of the curves. */
static cv_schedule schedule_of(const cv_language_run *r)
{
    const cv_recipe *c = &r->recipe;
    const uint64_t step_tokens = r->batch * r->context;
    cv_schedule schedule = cv_schedule_rwkv(c->learning_rate, c->final_learning_rate,
                                            (int64_t)(c->steps * step_tokens), step_tokens,
                                            c->warmup, CV_WARM_FROM_V7);
    schedule.curve = c->curve;
    return schedule;
}

static corvid_status learn_part(void *ctx, uint64_t step, size_t part, double *loss,
                                corvid_error *err)
{
    session *s = ctx;
    return cv_text_course_learn(&s->course, &s->learner, step, part, loss, err);
}

static corvid_status score_validation(void *ctx, cv_run_score *score, corvid_error *err)
{
    session *s = ctx;
    return cv_text_course_score(&s->course, &s->learner, score, err);
}

/* Without token shift the mixes stay as they were made. */
static cv_group group_without_shift(void *ctx, const cv_param *param)
{
    const cv_source *source = &((const session *)ctx)->learner.source;
    if (cv_init_is_mix(param->view.field)) return (cv_group){ 0.0, false };
    return cv_group_of(cv_grouping_of(source), source, &param->view);
}

corvid_status cv_train_language(const corvid_allocator *mem, const cv_language_run *run,
                                corvid_error *err)
{
    session s = { .mem = mem, .run = run };
    corvid_status status = open_session(&s, err);
    if (status == CORVID_OK) {
        const cv_task task = { .learner = &s.learner,
                               .schedule = schedule_of(run),
                               .steps = run->recipe.steps,
                               .step_rows = run->batch * run->context,
                               .settings = hash_settings(&s),
                               .memory_bytes = cv_learner_bytes(&s.learner),
                               .vocab = run->vocab,
                               .ctx = &s,
                               .batch = learn_part,
                               .group = run->no_shift ? group_without_shift : NULL,
                               .score = run->validation > 0.0 ? score_validation : NULL };
        status = cv_loop_run(mem, &run->recipe, &task, err);
    }
    close_session(&s);
    return status;
}
