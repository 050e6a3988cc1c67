/* learner.c - a model that learns; see learner.h. */
#include <math.h>
#include <string.h>

#include "train/learner.h"

/* ---- Parameters ------------------------------------------------------------------------------ */

static void *slot_of(cv_model *model, const cv_view *view)
{
    unsigned char *owner = cv_of_stack(model->arch, view->field)
                               ? (unsigned char *)model
                               : model->layers + view->layer * model->arch->layer_bytes;
    return owner + view->field->offset;
}

/* What the list of parameters takes. */
typedef struct census {
    cv_learner *learner;
    size_t n, n_matrices, floats, panel_bytes;
} census;

static bool is_matrix(const cv_field *field)
{
    return field->kind == CV_MATRIX || field->kind == CV_LOW_RANK || field->kind == CV_FILTER;
}

/* Does the model read the official value where it lies? */
static bool is_direct(const cv_field *field)
{
    return field->kind == CV_TABLE || (field->kind == CV_VECTOR && field->transform == CV_AS_IS &&
                                       !(field->flags & CV_PER_HEAD));
}

/* How a matrix lies while it is trained. */
static cv_matrix layout_of(const cv_learner *l, size_t rows, size_t cols)
{
    cv_matrix m;
    cv_matrix_layout(l->options.bf16 ? CV_BF16 : CV_F32, rows, cols, &m);
    m.rounded = l->options.bf16;
    return m;
}

static size_t panels_bytes(const cv_matrix *m)
{
    return (m->rows + CV_PANEL - 1) / CV_PANEL * m->panel_bytes;
}

static corvid_status count_view(void *ctx, const cv_view *view, corvid_error *err)
{
    census *c = ctx;
    (void)err;
    c->n++;
    if (!is_direct(view->field)) c->floats += 2 * cv_padded(view->rows * view->cols);
    if (is_matrix(view->field)) {
        const cv_matrix turned = layout_of(c->learner, view->cols, view->rows);
        c->panel_bytes += panels_bytes(&turned);
        c->n_matrices++;
    }
    return CORVID_OK;
}

/* Gives a view its places.  The counters of the census are where the next ones begin. */
static corvid_status place_view(void *ctx, const cv_view *view, corvid_error *err)
{
    census *c = ctx;
    cv_learner *l = c->learner;
    (void)err;
    cv_param *p = &l->params[c->n++];
    *p = (cv_param){ .view = *view, .n = view->rows * view->cols };
    p->direct = is_direct(view->field);
    void *slot = slot_of(&l->model, view);
    if (is_matrix(view->field)) {
        cv_matrix *matrix = slot;
        cv_trained *t = &l->trained[c->n_matrices++];
        t->turned = layout_of(l, view->cols, view->rows);
        t->turned.panels = l->panels + c->panel_bytes;
        c->panel_bytes += panels_bytes(&t->turned);
        t->value = l->block + c->floats;
        t->gradient = t->value + cv_padded(p->n);
        c->floats += 2 * cv_padded(p->n);
        p->value = t->value;
        p->gradient = t->gradient;
        const unsigned char *panels = matrix->panels; /* room for f32 is room for bf16 */
        *matrix = layout_of(l, view->rows, view->cols);
        matrix->panels = panels;
        matrix->trained = t;
        return CORVID_OK;
    }
    const unsigned char *bytes =
        view->field->kind == CV_TABLE ? ((cv_table *)slot)->bytes : *(const unsigned char **)slot;
    const size_t offset = (size_t)(bytes - l->model.weights) / sizeof(float);
    p->slot = (float *)(void *)l->model.weights + offset;
    p->slot_gradient = l->slots + offset;
    p->slot_n = view->field->flags & CV_PER_HEAD ? l->model.sizes.A : p->n;
    p->value = p->slot;
    p->gradient = p->slot_gradient;
    if (p->direct) return CORVID_OK;
    p->value = l->block + c->floats;
    p->gradient = p->value + cv_padded(p->n);
    c->floats += 2 * cv_padded(p->n);
    return CORVID_OK;
}

