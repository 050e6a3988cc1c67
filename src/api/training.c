/* training.c - training models: options from outside are checked and handed to src/train/. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "api/handles.h"
#include "train/language_run.h"
#include "train/picture_run.h"

/* ---- Between the run's callbacks and the caller's -------------------------------------------- */

typedef struct bridge {
    void (*report)(void *ctx, const corvid_training_report *report);
    corvid_progress_fn progress;
    corvid_cancel_fn cancel;
    void *ctx;
    bool pictures; /* what the run counts */
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
                                            .tokens = b->pictures ? 0 : r->rows,
                                            .pictures = b->pictures ? r->rows : 0,
                                            .loss = r->loss,
                                            .validation = r->validation,
                                            .accuracy = r->accuracy,
                                            .learning_rate = r->learning_rate,
                                            .gradient_norm = r->gradient_norm,
                                            .seconds = seconds_since(&b->started),
                                            .memory_bytes = r->memory_bytes,
                                            .saved = r->saved };
    if (b->report) b->report(b->ctx, &report);
}

static void forward_progress(void *ctx, uint64_t done, uint64_t total)
{
    const bridge *b = ctx;
    if (b->progress) b->progress(b->ctx, done, total);
}

static int forward_cancel(void *ctx)
{
    const bridge *b = ctx;
    return b->cancel ? b->cancel(b->ctx) : 0;
}

/* ---- Options --------------------------------------------------------------------------------- */

static corvid_status parse_curve(const char *name, cv_curve *out, corvid_error *err)
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

static corvid_status parse_type(const char *name, bool *bf16, corvid_error *err)
{
    *bf16 = name && strcmp(name, "bf16") == 0;
    if (*bf16 || (name && strcmp(name, "f32") == 0)) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT, "%s: training is in f32 or bf16",
                   name ? name : "(none)");
}

static corvid_status parse_cpu(const char *name, const cv_kernels **out, corvid_error *err)
{
    cv_cpu_level level;
    *out = cv_kernels_widest();
    if (!name) return CORVID_OK;
    *out = cv_cpu_level_parse(name, &level) ? cv_kernels_for(level) : NULL;
    if (*out) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT, "%s: no such kernels here; the best are %s", name,
                   cv_cpu_level_name(cv_kernels_widest()->level));
}

/* Is a number in [low, high)?  NAN is not. */
static bool within(double x, double low, double high)
{
    return x >= low && x < high;
}

static corvid_status check_recipe(const cv_recipe *r, size_t batch, double validation,
                                  corvid_error *err)
{
    const double most = (double)INFINITY;
    if (!(r->learning_rate > 0.0) || !within(r->learning_rate, 0.0, most) ||
        !within(r->final_learning_rate, 0.0, most) || !within(r->beta1, 0.0, 1.0) ||
        !within(r->beta2, 0.0, 1.0) || !(r->eps > 0.0) || !within(r->weight_decay, 0.0, most) ||
        !within(r->clip, 0.0, most) || !within(r->average, 0.0, 1.0) ||
        !within(r->max_seconds, 0.0, most) || !(validation >= 0.0 && validation <= 0.9))
        return cv_fail(err, CORVID_E_ARGUMENT, "a number of the optimiser is out of range");
    if (r->accumulate == 0 || r->accumulate > batch)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "a batch of %zu cannot be cut into %zu parts; expected 1 to %zu", batch,
                       r->accumulate, batch);
    return CORVID_OK;
}

/* The size of a caller's options, which may be of an older version. */
static corvid_status take_options(const void *given, size_t size, void *out, size_t most,
                                  const char *defaults, corvid_error *err)
{
    if (size < sizeof size || size > most)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "training options: struct_size is %zu, expected at most %zu; fill them with "
                       "%s",
                       size, most, defaults);
    memcpy(out, given, size);
    return CORVID_OK;
}

/* Gives the recipe a team and the bridge's callbacks; the caller frees the team. */
static corvid_status equip(cv_recipe *r, bridge *b, size_t n_threads, const corvid_allocator *mem,
                           corvid_error *err)
{
    const size_t n = n_threads ? n_threads : cv_cpu_count();
    clock_gettime(CLOCK_MONOTONIC, &b->started);
    r->report = forward_report;
    r->progress = forward_progress;
    r->cancel = forward_cancel;
    r->ctx = b;
    return cv_team_new(mem, n > CV_TEAM_MAX ? CV_TEAM_MAX : n, &r->team, err);
}

