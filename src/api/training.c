/* training.c - training models: options from outside are checked and handed to src/train/. */
#include <string.h>

#include "api/recipe.h"
#include "train/language_run.h"
#include "train/picture_run.h"

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
                                                .type = "f32",
                                                .token_shift = 1 };
}

static cv_language_run language_run(const corvid_train_language_options *o)
{
    return (cv_language_run){ .recipe = CV_RECIPE_OF(o),
                              .arch = o->arch,
                              .layers = o->layers,
                              .width = o->width,
                              .vocab = o->vocab,
                              .data = o->data,
                              .n_data = o->n_data,
                              .batch = o->batch,
                              .context = o->context,
                              .l2_wrap = o->l2_wrap,
                              .no_shift = !o->token_shift,
                              .validation = o->validation,
                              .evaluate_tokens = o->evaluate_tokens };
}

static corvid_status check_language(const corvid_train_language_options *o, corvid_error *err)
{
    if (!o->arch || !o->out || o->n_data == 0 || !o->data)
        return cv_fail(err, CORVID_E_ARGUMENT, "training needs an architecture, data and a folder");
    return cv_recipe_check_texts(o->steps, o->batch, o->context, o->l2_wrap, err);
}

corvid_status corvid_train_language(const corvid_train_language_options *options, corvid_error *err)
{
    corvid_train_language_options o;
    corvid_train_language_defaults(&o);
    CV_TRY(cv_take_options(options, options->struct_size, &o, sizeof o,
                           "corvid_train_language_defaults", err));
    CV_TRY(check_language(&o, err));
    cv_language_run run = language_run(&o);
    cv_recipe *r = &run.recipe;
    CV_TRY(cv_recipe_named(r, o.schedule, o.type, o.cpu, err));
    CV_TRY(cv_recipe_check(r, o.batch, o.validation, err));
    const corvid_allocator *mem = o.allocator ? o.allocator : &cv_libc_allocator;
    cv_bridge b = CV_BRIDGE_OF(&o);
    CV_TRY(cv_recipe_equip(r, &b, o.n_threads, mem, err));
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
    cv_recipe recipe = CV_RECIPE_OF(o);
    if (recipe.final_learning_rate < 0.0) recipe.final_learning_rate = 0.01 * o->learning_rate;
    return (cv_picture_run){ .recipe = recipe,
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
    if (!cv_within(o->epochs, 0.0, 1e9) || !cv_within(o->smoothing, 0.0, 1.0) ||
        !cv_within(o->drop_path, 0.0, 1.0))
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
    CV_TRY(cv_take_options(options, options->struct_size, &o, sizeof o,
                           "corvid_train_vision_defaults", err));
    CV_TRY(check_vision(&o, err));
    cv_picture_run run = picture_run(&o);
    cv_recipe *r = &run.recipe;
    CV_TRY(take_augment(&o, &run.augment, err));
    CV_TRY(cv_recipe_named(r, o.schedule, o.type, o.cpu, err));
    CV_TRY(cv_recipe_check(r, o.batch, o.validation, err));
    const corvid_allocator *mem = o.allocator ? o.allocator : &cv_libc_allocator;
    cv_bridge b = CV_BRIDGE_OF(&o);
    b.pictures = true;
    CV_TRY(cv_recipe_equip(r, &b, o.n_threads, mem, err));
    const corvid_status status = cv_train_pictures(mem, &run, err);
    cv_team_free(r->team);
    return status;
}
