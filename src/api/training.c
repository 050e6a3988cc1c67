/* training.c - training models. */
#include <string.h>
#include <time.h>

#include "api/handles.h"
#include "train/language_run.h"

void corvid_train_language_defaults(corvid_train_language_options *options)
{
    *options = (corvid_train_language_options){ .struct_size = sizeof *options,
                                                .arch = "rwkv7",
                                                .layers = 6,
                                                .width = 256,
                                                .seed = 1,
                                                .steps = 1000,
                                                .batch = 8,
                                                .context = 256,
                                                .learning_rate = 1e-3,
                                                .final_learning_rate = 1e-5,
                                                .warmup = 10,
                                                .beta1 = 0.9,
                                                .beta2 = 0.99,
                                                .eps = 1e-18,
                                                .weight_decay = 0.001,
                                                .clip = 1.0,
                                                .l2_wrap = 1e-4,
                                                .validation = 0.1,
                                                .evaluate_every = 100,
                                                .evaluate_tokens = 65536,
                                                .save_every = 500 };
}

/* Between the run's callbacks and the caller's. */
typedef struct bridge {
    const corvid_train_language_options *o;
    struct timespec started;
} bridge;

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + 1e-9 * (double)(now.tv_nsec - start->tv_nsec);
}

static void forward_report(void *ctx, const cv_run_report *r)
{
    const bridge *b = ctx;
    const corvid_training_report report = { .step = r->step,
                                            .steps = r->steps,
                                            .tokens = r->tokens,
                                            .loss = r->loss,
                                            .validation = r->validation,
                                            .learning_rate = r->learning_rate,
                                            .gradient_norm = r->gradient_norm,
                                            .seconds = seconds_since(&b->started),
                                            .memory_bytes = r->memory_bytes,
                                            .saved = r->saved };
    if (b->o->report) b->o->report(b->o->callback_ctx, &report);
}

static void forward_progress(void *ctx, uint64_t done, uint64_t total)
{
    const bridge *b = ctx;
    if (b->o->progress) b->o->progress(b->o->callback_ctx, done, total);
}

static int forward_cancel(void *ctx)
{
    const bridge *b = ctx;
    return b->o->cancel ? b->o->cancel(b->o->callback_ctx) : 0;
}

static corvid_status check_options(const corvid_train_language_options *o, corvid_error *err)
{
    if (!o->arch || !o->out || o->n_data == 0 || !o->data)
        return cv_fail(err, CORVID_E_ARGUMENT, "training needs an architecture, data and a folder");
    if (o->steps == 0 || o->batch == 0 || o->context == 0 || o->batch > 65536 ||
        o->context > (size_t)1 << 24)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%llu steps of %zu sequences of %zu tokens; expected at least 1 of each",
                       (unsigned long long)o->steps, o->batch, o->context);
    if (!(o->learning_rate > 0.0) || !(o->final_learning_rate >= 0.0) || !(o->beta1 >= 0.0) ||
        !(o->beta1 < 1.0) || !(o->beta2 >= 0.0) || !(o->beta2 < 1.0) || !(o->eps > 0.0) ||
        !(o->weight_decay >= 0.0) || !(o->clip >= 0.0) || !(o->l2_wrap >= 0.0) ||
        !(o->validation >= 0.0) || !(o->validation <= 0.9))
        return cv_fail(err, CORVID_E_ARGUMENT, "a number of the optimiser is out of range");
    return CORVID_OK;
}

corvid_status corvid_train_language(const corvid_train_language_options *options, corvid_error *err)
{
    corvid_train_language_options o;
    corvid_train_language_defaults(&o);
    if (options->struct_size == 0 || options->struct_size > sizeof o)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "training options: struct_size is %zu, expected at most %zu; fill them with "
                       "corvid_train_language_defaults",
                       options->struct_size, sizeof o);
    memcpy(&o, options, options->struct_size);
    CV_TRY(check_options(&o, err));
    cv_cpu_level level = cv_cpu_best();
    if (o.cpu && (!cv_cpu_level_parse(o.cpu, &level) || !cv_kernels_for(level)))
        return cv_fail(err, CORVID_E_ARGUMENT, "%s: no such kernels here; the best are %s", o.cpu,
                       cv_cpu_level_name(cv_cpu_best()));
    const corvid_allocator *mem = o.allocator ? o.allocator : &cv_libc_allocator;
    bridge b = { .o = &o };
    clock_gettime(CLOCK_MONOTONIC, &b.started);
    cv_language_run run = { .arch = o.arch,
                            .layers = o.layers,
                            .width = o.width,
                            .vocab = o.vocab,
                            .data = o.data,
                            .n_data = o.n_data,
                            .out = o.out,
                            .resume = o.resume != 0,
                            .seed = o.seed,
                            .steps = o.steps,
                            .batch = o.batch,
                            .context = o.context,
                            .learning_rate = o.learning_rate,
                            .final_learning_rate = o.final_learning_rate,
                            .warmup = o.warmup,
                            .beta1 = o.beta1,
                            .beta2 = o.beta2,
                            .eps = o.eps,
                            .weight_decay = o.weight_decay,
                            .clip = o.clip,
                            .l2_wrap = o.l2_wrap,
                            .validation = o.validation,
                            .evaluate_every = o.evaluate_every,
                            .evaluate_tokens = o.evaluate_tokens,
                            .save_every = o.save_every,
                            .kernel = cv_kernels_for(level),
                            .report = forward_report,
                            .progress = forward_progress,
                            .cancel = forward_cancel,
                            .ctx = &b };
    size_t n = o.n_threads ? o.n_threads : cv_cpu_count();
    CV_TRY(cv_team_new(mem, n > CV_TEAM_MAX ? CV_TEAM_MAX : n, &run.team, err));
    const corvid_status status = cv_train_language(mem, &run, err);
    cv_team_free(run.team);
    return status;
}