/* The official values of a parameter, [rows][cols]. */
static corvid_status read_values(const cv_learner *l, const cv_source *source, const cv_param *p,
                                 corvid_error *err)
{
    const cv_view *v = &p->view;
    unsigned char *raw = NULL;
    float *values = NULL;
    cv_view flat = *v;
    flat.cols = 1;
    corvid_status status =
        cv_alloc_or_fail(l->mem, p->n, sizeof(double), v->name, (void **)&raw, err);
    if (status == CORVID_OK)
        status = cv_alloc_or_fail(l->mem, p->n, sizeof *values, v->name, (void **)&values, err);
    if (status == CORVID_OK) status = cv_source_read(source, &flat, 0, p->n, raw, err);
    if (status == CORVID_OK) {
        cv_to_f32(v->dtype, raw, values, p->n);
        const bool baked = cv_source_baked(source, v->field);
        for (size_t i = 0; i < p->n; i++) {
            const size_t at = v->transposed ? i % v->cols * v->rows + i / v->cols : i;
            p->value[i] = values[at] * v->scale;
            if (baked) p->value[i] = cv_transform_undo(v->field->transform, p->value[i]);
        }
    }
    cv_free(l->mem, raw);
    cv_free(l->mem, values);
    return status;
}

static corvid_status take_params(cv_learner *l, const cv_source *source, corvid_error *err)
{
    census c = { .learner = l };
    CV_TRY(cv_source_each(source, count_view, &c, err));
    l->n_params = c.n;
    l->n_trained = c.n_matrices;
    l->params = cv_alloc_zero(l->mem, c.n, sizeof *l->params);
    l->trained = cv_alloc_zero(l->mem, c.n_matrices, sizeof *l->trained);
    l->block = cv_alloc_huge(l->mem, (c.floats + 16) * sizeof(float));
    l->slots = cv_alloc_huge(l->mem, l->model.weight_bytes);
    l->panels = cv_alloc_huge(l->mem, c.panel_bytes + 64);
    if (!l->params || !l->trained || !l->block || !l->slots || !l->panels)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu parameters with gradients",
                       c.floats / 2);
    c = (census){ .learner = l };
    CV_TRY(cv_source_each(source, place_view, &c, err));
    for (size_t i = 0; i < l->n_params; i++)
        CV_TRY(read_values(l, source, &l->params[i], err));
    return CORVID_OK;
}

/* A source that gives the model its layout: the shapes of another, all of f32, without numbers. */
static void no_values(const cv_source *source, const cv_view *view, size_t first, size_t n,
                      float *out)
{
    (void)source;
    (void)view;
    (void)first;
    memset(out, 0, n * sizeof *out);
}

/* A checkpoint's optional tensors are there or not, which a source without one cannot tell: the
 * model is laid out from the checkpoint itself where that is of f32. */
static corvid_status lay_out_model(cv_learner *l, const cv_source *source, corvid_error *err)
{
    cv_source shapes = *source;
    if (!source->ckpt) {
        shapes.random_type = CV_F32;
        shapes.random_values = no_values;
    }
    const cv_load_options load = { .team = l->team, .group_norm_eps = 64e-5f, .as_f32 = true };
    return cv_weights_load(l->mem, &shapes, &load, &l->model, err);
}

corvid_status cv_learner_open(const corvid_allocator *mem, cv_team *team, const cv_kernels *kernel,
                              const cv_source *source, const cv_learner_options *options,
                              cv_learner *out, corvid_error *err)
{
    *out = (cv_learner){ .mem = mem, .team = team, .kernel = kernel, .source = *source };
    if (options) out->options = *options;
    corvid_status status = lay_out_model(out, source, err);
    if (status == CORVID_OK) status = take_params(out, source, err);
    if (status != CORVID_OK) {
        cv_learner_close(out);
        return status;
    }
    cv_learner_publish(out);
    return CORVID_OK;
}

void cv_learner_close(cv_learner *l)
{
    if (!l->mem) return;
    cv_room_close(l->mem, &l->room);
    cv_free(l->mem, l->sequences);
    cv_free(l->mem, l->states);
    cv_free(l->mem, l->start_gradients);
    cv_free(l->mem, l->images);
    cv_free(l->mem, l->grids);
    cv_free(l->mem, l->keep);
    cv_free(l->mem, l->best);
    cv_free(l->mem, l->params);
    cv_free(l->mem, l->trained);
    cv_free(l->mem, l->block);
    cv_free(l->mem, l->slots);
    cv_free(l->mem, l->panels);
    cv_weights_free(&l->model);
    *l = (cv_learner){ .mem = NULL };
}

