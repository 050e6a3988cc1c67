/* loop.c - what all runs of training share; see loop.h. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>

#include "engine/conversion.h"
#include "train/loop.h"
#include "train/resume_file.h"

/* All that a run holds beside its data. */
typedef struct loop {
    const corvid_allocator *mem;
    const cv_recipe *recipe;
    const cv_task *task;
    cv_learner *learner;
    cv_adam_tensor *tensors; /* [n_params] */
    float *moments;          /* both, and the running means, of all parameters */
    double *sums;
    cv_adam_settings adam;
    cv_resume at;
    struct timespec started;
} loop;

/* ---- Before the first step ------------------------------------------------------------------- */

void cv_loop_path(const cv_recipe *recipe, const char *name, char path[CV_RUN_PATH])
{
    snprintf(path, CV_RUN_PATH, "%s/%s", recipe->out, name);
}

corvid_status cv_loop_folder(const cv_recipe *recipe, corvid_error *err)
{
    if (strlen(recipe->out) + 32 > CV_RUN_PATH)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "the name of the folder for the model has %zu bytes, expected at most %d",
                       strlen(recipe->out), CV_RUN_PATH - 32);
    if (mkdir(recipe->out, 0777) == 0 || errno == EEXIST) return CORVID_OK;
    return cv_fail(err, CORVID_E_WRITE, "%s: cannot make this folder: %s", recipe->out,
                   strerror(errno));
}

void cv_loop_part(const cv_recipe *recipe, size_t n, size_t part, size_t *lo, size_t *hi)
{
    *lo = n * part / recipe->accumulate;
    *hi = n * (part + 1) / recipe->accumulate;
}

size_t cv_loop_most(const cv_recipe *recipe, size_t n)
{
    return n / recipe->accumulate + (n % recipe->accumulate != 0);
}

/* The choices that were always there are hashed by every kind in its own way; those that came later
 * only where they are made, so that an older run still goes on. */
uint64_t cv_loop_settings(const cv_recipe *r, uint64_t hash)
{
    const double later[] = { (double)r->curve, (double)r->accumulate, r->average, (double)r->bf16 };
    if (r->curve == CV_RATE_COSINE && r->accumulate == 1 && r->average == 0.0 && !r->bf16)
        return hash;
    return XXH3_64bits_withSeed(later, sizeof later, hash);
}

corvid_status cv_loop_learner(const corvid_allocator *mem, const cv_recipe *recipe,
                              const cv_source *shape, const cv_init_settings *init, cv_learner *out,
                              corvid_error *err)
{
    const cv_learner_options options = { .bf16 = recipe->bf16, .again = recipe->recompute };
    CV_TRY(cv_learner_open(mem, recipe->team, recipe->kernel, shape, &options, out, err));
    for (size_t i = 0; i < out->n_params; i++) {
        cv_param *p = &out->params[i];
        CV_TRY(cv_init_fill(shape, recipe->seed, &p->view, p->value, init, mem, err));
    }
    cv_learner_publish(out);
    return CORVID_OK;
}

static cv_group group_of(const loop *l, const cv_param *p)
{
    const cv_source *source = &l->learner->source;
    if (l->task->group) return l->task->group(l->task->ctx, p);
    return cv_group_of(cv_grouping_of(source), source, &p->view);
}

/* Moments, running means and groups; the means begin where the values do. */
static corvid_status open_optimizer(loop *l, corvid_error *err)
{
    const cv_recipe *r = l->recipe;
    const size_t n_params = l->learner->n_params, arrays = r->average > 0.0 ? 3 : 2;
    size_t n = 0;
    for (size_t i = 0; i < n_params; i++)
        n += l->learner->params[i].n;
    l->tensors = cv_alloc_zero(l->mem, n_params, sizeof *l->tensors);
    l->moments = cv_alloc_zero(l->mem, arrays * n, sizeof *l->moments);
    if (!l->tensors || !l->moments)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: the moments of %zu parameters", n);
    float *at = l->moments;
    for (size_t i = 0; i < n_params; i++) {
        const cv_param *p = &l->learner->params[i];
        const cv_group group = group_of(l, p);
        l->tensors[i] = (cv_adam_tensor){ .value = p->value,
                                          .gradient = p->gradient,
                                          .m = at,
                                          .v = at + p->n,
                                          .average = arrays == 3 ? at + 2 * p->n : NULL,
                                          .n = p->n,
                                          .lr_scale = group.lr_scale,
                                          .decays = group.decays };
        if (arrays == 3) memcpy(at + 2 * p->n, p->value, p->n * sizeof *at);
        at += arrays * p->n;
    }
    l->adam = (cv_adam_settings){ .beta1 = r->beta1,
                                  .beta2 = r->beta2,
                                  .eps = r->eps,
                                  .weight_decay = r->weight_decay,
                                  .clip = r->clip,
                                  .average = r->average };
    return cv_alloc_or_fail(l->mem, cv_adam_chunks(l->tensors, n_params), sizeof *l->sums, "sums",
                            (void **)&l->sums, err);
}

