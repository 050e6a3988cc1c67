/* tuning.c - teaching a language model more, and merging what it learnt: options from outside are
 * checked and handed to src/train/ and src/engine/. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "api/file_types.h"
#include "api/handles.h"
#include "engine/merging.h"
#include "train/finetune_run.h"

/* ---- Between the run's callbacks and the caller's -------------------------------------------- */

typedef struct bridge {
    const corvid_finetune_options *o;
    struct timespec started;
} bridge;

static void forward_report(void *ctx, const cv_run_report *r)
{
    const bridge *b = ctx;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const corvid_training_report report = { .step = r->step,
                                            .steps = r->steps,
                                            .tokens = r->rows,
                                            .loss = r->loss,
                                            .validation = r->validation,
                                            .accuracy = r->accuracy,
                                            .learning_rate = r->learning_rate,
                                            .gradient_norm = r->gradient_norm,
                                            .seconds =
                                                (double)(now.tv_sec - b->started.tv_sec) +
                                                1e-9 * (double)(now.tv_nsec - b->started.tv_nsec),
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

/* ---- Options --------------------------------------------------------------------------------- */

void corvid_finetune_defaults(corvid_finetune_options *options)
{
    *options = (corvid_finetune_options){ .struct_size = sizeof *options,
                                          .method = "lora",
                                          .seed = 1,
                                          .steps = 200,
                                          .batch = 4,
                                          .context = 256,
                                          .final_learning_rate = -1.0,
                                          .warmup = 10,
                                          .beta1 = 0.9,
                                          .beta2 = 0.99,
                                          .eps = 1e-18,
                                          .clip = 1.0,
                                          .l2_wrap = 1e-4,
                                          .validation = 0.1,
                                          .evaluate_every = 50,
                                          .evaluate_tokens = 65536,
                                          .save_every = 100,
                                          .accumulate = 1,
                                          .schedule = "cosine",
                                          .type = "f32",
                                          .targets = CV_ADAPTER_TARGETS,
                                          .rank = 16,
                                          .alpha = 32.0 };
}

/* What a method is called, and the rates that suit it. */
static const struct {
    const char *name;
    cv_finetune_method method;
    double rate, last; /* last: share of the rate */
} methods[] = { { "lora", CV_FINETUNE_LORA, 1e-4, 0.1 },
                { "full", CV_FINETUNE_FULL, 1e-5, 1.0 },
                { "state", CV_FINETUNE_STATE, 1.0, 0.01 } };

static corvid_status take_method(corvid_finetune_options *o, cv_finetune_method *method,
                                 corvid_error *err)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (o->method && strcmp(o->method, methods[i].name) == 0) {
            *method = methods[i].method;
            if (o->learning_rate == 0.0) o->learning_rate = methods[i].rate;
            if (o->final_learning_rate < 0.0)
                o->final_learning_rate = o->learning_rate * methods[i].last;
            return CORVID_OK;
        }
    return cv_fail(err, CORVID_E_ARGUMENT, "%s: no such method; expected lora, full or state",
                   o->method ? o->method : "(none)");
}

static corvid_status take_curve(const char *name, cv_curve *out, corvid_error *err)
{
    static const struct {
        const char *name;
        cv_curve curve;
    } curves[] = { { "cosine", CV_CURVE_COSINE },
                   { "linear", CV_CURVE_LINEAR },
                   { "exponential", CV_CURVE_EXPONENTIAL },
                   { "mean", CV_CURVE_MEAN },
                   { "constant", CV_CURVE_CONSTANT } };
    for (size_t i = 0; i < sizeof curves / sizeof *curves; i++)
        if (name && strcmp(name, curves[i].name) == 0) {
            *out = curves[i].curve;
            return CORVID_OK;
        }
    return cv_fail(err, CORVID_E_ARGUMENT,
                   "%s: no such schedule; expected cosine, linear, exponential, mean or constant",
                   name ? name : "(none)");
}

/* Is a number in [low, high)?  NAN is not. */
static bool within(double x, double low, double high)
{
    return x >= low && x < high;
}

static corvid_status check_numbers(const corvid_finetune_options *o, corvid_error *err)
{
    const double most = (double)INFINITY;
    if (o->steps == 0 || o->batch == 0 || o->context == 0 || o->batch > 65536 ||
        o->context > (size_t)1 << 24)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%llu steps of %zu sequences of %zu tokens; expected at least 1 of each",
                       (unsigned long long)o->steps, o->batch, o->context);
    if (o->accumulate == 0 || o->accumulate > o->batch)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "a batch of %zu cannot be cut into %zu parts; expected 1 to %zu", o->batch,
                       o->accumulate, o->batch);
    if (!(o->learning_rate > 0.0) || !within(o->learning_rate, 0.0, most) ||
        !within(o->final_learning_rate, 0.0, most) || !within(o->beta1, 0.0, 1.0) ||
        !within(o->beta2, 0.0, 1.0) || !(o->eps > 0.0) || !within(o->weight_decay, 0.0, most) ||
        !within(o->clip, 0.0, most) || !within(o->average, 0.0, 1.0) ||
        !within(o->max_seconds, 0.0, most) || !within(o->l2_wrap, 0.0, most) ||
        !(o->validation >= 0.0 && o->validation <= 0.9))
        return cv_fail(err, CORVID_E_ARGUMENT, "a number of the optimiser is out of range");
    return CORVID_OK;
}