size_t cv_learner_bytes(const cv_learner *l)
{
    const size_t states = 1 + (l->start_gradients ? 2 : 1) * l->max_sequences;
    size_t floats = cv_room_floats(&l->room, cv_team_size(l->team));
    if (l->states) floats += states * l->state_size;
    for (size_t i = 0; i < l->n_params; i++)
        floats += 4 * l->params[i].n; /* value, gradient, two layouts or moments */
    return floats * sizeof(float);
}

cv_taped_weights cv_learner_weights(const cv_learner *l)
{
    return (cv_taped_weights){ .values = (const float *)(const void *)l->model.weights,
                               .gradients = l->slots,
                               .n = l->model.weight_bytes / sizeof(float) };
}

/* ---- Between official values and those of the model ------------------------------------------- */

static void clear_work(const cv_member *me, void *arg)
{
    cv_learner *l = arg;
    size_t lo, hi;
    cv_share(me, l->model.weight_bytes / sizeof(float), &lo, &hi);
    memset(l->slots + lo, 0, (hi - lo) * sizeof *l->slots);
    for (size_t i = 0; i < l->n_params; i++) {
        const cv_param *p = &l->params[i];
        if (p->direct) continue;
        cv_share(me, p->n, &lo, &hi);
        memset(p->gradient + lo, 0, (hi - lo) * sizeof *p->gradient);
    }
}

void cv_learner_clear(cv_learner *l)
{
    cv_team_run(l->team, clear_work, l);
}

/* dy/dx of a transform, from y. */
static float slope(cv_transform transform, float x, float y)
{
    switch (transform) {
    case CV_ONE_MINUS: return -1.0f;
    case CV_NEG_EXP:
    case CV_EXP: return y;
    case CV_EXP_NEG_EXP: return -expf(x) * y;
    case CV_AS_IS: break;
    }
    return 1.0f;
}

void cv_learner_gather(cv_learner *l)
{
    for (size_t i = 0; i < l->n_params; i++) {
        const cv_param *p = &l->params[i];
        if (!p->slot || p->direct) continue;
        const size_t each = p->slot_n / p->n; /* numbers of the slot per value */
        for (size_t j = 0; j < p->n; j++) {
            float sum = 0.0f;
            for (size_t k = j * each; k < (j + 1) * each; k++)
                sum += p->slot_gradient[k];
            p->gradient[j] = sum * slope(p->view.field->transform, p->value[j], p->slot[j * each]);
        }
    }
}

static void publish_work(const cv_member *me, void *arg)
{
    cv_learner *l = arg;
    size_t lo, hi;
    cv_share(me, l->n_params, &lo, &hi);
    for (size_t i = 0; i < l->n_params; i++) {
        const cv_param *p = &l->params[i];
        if (!p->slot) {
            cv_trained_lay_out(me, l->kernel, slot_of(&l->model, &p->view));
            continue;
        }
        if (p->direct || i < lo || i >= hi) continue;
        for (size_t j = 0; j < p->slot_n; j++)
            p->slot[j] =
                cv_transform_value(p->view.field->transform, p->value[j / (p->slot_n / p->n)]);
    }
}

void cv_learner_publish(cv_learner *l)
{
    cv_team_run(l->team, publish_work, l);
}

/* ---- Saving ---------------------------------------------------------------------------------- */

static void param_values(const cv_source *source, const cv_view *view, size_t first, size_t n,
                         float *out)
{
    const cv_learner *l = source->values_of;
    for (size_t i = 0; i < l->n_params; i++)
        if (l->params[i].view.field == view->field && l->params[i].view.layer == view->layer) {
            memcpy(out, l->params[i].value + first, n * sizeof *out);
            return;
        }
    memset(out, 0, n * sizeof *out);
}

cv_source cv_learner_source(const cv_learner *l)
{
    cv_source source = l->source;
    source.ckpt = NULL;
    source.dialect = CV_OFFICIAL;
    source.random_type = CV_F32;
    source.random_values = param_values;
    source.values_of = l;
    return source;
}