/* ---- Language models ------------------------------------------------------------------------- */

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
                                                .save_every = 500,
                                                .accumulate = 1,
                                                .schedule = "cosine",
                                                .type = "f32" };
}

static cv_language_run language_run(const corvid_train_language_options *o)
{
    return (cv_language_run){ .recipe = { .out = o->out,
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
                                          .recompute = o->recompute != 0 },
                              .arch = o->arch,
                              .layers = o->layers,
                              .width = o->width,
                              .vocab = o->vocab,
                              .data = o->data,
                              .n_data = o->n_data,
                              .batch = o->batch,
                              .context = o->context,
                              .l2_wrap = o->l2_wrap,
                              .validation = o->validation,
                              .evaluate_tokens = o->evaluate_tokens };
}

static corvid_status check_language(const corvid_train_language_options *o, corvid_error *err)
{
    if (!o->arch || !o->out || o->n_data == 0 || !o->data)
        return cv_fail(err, CORVID_E_ARGUMENT, "training needs an architecture, data and a folder");
    if (o->steps == 0 || o->batch == 0 || o->context == 0 || o->batch > 65536 ||
        o->context > (size_t)1 << 24)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%llu steps of %zu sequences of %zu tokens; expected at least 1 of each",
                       (unsigned long long)o->steps, o->batch, o->context);
    if (!within(o->l2_wrap, 0.0, (double)INFINITY))
        return cv_fail(err, CORVID_E_ARGUMENT, "l2_wrap is %g, expected 0 or more", o->l2_wrap);
    return CORVID_OK;
}

corvid_status corvid_train_language(const corvid_train_language_options *options, corvid_error *err)
{
    corvid_train_language_options o;
    corvid_train_language_defaults(&o);
    CV_TRY(take_options(options, options->struct_size, &o, sizeof o,
                        "corvid_train_language_defaults", err));
    CV_TRY(check_language(&o, err));
    cv_language_run run = language_run(&o);
    cv_recipe *r = &run.recipe;
    CV_TRY(parse_curve(o.schedule, &r->curve, err));
    CV_TRY(parse_type(o.type, &r->bf16, err));
    CV_TRY(parse_cpu(o.cpu, &r->kernel, err));
    CV_TRY(check_recipe(r, o.batch, o.validation, err));
    const corvid_allocator *mem = o.allocator ? o.allocator : &cv_libc_allocator;
    bridge b = {
        .report = o.report, .progress = o.progress, .cancel = o.cancel, .ctx = o.callback_ctx
    };
    CV_TRY(equip(r, &b, o.n_threads, mem, err));
    const corvid_status status = cv_train_language(mem, &run, err);
    cv_team_free(r->team);
    return status;
}

/* ---- Vision models --------------------------------------------------------------------------- */

void corvid_train_vision_defaults(corvid_train_vision_options *options)
{
    *options = (corvid_train_vision_options){ .struct_size = sizeof *options,
                                              .arch = "vrwkv",
                                              .layers = 12,
                                              .width = 192,
                                              .side = 224,
                                              .patch = 16,
                                              .post_norm = -1,
                                              .key_norm = -1,
                                              .two_layer_head = -1,
                                              .seed = 1,
                                              .steps = 1000,
                                              .batch = 64,
                                              .learning_rate = 1e-3,
                                              .final_learning_rate = -1.0,
                                              .warmup = CV_WARMUP_OFFICIAL,
                                              .beta1 = 0.9,
                                              .beta2 = 0.999,
                                              .eps = 1e-8,
                                              .weight_decay = 0.05,
                                              .clip = 5.0,
                                              .smoothing = 0.1,
                                              .augment = "imagenet",
                                              .flip = -1.0,
                                              .mixup = -1.0,
                                              .cutmix = -1.0,
                                              .validation = 0.1,
                                              .evaluate_every = 100,
                                              .evaluate_pictures = 1000,
                                              .save_every = 500,
                                              .accumulate = 1,
                                              .schedule = "cosine",
                                              .type = "f32" };
}

static cv_choice choice_of(int answer)
{
    return answer < 0 ? CV_AS_OFFICIAL : answer ? CV_YES : CV_NO;
}

