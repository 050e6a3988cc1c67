/* model.c - opening models and asking about them. */
#include <string.h>

#include "api/handles.h"
#include "engine/see.h"

#define TEXT(x)       #x
#define DOTS(x, y, z) TEXT(x) "." TEXT(y) "." TEXT(z)

const char *corvid_version(void)
{
    return DOTS(CORVID_VERSION_MAJOR, CORVID_VERSION_MINOR, CORVID_VERSION_PATCH);
}

void corvid_model_defaults(corvid_model_options *options)
{
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
}

/* The caller's options, however short the struct of the version it was compiled with. */
static corvid_status read_options(const corvid_model_options *given, corvid_model_options *out,
                                  corvid_error *err)
{
    corvid_model_defaults(out);
    if (!given) return CORVID_OK;
    if (given->struct_size == 0 || given->struct_size > sizeof *out)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "model options: struct_size is %zu, expected at most %zu; fill them with "
                       "corvid_model_defaults",
                       given->struct_size, sizeof *out);
    memcpy(out, given, given->struct_size);
    out->struct_size = sizeof *out;
    if (out->n_threads > CV_TEAM_MAX || out->chunk > CV_CHUNK_MAX)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "model options: %zu threads (at most %d) and a chunk of %zu rows (at most "
                       "%zu)",
                       out->n_threads, CV_TEAM_MAX, out->chunk, CV_CHUNK_MAX);
    if (!(out->group_norm_eps >= 0.0f && out->group_norm_eps < 1.0f))
        return cv_fail(err, CORVID_E_ARGUMENT, "model options: group_norm_eps is out of range");
    return CORVID_OK;
}

static cv_engine_options engine_options(const corvid_model_options *o)
{
    return (cv_engine_options){ .n_threads = o->n_threads,
                                .chunk = o->chunk,
                                .cpu = o->cpu,
                                .group_norm_eps = o->group_norm_eps,
                                .memory_limit = o->memory_limit,
                                .bi_wkv = o->bi_wkv,
                                .norm = o->norm,
                                .log = o->log,
                                .progress = o->progress,
                                .cancel = o->cancel,
                                .ctx = o->callback_ctx };
}

static const corvid_allocator *allocator_of(const corvid_model_options *o)
{
    return o->allocator ? o->allocator : &cv_libc_allocator;
}

/* A tokenizer that is not found is an error only where it was named. */
static corvid_status find_tokenizer(corvid_model *m, const cv_source *source, const char *path,
                                    const corvid_model_options *o, corvid_error *err)
{
    m->no_tokenizer.status =
        cv_vocabulary_find(&m->allocator, source->sizes.V, o->vocab, source->ckpt, path,
                           o->vocab_folder, &m->tokenizer.tok, &m->no_tokenizer);
    if (o->vocab && m->no_tokenizer.status != CORVID_OK)
        return cv_fail(err, m->no_tokenizer.status, "%s", m->no_tokenizer.text);
    return CORVID_OK;
}

static corvid_status find_classes(corvid_model *m, const cv_source *source, const char *path,
                                  const corvid_model_options *o, corvid_error *err)
{
    m->no_tokenizer.status =
        cv_fail(&m->no_tokenizer, CORVID_E_ARGUMENT,
                "this is a vision model (%s); it is shown pictures: corvid classify, corvid "
                "features",
                source->arch->name);
    return cv_class_names_find(&m->allocator, source->sizes.K, o->classes, source->ckpt, path,
                               o->vocab_folder, &m->classes, err);
}

/* What both ways of opening share: an engine over a source, and a tokenizer or names of
 * classes if there are any. */
static corvid_status open_source(const cv_source *source, const char *path,
                                 const corvid_model_options *o, corvid_model **out,
                                 corvid_error *err)
{
    corvid_model *m;
    const corvid_allocator *mem = allocator_of(o);
    CV_TRY(cv_alloc_or_fail(mem, 1, sizeof *m, "a model", (void **)&m, err));
    memset(m, 0, sizeof *m);
    m->allocator = *mem;
    m->format = source->ckpt ? cv_format_name(source->ckpt->format) : "random";
    const cv_engine_options options = engine_options(o);
    corvid_status status = cv_engine_open(&m->allocator, source, &options, &m->engine, err);
    if (status != CORVID_OK) {
        cv_free(mem, m);
        return status;
    }
    status = source->arch->stack->vision ? find_classes(m, source, path, o, err)
                                         : find_tokenizer(m, source, path, o, err);
    if (status == CORVID_OK)
        *out = m;
    else
        corvid_model_close(m);
    return status;
}

corvid_status corvid_model_open(const char *path, const corvid_model_options *options,
                                corvid_model **model, corvid_error *err)
{
    corvid_model_options o;
    cv_checkpoint ckpt;
    cv_source source;
    *model = NULL;
    CV_TRY(read_options(options, &o, err));
    CV_TRY(cv_checkpoint_open(allocator_of(&o), path, &ckpt, err));
    corvid_status status = cv_source_open(&ckpt, &source, err);
    if (status == CORVID_OK) status = open_source(&source, path, &o, model, err);
    cv_checkpoint_close(&ckpt);
    return status;
}

