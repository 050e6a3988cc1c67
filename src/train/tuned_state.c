/* tuned_state.c - the memory that a model begins with, learnt; see tuned_state.h. */
#include <stdio.h>
#include <string.h>

#include "train/adapter.h"
#include "train/tuned_state.h"

/* Layer l of a state in the model's order, behind its shift vectors. */
static float *memory_of(const cv_tuned_state *s, float *state, size_t layer)
{
    const cv_model *m = &s->learner->model;
    return state + layer * m->arch->state_size(&m->sizes) + 2 * m->sizes.C;
}

static corvid_status take_room(cv_tuned_state *s, corvid_error *err)
{
    const cv_learner *l = s->learner;
    const size_t L = l->model.sizes.L, size = cv_state_size(&l->model);
    s->memory = size / L - 2 * l->model.sizes.C;
    s->params = cv_alloc_zero(l->mem, L, sizeof *s->params);
    s->values = cv_alloc_zero(l->mem, L * s->memory, sizeof *s->values);
    s->gradients = cv_alloc_zero(l->mem, L * s->memory, sizeof *s->gradients);
    s->start = cv_alloc_zero(l->mem, size, sizeof *s->start);
    s->start_gradient = cv_alloc_zero(l->mem, size, sizeof *s->start_gradient);
    if (s->params && s->values && s->gradients && s->start && s->start_gradient) return CORVID_OK;
    return cv_fail(err, CORVID_E_MEMORY, "out of memory: a state of %zu numbers", size);
}

static void make_params(cv_tuned_state *s, const cv_field *field)
{
    const cv_model *m = &s->learner->model;
    for (size_t l = 0; l < m->sizes.L; l++) {
        const cv_param like = {
            .view = { .field = field, .layer = l, .rows = 1, .cols = s->memory, .scale = 1.0f }
        };
        char name[96];
        cv_field_name(m->arch, field, CV_OFFICIAL, l, name, sizeof name);
        s->params[l] = cv_param_alone(&like, name, s->values + l * s->memory,
                                      s->gradients + l * s->memory, s->memory);
    }
}

static corvid_status read_file(cv_tuned_state *s, const char *path, corvid_error *err)
{
    const cv_learner *l = s->learner;
    cv_checkpoint ckpt;
    CV_TRY(cv_checkpoint_open(l->mem, path, &ckpt, err));
    const corvid_status status =
        cv_tuned_state_read(l->mem, &ckpt, l->model.arch, &l->model.sizes, s->values, err);
    cv_checkpoint_close(&ckpt);
    return status;
}

/* The model's own. */
static void export_start(cv_tuned_state *s)
{
    const cv_model *m = &s->learner->model;
    cv_state_start(m, s->start);
    for (size_t l = 0; l < m->sizes.L; l++)
        m->arch->state_export(&m->sizes, memory_of(s, s->start, l), s->values + l * s->memory);
}

corvid_status cv_tuned_state_open(cv_learner *learner, const char *path, cv_tuned_state *out,
                                  corvid_error *err)
{
    const cv_arch *arch = learner->model.arch;
    const cv_field *field = cv_tuned_state_field(arch);
    *out = (cv_tuned_state){ .learner = learner };
    if (!field)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s: no initial state can be tuned; official files have one for versions 5, "
                       "6 and 7 alone",
                       arch->name);
    corvid_status status = take_room(out, err);
    if (status == CORVID_OK && path) status = read_file(out, path, err);
    if (status != CORVID_OK) {
        cv_tuned_state_close(out);
        return status;
    }
    if (!path) export_start(out);
    make_params(out, field);
    cv_tuned_state_apply(out);
    learner->start = out->start;
    learner->start_gradient = out->start_gradient;
    return CORVID_OK;
}

void cv_tuned_state_close(cv_tuned_state *s)
{
    cv_learner *l = s->learner;
    if (!l) return;
    if (l->start == s->start) {
        l->start = NULL;
        l->start_gradient = NULL;
    }
    cv_free(l->mem, s->params);
    cv_free(l->mem, s->values);
    cv_free(l->mem, s->gradients);
    cv_free(l->mem, s->start);
    cv_free(l->mem, s->start_gradient);
    *s = (cv_tuned_state){ .learner = NULL };
}

void cv_tuned_state_apply(cv_tuned_state *s)
{
    const cv_model *m = &s->learner->model;
    memset(s->start, 0, cv_state_size(m) * sizeof *s->start);
    for (size_t l = 0; l < m->sizes.L; l++)
        m->arch->state_import(&m->sizes, s->values + l * s->memory, memory_of(s, s->start, l));
}

void cv_tuned_state_clear(cv_tuned_state *s)
{
    memset(s->start_gradient, 0, cv_state_size(&s->learner->model) * sizeof *s->start_gradient);
}

/* Export only moves numbers, so it moves gradients as well. */
void cv_tuned_state_gather(cv_tuned_state *s)
{
    const cv_model *m = &s->learner->model;
    for (size_t l = 0; l < m->sizes.L; l++)
        m->arch->state_export(&m->sizes, memory_of(s, s->start_gradient, l),
                              s->gradients + l * s->memory);
}

cv_learner cv_tuned_state_learner(cv_tuned_state *s)
{
    const cv_learner *l = s->learner;
    return (cv_learner){ .mem = l->mem,
                         .team = l->team,
                         .kernel = l->kernel,
                         .source = l->source,
                         .params = s->params,
                         .n_params = l->model.sizes.L,
                         .slots = s->gradients };
}

corvid_status cv_tuned_state_save(const cv_tuned_state *s, const char *path, corvid_error *err)
{
    const cv_learner *l = s->learner;
    const size_t L = l->model.sizes.L;
    const char *arch = l->model.arch->name;
    const cv_meta meta = { .key = CV_ADAPTER_ARCH_KEY,
                           .type = CV_META_TEXT,
                           .text = { arch, strlen(arch) } };
    cv_tensor *tensors = NULL;
    cv_writer *w = NULL;
    CV_TRY(cv_alloc_or_fail(l->mem, L, sizeof *tensors, path, (void **)&tensors, err));
    for (size_t i = 0; i < L; i++) {
        tensors[i] = (cv_tensor){
            .name = s->params[i].view.name, .dtype = CV_F32, .contiguous = true, .count = s->memory
        };
        tensors[i].n_dims =
            cv_field_dims(&l->source, s->params[i].view.field, CV_OFFICIAL, tensors[i].dims);
    }
    corvid_status status =
        cv_writer_open(l->mem, path, CV_SAFETENSORS, &meta, 1, tensors, L, &w, err);
    if (status == CORVID_OK)
        status = cv_writer_put(w, s->values, L * s->memory * sizeof *s->values, err);
    if (status == CORVID_OK)
        status = cv_writer_commit(w, err);
    else
        cv_writer_discard(w);
    cv_free(l->mem, tensors);
    return status;
}
