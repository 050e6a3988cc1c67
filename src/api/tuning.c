/* tuning.c - teaching a language model more, and merging what it learnt: options from outside are
 * checked and handed to src/train/ and src/engine/. */
#include <string.h>

#include "api/file_types.h"
#include "api/recipe.h"
#include "engine/merging.h"
#include "train/finetune_run.h"

/* ---- Teaching more --------------------------------------------------------------------------- */

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

static corvid_status check_options(const corvid_finetune_options *o, corvid_error *err)
{
    if (!o->model || !o->out || o->n_data == 0 || !o->data || !o->targets)
        return cv_fail(err, CORVID_E_ARGUMENT, "fine-tuning needs a model, data and a folder");
    return cv_recipe_check_texts(o->steps, o->batch, o->context, o->l2_wrap, err);
}

static cv_finetune_run run_of(const corvid_finetune_options *o)
{
    return (cv_finetune_run){ .recipe = CV_RECIPE_OF(o),
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

corvid_status corvid_finetune(const corvid_finetune_options *options, corvid_error *err)
{
    corvid_finetune_options o;
    cv_finetune_method method = CV_FINETUNE_LORA;
    corvid_finetune_defaults(&o);
    CV_TRY(cv_take_options(options, options->struct_size, &o, sizeof o, "corvid_finetune_defaults",
                           err));
    CV_TRY(take_method(&o, &method, err));
    CV_TRY(check_options(&o, err));
    cv_finetune_run run = run_of(&o);
    cv_recipe *r = &run.recipe;
    run.method = method;
    CV_TRY(cv_recipe_named(r, o.schedule, o.type, o.cpu, err));
    CV_TRY(cv_recipe_check(r, o.batch, o.validation, err));
    const corvid_allocator *mem = o.allocator ? o.allocator : &cv_libc_allocator;
    cv_bridge b = CV_BRIDGE_OF(&o);
    CV_TRY(cv_recipe_equip(r, &b, o.n_threads, mem, err));
    const corvid_status status = cv_finetune(mem, &run, err);
    cv_team_free(r->team);
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
    if (options)
        CV_TRY(cv_take_options(options, options->struct_size, &o, sizeof o, "corvid_merge_defaults",
                               err));
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
