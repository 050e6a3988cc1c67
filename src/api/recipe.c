/* recipe.c - what the calls that train have in common; see recipe.h. */
#include <math.h>
#include <string.h>

#include "api/recipe.h"

/* ---- Between the run's callbacks and the caller's -------------------------------------------- */

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + 1e-9 * (double)(now.tv_nsec - start->tv_nsec);
}

static void forward_report(void *ctx, const cv_run_report *r)
{
    const cv_bridge *b = ctx;
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
    const cv_bridge *b = ctx;
    if (b->progress) b->progress(b->ctx, done, total);
}

static int forward_cancel(void *ctx)
{
    const cv_bridge *b = ctx;
    return b->cancel ? b->cancel(b->ctx) : 0;
}

corvid_status cv_recipe_equip(cv_recipe *r, cv_bridge *b, size_t n_threads,
                              const corvid_allocator *mem, corvid_error *err)
{
    const size_t n = n_threads ? n_threads : cv_cpu_count();
    clock_gettime(CLOCK_MONOTONIC, &b->started);
    r->report = forward_report;
    r->progress = forward_progress;
    r->cancel = forward_cancel;
    r->ctx = b;
    return cv_team_new(mem, n > CV_TEAM_MAX ? CV_TEAM_MAX : n, &r->team, err);
}

/* ---- Options --------------------------------------------------------------------------------- */

corvid_status cv_take_options(const void *given, size_t size, void *out, size_t most,
                              const char *defaults, corvid_error *err)
{
    if (size < sizeof size || size > most)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "options: struct_size is %zu, expected at most %zu; fill them with %s", size,
                       most, defaults);
    memcpy(out, given, size);
    return CORVID_OK;
}

bool cv_within(double x, double low, double high)
{
    return x >= low && x < high;
}

static corvid_status parse_curve(const char *name, cv_rate_curve *out, corvid_error *err)
{
    static const struct {
        const char *name;
        cv_rate_curve curve;
    } curves[] = { { "cosine", CV_RATE_COSINE },
                   { "linear", CV_RATE_LINEAR },
                   { "exponential", CV_RATE_EXPONENTIAL },
                   { "mean", CV_RATE_MEAN },
                   { "constant", CV_RATE_CONSTANT } };
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

corvid_status cv_recipe_named(cv_recipe *r, const char *schedule, const char *type, const char *cpu,
                              corvid_error *err)
{
    CV_TRY(parse_curve(schedule, &r->curve, err));
    CV_TRY(parse_type(type, &r->bf16, err));
    return parse_cpu(cpu, &r->kernel, err);
}

corvid_status cv_recipe_check(const cv_recipe *r, size_t batch, double validation,
                              corvid_error *err)
{
    const double most = (double)INFINITY;
    if (!(r->learning_rate > 0.0) || !cv_within(r->learning_rate, 0.0, most) ||
        !cv_within(r->final_learning_rate, 0.0, most) || !cv_within(r->beta1, 0.0, 1.0) ||
        !cv_within(r->beta2, 0.0, 1.0) || !(r->eps > 0.0) ||
        !cv_within(r->weight_decay, 0.0, most) || !cv_within(r->clip, 0.0, most) ||
        !cv_within(r->average, 0.0, 1.0) || !cv_within(r->max_seconds, 0.0, most) ||
        !(validation >= 0.0 && validation <= 0.9))
        return cv_fail(err, CORVID_E_ARGUMENT, "a number of the optimiser is out of range");
    if (r->accumulate == 0 || r->accumulate > batch)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "a batch of %zu cannot be cut into %zu parts; expected 1 to %zu", batch,
                       r->accumulate, batch);
    return CORVID_OK;
}

corvid_status cv_recipe_check_texts(uint64_t steps, size_t batch, size_t context, double l2_wrap,
                                    corvid_error *err)
{
    if (steps == 0 || batch == 0 || context == 0 || batch > 65536 || context > (size_t)1 << 24)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%llu steps of %zu sequences of %zu tokens; expected at least 1 of each, at "
                       "most 65536 sequences and 16777216 tokens",
                       (unsigned long long)steps, batch, context);
    if (!cv_within(l2_wrap, 0.0, (double)INFINITY))
        return cv_fail(err, CORVID_E_ARGUMENT, "l2_wrap is %g, expected 0 or more", l2_wrap);
    return CORVID_OK;
}