static void publish(const loop *l)
{
    if (l->task->publish)
        l->task->publish(l->task->ctx);
    else
        cv_learner_publish(l->learner);
}

static corvid_status go_on(loop *l, const char *path, corvid_error *err)
{
    CV_TRY(cv_resume_load(l->learner, l->tensors, &l->at, path, err));
    if (l->task->publish) publish(l);
    return CORVID_OK;
}

static corvid_status open_loop(loop *l, corvid_error *err)
{
    const cv_recipe *r = l->recipe;
    char path[CV_RUN_PATH];
    struct stat there;
    clock_gettime(CLOCK_MONOTONIC, &l->started);
    CV_TRY(open_optimizer(l, err));
    l->at = (cv_resume){ .seed = r->seed, .settings = l->task->settings, .best = (double)INFINITY };
    cv_loop_path(r, "resume.bin", path);
    const bool found = stat(path, &there) == 0;
    if (r->resume && found) return go_on(l, path, err);
    if (found)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s is there from another run; give --resume to go on, or another folder",
                       path);
    return CORVID_OK;
}

static void close_loop(loop *l)
{
    cv_free(l->mem, l->tensors);
    cv_free(l->mem, l->moments);
    cv_free(l->mem, l->sums);
}

/* ---- A step ---------------------------------------------------------------------------------- */

typedef struct update {
    loop *l;
    double lr;
    cv_gradient_report gradient;
} update;

static void update_work(const cv_member *me, void *arg)
{
    update *u = arg;
    loop *l = u->l;
    const size_t n = l->learner->n_params;
    const cv_gradient_report g = cv_gradient_measure(me, &l->adam, l->tensors, n, l->sums);
    if (me->id == 0) u->gradient = g;
    if (g.tensor != CV_ALL_FINITE) return;
    cv_adam_step(me, &l->adam, l->tensors, n, l->at.step + 1, u->lr, g.factor);
}

static corvid_status not_finite(const loop *l, const cv_gradient_report *g, double loss,
                                corvid_error *err)
{
    if (!isfinite(loss))
        return cv_fail(err, CORVID_E_INTERNAL,
                       "step %llu: the loss is not finite; the files of the last saved step are as "
                       "they were. Try a lower learning rate, or a longer warm-up",
                       (unsigned long long)l->at.step + 1);
    return cv_fail(
        err, CORVID_E_INTERNAL,
        "step %llu: the gradient of %s is not finite at %zu; the files of the last saved "
        "step are as they were. Try a lower learning rate, or clipping",
        (unsigned long long)l->at.step + 1, l->learner->params[g->tensor].view.name, g->element);
}

/* The gradient of the step that is due. */
static corvid_status take_gradient(const loop *l, double *loss, corvid_error *err)
{
    const cv_task *t = l->task;
    *loss = 0.0;
    if (t->clear)
        t->clear(t->ctx);
    else
        cv_learner_clear(l->learner);
    for (size_t part = 0; part < l->recipe->accumulate; part++) {
        double share = 0.0;
        CV_TRY(t->batch(t->ctx, l->at.step, part, &share, err));
        *loss += share;
    }
    if (t->gather)
        t->gather(t->ctx);
    else
        cv_learner_gather(l->learner);
    return CORVID_OK;
}

static corvid_status one_step(loop *l, cv_run_report *report, corvid_error *err)
{
    const cv_task *t = l->task;
    CV_TRY(take_gradient(l, &report->loss, err));
    update u = { .l = l, .lr = cv_schedule_at(&t->schedule, l->at.step) };
    cv_team_run(l->recipe->team, update_work, &u);
    if (!isfinite(report->loss) || u.gradient.tensor != CV_ALL_FINITE)
        return not_finite(l, &u.gradient, report->loss, err);
    publish(l);
    l->at.step++;
    report->step = l->at.step;
    report->rows = l->at.step * t->step_rows;
    report->learning_rate = u.lr;
    report->gradient_norm = u.gradient.norm;
    return CORVID_OK;
}

/* ---- Scoring and saving ---------------------------------------------------------------------- */

static void swap_work(const cv_member *me, void *arg)
{
    const loop *l = arg;
    for (size_t i = 0; i < l->learner->n_params; i++) {
        const cv_adam_tensor *t = &l->tensors[i];
        size_t lo, hi;
        cv_share(me, t->n, &lo, &hi);
        for (size_t j = lo; j < hi; j++) {
            const float value = t->value[j];
            t->value[j] = t->average[j];
            t->average[j] = value;
        }
    }
}