static corvid_status check_options(const corvid_finetune_options *o, corvid_error *err)
{
    if (!o->model || !o->out || o->n_data == 0 || !o->data || !o->targets)
        return cv_fail(err, CORVID_E_ARGUMENT, "fine-tuning needs a model, data and a folder");
    if (!o->type || (strcmp(o->type, "f32") != 0 && strcmp(o->type, "bf16") != 0))
        return cv_fail(err, CORVID_E_ARGUMENT, "%s: training is in f32 or bf16",
                       o->type ? o->type : "(none)");
    return check_numbers(o, err);
}

static cv_recipe recipe_of(const corvid_finetune_options *o)
{
    return (cv_recipe){ .out = o->out,
                        .resume = o->resume != 0,
                        .seed = o->seed,
                        .steps = o->steps,
                        .accumulate = o->accumulate,
                        .learning_rate = o->learning_rate,
                        .final_learning_rate = o->final_learning_rate,
                        .warmup = o->warmup,
                        .beta1 = o->beta1,
                        .beta2 = o->beta2,
                        .eps = o->eps,
                        .weight_decay = o->weight_decay,
                        .clip = o->clip,
                        .average = o->average,
                        .evaluate_every = o->evaluate_every,
                        .save_every = o->save_every,
                        .keep_best = o->keep_best != 0,
                        .max_seconds = o->max_seconds,
                        .bf16 = strcmp(o->type, "bf16") == 0,
                        .recompute = o->recompute != 0,
                        .report = forward_report,
                        .progress = forward_progress,
                        .cancel = forward_cancel };
}

static cv_finetune_run run_of(const corvid_finetune_options *o)
{
    return (cv_finetune_run){ .recipe = recipe_of(o),
                              .model = o->model,
                              .vocab = o->vocab,
                              .folder = o->vocab_folder,
                              .adapter = { .targets = o->targets,
                                           .rank = o->rank,
                                           .alpha = o->alpha,
                                           .vectors = o->vectors != 0,
                                           .seed = o->seed },
                              .from = o->from,
                              .from_alpha = o->from_alpha,
                              .data = o->data,
                              .n_data = o->n_data,
                              .batch = o->batch,
                              .context = o->context,
                              .l2_wrap = o->l2_wrap,
                              .validation = o->validation,
                              .evaluate_tokens = o->evaluate_tokens };
}

/* The size of a caller's options, which may be of an older version. */
static corvid_status check_size(size_t size, size_t most, const char *defaults, corvid_error *err)
{
    if (size != 0 && size <= most) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT,
                   "options: struct_size is %zu, expected at most %zu; fill them with %s", size,
                   most, defaults);
}

corvid_status corvid_finetune(const corvid_finetune_options *options, corvid_error *err)
{
    corvid_finetune_options o;
    cv_finetune_method method = CV_FINETUNE_LORA;
    cv_cpu_level level = cv_cpu_best();
    corvid_finetune_defaults(&o);
    CV_TRY(check_size(options->struct_size, sizeof o, "corvid_finetune_defaults", err));
    memcpy(&o, options, options->struct_size);
    CV_TRY(take_method(&o, &method, err));
    CV_TRY(check_options(&o, err));
    cv_finetune_run run = run_of(&o);
    run.method = method;
    CV_TRY(take_curve(o.schedule, &run.recipe.curve, err));
    if (o.cpu && (!cv_cpu_level_parse(o.cpu, &level) || !cv_kernels_for(level)))
        return cv_fail(err, CORVID_E_ARGUMENT, "%s: no such kernels here; the best are %s", o.cpu,
                       cv_cpu_level_name(cv_cpu_best()));
    run.recipe.kernel = cv_kernels_for(level);
    const corvid_allocator *mem = o.allocator ? o.allocator : &cv_libc_allocator;
    const size_t n = o.n_threads ? o.n_threads : cv_cpu_count();
    bridge b = { .o = &o };
    clock_gettime(CLOCK_MONOTONIC, &b.started);
    run.recipe.ctx = &b;
    CV_TRY(cv_team_new(mem, n > CV_TEAM_MAX ? CV_TEAM_MAX : n, &run.recipe.team, err));
    const corvid_status status = cv_finetune(mem, &run, err);
    cv_team_free(run.recipe.team);
    return status;
}

/* ---- Merging ---------------------------------------------------------------------------------- */

void corvid_merge_defaults(corvid_merge_options *options)
{
    *options = (corvid_merge_options){ .struct_size = sizeof *options };
}

corvid_status corvid_merge(const char *base, const char *adapter, const char *out,
                           const corvid_merge_options *options, corvid_error *err)
{
    corvid_merge_options o;
    corvid_merge_defaults(&o);
    if (options) {
        CV_TRY(check_size(options->struct_size, sizeof o, "corvid_merge_defaults", err));
        memcpy(&o, options, options->struct_size);
    }
    cv_convert_settings s = { .keep = o.type == NULL,
                              .vocab = o.vocab,
                              .progress = o.progress,
                              .cancel = o.cancel,
                              .log = o.log,
                              .ctx = o.callback_ctx };
    const cv_adapter_choice choice = { .alpha = o.alpha, .initial = o.initial };
    CV_TRY(cv_file_format(o.format, out, &s.format, err));
    if (o.type) CV_TRY(cv_file_type(o.type, &s.type, err));
    return cv_merge(&cv_libc_allocator, base, adapter, &choice, out, &s, err);
}