/* A preset, and what was asked for beside it. */
static corvid_status take_augment(const corvid_train_vision_options *o, cv_augment *out,
                                  corvid_error *err)
{
    const char *name = o->augment ? o->augment : "none";
    if (strcmp(name, "imagenet") == 0)
        *out = cv_augment_imagenet();
    else if (strcmp(name, "small") == 0)
        *out = cv_augment_small();
    else if (strcmp(name, "none") == 0)
        *out = (cv_augment){ .crop = CV_CROP_MIDDLE };
    else
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s: no such augmentation; expected imagenet, small or none", name);
    if (o->flip >= 0.0) out->flip = o->flip;
    out->mixup = o->mixup >= 0.0 ? o->mixup : 0.0;
    out->cutmix = o->cutmix >= 0.0 ? o->cutmix : 0.0;
    /* How strongly, as official, where the preset does not mix. */
    const cv_augment official = cv_augment_imagenet();
    if (!(out->mixup_alpha > 0.0)) out->mixup_alpha = official.mixup_alpha;
    if (!(out->cutmix_alpha > 0.0)) out->cutmix_alpha = official.cutmix_alpha;
    return cv_augment_check(out, err);
}

static cv_picture_run picture_run(const corvid_train_vision_options *o)
{
    const double last = o->final_learning_rate;
    return (cv_picture_run){ .recipe = { .out = o->out,
                                         .resume = o->resume != 0,
                                         .seed = o->seed,
                                         .steps = o->steps,
                                         .accumulate = o->accumulate,
                                         .learning_rate = o->learning_rate,
                                         .final_learning_rate =
                                             last < 0.0 ? 0.01 * o->learning_rate : last,
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
                                         .recompute = o->recompute != 0 },
                             .shape = { .arch = o->arch,
                                        .layers = o->layers,
                                        .width = o->width,
                                        .image = o->side,
                                        .patch = o->patch,
                                        .post_norm = choice_of(o->post_norm),
                                        .keyed = choice_of(o->key_norm),
                                        .mlp = choice_of(o->two_layer_head) },
                             .data = o->data,
                             .n_data = o->n_data,
                             .epochs = o->epochs,
                             .batch = o->batch,
                             .smoothing = o->smoothing,
                             .drop_path = o->drop_path,
                             .validation = o->validation,
                             .evaluate_pictures = o->evaluate_pictures };
}

static corvid_status check_vision(const corvid_train_vision_options *o, corvid_error *err)
{
    if (!o->arch || !o->out || o->n_data == 0 || !o->data)
        return cv_fail(err, CORVID_E_ARGUMENT, "training needs an architecture, data and a folder");
    if (strncmp(o->arch, "vrwkv", 5) != 0)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s: no architecture for pictures; expected vrwkv or vrwkv6", o->arch);
    if (o->steps == 0 || o->batch == 0 || o->batch > 65536)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%llu steps of %zu pictures; expected at least 1 of each",
                       (unsigned long long)o->steps, o->batch);
    if (!within(o->epochs, 0.0, 1e9) || !within(o->smoothing, 0.0, 1.0) ||
        !within(o->drop_path, 0.0, 1.0))
        return cv_fail(
            err, CORVID_E_ARGUMENT,
            "epochs %g, smoothing %g, drop path %g: expected 0 or more, and the last two "
            "below 1",
            o->epochs, o->smoothing, o->drop_path);
    return CORVID_OK;
}

corvid_status corvid_train_vision(const corvid_train_vision_options *options, corvid_error *err)
{
    corvid_train_vision_options o;
    corvid_train_vision_defaults(&o);
    CV_TRY(take_options(options, options->struct_size, &o, sizeof o, "corvid_train_vision_defaults",
                        err));
    CV_TRY(check_vision(&o, err));
    cv_picture_run run = picture_run(&o);
    cv_recipe *r = &run.recipe;
    CV_TRY(take_augment(&o, &run.augment, err));
    CV_TRY(parse_curve(o.schedule, &r->curve, err));
    CV_TRY(parse_type(o.type, &r->bf16, err));
    CV_TRY(parse_cpu(o.cpu, &r->kernel, err));
    CV_TRY(check_recipe(r, o.batch, o.validation, err));
    const corvid_allocator *mem = o.allocator ? o.allocator : &cv_libc_allocator;
    bridge b = { .report = o.report,
                 .progress = o.progress,
                 .cancel = o.cancel,
                 .ctx = o.callback_ctx,
                 .pictures = true };
    CV_TRY(equip(r, &b, o.n_threads, mem, err));
    const corvid_status status = cv_train_pictures(mem, &run, err);
    cv_team_free(r->team);
    return status;
}