static corvid_status parse_type(const char *name, cv_dtype *out, corvid_error *err)
{
    if (cv_dtype_parse(name, out) && cv_dtype_of(*out)->real) return CORVID_OK;
    return cv_fail(
        err, CORVID_E_ARGUMENT,
        "%s: no such weight type; expected f32, f16, bf16, q8_0, q6_k, q5_k, q4_k, q5_1, "
        "q5_0, q4_1 or q4_0",
        name);
}

corvid_status corvid_model_random(const char *shape, const char *type, uint64_t seed,
                                  const corvid_model_options *options, corvid_model **model,
                                  corvid_error *err)
{
    corvid_model_options o;
    cv_dtype dtype;
    cv_source source;
    *model = NULL;
    CV_TRY(read_options(options, &o, err));
    CV_TRY(parse_type(type, &dtype, err));
    CV_TRY(cv_source_random(shape, dtype, seed, &source, err));
    return open_source(&source, NULL, &o, model, err);
}

const char *corvid_shape_name(size_t i)
{
    return cv_source_shape_name(i);
}

void corvid_model_close(corvid_model *model)
{
    if (!model) return;
    corvid_allocator mem = model->allocator;
    cv_tokenizer_free(model->tokenizer.tok);
    cv_class_names_free(&mem, &model->classes);
    cv_engine_close(&model->engine);
    cv_free(&mem, model);
}

corvid_status corvid_model_get_info(const corvid_model *model, corvid_model_info *info,
                                    corvid_error *err)
{
    const cv_engine *e = &model->engine;
    const cv_sizes *s = &e->model.sizes;
    const bool vision = e->eye != NULL;
    const size_t given = info->struct_size;
    if (given == 0 || given > sizeof *info)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "model info: struct_size is %zu, expected at most %zu", given, sizeof *info);
    const corvid_model_info all = {
        .struct_size = given,
        .arch = e->model.arch->name,
        .format = model->format,
        .weight_type = cv_dtype_of(e->model.main_type)->name,
        .cpu = cv_cpu_level_name(e->kernel->level),
        .tokenizer = model->tokenizer.tok ? corvid_tokenizer_name(&model->tokenizer) : NULL,
        .n_vocab = s->V,
        .n_embd = s->C,
        .n_layers = s->L,
        .n_att = s->A,
        .n_ffn = s->F,
        .n_heads = s->H,
        .head_size = s->N,
        .n_parameters = e->model.n_parameters,
        .weight_bytes = e->model.weight_bytes,
        .workspace_bytes = e->workspace_bytes,
        .state_bytes = vision ? 0 : cv_state_size(&e->model) * sizeof(float),
        .fingerprint = e->model.fingerprint,
        .n_threads = cv_team_size(e->team),
        .vision = vision,
        .n_classes = e->model.head.rows ? s->K : 0,
        .patch = s->p,
        .native = vision ? cv_see_native(s) : 0,
        .class_token = e->model.vision.class_token != NULL,
        .has_class_names = model->classes.names != NULL,
    };
    memcpy(info, &all, given);
    return CORVID_OK;
}

corvid_status corvid_memory_estimate(const char *path, const corvid_model_options *options,
                                     corvid_memory *memory, corvid_error *err)
{
    corvid_model_options o;
    cv_checkpoint ckpt;
    cv_source source;
    size_t weights = 0, workspace = 0, state = 0;
    CV_TRY(read_options(options, &o, err));
    CV_TRY(cv_checkpoint_open(allocator_of(&o), path, &ckpt, err));
    const cv_engine_options e = engine_options(&o);
    corvid_status status = cv_source_open(&ckpt, &source, err);
    if (status == CORVID_OK) status = cv_weights_measure(&source, &weights, err);
    if (status == CORVID_OK) status = cv_engine_measure(&source, &e, &workspace, &state, err);
    cv_checkpoint_close(&ckpt);
    if (status != CORVID_OK) return status;
    *memory = (corvid_memory){ weights, workspace, state, cv_memory_available() };
    return CORVID_OK;
}

corvid_status corvid_checkpoint_list(const char *path,
                                     void (*each)(void *ctx, const corvid_tensor_info *info),
                                     void *ctx, corvid_error *err)
{
    cv_checkpoint ckpt;
    CV_TRY(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, err));
    for (size_t i = 0; i < ckpt.n_tensors; i++) {
        const cv_tensor *t = &ckpt.tensors[i];
        size_t bytes = 0;
        cv_dtype_bytes(t->dtype, t->count, &bytes);
        corvid_tensor_info info = { .name = t->name,
                                    .type = cv_dtype_of(t->dtype)->name,
                                    .n_dims = (size_t)t->n_dims,
                                    .bytes = bytes };
        memcpy(info.dims, t->dims, sizeof info.dims);
        each(ctx, &info);
    }
    cv_checkpoint_close(&ckpt);
    return CORVID_OK;
}