/* The weights and their running means change places; a second time everything is as it was. */
static void swap_averages(loop *l)
{
    if (!(l->recipe->average > 0.0)) return;
    cv_team_run(l->recipe->team, swap_work, l);
    publish(l);
}

static corvid_status save_model(loop *l, const char *name, corvid_error *err)
{
    char path[CV_RUN_PATH];
    const cv_convert_settings settings = {
        .format = CV_SAFETENSORS, .keep = true, .vocab = l->task->vocab, .classes = l->task->classes
    };
    cv_loop_path(l->recipe, name, path);
    if (l->task->save) return l->task->save(l->task->ctx, path, err);
    const cv_source source = cv_learner_source(l->learner);
    return cv_convert_source(l->mem, &source, path, &settings, err);
}

/* Measures.  counts: the steps at which this is due whether or not the run was ever stopped. */
static corvid_status evaluate(loop *l, bool counts, cv_run_report *report, corvid_error *err)
{
    cv_run_score score = { .loss = (double)NAN, .accuracy = (double)NAN };
    CV_TRY(l->task->score(l->task->ctx, &score, err));
    report->validation = score.loss;
    report->accuracy = score.accuracy;
    if (!counts || !(score.loss < l->at.best)) return CORVID_OK;
    l->at.best = score.loss;
    return l->recipe->keep_best ? save_model(l, "best.safetensors", err) : CORVID_OK;
}

static corvid_status save_resume(const loop *l, corvid_error *err)
{
    char path[CV_RUN_PATH];
    cv_loop_path(l->recipe, "resume.bin", path);
    return cv_resume_save(l->learner, l->tensors, &l->at, path, err);
}

/* What is to be done behind a step. */
typedef struct due {
    bool evaluate, counts, save;
} due;

/* With a running mean both see that; then the weights come back, to learn on. */
static corvid_status look_and_save(loop *l, const due *todo, cv_run_report *report,
                                   corvid_error *err)
{
    corvid_status status = CORVID_OK;
    if (!todo->evaluate && !todo->save) return CORVID_OK;
    swap_averages(l);
    if (todo->evaluate) status = evaluate(l, todo->counts, report, err);
    if (status == CORVID_OK && todo->save) status = save_model(l, "model.safetensors", err);
    swap_averages(l);
    if (status == CORVID_OK && todo->save) status = save_resume(l, err);
    report->saved = status == CORVID_OK && todo->save;
    return status;
}

/* ---- The run --------------------------------------------------------------------------------- */

static double seconds_of(const loop *l)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - l->started.tv_sec) +
           1e-9 * (double)(now.tv_nsec - l->started.tv_nsec);
}

static bool is_due(uint64_t every, uint64_t step, uint64_t steps)
{
    return step == steps || (every && step % every == 0);
}

static size_t bytes_of(const loop *l)
{
    size_t n = 0;
    for (size_t i = 0; l->recipe->average > 0.0 && i < l->learner->n_params; i++)
        n += l->tensors[i].n;
    return l->task->memory_bytes + n * sizeof *l->moments;
}

static corvid_status train(loop *l, corvid_error *err)
{
    const cv_recipe *r = l->recipe;
    const uint64_t steps = l->task->steps;
    while (l->at.step < steps) {
        cv_run_report report = { .steps = steps,
                                 .validation = (double)NAN,
                                 .accuracy = (double)NAN,
                                 .memory_bytes = bytes_of(l) };
        CV_TRY(one_step(l, &report, err));
        const bool late = r->max_seconds > 0.0 && seconds_of(l) >= r->max_seconds;
        const bool stop = r->cancel && r->cancel(r->ctx);
        const bool counts = is_due(r->evaluate_every, l->at.step, steps);
        const due todo = { .evaluate = l->task->score && (counts || late),
                           .counts = counts,
                           .save = stop || late || is_due(r->save_every, l->at.step, steps) };
        CV_TRY(look_and_save(l, &todo, &report, err));
        if (r->report) r->report(r->ctx, &report);
        if (stop && l->at.step < steps)
            return cv_fail(err, CORVID_E_CANCELLED,
                           "stopped after step %llu of %llu; --resume goes on from here",
                           (unsigned long long)l->at.step, (unsigned long long)steps);
        if (late) break;
    }
    return CORVID_OK;
}

corvid_status cv_loop_run(const corvid_allocator *mem, const cv_recipe *recipe, const cv_task *task,
                          corvid_error *err)
{
    loop l = { .mem = mem, .recipe = recipe, .task = task, .learner = task->learner };
    corvid_status status = open_loop(&l, err);
    if (status == CORVID_OK) status = train(&l, err);
    close_loop(&l);
    return status;
}
